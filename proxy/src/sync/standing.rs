//! How this proxy stands with its server: the state folder, the token to use, the keys and the pin.
//!
//! In: the configuration, the state folder, the token file, and what the server says of itself.
//! Out: what a connection needs. Always: the token file wins when its content is new, and is recorded once the server
//! took it; a key is pinned before a list is verified with it. Never: dials.

use std::time::SystemTime;

use pulse_proto::signature::PublicKey;
use pulse_proto::{Pin, Position, SignedAllowlist, Token, v1};
use uuid::Uuid;

use super::apply::cut;
use crate::cache::{self, CacheError, Cached, Expected};
use crate::config::ControlPlane;
use crate::identity::trusted::{Offered, trust};
use crate::identity::{Folder, Home, Identity, IdentityError, Mark, read_seed};
use crate::telemetry::chain;
use crate::tls::Trust;

/// How this proxy stands with its server.
#[derive(Debug)]
pub struct Standing {
    home: Home,
    control: ControlPlane,
    place: Option<(Folder, Identity)>,
    token: Option<ChosenToken>,
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
    /// It stands in the token file, and the server has not taken it yet.
    is_new_seed: bool,
}

impl Standing {
    /// Reads how things stand. Writes nothing.
    ///
    /// # Errors
    /// The state folder cannot be read, or is damaged.
    pub fn load(home: Home, control: ControlPlane) -> Result<Standing, IdentityError> {
        let mut standing = Standing {
            home,
            control,
            place: None,
            token: None,
            seed_trouble: None,
            revoked_in_memory: None,
            stranger: None,
        };
        standing.refresh()?;
        Ok(standing)
    }

    /// Reads it again, since a registration or a person may have changed it. Says whether anything is new.
    ///
    /// # Errors
    /// As [`Standing::load`]; then everything stays as it was.
    pub fn refresh(&mut self) -> Result<bool, IdentityError> {
        // What could not be written is known in memory only, and must not be forgotten for that.
        let place = self.home.find(&self.control.url)?.or_else(|| self.place.clone());
        let kept = match &place {
            Some((folder, _)) => folder.token()?,
            None => None,
        };
        let seed = self.seed();
        let recorded = place.as_ref().and_then(|(_, identity)| identity.seed);
        let token = match (seed, kept) {
            (Some(seed), Some(_)) if recorded != Some(seed.digest()) => {
                Some(ChosenToken { token: seed, is_new_seed: true })
            }
            (Some(seed), None) => Some(ChosenToken { token: seed, is_new_seed: true }),
            (_, kept) => kept.map(|token| ChosenToken { token, is_new_seed: false }),
        };
        let is_new = token != self.token || place != self.place;
        if token != self.token {
            self.revoked_in_memory = None;
        }
        (self.place, self.token) = (place, token);
        Ok(is_new)
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

    /// The server's pinned TLS key, if there is one: the configuration's, else the registration's.
    pub fn pin(&self) -> Option<Pin> {
        self.control.pin.or_else(|| self.identity().and_then(|identity| identity.pin))
    }

    /// What makes the server the right one.
    pub fn trust(&self) -> Trust {
        Trust::choose(self.pin(), self.control.insecure_skip_verify, self.control.ca_file.as_deref())
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
        self.token.as_ref().is_some_and(|chosen| chosen.is_new_seed)
    }

    /// The keys that may sign lists.
    pub fn keys(&self) -> &[PublicKey] {
        self.identity().map(|identity| identity.keys.as_slice()).unwrap_or_default()
    }

    /// The newest list that was applied and kept.
    pub fn reached(&self) -> Position {
        self.identity().and_then(|identity| identity.mark).map(|mark| mark.position).unwrap_or_default()
    }

    /// The last applied list, from the disk.
    ///
    /// # Errors
    /// [`CacheError`]; `None`: the server is not known yet, so there can be none.
    pub fn cached(&self) -> Option<Result<Cached, CacheError>> {
        let (folder, identity) = self.place.as_ref()?;
        let path = folder.cache_path();
        let expected =
            Expected { proxy_id: identity.proxy_id, keys: &identity.keys, reached: self.reached() };
        Some(cache::load(&path, expected).and_then(|cached| match identity.mark {
            // One place in time has one list.
            Some(mark) if mark.position == cached.list.position && mark != mark_of(&cached.list) => {
                let what = "another list was applied at its revision".to_owned();
                Err(CacheError::Foreign { path, what })
            }
            _ => Ok(cached),
        }))
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
                if !self.has_new_seed() && self.home.folder(server_id).identity()?.is_none() =>
            {
                if self.stranger.replace(server_id) != Some(server_id) {
                    tracing::error!(%server_id, %registered_with,
                        "what answers is another server than the one this proxy is registered with: its signing keys are not taken; if that is intended, register again with a fresh join string");
                }
                return Ok(());
            }
            _ => self.meet(server_id, server)?,
        }
        let (url, keys) = (self.control.url.clone(), trust(self.keys(), offered(server)));
        let Some((folder, identity)) = &mut self.place else { return Ok(()) };
        for key in keys.iter().filter(|key| !identity.keys.contains(key)) {
            tracing::info!(
                key_id = key.key_id(),
                "a new signing key of the server is trusted: a known one announced it"
            );
        }
        let seed = self.token.as_ref().filter(|chosen| chosen.is_new_seed).map(|chosen| chosen.token.clone());
        if let Some(seed) = &seed {
            folder.keep_token(seed)?;
        }
        let is_settled = identity.keys == keys && identity.url == url && seed.is_none();
        identity.keys.clone_from(&keys);
        if is_settled {
            return Ok(());
        }
        let digest = seed.as_ref().map(Token::digest);
        let updated = folder.update(|identity| {
            (identity.keys, identity.url) = (keys, url);
            if digest.is_some() {
                (identity.seed, identity.revoked) = (digest, None);
            }
        })?;
        if let Some(updated) = updated {
            *identity = updated;
        }
        if let (Some(_), Some(chosen)) = (seed, &mut self.token) {
            tracing::info!(token_file = %self.control.token_file.display(), "the token in the token file is in use");
            chosen.is_new_seed = false;
        }
        Ok(())
    }

