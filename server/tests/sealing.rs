//! Secrets are sealed in the database: no key stands there in the open, a wrong key file changes nothing, and another key takes the
//! place of the one that is there as a whole or not at all, whenever that is cut short.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pulse::sealing::{SealingError, SealingKey};
use pulse_test_support::postgres::Postgres;
use pulse_test_support::{Blow, Fault, PATIENCE, Ran, Server, eventually};
use serde_json::{Value, json};

#[path = "support/pve.rs"]
mod pve;
#[path = "support/first_schema.rs"]
mod schema;
#[path = "support/sealed.rs"]
mod sealed;

use schema::set_back;
use sealed::{holds, in_the_open, opened_by, signing_key, stored_signing_key};

fn stop(server: &mut Server) {
    server.terminate();
    server.wait_exit(PATIENCE);
}

/// A server with a file of its own, and some changes.
fn some_changes() -> Server {
    let server = Server::builder().on_file().start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    server.pulse_ok(&["instance", "set", "home", "--endpoint", "delly", "--endpoint", "b"]);
    // No host is there that could be asked: what is sealed is what counts.
    let added = pve::try_add(&server, "cluster", &["https://127.0.0.1:1"], &["--no-check"]);
    assert!(added.is_success(), "{added:?}");
    server
}

/// The API token's secret of that instance, opened with the sealing key in this file.
fn api_secret(data_dir: &Path, secret_key: &Path) -> Result<Vec<u8>, SealingError> {
    let shell = rusqlite::Connection::open(data_dir.join("pulse.db")).expect("the database opens");
    let sql =
        "SELECT s.sealed_secret, f.server_id || '/' || s.instance_id FROM instance_sources AS s, fleet AS f";
    let found = shell.query_row(sql, [], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
    let (sealed, of): (Vec<u8>, String) = found.expect("there is one");
    SealingKey::open(secret_key)?.open_sealed(&format!("instance_sources.sealed_secret of {of}"), &sealed)
}

/// A new key in a file.
fn make_key(path: &Path) {
    SealingKey::open_or_make(path).expect("a key can be made");
}

/// The files of a folder that belong to the sealing key.
fn key_files(data_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(data_dir).expect("the folder can be read");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<_> = names.filter(|name| name.starts_with("secret.key")).collect();
    names.sort();
    names
}

#[test]
fn no_key_stands_in_the_open_in_the_database_its_log_or_a_backup() {
    let mut server = some_changes();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("pulse.backup");
    server.pulse_ok(&["backup", &backup.display().to_string()]);
    let key = signing_key(&server.data_dir());
    assert!(fs::metadata(server.data_dir().join("pulse.db-wal")).unwrap().len() > 0, "there is a log");
    assert_eq!(in_the_open(&server.data_dir(), &key), [""; 0]);
    assert!(!holds(&backup, &key), "the backup has it sealed, and the key that opens it beside it");
    let mode = fs::metadata(server.data_dir().join("secret.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    stop(&mut server);
    assert_eq!(in_the_open(&server.data_dir(), &key), [""; 0]);
    // The search finds what is there.
    set_back(&server.data_dir());
    assert_eq!(in_the_open(&server.data_dir(), &key).len(), 1);
}

#[test]
fn a_wrong_or_missing_key_file_is_told_with_its_name_and_loses_nothing() {
    let mut server = some_changes();
    let list = server.allowlist("home");
    stop(&mut server);
    let (database, path) = (server.data_dir().join("pulse.db"), server.data_dir().join("secret.key"));
    let (before, right) = (fs::read(&database).unwrap(), fs::read_to_string(&path).unwrap());
    for (text, says) in [
        (None, "out of a backup of this one"),
        (Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), "is not the key under which"),
        (Some("no key\n"), "it must be 32 bytes in base64"),
    ] {
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        server.spawn();
        assert_eq!(server.wait_exit(PATIENCE), Some(2), "{:?}", server.process().log());
        let log = server.process().log().join("\n");
        assert!(log.contains(says) && log.contains(&path.display().to_string()), "{log}");
        assert!(!log.contains(right.trim()), "it shows a key");
        assert_eq!(fs::read(&database).unwrap(), before, "nothing was changed");
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), text, "nor made");
        let checked = server.pulse(&["check"]);
        assert!(checked.code == Some(1) && format!("{checked:?}").contains(says), "{checked:?}");
    }
    fs::write(&path, right).unwrap();
    server.start_again();
    assert_eq!(server.allowlist("home"), list);
    server.pulse_ok(&["check"]);
}

