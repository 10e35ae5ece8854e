//! A backup is one file that brings the fleet back on another machine; it is whole or it is not there; and what is put
//! back takes the place of what was there as a whole or not at all, whenever it is cut short.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pulse::backup::read::verify;
use pulse_test_support::{Blow, Fault, PATIENCE, Proxy, Ran, Server, binary, eventually};
use rusqlite::Connection;
use serde_json::Value;

/// Files of a data folder that are no part of a backup: a lock, a socket, and what SQLite keeps while it works.
const NOT_KEPT: [&str; 6] =
    ["admin.sock", "pulse.lock", "pulse.db-wal", "pulse.db-shm", "pulse.db-journal", "tickets.key"];

fn backup(server: &Server, folder: &Path) -> PathBuf {
    let file = folder.join("pulse.tar");
    server.pulse_ok(&["backup", &file.display().to_string()]);
    file
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
}

fn stop(server: &mut Server) {
    server.terminate();
    server.wait_exit(PATIENCE);
}

fn hash(list: &Value) -> &str {
    list["hash"].as_str().expect("a list has a hash")
}

/// Makes the database so large that work on it takes its time.
fn add_ballast(server: &Server) {
    let shell = Connection::open(server.data_dir().join("pulse.db")).expect("the database opens");
    shell.busy_timeout(PATIENCE).expect("a time-out can be set");
    let ballast = "CREATE TABLE ballast (content BLOB);
                   WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 48)
                   INSERT INTO ballast SELECT randomblob(1 << 20) FROM n";
    shell.execute_batch(ballast).expect("there is room");
}

fn start(arguments: &[&str], data_dir: &Path) -> Child {
    let mut command = Command::new(binary("pulse"));
    command.args(arguments).arg("--data-dir").arg(data_dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

#[test]
fn a_fleet_comes_back_on_another_machine_and_its_proxies_with_it() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let proxy = Proxy::join(&server, "home", "delly");
    let list = server.allowlist("home");
    server.wait_for_applied(&proxy.id(), hash(&list));
    let folder = tempfile::tempdir().unwrap();
    let file = backup(&server, folder.path());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let checked = server.json(&["check", &file.display().to_string()]);
    assert_eq!(checked["is_good"], true, "{checked}");

    stop(&mut server);
    fs::remove_dir_all(server.data_dir()).unwrap();
    let said = server.pulse_ok(&["restore", &file.display().to_string(), "--keep-epoch"]);
    assert!(said.contains("start the server now") && !said.contains("what was there"), "{said}");
    for (name, mode) in [("pulse.db", 0o600), ("ca.key", 0o600), ("server.key", 0o600), ("ca.pem", 0o644)] {
        let found = fs::metadata(server.data_dir().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    assert_eq!(fs::metadata(server.data_dir()).unwrap().permissions().mode() & 0o777, 0o700);
    server.start_again();

    // Same pin, same token, same list: nobody has to register anything again.
    eventually(PATIENCE, "the proxy is back", || {
        let shown = server.json(&["proxy", "show", &proxy.id()]);
        let is_back = shown["is_connected"] == true && shown["state"] == "IN_SYNC";
        if is_back { Ok(()) } else { Err(shown) }
    });
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "b"]);
    server.wait_for_applied(&proxy.id(), hash(&server.allowlist("home")));
    let audit = server.pulse_ok(&["audit"]);
    assert!(audit.contains("backup.make") && audit.contains("backup.restore"), "{audit}");
    server.pulse_ok(&["check"]);
}

#[test]
fn every_lasting_file_of_the_data_folder_is_in_it() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    server.pulse_ok(&["tls", "rotate"]);
    let folder = tempfile::tempdir().unwrap();
    let manifest = verify(&backup(&server, folder.path())).unwrap();
    let kept: BTreeSet<String> = manifest.parts.into_iter().map(|part| part.name).collect();
    let mut there = names(&server.data_dir());
    there.retain(|name| !NOT_KEPT.contains(&name.as_str()));
    assert_eq!(kept, there);
}

