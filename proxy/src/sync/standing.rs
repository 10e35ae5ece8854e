//! How this proxy stands with its server: the state folder, the token to use, the keys and the pin.
//!
//! In: the configuration, the state folder, the token file, and what the server says of itself.
//! Out: what a connection needs. Always: the token file wins when its content is new, and is recorded once the server
//! took it; a key is pinned before a list is verified with it; what cannot be written counts in memory, and is written when
//! the disk can be written again. Never: dials, or gives up because of a file that it cannot read.

mod kept;
mod learn;
mod token;

use pulse_proto::signature::PublicKey;
use pulse_proto::{Pin, Position};
use uuid::Uuid;

use super::apply::cut;
use crate::config::ControlPlane;
use crate::identity::{Folder, Found, Home, Identity, IdentityError};
use crate::telemetry::chain;
use crate::tls::Trust;

pub use kept::KeptProblem;
use kept::Unsaved;
pub(crate) use kept::mark_of;
pub(crate) use learn::offered;
use token::{ChosenToken, Origin};

/// How this proxy stands with its server.
#[derive(Debug)]
pub struct Standing {
    home: Home,
    control: ControlPlane,
    place: Option<(Folder, Identity)>,
    token: Option<ChosenToken>,
    /// What of the identity is not on the disk.
    unsaved: Option<Unsaved>,
    /// What of the state folder cannot be read. Said once, not at each attempt.
    trouble: Option<StateTrouble>,
    /// The key of the list on the disk, without which it could not be verified.
    kept_key: Option<String>,
    /// Why there was no list to begin with.
    kept_problem: Option<KeptProblem>,
    /// Said once, not at each attempt.
    seed_trouble: Option<String>,
    /// A revocation that no folder could record.
    revoked_in_memory: Option<String>,
    /// A server that this proxy is not registered with, as it was said in the log.
    stranger: Option<Uuid>,
}

/// What of the state folder cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTrouble {
    /// Which file, why, and what to do.
    pub text: String,
    /// Whether only a person can mend it.
    pub needs_a_person: bool,
    /// Whether a pin may be lost with it.
    is_identity: bool,
}

impl Standing {
    /// Reads how things stand. Writes nothing; what cannot be read is in [`Standing::trouble`].
    pub fn load(home: Home, control: ControlPlane) -> Standing {
        let mut standing = Standing {
            home,
            control,
            place: None,
            token: None,
            unsaved: None,
            trouble: None,
            kept_key: None,
            kept_problem: None,
            seed_trouble: None,
            revoked_in_memory: None,
            stranger: None,
        };
        standing.refresh();
        standing
    }

    /// Reads it again, since a registration or a person may have changed it. Says whether anything is new.
    pub fn refresh(&mut self) -> bool {
        let (found, mut trouble, unreadable) = self.search();
        let place = match (found, &self.place) {
            (Some(found), Some(known)) if self.unsaved.is_some() && !goes_before(&found, known) => {
                Some(known.clone())
            }
            (Some(found), _) => {
                self.unsaved = None;
                Some(found)
            }
            // What could not be written is known in memory only, and must not be forgotten for that; what was harmed since
            // is written anew.
            (None, known) => {
                if known.is_some() && trouble.is_some() {
                    self.unsaved = Some(Unsaved { with_token: true });
                }
                known.clone()
            }
        };
        let who = |place: &Option<(Folder, Identity)>| {
            place.as_ref().map(|(folder, identity)| (folder.clone(), identity.turn, identity.proxy_id))
        };
        if who(&place) != who(&self.place) {
            // Another registration has a token of its own.
            self.token = self.token.take().filter(|chosen| chosen.origin != Origin::Unsaved);
        }
        let kept = match place.as_ref().map(|(folder, _)| folder).or(unreadable.as_ref()).map(Folder::token) {
            Some(Err(error)) => {
                trouble.get_or_insert(StateTrouble::of(&error, false));
                Err(())
            }
            Some(Ok(kept)) => Ok(kept),
            None => Ok(None),
        };
        let token = self.choose_token(place.as_ref().map(|(_, identity)| identity), kept);
        self.tell(trouble);
        let is_new = token != self.token || place != self.place;
        if token != self.token {
            self.revoked_in_memory = None;
        }
        (self.place, self.token) = (place, token);
        is_new
    }

