//! What each proxy did and said last.

use uuid::Uuid;

use super::fault::Result;
use super::sql::{Cells, Sql, Value, integer, millis, rows, values};
use crate::store::{KeptList, Mark, ProxyStatus};

pub(in crate::store) fn put(database: &dyn Sql, statuses: &[ProxyStatus]) -> Result<()> {
    let mut rows = statuses.iter().map(|status| {
        let [pushed, applied, refused] = [&status.pushed, &status.applied, &status.refused].map(columns);
        values![
            status.proxy,
            status.last_seen.map(millis),
            status.last_pull.map(millis),
            pushed.0,
            pushed.1,
            pushed.2,
            pushed.3,
            applied.0,
            applied.1,
            applied.2,
            applied.3,
            status.on_disk,
            refused.0,
            refused.1,
            refused.2,
            refused.3,
            &status.last_error,
            &status.list_source,
            &status.version,
            status.peer.map(|peer| peer.to_string()),
            status.insecure_skip_verify,
            status.kept_list.as_ref().map_or("", |kept| kept.problem.as_str()),
            status.kept_list.as_ref().map_or("", |kept| kept.detail.as_str()),
            status.kept_list.as_ref().map(|kept| millis(kept.at))
        ]
        .into()
    });
    database.execute_each(
        "INSERT INTO proxy_status (proxy_id, last_seen, last_pull,
             pushed_epoch, pushed_revision, pushed_hash, pushed_at,
             applied_epoch, applied_revision, applied_hash, applied_at, on_disk,
             refused_epoch, refused_revision, refused_hash, refused_at,
             last_error, list_source, version, peer, insecure_skip_verify,
             kept_list_problem, kept_list_detail, kept_list_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
             $22, $23, $24)
         ON CONFLICT (proxy_id) DO UPDATE SET last_seen = excluded.last_seen, last_pull = excluded.last_pull,
             pushed_epoch = excluded.pushed_epoch, pushed_revision = excluded.pushed_revision,
             pushed_hash = excluded.pushed_hash, pushed_at = excluded.pushed_at,
             applied_epoch = excluded.applied_epoch, applied_revision = excluded.applied_revision,
             applied_hash = excluded.applied_hash, applied_at = excluded.applied_at, on_disk = excluded.on_disk,
             refused_epoch = excluded.refused_epoch, refused_revision = excluded.refused_revision,
             refused_hash = excluded.refused_hash, refused_at = excluded.refused_at,
             last_error = excluded.last_error, list_source = excluded.list_source,
             version = excluded.version, peer = excluded.peer,
             insecure_skip_verify = excluded.insecure_skip_verify,
             kept_list_problem = excluded.kept_list_problem, kept_list_detail = excluded.kept_list_detail,
             kept_list_at = excluded.kept_list_at",
        &mut rows,
    )
}

/// Epoch, revision, hash and time of a mark.
type Columns = (Option<i64>, Option<i64>, Option<String>, Option<i64>);

fn columns(mark: &Option<Mark>) -> Columns {
    mark.map_or((None, None, None, None), |mark| {
        let Mark { position, hash, at } = mark;
        let hash = Some(hash.to_string());
        (Some(integer(position.epoch)), Some(integer(position.revision)), hash, Some(millis(at)))
    })
}

/// The beginning of every query for statuses.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT proxy_id, last_seen, last_pull, pushed_epoch, pushed_revision, pushed_hash, pushed_at,
                 applied_epoch, applied_revision, applied_hash, applied_at, on_disk,
                 refused_epoch, refused_revision, refused_hash, refused_at,
                 last_error, list_source, version, peer, insecure_skip_verify,
                 kept_list_problem, kept_list_detail, kept_list_at
             FROM proxy_status ",
            $rest
        )
    };
}

pub(in crate::store) fn all(database: &dyn Sql) -> Result<Vec<ProxyStatus>> {
    read(database, select!("ORDER BY proxy_id"), &[])
}

/// What other servers wrote from one transaction on: on PostgreSQL alone.
pub(in crate::store) fn of_others(database: &dyn Sql, replica: Uuid, since: i64) -> Result<Vec<ProxyStatus>> {
    read(
        database,
        select!("WHERE written >= $1 AND writer <> $2 ORDER BY proxy_id"),
        &values![since, replica],
    )
}

fn read(database: &dyn Sql, statement: &'static str, values: &[Value<'_>]) -> Result<Vec<ProxyStatus>> {
    rows(database, "proxy_status", statement, values, |cells| {
        Ok(ProxyStatus {
            proxy: cells.parsed("proxy_id")?,
            last_seen: cells.time_if_any("last_seen")?,
            last_pull: cells.time_if_any("last_pull")?,
            pushed: mark(cells, ["pushed_epoch", "pushed_revision", "pushed_hash", "pushed_at"])?,
            applied: mark(cells, ["applied_epoch", "applied_revision", "applied_hash", "applied_at"])?,
            on_disk: cells.plain("on_disk")?,
            refused: mark(cells, ["refused_epoch", "refused_revision", "refused_hash", "refused_at"])?,
            last_error: cells.plain("last_error")?,
            list_source: cells.plain("list_source")?,
            version: cells.plain("version")?,
            peer: cells.parsed_if_any("peer")?,
            insecure_skip_verify: cells.plain("insecure_skip_verify")?,
            kept_list: kept_list(cells)?,
        })
    })
}

fn kept_list(cells: &Cells<'_>) -> Result<Option<KeptList>> {
    let Some(at) = cells.time_if_any("kept_list_at")? else {
        return Ok(None);
    };
    let (problem, detail) = (cells.plain("kept_list_problem")?, cells.plain("kept_list_detail")?);
    Ok(Some(KeptList { problem, detail, at }))
}

fn mark(cells: &Cells<'_>, [epoch, revision, hash, at]: [&str; 4]) -> Result<Option<Mark>> {
    let Some(hash) = cells.parsed_if_any(hash)? else {
        return Ok(None);
    };
    let position = pulse_proto::Position { epoch: cells.number(epoch)?, revision: cells.number(revision)? };
    Ok(Some(Mark { position, hash, at: cells.time(at)? }))
}
