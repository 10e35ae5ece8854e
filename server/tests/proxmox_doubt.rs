//! Doubt never shrinks a list: each case leaves every list as it is and says what is wrong; what would take away too much waits for
//! an admin.

#[path = "support/pve.rs"]
mod pve;

use std::time::Duration;

use pulse_test_support::proxmox::{FakeProxmox, Reply};
use pulse_test_support::{Client, PATIENCE, Server, eventually, fixtures, let_pass};
use pve::{add, listed, shown, wait_for_nodes, wait_for_problem, wait_until_ok};
use serde_json::{Value, json};

const FOUR: [&str; 4] = ["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3", "pve4=192.0.2.4"];

fn list_of(server: &Server) -> (Value, Value) {
    let list = server.allowlist("home");
    (list["hash"].clone(), list["revision"].clone())
}

fn cluster(quorate: u8, nodes: usize, members: &[&str]) -> String {
    let mut status = vec![
        json!({ "type": "cluster", "id": "cluster", "name": "fake", "quorate": quorate, "nodes": nodes }),
    ];
    status.extend(
        members.iter().map(|name| json!({ "type": "node", "id": format!("node/{name}"), "name": name })),
    );
    json!({ "data": status }).to_string()
}

#[test]
fn every_case_of_doubt_leaves_the_list_as_it_is_and_has_a_message_of_its_own() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&FOUR);
    add(&server, "home", &[&fake]);
    wait_until_ok(&server, "home");
    let before = list_of(&server);
    let all = ["pve1", "pve2", "pve3", "pve4"];
    let mut cases = vec![
        ("/version", Reply::refusal(401, "invalid token value!"), vec!["secret", "pveum user token add"]),
        ("/version", Reply::refusal(401, "authentication failure"), vec!["--token-id", "expired"]),
        (
            "/cluster/status",
            Reply::refusal(403, "Permission check failed (/, Sys.Audit)"),
            vec!["lacks the privilege Sys.Audit"],
        ),
        (
            "/cluster/status",
            Reply::refusal(595, "No route to host"),
            vec!["a node that does not answer", "is that node up"],
        ),
        (
            "/cluster/status",
            Reply::refusal(596, "Connection timed out"),
            vec!["cannot talk to", "pvecm updatecerts"],
        ),
        (
            "/cluster/status",
            Reply::refusal(500, "Internal Server Error"),
            vec!["problem of its own", "journal"],
        ),
        ("/nodes", Reply::refusal(503, "Service Unavailable"), vec!["503"]),
        (
            "/nodes",
            Reply::refusal(595, "No route to host"),
            vec!["does not answer", "offline, says the cluster: pve3"],
        ),
        ("/cluster/status", Reply::of("not json"), vec!["cannot be read"]),
        ("/cluster/status", Reply::of(r#"{"data":[]}"#), vec!["is empty", "Sys.Audit"]),
        ("/cluster/status", Reply::of(r#"{"data":null}"#), vec!["/cluster/status"]),
        ("/nodes", Reply::of(r#"{"data":[]}"#), vec!["/nodes is not whole", "tells of 0"]),
        ("/nodes", Reply::of(r#"{"data":[{"node":"pve1"}]}"#), vec!["/nodes is not whole"]),
        ("/cluster/status", Reply::of(cluster(1, 4, &all[..2])), vec!["is not whole", "4 nodes"]),
        ("/cluster/status", Reply::of(cluster(0, 4, &all)), vec!["no quorum", "pvecm status"]),
        (
            "/cluster/status",
            Reply::of(cluster(1, 4, &["a", "a", "b", "c"])),
            vec!["two nodes with the name a"],
        ),
        (
            "/cluster/status",
            Reply::of(cluster(1, 4, &all).replace(r#""quorate":1"#, r#""quorate":"maybe""#)),
            vec!["whether the cluster has quorum"],
        ),
        (
            "/cluster/status",
            Reply::of(cluster(1, 4, &all).replace(r#""nodes":4,"#, "")),
            vec!["how many nodes there are"],
        ),
        ("/version", Reply::refusal(401, "No ticket"), vec!["no API tokens", "6.2"]),
        (
            "/nodes",
            Reply::refusal(403, "Permission check failed (/nodes/pve1, Sys.Audit)"),
            vec!["Sys.Audit on /nodes/pve1"],
        ),
        (
            "/nodes",
            Reply::refusal(
                500,
                &format!("bad PVEAPIToken={}={} {}", pve::TOKEN_ID, pve::SECRET, "x".repeat(9_000)),
            ),
            vec!["(the secret)", "…"],
        ),
        (
            "/version",
            Reply::of(format!(r#"{{"data":{{"version":"8.{}"}}}}"#, "9".repeat(9_000))),
            vec!["is none of Proxmox VE"],
        ),
        ("/version", Reply::of("<html>a router</html>"), vec!["is none of Proxmox VE"]),
        ("/version", Reply::of(r#"{"data":{"product":"nas"}}"#), vec!["Proxmox VE"]),
        ("/version", Reply::stall(), vec!["not answered", "10 s"]),
    ];
    if let Some(folder) = fixtures() {
        for (file, words) in [
            ("pve5.2-wrong-path-501-no-such-file.http", vec!["knows no such path"]),
            ("pve5.3-node-status-500-hostname-lookup.http", vec!["/etc/hosts"]),
            ("pve6.2-access-ticket-401-authentication-failure.http", vec!["--token-id"]),
            ("pve6.2-api-token-401-invalid-token.http", vec!["API token's secret"]),
            ("pve6.2-verification-failed-400.http", vec!["version 5 or newer"]),
            ("pve7-node-status-unknown-node-500.http", vec!["500"]),
        ] {
            let text = std::fs::read_to_string(folder.join("pve").join(file)).expect("it was captured");
            cases.push(("/cluster/status", Reply::captured(&text), words));
        }
    }
    let mut texts = std::collections::BTreeSet::new();
    let count = cases.len();
    for (path, reply, words) in cases {
        fake.set_members(&FOUR);
        fake.answer("/version", Reply::of(r#"{"data":{"version":"8.4.1","release":"8.4","repoid":"ab"}}"#));
        // Asked at once: a source that is set anew is.
        server.pulse_ok(&["instance", "pause", "home"]);
        server.pulse_ok(&["instance", "resume", "home"]);
        wait_until_ok(&server, "home");
        if path == "/nodes" {
            fake.set_offline("pve3");
        }
        fake.answer(path, reply);
        let instance = wait_for_problem(&server, "home", &words);
        assert_eq!(list_of(&server), before, "{words:?}");
        assert_eq!(listed(&instance), FOUR, "{words:?}");
        let text = instance.to_string();
        assert!(!text.contains(pve::SECRET) && text.len() < 16_384, "{text}");
        assert!(
            instance["pve"]["heard_at"].is_string() && instance["pve"]["problem_since"].is_string(),
            "{instance}"
        );
        texts.insert(instance["pve"]["problem"].as_str().unwrap_or_default().to_owned());
    }
    assert!(
        texts.len() >= count - 6,
        "a router is as a nas, and captured ones repeat those made by hand: {texts:#?}"
    );
    // It says so once, and lists go on.
    let log = server.process().log().join("\n");
    assert!(log.contains("cannot be believed"), "{log}");
    assert!(!log.contains(pve::SECRET), "the secret is in no log");
}

#[test]
fn a_host_that_is_away_changes_nothing_and_says_so() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&FOUR);
    add(&server, "home", &[&fake]);
    let before = list_of(&server);
    drop(fake);
    wait_for_problem(&server, "home", &["cannot be asked"]);
    assert_eq!(list_of(&server), before);
    let status = server.json(&["status"]);
    assert_eq!(status["instances_with_problems"], 1, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_take_away_too_much_is_held_shown_and_goes_out_when_it_is_confirmed() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&FOUR);
    add(&server, "home", &[&fake]);
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "pve1").await;
    let mut watch = client.watch(Default::default()).await;
    watch.snapshot().await;
    let before = list_of(&server);

    // Three of four, with one that is new: as a whole it waits.
    fake.set_members(&["pve1=192.0.2.1", "new=192.0.2.9"]);
    let held = |is_so: &dyn Fn(&Value) -> bool| {
        eventually(PATIENCE, "a change is held", || {
            let instance = shown(&server, "home");
            if instance["held"].as_array().is_some_and(|held| held.iter().any(is_so)) {
                Ok(instance)
            } else {
                Err(instance)
            }
        })
    };
    let instance = held(&|held| held["gone"] == json!(["pve2", "pve3", "pve4"]));
    assert_eq!((listed(&instance), list_of(&server)), (FOUR.map(str::to_owned).to_vec(), before.clone()));
    assert_eq!(instance["pve"]["state"], "ok", "what the cluster says is believed");
    for (arguments, words) in [
        (["allowlist", "held"], ["pve2, pve3, pve4", "waits"]),
        (["instance", "list"], ["held", "home"]),
        (["status", "--json"], ["\"held_changes\": 1", "revision"]),
    ] {
        let text = server.pulse_ok(&arguments);
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
    }
    let text = server.pulse_ok(&["instance", "show", "home"]);
    assert!(
        text.contains("pulse allowlist confirm home") && text.contains("pulse allowlist discard"),
        "{text}"
    );
    // It stays held over a restart, and while it is told again.
    let since = instance["held"][0]["held_at"].clone();
    let confirmed = instance["nodes"]
        .as_array()
        .expect("it has nodes")
        .iter()
        .find(|node| node["name"] == "pve4")
        .cloned();
    let_pass(Duration::from_millis(2_500));
    let later = shown(&server, "home");
    assert_eq!(later["held"][0]["held_at"], since);
    let still =
        later["nodes"].as_array().expect("it has nodes").iter().find(|node| node["name"] == "pve4").cloned();
    assert_eq!(still, confirmed, "who is told no more is confirmed no more");

    server.pulse_ok(&["allowlist", "confirm", "home"]);
    let list = watch.snapshot().await;
    let names: Vec<&str> = list.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["new", "pve1"]);
    assert!(shown(&server, "home")["held"].as_array().is_some_and(Vec::is_empty));
    let nothing = server.pulse(&["allowlist", "confirm", "home"]);
    assert!(!nothing.is_success() && nothing.stderr.contains("no change of instance"), "{nothing:?}");
    let audit = server.pulse_ok(&["audit"]);
    assert!(["allowlist.hold", "allowlist.confirm"].iter().all(|action| audit.contains(action)), "{audit}");
}

#[test]
fn a_held_change_that_is_discarded_is_not_asked_again_until_the_cluster_says_something_else() {
    let mut server = Server::start();
    let fake = FakeProxmox::cluster(&FOUR);
    add(&server, "home", &[&fake]);
    fake.set_members(&["pve1=192.0.2.1"]);
    let waits = |server: &Server, discarded: bool| {
        eventually(PATIENCE, "a change is held", || {
            let instance = shown(server, "home");
            if instance["held"][0]["is_discarded"] == discarded { Ok(instance) } else { Err(instance) }
        })
    };
    waits(&server, false);
    server.pulse_ok(&["allowlist", "discard", "home"]);
    let_pass(Duration::from_millis(2_500));
    let instance = waits(&server, true);
    assert_eq!(listed(&instance), FOUR);
    server.terminate();
    server.wait_exit(PATIENCE);
    server.start_again();
    let_pass(Duration::from_millis(2_500));
    assert_eq!(listed(&waits(&server, true)), FOUR, "a restart asks nothing again");
    // Who was said no to is not taken away as a part of something smaller.
    fake.set_members(&["pve1=192.0.2.1", "pve3=192.0.2.3", "pve4=192.0.2.4"]);
    waits(&server, false);
    assert_eq!(listed(&shown(&server, "home")), FOUR);
    // An end of the doubt ends it.
    fake.set_members(&FOUR);
    eventually(PATIENCE, "nothing is held", || {
        let instance = shown(&server, "home");
        if instance["held"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(instance) }
    });
    assert_eq!(listed(&shown(&server, "home")), FOUR);
}

#[test]
fn a_host_that_leads_to_another_cluster_or_believes_that_it_is_alone_takes_nobody_away() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&FOUR[..2]);
    add(&server, "home", &[&fake]);
    wait_until_ok(&server, "home");
    let is_held = |gone: Value| {
        eventually(PATIENCE, "it is held", || {
            let instance = shown(&server, "home");
            if instance["held"][0]["gone"] == gone { Ok(instance) } else { Err(instance) }
        })
    };
    // It was taken out of its cluster: of two nodes one may go, but not so.
    fake.set_members(&FOUR[..1]);
    is_held(json!(["pve2"]));
    let_pass(Duration::from_millis(2_500));
    assert_eq!(listed(&is_held(json!(["pve2"]))), FOUR[..2], "it is told again and again");
    // Another cluster, that has one of the same name.
    let tell = |names: &[&str]| {
        let status = cluster(1, names.len(), names).replace("fake", "elsewhere");
        fake.answer("/cluster/status", Reply::of(status));
        let nodes: Vec<Value> = names.iter().map(|name| json!({ "node": name })).collect();
        for path in ["/nodes", "/cluster/resources"] {
            fake.answer(path, Reply::of(json!({ "data": nodes }).to_string()));
        }
    };
    tell(&["pve2", "other"]);
    assert_eq!(listed(&is_held(json!(["pve1"]))), FOUR[..2]);
    // An admin says that it is right; from then on it is its cluster.
    server.pulse_ok(&["allowlist", "confirm", "home"]);
    wait_for_nodes(&server, "home", &["other=", "pve2="]);
    let asked = fake.polled().len();
    eventually(
        PATIENCE,
        "it is asked again",
        || if fake.polled().len() > asked + 1 { Ok(()) } else { Err(()) },
    );
    tell(&["other", "third", "fourth"]);
    wait_for_nodes(&server, "home", &["fourth=", "other=", "third="]);
}

#[test]
fn what_is_let_out_is_what_the_admin_has_seen() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&FOUR);
    add(&server, "home", &[&fake]);
    wait_until_ok(&server, "home");
    fake.set_members(&["new=192.0.2.9", "pve1=192.0.2.1"]);
    let instance = eventually(PATIENCE, "it is held", || {
        let instance = shown(&server, "home");
        if instance["held"][0]["gone"].is_array() { Ok(instance) } else { Err(instance) }
    });
    let confirm = |seen: Value| {
        let answer = server.admin("POST", "/instances/home/held/confirm", Some(&json!({ "seen": seen })));
        answer.expect("the server answers")
    };
    for seen in [json!(["2020-01-01T00:00:00Z"]), json!([])] {
        let refused = confirm(seen);
        assert!(refused.status == 409 && refused.body.contains("HELD_CHANGED"), "{refused:?}");
    }
    assert_eq!(listed(&shown(&server, "home")), FOUR);
    let taken = confirm(json!([instance["held"][0]["held_at"]]));
    assert_eq!(taken.status, 200, "{taken:?}");
    wait_for_nodes(&server, "home", &["new=192.0.2.9", "pve1=192.0.2.1"]);
}

#[test]
fn another_source_is_not_answered_by_what_the_one_before_said() {
    let server = Server::start();
    let (first, second) = (FakeProxmox::cluster(&FOUR), FakeProxmox::cluster(&FOUR));
    add(&server, "home", &[&first]);
    wait_until_ok(&server, "home");
    first.set_members(&["new=192.0.2.9", "pve1=192.0.2.1"]);
    eventually(PATIENCE, "it is held", || {
        let instance = shown(&server, "home");
        if instance["held"][0]["gone"].is_array() { Ok(()) } else { Err(instance) }
    });
    let file = pve::secret_file(&server);
    let (url, pin) = (second.url(), second.fingerprint());
    let set = ["instance", "set", "home", "--pve", &url, "--fingerprint", &pin];
    let refused = server.pulse(&set);
    assert!(!refused.is_success() && refused.stderr.contains("--token-secret-file"), "{refused:?}");
    server.pulse_ok(&[&set[..], &["--token-secret-file", &file]].concat());
    let nothing = server.pulse(&["allowlist", "confirm", "home"]);
    assert!(!nothing.is_success() && nothing.stderr.contains("no change of instance"), "{nothing:?}");
    assert_eq!(listed(&wait_until_ok(&server, "home")), FOUR);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_most_of_the_list_of_everything_goes_only_with_yes() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "reader", "--endpoint", "here"]);
    let endpoints = FOUR.iter().flat_map(|node| ["--endpoint", node]);
    server.pulse_ok(&["instance", "add", "most"].into_iter().chain(endpoints).collect::<Vec<_>>());
    let join = server.join_string(&["--instance", "reader", "--scope", "all"]);
    let client = Client::register(&server, &join, "here").await;
    let mut watch = client.watch(Default::default()).await;
    assert_eq!(watch.snapshot().await.nodes.len(), 5);
    let refused = server.pulse(&["instance", "remove", "most"]);
    assert!(!refused.is_success() && refused.stderr.contains("4 of 5"), "{refused:?}");
    server.pulse_ok(&["instance", "remove", "most", "--yes"]);
    assert_eq!(watch.snapshot().await.nodes.len(), 1);
}

#[test]
fn half_of_a_list_goes_by_itself_and_the_only_node_does_not() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&FOUR);
    add(&server, "home", &[&fake]);
    wait_until_ok(&server, "home");
    fake.set_members(&FOUR[..2]);
    wait_for_nodes(&server, "home", &FOUR[..2]);
    // And half of what is left would be most of what there was a moment ago.
    fake.answer("/cluster/status", Reply::of(cluster(1, 1, &["pve1"])));
    let one = json!({ "data": [{ "node": "pve1" }] }).to_string();
    fake.answer("/nodes", Reply::of(one.clone()));
    fake.answer("/cluster/resources", Reply::of(one));
    eventually(PATIENCE, "it is held", || {
        let instance = shown(&server, "home");
        if instance["held"][0]["gone"] == json!(["pve2"]) { Ok(()) } else { Err(instance) }
    });
    assert_eq!(listed(&shown(&server, "home")), FOUR[..2]);
    server.pulse_ok(&["allowlist", "confirm", "home"]);
    wait_for_nodes(&server, "home", &FOUR[..1]);
    let alone = FakeProxmox::cluster(&["pve=192.0.2.7"]);
    add(&server, "alone", &[&alone]);
    alone.set_members(&["renamed=192.0.2.7"]);
    eventually(PATIENCE, "it is held", || {
        let instance = shown(&server, "alone");
        if instance["held"][0]["gone"] == json!(["pve"]) { Ok(()) } else { Err(instance) }
    });
    assert_eq!(listed(&shown(&server, "alone")), ["pve=192.0.2.7"]);
}

#[test]
fn what_an_admin_takes_away_by_hand_is_held_too_unless_it_is_said_yes_to() {
    let server = Server::start();
    let endpoints = FOUR.iter().flat_map(|node| ["--endpoint", node]);
    server.pulse_ok(&["instance", "add", "home"].into_iter().chain(endpoints).collect::<Vec<_>>());
    let told = server.pulse_ok(&["instance", "set", "home", "--endpoint", "pve1=192.0.2.1"]);
    assert!(told.contains("held:") && told.contains("pulse allowlist confirm home"), "{told}");
    assert_eq!(listed(&shown(&server, "home")), FOUR);
    server.pulse_ok(&["allowlist", "discard", "home"]);
    assert!(server.pulse_ok(&["allowlist", "held"]).contains("no change is held"));
    server.pulse_ok(&["instance", "set", "home", "--endpoint", "pve1=192.0.2.1"]);
    server.pulse_ok(&["allowlist", "confirm", "home"]);
    assert_eq!(listed(&shown(&server, "home")), ["pve1=192.0.2.1"]);
    server.pulse_ok(&["instance", "set", "home", "--endpoint", "other", "--yes"]);
    assert_eq!(listed(&shown(&server, "home")), ["other="]);
}
