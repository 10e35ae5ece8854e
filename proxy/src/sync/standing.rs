//! How this proxy stands with its server: the state folder, the token to use, the keys and the pin.
//!
//! In: the configuration, the state folder, the token file, and what the server says of itself.
//! Out: what a connection needs. Always: the token file wins when its content is new, and is recorded once the server
//! took it; a key is pinned before a list is verified with it; what cannot be written counts in memory, and is written when
//! the disk can be written again. Never: dials, or gives up because of a file that it cannot read.

use std::time::SystemTime;

use pulse_proto::signature::PublicKey;
use pulse_proto::{Pin, Position, SignedAllowlist, Token, v1};
use uuid::Uuid;

use super::apply::cut;
use super::pins::announced_pins;
use crate::cache::{self, CacheError, Cached, Expected};
use crate::config::ControlPlane;
use crate::identity::trusted::{Offered, trust};
use crate::identity::{Folder, Found, Home, Identity, IdentityError, Mark, read_seed};
use crate::telemetry::chain;
use crate::tls::Trust;

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

#[derive(Clone, Debug, PartialEq)]
struct ChosenToken {
    token: Token,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The state folder.
    Kept,
    /// The token file, and the server has not taken it yet.
    NewSeed,
    /// It is in use, but does not stand in the state folder.
    Unsaved,
}

/// An identity that is newer in memory than on the disk.
#[derive(Clone, Copy, Debug)]
struct Unsaved {
    /// Whether the token's side of it is: the seed that was taken up, and the revocation.
    with_token: bool,
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

/// Why this proxy could not begin with the list that it kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptProblem {
    /// What it is.
    pub problem: v1::KeptListProblem,
    /// The same in one word.
    pub reason: &'static str,
    /// For people.
    pub text: String,
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

