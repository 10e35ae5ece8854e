//! Checks a database: file, references, audit chain, lists, and whether a server could load it.
//!
//! Always: one view of all tables, on a connection that cannot write; the big tables are read row by row.

use std::path::Path;

use pulse_proto::signature::{PublicKey, SigningKey, Statement};
use rusqlite::Connection;

use super::{Statements, schema};
use crate::audit::FIRST;
use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sql::{Cells, rows};
use crate::store::engine::{ahead, audit, catalog, history, lists, statuses};
use crate::store::{Checked, Finding, StoreError};

/// The most findings of each kind: what is damaged is often damaged all over.
const MAX_FINDINGS: usize = 50;

/// The schema in which the audit log's end is kept.
const SCHEMA_WITH_HEAD: i64 = 3;

pub(in crate::store) fn check(path: &Path) -> std::result::Result<Checked, StoreError> {
    let failed = |fault: Fault| fault.while_doing("check the database", &path.display().to_string());
    let mut connection = schema::open_reader(path)?;
    let view = connection.transaction().map_err(|error| failed(error.into()))?;
    let schema = schema::known_version(&view).map_err(failed)?;
    let mut check = Check { view: &view, sql: Statements(&view), checked: Checked::default() };
    check.part(true, Check::file);
    check.part(false, Check::references);
    check.part(true, |check| check.loads(schema));
    check.part(false, |check| check.chain(schema));
    check.part(false, Check::signatures);
    Ok(check.checked)
}

struct Check<'a> {
    view: &'a Connection,
    sql: Statements<'a>,
    checked: Checked,
}

