//! Who this proxy is to which server: the state folder `<state>/control/<server_id>/`.
//!
//! In: what a registration or the first authenticated stream says. Out: [`Identity`] and the tokens.
//! Always: 0600 files in 0700 folders, each written whole; a change reads the file again under a lock, so that
//! `register` and a running proxy do not undo each other; the high-water mark never goes back.
//! Never: shows a token, or repairs a damaged file by guessing.

mod folder;
mod pending;
mod stored;
pub mod trusted;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use pulse_proto::signature::PublicKey;
use pulse_proto::{ListHash, Pin, Position, Scope, TokenDigest};
use uuid::Uuid;

use crate::config::ServerUrl;
use crate::disk::{self, ReadError};

pub use folder::{Folder, read_seed};
pub use pending::{Pending, ProxyKind};

/// How long a second `run` waits for the first: `status` holds the lock for an instant.
const RUN_PATIENCE: Duration = Duration::from_millis(500);

/// What this proxy knows of itself and of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The server's database.
    pub server_id: Uuid,
    /// Grows with each registration and each first meeting: of several servers that were met at one address, as when
    /// one is set up anew, the one with the highest turn is there now.
    pub turn: u64,
    /// Where the server was when this was written.
    pub url: ServerUrl,
    /// The server's TLS key, if the join string named it.
    pub pin: Option<Pin>,
    /// The keys to which the server says that its certificate may lead, the newest first, heard over a connection that
    /// `pin` vouched for. Empty: only `pin` counts.
    pub ca_pins: Vec<Pin>,
    /// This proxy, as the server calls it; `None` with a configuration written by hand: then it was never told.
    pub proxy_id: Option<Uuid>,
    /// The name given at registration.
    pub hostname: Option<Hostname>,
    /// The keys that may sign lists.
    pub keys: Vec<PublicKey>,
    /// The newest list that was applied.
    pub mark: Option<Mark>,
    /// Why the server revoked this proxy, if it did.
    pub revoked: Option<String>,
    /// The token file's content when it was last taken up.
    pub seed: Option<TokenDigest>,
}

impl Identity {
    /// Every TLS key of the server that counts, the newest first.
    pub fn pins(&self) -> Vec<Pin> {
        match self.ca_pins.is_empty() {
            true => self.pin.into_iter().collect(),
            false => self.ca_pins.clone(),
        }
    }
}

/// A host's name at registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname {
    /// The name.
    pub name: String,
    /// Whether a person gave it: then the node of this name is this host.
    pub is_given: bool,
}

/// The newest list that was applied: a proxy never goes back behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where it stands in time.
    pub position: Position,
    /// Its scope.
    pub scope: Scope,
    /// Its hash.
    pub hash: ListHash,
}

/// What is wrong with the state folder.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be taken.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A folder cannot be listed.
    #[error("list the state folder {path}")]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{path} is damaged ({what}): register again, with a fresh join string from `pulse join create`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer version wrote it.
    #[error(
        "{path} was written by a newer version of this program (format {format}): install that version again, or move the folder away and register again, with a fresh join string from `pulse join create`"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it says.
        format: u32,
    },
    /// A file cannot be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another `run` has it.
    #[error(
        "another pulse-sensor-proxy runs on the state folder {0}: stop it, or give this one its own with --state-dir"
    )]
    InUse(PathBuf),
}

impl IdentityError {
    /// Whether a person must change something before another start helps.
    pub fn needs_a_person(&self) -> bool {
        match self {
            IdentityError::Damaged { .. } | IdentityError::Newer { .. } | IdentityError::InUse(_) => true,
            IdentityError::Read(error) => !matches!(error, ReadError::Io { .. }),
            IdentityError::List { .. } | IdentityError::Write { .. } => false,
        }
    }

    /// Whether the file can never be read again, so that another may take its place.
    fn is_lost(&self) -> bool {
        matches!(self, IdentityError::Damaged { .. })
            || matches!(self, IdentityError::Read(error) if !matches!(error, ReadError::Io { .. }))
    }
}

/// `<state>/control`: one folder for each server that this proxy was ever registered with.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// Held by the one `run` of a state folder; freed when dropped, also by the end of the process.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "the lock lives as long as the open folder")] File);

/// What there is in the state folder for one server.
#[derive(Debug)]
pub struct Found {
    /// The folder of the server, with its identity.
    pub place: Option<(Folder, Identity)>,
    /// Folders that may be the server's, and why nobody can tell.
    pub unreadable: Vec<(Folder, IdentityError)>,
}

impl Home {
    /// The home in a state folder, which need not exist.
    pub fn new(state_dir: &Path) -> Home {
        Home(state_dir.join("control"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes sure that no other `run` uses this state folder.
    ///
    /// # Errors
    /// [`IdentityError::InUse`], or the lock cannot be made.
    pub fn lock(&self) -> Result<RunLock, IdentityError> {
        let failed = |source| IdentityError::Write { path: self.0.clone(), source };
        if !self.0.is_dir() {
            disk::make_private_folder(&self.0).map_err(failed)?;
        }
        match disk::lock_folder(&self.0, RUN_PATIENCE) {
            Ok(folder) => Ok(RunLock(folder)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(IdentityError::InUse(self.0.clone()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether a `run` uses this state folder now.
    pub fn is_in_use(&self) -> bool {
        let folder = File::open(&self.0);
        folder.is_ok_and(|folder| matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The folder for a server: the one that was registered at `url` last, else the only one.
    ///
    /// # Errors
    /// The folders cannot be read, or the one that it would be is damaged.
    pub fn find(&self, url: &ServerUrl) -> Result<Option<(Folder, Identity)>, IdentityError> {
        let mut found = self.search(url)?;
        match (found.place, found.unreadable.pop()) {
            (Some(place), _) => Ok(Some(place)),
            (None, Some((_, error))) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// As [`Home::find`], also with folders that cannot be read: one of them may be the one, and a guess would drop its
    /// pin.
    ///
    /// # Errors
    /// The folders cannot be listed.
    pub fn search(&self, url: &ServerUrl) -> Result<Found, IdentityError> {
        let mut unreadable = Vec::new();
        let mut readable = Vec::new();
        for folder in self.folders()? {
            match folder.identity() {
                Ok(Some(identity)) => readable.push((folder, identity)),
                // A folder without an identity is what an interrupted registration leaves.
                Ok(None) => {}
                Err(error) => unreadable.push((folder, error)),
            }
        }
        let there = readable.iter().filter(|(_, identity)| identity.url == *url);
        let place = match there.max_by_key(|(_, identity)| identity.turn) {
            Some(newest) => Some(newest.clone()),
            None if unreadable.is_empty() && readable.len() == 1 => readable.pop(),
            None => None,
        };
        Ok(Found { place, unreadable })
    }

    /// The turn of the server that is met or registered with now.
    ///
    /// # Errors
    /// The folders cannot be listed. A damaged one does not count.
    pub fn next_turn(&self) -> Result<u64, IdentityError> {
        let folders = self.folders()?;
        let turns = folders.iter().filter_map(|folder| folder.identity().ok().flatten());
        Ok(turns.map(|identity| identity.turn).max().unwrap_or_default() + 1)
    }

    /// The folder of a server by its id, which need not exist.
    pub fn folder(&self, server_id: Uuid) -> Folder {
        Folder::new(self.0.join(server_id.to_string()))
    }

    fn folders(&self) -> Result<Vec<Folder>, IdentityError> {
        let failed = |source| IdentityError::List { path: self.0.clone(), source };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| Uuid::from_str(name).is_ok()) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths.into_iter().map(Folder::new).collect())
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests;
