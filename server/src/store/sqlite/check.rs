//! Checks a database in a file: its pages and references, and what every database has.
//!
//! Always: on a connection that cannot write.

use std::path::Path;

use rusqlite::Connection;

use super::{Statements, schema};
use crate::sealing;
use crate::store::engine::check::{Check, Kind, check as check_tables};
use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sealed;
use crate::store::{Checked, StoreError};

/// The schema in which the audit log's end is kept.
const SCHEMA_WITH_HEAD: i64 = 3;

pub(in crate::store) fn check(path: &Path, secret_key: &Path) -> std::result::Result<Checked, StoreError> {
    let failed = |fault: Fault| fault.while_doing("check the database", &path.display().to_string());
    let mut connection = schema::open_reader(path)?;
    let before = sealing::all_of(secret_key);
    let view = connection.transaction().map_err(|error| failed(error.into()))?;
    let schema = schema::known_version(&view).map_err(failed)?;
    let is_sealed = schema >= schema::SEALED_SCHEMA;
    let keys = if is_sealed { sealed::found(before, secret_key).map_err(failed)? } else { Vec::new() };
    let open = |fleet, stored: &[u8]| match is_sealed {
        true => sealed::open_signing_by(&keys, fleet, stored),
        false => Ok(stored.to_vec()),
    };
    let kind = Kind {
        is_newest: schema == schema::newest_version(),
        has_head: schema >= SCHEMA_WITH_HEAD,
        audit_keys: if schema >= schema::SEALED_AUDIT_SCHEMA { &keys } else { &[] },
        key: &open,
    };
    Ok(check_tables(&Statements(&view), &kind, |check| {
        check.part(true, |check| pages(&view, check));
        check.part(false, |check| references(&view, check));
    }))
}

/// The file's pages and indices.
fn pages(view: &Connection, check: &mut Check<'_>) -> Result<()> {
    let mut statement = view.prepare("PRAGMA integrity_check")?;
    let verdicts = statement.query_map([], |row| row.get::<_, String>(0))?;
    for verdict in verdicts {
        let verdict = verdict?;
        if verdict != "ok" {
            check.found("", "", format!("the file is damaged: {verdict}"));
        }
    }
    Ok(())
}

/// Rows that refer to others.
fn references(view: &Connection, check: &mut Check<'_>) -> Result<()> {
    let mut statement = view.prepare("PRAGMA foreign_key_check")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let (table, id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let row = id.map(|id| id.to_string()).unwrap_or_default();
        check.found(&table, row, format!("it refers to a row of table {parent} that is not there"));
    }
    Ok(())
}