impl Check<'_> {
    /// Does one part. What it cannot read is a finding; `is_needed` if a server needs it.
    fn part(&mut self, is_needed: bool, part: impl FnOnce(&mut Self) -> Result<()>) {
        let before = self.checked.findings.len();
        if let Err(fault) = part(self) {
            let what = match fault {
                Fault::Unreadable(what) => what,
                Fault::Sqlite(error) => error.to_string(),
                other => format!("{other:?}"),
            };
            self.found("", "", what);
        }
        self.checked.is_unusable |= is_needed && self.checked.findings.len() > before;
        let found = self.checked.findings.len() - before;
        if found > MAX_FINDINGS {
            self.checked.findings.truncate(before + MAX_FINDINGS);
            self.found("", "", format!("and {} more of this kind", found - MAX_FINDINGS));
        }
    }

    fn found(&mut self, table: &str, row: impl ToString, what: impl Into<String>) {
        let (table, row) = (table.to_owned(), row.to_string());
        self.checked.findings.push(Finding { table, row, what: what.into() });
    }

    /// The file's pages and indices.
    fn file(&mut self) -> Result<()> {
        let mut statement = self.view.prepare("PRAGMA integrity_check")?;
        let verdicts = statement.query_map([], |row| row.get::<_, String>(0))?;
        for verdict in verdicts {
            let verdict = verdict?;
            if verdict != "ok" {
                self.found("", "", format!("the file is damaged: {verdict}"));
            }
        }
        Ok(())
    }

    /// Rows that refer to others.
    fn references(&mut self) -> Result<()> {
        let mut statement = self.view.prepare("PRAGMA foreign_key_check")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let (table, id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let row = id.map(|id| id.to_string()).unwrap_or_default();
            self.found(&table, row, format!("it refers to a row of table {parent} that is not there"));
        }
        Ok(())
    }

    /// All that a server loads at its start.
    fn loads(&mut self, schema: i64) -> Result<()> {
        let fleet = catalog::fleet(&self.sql)?;
        self.checked.server_id = Some(fleet.server_id);
        (self.checked.epoch, self.checked.revision) = (fleet.epoch, fleet.revision);
        if SigningKey::from_pkcs8(&fleet.signing_key).is_err() {
            self.found("fleet", 1, "the key that signs lists cannot be read: restore a backup");
        }
        // Tables of an earlier schema are brought up to date by the server that opens them.
        if schema < schema::newest_version() {
            return Ok(());
        }
        catalog::instances(&self.sql, catalog::EVERY)?;
        catalog::proxies(&self.sql, catalog::EVERY)?;
        catalog::tokens(&self.sql, catalog::EVERY)?;
        catalog::join_tokens(&self.sql, catalog::EVERY)?;
        catalog::join_windows(&self.sql, catalog::EVERY)?;
        lists::newest(&self.sql)?;
        statuses::all(&self.sql)?;
        ahead::all(&self.sql)?;
        history::newest(&self.sql)?;
        Ok(())
    }

    /// The audit log, from its first row to its end.
    fn chain(&mut self, schema: i64) -> Result<()> {
        let view = &Statements(self.view);
        let (mut last, mut hash, mut revision) = (0, FIRST.to_owned(), 0);
        let sql = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash FROM audit ORDER BY seq";
        rows(view, "audit", sql, &[], |cells| {
            let row = audit::row(cells)?;
            self.checked.audit_rows += 1;
            if row.seq == 0 {
                self.found("audit", 0, "the log begins with row 1: it was put there");
            } else if row.seq != last + 1 {
                self.found("audit", row.seq, format!("{} before it", missing(last + 1, row.seq - 1)));
            } else if row.previous_hash != hash {
                self.found(
                    "audit",
                    row.seq,
                    "it is not chained to the row before it: one of the two was changed",
                );
            }
            if row.computed_hash() != row.hash {
                self.found("audit", row.seq, "it was changed: it does not have its hash");
            }
            // Each change of the fleet has its row, in order; refusals keep the revision.
            if row.revision < revision || row.revision > revision + 1 {
                let text = format!("it is of revision {}, and the row before it of {revision}", row.revision);
                self.found("audit", row.seq, text);
            }
            (last, hash, revision) = (row.seq, row.hash, row.revision);
            Ok(())
        })?;
        if revision < self.checked.revision {
            let text = format!(
                "it ends with revision {revision}, and the fleet is at {}: rows are missing at the end",
                self.checked.revision
            );
            self.found("audit", "", text);
        }
        if schema >= SCHEMA_WITH_HEAD {
            let (head, head_hash) = audit::head(view)?;
            if last < head {
                self.found("audit", "", format!("{} at the end", missing(last + 1, head)));
            } else if (head, head_hash) != (last, hash) {
                self.found(
                    "audit",
                    last,
                    "it is not the row that was added last: it was changed or put there",
                );
            }
        }
        Ok(())
    }

    /// Every list: its nodes have its hash, and its signature is one of the fleet's key.
    fn signatures(&mut self) -> Result<()> {
        let view = &Statements(self.view);
        let key = SigningKey::from_pkcs8(&catalog::fleet(view)?.signing_key).map(|key| key.public()).ok();
        let sql =
            "SELECT scope, epoch, revision, hash, updated_at, refresh_interval_ms, key_id, signature, nodes
                   FROM allowlists ORDER BY scope, epoch, revision";
        rows(view, "allowlists", sql, &[], |cells| {
            self.checked.lists += 1;
            let name = list_name(cells)?;
            match lists::list(cells) {
                Err(Fault::Unreadable(what)) => self.found("allowlists", name, what),
                Err(fault) => return Err(fault),
                Ok(list) => {
                    if let Some(what) = key.and_then(|key| signature_fault(&key, &list)) {
                        self.found("allowlists", name, what);
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn missing(from: u64, to: u64) -> String {
    if from == to { format!("row {from} is missing") } else { format!("rows {from} to {to} are missing") }
}

fn list_name(cells: &Cells<'_>) -> Result<String> {
    let (scope, epoch, revision): (String, i64, i64) =
        (cells.plain("scope")?, cells.plain("epoch")?, cells.plain("revision")?);
    Ok(format!("{scope} of epoch {epoch}, revision {revision}"))
}

fn signature_fault(key: &PublicKey, list: &pulse_proto::SignedAllowlist) -> Option<String> {
    if list.key_id != key.key_id() {
        return Some(format!(
            "it is signed with key {}, and the fleet's key is {}",
            list.key_id,
            key.key_id()
        ));
    }
    let pulse_proto::Position { epoch, revision } = list.position;
    let statement = Statement { epoch, revision, scope: list.scope, hash: list.allowlist.hash() };
    let fits = key.verifies(&statement, &list.signature);
    (!fits).then(|| "its signature does not fit it: it was changed".to_owned())
}
