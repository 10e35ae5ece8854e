//! A database of the first release.

use std::path::Path;

use rusqlite::Connection;

use super::sealed::signing_key;

const FIRST_SCHEMA: &str = include_str!("../../src/store/migrations/sqlite/0001_initial.sql");

/// Makes the database one of the first release: its tables, with what stands in the columns that they have, and nothing sealed.
pub(crate) fn set_back(data_dir: &Path) {
    let signing_key = signing_key(data_dir);
    std::fs::remove_file(data_dir.join("secret.key")).expect("it is there");
    let path = data_dir.join("pulse.db");
    let first = data_dir.join("first.db");
    let shell = Connection::open(&first).expect("a database can be made");
    // References are those of rows that stood there before: their order does not matter.
    shell.execute_batch("PRAGMA foreign_keys = off").expect("it can be turned off");
    shell.execute_batch(FIRST_SCHEMA).expect("it is a schema");
    shell.execute("ATTACH ?1 AS now", [path.to_str().expect("UTF-8")]).expect("the database opens");
    let names = |sql: &str| -> Vec<String> {
        let mut statement = shell.prepare(sql).expect("it is a question");
        let found = statement.query_map([], |row| row.get(0)).expect("it is answered");
        found.map(|name| name.expect("a name")).collect()
    };
    for table in names("SELECT name FROM main.sqlite_master WHERE type = 'table'") {
        let columns = names(&format!("SELECT name FROM pragma_table_info('{table}', 'main')")).join(", ");
        let copy = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}");
        shell.execute_batch(&copy).unwrap_or_else(|error| panic!("{copy}: {error}"));
    }
    shell.execute("UPDATE fleet SET signing_key = ?1", [&signing_key]).expect("it can be written");
    shell
        .execute_batch("DETACH now; PRAGMA journal_mode = wal; PRAGMA user_version = 1")
        .expect("it is done");
    drop(shell);
    std::fs::rename(&first, &path).expect("it can be put in its place");
}
