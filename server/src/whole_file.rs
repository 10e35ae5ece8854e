//! Files that are written whole or not at all.
//!
//! Always: a reader finds the old content or the new; a secret is never readable by others, not for a moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everybody: certificates.
    Public,
    /// The owner: keys.
    Secret,
}

/// Replaces a file: a temporary one beside it, flushed, renamed, and the folder flushed. After an error the old content
/// stands.
///
/// # Errors
/// What the disk said.
pub fn write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
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

/// Flushes the folder that a file is in, so that its name is there after a crash.
///
/// # Errors
/// What the disk said.
pub fn flush_folder_of(path: &Path) -> io::Result<()> {
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
            write(&path, content.as_bytes(), Access::Secret).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
