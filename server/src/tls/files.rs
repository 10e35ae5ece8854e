//! Files of the data folder: where they are, and how they are written, whole or not at all.
//!
//! Always: a reader finds the old content or the new; a secret is never readable by others, not for a moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::TlsError;

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

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Everybody: certificates.
    Public,
    /// The owner: keys.
    Secret,
}

/// Reads a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces a file: a temporary one beside it, flushed, renamed, and the folder flushed. After an error the old content
/// stands.
pub(super) fn write(path: &Path, content: &str, access: Access) -> Result<(), TlsError> {
    try_write(path, content.as_bytes(), access)
        .map_err(|source| TlsError::Write { path: path.to_owned(), source })
}

fn try_write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mode = match access {
        Access::Public => 0o644,
        Access::Secret => 0o600,
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // What a crash left behind: `create_new` below does not write into a file that somebody else opened.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    flush_folder_of(path)
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

fn flush_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn modes_and_content_are_as_asked_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(folder.path().join("key.new"), "left by a crash").unwrap();
        for content in ["one", "two"] {
            write(&path, content, Access::Secret).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read(&folder.path().join("none")).unwrap(), None);
    }
}
