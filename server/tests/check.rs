//! `pulse check` names every row of the audit log and every list that is not as it was written, with the server running
//! or not.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use pulse_test_support::{PATIENCE, Ran, Server, binary};
use rusqlite::Connection;
use serde_json::Value;

/// A server with some changes, each with its audit row.
fn some_changes() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=10.0.0.1"]);
    server.pulse_ok(&["join", "create", "--instance", "home"]);
    for nodes in [&["a", "b"][..], &["a"], &["a", "c"]] {
        let endpoints = nodes.iter().flat_map(|node| ["--endpoint", node]);
        server
            .pulse_ok(&["instance", "set", "--yes", "home"].into_iter().chain(endpoints).collect::<Vec<_>>());
    }
    server
}

fn stop(server: &mut Server) {
    server.terminate();
    server.wait_exit(PATIENCE);
}

fn findings(ran: &Ran) -> Vec<(String, String, String)> {
    let checked = ran.json();
    let found = checked["findings"].as_array().unwrap_or_else(|| panic!("no findings: {checked}"));
    let word = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    found.iter().map(|one| (word(one, "table"), word(one, "row"), word(one, "what"))).collect()
}

#[test]
fn a_database_as_it_was_written_holds_while_the_server_runs_and_after() {
    let mut server = some_changes();
    let running = server.json(&["check"]);
    assert_eq!(
        (&running["is_good"], &running["revision"]),
        (&Value::Bool(true), &Value::from(5)),
        "{running}"
    );
    assert_eq!((&running["audit_rows"], &running["lists"]), (&Value::from(5), &Value::from(4)), "{running}");
    server.kill();
    assert_eq!(server.json(&["check"]), running, "after a kill, with what is in the log only");
    server.start_again();
    stop(&mut server);
    let said = server.pulse_ok(&["check"]);
    assert!(said.contains("all holds (epoch") && said.contains("5 audit rows, 4 lists"), "{said}");
}

#[test]
fn every_row_that_is_not_as_it_was_written_is_named() {
    let mut server = some_changes();
    stop(&mut server);
    let path = server.data_dir().join("pulse.db");
    let untouched = std::fs::read(&path).unwrap();
    let last = "DELETE FROM audit WHERE seq = 5;";
    let set_head = "UPDATE audit_head SET seq = 4, hash = (SELECT hash FROM audit WHERE seq = 4);";
    for (tampering, table, row, what) in [
        ("UPDATE audit SET actor = 'admin:uid=1000' WHERE seq = 2", "audit", "2", "it does not have its hash"),
        ("UPDATE audit SET detail = '{}' WHERE seq = 1", "audit", "1", "it does not have its hash"),
        ("UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 5", "audit", "5", "it does not have its hash"),
        ("DELETE FROM audit WHERE seq = 3", "audit", "4", "row 3 is missing before it"),
        ("DELETE FROM audit WHERE seq IN (1, 2)", "audit", "3", "rows 1 to 2 are missing before it"),
        ("UPDATE audit SET seq = 0 WHERE seq = 1", "audit", "0", "the log begins with row 1"),
        (last, "audit", "", "row 5 is missing at the end"),
        (&format!("{last}{set_head}"), "audit", "", "the fleet is at 5: rows are missing at the end"),
        (
            "UPDATE audit SET seq = 9 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;
             UPDATE audit SET seq = 3 WHERE seq = 9",
            "audit",
            "2",
            "it is not chained to the row before it",
        ),
        (
            "INSERT INTO audit SELECT 6, at_ms, actor, action, target, detail, revision, hash, hash FROM audit
             WHERE seq = 5",
            "audit",
            "6",
            "it is not the row that was added last",
        ),
        (
            "INSERT INTO audit SELECT -5, at_ms, actor, action, target, detail, revision, hash, hash FROM audit
             WHERE seq = 5",
            "",
            "",
            "table audit, row -5",
        ),
        ("UPDATE fleet SET revision = 9", "audit", "", "the fleet is at 9"),
        (
            "UPDATE allowlists SET nodes = nodes || char(10) || 'z|' WHERE revision = 3",
            "allowlists",
            "revision 3",
            "the nodes have",
        ),
        (
            "UPDATE allowlists SET signature = (SELECT signature FROM allowlists WHERE revision = 4) WHERE revision = 5",
            "allowlists",
            "revision 5",
            "its signature does not fit",
        ),
        ("UPDATE allowlists SET epoch = epoch - 1 WHERE revision = 1", "allowlists", "revision 1", "its signature"),
        ("UPDATE allowlists SET key_id = '0011' WHERE revision = 1", "allowlists", "revision 1", "with key 0011"),
        (
            "PRAGMA foreign_keys = off; UPDATE instance_nodes SET instance_id = 'gone'",
            "instance_nodes",
            "",
            "table instances that is not there",
        ),
        ("UPDATE instances SET id = 'no uuid'", "", "", "table instances, row no uuid"),
        ("UPDATE fleet SET signing_key = x'00'", "fleet", "1", "the key that signs lists cannot be opened"),
        ("DELETE FROM fleet", "", "", "table fleet has no row"),
    ] {
        let shell = Connection::open(&path).unwrap();
        shell.execute_batch("PRAGMA foreign_keys = off").unwrap();
        shell.execute_batch(tampering).unwrap_or_else(|error| panic!("{tampering}: {error}"));
        drop(shell);
        let ran = server.pulse(&["check", "--json"]);
        assert_eq!(ran.code, Some(1), "{tampering}: {ran:?}");
        let found = findings(&ran);
        let is_named = |(t, r, w): &(String, String, String)| t == table && r.contains(row) && w.contains(what);
        assert!(found.iter().any(is_named), "{tampering}: {found:#?}");
        let said = server.pulse(&["check"]);
        assert!(said.code == Some(1) && said.stdout.contains(what), "{tampering}: {said:?}");
        for beside in ["pulse.db-wal", "pulse.db-shm"] {
            let _ = std::fs::remove_file(server.data_dir().join(beside));
        }
        std::fs::write(&path, &untouched).unwrap();
    }
    server.pulse_ok(&["check"]);
}

