//! What other servers wrote of proxies and temperatures since this one looked last.
//!
//! Always: nothing is missed. A row carries the transaction that wrote it, and the next look begins with the oldest one that
//! still ran during this look; so what was not visible yet is read then, and some is read twice.

use std::time::Duration;

use uuid::Uuid;

use crate::store::engine::fault::Result;
use crate::store::engine::sql::{Sql, row, rows, values};
use crate::store::engine::{history, polls, statuses};
use crate::store::{Others, OthersStream};

/// Reads it, on one view. `since` is what the look before came to; 0: everything.
pub(in crate::store) fn others(database: &dyn Sql, replica: Uuid, since: i64) -> Result<Others> {
    let oldest = "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) AS until";
    let until = row(database, "pg_snapshot", oldest, &[], |cells| cells.plain("until"))?.unwrap_or(since);
    let streams = "SELECT proxy_id, replica_id FROM streams WHERE written >= $1";
    Ok(Others {
        until,
        statuses: statuses::of_others(database, replica, since)?,
        streams: rows(database, "streams", streams, &values![since], |cells| {
            let server: String = cells.plain("replica_id")?;
            // Empty: none.
            let server = server.parse().ok().filter(|server| *server != replica);
            Ok(OthersStream { proxy: cells.parsed("proxy_id")?, replica: server })
        })?,
        newest: history::newest_written(database, since)?,
        polls: polls::all(database)?,
    })
}

/// Notes which proxies have a stream with this server, and for how long, and which have none any more. The one that was opened
/// last is the proxy's own, whichever server has it, and whoever writes first.
pub(in crate::store) fn put_streams(
    database: &dyn Sql,
    replica: Uuid,
    streams: &[(Uuid, Option<Duration>)],
) -> Result<()> {
    // In one order, so that two servers do not wait for each other.
    let mut streams = streams.to_vec();
    streams.sort_unstable();
    let mut ended =
        streams.iter().filter(|(_, age)| age.is_none()).map(|(proxy, _)| values![*proxy, replica].into());
    let end = "UPDATE streams SET replica_id = '' WHERE proxy_id = $1 AND replica_id = $2";
    database.execute_each(end, &mut ended)?;
    let mut opened = streams.iter().filter_map(|(proxy, age)| {
        let age = i64::try_from((*age)?.as_millis()).unwrap_or(i64::MAX);
        Some(values![*proxy, replica, age].into())
    });
    // Who comes with an older one than another server has is told so as if it had been taken.
    let open = "INSERT INTO streams (proxy_id, replica_id, opened_at) VALUES ($1, $2, unix_ms() - $3)
         ON CONFLICT (proxy_id) DO UPDATE SET
             replica_id = CASE
                 WHEN streams.replica_id NOT IN ('', excluded.replica_id) AND streams.opened_at > excluded.opened_at
                 THEN streams.replica_id ELSE excluded.replica_id END,
             taken_from = CASE
                 WHEN streams.replica_id NOT IN ('', excluded.replica_id) AND streams.opened_at > excluded.opened_at
                 THEN excluded.replica_id
                 WHEN streams.replica_id NOT IN ('', excluded.replica_id) THEN streams.replica_id
                 WHEN streams.taken_from <> excluded.replica_id THEN streams.taken_from
                 ELSE '' END,
             opened_at = greatest(streams.opened_at, excluded.opened_at)";
    database.execute_each(open, &mut opened)
}

/// The proxies that have opened a stream with another server since, while this one had theirs. Each is told once.
pub(in crate::store) fn taken(database: &dyn Sql, replica: Uuid) -> Result<Vec<Uuid>> {
    let sql = "UPDATE streams SET taken_from = '' WHERE taken_from = $1 RETURNING proxy_id";
    rows(database, "streams", sql, &values![replica], |cells| cells.parsed("proxy_id"))
}
