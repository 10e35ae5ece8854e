//! The servers on one database: each says every few seconds that it is there, and hears of the others.
//!
//! Always: time is the database's. Never: decides anything; who is silent for too long is shown as gone.

use std::time::Duration;

use uuid::Uuid;

use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sql::{Sql, integer, rows, values};
use crate::store::{Beat, GONE, Replica};

/// A server that was silent for so long is not shown any more.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// Says that a server is there. Out: all that were heard of lately, this one first, then by name.
pub(in crate::store) fn beat(database: &dyn Sql, id: Uuid, beat: &Beat) -> Result<Vec<Replica>> {
    database.execute(
        "INSERT INTO replicas (id, name, version, started_at, seen_at, revision, streams)
         VALUES ($1, $2, $3, unix_ms(), unix_ms(), $4, $5)
         ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, revision = excluded.revision,
             streams = excluded.streams",
        &values![id, &beat.name, &beat.version, integer(beat.revision), integer(beat.streams)],
    )?;
    let forgotten = i64::try_from(FORGOTTEN.as_millis()).unwrap_or(i64::MAX);
    database.execute("DELETE FROM replicas WHERE seen_at < unix_ms() - $1", &values![forgotten])?;
    let sql = "SELECT r.id, r.name, r.version, r.started_at, r.seen_at, unix_ms() - r.seen_at AS silent_ms,
                   r.revision, r.streams,
                   (SELECT string_agg(l.name, ' ' ORDER BY l.name) FROM leases AS l
                       WHERE l.holder = r.id AND l.ends_at > unix_ms()) AS leases
               FROM replicas AS r ORDER BY r.id <> $1, r.name, r.id";
    rows(database, "replicas", sql, &values![id], |cells| {
        let leases: Option<String> = cells.plain("leases")?;
        Ok(Replica {
            id: cells.parsed("id")?,
            name: cells.plain("name")?,
            version: cells.plain("version")?,
            started_at: cells.time("started_at")?,
            silent_for: Duration::from_millis(cells.number("silent_ms").unwrap_or_default()),
            revision: cells.number("revision")?,
            streams: cells.number("streams")?,
            leases: leases.iter().flat_map(|leases| leases.split(' ')).map(str::to_owned).collect(),
        })
    })
}

/// `Err` if another server is on the database too.
pub(in crate::store) fn alone(database: &dyn Sql, id: Uuid) -> Result<()> {
    let sql = "SELECT id, name FROM replicas WHERE id <> $1 AND seen_at > unix_ms() - $2 ORDER BY name";
    let gone = i64::try_from(GONE.as_millis()).unwrap_or(i64::MAX);
    let others = rows(database, "replicas", sql, &values![id, gone], |cells| cells.plain::<String>("name"))?;
    if others.is_empty() { Ok(()) } else { Err(Fault::OtherServers(others.join(", "))) }
}

/// Says that a server has gone.
pub(in crate::store) fn leave(database: &dyn Sql, id: Uuid) -> Result<()> {
    database.execute("DELETE FROM replicas WHERE id = $1", &values![id])?;
    database.execute("UPDATE leases SET ends_at = 0 WHERE holder = $1", &values![id])?;
    Ok(())
}