#[test]
fn a_rotated_key_opens_everything_and_the_old_one_nothing() {
    let mut server = some_changes();
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, old) = (server.data_dir(), folder.path().join("old.key"));
    let (early, late) = (folder.path().join("early.backup"), folder.path().join("late.backup"));
    let key = signing_key(&data_dir);
    fs::copy(data_dir.join("secret.key"), &old).unwrap();
    server.pulse_ok(&["backup", &early.display().to_string()]);
    let (sealed, _) = stored_signing_key(&data_dir);

    let rotated = server.json(&["key", "rotate"]);
    let expected = json!({ "key_file": data_dir.join("secret.key"), "replaces": null });
    assert_eq!(rotated, expected);
    assert_eq!(signing_key(&data_dir), key, "the fleet's key is the same");
    assert!(opened_by(&data_dir, &old).is_err());
    assert_eq!(key_files(&data_dir), ["secret.key"]);
    let holds_old =
        |path: &Path| fs::read(path).unwrap().windows(sealed.len()).any(|window| window == sealed);
    for name in ["pulse.db", "pulse.db-wal"] {
        assert!(!holds_old(&data_dir.join(name)), "what was sealed under the old key is gone from {name}");
    }
    let audit = server.pulse_ok(&["audit"]);
    assert!(audit.contains("key.rotate"), "{audit}");
    // The server goes on, and so does the next one.
    server.pulse_ok(&["instance", "add", "lab", "--endpoint", "x"]);
    server.pulse_ok(&["key", "rotate"]);
    server.pulse_ok(&["check"]);
    server.pulse_ok(&["backup", &late.display().to_string()]);
    stop(&mut server);
    server.pulse_ok(&["check"]);
    server.start_again();
    server.pulse_ok(&["instance", "set", "home", "--endpoint", "c"]);
    // Each backup has the key that it needs.
    for backup in [&late, &early] {
        stop(&mut server);
        let path = backup.display().to_string();
        server.pulse_ok(&["check", &path]);
        server.pulse_ok(&["restore", &path, "--new-epoch", "--yes"]);
        server.start_again();
        assert_eq!(signing_key(&data_dir), key);
        assert_eq!(server.allowlist("home")["nodes"].as_array().map(Vec::len), Some(2));
    }
}

/// The files that an exchange of the key writes, and their folder.
fn written(data_dir: &Path) -> Vec<PathBuf> {
    let names = ["pulse.db", "pulse.db-wal", "secret.key", "secret.key.next", "secret.key.next.new"];
    names.iter().map(|name| data_dir.join(name)).chain([data_dir.to_owned()]).collect()
}

/// Rotates with a fault in it, again and again. Says how often the key was the old one afterwards, and how often a new one.
fn rotate_with_faults(blow: Blow, told: impl Fn(&mut Server, &Ran)) -> (u32, u32) {
    let mut server = some_changes();
    let data_dir = server.data_dir();
    let key = signing_key(&data_dir);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let old = folder.path().join("old.key");
    let (mut olds, mut news) = (0, 0);
    stop(&mut server);
    Fault::at_each_call(
        blow,
        10,
        || written(&data_dir),
        |fault| {
            fs::copy(data_dir.join("secret.key"), &old).expect("it can be copied");
            server.spawn_with(fault);
            if server.comes_up() {
                let ran = server.pulse(&["key", "rotate"]);
                if fault.happened().is_some() {
                    told(&mut server, &ran);
                }
                if server.process_ended().is_none() {
                    server.terminate();
                }
            }
            server.wait_exit(PATIENCE);
            server.start_again();
            assert_eq!(key_files(&data_dir), ["secret.key"], "{fault:?}");
            assert_eq!(signing_key(&data_dir), key, "{fault:?}");
            let opened = api_secret(&data_dir, &data_dir.join("secret.key"));
            assert_eq!(opened.expect("it opens"), pve::SECRET.as_bytes(), "{fault:?}");
            let is_old = opened_by(&data_dir, &old).is_ok();
            *if is_old { &mut olds } else { &mut news } += 1;
            server.pulse_ok(&["check"]);
            server.pulse_ok(&["instance", "set", "home", "--endpoint", if is_old { "b" } else { "c" }]);
            stop(&mut server);
        },
    );
    (olds, news)
}

