//! Lists that fail a check: the proxy refuses them, says why, and works on with the list in force; the server shows it; a
//! new stream gets the list again.
//!
//! Server and proxy are the real ones. A relay between them changes the list on its way, as nobody could without the
//! server's keys or a fault in it.

use std::fs;
use std::sync::{Arc, Mutex};

use prost::Message;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{AllowlistSnapshot, Node, WatchAuthorizedNodesResponse};
use pulse_test_support::{PATIENCE, Passing, Proxy, Relay, Server, eventually};
use serde_json::Value;

/// What the relay does to lists.
type Change = Box<dyn Fn(&mut AllowlistSnapshot) + Send>;

/// A proxy that reaches its server through a relay.
struct Relayed {
    server: Server,
    proxy: Proxy,
    id: String,
    change: Arc<Mutex<Option<Change>>>,
    /// Every list that came by, as the server sent it.
    passed: Arc<Mutex<Vec<AllowlistSnapshot>>>,
    number: u32,
    // Last: it ends after those that use it.
    _relay: Relay,
}

impl Relayed {
    fn new() -> Relayed {
        let server = Server::start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
        let change: Arc<Mutex<Option<Change>>> = Arc::default();
        let passed: Arc<Mutex<Vec<AllowlistSnapshot>>> = Arc::default();
        let (changing, passing_by) = (Arc::clone(&change), Arc::clone(&passed));
        let relay = Relay::start(&server, move |passing: Passing<'_>| {
            if passing.method != "WatchAuthorizedNodes" || !passing.is_answer {
                return passing.unchanged();
            }
            let message = WatchAuthorizedNodesResponse::decode(&passing.message[..]);
            let mut message = message.expect("the server sends messages of the contract");
            if let Some(Kind::Snapshot(list)) = &mut message.kind {
                passing_by.lock().expect("no holder of this lock panics").push(list.clone());
                if let Some(change) = &*changing.lock().expect("no holder of this lock panics") {
                    change(list);
                }
            }
            vec![message.encode_to_vec()]
        });
        let mut proxy = Proxy::builder("delly").config("allowed_nodes: [fallback]").build();
        proxy.register_ok(&relay.join(&server.join_string(&["--instance", "home"])));
        proxy.start();
        let id = proxy.id();
        let mut relayed = Relayed { server, proxy, id, change, passed, number: 0, _relay: relay };
        let hash = relayed.push();
        relayed.server.wait_for_applied(&relayed.id, &hash);
        relayed
    }

    /// Makes a list that was never there; returns its hash.
    fn push(&mut self) -> String {
        self.number += 1;
        let node = format!("node-{}", self.number);
        self.server.pulse_ok(&[
            "instance",
            "set",
            "home",
            "--endpoint",
            "delly=127.0.0.1",
            "--endpoint",
            &node,
        ]);
        self.server.allowlist("home")["hash"].as_str().expect("a list has a hash").to_owned()
    }

    fn change(&self, change: Option<Change>) {
        *self.change.lock().expect("no holder of this lock panics") = change;
    }

    fn shown(&self) -> Value {
        self.server.json(&["proxy", "show", &self.id])
    }

    fn passed(&self) -> usize {
        self.passed.lock().expect("no holder of this lock panics").len()
    }

    /// The time of the newest reading of this host.
    fn read_at(&self) -> Value {
        let nodes = self.server.json(&["temps"]);
        nodes["nodes"]
            .as_array()
            .and_then(|nodes| nodes.first())
            .map_or(Value::Null, |node| node["collected_at"].clone())
    }

    /// Pushes a list that is changed on its way, and shows that all is as it should be then; returns the list's hash.
    fn is_refused(&mut self, how: &str, reason: &str, change: Change) -> String {
        let before = self.shown();
        let folder = self.proxy.control_dir();
        let files = || {
            ["allowlist.cache", "identity.json"].map(|name| fs::read(folder.join(name)).expect("it is there"))
        };
        let kept = files();
        self.change(Some(change));
        let newest = self.push();
        let shown = eventually(PATIENCE, &format!("{how} is refused"), || {
            let shown = self.shown();
            let is_told =
                shown["last_error"].as_str().is_some_and(|error| error.starts_with(&format!("{reason}: ")));
            // A replayed list is not the newest one under another face: that one is still on its way.
            let state = if reason.starts_with("older") { "PENDING" } else { "REFUSED" };
            if shown["state"] == state && is_told { Ok(shown) } else { Err(shown) }
        });
        assert!(shown["last_error"].as_str().expect("a text").len() > reason.len() + 10, "{how}: {shown}");
        assert_eq!(shown["applied"], before["applied"], "{how}: the list in force stays");
        assert_eq!(shown["pushed"]["hash"], *newest, "{how}");
        assert!(shown["refused"]["hash"].is_string() && shown["is_connected"] == true, "{how}: {shown}");
        let text = self.server.pulse_ok(&["proxy", "show", &self.id]);
        assert!(text.contains("refused ") && text.contains(&format!("{reason}: ")), "{how}: {text}");
        assert!(self.proxy.process().has_said("a list is refused; the one in force stays"), "{how}");
        assert_eq!(files(), kept, "{how}: nothing of it is on the disk");
        // Readings go on under the list in force.
        let read_at = self.read_at();
        eventually(PATIENCE, &format!("{how}: readings go on"), || {
            let now = self.read_at();
            if now != read_at && !now.is_null() { Ok(()) } else { Err(now) }
        });
        newest
    }

    /// The list is in force, and nothing is left of the one that was refused.
    fn is_applied(&self, hash: &str) {
        let shown = self.server.wait_for_applied(&self.id, hash);
        assert_eq!((&shown["refused"], &shown["last_error"]), (&Value::Null, &"".into()), "{shown}");
    }
}

