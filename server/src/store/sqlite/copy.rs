//! A consistent copy of the database while the server runs.
//!
//! In: the database, and where the copy goes. Out: one file without a log.
//! Always: on a connection of its own, so that neither writes nor reads wait; the copy is whole and checked, or its
//! file is gone. Never: works on when nobody waits for it any more.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, InterruptHandle};

use super::{Statements, schema};
use crate::store::engine::catalog;
use crate::store::engine::fault::{Fault, Result};
use crate::store::{Copied, DatabaseCopy, StoreError};

/// Room that is left on the disk beside the copy, for the server's own writes.
const SPARE_BYTES: u64 = 64 << 20;

/// Ends the work when it is dropped before that is done.
pub(in crate::store) struct Stop {
    is_stopped: Arc<AtomicBool>,
    handle: InterruptHandle,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Release);
        self.handle.interrupt();
    }
}

/// Copies the database. Cancel safe.
pub(in crate::store) async fn copy(from: PathBuf, to: PathBuf) -> std::result::Result<Copied, StoreError> {
    let path = from.clone();
    let opened = tokio::task::spawn_blocking(move || schema::open_reader(&path)).await;
    let connection = opened.map_err(|_| StoreError::Closed)??;
    let is_stopped = Arc::new(AtomicBool::new(false));
    let stop = Stop { is_stopped: Arc::clone(&is_stopped), handle: connection.get_interrupt_handle() };
    let work = tokio::task::spawn_blocking(move || {
        let copied = work(&connection, &from, &to, &is_stopped);
        copied.map_err(|fault| {
            fault.while_doing(&format!("copy the database to {}", to.display()), &from.display().to_string())
        })
    });
    let copied = work.await.map_err(|_| StoreError::Closed)?;
    drop(stop);
    copied
}

fn work(connection: &Connection, from: &Path, to: &Path, is_stopped: &AtomicBool) -> Result<Copied> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = (number("page_count")? - number("freelist_count")?).unsigned_abs();
    let bytes = pages * number("page_size")?.unsigned_abs();
    if let Ok(space) = rustix::fs::statvfs(folder) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < bytes.saturating_add(SPARE_BYTES) {
            let show = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
            let text = format!(
                "it needs {} and leaves {} for the server, and {} has {} free: make room there",
                show(bytes),
                show(SPARE_BYTES),
                folder.display(),
                show(free)
            );
            return Err(disk(std::io::Error::new(ErrorKind::StorageFull, text)));
        }
    }
    let copy = DatabaseCopy { path: to.to_owned() };
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(disk(error)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(disk)?;
    if is_stopped.load(Ordering::Acquire) {
        return Err(Fault::Stopped);
    }
    let text = to.to_str().ok_or_else(|| Fault::Unreadable(format!("{} is no UTF-8", to.display())))?;
    connection.execute("VACUUM INTO ?1", [text])?;
    let copied = Connection::open_with_flags(
        to,
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let verdict: String = copied.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        let from = from.display();
        return Err(Fault::Unreadable(format!("{from} is damaged ({verdict}): `pulse check` names what")));
    }
    let fleet = catalog::fleet(&Statements(&copied))?;
    let schema: i64 = copied.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(Copied {
        copy,
        server_id: fleet.server_id,
        epoch: fleet.epoch,
        revision: fleet.revision,
        schema: schema.unsigned_abs(),
        signing_key: fleet.signing_key,
    })
}

fn disk(error: std::io::Error) -> Fault {
    Fault::Disk(Arc::new(error))
}
