//! The database as files: who works on its folder, and a copy of it.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::engine::sealed;
use super::{StoreError, sqlite};
use crate::sealing::SealingKey;

/// The lock that says who works on a data folder: one server, or one restore. It ends when this is dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: std::fs::File,
}

impl DataLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if a server or a restore has the folder, [`StoreError::Database`] if the lock file cannot
    /// be made.
    pub fn take(data_dir: &Path) -> Result<DataLock, StoreError> {
        sqlite::schema::lock(data_dir).map(|_file| DataLock { _file })
    }
}

/// A copy of the database in a file of its own, which goes when this is dropped.
#[derive(Debug)]
pub struct DatabaseCopy {
    pub(super) path: PathBuf,
}

impl DatabaseCopy {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DatabaseCopy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "the copy of the database cannot be removed");
        }
    }
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// The file.
    pub copy: DatabaseCopy,
    /// The identity of the database.
    pub server_id: Uuid,
    /// The fleet's epoch.
    pub epoch: u64,
    /// The fleet's revision.
    pub revision: u64,
    /// The version of the schema.
    pub schema: u64,
    /// The key that signs lists, sealed.
    pub(super) signing_key: Vec<u8>,
}

impl Copied {
    /// Whether this key opens what is sealed in the copy.
    ///
    /// # Errors
    /// [`SealingError::Wrong`](crate::sealing::SealingError::Wrong).
    pub fn is_opened_by(&self, key: &SealingKey) -> Result<(), StoreError> {
        let place = sealed::place(sealed::SIGNING, self.server_id);
        Ok(key.open_sealed(&place, &self.signing_key).map(drop)?)
    }
}
