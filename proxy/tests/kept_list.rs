//! The list on the proxy's disk: whatever happened to the file, it is used whole or not at all, each kind of harm has its
//! own name, the next one in order takes its place, the server is told, and the next list mends it.
//!
//! Every place of harm is tried with the program's `status`, which reads the file as `run` does; every kind of harm with
//! whole runs against a server.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use pulse_proto::signature::SigningKey;
use pulse_proto::{Allowlist, Node, Position, Scope, SignedAllowlist};
use pulse_sensor_proxy::cache::{self, Expected};
use pulse_sensor_proxy::config::ServerUrl;
use pulse_sensor_proxy::identity::{Folder, Home, Identity, Mark};
use pulse_test_support::capture::keep_output;
use pulse_test_support::{PATIENCE, Proxy, Server, binary, eventually};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

/// A state folder that was never at a server: a list of 60 nodes, so that the file has well over 1,000 bytes.
struct Host {
    folder: TempDir,
    key: SigningKey,
    identity: Identity,
}

impl Host {
    fn new() -> Host {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let (key, _) = SigningKey::generate().expect("the system has random bytes");
        let list = list(&key, 5);
        let identity = Identity {
            server_id: Uuid::now_v7(),
            turn: 1,
            url: "https://127.0.0.1:1".parse::<ServerUrl>().expect("an address"),
            pin: None,
            ca_pins: Vec::new(),
            proxy_id: Some(Uuid::now_v7()),
            hostname: None,
            keys: vec![key.public()],
            mark: Some(Mark { position: list.position, scope: list.scope, hash: list.allowlist.hash() }),
            revoked: None,
            seed: None,
        };
        let host = Host { folder, key, identity };
        host.place().create(&host.identity).expect("the state folder can be written");
        host.write(&list);
        let config = "pulse_control_plane:\n  url: https://127.0.0.1:1\nallowed_nodes: [fallback]\n";
        fs::write(host.folder.path().join("config.yaml"), config).expect("a file can be written");
        host
    }

    fn place(&self) -> Folder {
        Home::new(&self.folder.path().join("state")).folder(self.identity.server_id)
    }

    fn cache(&self) -> PathBuf {
        self.place().cache_path()
    }

    fn write(&self, list: &SignedAllowlist) {
        cache::store(&self.cache(), self.identity.proxy_id, list, SystemTime::now())
            .expect("the cache can be written");
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(self.cache(), bytes).expect("the cache can be written");
    }

    /// `status --json`, and its exit code.
    fn status(&self) -> (Option<i32>, Value) {
        let mut command = Command::new(binary("pulse-sensor-proxy"));
        command
            .env_clear()
            .args(["status", "--json", "--config"])
            .arg(self.folder.path().join("config.yaml"));
        command.arg("--state-dir").arg(self.folder.path().join("state"));
        let output = command.output().expect("the program starts");
        keep_output(&command, &output);
        let json = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        (output.status.code(), json)
    }

    /// The file is not used, under this name; the static list is in force, and the text names the file.
    #[track_caller]
    fn assert_not_used(&self, reason: &str, how: &str) {
        let (code, status) = self.status();
        let seen = (code, status["cache"].as_str(), status["list"]["source"].as_str());
        assert_eq!(seen, (Some(0), Some(reason), Some("static")), "{how}: {status}");
        let nodes = status["list"]["nodes"].as_array().expect("a list has nodes");
        assert!(nodes.len() == 1 && nodes[0]["name"] == "fallback", "{how}: {status}");
        let detail = status["cache_detail"].as_str().expect("a reason has its text");
        assert!(
            detail.contains("allowlist.cache") && detail.contains("next list from Pulse"),
            "{how}: {detail}"
        );
    }
}

fn list(key: &SigningKey, revision: u64) -> SignedAllowlist {
    let nodes = (0..60).map(|at| Node::new(&format!("node-{at}"), "").expect("a name"));
    let position = Position { epoch: 1_763_600_000_000, revision };
    let interval = Duration::from_secs(60);
    SignedAllowlist::sign(key, position, Scope::All, Allowlist::new(nodes), SystemTime::UNIX_EPOCH, interval)
}

