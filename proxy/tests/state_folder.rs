//! The state folder: what is in it, what happens when a part of it is harmed, and when the disk is full or cannot be
//! written. None of it ends a running proxy, and what could not be written is written when it can be.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pulse_test_support::{PATIENCE, Proxy, Server, eventually};
use serde_json::Value;

fn server() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
    server
}

/// A proxy with a static list, registered, not running.
fn registered(server: &Server, config: &str) -> Proxy {
    let proxy = Proxy::builder("delly").config(&format!("allowed_nodes: [fallback]\n{config}")).build();
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    proxy
}

/// Makes a list that was never there; returns its hash.
fn push(server: &Server, node: &str) -> String {
    server.pulse_ok(&[
        "instance",
        "set",
        "--yes",
        "home",
        "--endpoint",
        "delly=127.0.0.1",
        "--endpoint",
        node,
    ]);
    server.allowlist("home")["hash"].as_str().expect("a list has a hash").to_owned()
}

fn stop(proxy: &mut Proxy) {
    proxy.terminate();
    assert_eq!(proxy.wait_exit(PATIENCE), Some(0));
}

fn skipped(why: &str) {
    // Not by `eprintln!`, which the test runner hides when a test passes.
    writeln!(std::io::stderr(), "SKIPPED: {why}").expect("standard error can be written");
}

/// Every file below a folder, with its mode.
fn files(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("a folder can be listed").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                found.push((path.clone(), fs::symlink_metadata(&path).expect("it is there").mode() & 0o7777));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_folder_holds_identity_token_cache_and_buffer_and_nothing_else_each_private() {
    let mut server = server();
    let mut proxy = registered(&server, "");
    proxy.start();
    let hash = push(&server, "nas");
    server.wait_for_applied(&proxy.id(), &hash);
    let control = proxy.control_dir();
    let named = |names: &[&str]| names.iter().map(|name| (control.join(name), 0o600)).collect::<Vec<_>>();
    assert_eq!(files(&proxy.state_dir()), named(&["allowlist.cache", "identity.json", "token"]));
    for folder in [&control, &proxy.state_dir().join("control")] {
        assert_eq!(fs::metadata(folder).expect("it is there").mode() & 0o7777, 0o700);
    }
    // Readings that wait at the end are the fourth file.
    server.kill();
    eventually(PATIENCE, "the proxy misses its server", || {
        if proxy.process().has_said("the server is not reachable") {
            Ok(())
        } else {
            Err(proxy.process().log())
        }
    });
    proxy.sysfs().let_read(44.0);
    proxy.sysfs().let_read(45.0);
    stop(&mut proxy);
    let all = ["allowlist.cache", "identity.json", "readings.buffer", "token"];
    assert_eq!(files(&proxy.state_dir()), named(&all));
}

#[test]
fn two_runs_on_one_state_folder_are_told_apart_also_where_it_cannot_be_written() {
    let server = server();
    let mut proxy = registered(&server, "");
    proxy.start();
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    assert_eq!(proxy.status()["running"], true);
    let second = proxy.proxy("run", &[]);
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains("another pulse-sensor-proxy runs on the state folder"), "{second:?}");
    let Some(_mount) = Mount::read_only(&proxy.state_dir()) else { return };
    let second = proxy.proxy("run", &[]);
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains("another pulse-sensor-proxy runs"), "{second:?}");
}

