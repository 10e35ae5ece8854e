//! Makes a backup of the running server, as a stream.
//!
//! Always: the database's part is a consistent copy that was checked; no more than some chunks are in memory; one
//! backup at a time. Whoever stops reading ends it, and the copy goes.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pulse_proto::Clock;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use super::{
    BackupError, DATABASE, FORMAT, FORMAT_VERSION, Hashing, KEY_FILES, MANIFEST, Manifest, Part, SECRET_KEY,
    SUMS, part, sums,
};
use crate::api::time;
use crate::sealing::{SealingError, SealingKey};
use crate::store::{Copied, DatabaseCopy, Store, StoreError};

/// The copy of the database, while a backup is made.
const COPY: &str = "pulse.db.copy";
/// The size of a chunk of the stream.
const CHUNK_BYTES: usize = 128 << 10;
/// How many chunks wait for whoever reads.
const CHUNKS: usize = 4;
/// How long whoever reads may take for one chunk: a disk that is busy writes 128 KiB in less, and somebody who stopped
/// must not keep the copy on the disk, and others from their backup, for ever.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often files are read again because they were exchanged meanwhile.
const LOOKS: usize = 10;

/// Makes backups, one at a time. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Backups {
    data_dir: PathBuf,
    clock: Clock,
    turn: Arc<Mutex<()>>,
}

/// A backup that is ready to be read: what is in it, and its bytes.
#[derive(Debug)]
pub struct Stream {
    /// What is in it.
    pub manifest: Manifest,
    /// Its bytes; an error cuts it short.
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Backups {
    /// Of this data folder.
    pub fn new(data_dir: &Path, clock: Clock) -> Backups {
        Backups { data_dir: data_dir.to_owned(), clock, turn: Arc::default() }
    }

    /// Removes what a backup left that was cut short with its program. The server has the folder's lock.
    pub fn sweep(&self) {
        for name in [COPY.to_owned(), format!("{COPY}-journal")] {
            let path = self.data_dir.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what an unfinished backup left"),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "what an unfinished backup left cannot be removed");
                }
            }
        }
    }

    /// Keeps backups away until this is dropped: while a key of theirs is exchanged.
    ///
    /// # Errors
    /// [`BackupError::InUse`] while one is made.
    pub fn hold_off(&self) -> Result<OwnedMutexGuard<()>, BackupError> {
        Arc::clone(&self.turn).try_lock_owned().map_err(|_| {
            BackupError::InUse("a backup is being made: wait until it is done, and try again".to_owned())
        })
    }

    /// Copies what belongs to a backup, and begins its stream. Cancel safe.
    ///
    /// # Errors
    /// [`BackupError::InUse`] while another one is made, else what could not be copied.
    pub async fn begin(&self, store: &Store) -> Result<Stream, BackupError> {
        let turn = Arc::clone(&self.turn).try_lock_owned();
        let turn = turn.map_err(|_| {
            BackupError::InUse(
                "another backup is being made, or the sealing key is exchanged: wait until it is done, and try again"
                    .to_owned(),
            )
        })?;
        let made_at = time(self.clock.now());
        let copied = store.copy(&self.data_dir.join(COPY)).await?;
        let (data_dir, secret_key_file) = (self.data_dir.clone(), store.key_elsewhere());
        let is_elsewhere = secret_key_file.is_some();
        let gathered = tokio::task::spawn_blocking(move || {
            let database = part_of_file(DATABASE, copied.copy.path())?;
            let mut keys = read_keys(&data_dir)?;
            if is_elsewhere {
                // One that lies there from earlier opens nothing.
                keys.retain(|(name, _)| *name != SECRET_KEY);
            } else {
                check_key(&copied, &data_dir.join(SECRET_KEY), &keys)?;
            }
            Ok::<_, BackupError>((copied, database, keys))
        });
        let gathered = gathered.await.map_err(|error| BackupError::Other(error.to_string()))?;
        let (copied, database, keys) = gathered?;
        let parts = std::iter::once(database).chain(keys.iter().map(|(name, content)| part(name, content)));
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made_at,
            server_id: copied.server_id,
            epoch: copied.epoch,
            revision: copied.revision,
            schema: copied.schema,
            secret_key_file,
            parts: parts.collect(),
        };
        let (chunks_tx, chunks) = mpsc::channel(CHUNKS);
        let (described, copy) = (manifest.clone(), copied.copy);
        tokio::task::spawn_blocking(move || send(&described, copy, &keys, chunks_tx, turn));
        Ok(Stream { manifest, chunks })
    }
}

