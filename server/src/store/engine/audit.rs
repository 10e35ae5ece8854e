//! The audit log's rows, and its sealed ends.
//!
//! Always: each row is chained to the last one that was added, in the transaction that adds it, whether that one is
//! still there or not; the ends are sealed anew with it. Never: seals ends that do not have the seal which they should
//! have: what somebody set without the key would count as written.

use std::time::SystemTime;

use pulse_proto::Clock;
use serde_json::json;
use uuid::Uuid;

use super::catalog;
use super::fault::{Fault, Result};
use super::sealed;
use super::sql::{self, Cells, Sql, integer, rows, values};
use crate::audit::{Actor, Ends, Entry, Outcome, Point, Row};
use crate::sealing::SealingKey;

/// The columns of a row, in the order of [`row`].
macro_rules! rows_where {
    ($rest:literal) => {
        concat!(
            "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash FROM audit ",
            $rest
        )
    };
}

/// The columns of [`Sealed`]. The fleet's identity is under the seal, too.
macro_rules! ends_of {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " id, seq, hash, base_seq, base_hash, base_revision, base_revision_hash, seal,
              (SELECT server_id FROM fleet) AS server_id ",
            $after
        )
    };
}

/// The ends of the log as they are stored.
pub(in crate::store) struct Sealed {
    pub(in crate::store) ends: Ends,
    pub(super) fleet: Uuid,
    /// `None`: of a database that was not sealed yet.
    seal: Option<Vec<u8>>,
}

impl Sealed {
    /// Whether the seal is that of this key.
    pub(in crate::store) fn is_sealed_by(&self, key: &SealingKey) -> bool {
        let text = self.ends.sealed_text(self.fleet);
        self.seal.as_ref().is_some_and(|seal| key.is_marked(Ends::PURPOSE, &text, seal))
    }

    fn seal(&mut self, key: &SealingKey) {
        self.seal = Some(key.mark(Ends::PURPOSE, &self.ends.sealed_text(self.fleet)));
    }

    fn put(&self, database: &dyn Sql) -> Result<()> {
        let Ends { base, base_revision, base_revision_hash, head } = &self.ends;
        database.execute(
            "UPDATE audit_head SET seq = $1, hash = $2, base_seq = $3, base_hash = $4, base_revision = $5,
                 base_revision_hash = $6, seal = $7",
            &values![
                integer(head.seq),
                &head.hash,
                integer(base.seq),
                &base.hash,
                integer(*base_revision),
                base_revision_hash,
                self.seal.as_deref().unwrap_or_default()
            ],
        )?;
        Ok(())
    }
}

/// Appends rows. `revision` is that which they make; `None`: they make none. Out: the hash of the last row.
pub(in crate::store) fn append(
    database: &dyn Sql,
    key: &SealingKey,
    entries: &[Entry],
    revision: Option<u64>,
) -> Result<String> {
    // Whoever appends has the end of the log until its transaction ends. The revision is looked at after that, so that
    // revisions rise along the log.
    let mut sealed = held(database)?;
    let is_sealed = sealed.is_sealed_by(key);
    if !is_sealed {
        // A key that is not the database's any more adds nothing.
        let fleet = catalog::fleet(database)?;
        sealed::open_signing(key, fleet.server_id, &fleet.signing_key)?;
        tracing::error!(
            "the audit log's ends do not have their seal: somebody changed them; `pulse audit verify` tells more"
        );
    }
    let revision = match revision {
        Some(revision) => revision,
        None => catalog::revision(database)?,
    };
    for entry in entries {
        let Point { seq, hash } = &sealed.ends.head;
        // Numbers are hashed as they are stored, so that the row read back has its hash.
        let entry = Entry { at_ms: stored(entry.at_ms), ..entry.clone() };
        let row = Row::chain(&entry, seq + 1, stored(revision), hash);
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
        sealed.ends.head = Point { seq: row.seq, hash: row.hash };
    }
    if is_sealed {
        sealed.seal(key);
    }
    sealed.put(database)?;
    Ok(sealed.ends.head.hash)
}

/// Seals the ends of a new database.
pub(in crate::store) fn seal_new(database: &dyn Sql, key: &SealingKey) -> Result<()> {
    let mut sealed = held(database)?;
    sealed.seal(key);
    sealed.put(database)
}

/// Seals the ends of a log of an earlier schema, and notes that in it: what was altered before does not show by the seal.
pub(in crate::store) fn begin_sealing(database: &dyn Sql, key: &SealingKey, clock: &Clock) -> Result<()> {
    seal_new(database, key)?;
    let head = held(database)?.ends.head;
    let detail = json!({ "rows_before": head.seq, "hash_before": head.hash });
    let target = "audit".to_owned();
    let entry = Entry::new(clock.now(), &Actor::SERVER, "audit.seal", target, Outcome::Done, detail);
    append(database, key, &[entry], None).map(drop)
}

/// Seals the ends under another key, if they have the seal of the one before.
pub(in crate::store) fn reseal(database: &dyn Sql, from: &SealingKey, to: &SealingKey) -> Result<()> {
    let mut sealed = held(database)?;
    if sealed.is_sealed_by(from) {
        sealed.seal(to);
    }
    sealed.put(database)
}

