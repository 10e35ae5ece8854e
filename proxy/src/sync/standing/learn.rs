//! What the server says of itself: met for the first time, met anew, or one more key.
//!
//! In: [`v1::ServerInfo`] of an authenticated stream. Out: an identity. Always: a key is pinned before a list is verified
//! with it. Never: takes a server that this proxy is not registered with for its own, unless a person brought a new token, or
//! it was met before and has the same TLS key.

use pulse_proto::signature::PublicKey;
use pulse_proto::{Pin, v1};
use uuid::Uuid;

use super::token::Origin;
use super::{Standing, Unsaved, mark_of};
use crate::cache;
use crate::identity::trusted::{Offered, trust};
use crate::identity::{Identity, IdentityError};
use crate::sync::pins::announced_pins;

impl Standing {
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
            Some(registered_with) if !self.has_new_seed() && !self.is_vouched_for(server_id) => {
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

    /// Whether this is a server that was met before, and what vouched for the present connection vouches for it too.
    /// Otherwise whoever has the certificate of one server could speak for another, or leave this proxy with a pin that
    /// does not fit what is there.
    fn is_vouched_for(&self, server_id: Uuid) -> bool {
        let Ok(Some(other)) = self.home.folder(server_id).identity() else { return false };
        let (ours, theirs) = (self.pins(), other.pins());
        theirs.iter().any(|pin| ours.contains(pin)) || (ours.is_empty() && theirs.is_empty())
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
}

/// The keys as the server says them.
pub(crate) fn offered(server: &v1::ServerInfo) -> impl Iterator<Item = Offered<'_>> + Clone {
    server.signing_keys.iter().map(|key| Offered {
        public_key: &key.public_key,
        announcement_signature: &key.announcement_signature,
        announced_by: &key.announced_by,
    })
}