#[test]
fn a_rotation_killed_at_any_write_leaves_the_old_key_or_the_new() {
    if !Fault::can_be_made() {
        return;
    }
    let (olds, news) = rotate_with_faults(Blow::Kill, |_, _| ());
    assert!(olds > 3 && news > 3, "kills fell on either side: {olds} old, {news} new");
}

#[test]
fn a_rotation_on_a_failing_disk_says_so_and_the_next_one_is_made() {
    if !Fault::can_be_made() {
        return;
    }
    let (_, news) = rotate_with_faults(Blow::Error("EIO"), |server, ran| {
        assert!(!format!("{ran:?}").contains("panicked"), "{ran:?}");
        // The disk fails once.
        server.pulse_ok(&["key", "rotate"]);
        server.pulse_ok(&["check"]);
    });
    assert!(news > 3, "{news} new");
}

#[test]
fn a_first_start_on_an_unsealed_database_that_is_killed_anywhere_is_made_good_by_the_next() {
    if !Fault::can_be_made() {
        return;
    }
    let mut server = some_changes();
    let data_dir = server.data_dir();
    let key = signing_key(&data_dir);
    stop(&mut server);
    set_back(&data_dir);
    let before = fs::read(data_dir.join("pulse.db")).unwrap();
    let paths = || {
        for name in ["secret.key", "secret.key.new", "pulse.db-wal", "pulse.db-shm"] {
            let _ = fs::remove_file(data_dir.join(name));
        }
        fs::write(data_dir.join("pulse.db"), &before).expect("it can be written");
        let names = ["pulse.db", "pulse.db-wal", "secret.key", "secret.key.new"];
        names.iter().map(|name| data_dir.join(name)).chain([data_dir.clone()]).collect()
    };
    Fault::at_each_call(Blow::Kill, 10, paths, |fault| {
        server.spawn_with(fault);
        if server.comes_up() {
            server.terminate();
        }
        server.wait_exit(PATIENCE);
        server.start_again();
        assert_eq!(signing_key(&data_dir), key, "{fault:?}");
        assert_eq!(in_the_open(&data_dir, &key), [""; 0], "{fault:?}");
        server.pulse_ok(&["check"]);
        assert_eq!(server.allowlist("home")["nodes"].as_array().map(Vec::len), Some(2));
        stop(&mut server);
    });
}

#[test]
fn a_key_that_is_kept_elsewhere_is_exchanged_by_hand_and_is_in_no_backup() {
    for is_credential in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (kept, new) = (folder.path().join("secret.key"), folder.path().join("new.key"));
        make_key(&kept);
        let builder = Server::builder().on_file();
        let mut server = match is_credential {
            true => builder.env("CREDENTIALS_DIRECTORY", folder.path()).start(),
            false => builder
                .config(&format!("secret_key_file: {}", kept.display()))
                .env("PULSE_SECRET_KEY_FILE", &kept)
                .start(),
        };
        let data_dir = server.data_dir();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
        assert_eq!(key_files(&data_dir), [""; 0], "none is made beside it");
        let key = opened_by(&data_dir, &kept).unwrap();
        let backup = folder.path().join("pulse.backup").display().to_string();
        let said = server.pulse_ok(&["backup", &backup]);
        assert!(said.contains(&format!("keep a copy of {} with it", kept.display())), "{said}");
        assert_eq!(server.json(&["check", &backup])["is_good"], json!(true));

        let refused = server.pulse(&["key", "rotate"]);
        assert!(refused.code == Some(1) && refused.stderr.contains("--new-key-file FILE"), "{refused:?}");
        let new_path = new.display().to_string();
        let refused = server.pulse(&["key", "rotate", "--new-key-file", &new_path]);
        assert!(refused.code == Some(1) && refused.stderr.contains(&new_path), "{refused:?}");
        let refused = server.pulse(&["key", "rotate", "--new-key-file", &kept.display().to_string()]);
        assert!(refused.code == Some(1) && refused.stderr.contains("that is in use"), "{refused:?}");
        make_key(&new);
        let said = server.pulse_ok(&["key", "rotate", "--new-key-file", &new_path]);
        assert!(said.contains(&format!("must take the place of {}", kept.display())), "{said}");
        server.pulse_ok(&["instance", "add", "lab"]);
        stop(&mut server);
        server.spawn();
        assert_eq!(server.wait_exit(PATIENCE), Some(2), "{:?}", server.process().log());
        let old = folder.path().join("old.key");
        fs::rename(&kept, &old).unwrap();
        fs::rename(&new, &kept).unwrap();
        server.start_again();
        assert_eq!(opened_by(&data_dir, &kept).unwrap(), key);
        assert_eq!(key_files(&data_dir), [""; 0]);
        // What was saved before needs the key from before.
        stop(&mut server);
        let restore = ["restore", &backup, "--keep-epoch", "--yes"];
        let refused = server.pulse(&restore);
        assert!(refused.code == Some(1) && refused.stderr.contains("is not the key"), "{refused:?}");
        fs::rename(&old, &kept).unwrap();
        server.pulse_ok(&restore);
        server.start_again();
        assert!(!server.pulse(&["instance", "show", "lab"]).is_success(), "the backup is older than it");
    }
}

