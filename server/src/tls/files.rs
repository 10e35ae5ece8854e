//! Files of the data folder that TLS has: where they are, and how they are read and written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::TlsError;
pub(super) use crate::whole_file::Access;
use crate::whole_file::{self, flush_folder_of};

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) ca_certificate: PathBuf,
    pub(super) ca_key: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// While the authority's key is exchanged: what leads from the one before to this one.
    pub(super) bridge: PathBuf,
    /// The next key, for the moment in which the bridge is built.
    pub(super) next_ca_key: PathBuf,
}

impl Paths {
    pub(super) fn in_folder(folder: &Path) -> Paths {
        Paths {
            ca_certificate: folder.join("ca.pem"),
            ca_key: folder.join("ca.key"),
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
            bridge: folder.join("ca-bridge.pem"),
            next_ca_key: folder.join("ca-next.key"),
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.ca_key.parent().map(Path::to_owned).unwrap_or_default()
    }
}

/// Reads a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces a file, whole or not at all.
pub(super) fn write(path: &Path, content: &str, access: Access) -> Result<(), TlsError> {
    whole_file::write(path, content.as_bytes(), access)
        .map_err(|source| TlsError::Write { path: path.to_owned(), source })
}

/// Puts one file in the place of another, in one step.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), TlsError> {
    let placed = fs::rename(from, to).and_then(|()| flush_folder_of(to));
    placed.map_err(|source| TlsError::Write { path: to.to_owned(), source })
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), TlsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed
            .and_then(|()| flush_folder_of(path))
            .map_err(|source| TlsError::Write { path: path.to_owned(), source }),
    }
}