    /// Chooses among the token file's token, the one in use and the state folder's (`Err`: it cannot be read).
    fn choose_token(
        &mut self,
        identity: Option<&Identity>,
        kept: Result<Option<Token>, ()>,
    ) -> Option<ChosenToken> {
        let recorded = identity.and_then(|identity| identity.seed);
        let is_new = |seed: &Token| recorded != Some(seed.digest());
        let in_use = self.token.clone().filter(|chosen| chosen.origin == Origin::Unsaved);
        let with = |token, origin| Some(ChosenToken { token, origin });
        match (self.seed(), kept) {
            // Without an identity nothing says whether the token file is newer: what the server gave last goes first.
            (Some(seed), Ok(Some(_))) if identity.is_some() && is_new(&seed) => with(seed, Origin::NewSeed),
            (Some(seed), Ok(None) | Err(())) if is_new(&seed) => with(seed, Origin::NewSeed),
            _ if in_use.is_some() => in_use,
            (_, Ok(Some(kept))) => with(kept, Origin::Kept),
            (None, Ok(None)) => None,
            // The state folder's token is gone, or cannot be read.
            (seed, Ok(None) | Err(())) => {
                let token = seed.or_else(|| self.token.as_ref().map(|chosen| chosen.token.clone()));
                token.and_then(|token| with(token, Origin::Unsaved))
            }
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

    /// The token for calls; `None`: there is none, and a person must register this proxy.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref().map(|chosen| &chosen.token)
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

    fn has_new_seed(&self) -> bool {
        self.token.as_ref().is_some_and(|chosen| chosen.origin == Origin::NewSeed)
    }

    /// The keys that may sign lists.
    pub fn keys(&self) -> &[PublicKey] {
        self.identity().map(|identity| identity.keys.as_slice()).unwrap_or_default()
    }

    /// The newest list that was applied and kept.
    pub fn reached(&self) -> Position {
        self.identity().and_then(|identity| identity.mark).map(|mark| mark.position).unwrap_or_default()
    }

    /// The last applied list, from the disk; why there is none is kept for the server.
    ///
    /// # Errors
    /// [`CacheError`]; `None`: the server is not known yet, so there can be none.
    pub fn cached(&mut self) -> Option<Result<Cached, CacheError>> {
        let (folder, identity) = self.place.as_ref()?;
        let path = folder.cache_path();
        let expected =
            Expected { proxy_id: identity.proxy_id, keys: &identity.keys, reached: self.reached() };
        let loaded = cache::load(&path, expected).and_then(|cached| match identity.mark {
            // One place in time has one list.
            Some(mark) if mark.position == cached.list.position && mark != mark_of(&cached.list) => {
                let what = "another list was applied at its revision".to_owned();
                Err(CacheError::Foreign { path, what })
            }
            _ => Ok(cached),
        });
        match &loaded {
            Ok(cached) => {
                self.kept_key = Some(cached.list.key_id.clone());
                self.kept_problem = None;
            }
            Err(error) => self.kept_problem = KeptProblem::of(error),
        }
        Some(loaded)
    }

    /// Why this proxy could not begin with the list that it kept; `None`: it did, or there never was one.
    pub fn kept_problem(&self) -> Option<&KeptProblem> {
        self.kept_problem.as_ref()
    }

    /// Takes note of what the server says of itself on an authenticated stream: learns it the first time, else adds
    /// the keys that a known one announces. The token has worked, so it is recorded.
    ///
    /// # Errors
    /// The state folder cannot be written or read; what could be learnt is in memory all the same.
    pub fn learn(&mut self, server: &v1::ServerInfo) -> Result<(), IdentityError> {
        let Ok(server_id) = Uuid::parse_str(&server.server_id) else {
            tracing::warn!(server_id = %server.server_id.escape_debug(), "the server's id is no UUID; nothing is learnt");
            return Ok(());
        };
        match self.identity().map(|identity| identity.server_id) {
            Some(registered_with) if registered_with == server_id => self.stranger = None,
            // A new token is a person's word for a new server. Without it, whoever stands in for the server could say
            // that it is another one, and bring keys of its own.
            Some(registered_with)
                if !self.has_new_seed() && !matches!(self.home.folder(server_id).identity(), Ok(Some(_))) =>
            {
                if self.stranger.replace(server_id) != Some(server_id) {
                    tracing::error!(%server_id, %registered_with,
                        "what answers is another server than the one this proxy is registered with: its signing keys are not taken; if that is intended, register again with a fresh join string");
                }
                return Ok(());
            }
            _ => self.meet(server_id, server),
        }
        let keys = trust(self.keys(), offered(server), self.kept_key.as_deref());
        let ca_pins = announced_pins(server, &keys, &self.pins());
        let Some((_, identity)) = &mut self.place else { return Ok(()) };
        if let Some(ca_pins) = ca_pins {
            if identity.pins() != ca_pins {
                let pins: Vec<String> = ca_pins.iter().map(Pin::to_string).collect();
                tracing::info!(
                    ?pins,
                    "the server announced to which keys its certificate leads: these are pinned from now on"
                );
            }
            let pin = self.control.pin.or(ca_pins.first().copied());
            if (identity.pin, &identity.ca_pins) != (pin, &ca_pins) {
                (identity.pin, identity.ca_pins) = (pin, ca_pins);
                self.unsaved.get_or_insert(Unsaved { with_token: false });
            }
        }
        for key in keys.iter().filter(|key| !identity.keys.contains(key)) {
            tracing::info!(
                key_id = key.key_id(),
                "a new signing key of the server is trusted: a known one announced it"
            );
        }
        for key in identity.keys.iter().filter(|key| !keys.contains(key)) {
            tracing::info!(
                key_id = key.key_id(),
                "an old signing key of the server is trusted no longer: there are newer ones"
            );
        }
        if identity.keys != keys || identity.url != self.control.url {
            (identity.keys, identity.url) = (keys, self.control.url.clone());
            self.unsaved.get_or_insert(Unsaved { with_token: false });
        }
        self.take_up_seed(|_| {});
        self.save()
    }

    /// Notes that the token of the token file is the one in use, together with what else that means for the identity.
    fn take_up_seed(&mut self, change: impl FnOnce(&mut Identity)) {
        let (Some((_, identity)), Some(chosen)) = (&mut self.place, &mut self.token) else { return };
        if chosen.origin == Origin::NewSeed {
            tracing::info!(token_file = %self.control.token_file.display(), "the token in the token file is in use");
            (identity.seed, identity.revoked) = (Some(chosen.token.digest()), None);
            chosen.origin = Origin::Unsaved;
            self.unsaved = Some(Unsaved { with_token: true });
        }
        change(identity);
    }

    /// Writes what is known and not on the disk: the token in use, then the identity. Costs nothing if all of it is.
    ///
    /// # Errors
    /// It cannot be written; it counts in memory, and the next call tries again.
    pub fn save(&mut self) -> Result<(), IdentityError> {
        let Some((folder, identity)) = &mut self.place else { return Ok(()) };
        if let Some(chosen) = self.token.as_mut().filter(|chosen| chosen.origin == Origin::Unsaved) {
            folder.keep_token(&chosen.token)?;
            chosen.origin = Origin::Kept;
        }
        if let Some(Unsaved { with_token }) = self.unsaved {
            let memory = identity.clone();
            *identity = folder.save(&memory, |disk| {
                (disk.turn, disk.url, disk.keys) = (memory.turn, memory.url.clone(), memory.keys.clone());
                (disk.pin, disk.ca_pins) = (memory.pin, memory.ca_pins.clone());
                if with_token {
                    (disk.seed, disk.revoked) = (memory.seed, memory.revoked.clone());
                }
            })?;
            self.unsaved = None;
        }
        Ok(())
    }

    /// Makes, or finds, the folder of a server that was not expected.
    fn meet(&mut self, server_id: Uuid, server: &v1::ServerInfo) {
        let folder = self.home.folder(server_id);
        // A folder that cannot be listed has no turns to go behind.
        let turn = self.home.next_turn().unwrap_or(1);
        self.unsaved = Some(Unsaved { with_token: false });
        let before = folder.identity();
        if let Ok(Some(identity)) = before {
            tracing::info!(%server_id, "the server is one that this proxy knows under another address");
            self.place = Some((folder, Identity { turn, url: self.control.url.clone(), ..identity }));
            return;
        }
        let keys = trust(&[], offered(server), None);
        let key_ids: Vec<String> = keys.iter().map(PublicKey::key_id).collect();
        // The kept list says who this proxy is and how far it had come, and the server's key vouches for it.
        let recovered = if before.is_err() { cache::recover(&folder.cache_path(), &keys) } else { None };
        match &before {
            Err(error) => tracing::warn!(%server_id, ?key_ids, %error, recovered = recovered.is_some(),
                "this proxy's identity is lost, and the server is the trusted one: it is met anew, and its signing keys are pinned from now on"),
            Ok(_) => {
                tracing::info!(%server_id, ?key_ids, "met the server for the first time: its signing keys are pinned from now on");
            }
        }
        // The kept token has worked, and went before the token file's: that one counts as taken up.
        let is_kept = self.token.as_ref().is_some_and(|chosen| chosen.origin == Origin::Kept);
        let seed = if is_kept { self.seed().map(|seed| seed.digest()) } else { None };
        let identity = Identity {
            server_id,
            turn,
            url: self.control.url.clone(),
            pin: self.control.pin,
            ca_pins: Vec::new(),
            proxy_id: recovered.as_ref().and_then(|(owner, _)| *owner),
            hostname: None,
            keys,
            mark: recovered.map(|(_, list)| mark_of(&list)),
            revoked: None,
            seed,
        };
        if let Some(chosen) = self.token.as_mut().filter(|chosen| chosen.origin == Origin::Kept)
            && !matches!(folder.token(), Ok(Some(kept)) if kept == chosen.token)
        {
            chosen.origin = Origin::Unsaved;
        }
        self.place = Some((folder, identity));
    }

    /// Keeps a list, and then the mark behind which this proxy does not go back, under one lock.
    ///
    /// # Errors
    /// What could not be written, for people; the caller puts the list in force all the same.
    pub fn keep(&mut self, list: &SignedAllowlist, at: SystemTime) -> Result<(), String> {
        if self.place.is_none() {
            return Err("the server has not said its id, so there is no folder for its list".to_owned());
        }
        self.save().map_err(|error| chain(&error))?;
        let Some((folder, identity)) = &mut self.place else { return Ok(()) };
        let proxy_id = identity.proxy_id;
        match folder.keep(mark_of(list), |path| cache::store(path, proxy_id, list, at)) {
            Ok(Some(updated)) => *identity = updated,
            kept => {
                // Gone or lost while this program runs: the next attempt writes it anew.
                self.unsaved.get_or_insert(Unsaved { with_token: false });
                let gone = || format!("{folder} was removed while this program runs");
                return Err(kept.err().map_or_else(gone, |error| chain(&error)));
            }
        }
        self.kept_key = Some(list.key_id.clone());
        Ok(())
    }

    /// Marks this proxy as revoked, and drops its list.
    ///
    /// # Errors
    /// It could not be written; it counts until the program ends all the same.
    pub fn revoke(&mut self, reason: &str) -> Result<(), IdentityError> {
        let reason = cut(reason.to_owned());
        self.revoked_in_memory = Some(reason.clone());
        // What is revoked is the token that was sent. One out of the token file is taken up with that, or it would count
        // as news at the next start, and the token before it as revoked.
        self.take_up_seed(|identity| identity.revoked = Some(reason));
        if self.place.is_some() {
            self.unsaved = Some(Unsaved { with_token: true });
        }
        self.save()?;
        let Some((folder, _)) = &self.place else { return Ok(()) };
        let path = folder.cache_path();
        crate::disk::remove(&path).map_err(|source| IdentityError::Write { path, source })
    }

    /// Takes a new token from a rotation: on the disk first, then in use.
    ///
    /// # Errors
    /// It cannot be written; the old one stays in use.
    pub fn rotate(&mut self, new: Token) -> Result<(), IdentityError> {
        if let (Some((folder, _)), Some(chosen)) = (&self.place, &mut self.token) {
            folder.rotate_token(&chosen.token, &new)?;
            (chosen.token, chosen.origin) = (new, Origin::Kept);
        }
        Ok(())
    }

    /// The token has worked: the one before a rotation is of no use any more.
    pub fn confirm_token(&self) {
        if let Some(Err(error)) = self.folder().map(Folder::forget_previous_token) {
            tracing::debug!(%error, "the token before the last rotation stays on the disk");
        }
    }

    /// Goes back to the token before the last rotation, if the new one never worked. Says whether there was one.
    pub fn take_back_token(&mut self) -> bool {
        let (Some((folder, _)), Some(chosen)) = (&self.place, &mut self.token) else { return false };
        let Ok(Some(previous)) = folder.previous_token() else { return false };
        if previous == chosen.token || folder.keep_token(&previous).is_err() {
            return false;
        }
        (chosen.token, chosen.origin) = (previous, Origin::Kept);
        folder.forget_previous_token().is_ok()
    }

    /// The token file's token; trouble with the file is said when it begins.
    fn seed(&mut self) -> Option<Token> {
        let path = &self.control.token_file;
        match read_seed(path) {
            Ok(seed) => {
                self.seed_trouble = None;
                seed
            }
            Err(trouble) => {
                if self.seed_trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(token_file = %path.display(), error = %trouble, "the token file is not used");
                    self.seed_trouble = Some(trouble);
                }
                None
            }
        }
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

impl KeptProblem {
    fn of(error: &CacheError) -> Option<KeptProblem> {
        let problem = match error {
            CacheError::NoneYet(_) => return None,
            CacheError::Missing { .. } => v1::KeptListProblem::Missing,
            CacheError::Unreadable(_) => v1::KeptListProblem::Unreadable,
            CacheError::Damaged { .. } => v1::KeptListProblem::Damaged,
            CacheError::Older { .. } => v1::KeptListProblem::Older,
            CacheError::Foreign { .. } => v1::KeptListProblem::Foreign,
        };
        Some(KeptProblem { problem, reason: error.reason(), text: cut(chain(error)) })
    }
}

/// What is remembered of an applied list.
pub(crate) fn mark_of(list: &SignedAllowlist) -> Mark {
    Mark { position: list.position, scope: list.scope, hash: list.allowlist.hash() }
}

/// The keys as the server says them.
pub(crate) fn offered(server: &v1::ServerInfo) -> impl Iterator<Item = Offered<'_>> + Clone {
    server.signing_keys.iter().map(|key| Offered {
        public_key: &key.public_key,
        announcement_signature: &key.announcement_signature,
        announced_by: &key.announced_by,
    })
}
