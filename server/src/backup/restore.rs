//! Puts a backup back into a data folder on which no server runs.
//!
//! In: a backup, and the folder. Out: the folder as the backup has it; what was there, in a folder beside.
//! Always: all is unpacked, checked and brought up to date beside the present files before one of those is moved.
//! From then on there is one way only, forward: what was cut short is gone on with, by the next restore or the next
//! start of the server. Files belong to the owner of the data folder. Never: deletes what was there.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pulse_proto::Clock;
use serde_json::json;

use super::{BackupError, DATABASE, KEY_FILES, Manifest, SECRET_KEY, read};
use crate::audit::{Actor, Entry, Outcome};
use crate::changes::{ChangeError, Changes, LoadError};
use crate::store::{Checked, DataLock, Retention, Store, check};
use crate::whole_file;

/// Where the backup is unpacked; what is left of it counts for nothing.
const UNPACKED: &str = "restore.new";
/// Complete, and the files that were there are moved out of the way.
const READY: &str = "restore.ready";
/// What was there is out of the way, and the files take their places.
const MOVING: &str = "restore.moving";
/// In it: the name of the folder for what was there.
const ASIDE: &str = "aside";
/// What stands beside the database and its keys while a server runs, or after it was killed.
const OF_THE_DATABASE: [&str; 5] =
    [DATABASE, "pulse.db-wal", "pulse.db-shm", "pulse.db-journal", "secret.key.next"];
/// What everybody may read: certificates.
const PUBLIC: [&str; 3] = ["ca.pem", "ca-bridge.pem", "server.pem"];
/// The folder's lock, which is not part of what is put back.
const LOCK: &str = "pulse.lock";

/// A backup that is unpacked and checked beside the files of a data folder.
#[derive(Debug)]
pub struct Unpacked {
    data_dir: PathBuf,
    folder: RemoveOnDrop,
    /// The file of the key under which its database is sealed.
    secret_key: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
    /// What a check of its database found.
    pub checked: Checked,
    /// Whether an earlier restore was gone on with first, and where that put what was there.
    pub finished_before: Option<Finished>,
    _lock: DataLock,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// Where the files are that were there; `None`: there were none.
    pub aside: Option<PathBuf>,
}

/// What was put back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Where the files are that were there; `None`: there were none.
    pub aside: Option<PathBuf>,
    /// The fleet's epoch from now on.
    pub epoch: u64,
    /// The fleet's revision from now on.
    pub revision: u64,
}

/// Unpacks a backup into the data folder and checks it as a whole. Makes the folder if it is not there; changes
/// nothing else in it. Dropping the result takes it away again. Blocks for as long as it takes to read the file.
///
/// If the key that opens the database is no part of the backup, it is the one in `secret_key`, which the server will use.
///
/// # Errors
/// [`BackupError::InUse`] if a server runs on the folder; what is wrong with the file; what cannot be written.
pub fn unpack(file: &Path, data_dir: &Path, secret_key: &Path) -> Result<Unpacked, BackupError> {
    // Before anything is made: a file that is not there, or is something else, changes nothing at all.
    read::verify(file)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|error| BackupError::file(format!("make the data folder {}", data_dir.display()), error))?;
    let lock = DataLock::take(data_dir)?;
    give_to_owner(&data_dir.join(LOCK), data_dir, 0o600)?;
    let finished_before = go_on(data_dir)?;
    let folder = data_dir.join(UNPACKED);
    remove_unpacked(data_dir)?;
    let made = DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|error| BackupError::file(format!("make {}", folder.display()), error))?;
    let folder = RemoveOnDrop(Some(folder));
    let manifest = read::unpack(file, folder.path(), |_| true)?;
    let secret_key = key_of(folder.path(), data_dir, secret_key)?;
    let checked = check(&folder.path().join(DATABASE), &secret_key)?;
    let data_dir = data_dir.to_owned();
    Ok(Unpacked { data_dir, folder, secret_key, manifest, checked, finished_before, _lock: lock })
}

/// The file of the key for what was unpacked: a part of the backup, or the server's. One that lies in the data folder is copied, as
/// what lies there is moved aside.
fn key_of(unpacked: &Path, data_dir: &Path, secret_key: &Path) -> Result<PathBuf, BackupError> {
    let (part, own) = (unpacked.join(SECRET_KEY), data_dir.join(SECRET_KEY));
    if part.exists() {
        return Ok(part);
    }
    if secret_key != own {
        return Ok(secret_key.to_owned());
    }
    match fs::read(&own) {
        Ok(text) => {
            let copied = whole_file::write(&part, &text, whole_file::Access::Secret);
            copied.map_err(|error| BackupError::file(format!("write {}", part.display()), error))?;
        }
        // The database is of a time when nothing was sealed, or the check says that it is needed.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(BackupError::file(format!("read {}", own.display()), error)),
    }
    Ok(part)
}

