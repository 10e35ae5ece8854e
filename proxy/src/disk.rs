//! Files that nobody else may read, whole or absent.
//!
//! In: bytes and a path. Out: the same bytes, later. Always: written to a temporary name, flushed, renamed, the folder
//! flushed; mode 0600, folders 0700; read without following a link at the end of the path, only from this user or
//! root, and only up to a bound. Never: decides what the bytes mean.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock that is held is asked for again: who holds one writes a small file.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why a file of ours is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened or read.
    #[error("read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a link, a folder or a device.
    #[error("{0} is not a plain file (links are not followed here); remove it")]
    NotAFile(PathBuf),
    /// Somebody else owns it or can write it.
    #[error(
        "{path} belongs to user {owner} with mode {mode:04o}: only this user or root may own or write it; chown and chmod 0600 it, or remove it"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// It is larger than such a file can be.
    #[error("{path} is larger than {max_bytes} bytes; it is not what it should be, remove it")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most bytes that are read.
        max_bytes: u64,
    },
}

/// Reads a file of ours; `None` if there is none.
///
/// # Errors
/// [`ReadError`]; nothing of the file is given out then.
pub fn read_private(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("open flags fit an int");
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // What O_NOFOLLOW says of a link (open(2)).
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(ReadError::NotAFile(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    };
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(ReadError::NotAFile(path.to_owned()));
    }
    let (owner, mode) = (about.uid(), about.mode() & 0o7777);
    if (owner != 0 && owner != rustix::process::geteuid().as_raw()) || mode & 0o022 != 0 {
        return Err(ReadError::Foreign { path: path.to_owned(), owner, mode });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len().min(max_bytes)).unwrap_or_default());
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ReadError::TooLarge { path: path.to_owned(), max_bytes });
    }
    Ok(Some(bytes))
}

/// Reads a file that a person or an installer put there, which may be a link; `None` if there is none.
///
/// # Errors
/// It cannot be read, or is longer than `max_bytes`.
pub fn read_given(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {max_bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// Writes a file, 0600, so that it is the old one or the new one at every moment, and on the disk when this returns.
///
/// # Errors
/// The step that failed; the old file is untouched unless only the last flush of the folder failed.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with_mode(path, bytes, 0o600)
}

/// As [`write_private`], also where a folder stands in the way of the file: it gets another name.
///
/// # Errors
/// The step that failed.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A renamed file takes the place of whatever stands there, but not of a folder.
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
        set_aside(path)?;
    }
    write_private(path, bytes)
}

/// As [`write_private`], for a file that has a mode already, like a configuration.
///
/// # Errors
/// The step that failed.
pub fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let no_name = || io::Error::new(ErrorKind::InvalidInput, "the path names no file");
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no_name)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // One name for all attempts: what a crash leaves behind is taken away by the next write.
    let temporary = folder.join(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to tell; a temporary file that stays does no harm.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Removes a file and flushes its folder; a file that is not there is as good.
///
/// # Errors
/// It is still there, or the folder was not flushed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether something could be written into a folder, or into what is there of the way to it. Writes nothing.
///
/// # Errors
/// What the system says: no right, or a disk that is mounted read-only. A full disk is not told.
pub fn check_writable(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let there = folder.ancestors().find(|path| path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Gives what stands at a path another name, `PATH.damaged`, so that there is room for a file. Returns that name; what had
/// it before is gone.
///
/// # Errors
/// It cannot be renamed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Locks a folder for this process, against others that ask for the same lock; freed when the file is dropped. Writes
/// nothing, so it works on a disk that cannot be written.
///
/// # Errors
/// The folder cannot be opened; [`ErrorKind::WouldBlock`]: another process has it and did not free it for `patience`.
pub fn lock_folder(folder: &Path, patience: Duration) -> io::Result<File> {
    let file = File::open(folder)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            Err(TryLockError::WouldBlock) => return Err(ErrorKind::WouldBlock.into()),
            // Some file systems of a network know no locks of folders. There the lock is missing, not the folder.
            Err(TryLockError::Error(error)) => {
                tracing::debug!(folder = %folder.display(), %error, "a folder cannot be locked; this goes on without");
                return Ok(file);
            }
        }
    }
}

/// Makes a folder and those above it, 0700; one that is there stays as it is.
///
/// # Errors
/// It cannot be made.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_written_file_is_private_and_leaves_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(folder.path().join(".token.new"), "left by a crash").unwrap();
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_private(&path, 10).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_foreign_modes_folders_and_long_files_are_each_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(read_private(&path, 10).unwrap().is_none());
        write_private(&path, b"0123456789").unwrap();
        assert!(matches!(read_private(&path, 9), Err(ReadError::TooLarge { .. })));
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(read_private(&link, 10), Err(ReadError::NotAFile(_))));
        assert!(matches!(read_private(folder.path(), 10), Err(ReadError::NotAFile(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(read_private(&path, 10), Err(ReadError::Foreign { mode: 0o666, .. })));
    }

    #[test]
    fn a_folder_to_be_made_is_writable_where_the_way_to_it_is() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().join("a/b")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(check_writable(&folder.path().join("file/b")).is_err());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::create_dir(&path).unwrap();
        assert!(write_private(&path, b"x").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
