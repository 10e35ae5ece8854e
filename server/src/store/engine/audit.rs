//! The audit log's rows.
//!
//! Always: each row is chained to the last one that was added, in the transaction that adds it, whether that one is
//! still there or not.

use super::catalog;
use super::fault::{Fault, Result};
use super::sql::{self, Cells, Sql, integer, rows, values};
use crate::audit::{Entry, Row};

/// Appends rows. `revision` is that which they make; `None`: they make none. Out: the hash of the last row.
pub(in crate::store) fn append(
    database: &dyn Sql,
    entries: &[Entry],
    revision: Option<u64>,
) -> Result<String> {
    // Whoever appends has the end of the log until its transaction ends. The revision is looked at after that, so that
    // revisions rise along the log.
    let end = "UPDATE audit_head SET seq = seq RETURNING id, seq, hash";
    let (mut seq, mut hash) = end_of(database, end)?;
    let revision = match revision {
        Some(revision) => revision,
        None => catalog::revision(database)?,
    };
    for entry in entries {
        seq += 1;
        // Numbers are hashed as they are stored, so that the row read back has its hash.
        let entry = Entry { at_ms: stored(entry.at_ms), ..entry.clone() };
        let row = Row::chain(&entry, seq, stored(revision), &hash);
        database.execute(
            "INSERT INTO audit (seq, at_ms, actor, action, target, detail, revision, previous_hash, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &values![
                integer(row.seq),
                integer(row.at_ms),
                &row.actor,
                &row.action,
                &row.target,
                &row.detail,
                integer(row.revision),
                &row.previous_hash,
                &row.hash
            ],
        )?;
        hash = row.hash;
    }
    database.execute("UPDATE audit_head SET seq = $1, hash = $2", &values![integer(seq), &hash])?;
    Ok(hash)
}

/// The hash of the row that made a revision. Empty: there is none, as of a new database's first one.
pub(in crate::store) fn hash_at(database: &dyn Sql, revision: u64) -> Result<String> {
    let sql = "SELECT seq, hash FROM audit WHERE revision = $1 ORDER BY seq LIMIT 1";
    let found = sql::row(database, "audit", sql, &values![integer(revision)], |cells| cells.plain("hash"))?;
    // Rows that made no revision follow the one that made theirs; at 0 nothing did.
    Ok(found.filter(|_| revision > 0).unwrap_or_default())
}

/// The row of the change that made a revision.
pub(in crate::store) fn of(database: &dyn Sql, revision: u64) -> Result<Option<Row>> {
    let sql = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash
               FROM audit WHERE revision = $1 ORDER BY seq LIMIT 1";
    sql::row(database, "audit", sql, &values![integer(revision)], row)
}

/// Place and hash of the last row that was added.
pub(in crate::store) fn head(database: &dyn Sql) -> Result<(u64, String)> {
    end_of(database, "SELECT id, seq, hash FROM audit_head")
}

fn end_of(database: &dyn Sql, statement: &'static str) -> Result<(u64, String)> {
    let read = |cells: &Cells<'_>| Ok((cells.number("seq")?, cells.plain("hash")?));
    let nothing = || Fault::Unreadable(String::from("table audit_head has no row: restore a backup"));
    sql::row(database, "audit_head", statement, &[], read)?.ok_or_else(nothing)
}

fn stored(number: u64) -> u64 {
    integer(number).unsigned_abs()
}

/// Rows behind `after`, oldest first.
pub(in crate::store) fn after(database: &dyn Sql, after: u64, limit: u32) -> Result<Vec<Row>> {
    let sql = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash
               FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
    rows(database, "audit", sql, &values![integer(after), limit], row)
}

/// The newest rows, oldest first.
pub(in crate::store) fn tail(database: &dyn Sql, limit: u32) -> Result<Vec<Row>> {
    let sql = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash
               FROM audit ORDER BY seq DESC LIMIT $1";
    let mut found = rows(database, "audit", sql, &values![limit], row)?;
    found.reverse();
    Ok(found)
}

pub(in crate::store) fn row(cells: &Cells<'_>) -> Result<Row> {
    Ok(Row {
        seq: cells.number("seq")?,
        at_ms: cells.number("at_ms")?,
        actor: cells.plain("actor")?,
        action: cells.plain("action")?,
        target: cells.plain("target")?,
        detail: cells.plain("detail")?,
        revision: cells.number("revision")?,
        previous_hash: cells.plain("previous_hash")?,
        hash: cells.plain("hash")?,
    })
}
