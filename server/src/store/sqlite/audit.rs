//! The audit log's rows.
//!
//! Always: each row is chained to the last one that was added, in the transaction that adds it, whether that one is
//! still there or not.

use rusqlite::{Connection, Transaction, params};

use super::cell::{Cells, integer, rows};
use super::fault::{Fault, Result};
use crate::audit::{Entry, Row};

/// Appends rows. `revision` is the fleet's after them.
pub(super) fn append(transaction: &Transaction<'_>, entries: &[Entry], revision: u64) -> Result<()> {
    let (mut seq, mut hash) = head(transaction)?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO audit (seq, at_ms, actor, action, target, detail, revision, previous_hash, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for entry in entries {
        seq += 1;
        // Numbers are hashed as they are stored, so that the row read back has its hash.
        let entry = Entry { at_ms: stored(entry.at_ms), ..entry.clone() };
        let row = Row::chain(&entry, seq, stored(revision), &hash);
        insert.execute(params![
            integer(row.seq),
            integer(row.at_ms),
            row.actor,
            row.action,
            row.target,
            row.detail,
            integer(row.revision),
            row.previous_hash,
            row.hash
        ])?;
        hash = row.hash;
    }
    transaction
        .prepare_cached("UPDATE audit_head SET seq = ?1, hash = ?2")?
        .execute(params![integer(seq), hash])?;
    Ok(())
}

/// Place and hash of the last row that was added.
pub(super) fn head(connection: &Connection) -> Result<(u64, String)> {
    let sql = "SELECT id, seq, hash FROM audit_head";
    let found =
        rows(connection, "audit_head", sql, [], |cells| Ok((cells.number("seq")?, cells.plain("hash")?)))?;
    let nothing = || Fault::Unreadable(String::from("table audit_head has no row: restore a backup"));
    found.into_iter().next().ok_or_else(nothing)
}

fn stored(number: u64) -> u64 {
    integer(number).unsigned_abs()
}

/// Rows behind `after`, oldest first.
pub(super) fn after(connection: &Connection, after: u64, limit: u32) -> Result<Vec<Row>> {
    let sql = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash
               FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    rows(connection, "audit", sql, params![integer(after), limit], row)
}

/// The newest rows, oldest first.
pub(super) fn tail(connection: &Connection, limit: u32) -> Result<Vec<Row>> {
    let sql = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash
               FROM audit ORDER BY seq DESC LIMIT ?1";
    let mut found = rows(connection, "audit", sql, [limit], row)?;
    found.reverse();
    Ok(found)
}

pub(super) fn row(cells: &Cells<'_>) -> Result<Row> {
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