impl Unpacked {
    /// Whether there is a database that would be moved aside.
    pub fn replaces(&self) -> bool {
        self.data_dir.join(DATABASE).exists()
    }

    /// Brings the database up to date, notes the restore in its audit log, ends the log-ins that are in it, begins a new epoch if
    /// that is asked for, and puts all in its place.
    ///
    /// # Errors
    /// [`BackupError`]. If that was in the middle of moving files, the text says how to go on.
    pub async fn put_in_place(
        mut self,
        actor: &Actor,
        new_epoch: bool,
        clock: &Clock,
    ) -> Result<Restored, BackupError> {
        let (epoch, revision) = self.bring_up_to_date(actor, new_epoch, clock).await?;
        let unpacked = self.folder.path().to_owned();
        let aside = self.name_aside(clock.now());
        let write = |error| BackupError::file(format!("write in {}", unpacked.display()), error);
        for name in [LOCK, "pulse.db-wal", "pulse.db-shm"] {
            remove_if_there(&unpacked.join(name)).map_err(write)?;
        }
        for name in std::iter::once(DATABASE).chain(KEY_FILES) {
            let path = unpacked.join(name);
            if path.exists() {
                give_to_owner(&path, &self.data_dir, if PUBLIC.contains(&name) { 0o644 } else { 0o600 })?;
            }
        }
        fs::write(unpacked.join(ASIDE), &aside).map_err(write)?;
        // So that a server that is not root can go on with it.
        give_to_owner(&unpacked.join(ASIDE), &self.data_dir, 0o600)?;
        give_to_owner(&unpacked, &self.data_dir, 0o700)?;
        for entry in fs::read_dir(&unpacked).map_err(write)? {
            let path = entry.map_err(write)?.path();
            File::open(path).and_then(|file| file.sync_all()).map_err(write)?;
        }
        flush(&unpacked)?;
        // From here on forward only.
        rename(&unpacked, &self.data_dir.join(READY))?;
        self.folder.0 = None;
        let finished = flush(&self.data_dir).and_then(|()| go_on(&self.data_dir)).map_err(|error| {
            BackupError::Other(format!(
                "{error}; the backup is half in place: nothing is lost, the next `pulse restore` or start of the server \
                 goes on with it once that is mended"
            ))
        })?;
        Ok(Restored { aside: finished.and_then(|finished| finished.aside), epoch, revision })
    }

    async fn bring_up_to_date(
        &self,
        actor: &Actor,
        new_epoch: bool,
        clock: &Clock,
    ) -> Result<(u64, u64), BackupError> {
        // Nothing is deleted here: bounds are those of the configuration, which the server knows.
        let keep_all = Retention { max_bytes: u64::MAX, max_age: Duration::MAX };
        let store = Store::open_with(self.folder.path(), &self.secret_key, keep_all, clock.clone()).await?;
        let detail = json!({
            "made_at": self.manifest.made_at, "epoch": self.manifest.epoch, "revision": self.manifest.revision,
            "new_epoch": new_epoch,
        });
        let target = "fleet".to_owned();
        let entry = Entry::new(clock.now(), actor, "backup.restore", target, Outcome::Done, detail);
        store.note_restore(entry).await?;
        let changes = Changes::alone(&store, clock).await;
        let changes = changes.map_err(|error| match error {
            LoadError::Store(error) => error.into(),
            error => BackupError::Other(error.to_string()),
        })?;
        if new_epoch {
            changes.begin_epoch(actor).await.map_err(|error| match error {
                ChangeError::Store(error) => error.into(),
                error => BackupError::Other(format!("begin a new epoch: {error}")),
            })?;
        }
        let catalog = changes.catalog();
        drop(changes);
        store.close().await?;
        Ok((catalog.epoch, catalog.revision))
    }

    /// A name for the folder of what was there that nothing has yet.
    fn name_aside(&self, now: SystemTime) -> String {
        let stamp = crate::api::time(now).strftime("%Y%m%dT%H%M%SZ");
        let name = |number: u32| match number {
            1 => format!("before-restore-{stamp}"),
            number => format!("before-restore-{stamp}-{number}"),
        };
        let is_free = |name: &String| fs::symlink_metadata(self.data_dir.join(name)).is_err();
        (1..).map(name).find(is_free).expect("a folder has fewer entries than there are numbers")
    }
}

