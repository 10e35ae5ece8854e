//! Opening the file: its lock, its mode, how SQLite is set up, and migrations.
//!
//! In: the data folder. Out: a connection to a database that is up to date, or an error that says what to do.
//! Always: one server at a time; a migration is applied whole or not at all.
//! Never: opens a database of a newer version.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use pulse_proto::Clock;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::Statements;
use crate::sealing::SealingKey;
use crate::store::StoreError;
use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sql::{Sql, values};
use crate::store::engine::{audit, catalog, sealed};

/// Each brings the schema from the version that is its index to the next.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/0001_initial.sql"),
    include_str!("../migrations/sqlite/0002_joining.sql"),
    include_str!("../migrations/sqlite/0003_older_database.sql"),
    include_str!("../migrations/sqlite/0004_kept_list.sql"),
    include_str!("../migrations/sqlite/0005_sealed.sql"),
    include_str!("../migrations/sqlite/0006_sources.sql"),
    include_str!("../migrations/sqlite/0007_accounts.sql"),
    include_str!("../migrations/sqlite/0008_audit.sql"),
];

/// The schema from which on secrets are sealed.
pub(in crate::store) const SEALED_SCHEMA: i64 = 5;

/// The schema from which on the ends of the audit log are sealed.
pub(in crate::store) const SEALED_AUDIT_SCHEMA: i64 = 8;

/// Before this one a writer and a checkpoint on two connections could damage a WAL database
/// (<https://sqlite.org/wal.html#walresetbug>).
const MIN_SQLITE_VERSION: i32 = 3_051_003;

/// How long to wait for another program that holds the database, such as a backup or a shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Tables that are small, and needed whole: those checked at start. The others can be many gigabytes.
const CHECKED_TABLES: [&str; 12] = [
    "fleet",
    "instances",
    "instance_nodes",
    "instance_sources",
    "node_wishes",
    "held_changes",
    "proxies",
    "ctrl_tokens",
    "join_tokens",
    "join_windows",
    "admins",
    "credentials",
];

/// Takes the lock that says which server has the data folder. It lasts as long as the file is open.
pub(in crate::store) fn lock(data_dir: &Path) -> std::result::Result<File, StoreError> {
    let path = data_dir.join("pulse.lock");
    let failed = |doing: &str, source: std::io::Error| StoreError::Database {
        doing: format!("{doing} {}", path.display()),
        source: source.into(),
    };
    // Not through a link: root takes the lock too, in a folder that belongs to another user.
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags);
    let file = options.open(&path);
    let file = file.map_err(|error| failed("open the lock file", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { data_dir: data_dir.to_owned(), lock: path }),
        Err(TryLockError::Error(error)) => Err(failed("lock", error)),
    }
}

/// Opens the database for writing, makes it if it is not there, and brings it up to date. Out: the connection, and the key in
/// this file, under which the database's secrets are sealed; if nothing is sealed yet it is made, if it is not there.
pub(in crate::store) fn open_writer(
    path: &Path,
    secret_key: &Path,
    clock: &Clock,
) -> std::result::Result<(Connection, SealingKey), StoreError> {
    keep_private(path).map_err(|source| StoreError::Database {
        doing: format!("make {} a file that only its owner can read", path.display()),
        source: source.into(),
    })?;
    let version = rusqlite::version_number();
    if version < MIN_SQLITE_VERSION {
        return Err(StoreError::Database {
            doing: format!("open the database ({})", path.display()),
            source: format!("SQLite {} is too old: at least 3.51.3 is needed", rusqlite::version()).into(),
        });
    }
    let open = || -> Result<(Connection, SealingKey)> {
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Err(Fault::Unreadable(format!(
                "the file system does not allow a write-ahead log (journal mode {mode}): use a local disk"
            )));
        }
        // An answer means "on disk": the log is flushed with every commit.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // 16 MiB: the ends of the indices of some thousand nodes.
        connection.pragma_update(None, "cache_size", -16_384)?;
        // 32 MiB: pages that change often are copied into the database once, not with each of their changes.
        connection.pragma_update(None, "wal_autocheckpoint", 8_192)?;
        // After a burst the log shrinks to 64 MiB again.
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        // A migration takes secrets away: not only their rows, but the bytes.
        connection.pragma_update(None, "secure_delete", true)?;
        let is_migrated = migrate(&mut connection, secret_key, clock)?;
        check(&connection)?;
        let view = connection.transaction()?;
        let sealing = sealed::settle(&Statements(&view), secret_key)?;
        drop(view);
        // What a migration took away is in the log still, if not of this start, then of one that was killed.
        let emptied = empty_log(&connection);
        if is_migrated {
            emptied?;
        }
        // From here on where it costs no further writes.
        connection.pragma_update(None, "secure_delete", "fast")?;
        Ok((connection, sealing))
    };
    open().map_err(|fault| fault.while_doing("open the database", &path.display().to_string()))
}