/// Tries each of `harms` on its own file, with as many hosts at once as there is use for.
fn try_all(harms: &[Vec<u8>], reason: &str) {
    let hosts: Vec<Host> = (0..4).map(|_| Host::new()).collect();
    thread::scope(|scope| {
        for (at, host) in hosts.iter().enumerate() {
            scope.spawn(move || {
                for (place, bytes) in harms.iter().enumerate().skip(at).step_by(4) {
                    host.put(bytes);
                    host.assert_not_used(reason, &format!("place {place}"));
                }
            });
        }
    });
}

fn whole() -> Vec<u8> {
    let host = Host::new();
    assert_eq!(host.status().1["list"]["source"], "cache", "the whole file is used");
    fs::read(host.cache()).expect("the cache was written")
}

#[test]
fn a_cache_cut_at_any_byte_is_damaged_and_the_static_list_is_in_force() {
    let whole = whole();
    let cuts: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
    assert!(cuts.len() > 1_000);
    try_all(&cuts, "damaged");
}

#[test]
fn a_cache_with_one_bit_flipped_at_a_thousand_places_is_damaged_and_the_static_list_is_in_force() {
    let whole = whole();
    let flips: Vec<Vec<u8>> = (0..1_000)
        .map(|place| {
            let mut flipped = whole.clone();
            // Spread over the file from its first byte to its last, each bit of a byte in turn.
            flipped[place * (whole.len() - 1) / 999] ^= 1 << (place % 8);
            flipped
        })
        .collect();
    try_all(&flips, "damaged");
}

#[test]
fn a_cache_with_a_right_checksum_is_verified_like_a_pushed_list() {
    let host = Host::new();
    let good = list(&host.key, 5);
    let (other, _) = SigningKey::generate().expect("the system has random bytes");
    let of_another_key = list(&other, 5);
    host.write(&of_another_key);
    host.assert_not_used("foreign", "another key");
    // The same under the known key's name, and with each part of the statement changed.
    let signed_otherwise = SignedAllowlist { key_id: good.key_id.clone(), ..of_another_key };
    let other_nodes = Allowlist::new([Node::new("intruder", "").expect("a name")]);
    let instance = Scope::Instance(Uuid::now_v7());
    let newer = Position { revision: 6, ..good.position };
    let next_epoch = Position { epoch: good.position.epoch + 1, revision: 1 };
    for (how, forged) in [
        ("signature", signed_otherwise),
        ("nodes", SignedAllowlist { allowlist: other_nodes, ..good.clone() }),
        ("scope", SignedAllowlist { scope: instance, ..good.clone() }),
        ("revision", SignedAllowlist { position: newer, ..good.clone() }),
        ("epoch", SignedAllowlist { position: next_epoch, ..good.clone() }),
    ] {
        host.write(&forged);
        host.assert_not_used("damaged", how);
    }
    // A list of the server at the very place of the one that was applied, for another scope.
    let interval = Duration::from_secs(60);
    let elsewhere = SignedAllowlist::sign(
        &host.key,
        good.position,
        instance,
        good.allowlist.clone(),
        SystemTime::UNIX_EPOCH,
        interval,
    );
    host.write(&elsewhere);
    host.assert_not_used("foreign", "another scope at the same place");
    cache::store(&host.cache(), Some(Uuid::now_v7()), &good, SystemTime::now()).expect("it can be written");
    host.assert_not_used("foreign", "another proxy");
    host.write(&good);
    assert_eq!(host.status().1["list"]["source"], "cache");
}

#[test]
fn cache_and_mark_in_every_order_of_a_crash_never_bring_an_older_list() {
    let host = Host::new();
    let mark = |revision| {
        let list = list(&host.key, revision);
        Some(Mark { position: list.position, scope: list.scope, hash: list.allowlist.hash() })
    };
    let write_mark = |mark| {
        fs::remove_file(host.place().path().join("identity.json")).expect("it was written");
        host.place().create(&Identity { mark, ..host.identity.clone() }).expect("it can be written");
    };
    // The cache is written first: what it has is the newer one, and so it is without a mark.
    for (kept, mark) in [(5, mark(5)), (5, mark(4)), (5, None)] {
        write_mark(mark);
        host.write(&list(&host.key, kept));
        let status = host.status().1;
        assert_eq!((&status["list"]["revision"], &status["cache"]), (&5.into(), &Value::Null), "{mark:?}");
    }
    write_mark(mark(6));
    host.assert_not_used("older", "a mark ahead of the cache");
    let epoch = Position { epoch: 1_763_600_000_001, revision: 1 };
    write_mark(mark(6).map(|mark| Mark { position: epoch, ..mark }));
    host.assert_not_used("older", "a mark of a later epoch");
    fs::remove_file(host.cache()).expect("it was written");
    host.assert_not_used("missing", "a mark without a cache");
    write_mark(None);
    let (code, status) = host.status();
    let seen = (code, &status["cache"], &status["list"]["source"]);
    assert_eq!(seen, (Some(0), &Value::Null, &"static".into()), "nothing was ever kept");
}

