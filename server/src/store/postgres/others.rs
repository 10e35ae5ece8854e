//! What other servers wrote of proxies and temperatures since this one looked last.
//!
//! Always: nothing is missed. A row carries the transaction that wrote it, and the next look begins with the oldest one that
//! still ran during this look; so what was not visible yet is read then, and some is read twice.

use uuid::Uuid;

use crate::store::engine::fault::Result;
use crate::store::engine::sql::{Sql, row, rows, values};
use crate::store::engine::{history, statuses};
use crate::store::{Others, OthersStream};

/// Reads it, on one view. `since` is what the look before came to; 0: everything.
pub(in crate::store) fn others(database: &dyn Sql, replica: Uuid, since: i64) -> Result<Others> {
    let oldest = "SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) AS until";
    let until = row(database, "pg_snapshot", oldest, &[], |cells| cells.plain("until"))?.unwrap_or(since);
    let streams =
        "SELECT proxy_id, replica_id, is_open FROM streams WHERE written >= $1 AND replica_id <> $2";
    Ok(Others {
        until,
        statuses: statuses::of_others(database, replica, since)?,
        streams: rows(database, "streams", streams, &values![since, replica], |cells| {
            Ok(OthersStream {
                proxy: cells.parsed("proxy_id")?,
                replica: cells.parsed("replica_id")?,
                is_open: cells.plain("is_open")?,
            })
        })?,
        newest: history::newest_written(database, since)?,
    })
}

/// Notes which proxies have a stream with this server, and which have none any more.
pub(in crate::store) fn put_streams(
    database: &dyn Sql,
    replica: Uuid,
    streams: &[(Uuid, bool)],
) -> Result<()> {
    let mut rows = streams.iter().map(|(proxy, is_open)| values![*proxy, replica, *is_open].into());
    database.execute_each(
        "INSERT INTO streams (proxy_id, replica_id, is_open) VALUES ($1, $2, $3)
         ON CONFLICT (proxy_id, replica_id) DO UPDATE SET is_open = excluded.is_open",
        &mut rows,
    )
}