/// Goes on with a restore that was cut short, if there is one. The caller has the lock of the folder.
///
/// # Errors
/// What cannot be moved; trying again goes on from there.
fn go_on(data_dir: &Path) -> Result<Option<Finished>, BackupError> {
    let (ready, moving) = (data_dir.join(READY), data_dir.join(MOVING));
    let mut finished = None;
    if ready.exists() {
        let aside = data_dir.join(aside_of(&ready)?);
        for name in OF_THE_DATABASE.into_iter().chain(KEY_FILES) {
            let path = data_dir.join(name);
            if fs::symlink_metadata(&path).is_ok() {
                make_aside(&aside, data_dir)?;
                rename(&path, &aside.join(name))?;
            }
        }
        if aside.exists() {
            flush(&aside)?;
        }
        flush(data_dir)?;
        rename(&ready, &moving)?;
        flush(data_dir)?;
    }
    if moving.exists() {
        // Without the name nothing but the empty folder is left to take away.
        let aside = aside_of(&moving).ok().map(|name| data_dir.join(name)).filter(|aside| aside.exists());
        for name in std::iter::once(DATABASE).chain(KEY_FILES) {
            let path = moving.join(name);
            if path.exists() {
                rename(&path, &data_dir.join(name))?;
            }
        }
        flush(data_dir)?;
        let remove = |error| BackupError::file(format!("remove {}", moving.display()), error);
        remove_if_there(&moving.join(ASIDE)).map_err(remove)?;
        fs::remove_dir(&moving).map_err(remove)?;
        flush(data_dir)?;
        finished = Some(Finished { aside });
    }
    Ok(finished)
}

/// At the start of a server, before it reads anything in its folder: goes on with a restore that was cut short.
///
/// # Errors
/// [`BackupError::InUse`] if that restore still runs; what cannot be moved.
pub fn finish(data_dir: &Path) -> Result<(), BackupError> {
    if !data_dir.join(READY).exists() && !data_dir.join(MOVING).exists() {
        return Ok(());
    }
    let _lock = DataLock::take(data_dir)?;
    if let Some(Finished { aside }) = go_on(data_dir)? {
        let aside = aside.map(|aside| aside.display().to_string()).unwrap_or_default();
        tracing::warn!(
            aside,
            "a restore that was cut short was gone on with; what was there before is in the folder aside"
        );
    }
    Ok(())
}

/// At the start of a server, which has the lock of the folder: removes what a restore left that was cut short before
/// anything was moved.
pub fn sweep(data_dir: &Path) {
    if let Err(error) = remove_unpacked(data_dir) {
        tracing::warn!(%error, "what an unfinished restore left cannot be removed");
    }
}

fn remove_unpacked(data_dir: &Path) -> Result<(), BackupError> {
    let path = data_dir.join(UNPACKED);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(BackupError::file(
            format!("remove what an earlier restore left in {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}

fn aside_of(folder: &Path) -> Result<OsString, BackupError> {
    let path = folder.join(ASIDE);
    let name = fs::read_to_string(&path);
    let name = name.map_err(|error| BackupError::file(format!("read {}", path.display()), error))?;
    // It was written by this program; were it damaged, nothing may land elsewhere.
    if name.starts_with("before-restore-") && !name.contains('/') {
        return Ok(name.into());
    }
    Err(BackupError::Other(format!(
        "{} is damaged: write before-restore-1 into it, and try again",
        path.display()
    )))
}

fn make_aside(aside: &Path, data_dir: &Path) -> Result<(), BackupError> {
    match DirBuilder::new().mode(0o700).create(aside) {
        // Of an earlier try; a link could lead elsewhere.
        Err(_) if fs::symlink_metadata(aside).is_ok_and(|found| found.is_dir()) => Ok(()),
        Err(error) => Err(BackupError::file(format!("make {}", aside.display()), error)),
        Ok(()) => give_to_owner(aside, data_dir, 0o700),
    }
}

/// Gives a file the mode, and the owner of the data folder: a restore is often made by root. A link is an error: it
/// could name a file that is root's own.
fn give_to_owner(path: &Path, data_dir: &Path, mode: u32) -> Result<(), BackupError> {
    let failed =
        |error| BackupError::file(format!("give {} to the owner of its folder", path.display()), error);
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    let (owner, found) = (fs::metadata(data_dir).map_err(failed)?, file.metadata().map_err(failed)?);
    if (owner.uid(), owner.gid()) == (found.uid(), found.gid()) {
        return Ok(());
    }
    match fchown(&file, Some(owner.uid()), Some(owner.gid())) {
        // Who is not root owns what he makes, and may not give it away: then the folder's group is all that differs.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && owner.uid() == found.uid() => Ok(()),
        other => other.map_err(failed),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::file(format!("rename {} to {}", from.display(), to.display()), error);
    fs::rename(from, to).map_err(failed)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn flush(folder: &Path) -> Result<(), BackupError> {
    let flushed = File::open(folder).and_then(|folder| folder.sync_all());
    flushed.map_err(|error| BackupError::file(format!("flush the folder {}", folder.display()), error))
}

/// A folder that goes with its contents, unless it was given up.
#[derive(Debug)]
struct RemoveOnDrop(Option<PathBuf>);

impl RemoveOnDrop {
    fn path(&self) -> &Path {
        self.0.as_deref().expect("it is given up only by the last who uses it")
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::warn!(path = %path.display(), %error, "what was unpacked cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests;
