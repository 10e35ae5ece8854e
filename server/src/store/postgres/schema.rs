//! The tables on PostgreSQL: made if they are not there, and brought up to date.
//!
//! Always: a migration is applied whole or not at all, by one server at a time. Never: opens a database of a newer version, or one
//! whose keys it cannot open.

use std::path::Path;

use pulse_proto::Clock;
use tokio::runtime::Handle;

use super::{Address, Connection};
use crate::sealing::SealingKey;
use crate::store::StoreError;
use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sql::{Sql, row, values};
use crate::store::engine::{audit, catalog, sealed, sql};

/// Each brings the schema from the version that is its index to the next.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/postgres/0001_initial.sql"),
    include_str!("../migrations/postgres/0002_sources.sql"),
    include_str!("../migrations/postgres/0003_accounts.sql"),
    include_str!("../migrations/postgres/0004_audit.sql"),
];

/// The schema from which on the ends of the audit log are sealed.
const SEALED_AUDIT_SCHEMA: usize = 4;

/// PostgreSQL before it is not tested: `server_version_num`.
const MIN_SERVER_VERSION: i64 = 150_000;

/// Any number, the same for all: whoever holds this lock migrates.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7655)";

/// Opens a connection for writing, and brings the database up to date. Out: the connection, and the key in this file, under
/// which the database's keys are sealed; with a new database it is made, if it is not there.
pub(in crate::store) fn open_writer(
    address: Address,
    runtime: Handle,
    secret_key: &Path,
    clock: &Clock,
) -> std::result::Result<(Connection, SealingKey), StoreError> {
    let name = address.name.clone();
    let mut connection = Connection::new(address, runtime);
    let migrated = migrate(&mut connection, secret_key, clock);
    let sealing = migrated.map_err(|fault| fault.while_doing("open the database", &name))?;
    Ok((connection, sealing))
}

fn migrate(connection: &mut Connection, secret_key: &Path, clock: &Clock) -> Result<SealingKey> {
    connection.with_statements(|statements| {
        let sql: &dyn Sql = statements;
        let server = "SELECT CAST(current_setting('server_version_num') AS BIGINT) AS version";
        let server: i64 = number(sql, "pg_settings", server)?.unwrap_or_default();
        if server < MIN_SERVER_VERSION {
            let text = format!("it is PostgreSQL {}, and at least 15 is needed", server / 10_000);
            return Err(Fault::Unreadable(text));
        }
        statements.simple(MIGRATION_LOCK)?;
        statements.simple("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")?;
        let version = number(sql, "schema_version", "SELECT version FROM schema_version")?.unwrap_or_default();
        let known = i64::try_from(MIGRATIONS.len()).expect("they were written one by one");
        let begin = usize::try_from(version).ok().filter(|begin| *begin <= MIGRATIONS.len());
        let Some(begin) = begin else {
            return Err(Fault::Unreadable(format!(
                "its schema has version {version}, and this pulse knows versions up to {known}: install the pulse that \
                 wrote it, or a newer one"
            )));
        };
        for migration in &MIGRATIONS[begin..] {
            statements.simple(migration)?;
        }
        if begin == 0 {
            let sealing = SealingKey::open_or_make(secret_key).map_err(Fault::Sealed)?;
            catalog::found_fleet(sql, clock, |fleet, key| sealed::seal_signing(&sealing, fleet, &key))?;
            audit::seal_new(sql, &sealing)?;
            sql.execute("INSERT INTO schema_version (version) VALUES ($1)", &values![known])?;
        } else if begin < MIGRATIONS.len() {
            sql.execute("UPDATE schema_version SET version = $1", &values![known])?;
        }
        let sealing = sealed::settle(sql, secret_key)?;
        if (1..SEALED_AUDIT_SCHEMA).contains(&begin) {
            audit::begin_sealing(sql, &sealing, clock)?;
        }
        Ok(sealing)
    })
}

/// Whether it is a database of Pulse, with the tables that this program makes.
pub(super) fn is_newest(sql: &dyn Sql) -> Result<bool> {
    let is_ours = "SELECT CAST(count(*) AS BIGINT) AS version FROM pg_class
                   WHERE oid = to_regclass('schema_version')";
    if number(sql, "pg_class", is_ours)? != Some(1) {
        return Ok(false);
    }
    let known = i64::try_from(MIGRATIONS.len()).expect("they were written one by one");
    Ok(number(sql, "schema_version", "SELECT version FROM schema_version")? == Some(known))
}

fn number(database: &dyn Sql, table: &'static str, statement: &'static str) -> Result<Option<i64>> {
    row(database, table, statement, &[], |cells: &sql::Cells<'_>| cells.plain("version"))
}
