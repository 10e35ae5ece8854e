//! What became of asking Proxmox VE, one row for each instance; no part of the catalog.

use super::fault::Result;
use super::sql::{Sql, Value, millis, rows, values};
use crate::store::PollStatus;

/// Writes rows, but for those that are older than what another server wrote.
pub(super) fn put(database: &dyn Sql, polls: &[PollStatus]) -> Result<()> {
    let mut rows = polls.iter().map(|poll| {
        values![
            poll.instance,
            millis(poll.asked_at),
            poll.heard_at.map(millis),
            &poll.url,
            &poll.version,
            &poll.cluster,
            &poll.problem,
            poll.problem_since.map(millis)
        ]
        .into()
    });
    database.execute_each(
        "INSERT INTO instance_polls (instance_id, asked_at, heard_at, url, version, cluster, problem, problem_since)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (instance_id) DO UPDATE SET asked_at = excluded.asked_at, heard_at = excluded.heard_at,
                 url = excluded.url, version = excluded.version, cluster = excluded.cluster, problem = excluded.problem,
                 problem_since = excluded.problem_since
             WHERE instance_polls.asked_at <= excluded.asked_at",
        &mut rows as &mut dyn Iterator<Item = Vec<Value<'_>>>,
    )
}

pub(in crate::store) fn all(database: &dyn Sql) -> Result<Vec<PollStatus>> {
    let sql = "SELECT instance_id, asked_at, heard_at, url, version, cluster, problem, problem_since
               FROM instance_polls ORDER BY instance_id";
    rows(database, "instance_polls", sql, &[], |cells| {
        Ok(PollStatus {
            instance: cells.parsed("instance_id")?,
            asked_at: cells.time("asked_at")?,
            heard_at: cells.time_if_any("heard_at")?,
            url: cells.plain("url")?,
            version: cells.plain("version")?,
            cluster: cells.plain("cluster")?,
            problem: cells.plain("problem")?,
            problem_since: cells.time_if_any("problem_since")?,
        })
    })
}
