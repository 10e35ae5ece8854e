//! The audit log can be trusted: what was done to its rows behind the server's back is found and named, a copy of it can be verified
//! anywhere, and neither retention, nor another key, nor a backup breaks it.

use std::path::{Path, PathBuf};

use pulse::audit::{Point, Row};
use pulse_test_support::postgres::Postgres;
use pulse_test_support::{PATIENCE, Ran, Server, eventually};
use rusqlite::Connection;
use serde_json::Value;

fn stop(server: &mut Server) {
    server.terminate();
    server.wait_exit(PATIENCE);
}

/// The database of a server that is stopped.
fn database(server: &Server) -> PathBuf {
    server.data_dir().join("pulse.db")
}

fn alter(path: &Path, change: impl FnOnce(&Connection)) {
    let shell = Connection::open(path).expect("the database opens");
    change(&shell);
}

/// Puts the file back as it was.
fn put_back(path: &Path, content: &[u8]) {
    for beside in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{beside}", path.display()));
    }
    std::fs::write(path, content).expect("the file can be written");
}

/// Some rows, of changes of one instance.
fn some_rows(server: &Server) {
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    for node in ["b", "c", "d", "e"] {
        server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", node]);
    }
}

/// What does not verify, for programs: its reason and the text.
fn problem(ran: &Ran) -> (String, String) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said: Value = serde_json::from_str(&ran.stderr).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let text = |key: &str| said[key].as_str().unwrap_or_else(|| panic!("no {key}: {said}")).to_owned();
    (text("reason"), text("error"))
}

fn rows(shell: &Connection) -> Vec<Row> {
    let sql = "SELECT seq, at_ms, actor, action, target, detail, revision, previous_hash, hash FROM audit ORDER BY seq";
    let mut statement = shell.prepare(sql).expect("it is a question");
    let found = statement.query_map([], |row| {
        Ok(Row {
            seq: row.get::<_, i64>(0)?.unsigned_abs(),
            at_ms: row.get::<_, i64>(1)?.unsigned_abs(),
            actor: row.get(2)?,
            action: row.get(3)?,
            target: row.get(4)?,
            detail: row.get(5)?,
            revision: row.get::<_, i64>(6)?.unsigned_abs(),
            previous_hash: row.get(7)?,
            hash: row.get(8)?,
        })
    });
    found.expect("it is answered").map(|row| row.expect("a row")).collect()
}

/// Writes the whole log anew, with another actor in its second row, so that every hash fits.
fn written_anew(shell: &Connection) {
    let (mut rows, mut hash) = (rows(shell), pulse::audit::FIRST.to_owned());
    rows[1].actor = "admin:uid=1000".to_owned();
    for row in &mut rows {
        row.previous_hash = hash;
        row.hash = row.computed_hash();
        hash = row.hash.clone();
        let sql = "UPDATE audit SET actor = ?1, previous_hash = ?2, hash = ?3 WHERE seq = ?4";
        let values = (&row.actor, &row.previous_hash, &row.hash, row.seq.cast_signed());
        shell.execute(sql, values).expect("it can be written");
    }
    shell.execute("UPDATE audit_head SET hash = ?1", [&hash]).expect("it can be written");
}

const HEAD_TO_LAST: &str =
    "UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1);";

