//! Opens a file of the folder, and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::OFlags;
use tokio::task::spawn_blocking;

/// The longest name of a file.
const MAX_NAME: usize = 128;

/// A file that is open, as it was then.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// In bytes.
    pub(super) length: u64,
    pub(super) state: FileState,
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileState {
    device: u64,
    inode: u64,
    length: u64,
    changed_at: Option<SystemTime>,
    /// Of the inode, in nanoseconds: nobody sets that back.
    status_changed_at: (i64, i64),
}

/// Whether it is a name that can stand for a file of the folder: one word, without a dot in front.
pub(super) fn is_plain(name: &str) -> bool {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= MAX_NAME
        && name.bytes().all(is_of_word)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// Opens a file for reading, by a name that is plain.
///
/// # Errors
/// Not there: neither is what is no regular file, or is a link that leads out of the folder.
pub(super) async fn open(folder: &Path, name: &str) -> io::Result<Opened> {
    let (folder, path) = (folder.to_owned(), folder.join(name));
    let opened = spawn_blocking(move || {
        let not_there = || io::Error::from(io::ErrorKind::NotFound);
        // A folder whose files are links to one inside it is usual where containers are configured.
        let (folder, path) = (folder.canonicalize()?, path.canonicalize()?);
        if !path.starts_with(&folder) {
            return Err(not_there());
        }
        // A pipe would be waited for, and a link that was put there meanwhile is not followed.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(not_there());
        }
        let state = FileState {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            changed_at: found.modified().ok(),
            status_changed_at: (found.ctime(), found.ctime_nsec()),
        };
        Ok(Opened { file, length: found.len(), state })
    });
    opened.await.map_err(io::Error::other)?
}