/// Harm done to a file of the state folder, and what it is.
type Harm = (&'static str, fn(&Path));

fn harms() -> Vec<Harm> {
    vec![
        ("cut", |path| {
            let bytes = fs::read(path).expect("it was written");
            fs::write(path, &bytes[..bytes.len() / 2]).expect("it can be written");
        }),
        ("others may write it", |path| {
            fs::set_permissions(path, Permissions::from_mode(0o666)).expect("a mode can be set");
        }),
        ("a link", |path| {
            let real = path.with_extension("real");
            fs::rename(path, &real).expect("it was written");
            symlink(&real, path).expect("a link can be made");
        }),
        ("a folder", |path| {
            fs::remove_file(path).expect("it was written");
            fs::create_dir(path).expect("a folder can be made");
        }),
        ("100 MB", |path| {
            let file = File::options().write(true).open(path).expect("it was written");
            file.set_len(100_000_000).expect("a sparse file can be made");
        }),
    ]
}

#[test]
fn a_harmed_identity_is_not_fatal_gives_the_static_list_and_is_learnt_anew_only_from_a_trusted_server() {
    let server = server();
    for (how, harm) in harms() {
        // Without the pin there is nothing to know the server by: no token is sent, even if no certificate is asked for.
        let mut proxy = registered(&server, "");
        let id = proxy.id();
        let config = fs::read_to_string(proxy.config_path()).expect("it was written");
        let lax = format!("{config}\n  insecure_skip_verify: true\n");
        fs::write(proxy.config_path(), lax).expect("it can be written");
        harm(&proxy.control_dir().join("identity.json"));
        for command in ["status", "sync"] {
            let told = proxy.proxy(command, &["--json"]);
            assert_eq!(
                (told.code, &told.json()["reason"]),
                (Some(2), &"bad_state".into()),
                "{how}: {told:?}"
            );
            assert!(
                told.json()["error"].as_str().expect("a text").contains("identity.json"),
                "{how}: {told:?}"
            );
        }
        proxy.start();
        let says = |text: &str| {
            eventually(PATIENCE, &format!("{how}: {text}"), || {
                if proxy.process().has_said(text) { Ok(()) } else { Err(proxy.process().log()) }
            });
        };
        says("the state folder cannot be read whole");
        says("source=\"static\" nodes=1");
        says("no token is sent to it");
        assert_eq!(server.json(&["proxy", "show", &id])["is_connected"], false, "{how}");
        stop(&mut proxy);

        // With the server's certificate in the configuration, it is the trusted one.
        let sure = format!("{config}\n  ca_file: {}\n", server.ca_path().display());
        fs::write(proxy.config_path(), sure).expect("it can be written");
        proxy.start();
        let newest = push(&server, &format!("nas-{}", how.len()));
        server.wait_for_applied(&id, &newest);
        stop(&mut proxy);
        let status = proxy.status();
        let seen = (&status["proxy_id"], &status["list"]["source"], status["list"]["hash"].as_str());
        assert_eq!(seen, (&id.as_str().into(), &"cache".into(), Some(newest.as_str())), "{how}: {status}");
    }
}

#[test]
fn a_harmed_identity_is_mended_by_registering_again() {
    let server = server();
    let proxy = registered(&server, "");
    let id = proxy.id();
    fs::write(proxy.control_dir().join("identity.json"), "{").expect("it can be written");
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    assert_eq!((proxy.id(), &proxy.status()["registered"]), (id, &true.into()));
}

#[test]
fn a_harmed_token_gives_way_to_the_token_files_and_is_written_anew() {
    let server = server();
    for (how, harm) in harms() {
        let mut proxy = registered(&server, "");
        let token = proxy.control_dir().join("token");
        harm(&token);
        proxy.start();
        server.wait_for_state(&proxy.id(), "IN_SYNC");
        assert!(proxy.process().has_said("the state folder cannot be read whole"), "{how}");
        assert!(proxy.process().has_said("source=\"cache\""), "{how}: the kept list is in force");
        stop(&mut proxy);
        let status = proxy.status();
        assert_eq!(
            (&status["registered"], &status["cache"]),
            (&true.into(), &Value::Null),
            "{how}: {status}"
        );
        assert_eq!(fs::symlink_metadata(&token).expect("it was written").mode(), 0o100_600, "{how}");
    }
}

#[test]
fn a_harmed_buffer_is_set_aside_and_readings_go_on() {
    let mut server = server();
    for (how, harm) in harms() {
        let mut proxy = registered(&server, "");
        let buffer = proxy.control_dir().join("readings.buffer");
        server.kill();
        proxy.start();
        proxy.sysfs().let_read(44.0);
        proxy.sysfs().let_read(45.0);
        stop(&mut proxy);
        harm(&buffer);
        proxy.start();
        server.start_again();
        let id = proxy.id();
        eventually(PATIENCE, &format!("{how}: readings come"), || {
            let shown = server.json(&["proxy", "show", &id]);
            let temps = server.json(&["temps"]);
            let is_there = temps["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty());
            if shown["state"] == "IN_SYNC" && is_there { Ok(()) } else { Err((shown, temps)) }
        });
        assert!(proxy.process().has_said("the readings of an earlier start are not delivered"), "{how}");
        stop(&mut proxy);
        // A reading is shown before it is on the disk: the answer may have been on its way when the proxy was stopped.
        for _ in 0..3 {
            if buffer.exists() {
                proxy.start();
                server.wait_for_state(&id, "IN_SYNC");
                proxy.sysfs().let_read(46.0);
                stop(&mut proxy);
            }
        }
        assert!(!buffer.exists(), "{how}: nothing waits");
    }
}

/// A mount that goes with its value.
struct Mount(PathBuf);

impl Mount {
    /// A small disk; `None` after saying why there is none.
    fn small(folder: &Path, size: &str) -> Option<Mount> {
        Mount::new(&["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"], folder)
    }

    /// The folder itself, read-only.
    fn read_only(folder: &Path) -> Option<Mount> {
        let source = folder.to_str().expect("a temporary folder's path is text").to_owned();
        let mount = Mount::new(&["--bind", &source], folder)?;
        mount.remount("remount,bind,ro");
        Some(mount)
    }

    fn new(arguments: &[&str], folder: &Path) -> Option<Mount> {
        let output = Command::new("mount").args(arguments).arg(folder).output();
        match output {
            Ok(output) if output.status.success() => Some(Mount(folder.to_owned())),
            other => {
                skipped(&format!(
                    "nothing can be mounted here, so no disk can be made full or read-only: {other:?}"
                ));
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let mounted = Command::new("mount").args(["-o", options]).arg(&self.0).status();
        assert!(mounted.expect("mount is there").success(), "{options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, since a program of a test that failed may still use it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills a disk to its last byte with a file of this name.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("ballast");
    let mut file = File::create(&path).expect("there is room for the name");
    while file.write_all(&[0; 512]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
    path
}

/// A proxy whose state folder is a disk of its own.
fn on_its_own_disk(server: &Server) -> Option<(Proxy, Mount)> {
    let proxy = Proxy::builder("delly").config("allowed_nodes: [fallback]").build();
    fs::create_dir(proxy.state_dir()).expect("a folder can be made");
    let mount = Mount::small(&proxy.state_dir(), "64k")?;
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    Some((proxy, mount))
}

/// The list is in force but not on the disk, and readings go on; after `make_room` it is on the disk without another push.
fn works_on_without_a_disk(server: &Server, proxy: &mut Proxy, before: &str, make_room: impl FnOnce()) {
    let (id, control) = (proxy.id(), proxy.control_dir());
    let newest = push(server, "nas");
    let shown = server.wait_for_applied(&id, &newest);
    assert_eq!(shown["is_on_disk"], false, "{shown}");
    assert!(shown["last_error"].as_str().expect("a text").contains("allowlist.cache"), "{shown}");
    let text = server.pulse_ok(&["proxy", "show", &id]);
    assert!(text.lines().any(|line| line.contains("on its disk") && line.contains("no")), "{text}");
    proxy.sysfs().let_read(47.0);
    let status = proxy.status();
    assert_eq!((&status["cache"], status["list"]["hash"].as_str()), (&Value::Null, Some(before)), "{status}");
    make_room();
    let shown = eventually(PATIENCE, "the list is on the disk", || {
        let shown = server.json(&["proxy", "show", &id]);
        if shown["is_on_disk"] == true { Ok(shown) } else { Err(shown) }
    });
    let seen = (shown["applied"]["hash"].as_str(), shown["last_error"].as_str(), shown["state"].as_str());
    assert_eq!(seen, (Some(newest.as_str()), Some(""), Some("IN_SYNC")));
    assert!(proxy.process().has_said("the list in force is on the disk again"));
    let times = proxy.process().log().iter().filter(|line| line.contains("but not on the disk")).count();
    assert_eq!(times, 1, "a state is said when it begins");
    assert_eq!(proxy.status()["list"]["hash"], newest.as_str());
    assert_eq!(
        files(&control).iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "new")).count(),
        0
    );
}

#[test]
fn a_full_disk_stops_nothing_and_what_it_kept_out_is_written_when_there_is_room() {
    let server = server();
    let Some((mut proxy, _mount)) = on_its_own_disk(&server) else { return };
    proxy.start();
    let before =
        server.wait_for_state(&proxy.id(), "IN_SYNC")["applied"]["hash"].as_str().expect("a hash").to_owned();
    let ballast = fill(&proxy.state_dir());
    works_on_without_a_disk(&server, &mut proxy, &before, || fs::remove_file(ballast).expect("it was made"));
}

#[test]
fn a_read_only_disk_stops_nothing_also_from_the_start_and_heals() {
    let server = server();
    let Some((mut proxy, mount)) = on_its_own_disk(&server) else { return };
    let before = server.allowlist("home")["hash"].as_str().expect("a list has a hash").to_owned();
    mount.remount("remount,ro,size=64k");
    proxy.start();
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    works_on_without_a_disk(&server, &mut proxy, &before, || mount.remount("remount,rw,size=64k"));
    // A proxy that is killed without its disk begins with what is on it, and is brought up to date.
    mount.remount("remount,ro,size=64k");
    let newest = push(&server, "another");
    server.wait_for_applied(&proxy.id(), &newest);
    proxy.kill();
    proxy.start();
    let shown = server.wait_for_applied(&proxy.id(), &newest);
    assert_eq!((&shown["list_source"], &shown["is_on_disk"]), (&"pushed".into(), &false.into()), "{shown}");
    assert!(proxy.process().has_said("in force until the server is heard"), "{:#?}", proxy.process().log());
    assert!(proxy.process().has_said("source=\"cache\""), "{:#?}", proxy.process().log());
    assert_eq!(proxy.process().log().iter().filter(|line| line.contains("panicked")).count(), 0);
    proxy.terminate();
    assert_eq!(proxy.wait_exit(PATIENCE + Duration::from_secs(1)), Some(0));
}