#[test]
fn a_row_that_was_edited_removed_put_elsewhere_or_cut_off_is_found_and_named() {
    let mut server = Server::builder().on_file().start();
    some_rows(&server);
    assert!(server.pulse_ok(&["audit", "verify"]).contains("is as it was written: 5 rows"));
    stop(&mut server);
    let path = database(&server);
    let untouched = std::fs::read(&path).expect("it can be read");
    let sql = |statements: String| {
        move |shell: &Connection| shell.execute_batch(&statements).expect("it can be done")
    };
    let swap = "UPDATE audit SET seq = 9 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;
                UPDATE audit SET seq = 3 WHERE seq = 9";
    let cut = "DELETE FROM audit WHERE seq = 5;";
    type Altering = Box<dyn FnOnce(&Connection)>;
    let altered: [(&str, Altering, &str, &str); 9] = [
        (
            "edited",
            Box::new(sql("UPDATE audit SET actor = 'admin:uid=9' WHERE seq = 3".to_owned())),
            "AUDIT_ROW_EDITED",
            "row 3: it was changed",
        ),
        (
            "removed",
            Box::new(sql("DELETE FROM audit WHERE seq = 3".to_owned())),
            "AUDIT_ROWS_REMOVED",
            "row 4: row 3 is missing",
        ),
        (
            "removed first",
            Box::new(sql("DELETE FROM audit WHERE seq < 3".to_owned())),
            "AUDIT_ROWS_REMOVED",
            "rows 1 to 2",
        ),
        ("reordered", Box::new(sql(swap.to_owned())), "AUDIT_ROWS_REORDERED", "row 2: it stood at 3"),
        ("cut off", Box::new(sql(cut.to_owned())), "AUDIT_CUT_OFF", "at the end"),
        (
            "cut off with its end",
            Box::new(sql(format!("{cut}{HEAD_TO_LAST} UPDATE fleet SET revision = 4"))),
            "AUDIT_SEAL_BROKEN",
            "rows were cut off at an end",
        ),
        (
            "begun later",
            Box::new(sql(
                "UPDATE audit_head SET (base_seq, base_hash) = (SELECT seq, hash FROM audit WHERE seq = 2);
                 DELETE FROM audit WHERE seq < 3"
                    .to_owned(),
            )),
            "AUDIT_SEAL_BROKEN",
            "rows were cut off at an end",
        ),
        (
            "added",
            Box::new(sql("INSERT INTO audit SELECT 6, at_ms, actor, action, target, detail, revision, hash, hash FROM audit
                 WHERE seq = 5".to_owned())),
            "AUDIT_ROW_ADDED",
            "row 6",
        ),
        ("written anew", Box::new(written_anew), "AUDIT_SEAL_BROKEN", "all of it was written anew"),
    ];
    for (what, altering, reason, text) in altered {
        alter(&path, altering);
        let checked = server.pulse(&["check", "--json"]);
        assert_eq!(checked.code, Some(1), "{what}: {checked:?}");
        server.start_again();
        let (found, said) = problem(&server.pulse(&["audit", "verify", "--json"]));
        assert_eq!(found, reason, "{what}: {said}");
        assert!(said.contains(text), "{what}: {said}");
        if what == "written anew" {
            // What the server adds does not seal what somebody else wrote.
            server.pulse_ok(&["instance", "add", "lab"]);
            assert_eq!(problem(&server.pulse(&["audit", "verify", "--json"])).0, reason);
            server.pulse_ok(&["key", "rotate"]);
            assert_eq!(problem(&server.pulse(&["audit", "verify", "--json"])).0, reason);
        }
        stop(&mut server);
        put_back(&path, &untouched);
    }
}

#[test]
fn a_head_that_is_kept_elsewhere_shows_that_an_older_copy_took_the_place_of_the_database() {
    let mut server = Server::builder().on_file().start();
    some_rows(&server);
    stop(&mut server);
    let older = std::fs::read(database(&server)).expect("it can be read");
    server.start_again();
    server.pulse_ok(&["instance", "add", "lab"]);
    let noted = server.json(&["audit", "verify"])["head"].as_str().expect("it has an end").to_owned();
    server.pulse_ok(&["instance", "add", "attic"]);
    let point: Point = noted.parse().expect("it is shown as it is said");
    assert_eq!(point.seq, 6);
    let expect =
        |server: &Server, point: &str| server.pulse(&["audit", "verify", "--json", "--expect", point]);
    assert!(expect(&server, &noted).is_success());
    let (reason, text) = problem(&expect(&server, &format!("5:{}", point.hash)));
    assert!(reason == "AUDIT_NOT_AS_EXPECTED" && text.contains("row 5"), "{text}");
    assert_eq!(expect(&server, "nonsense").code, Some(2), "what is no place and hash is a mistake");
    stop(&mut server);
    put_back(&database(&server), &older);
    server.start_again();
    server.pulse_ok(&["audit", "verify"]);
    let (reason, text) = problem(&expect(&server, &noted));
    assert!(reason == "AUDIT_NOT_AS_EXPECTED" && text.contains("the log ends with row 5"), "{text}");
}

#[test]
fn an_exported_log_is_verified_without_a_server_and_shows_what_was_done_to_it() {
    let mut server = Server::start();
    some_rows(&server);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("audit.jsonl");
    let shown = file.display().to_string();
    let said = server.pulse_ok(&["audit", "export", &shown]);
    assert!(said.contains("5 rows") && said.contains("--expect 5:"), "{said}");
    let again = server.pulse(&["audit", "export", &shown, "--json"]);
    assert_eq!(problem(&again).0, "FILE_EXISTS");
    let head = server.json(&["audit", "verify"])["head"].as_str().expect("it has an end").to_owned();
    let part = server.pulse_ok(&["audit", "export", "-", "--after", "3"]);
    let behind = server.pulse(&["audit", "export", "-", "--after", "99", "--json"]);
    assert_eq!(problem(&behind).0, "INVALID_REQUEST");
    stop(&mut server);

    server.pulse_ok(&["audit", "verify", &shown, "--expect", &head]);
    let text = std::fs::read_to_string(&file).expect("it can be read");
    assert_eq!(text.lines().count(), 6, "a header and a line for each row");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside it");
    let lines: Vec<&str> = text.lines().collect();
    let verify = |content: &str| {
        let other = folder.path().join("other.jsonl");
        std::fs::write(&other, content).expect("it can be written");
        server.pulse(&["audit", "verify", &other.display().to_string(), "--json"])
    };
    assert!(verify(&part).is_success() && part.lines().count() == 3, "{part}");
    for (altered, reason) in [
        (text.replacen("instance:home", "instance:lab", 1), "AUDIT_ROW_EDITED"),
        ([&lines[..2], &lines[3..], &[""]].concat().join("\n"), "AUDIT_ROWS_REMOVED"),
        (lines[..5].join("\n"), "AUDIT_CUT_OFF"),
        (lines[..3].join("\n") + &lines[4][..20], "NO_AUDIT_EXPORT"),
        (String::new(), "NO_AUDIT_EXPORT"),
    ] {
        assert_eq!(problem(&verify(&altered)).0, reason);
    }
}

#[test]
fn what_retention_takes_away_leaves_a_log_that_verifies_and_says_so() {
    let mut server = Server::builder().config("audit: {max_rows: 100}\n").start();
    some_rows(&server);
    for number in 0..125 {
        let body = serde_json::json!({ "endpoints": [{ "name": format!("n{number}") }], "yes": true });
        let answer = server.admin("PUT", "/instances/home", Some(&body)).expect("the server answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let before = server.json(&["audit", "verify"]);
    assert_eq!(
        (&before["rows"], &before["base"]),
        (&130.into(), &format!("0:{}", pulse::audit::FIRST).into())
    );
    stop(&mut server);
    server.start_again();
    let verified = eventually(PATIENCE, "the oldest rows go", || {
        let verified = server.json(&["audit", "verify"]);
        if verified["rows"].as_u64() < Some(110) { Ok(verified) } else { Err(verified) }
    });
    let base: Point = verified["base"].as_str().expect("it has a base").parse().expect("a place and a hash");
    assert!(base.seq >= 25, "{verified}");
    let newest = server.pulse_ok(&["audit", "--json"]);
    let pruned: Value = serde_json::from_str(newest.lines().last().expect("a row")).expect("JSON");
    assert_eq!((&pruned["action"], &pruned["actor"]), (&"audit.prune".into(), &"server".into()));
    assert_eq!(
        (&pruned["detail"]["last"], &pruned["detail"]["hash"]),
        (&base.seq.into(), &base.hash.clone().into())
    );
    // Lists of before are there still, whoever made them.
    let history = server.json(&["allowlist", "history", "--limit", "500"]);
    assert_eq!(history["revisions"].as_array().map(Vec::len), Some(130), "{history}");
    server.pulse_ok(&["instance", "add", "lab"]);
    server.pulse_ok(&["audit", "verify", "--expect", &base.to_string()]);
    let gone = server.pulse(&["audit", "verify", "--json", "--expect", &format!("1:{}", base.hash)]);
    assert_eq!(problem(&gone).0, "AUDIT_EXPECTED_PRUNED");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("audit.jsonl").display().to_string();
    server.pulse_ok(&["audit", "export", &file]);
    server.pulse_ok(&["audit", "verify", &file]);
    server.kill();
    server.start_again();
    server.pulse_ok(&["audit", "verify"]);
    server.pulse_ok(&["instance", "add", "attic"]);
    let config = server.data_dir().with_file_name("pulse.yaml").display().to_string();
    server.pulse_ok(&["check", "--config", &config]);
}

#[test]
fn a_database_on_postgresql_of_an_earlier_version_is_sealed_at_its_first_start_and_verified_as_any() {
    let postgres = Postgres::start();
    let url = postgres.database();
    let mut server = Server::builder().config(&format!("database_url: {url}\n")).start();
    some_rows(&server);
    stop(&mut server);
    let sql = |statement: &str| {
        let asked = postgres.ask(url.rsplit('/').next().expect("a URL has a path"), statement);
        assert!(asked.status.success(), "{statement}: {asked:?}");
    };
    let columns = ["base_seq", "base_hash", "base_revision", "base_revision_hash", "seal"];
    let columns = columns.map(|column| format!("DROP COLUMN {column}")).join(", ");
    // As it was before the newest migration.
    sql(&format!("ALTER TABLE audit_head {columns}; UPDATE schema_version SET version = version - 1"));
    server.start_again();
    assert!(server.pulse_ok(&["audit"]).contains("audit.seal"), "since when it is sealed is in it");
    server.pulse_ok(&["instance", "add", "lab"]);
    server.pulse_ok(&["audit", "verify"]);
    server.pulse_ok(&["key", "rotate"]);
    server.pulse_ok(&["audit", "verify"]);
    // Behind the back of a server that runs.
    for (alteration, reason) in [
        ("DELETE FROM audit WHERE seq = 8;", "AUDIT_CUT_OFF"),
        (HEAD_TO_LAST, "AUDIT_CUT_OFF"),
        ("UPDATE fleet SET revision = revision - 1", "AUDIT_SEAL_BROKEN"),
        ("UPDATE audit SET detail = '{}' WHERE seq = 2", "AUDIT_ROW_EDITED"),
    ] {
        sql(alteration);
        assert_eq!(problem(&server.pulse(&["audit", "verify", "--json"])).0, reason, "{alteration}");
    }
}

#[test]
fn another_key_and_a_backup_leave_a_log_that_verifies() {
    let mut server = Server::builder().on_file().start();
    some_rows(&server);
    server.pulse_ok(&["key", "rotate"]);
    server.pulse_ok(&["audit", "verify"]);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let backup = folder.path().join("backup.tar").display().to_string();
    server.pulse_ok(&["backup", &backup]);
    server.pulse_ok(&["check", &backup]);
    server.pulse_ok(&["key", "rotate"]);
    server.pulse_ok(&["instance", "add", "lab"]);
    server.kill();
    server.start_again();
    server.pulse_ok(&["audit", "verify"]);
    stop(&mut server);
    server.pulse_ok(&["restore", &backup, "--new-epoch", "--yes"]);
    server.start_again();
    assert!(server.pulse_ok(&["audit"]).contains("backup.restore"));
    server.pulse_ok(&["audit", "verify"]);
    server.pulse_ok(&["check"]);
}
