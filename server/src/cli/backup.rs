//! `pulse backup FILE`: the server makes it, and this end writes the file.
//!
//! Always: the file is whole and was read back before it has its name; it never takes the place of another unless that
//! was said; only its owner can read it. What is cut short goes, and what a kill left goes with the next backup.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::text::{clean, json};
use super::{Asking, print};
use crate::backup::{Manifest, read};

/// The end of the name of a file that is under way.
const UNDER_WAY: &str = ".part";

pub(super) async fn run(asking: &Asking, file: &Path, force: bool) -> Result<(), Failure> {
    let target = Target::of(file, force)?;
    let mut under_way = target.begin()?;
    let failed = |error: io::Error| target.not_written(&error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let cancelled =
        || Failure::local("CANCELLED", "cancelled: no backup was made, and nothing is left".to_owned());
    let download =
        asking.client.download(Method::POST, "/backup", |piece| under_way.write_all(piece).map_err(failed));
    tokio::select! {
        done = download => done?,
        _ = interrupt.recv() => return Err(cancelled()),
        _ = terminate.recv() => return Err(cancelled()),
        _ = hangup.recv() => return Err(cancelled()),
    }
    under_way.as_file().sync_all().map_err(failed)?;
    let manifest = read::verify(under_way.path()).map_err(|error| {
        Failure::local("BACKUP_FAILED", format!("the backup was read back, and is not good: {error}"))
    })?;
    target.finish(under_way)?;
    let bytes = std::fs::metadata(file).map(|found| found.len()).unwrap_or_default();
    print(&if asking.json { json(&as_json(file, bytes, &manifest)) } else { as_text(file, bytes, &manifest) })
}

fn as_json(file: &Path, bytes: u64, manifest: &Manifest) -> serde_json::Value {
    json!({ "file": file.display().to_string(), "bytes": bytes, "manifest": manifest })
}

fn as_text(file: &Path, bytes: u64, manifest: &Manifest) -> String {
    let key = manifest.secret_key_file.as_ref().map(|path| {
        format!(
            "the key that opens its database is not in it, as it is not in the data folder: keep a copy of {} with it, or it is of no \
             use\n",
            clean(&path.display().to_string())
        )
    });
    let key = key.unwrap_or_default();
    format!(
        "wrote {} ({}, epoch {}, revision {}); it was read back and is whole\nit holds every key of the fleet: keep it as \
         safe as the server. The configuration, and certificates of your own, are not in it\n{key}",
        clean(&file.display().to_string()),
        size(bytes),
        manifest.epoch,
        manifest.revision
    )
}

/// A size as people say it, begun units counted.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

/// Where the file goes.
struct Target<'a> {
    file: &'a Path,
    folder: PathBuf,
    /// What names of files under way begin with.
    prefix: String,
    force: bool,
}

impl Target<'_> {
    fn of(file: &Path, force: bool) -> Result<Target<'_>, Failure> {
        let shown = file.display();
        if file == Path::new("-") {
            let text = "a backup is read back, so it needs a file; for one that is called so, say ./-";
            return Err(Failure::usage("NO_FILE_NAME", text.to_owned()));
        }
        let name = file.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Failure::usage("NO_FILE_NAME", format!("{shown} is no name of a file: say where the backup goes"))
        })?;
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        match std::fs::symlink_metadata(file) {
            Ok(found) if found.is_dir() => {
                return Err(Failure::usage("IS_A_FOLDER", format!("{shown} is a folder: name a file in it")));
            }
            // It would be taken away and a file put there, and a device is missed.
            Ok(found) if !found.is_file() => {
                let text = format!("{shown} is no regular file, and is not replaced: name another one");
                return Err(Failure::usage("NO_REGULAR_FILE", text));
            }
            Ok(_) if !force => {
                let text =
                    format!("{shown} is there already: choose another name, or say --force to replace it");
                return Err(Failure::local("FILE_EXISTS", text));
            }
            _ => {}
        }
        Ok(Target { file, folder, prefix: format!(".{name}."), force })
    }

    /// Makes the file that is under way, for its owner alone, and locks it. Those that nobody works on any more go.
    fn begin(&self) -> Result<NamedTempFile, Failure> {
        let failed = |error: io::Error| self.not_written(&error);
        for entry in std::fs::read_dir(&self.folder).map_err(failed)?.flatten() {
            let name = entry.file_name();
            let is_ours = |name: &str| name.starts_with(&self.prefix) && name.ends_with(UNDER_WAY);
            if name.to_str().is_some_and(is_ours)
                && entry.file_type().is_ok_and(|kind| kind.is_file())
                && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
            {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        let made = tempfile::Builder::new().prefix(&self.prefix).suffix(UNDER_WAY).tempfile_in(&self.folder);
        let made = made.map_err(failed)?;
        made.as_file().lock().map_err(failed)?;
        Ok(made)
    }

    /// Gives the file its name.
    fn finish(&self, under_way: NamedTempFile) -> Result<(), Failure> {
        let named =
            if self.force { under_way.persist(self.file) } else { under_way.persist_noclobber(self.file) };
        named.map_err(|error| self.not_written(&error.error))?;
        match File::open(&self.folder).and_then(|folder| folder.sync_all()) {
            // Some file systems, most on a network, know no flush of a folder.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            Err(error) => Err(Failure::local(
                "NOT_FLUSHED",
                format!(
                    "flush the folder of {}: {error}; the backup is there and whole, but may be gone after a power cut",
                    self.file.display()
                ),
            )),
            Ok(()) => Ok(()),
        }
    }

    fn not_written(&self, error: &io::Error) -> Failure {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; make room in that folder, or write it to another one"
            }
            io::ErrorKind::NotFound => "; is the folder there?",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "; choose a folder that can be written"
            }
            io::ErrorKind::AlreadyExists => {
                "; it came while the backup was made: choose another name, or say --force"
            }
            _ => "",
        };
        Failure::local(
            "FILE_NOT_WRITTEN",
            format!("write {}: {error}{hint}; no backup was made", self.file.display()),
        )
    }
}
