//! What stands on the disk: the list that was applied last, and what of the identity could not be written.
//!
//! In: lists that were verified, and what the server says. Out: the list to begin with, or why there is none.
//! Always: what cannot be written counts in memory, and the next call tries again. Never: verifies by rules of its own.

use std::time::SystemTime;

use pulse_proto::{SignedAllowlist, v1};

use super::token::Origin;
use super::{Standing, cut};
use crate::cache::{self, CacheError, Cached, Expected};
use crate::identity::{IdentityError, Mark};
use crate::telemetry::chain;

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

/// An identity that is newer in memory than on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsaved {
    /// Whether the token's side of it is: the seed that was taken up, and the revocation.
    pub(super) with_token: bool,
}

impl Standing {
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
            // The file of a proxy that was never told its id names no owner, and could be any such proxy's of this server.
            Some(mark) if identity.proxy_id.is_none() && mark.scope != cached.list.scope => {
                let what = format!("it is of scope {}, and {} was applied", cached.list.scope, mark.scope);
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