/// Harm done to a file, and what it is called.
type Harm<'a> = (&'static str, &'static str, Box<dyn Fn(&Path) + 'a>);

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
    .expect("what was written can be removed");
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        // Not by `eprintln!`, which the test runner hides when a test passes.
        writeln!(std::io::stderr(), "SKIPPED: another owner and a device, which only root can make")
            .expect("standard error can be written");
    }
    is_root
}

fn make_special(path: &Path, kind: &str) {
    let mut command = Command::new("mknod");
    command.arg(path).args(kind.split(' '));
    assert!(command.status().expect("mknod is there").success(), "{kind}");
}

/// Every kind of harm that needs no other list.
fn harms<'a>() -> Vec<Harm<'a>> {
    let mode = |mode: u32| {
        move |path: &Path| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode can be set")
    };
    let mut harms: Vec<Harm<'a>> = vec![
        (
            "cut in half",
            "damaged",
            Box::new(|path| {
                let bytes = fs::read(path).expect("it was written");
                fs::write(path, &bytes[..bytes.len() / 2]).expect("it can be written");
            }),
        ),
        (
            "a flipped bit",
            "damaged",
            Box::new(|path| {
                let mut bytes = fs::read(path).expect("it was written");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                fs::write(path, bytes).expect("it can be written");
            }),
        ),
        ("empty", "damaged", Box::new(|path| fs::write(path, "").expect("it can be written"))),
        ("gone", "missing", Box::new(remove)),
        (
            "a link",
            "unreadable",
            Box::new(|path| {
                let real = path.with_extension("real");
                fs::rename(path, &real).expect("it was written");
                symlink(&real, path).expect("a link can be made");
            }),
        ),
        ("others may write it", "unreadable", Box::new(mode(0o666))),
        ("the group may write it", "unreadable", Box::new(mode(0o660))),
        (
            "100 MB",
            "unreadable",
            Box::new(|path| {
                let file = File::options().write(true).open(path).expect("it was written");
                file.set_len(100_000_000).expect("a sparse file can be made");
            }),
        ),
        (
            "a folder",
            "unreadable",
            Box::new(|path| {
                remove(path);
                fs::create_dir(path).expect("a folder can be made");
                fs::write(path.join("something"), "in it").expect("it can be written");
            }),
        ),
        (
            "a FIFO",
            "unreadable",
            Box::new(|path| {
                remove(path);
                make_special(path, "p");
                assert!(fs::symlink_metadata(path).expect("it was made").file_type().is_fifo());
            }),
        ),
    ];
    if is_root() {
        harms.push((
            "another owner",
            "unreadable",
            Box::new(|path| {
                chown(path, Some(12_345), None).expect("root can give a file away");
            }),
        ));
        harms.push((
            "a device",
            "unreadable",
            Box::new(|path| {
                remove(path);
                make_special(path, "c 1 5");
            }),
        ));
    }
    harms
}

#[test]
fn every_kind_of_harm_has_its_name_and_is_not_fatal_without_a_server() {
    for (how, reason, harm) in harms() {
        let host = Host::new();
        harm(&host.cache());
        host.assert_not_used(reason, how);
        // Without a static list, nothing may be read.
        let config = "pulse_control_plane:\n  url: https://127.0.0.1:1\n";
        fs::write(host.folder.path().join("config.yaml"), config).expect("a file can be written");
        let (code, status) = host.status();
        let seen = (code, &status["list"]["source"], &status["list"]["why_closed"]);
        assert_eq!(seen, (Some(0), &"none".into(), &"no list yet".into()), "{how}");
    }
}

/// A registered proxy in sync with its server, which does not run.
struct Pair {
    server: Server,
    proxy: Proxy,
    id: String,
    cache: PathBuf,
}

impl Pair {
    fn new() -> Pair {
        let server = Server::start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
        let proxy = Proxy::builder("delly").config("allowed_nodes: [fallback]").build();
        proxy.register_ok(&server.join_string(&["--instance", "home"]));
        let (id, cache) = (proxy.id(), proxy.control_dir().join("allowlist.cache"));
        Pair { server, proxy, id, cache }
    }

