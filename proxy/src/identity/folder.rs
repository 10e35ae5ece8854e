//! One server's folder: identity, token, and where the cache and the buffer stand.
//!
//! Always: a new token is on the disk before the old one is given up, and the old one stays beside it until the new one
//! has worked: the server drops a new token that is not used for ten minutes.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pulse_proto::Token;

use super::stored::Unusable;
use super::{Identity, IdentityError, Mark, stored};
use crate::disk::{self, read_given, read_private};

/// An identity has some hundred bytes, and a key more for each key that the server ever had.
const MAX_IDENTITY_BYTES: u64 = 64 << 10;
/// A token has 48 bytes; a file of a person may hold spaces and line ends around it.
const MAX_TOKEN_BYTES: u64 = 4 << 10;

const IDENTITY: &str = "identity.json";

/// How long another program on this host may hold the lock: it writes two small files.
const PATIENCE: Duration = Duration::from_secs(5);

/// One server's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Folder {
        Folder(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the last applied list stands.
    pub fn cache_path(&self) -> PathBuf {
        self.0.join("allowlist.cache")
    }

    /// Where readings wait over a restart.
    pub fn buffer_path(&self) -> PathBuf {
        self.0.join("readings.buffer")
    }

    /// Where the bearer of this proxy's own HTTP listener stands.
    pub fn listener_token_path(&self) -> PathBuf {
        self.0.join("listener-token")
    }

    /// Reads the identity; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let path = self.0.join(IDENTITY);
        let Some(bytes) = read_private(&path, MAX_IDENTITY_BYTES)? else { return Ok(None) };
        stored::decode(&bytes).map(Some).map_err(|error| match error {
            Unusable::Newer(format) => IdentityError::Newer { path, format },
            Unusable::Damaged(what) => IdentityError::Damaged { path, what },
        })
    }

    /// Writes the first identity of a folder, or replaces it as a whole, which only a registration does.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.create_with(identity, |_| Ok(()))
    }

    /// As [`Folder::create`]; `write_list` writes the list that the identity's mark speaks of, before the mark. It is not
    /// called if a newer one is there.
    ///
    /// # Errors
    /// One of them cannot be written.
    pub fn create_with(
        &self,
        identity: &Identity,
        write_list: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), IdentityError> {
        self.make()?;
        let _lock = self.lock()?;
        let mut identity = identity.clone();
        // A running proxy may have moved its mark on since the caller read it. A damaged file is replaced.
        let before = self.identity().ok().flatten().filter(|before| before.proxy_id == identity.proxy_id);
        let reached = before.and_then(|before| before.mark);
        if newest(reached, identity.mark) == identity.mark {
            self.write_list(write_list)?;
        }
        identity.mark = newest(reached, identity.mark);
        self.write(&identity)
    }

    /// Writes an identity that is in memory: changes the one on the disk as [`Folder::update`] does; if there is none, or
    /// one that is lost, the whole is written in its place. Returns what is there then.
    ///
    /// # Errors
    /// It cannot be written; or what is there cannot be read now, but perhaps later.
    pub fn save(
        &self,
        identity: &Identity,
        change: impl FnOnce(&mut Identity),
    ) -> Result<Identity, IdentityError> {
        self.make()?;
        let _lock = self.lock()?;
        let before = match self.identity() {
            Err(error) if error.is_lost() => {
                tracing::warn!(%error, "the identity is written anew");
                None
            }
            read => read?,
        };
        let mut after = match &before {
            // Somebody registered this host anew: that goes before what is in memory.
            Some(before) if (before.turn, before.proxy_id) != (identity.turn, identity.proxy_id) => {
                return Ok(before.clone());
            }
            Some(before) => before.clone(),
            None => identity.clone(),
        };
        change(&mut after);
        after.mark = newest(before.as_ref().and_then(|before| before.mark), after.mark);
        if before.as_ref() != Some(&after) {
            self.write(&after)?;
        }
        Ok(after)
    }

    /// Keeps a list: `write_list` writes its file, then the mark moves on, both under one lock. If a newer list was kept
    /// meanwhile, by another program on this host, that one stays. Returns what is there then; `None` if there is no
    /// identity.
    ///
    /// # Errors
    /// One of them cannot be written; the mark is never ahead of the file.
    pub fn keep(
        &self,
        mark: Mark,
        write_list: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<Option<Identity>, IdentityError> {
        let _lock = self.lock()?;
        let Some(before) = self.identity()? else { return Ok(None) };
        if newest(before.mark, Some(mark)) != Some(mark) {
            return Ok(Some(before));
        }
        self.write_list(write_list)?;
        let after = Identity { mark: Some(mark), ..before.clone() };
        if after != before {
            self.write(&after)?;
        }
        Ok(Some(after))
    }

    fn write_list(&self, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), IdentityError> {
        let path = self.cache_path();
        write(&path).map_err(|source| IdentityError::Write { path, source })
    }

    /// Makes the folder, if it is not there.
    fn make(&self) -> Result<(), IdentityError> {
        if self.0.is_dir() {
            return Ok(());
        }
        disk::make_private_folder(&self.0).map_err(|source| self.failed(IDENTITY, source))
    }

    /// Changes the identity: reads it again under the lock, so that nobody else's change is undone. Returns what is
    /// there afterwards; `None` if there was none to change.
    ///
    /// # Errors
    /// It cannot be read or written; then nothing is changed.
    pub fn update(&self, change: impl FnOnce(&mut Identity)) -> Result<Option<Identity>, IdentityError> {
        let _lock = self.lock()?;
        let Some(before) = self.identity()? else { return Ok(None) };
        let mut after = before.clone();
        change(&mut after);
        // The high-water mark moves forward only, whatever the caller holds in memory.
        after.mark = newest(before.mark, after.mark);
        if after != before {
            self.write(&after)?;
        }
        Ok(Some(after))
    }

    /// The token in use; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn token(&self) -> Result<Option<Token>, IdentityError> {
        self.read_token("token")
    }

    /// The token before the last rotation, until the new one has worked.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn previous_token(&self) -> Result<Option<Token>, IdentityError> {
        self.read_token("token.previous")
    }

    /// Keeps a token.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_token(&self, token: &Token) -> Result<(), IdentityError> {
        self.write_token("token", token)
    }

    /// Keeps a new token, and the old one until [`Folder::forget_previous_token`].
    ///
    /// # Errors
    /// One of them cannot be written; then the old one is still the token in use.
    pub fn rotate_token(&self, old: &Token, new: &Token) -> Result<(), IdentityError> {
        self.write_token("token.previous", old)?;
        self.write_token("token", new)
    }

    /// The new token has worked.
    ///
    /// # Errors
    /// The old one cannot be removed.
    pub fn forget_previous_token(&self) -> Result<(), IdentityError> {
        disk::remove(&self.0.join("token.previous")).map_err(|source| self.failed("token.previous", source))
    }

    fn read_token(&self, name: &str) -> Result<Option<Token>, IdentityError> {
        let path = self.0.join(name);
        let Some(bytes) = read_private(&path, MAX_TOKEN_BYTES)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let damaged =
            |error: pulse_proto::token::TokenError| IdentityError::Damaged { path, what: error.to_string() };
        Token::presented(&text).map(Some).map_err(damaged)
    }

    fn write_token(&self, name: &str, token: &Token) -> Result<(), IdentityError> {
        self.make()?;
        let _lock = self.lock()?;
        let text = format!("{}\n", token.reveal());
        disk::replace_private(&self.0.join(name), text.as_bytes()).map_err(|source| self.failed(name, source))
    }

    fn write(&self, identity: &Identity) -> Result<(), IdentityError> {
        disk::replace_private(&self.0.join(IDENTITY), &stored::encode(identity))
            .map_err(|source| self.failed(IDENTITY, source))
    }

    fn lock(&self) -> Result<File, IdentityError> {
        disk::lock_folder(&self.0, PATIENCE)
            .map_err(|source| IdentityError::Write { path: self.0.clone(), source })
    }

    fn failed(&self, name: &str, source: io::Error) -> IdentityError {
        IdentityError::Write { path: self.0.join(name), source }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// The mark that stands, when `after` is to follow `before`.
fn newest(before: Option<Mark>, after: Option<Mark>) -> Option<Mark> {
    let position = |mark: Option<Mark>| mark.map(|mark| mark.position);
    if position(before) > position(after) { before } else { after }
}

/// The token in the configuration's token file; `None` if there is no such file, or it is empty.
///
/// # Errors
/// What is wrong with the file, without its content.
pub fn read_seed(path: &Path) -> Result<Option<Token>, String> {
    // Opening a pipe would wait for whoever writes into it.
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err("it is not a plain file".to_owned());
    }
    let bytes = read_given(path, MAX_TOKEN_BYTES).map_err(|error| error.to_string())?;
    let Some(bytes) = bytes.filter(|bytes| !bytes.trim_ascii().is_empty()) else { return Ok(None) };
    let token = Token::presented(&String::from_utf8_lossy(&bytes));
    token.map(Some).map_err(|error| error.to_string())
}
