//! How long history is kept: an age, and a size of the database.
//!
//! Always: the newest reading of a node stays; what goes is the oldest that arrived.
//! Never: works for long; one small batch at a time, so that a commit hardly waits.
//!
//! Pages that become free are used again, and the file does not shrink: once it has its size it would grow
//! again at once, and moving pages to its end costs writes (`VACUUM` by hand, with the server stopped, shrinks it).

use std::time::{Duration, SystemTime};

use super::dictionary::Dictionary;
use super::fault::Result;
use super::sql::{Sql, millis, rows, values};
use crate::store::Retention;

/// The most readings deleted in one transaction: some 5 ms of work.
const BATCH: i64 = 500;

/// The shortest that the session of a proxy's start is known: no proxy buffers nearly as long.
const MIN_SESSION_AGE: Duration = Duration::from_hours(90 * 24);

/// What a batch came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Batch {
    /// There may be more to delete.
    More,
    /// All that is left is within its bounds.
    Done,
    /// There is nothing left to delete, and the database is still too large.
    TooLarge {
        /// How large it is.
        used_bytes: u64,
    },
}

/// Deletes a batch of the oldest readings that are too old, or too much. The caller commits.
pub(in crate::store) fn trim(database: &dyn Sql, retention: Retention, now: SystemTime) -> Result<Batch> {
    let used_bytes = database.used_bytes()?;
    let is_too_large = used_bytes > retention.max_bytes;
    let cutoff = cutoff(now, retention.max_age);
    let oldest = oldest(database, BATCH)?;
    let is_kept = |reading: &&Deletable| !is_too_large && reading.received_at >= cutoff;
    let deleted = oldest.iter().position(|reading| is_kept(&reading)).unwrap_or(oldest.len());
    let mut ids = oldest[..deleted].iter().map(|reading| values![reading.id].into());
    database.execute_each("DELETE FROM readings WHERE id = $1", &mut ids)?;
    Ok(match deleted {
        deleted if deleted == BATCH as usize => Batch::More,
        0 if is_too_large => Batch::TooLarge { used_bytes },
        _ if is_too_large => Batch::More,
        _ => Batch::Done,
    })
}

/// Forgets sessions of proxies long gone, and series that no reading names any more. The caller commits.
pub(in crate::store) fn sweep(
    database: &dyn Sql,
    dictionary: &mut Dictionary,
    retention: Retention,
    now: SystemTime,
) -> Result<()> {
    let sessions_end = cutoff(now, retention.max_age.max(MIN_SESSION_AGE));
    database.execute("DELETE FROM report_sessions WHERE updated_at < $1", &values![sessions_end])?;

    // Generations rise with ids: no reading that may be deleted some day is of one before `floor`. Those that are
    // are the newest of a node that was not read since: its series stay.
    let floor = oldest(database, 1)?.first().map_or(dictionary.generation(), |reading| reading.generation);
    // Those of several servers are up to two apart.
    let floor = if database.is_shared() { floor - 2 } else { floor };
    let swept = database.execute(
        "DELETE FROM series WHERE generation < $1 AND node_id NOT IN (
             SELECT w.node_id FROM newest AS w JOIN readings AS r ON r.id = w.reading_id WHERE r.generation < $1)",
        &values![floor],
    )?;
    if swept > 0 {
        dictionary.clear();
    }
    Ok(())
}

/// A reading that may be deleted.
struct Deletable {
    id: i64,
    received_at: i64,
    generation: i64,
}

/// The oldest readings that may be deleted.
fn oldest(database: &dyn Sql, limit: i64) -> Result<Vec<Deletable>> {
    let sql = "SELECT id, received_at, generation FROM readings AS r
               WHERE NOT EXISTS (SELECT 1 FROM newest AS w WHERE w.reading_id = r.id) ORDER BY id LIMIT $1";
    rows(database, "readings", sql, &values![limit], |cells| {
        Ok(Deletable {
            id: cells.plain("id")?,
            received_at: cells.plain("received_at")?,
            generation: cells.plain("generation")?,
        })
    })
}

fn cutoff(now: SystemTime, age: Duration) -> i64 {
    millis(now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
}
