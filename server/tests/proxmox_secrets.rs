//! The secret of an API token is sealed for its instance: it stands in the open nowhere, and opens after an exchange of the key, a
//! restart, a restore and a move to PostgreSQL.

#[path = "support/pve.rs"]
mod pve;

use std::fs;
use std::path::Path;

use pulse_test_support::postgres::Postgres;
use pulse_test_support::proxmox::FakeProxmox;
use pulse_test_support::{PATIENCE, Server};
use pve::{SECRET, add, wait_for_nodes, wait_until_ok};

const TWO: [&str; 2] = ["pve1=192.0.2.1", "pve2=192.0.2.2"];
const THREE: [&str; 3] = ["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3"];

fn holds(path: &Path, text: &str) -> bool {
    fs::read(path).expect("it can be read").windows(text.len()).any(|window| window == text.as_bytes())
}

/// The files of the data folder that hold the secret.
fn in_the_open(server: &Server) -> Vec<String> {
    let files =
        fs::read_dir(server.data_dir()).expect("it is there").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.is_file() && holds(path, SECRET));
    files.map(|path| path.display().to_string()).collect()
}

#[test]
fn the_secret_is_nowhere_in_the_open_and_opens_after_all_that_can_happen_to_it() {
    let mut server = Server::builder().on_file().start();
    let fake = FakeProxmox::cluster(&TWO);
    add(&server, "home", &[&fake]);
    wait_until_ok(&server, "home");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let backup = folder.path().join("pulse.backup").display().to_string();
    server.pulse_ok(&["backup", &backup]);
    assert!(server.data_dir().join("pulse.db-wal").exists(), "there is a log");
    assert_eq!(in_the_open(&server), [""; 0]);
    assert!(!holds(Path::new(&backup), SECRET), "nor in a backup");
    for arguments in [&["instance", "show", "home"][..], &["instance", "list"], &["audit"], &["status"]] {
        for text in [server.pulse_ok(arguments), server.pulse_ok(&[arguments, &["--json"]].concat())] {
            assert!(!text.contains(SECRET), "{arguments:?}: {text}");
            assert!(!text.contains("sealed"), "{arguments:?}: {text}");
        }
    }

    server.pulse_ok(&["key", "rotate"]);
    fake.set_members(&THREE);
    wait_for_nodes(&server, "home", &THREE);
    server.kill();
    server.start_again();
    fake.set_members(&TWO);
    wait_for_nodes(&server, "home", &TWO);
    assert_eq!(in_the_open(&server), [""; 0]);
    server.terminate();
    assert_eq!(server.wait_exit(PATIENCE), Some(0));
    assert_eq!(in_the_open(&server), [""; 0]);

    // The backup is of before the exchange, and brings its key with it.
    server.pulse_ok(&["restore", &backup, "--new-epoch", "--yes"]);
    server.start_again();
    fake.set_members(&THREE);
    wait_for_nodes(&server, "home", &THREE);

    // Another key: nothing starts, and nothing is lost.
    server.terminate();
    server.wait_exit(PATIENCE);
    let path = server.data_dir().join("secret.key");
    let right = fs::read(&path).expect("it is there");
    fs::write(&path, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").expect("it can be written");
    server.spawn();
    assert_eq!(server.wait_exit(PATIENCE), Some(2));
    fs::write(&path, right).expect("it can be written");
    server.start_again();
    fake.set_members(&TWO);
    wait_for_nodes(&server, "home", &TWO);
    let log = server.process().log().join("\n");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn a_move_to_postgresql_takes_sources_with_it() {
    let mut server = Server::builder().on_file().start();
    let fake = FakeProxmox::cluster(&TWO);
    add(&server, "home", &[&fake]);
    server.pulse_ok(&["node", "address", "home", "pve2", "10.0.0.2"]);
    wait_for_nodes(&server, "home", &["pve1=192.0.2.1", "pve2=10.0.0.2"]);
    server.terminate();
    server.wait_exit(PATIENCE);
    let postgres = Postgres::start();
    let url = postgres.database();
    let from = format!("sqlite:{}", server.data_dir().display());
    server.pulse_ok(&["db", "copy", "--from", &from, "--to", &url]);
    let mut moved = Server::builder().beside(&server, &url);
    moved.start_again();
    fake.set_members(&THREE);
    wait_for_nodes(&moved, "home", &["pve1=192.0.2.1", "pve2=10.0.0.2", "pve3=192.0.2.3"]);
    let database = url.rsplit('/').next().expect("a URL has a path");
    let sql = format!(
        "SELECT count(*), sum(position(convert_to('{SECRET}', 'UTF8') IN sealed_secret)) FROM instance_sources"
    );
    let asked = postgres.ask(database, &sql);
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), "1|0", "it is sealed there too: {asked:?}");
}