#[test]
fn a_backup_without_its_key_is_put_back_where_the_key_was_put_before() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("secret.key");
    make_key(&kept);
    let first = Server::builder().on_file().env("PULSE_SECRET_KEY_FILE", &kept).start();
    first.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let backup = folder.path().join("pulse.backup").display().to_string();
    first.pulse_ok(&["backup", &backup]);
    let mut second = Server::builder().on_file().prepare();
    let restore = ["restore", &backup, "--keep-epoch", "--yes"];
    let refused = second.pulse(&restore);
    assert!(refused.code == Some(1) && refused.stderr.contains("secret.key"), "{refused:?}");
    fs::copy(&kept, second.data_dir().join("secret.key")).unwrap();
    second.pulse_ok(&restore);
    second.start_again();
    second.pulse_ok(&["instance", "show", "home"]);
    second.pulse_ok(&["check"]);
}

#[test]
fn a_key_that_lies_in_its_place_already_is_not_taken_from_a_file() {
    let server = some_changes();
    let refused = server.pulse(&["key", "rotate", "--new-key-file", "/nonexistent", "--json"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("without --new-key-file"), "{refused:?}");
    let told: Value = serde_json::from_str(refused.stderr.trim()).unwrap();
    assert_eq!(told["reason"], "KEY_IS_OWN");
}

#[test]
fn on_postgresql_the_only_server_rotates_and_one_of_several_is_told_to_stop_the_others() {
    let postgres = Postgres::start();
    let url = postgres.database();
    let mut server = Server::builder().config(&format!("database_url: {url}")).start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let mut other = Server::builder().beside(&server, &url);
    other.start_again();
    eventually(PATIENCE, "the other is heard of", || {
        let status = server.json(&["status"]);
        let is_there = status["replicas"].as_array().is_some_and(|replicas| replicas.len() == 2);
        if is_there { Ok(()) } else { Err(status) }
    });
    let refused = server.pulse(&["key", "rotate"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("stop them, rotate it"), "{refused:?}");
    stop(&mut other);

    let name = url.rsplit('/').next().expect("it has a database").to_owned();
    let stored = || {
        let sql = "SELECT encode(signing_key, 'hex') || ' ' || encode(authority_key, 'hex') FROM fleet";
        String::from_utf8(postgres.ask(&name, sql).stdout).expect("psql writes UTF-8").trim().to_owned()
    };
    let (before, pin) = (stored(), server.json(&["status"])["pin"].clone());
    let list = server.allowlist("home");
    server.pulse_ok(&["key", "rotate"]);
    let after = stored();
    for (old, new) in before.split(' ').zip(after.split(' ')) {
        assert!(old != new && new.starts_with("01"), "it is sealed anew");
    }
    server.pulse_ok(&["instance", "set", "home", "--endpoint", "delly", "--endpoint", "b"]);
    stop(&mut server);
    server.start_again();
    assert_eq!(server.json(&["status"])["pin"], pin);
    assert_eq!(server.allowlist("home")["key_id"], list["key_id"]);
    // The other needs the new key, and loses nothing by the old one.
    other.spawn();
    assert_eq!(other.wait_exit(PATIENCE), Some(2), "{:?}", other.process().log());
    assert!(other.process().has_said("is not the key under which"), "{:?}", other.process().log());
    fs::copy(server.data_dir().join("secret.key"), other.data_dir().join("secret.key")).unwrap();
    other.start_again();
    assert_eq!(other.json(&["status"])["pin"], pin);
}