#[test]
fn a_backup_made_amid_changes_has_each_that_was_made_before() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let (mut made, mut slowest) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let (mut number, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let begun = Instant::now();
                let body =
                    serde_json::json!({ "endpoints": [{ "name": format!("n{number}") }], "yes": true });
                let answer = server.admin("PUT", "/instances/home", Some(&body)).expect("the server answers");
                assert_eq!(answer.status, 200);
                slowest = slowest.max(begun.elapsed());
            }
            (number, slowest)
        });
        for round in 0..5 {
            let before = server.json(&["status"])["revision"].as_u64().expect("a number");
            let file = folder.path().join(format!("{round}.tar"));
            server.pulse_ok(&["backup", &file.display().to_string()]);
            let checked = server.json(&["check", &file.display().to_string()]);
            assert_eq!(checked["is_good"], true, "{checked}");
            assert!(checked["revision"].as_u64() >= Some(before), "{checked}");
        }
        stop.store(true, Ordering::Relaxed);
        (made, slowest) = changing.join().expect("changing does not fail");
    });
    assert!(made > 5, "changes went on meanwhile: {made}");
    assert!(slowest < Duration::from_secs(10), "no change waited for a backup: {slowest:?}");
}

#[test]
fn a_file_that_is_there_is_replaced_only_if_that_is_said() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pulse.tar");
    fs::write(&file, "mine").unwrap();
    let path = file.display().to_string();
    let ran = server.pulse(&["backup", &path]);
    assert!(ran.code == Some(1) && ran.stderr.contains("is there already"), "{ran:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // What a killed backup left goes with the next one.
    fs::write(folder.path().join(".pulse.tar.Ab12.part"), "half").unwrap();
    server.pulse_ok(&["backup", &path, "--force"]);
    verify(&file).unwrap();
    assert_eq!(names(folder.path()), BTreeSet::from(["pulse.tar".to_owned()]));
    let missing = folder.path().join("none/pulse.tar").display().to_string();
    for (path, text) in [(missing.as_str(), "is the folder there?"), ("/", "no name of a file")] {
        let ran = server.pulse(&["backup", path]);
        assert!(!ran.is_success() && ran.stderr.contains(text), "{ran:?}");
    }
    let ran = server.pulse(&["backup", &folder.path().display().to_string()]);
    assert!(ran.code == Some(2) && ran.stderr.contains("is a folder"), "{ran:?}");
    let ran = server.pulse(&["backup", "-"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("./-"), "{ran:?}");
}

#[test]
fn a_device_a_link_or_a_pipe_is_never_replaced() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for path in [&link, &pipe] {
        let ran = server.pulse(&["backup", &path.display().to_string(), "--force"]);
        assert!(ran.code == Some(2) && ran.stderr.contains("is no regular file"), "{ran:?}");
        assert!(!fs::symlink_metadata(path).unwrap().is_file());
        // Nor is one waited for that nobody writes.
        let ran = server.pulse(&["check", &path.display().to_string()]);
        assert!(ran.code == Some(1) && ran.stderr.contains("is no regular file"), "{ran:?}");
    }
    assert_eq!(names(folder.path()).len(), 2);
}

#[test]
fn a_cancelled_backup_leaves_nothing_behind() {
    let server = Server::start();
    add_ballast(&server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pulse.tar");
    let path = file.display().to_string();
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP]
    {
        let mut child = start(&["backup", &path], &server.data_dir());
        eventually(PATIENCE, "it is under way", || {
            if server.data_dir().join("pulse.db.copy").exists() { Ok(()) } else { Err(names(folder.path())) }
        });
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(names(folder.path()), BTreeSet::new());
        eventually(PATIENCE, "the server gives up its copy", || {
            let names = names(&server.data_dir());
            if names.iter().any(|name| name.contains("copy")) { Err(names) } else { Ok(()) }
        });
    }
    // And the next one is not in the way of itself.
    eventually(PATIENCE, "another backup is made", || {
        let ran = server.pulse(&["backup", &path]);
        if ran.is_success() { Ok(()) } else { Err(ran) }
    });
    verify(&file).unwrap();
}