/// Key files and certificates with their names. They are read until two looks agree, since a certificate and its key
/// may be exchanged in between.
fn read_keys(data_dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, BackupError> {
    let look = || {
        let mut found = Vec::new();
        for name in KEY_FILES {
            let path = data_dir.join(name);
            match std::fs::read(&path) {
                Ok(content) => found.push((name, content)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(BackupError::file(format!("read {}", path.display()), error)),
            }
        }
        Ok(found)
    };
    let mut before = look()?;
    for _ in 0..LOOKS {
        let now = look()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    let text = format!("the keys in {} are exchanged all the time: what does that?", data_dir.display());
    Err(BackupError::Other(text))
}

/// Refuses to make a backup that nobody could open.
fn check_key(copied: &Copied, path: &Path, keys: &[(&'static str, Vec<u8>)]) -> Result<(), BackupError> {
    let found = keys.iter().find(|(name, _)| *name == SECRET_KEY);
    let key = found.map_or_else(
        || Err(SealingError::Missing(path.to_owned())),
        |(_, text)| SealingKey::parse(text, path),
    );
    Ok(copied.is_opened_by(&key.map_err(StoreError::from)?)?)
}

fn part_of_file(name: &str, path: &Path) -> Result<Part, BackupError> {
    let failed = |error| BackupError::file(format!("read {}", path.display()), error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hashing, mut bytes) = (Hashing::new(), 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Part { name: name.to_owned(), bytes, sha256: hashing.hex() }),
            read => {
                hashing.add(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// Writes the archive to whoever reads; its last error is told in the stream, so that what was cut short is no archive.
fn send(
    manifest: &Manifest,
    copy: DatabaseCopy,
    keys: &[(&'static str, Vec<u8>)],
    chunks_tx: mpsc::Sender<io::Result<Bytes>>,
    turn: OwnedMutexGuard<()>,
) {
    let chunks = Chunks { chunks_tx: chunks_tx.clone(), patience: PATIENCE, is_over: false };
    let done = archive(manifest, &copy, keys, chunks);
    // Before the error is told, which waits as long as the reader likes.
    drop((copy, turn));
    if let Err(error) = done {
        tracing::warn!(%error, "a backup was not read to its end");
        // Whoever read it may be gone.
        let _ = chunks_tx.blocking_send(Err(error));
    }
}

fn archive(
    manifest: &Manifest,
    copy: &DatabaseCopy,
    keys: &[(&'static str, Vec<u8>)],
    chunks: Chunks,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(CHUNK_BYTES, chunks));
    let modified = manifest.made_at.as_second().unsigned_abs();
    let described = serde_json::to_vec_pretty(manifest)?;
    archive.append_data(&mut header(described.len() as u64, modified), MANIFEST, described.as_slice())?;
    let mut database = File::open(copy.path())?;
    let bytes = database.metadata()?.len();
    archive.append_data(&mut header(bytes, modified), DATABASE, &mut database)?;
    for (name, content) in keys {
        archive.append_data(&mut header(content.len() as u64, modified), name, content.as_slice())?;
    }
    let sums = sums(&described, manifest);
    archive.append_data(&mut header(sums.len() as u64, modified), SUMS, sums.as_bytes())?;
    let mut writer = archive.into_inner()?;
    writer.flush()
}

fn header(bytes: u64, modified: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(modified);
    header
}

/// Gives what is written to whoever reads the stream. Needs a thread that may wait.
struct Chunks {
    chunks_tx: mpsc::Sender<io::Result<Bytes>>,
    patience: Duration,
    /// Whether a chunk was not taken: then none is any more, though writers above still write when they are dropped.
    is_over: bool,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_over {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let sent = self.chunks_tx.send_timeout(Ok(Bytes::copy_from_slice(bytes)), self.patience);
        let sent = Handle::current().block_on(sent);
        self.is_over = sent.is_err();
        sent.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => io::Error::new(
                ErrorKind::TimedOut,
                format!("whoever asked for it took none of it for {} s", self.patience.as_secs()),
            ),
            SendTimeoutError::Closed(_) => {
                io::Error::new(ErrorKind::BrokenPipe, "whoever asked for it went away")
            }
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_stopped_is_not_waited_for_for_ever() {
        let (chunks_tx, mut chunks) = mpsc::channel(1);
        let mut writer = Chunks { chunks_tx, patience: Duration::from_millis(20), is_over: false };
        let written = tokio::task::spawn_blocking(move || {
            [&b"first"[..], b"second", b"third"]
                .map(|bytes| writer.write(bytes).map_err(|error| error.kind()))
        });
        let kinds = (Err(ErrorKind::TimedOut), Err(ErrorKind::BrokenPipe));
        let [first, second, third] = written.await.unwrap();
        assert_eq!((first, (second, third)), (Ok(5), kinds), "and it is waited for once only");
        assert_eq!(chunks.recv().await.unwrap().unwrap(), "first");
        assert!(chunks.recv().await.is_none(), "and no more came");
    }
}