    fn hash(&self) -> String {
        self.server.allowlist("home")["hash"].as_str().expect("a list has a hash").to_owned()
    }

    fn stop(&mut self) {
        self.proxy.terminate();
        assert_eq!(self.proxy.wait_exit(PATIENCE), Some(0));
    }

    /// Runs the proxy on a file that was harmed, until the server shows all of it.
    fn run_harmed(&mut self, how: &str, problem: &str) {
        let status = self.proxy.status();
        assert_eq!(
            (&status["cache"], &status["list"]["source"]),
            (&problem.into(), &"static".into()),
            "{how}"
        );
        self.proxy.start();
        let hash = self.hash();
        let shown = eventually(PATIENCE, &format!("{how} is told and mended"), || {
            let shown = self.server.json(&["proxy", "show", &self.id]);
            let is_told = shown["kept_list"]["problem"] == problem && shown["is_on_disk"] == true;
            let is_mended = shown["state"] == "IN_SYNC" && shown["applied"]["hash"] == *hash;
            let is_mine = shown["is_connected"] == true && shown["list_source"] == "pushed";
            if is_told && is_mended && is_mine { Ok(shown) } else { Err(shown) }
        });
        let detail = shown["kept_list"]["detail"].as_str().expect("it has a text");
        assert!(
            detail.contains("allowlist.cache") && detail.contains("next list from Pulse"),
            "{how}: {detail}"
        );
        let text = self.server.pulse_ok(&["proxy", "show", &self.id]);
        assert!(
            text.contains("kept list") && text.contains(problem) && text.contains("allowlist.cache"),
            "{text}"
        );
        let has_said = |text: &str| self.proxy.process().has_said(text);
        assert!(has_said("the kept list is not used") && has_said(&format!("reason=\"{problem}\"")), "{how}");
        self.stop();
        let status = self.proxy.status();
        let seen = (&status["cache"], &status["list"]["source"], status["list"]["hash"].as_str());
        assert_eq!(
            seen,
            (&Value::Null, &"cache".into(), Some(hash.as_str())),
            "{how}: the next list replaced it"
        );
        assert_eq!(
            fs::symlink_metadata(&self.cache).expect("it was written").permissions().mode(),
            0o100_600
        );
    }
}

#[test]
fn every_kind_of_harm_is_told_to_the_server_shown_there_and_mended_by_the_next_list() {
    let mut pair = Pair::new();
    for (how, problem, harm) in harms() {
        harm(&pair.cache);
        pair.run_harmed(how, problem);
    }
    // A start on a good file ends the word of it.
    pair.proxy.start();
    eventually(PATIENCE, "nothing is wrong any more", || {
        let shown = pair.server.json(&["proxy", "show", &pair.id]);
        let is_well = shown["kept_list"].is_null() && shown["is_connected"] == true;
        if is_well { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn another_proxys_cache_and_yesterdays_are_told_apart_and_never_used() {
    let mut pair = Pair::new();
    pair.server.pulse_ok(&["instance", "add", "other", "--endpoint", "minipc=127.0.0.2"]);
    let other = Proxy::builder("minipc").build();
    other.register_ok(&pair.server.join_string(&["--instance", "other"]));
    fs::copy(other.control_dir().join("allowlist.cache"), &pair.cache).expect("a file can be copied");
    pair.run_harmed("another proxy's", "foreign");

    let yesterday = fs::read(&pair.cache).expect("it was written");
    pair.server.pulse_ok(&[
        "instance",
        "set",
        "--yes",
        "home",
        "--endpoint",
        "delly=127.0.0.1",
        "--endpoint",
        "nas",
    ]);
    pair.proxy.start();
    pair.server.wait_for_applied(&pair.id, &pair.hash());
    pair.stop();
    fs::write(&pair.cache, yesterday).expect("it can be written");
    pair.run_harmed("yesterday's", "older");
}

#[test]
fn what_is_read_back_is_what_was_kept() {
    let host = Host::new();
    let good = list(&host.key, 5);
    let expected =
        Expected { proxy_id: host.identity.proxy_id, keys: &host.identity.keys, reached: good.position };
    assert_eq!(cache::load(&host.cache(), expected).expect("it is good").list, good);
}