#[test]
fn a_full_disk_is_said_to_be_one_and_where_and_nothing_is_left() {
    if !Fault::can_be_made() {
        return;
    }
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pulse.tar");
    // The first flush of the command is that of its file.
    let mut command = Command::new("strace");
    command.args([
        "-qq",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        "inject=fsync:error=ENOSPC:when=1",
    ]);
    command.arg(binary("pulse")).arg("backup").arg(&file).arg("--data-dir").arg(server.data_dir());
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains(&file.display().to_string()) && said.contains("No space left"), "{said}");
    assert!(said.contains("make room in that folder"), "{said}");
    assert_eq!(names(folder.path()), BTreeSet::new());
    server.pulse_ok(&["backup", &file.display().to_string()]);
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so loudly")]
fn what_root_restores_belongs_to_the_owner_of_the_data_folder() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home"]);
    let folder = tempfile::tempdir().unwrap();
    let path = backup(&server, folder.path());
    let data_dir = folder.path().join("data");
    for round in 0..2 {
        if round == 0 {
            fs::create_dir(&data_dir).unwrap();
            std::os::unix::fs::chown(&data_dir, Some(4711), Some(4712)).unwrap();
        }
        let mut child = start(&["restore", &path.display().to_string(), "--new-epoch"], &data_dir);
        assert!(child.wait().unwrap().success());
        for name in names(&data_dir) {
            let found = fs::metadata(data_dir.join(&name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (4711, 4712), "{name} in round {round}");
        }
    }
}

#[test]
fn a_server_killed_while_it_makes_a_backup_begins_clean() {
    let mut server = Server::start();
    add_ballast(&server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pulse.tar");
    let mut child = start(&["backup", &file.display().to_string()], &server.data_dir());
    eventually(PATIENCE, "it is under way", || {
        if server.data_dir().join("pulse.db.copy").exists() { Ok(()) } else { Err(names(folder.path())) }
    });
    server.kill();
    assert!(!child.wait().unwrap().success());
    assert_eq!(names(folder.path()), BTreeSet::new());
    server.start_again();
    let names = names(&server.data_dir());
    assert!(!names.iter().any(|name| name.contains("copy")), "{names:?}");
    server.pulse_ok(&["check"]);
}

#[test]
fn a_backup_that_is_damaged_or_cut_short_changes_nothing() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let folder = tempfile::tempdir().unwrap();
    let file = backup(&server, folder.path());
    let good = fs::read(&file).unwrap();
    let manifest = verify(&file).unwrap();
    stop(&mut server);
    let before = names(&server.data_dir());

    let bad = folder.path().join("bad.tar");
    let content_end = good.len() - 1024;
    for length in (0..content_end).step_by(499) {
        fs::write(&bad, &good[..length]).unwrap();
        assert!(verify(&bad).is_err(), "cut at {length} of {}", good.len());
    }
    for place in (0..good.len()).step_by(good.len() / 1000) {
        let mut bytes = good.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&bad, &bytes).unwrap();
        // A bit between the parts says nothing; one within them never goes unseen.
        if let Ok(other) = verify(&bad) {
            assert_eq!(other, manifest, "bit at {place}");
        }
    }
    for (content, text) in
        [(&b"something else"[..], "it is no backup of Pulse"), (&good[..good.len() / 2], "cut short")]
    {
        fs::write(&bad, content).unwrap();
        let ran = server.pulse(&["restore", &bad.display().to_string(), "--new-epoch", "--yes"]);
        assert!(ran.code == Some(1) && ran.stderr.contains(text), "{ran:?}");
        let ran = server.pulse(&["check", &bad.display().to_string()]);
        assert!(ran.code == Some(1) && ran.stderr.contains(text), "{ran:?}");
    }
    assert_eq!(names(&server.data_dir()), before);
    server.start_again();
    assert_eq!(server.allowlist("home")["nodes"].as_array().map(Vec::len), Some(1));
}