/// Opens a second connection, which cannot write.
pub(in crate::store) fn open_reader(path: &Path) -> std::result::Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|fault| fault.while_doing("open the database for reading", &path.display().to_string()))
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection> {
    // Each connection stays with its thread, so SQLite need not lock it; a path is a path, never a URI.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes the file if need be; SQLite gives its log and its index the mode of the database.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Puts what is in the log where it belongs. It stays as it is while another program reads the database.
pub(in crate::store) fn empty_log(connection: &Connection) -> Result<()> {
    let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(truncate)", [], |row| row.get(0))?;
    if is_busy {
        tracing::warn!(
            "another program reads the database, so its log keeps what was overwritten until the server ends"
        );
    }
    Ok(())
}

/// Brings the database up to date; says whether there was anything to do.
fn migrate(connection: &mut Connection, secret_key: &Path, clock: &Clock) -> Result<bool> {
    let mut is_migrated = false;
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version(&transaction)?;
        let next = usize::try_from(version).unwrap_or_default();
        let Some(migration) = MIGRATIONS.get(next) else {
            return Ok(is_migrated);
        };
        let reached = if next == 0 {
            found(&transaction, secret_key, clock)?;
            newest_version()
        } else {
            if version + 1 == SEALED_SCHEMA {
                seal(&transaction, secret_key)?;
            }
            transaction.execute_batch(migration)?;
            if version + 1 == SEALED_AUDIT_SCHEMA {
                let sealing = sealed::settle(&Statements(&transaction), secret_key)?;
                audit::begin_sealing(&Statements(&transaction), &sealing, clock)?;
            }
            version + 1
        };
        transaction.pragma_update(None, "user_version", reached)?;
        transaction.commit()?;
        is_migrated = true;
    }
}

/// Makes a new database, in one go: its signing key never stands in it in the open.
fn found(database: &Connection, secret_key: &Path, clock: &Clock) -> Result<()> {
    let tables: i64 = database.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if tables > 0 {
        return Err(Fault::Unreadable(String::from("it is the database of another program")));
    }
    for migration in MIGRATIONS {
        database.execute_batch(migration)?;
    }
    let sealing = SealingKey::open_or_make(secret_key).map_err(Fault::Sealed)?;
    catalog::found_fleet(&Statements(database), clock, |fleet, key| {
        sealed::seal_signing(&sealing, fleet, &key)
    })?;
    audit::seal_new(&Statements(database), &sealing)
}

/// Seals the signing key, which stood in the open in earlier schemas.
fn seal(database: &Connection, secret_key: &Path) -> Result<()> {
    let statements = Statements(database);
    let fleet = catalog::fleet(&statements)?;
    let sealing = SealingKey::open_or_make(secret_key).map_err(Fault::Sealed)?;
    let sealed = sealed::seal_signing(&sealing, fleet.server_id, &fleet.signing_key)?;
    statements.execute("UPDATE fleet SET signing_key = $1", &values![sealed])?;
    tracing::info!(secret_key = %secret_key.display(), "the signing key is sealed from here on");
    Ok(())
}

/// The version of the database's schema, if this program knows it; 0: it has none yet.
fn version(connection: &Connection) -> Result<i64> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = newest_version();
    if (0..=known).contains(&version) {
        return Ok(version);
    }
    Err(Fault::Unreadable(format!(
        "its schema has version {version}, and this pulse knows versions up to {known}: install the pulse that wrote it, \
         or a newer one"
    )))
}

/// The version of the schema of a database that is there, if this program knows it.
pub(in crate::store) fn known_version(connection: &Connection) -> Result<i64> {
    match version(connection)? {
        0 => Err(Fault::Unreadable(String::from("it is no database of Pulse"))),
        version => Ok(version),
    }
}

/// The version of the schema that this program makes.
pub(in crate::store) fn newest_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("they were written one by one")
}

fn check(connection: &Connection) -> Result<()> {
    for table in CHECKED_TABLES {
        let verdict: String =
            connection.query_row(&format!("PRAGMA quick_check('{table}')"), [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Fault::Unreadable(format!("table {table} is damaged ({verdict}): restore a backup")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_says_what_it_is() {
        for migration in MIGRATIONS {
            let lines: Vec<_> = migration.lines().collect();
            for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("CREATE TABLE")) {
                assert!(at > 0 && lines[at - 1].starts_with("-- "), "{line}");
            }
        }
    }

    #[test]
    fn an_audit_log_from_before_its_end_was_kept_goes_on_where_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        transaction.execute_batch(MIGRATIONS[0]).unwrap();
        catalog::found_fleet(&Statements(&transaction), &Clock::system(), |_, key| Ok(key)).unwrap();
        transaction.execute_batch(MIGRATIONS[1]).unwrap();
        let rows = "INSERT INTO audit VALUES (1, 0, '', '', '', '{}', 1, '', 'aa'), (2, 0, '', '', '', '{}', 2, 'aa', 'bb')";
        transaction.execute_batch(rows).unwrap();
        transaction.pragma_update(None, "user_version", 2).unwrap();
        transaction.commit().unwrap();
        let secret_key = folder.path().join("secret.key");
        assert!(migrate(&mut connection, &secret_key, &Clock::system()).unwrap());
        let sealing = sealed::settle(&Statements(&connection), &secret_key).unwrap();
        let rows = audit::after(&Statements(&connection), 2, 9).unwrap();
        assert!(
            matches!(&rows[..], [row] if row.action == "audit.seal" && row.previous_hash == "bb"),
            "{rows:?}"
        );
        let sealed = audit::ends(&Statements(&connection)).unwrap();
        assert!(sealed.is_sealed_by(&sealing) && sealed.ends.head.seq == 3);
    }

    #[test]
    fn the_bundled_sqlite_is_compiled_as_the_checkout_says() {
        let connection = Connection::open_in_memory().unwrap();
        let mut options = connection.prepare("PRAGMA compile_options").unwrap();
        let options: Vec<String> =
            options.query_map([], |row| row.get(0)).unwrap().map(|option| option.unwrap()).collect();
        let option = "DEFAULT_MEMSTATUS=0";
        assert!(
            options.iter().any(|found| found == option),
            "LIBSQLITE3_FLAGS of .cargo/config.toml: {options:?}"
        );
    }

    #[test]
    fn the_bundled_sqlite_is_new_enough() {
        assert!(rusqlite::version_number() >= MIN_SQLITE_VERSION, "{}", rusqlite::version());
    }
}
