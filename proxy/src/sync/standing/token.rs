//! Which token is used: the token file's, the state folder's, or one that is in memory only.
//!
//! In: both files, and whether the server took a token. Out: the token for calls. Always: the token file wins when its
//! content is new, and is recorded once the server took it. Never: shows a token.

use pulse_proto::Token;

use super::{Standing, Unsaved};
use crate::identity::{Folder, Identity, IdentityError, read_seed};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChosenToken {
    pub(super) token: Token,
    pub(super) origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The state folder.
    Kept,
    /// The token file, and the server has not taken it yet.
    NewSeed,
    /// It is in use, but does not stand in the state folder.
    Unsaved,
}

impl Standing {
    /// The token for calls; `None`: there is none, and a person must register this proxy.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref().map(|chosen| &chosen.token)
    }

    /// Chooses among the token file's token, the one in use and the state folder's (`Err`: it cannot be read).
    pub(super) fn choose_token(
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

    pub(super) fn has_new_seed(&self) -> bool {
        self.token.as_ref().is_some_and(|chosen| chosen.origin == Origin::NewSeed)
    }

    /// Notes that the token of the token file is the one in use, together with what else that means for the identity.
    pub(super) fn take_up_seed(&mut self, change: impl FnOnce(&mut Identity)) {
        let (Some((_, identity)), Some(chosen)) = (&mut self.place, &mut self.token) else { return };
        if chosen.origin == Origin::NewSeed {
            tracing::info!(token_file = %self.control.token_file.display(), "the token in the token file is in use");
            (identity.seed, identity.revoked) = (Some(chosen.token.digest()), None);
            chosen.origin = Origin::Unsaved;
            self.unsaved = Some(Unsaved { with_token: true });
        }
        change(identity);
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
    pub(super) fn seed(&mut self) -> Option<Token> {
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