#[test]
fn restore_says_what_it_needs_and_moves_what_was_there_aside() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let folder = tempfile::tempdir().unwrap();
    let path = backup(&server, folder.path()).display().to_string();
    server.pulse_ok(&["instance", "add", "lab", "--endpoint", "x"]);
    let ran = server.pulse(&["restore", &path]);
    assert!(
        ran.code == Some(2) && ran.stderr.contains("--new-epoch") && ran.stderr.contains("--keep-epoch"),
        "{ran:?}"
    );
    let ran = server.pulse(&["restore", &path, "--new-epoch", "--json"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("stop it first"), "{ran:?}");
    assert!(ran.stderr.contains(r#""reason":"IN_USE""#), "{ran:?}");
    server.pulse_ok(&["instance", "show", "lab"]);

    stop(&mut server);
    let there = names(&server.data_dir());
    let restored = server.json(&["restore", &path, "--keep-epoch"]);
    let aside = PathBuf::from(restored["moved_aside"].as_str().unwrap_or_else(|| panic!("{restored}")));
    assert_eq!(aside.parent(), Some(server.data_dir().as_path()));
    let mut kept = there;
    kept.retain(|name| !["pulse.lock", "admin.sock", "tickets.key"].contains(&name.as_str()));
    assert_eq!(names(&aside), kept);
    assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o700);
    server.start_again();
    assert!(!server.pulse(&["instance", "show", "lab"]).is_success(), "the backup is older than it");
    let shell = Connection::open(aside.join("pulse.db")).unwrap();
    let names: i64 = shell.query_row("SELECT count(*) FROM instances", [], |row| row.get(0)).unwrap();
    assert_eq!(names, 2, "nothing of what was there is lost");
}

/// A server that has `new`, which the backup has not, and ended; and the backup.
fn newer_than_its_backup(folder: &Path) -> (Server, String) {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "old", "--endpoint", "delly"]);
    let path = backup(&server, folder).display().to_string();
    server.pulse_ok(&["instance", "add", "new", "--endpoint", "x"]);
    stop(&mut server);
    (server, path)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder can be made");
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).expect("a file can be copied");
    }
}

/// The files that a restore writes and moves, and their folders.
fn moved(data_dir: &Path) -> Vec<PathBuf> {
    let folders = ["", "restore.new", "restore.ready", "restore.moving"].map(|name| data_dir.join(name));
    let names = ["pulse.db", "pulse.db-wal", "ca.key", "aside"];
    let files = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
    files.chain(folders.iter().cloned()).collect()
}

/// Restores with a fault in it, again and again, each time over the same files; what stands there afterwards is whole.
/// Says how often it was the old and how often the new. `told` judges what the command said, and whether it is the old.
fn restore_with_faults(blow: Blow, told: impl Fn(&Ran, bool)) -> (u32, u32) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (mut server, path) = newer_than_its_backup(folder.path());
    let before = folder.path().join("before");
    copy(&server.data_dir(), &before);
    let ca = fs::read(before.join("ca.pem")).expect("there is a CA");
    let (mut olds, mut news) = (0, 0);
    let data_dir = server.data_dir();
    let paths = || {
        fs::remove_dir_all(&data_dir).expect("the folder can be removed");
        copy(&before, &data_dir);
        moved(&data_dir)
    };
    Fault::at_each_call(blow, 20, paths, |fault| {
        let ran = server.pulse_with_fault(&["restore", &path, "--new-epoch", "--yes"], fault);
        server.start_again();
        server.pulse_ok(&["instance", "show", "old"]);
        let is_old = server.pulse(&["instance", "show", "new"]).is_success();
        assert_eq!(server.pulse_ok(&["audit"]).contains("epoch.new"), !is_old, "{fault:?}");
        if fault.happened().is_some() {
            told(&ran, is_old);
        }
        if is_old {
            olds += 1;
        } else {
            news += 1;
        }
        assert_eq!(fs::read(data_dir.join("ca.pem")).expect("there is a CA"), ca, "{fault:?}");
        server.pulse_ok(&["check"]);
        let left = names(&data_dir);
        assert!(!left.iter().any(|name| name.starts_with("restore.")), "{fault:?}: {left:?}");
        stop(&mut server);
    });
    (olds, news)
}

#[test]
fn a_restore_killed_at_any_write_leaves_the_old_or_the_new() {
    if !Fault::can_be_made() {
        return;
    }
    let (olds, news) = restore_with_faults(Blow::Kill, |ran, _| assert!(!ran.is_success(), "{ran:?}"));
    assert!(olds > 5 && news > 5, "kills fell on either side: {olds} old, {news} new");
}

#[test]
fn a_restore_on_a_full_disk_says_so_and_leaves_the_old_or_the_new() {
    if !Fault::can_be_made() {
        return;
    }
    let (olds, news) = restore_with_faults(Blow::Error("ENOSPC"), |ran, is_old| {
        assert!(!ran.stderr.contains("panicked") && is_old <= !ran.is_success(), "{ran:?}");
        if !ran.is_success() {
            assert!(ran.code == Some(1) && ran.stderr.contains("not restored: "), "{ran:?}");
            // The start of the server went on with it, and that was said.
            assert_eq!(ran.stderr.contains("half in place"), !is_old, "{ran:?}");
        }
    });
    assert!(olds > 5 && news > 5, "faults fell on either side: {olds} old, {news} new");
}