#[test]
fn rows_taken_from_the_end_stay_missing_when_the_server_goes_on() {
    let mut server = some_changes();
    stop(&mut server);
    let path = server.data_dir().join("pulse.db");
    Connection::open(&path).unwrap().execute_batch("DELETE FROM audit WHERE seq >= 4").unwrap();
    server.start_again();
    server.pulse_ok(&["instance", "add", "attic"]);
    let ran = server.pulse(&["check", "--json"]);
    assert_eq!(ran.code, Some(1));
    let found = findings(&ran);
    let gap = ("audit".to_owned(), "6".to_owned(), "rows 4 to 5 are missing before it".to_owned());
    assert!(found.contains(&gap), "{found:#?}");
}

#[test]
fn a_damaged_file_is_said_to_be_one_and_nothing_else_is_guessed() {
    let mut server = some_changes();
    stop(&mut server);
    let path = server.data_dir().join("pulse.db");
    // A page that is not of the schema, without which nothing can be asked.
    let shell = Connection::open(&path).unwrap();
    let page: usize = shell
        .query_row("SELECT rootpage FROM sqlite_master WHERE name = 'audit'", [], |row| row.get::<_, i64>(0))
        .map(|page| usize::try_from(page).unwrap())
        .unwrap();
    drop(shell);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(page - 1) * 4096..page * 4096].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let ran = server.pulse(&["check"]);
    assert!(ran.code == Some(1) && ran.stdout.contains("damaged"), "{ran:?}");
    std::fs::write(&path, "this is no database".repeat(1000)).unwrap();
    let ran = server.pulse(&["check"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("pulse.db"), "{ran:?}");
    std::fs::remove_file(&path).unwrap();
    let ran = server.pulse(&["check"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("there is no database"), "{ran:?}");
    assert!(!path.exists(), "a check makes no file");
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so loudly")]
fn who_may_not_look_is_told_so_and_not_that_there_is_nothing() {
    let mut server = some_changes();
    stop(&mut server);
    let closed = || std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(server.data_dir(), closed()).unwrap();
    let backup = tempfile::NamedTempFile::new().unwrap();
    let backup = backup.path().display().to_string();
    for arguments in [&["check"][..], &["restore", &backup, "--keep-epoch"]] {
        let mut command = Command::new(binary("pulse"));
        command.args(arguments).arg("--data-dir").arg(server.data_dir());
        if rustix::process::geteuid().is_root() {
            // Nothing is closed to root.
            command.uid(4711).gid(4711);
        }
        let Ok(ran) = command.output() else {
            eprintln!("SKIPPED: no other user may run {}", binary("pulse").display());
            break;
        };
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.code() == Some(1) && said.contains("run the command as root (sudo)"), "{said}");
    }
    std::fs::set_permissions(server.data_dir(), std::fs::Permissions::from_mode(0o700)).unwrap();
}