#[test]
fn a_refused_list_is_held_back_for_the_life_of_the_stream_and_comes_again_on_a_new_one() {
    let mut relayed = Relayed::new();
    let change: Change = Box::new(|list| list.signature[0] ^= 1);
    let refused = relayed.is_refused("a flipped bit", "bad_signature", change);
    relayed.change(None);
    // Two bookmarks later, each of which could have brought it.
    let passed = relayed.passed();
    let read_at = relayed.read_at();
    eventually(PATIENCE, "some readings later", || {
        let (now, shown) = (relayed.read_at(), relayed.shown());
        assert_eq!((relayed.passed(), &shown["state"]), (passed, &"REFUSED".into()), "it was not sent again");
        let seconds = |at: &Value| {
            at.as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(|at| at.as_second())
        };
        match (seconds(&read_at), seconds(&now)) {
            (Some(then), Some(now)) if now - then >= 6 => Ok(()),
            seen => Err(seen),
        }
    });
    // Another stream with the same token takes over for a moment; then the proxy opens a new one of its own.
    let once = relayed.proxy.proxy("sync", &[]);
    assert!(once.is_success(), "{once:?}");
    relayed.is_applied(&refused);
}

#[test]
fn each_list_that_fails_a_check_is_refused_reported_shown_and_changes_nothing() {
    let mut relayed = Relayed::new();
    let first = relayed.passed.lock().expect("no holder of this lock panics")[0].clone();
    let changes: [(&str, &str, Change); 11] = [
        ("another hash", "wrong_hash", Box::new(|list| list.hash = format!("sha256:{}", "0".repeat(64)))),
        ("a hash that is none", "wrong_hash", Box::new(|list| list.hash = "nonsense".to_owned())),
        (
            "a node more",
            "wrong_hash",
            Box::new(|list| {
                list.nodes.push(Node { name: "intruder".to_owned(), ip: String::new() });
            }),
        ),
        ("a flipped bit of the signature", "bad_signature", Box::new(|list| list.signature[10] ^= 1)),
        ("a later revision", "bad_signature", Box::new(|list| list.revision = u64::MAX)),
        (
            "another instance's scope",
            "bad_signature",
            Box::new(|list| {
                list.scope = "instance:0192d3a8-7f3c-7d3e-8a51-0242ac120002".to_owned();
            }),
        ),
        ("a scope that is none", "wrong_scope", Box::new(|list| list.scope = "everything\n".repeat(20))),
        ("another key's name", "unknown_key", Box::new(|list| list.key_id = "0123456789abcdef".to_owned())),
        ("an older list, replayed", "older_revision", Box::new(move |list| *list = first.clone())),
        ("a network for a node", "invalid_node", Box::new(|list| list.nodes[0].ip = "0.0.0.0/0".to_owned())),
        (
            "too many nodes",
            "too_large",
            Box::new(|list| {
                let node = |at| Node { name: format!("n{at}"), ip: String::new() };
                list.nodes = (0..10_001).map(node).collect();
            }),
        ),
    ];
    for (how, reason, change) in changes {
        relayed.is_refused(how, reason, change);
        // The next one is as good as any.
        relayed.change(None);
        let newest = relayed.push();
        relayed.is_applied(&newest);
    }
}

#[test]
fn a_list_of_an_epoch_that_is_over_is_refused_reported_and_shown() {
    let mut relayed = Relayed::new();
    let over =
        relayed.passed.lock().expect("no holder of this lock panics").last().expect("one passed").clone();
    relayed.server.pulse_ok(&["epoch", "new", "--yes"]);
    let first = relayed.push();
    relayed.is_applied(&first);
    relayed.is_refused("a list of the last epoch", "older_epoch", Box::new(move |list| *list = over.clone()));
    relayed.change(None);
    let newest = relayed.push();
    relayed.is_applied(&newest);
}
