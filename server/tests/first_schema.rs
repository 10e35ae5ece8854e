//! A database of the first release: it can be checked as it is, the server brings it up to date, keeps everything that
//! is in it, and goes on.

use std::path::Path;

use pulse_test_support::{PATIENCE, Proxy, Server, eventually};
use rusqlite::Connection;
use serde_json::Value;

const FIRST_SCHEMA: &str = include_str!("../src/store/migrations/sqlite/0001_initial.sql");

/// Makes the database one of the first release: its tables, with what stands in the columns that they have.
fn set_back(data_dir: &Path) {
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
    shell
        .execute_batch("DETACH now; PRAGMA journal_mode = wal; PRAGMA user_version = 1")
        .expect("it is done");
    drop(shell);
    std::fs::rename(&first, &path).expect("it can be put in its place");
}

/// What an admin sees of what lasts.
fn shown(server: &Server) -> Vec<Value> {
    let mut shown: Vec<Value> = [&["instance", "list"][..], &["join", "list"], &["allowlist", "history"]]
        .iter()
        .map(|arguments| server.json(arguments))
        .collect();
    for proxy in server.proxies() {
        let lasting = ["id", "hostname", "instance", "scope", "standing", "applied", "pushed", "machine_id"];
        shown.extend(lasting.map(|key| proxy[key].clone()));
    }
    let audit = server.pulse_ok(&["audit", "--json"]);
    shown.extend(audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
    shown
}

#[test]
fn a_database_of_the_first_schema_keeps_everything_and_goes_on() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "b=10.0.0.2"]);
    server.pulse_ok(&["instance", "add", "lab", "--endpoint", "x"]);
    server.join_string(&["--instance", "lab", "--uses", "7"]);
    let mut proxy = Proxy::join(&server, "home", "delly");
    let other = Proxy::join(&server, "home", "b");
    for proxy in [&proxy, &other] {
        server.wait_for_applied(&proxy.id(), server.allowlist("home")["hash"].as_str().expect("a hash"));
    }
    eventually(PATIENCE, "a reading is there", || {
        let temps = server.json(&["temps", "delly"]);
        if temps["nodes"][0]["age_seconds"].is_number() { Ok(()) } else { Err(temps) }
    });
    server.pulse_ok(&["proxy", "revoke", &other.id()]);
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "c"]);
    server.wait_for_applied(&proxy.id(), server.allowlist("home")["hash"].as_str().expect("a hash"));
    proxy.kill();
    server.terminate();
    server.wait_exit(PATIENCE);
    server.start_again();
    let (before, sensors) = (shown(&server), server.json(&["temps"])["nodes"][0]["hottest"].clone());
    server.terminate();
    server.wait_exit(PATIENCE);

    set_back(&server.data_dir());
    let checked = server.json(&["check"]);
    assert_eq!(checked["is_good"], true, "{checked}");
    server.start_again();
    assert_eq!(shown(&server), before);
    assert_eq!(server.json(&["temps"])["nodes"][0]["hottest"], sensors);
    assert!(server.proxies().iter().all(|proxy| proxy["is_approved"] == true), "each had a join token");
    proxy.start();
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "d"]);
    server.wait_for_applied(&proxy.id(), server.allowlist("home")["hash"].as_str().expect("a hash"));
    server.pulse_ok(&["join", "open"]);
    let checked = server.json(&["check"]);
    assert_eq!(checked["is_good"], true, "the audit log goes on where it ended: {checked}");
}
