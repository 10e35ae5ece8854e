//! Checks a database: whether a server could load it, audit chain and lists, and what its engine knows to check besides.
//!
//! In: a view of all tables that cannot write. Out: what is wrong. Always: the big tables are read some rows at a time.

use pulse_proto::signature::{PublicKey, SigningKey, Statement};
use uuid::Uuid;

use super::fault::{Fault, Result};
use super::sql::{Cells, Sql, integer, rows, values};
use super::{accounts, ahead, audit, catalog, history, instances, lists, statuses};
use crate::audit::Ends;
use crate::audit::verify::{Damage, Verifier};
use crate::sealing::SealingKey;
use crate::store::{Checked, Finding};

/// The most findings of each kind: what is damaged is often damaged all over.
const MAX_FINDINGS: usize = 50;

/// How many rows of a big table are in memory at once.
const PAGE: i64 = 1_000;

/// Opens a key of a fleet as it is stored.
type OpenKey<'a> = dyn Fn(Uuid, &[u8]) -> Result<Vec<u8>> + 'a;

/// What is special to an engine, or to how the database was found.
pub(in crate::store) struct Kind<'a> {
    /// Whether the tables are those of the newest schema: earlier ones are brought up to date by the server that opens them.
    pub(in crate::store) is_newest: bool,
    /// Whether the end of the audit log is kept.
    pub(in crate::store) has_head: bool,
    /// The keys of which one has sealed the ends of the audit log; empty: they are not sealed in this schema.
    pub(in crate::store) audit_keys: &'a [SealingKey],
    /// Opens the key that signs lists, as it is stored.
    pub(in crate::store) key: &'a OpenKey<'a>,
}

/// Checks what every database has, after what is given as `first`.
pub(in crate::store) fn check(sql: &dyn Sql, kind: &Kind<'_>, first: impl FnOnce(&mut Check<'_>)) -> Checked {
    let mut check = Check { sql, kind, checked: Checked::default() };
    first(&mut check);
    check.part(true, Check::loads);
    check.part(false, Check::chain);
    check.part(false, Check::signatures);
    check.checked
}

/// A check under way.
pub(in crate::store) struct Check<'a> {
    sql: &'a dyn Sql,
    kind: &'a Kind<'a>,
    checked: Checked,
}

impl Check<'_> {
    /// Does one part. What it cannot read is a finding; `is_needed` if a server needs it.
    pub(in crate::store) fn part(&mut self, is_needed: bool, part: impl FnOnce(&mut Self) -> Result<()>) {
        let before = self.checked.findings.len();
        if let Err(fault) = part(self) {
            let what = match fault {
                Fault::Unreadable(what) => what,
                Fault::Sqlite(error) => error.to_string(),
                Fault::Postgres(error) => error.to_string(),
                Fault::Sealed(error) => error.to_string(),
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

    pub(in crate::store) fn found(&mut self, table: &str, row: impl ToString, what: impl Into<String>) {
        let (table, row) = (table.to_owned(), row.to_string());
        self.checked.findings.push(Finding { table, row, what: what.into() });
    }

    /// All that a server loads at its start.
    fn loads(&mut self) -> Result<()> {
        let fleet = catalog::fleet(self.sql)?;
        self.checked.server_id = Some(fleet.server_id);
        (self.checked.epoch, self.checked.revision) = (fleet.epoch, fleet.revision);
        match (self.kind.key)(fleet.server_id, &fleet.signing_key) {
            Ok(key) if SigningKey::from_pkcs8(&key).is_ok() => {}
            Ok(_) => self.found("fleet", 1, "the key that signs lists cannot be read: restore a backup"),
            Err(Fault::Sealed(error)) => {
                self.found("fleet", 1, format!("the key that signs lists cannot be opened: {error}"));
            }
            Err(fault) => return Err(fault),
        }
        if !self.kind.is_newest {
            return Ok(());
        }
        instances::after(self.sql, catalog::EVERY)?;
        catalog::proxies(self.sql, catalog::EVERY)?;
        catalog::tokens(self.sql, catalog::EVERY)?;
        catalog::join_tokens(self.sql, catalog::EVERY)?;
        catalog::join_windows(self.sql, catalog::EVERY)?;
        accounts::admins(self.sql, catalog::EVERY)?;
        accounts::credentials(self.sql, catalog::EVERY)?;
        lists::newest(self.sql)?;
        statuses::all(self.sql)?;
        ahead::all(self.sql)?;
        history::newest(self.sql)?;
        Ok(())
    }

    /// The audit log, from its first row to its end.
    fn chain(&mut self) -> Result<()> {
        let sql = self.sql;
        let sealed = if self.kind.audit_keys.is_empty() { None } else { Some(audit::ends(sql)?) };
        let is_sealed = sealed
            .as_ref()
            .is_none_or(|sealed| self.kind.audit_keys.iter().any(|key| sealed.is_sealed_by(key)));
        let ends = match sealed {
            Some(sealed) => sealed.ends,
            None if self.kind.has_head => Ends { head: audit::head(sql)?, ..Ends::of_none() },
            None => Ends::of_none(),
        };
        let mut verifier = Verifier::new(ends, None);
        let page = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash
                    FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
        let mut one = |cells: &Cells<'_>| {
            let row = audit::row(cells)?;
            self.checked.audit_rows += 1;
            verifier.row(&row, &mut |damage| self.damaged(&damage));
            Ok(integer(row.seq))
        };
        // Also before the first place, where only somebody else can have put one.
        let mut after = i64::MIN;
        while let Some(last) = rows(sql, "audit", page, &values![after, PAGE], &mut one)?.pop() {
            after = last;
        }
        let fleet = self.checked.revision;
        let verifier = if self.kind.has_head { verifier } else { verifier.ending_here() };
        verifier.end(Some(fleet), is_sealed, &mut |damage| self.damaged(&damage));
        Ok(())
    }

    fn damaged(&mut self, damage: &Damage) {
        let row = damage.row().map(|row| row.to_string()).unwrap_or_default();
        self.found("audit", row, damage.to_string());
    }

    /// Every list: its nodes have its hash, and its signature is one of the fleet's key.
    fn signatures(&mut self) -> Result<()> {
        let sql = self.sql;
        let fleet = catalog::fleet(sql)?;
        // If there is none, that was found before.
        let key = (self.kind.key)(fleet.server_id, &fleet.signing_key).ok();
        let key = key.and_then(|key| SigningKey::from_pkcs8(&key).ok()).map(|key| key.public());
        let page =
            "SELECT scope, epoch, revision, hash, updated_at, refresh_interval_ms, key_id, signature, nodes
                    FROM allowlists WHERE (scope, epoch, revision) > ($1, $2, $3)
                    ORDER BY scope, epoch, revision LIMIT $4";
        let mut one = |cells: &Cells<'_>| {
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
            Ok((cells.plain("scope")?, cells.plain("epoch")?, cells.plain("revision")?))
        };
        let mut after = (String::new(), -1, -1);
        loop {
            let (scope, epoch, revision): (String, i64, i64) = after;
            let last = rows(sql, "allowlists", page, &values![scope, epoch, revision, PAGE], &mut one)?.pop();
            after = match last {
                Some(last) => last,
                None => return Ok(()),
            };
        }
    }
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