/// The ends, which nobody else changes until the transaction ends.
pub(super) fn held(database: &dyn Sql) -> Result<Sealed> {
    sealed_of(database, ends_of!("UPDATE audit_head SET seq = seq RETURNING", ""))
}

/// The ends.
pub(in crate::store) fn ends(database: &dyn Sql) -> Result<Sealed> {
    sealed_of(database, ends_of!("SELECT", "FROM audit_head"))
}

/// Place and hash of the last row that was added, as every schema has them that keeps them.
pub(in crate::store) fn head(database: &dyn Sql) -> Result<Point> {
    let sql = "SELECT id, seq, hash FROM audit_head";
    let read = |cells: &Cells<'_>| Ok(Point { seq: cells.number("seq")?, hash: cells.plain("hash")? });
    sql::row(database, "audit_head", sql, &[], read)?.ok_or_else(no_ends)
}

fn sealed_of(database: &dyn Sql, statement: &'static str) -> Result<Sealed> {
    let read = |cells: &Cells<'_>| {
        Ok(Sealed {
            ends: Ends {
                base: Point { seq: cells.number("base_seq")?, hash: cells.plain("base_hash")? },
                base_revision: cells.number("base_revision")?,
                base_revision_hash: cells.plain("base_revision_hash")?,
                head: Point { seq: cells.number("seq")?, hash: cells.plain("hash")? },
            },
            fleet: cells.parsed("server_id")?,
            seal: cells.plain("seal")?,
        })
    };
    sql::row(database, "audit_head", statement, &[], read)?.ok_or_else(no_ends)
}

fn no_ends() -> Fault {
    Fault::Unreadable(String::from("table audit_head has no row: restore a backup"))
}

/// The hash of the row that made a revision. Empty: there is none, as of a new database's first one.
pub(in crate::store) fn hash_at(database: &dyn Sql, revision: u64) -> Result<String> {
    // Rows that made no revision follow the one that made theirs, which retention can have taken away.
    let sql = "SELECT id, CASE WHEN base_revision = $1 THEN base_revision_hash ELSE
                   (SELECT hash FROM audit WHERE revision = $1 ORDER BY seq LIMIT 1) END AS hash FROM audit_head";
    let read = |cells: &Cells<'_>| cells.plain::<Option<String>>("hash");
    let found = sql::row(database, "audit_head", sql, &values![integer(revision)], read)?;
    // At 0 nothing made one.
    Ok(found.flatten().filter(|_| revision > 0).unwrap_or_default())
}

/// The row of the change that made a revision. `None`: there is none, or it went by retention.
pub(in crate::store) fn of(database: &dyn Sql, revision: u64) -> Result<Option<Row>> {
    let sql = rows_where!(
        "WHERE revision = $1 AND revision > (SELECT base_revision FROM audit_head) ORDER BY seq LIMIT 1"
    );
    sql::row(database, "audit", sql, &values![integer(revision)], row)
}

fn stored(number: u64) -> u64 {
    integer(number).unsigned_abs()
}

/// Rows behind `after`, oldest first.
pub(in crate::store) fn after(database: &dyn Sql, after: u64, limit: u32) -> Result<Vec<Row>> {
    rows(
        database,
        "audit",
        rows_where!("WHERE seq > $1 ORDER BY seq LIMIT $2"),
        &values![integer(after), limit],
        row,
    )
}

/// The first and the last place at which a row is; `None`: there is none.
pub(in crate::store) fn bounds(database: &dyn Sql) -> Result<Option<(u64, u64)>> {
    let sql = "SELECT min(seq) AS first, max(seq) AS last FROM audit HAVING count(*) > 0";
    sql::row(database, "audit", sql, &[], |cells| Ok((cells.number("first")?, cells.number("last")?)))
}

/// The newest rows, oldest first.
pub(in crate::store) fn tail(database: &dyn Sql, limit: u32) -> Result<Vec<Row>> {
    let mut found = rows(database, "audit", rows_where!("ORDER BY seq DESC LIMIT $1"), &values![limit], row)?;
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

/// What retention took away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Removed {
    pub(in crate::store) rows: u64,
    pub(in crate::store) last: u64,
}

/// Puts the base behind a row, and takes away all rows up to it. The caller has looked that they are as they were written, and
/// commits.
pub(super) fn remove_up_to(
    database: &dyn Sql,
    key: &SealingKey,
    last: &Row,
    now: SystemTime,
) -> Result<Removed> {
    let mut sealed = held(database)?;
    let base_revision_hash = hash_at(database, last.revision)?;
    let first = sealed.ends.base.seq + 1;
    let removed = Removed { rows: last.seq - sealed.ends.base.seq, last: last.seq };
    database.execute("DELETE FROM audit WHERE seq <= $1", &values![integer(last.seq)])?;
    sealed.ends.base = Point { seq: last.seq, hash: last.hash.clone() };
    (sealed.ends.base_revision, sealed.ends.base_revision_hash) = (last.revision, base_revision_hash);
    sealed.seal(key);
    sealed.put(database)?;
    let detail = json!({ "rows": removed.rows, "first": first, "last": last.seq, "hash": last.hash });
    let entry = Entry::new(now, &Actor::SERVER, "audit.prune", "audit".to_owned(), Outcome::Done, detail);
    append(database, key, &[entry], None)?;
    Ok(removed)
}