    /// The server's folder; what cannot be read; and the one folder that may be the server's.
    fn search(&self) -> (Option<(Folder, Identity)>, Option<StateTrouble>, Option<Folder>) {
        match self.home.search(&self.control.url) {
            Ok(Found { place: Some(place), .. }) => (Some(place), None, None),
            Ok(Found { place: None, mut unreadable }) => {
                let trouble = unreadable.first().map(|(_, error)| StateTrouble::of(error, true));
                let only =
                    if unreadable.len() == 1 { unreadable.pop().map(|(folder, _)| folder) } else { None };
                (None, trouble, only)
            }
            Err(error) => (None, Some(StateTrouble::of(&error, true)), None),
        }
    }

    /// Says once what of the state folder cannot be read, and once that it can be.
    fn tell(&mut self, trouble: Option<StateTrouble>) {
        if trouble == self.trouble {
            return;
        }
        match &trouble {
            Some(trouble) => tracing::error!(
                error = trouble.text,
                "the state folder cannot be read whole; this proxy works on without that"
            ),
            None => tracing::info!("the state folder can be read again"),
        }
        self.trouble = trouble;
    }

    /// What of the state folder cannot be read.
    pub fn trouble(&self) -> Option<&StateTrouble> {
        self.trouble.as_ref()
    }

    /// The state folder, once the server is known.
    pub fn folder(&self) -> Option<&Folder> {
        self.place.as_ref().map(|(folder, _)| folder)
    }

    /// Who this proxy is, once the server is known.
    pub fn identity(&self) -> Option<&Identity> {
        self.place.as_ref().map(|(_, identity)| identity)
    }

    /// What the configuration says of the server.
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// Where everything stands.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The server's pinned TLS keys, the newest first: the configuration's, else the registration's; or in place of that
    /// one those that the server announced. Empty: no key is pinned.
    pub fn pins(&self) -> Vec<Pin> {
        match (self.control.pin, self.identity()) {
            // What was heard over a connection that another key vouched for does not count.
            (Some(pin), Some(identity)) if identity.pin == Some(pin) => identity.pins(),
            (Some(pin), _) => vec![pin],
            (None, identity) => identity.map(Identity::pins).unwrap_or_default(),
        }
    }

    /// What makes the server the right one.
    pub fn trust(&self) -> Trust {
        // A pin that cannot be read is one that nobody could fit: `insecure_skip_verify` does not stand in for it.
        let may_have_had_a_pin =
            self.identity().is_none() && self.trouble.as_ref().is_some_and(|trouble| trouble.is_identity);
        let skips = self.control.insecure_skip_verify && !may_have_had_a_pin;
        Trust::choose(self.pins(), skips, self.control.ca_file.as_deref())
    }

    /// Why this proxy may read nothing, if it is revoked. A new token in the token file is a new beginning.
    pub fn revoked(&self) -> Option<&str> {
        if self.has_new_seed() {
            return self.revoked_in_memory.as_deref();
        }
        let recorded = self.identity().and_then(|identity| identity.revoked.as_deref());
        recorded.or(self.revoked_in_memory.as_deref())
    }

    /// The keys that may sign lists.
    pub fn keys(&self) -> &[PublicKey] {
        self.identity().map(|identity| identity.keys.as_slice()).unwrap_or_default()
    }

    /// The newest list that was applied and kept.
    pub fn reached(&self) -> Position {
        self.identity().and_then(|identity| identity.mark).map(|mark| mark.position).unwrap_or_default()
    }
}

/// Whether an identity on the disk goes before one that is in memory and could not be written: then it is newer, a
/// registration's.
fn goes_before((folder, on_disk): &(Folder, Identity), (known, in_memory): &(Folder, Identity)) -> bool {
    if folder == known {
        (on_disk.turn, on_disk.proxy_id) != (in_memory.turn, in_memory.proxy_id)
    } else {
        on_disk.turn >= in_memory.turn
    }
}

impl StateTrouble {
    fn of(error: &IdentityError, is_identity: bool) -> StateTrouble {
        StateTrouble { text: chain(error), needs_a_person: error.needs_a_person(), is_identity }
    }
}