    /// Makes, or finds, the folder of a server that was not expected.
    fn meet(&mut self, server_id: Uuid, server: &v1::ServerInfo) -> Result<(), IdentityError> {
        let folder = self.home.folder(server_id);
        let turn = self.home.next_turn()?;
        if let Some(identity) = folder.identity()? {
            tracing::info!(%server_id, "the server is one that this proxy knows under another address");
            let url = self.control.url.clone();
            let updated = folder.update(|identity| (identity.turn, identity.url) = (turn, url))?;
            self.place = Some((folder, updated.unwrap_or(identity)));
            return Ok(());
        }
        let keys = trust(&[], offered(server));
        let key_ids: Vec<String> = keys.iter().map(PublicKey::key_id).collect();
        tracing::info!(%server_id, ?key_ids, "met the server for the first time: its signing keys are pinned from now on");
        let identity = Identity {
            server_id,
            turn,
            url: self.control.url.clone(),
            pin: self.control.pin,
            proxy_id: None,
            hostname: None,
            keys,
            mark: None,
            revoked: None,
            seed: None,
        };
        let created = folder.create(&identity);
        self.place = Some((folder, identity));
        created
    }

    /// Keeps a list, and then the mark behind which this proxy does not go back.
    ///
    /// # Errors
    /// What could not be written, for people; the caller puts the list in force all the same.
    pub fn keep(&mut self, list: &SignedAllowlist, at: SystemTime) -> Result<(), String> {
        let Some((folder, identity)) = &mut self.place else {
            return Err("the server has not said its id, so there is no folder for its list".to_owned());
        };
        let path = folder.cache_path();
        cache::store(&path, identity.proxy_id, list, at)
            .map_err(|error| format!("write {}: {error}", path.display()))?;
        let mark = mark_of(list);
        match folder.update(|identity| identity.mark = Some(mark)) {
            Ok(Some(updated)) => *identity = updated,
            Ok(None) => return Err(format!("{folder} was removed while this program runs")),
            Err(error) => return Err(chain(&error)),
        }
        Ok(())
    }

    /// Marks this proxy as revoked, and drops its list.
    ///
    /// # Errors
    /// It could not be written; it counts until the program ends all the same.
    pub fn revoke(&mut self, reason: &str) -> Result<(), IdentityError> {
        let reason = cut(reason.to_owned());
        self.revoked_in_memory = Some(reason.clone());
        let Some((folder, identity)) = &mut self.place else { return Ok(()) };
        // What is revoked is the token that was sent. One out of the token file is taken up with that, or it would count
        // as news at the next start, and the token before it as revoked.
        let seed = self.token.as_mut().filter(|chosen| chosen.is_new_seed);
        if let Some(chosen) = &seed {
            folder.keep_token(&chosen.token)?;
        }
        let digest = seed.as_ref().map(|chosen| chosen.token.digest());
        let updated = folder.update(|identity| {
            identity.revoked = Some(reason);
            identity.seed = digest.or(identity.seed);
        })?;
        if let Some(updated) = updated {
            *identity = updated;
        }
        if let Some(chosen) = seed {
            chosen.is_new_seed = false;
        }
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
            chosen.token = new;
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
        chosen.token = previous;
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
