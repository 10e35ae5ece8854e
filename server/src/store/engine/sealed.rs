//! What is sealed in the database: the fleet's keys, and columns of other tables.
//!
//! In: the sealing key, or an exchange of it. Out: sealed bytes and secrets; everything sealed anew.
//! Always: each secret is bound to its place, so that in another column, row or fleet it does not open.

use std::fmt::Display;
use std::path::Path;

use uuid::Uuid;

use super::fault::{Fault, Result};
use super::sql::{Sql, row, rows, values};
use super::{audit, catalog};
use crate::sealing::{self, SealingError, SealingKey};

/// Columns that are sealed, beside those of the fleet's own row: table, key of its rows (text), column.
/// Whatever is sealed stands here, and its place is what [`place_in`] says: an exchange of the key seals it anew.
const SEALED: &[Column] = &[("instance_sources", "instance_id", "sealed_secret")];

type Column = (&'static str, &'static str, &'static str);

/// The column of the key that signs lists.
pub(in crate::store) const SIGNING: &str = "signing_key";

/// The column of the authority's key, which only a database has that servers share.
const AUTHORITY: &str = "authority_key";

/// Where a key of the fleet's own row belongs.
pub(in crate::store) fn place(column: &str, fleet: Uuid) -> String {
    format!("fleet.{column} of {fleet}")
}

/// Where a secret of another table belongs.
pub(in crate::store) fn place_in(table: &str, column: &str, fleet: Uuid, key: impl Display) -> String {
    format!("{table}.{column} of {fleet}/{key}")
}

/// Seals the key that signs the lists of this fleet.
pub(in crate::store) fn seal_signing(sealing: &SealingKey, fleet: Uuid, key: &[u8]) -> Result<Vec<u8>> {
    sealing.seal(&place(SIGNING, fleet), key).map_err(Fault::Sealed)
}

/// Opens the key that signs the lists of this fleet.
pub(in crate::store) fn open_signing(sealing: &SealingKey, fleet: Uuid, sealed: &[u8]) -> Result<Vec<u8>> {
    sealing.open_sealed(&place(SIGNING, fleet), sealed).map_err(Fault::Sealed)
}

/// As [`open_signing`], with whichever of these keys does it, of which there is at least one: an exchange may be under way.
pub(in crate::store) fn open_signing_by(keys: &[SealingKey], fleet: Uuid, sealed: &[u8]) -> Result<Vec<u8>> {
    let mut opened = Err(Fault::Stopped);
    for key in keys {
        opened = open_signing(key, fleet, sealed);
        if opened.is_ok() {
            break;
        }
    }
    opened
}

/// The keys in this file and beside it, for whoever looks at the database while a server may exchange them. `before` is what
/// [`sealing::all_of`] found before the view of the database began: with what is found now, one of them is the view's.
pub(in crate::store) fn found(
    before: std::result::Result<Vec<SealingKey>, SealingError>,
    secret_key: &Path,
) -> Result<Vec<SealingKey>> {
    match (before, sealing::all_of(secret_key)) {
        (Ok(before), Ok(after)) => Ok(before.into_iter().chain(after).collect()),
        (Ok(keys), Err(_)) | (Err(_), Ok(keys)) => Ok(keys),
        (Err(_), Err(error)) => Err(Fault::Sealed(error)),
    }
}

/// The key in this file, or the next one beside it if an exchange was cut short: the one that opens what the database has.
pub(in crate::store) fn settle(database: &dyn Sql, secret_key: &Path) -> Result<SealingKey> {
    let fleet = catalog::fleet(database)?;
    let opens =
        |key: &SealingKey| key.open_sealed(&place(SIGNING, fleet.server_id), &fleet.signing_key).map(drop);
    sealing::settle(secret_key, opens).map_err(Fault::Sealed)
}

/// Seals everything anew that is sealed under `from`. The caller commits. `Err` if something does not open: then nothing is to
/// be changed.
pub(in crate::store) fn reseal(database: &dyn Sql, from: &SealingKey, to: &SealingKey) -> Result<()> {
    let sql = "SELECT server_id, signing_key FROM fleet";
    let found = row(database, "fleet", sql, &[], |cells| {
        Ok((cells.parsed::<Uuid>("server_id")?, cells.plain::<Vec<u8>>("signing_key")?))
    })?;
    let (fleet, signing) = found.ok_or_else(|| Fault::Unreadable("table fleet has no row".to_owned()))?;
    let signing = anew(from, to, &place(SIGNING, fleet), &signing)?;
    database.execute("UPDATE fleet SET signing_key = $1", &values![signing])?;
    if database.is_shared() {
        let sql = "SELECT server_id, authority_key FROM fleet";
        let authority = row(database, "fleet", sql, &[], |cells| cells.plain::<Option<Vec<u8>>>(AUTHORITY))?;
        if let Some(authority) = authority.flatten() {
            let authority = anew(from, to, &place(AUTHORITY, fleet), &authority)?;
            database.execute("UPDATE fleet SET authority_key = $1", &values![authority])?;
        }
    }
    reseal_rows(database, fleet, from, to)
}

/// The part of [`reseal`] that is of other tables than the fleet's own.
pub(in crate::store) fn reseal_rows(
    database: &dyn Sql,
    fleet: Uuid,
    from: &SealingKey,
    to: &SealingKey,
) -> Result<()> {
    SEALED.iter().try_for_each(|sealed| reseal_column(database, *sealed, fleet, from, to))?;
    audit::reseal(database, from, to)
}

fn reseal_column(
    database: &dyn Sql,
    (table, key, column): Column,
    fleet: Uuid,
    from: &SealingKey,
    to: &SealingKey,
) -> Result<()> {
    let all = format!("SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL");
    let found = rows(database, table, &all, &[], |cells| {
        Ok((cells.plain::<String>(key)?, cells.plain::<Vec<u8>>(column)?))
    })?;
    let mut sealed = Vec::new();
    for (row, secret) in found {
        let secret = anew(from, to, &place_in(table, column, fleet, &row), &secret)?;
        sealed.push(values![secret, row].to_vec());
    }
    let update = format!("UPDATE {table} SET {column} = $1 WHERE {key} = $2");
    database.execute_each(&update, &mut sealed.into_iter())
}

fn anew(from: &SealingKey, to: &SealingKey, place: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    let secret = from.open_sealed(place, sealed).map_err(Fault::Sealed)?;
    to.seal(place, &secret).map_err(Fault::Sealed)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::sqlite::Statements;

    #[test]
    fn a_sealed_column_of_another_table_is_sealed_anew_row_by_row_or_refused_as_a_whole() {
        let (from, to) = (
            SealingKey::generate(Path::new("old")).unwrap(),
            SealingKey::generate(Path::new("new")).unwrap(),
        );
        let shell = Connection::open_in_memory().unwrap();
        shell.execute_batch("CREATE TABLE sources (id TEXT PRIMARY KEY, secret BLOB)").unwrap();
        let (database, fleet) = (Statements(&shell), Uuid::from_u128(7));
        let place = |id: &str| place_in("sources", "secret", fleet, id);
        for id in ["a", "b"] {
            let sealed = from.seal(&place(id), id.as_bytes()).unwrap();
            shell.execute("INSERT INTO sources VALUES (?1, ?2)", (id, sealed)).unwrap();
        }
        shell.execute("INSERT INTO sources VALUES ('none', NULL)", ()).unwrap();
        let column = ("sources", "id", "secret");
        reseal_column(&database, column, fleet, &from, &to).unwrap();
        let stored = |id: &str| -> Option<Vec<u8>> {
            shell.query_row("SELECT secret FROM sources WHERE id = ?1", [id], |row| row.get(0)).unwrap()
        };
        for id in ["a", "b"] {
            assert_eq!(to.open_sealed(&place(id), &stored(id).unwrap()).unwrap(), id.as_bytes());
        }
        assert_eq!(stored("none"), None);
        let before = (stored("a"), stored("b"));
        shell
            .execute(
                "UPDATE sources SET secret = (SELECT secret FROM sources WHERE id = 'a') WHERE id = 'b'",
                (),
            )
            .unwrap();
        assert!(
            matches!(reseal_column(&database, column, fleet, &to, &from), Err(Fault::Sealed(_))),
            "b was moved"
        );
        assert_eq!(stored("a"), before.0);
    }
}
