//! A cluster is the source of its nodes: who joins, leaves, is renamed or moves is so at the connected proxies, without anybody typing.
//!
//! The cluster is a fake Proxmox VE host, which answers what was captured from real ones.

#[path = "support/pve.rs"]
mod pve;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use pulse_test_support::proxmox::{FakeProxmox, Reply};
use pulse_test_support::v1::AllowlistSnapshot;
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually, fixtures};
use pve::{TOKEN_ID, add, listed, shown, try_add, wait_for_nodes, wait_for_problem, wait_until_ok};
use serde_json::{Value, json};

fn names(list: &AllowlistSnapshot) -> Vec<String> {
    list.nodes.iter().map(|node| format!("{}={}", node.name, node.ip)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_leaves_is_renamed_or_moves_is_so_at_the_connected_proxies() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3"]);
    add(&server, "home", &[&fake]);
    let proxy = Proxy::join(&server, "home", "pve1");
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "pve2").await;
    let mut watch = client.watch(Default::default()).await;
    assert_eq!(names(&watch.snapshot().await), ["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3"]);

    let steps: [(&[&str], &str); 4] = [
        (&["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3", "pve4=192.0.2.4"], "it joins"),
        (&["pve1=192.0.2.1", "pve2=192.0.2.2", "pve4=192.0.2.4"], "one leaves"),
        (&["attic=192.0.2.1", "pve2=192.0.2.2", "pve4=192.0.2.4"], "one is renamed"),
        (&["attic=192.0.2.1", "pve2=198.51.100.2", "pve4=192.0.2.4"], "one moves"),
    ];
    for (members, what) in steps {
        let asked = Instant::now();
        fake.set_members(members);
        let list = watch.snapshot().await;
        let took = asked.elapsed();
        assert_eq!(names(&list), members, "{what}");
        // One poll (1 s and a tenth, and what it takes), and a push; a crowded machine may be slow.
        assert!(took < Duration::from_secs(5), "{what}: {took:?}");
        server.wait_for_applied(&proxy.id(), &list.hash);
    }
    let kept = proxy.status();
    assert_eq!(kept["list"]["nodes"].as_array().map(Vec::len), Some(3), "{kept}");
    let audit = server.pulse_ok(&["audit"]);
    assert!(audit.contains("instance.poll") && audit.contains("cluster"), "{audit}");
    assert_eq!(fake.most_under_way(), 1, "one question at a time");
}

#[test]
fn members_that_stay_change_nothing_and_wake_nobody() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2"]);
    add(&server, "home", &[&fake]);
    let first = wait_until_ok(&server, "home");
    let revision = server.json(&["status"])["revision"].clone();
    // In another order: a host tells them in any.
    let answer = json!({ "data": [
        { "type": "node", "id": "node/pve2", "name": "pve2", "online": 0, "local": 0, "nodeid": 2, "ip": "192.0.2.2" },
        { "type": "node", "id": "node/pve1", "name": "pve1", "online": 1, "local": 1, "nodeid": 1, "ip": "192.0.2.1" },
        { "type": "cluster", "id": "cluster", "name": "fake", "quorate": 1, "version": 8, "nodes": 2 },
    ]});
    fake.answer("/cluster/status", Reply::of(answer.to_string()));
    let before = fake.asked().len();
    eventually(PATIENCE, "it is asked three times more", || {
        let asked = fake.asked().len();
        if asked >= before + 12 { Ok(()) } else { Err(asked) }
    });
    assert_eq!(
        server.json(&["status"])["revision"],
        revision,
        "an offline member and another order are no change"
    );
    let later = shown(&server, "home");
    assert_eq!(listed(&later), listed(&first));
    let confirmed =
        |instance: &Value| instance["nodes"][0]["confirmed_at"].as_str().unwrap_or_default().to_owned();
    assert!(confirmed(&later) > confirmed(&first), "its source went on saying so: {later}");
}

#[test]
fn an_admin_says_where_a_node_is_pauses_it_or_takes_it_off_and_that_lasts() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3"]);
    add(&server, "home", &[&fake]);
    server.pulse_ok(&["node", "address", "home", "PVE2", "10.0.0.2"]);
    server.pulse_ok(&["node", "exclude", "home", "pve3"]);
    wait_for_nodes(&server, "home", &["pve1=192.0.2.1", "pve2=10.0.0.2"]);
    fake.set_members(&["pve1=192.0.2.1", "pve3=192.0.2.3", "pve4=192.0.2.4"]);
    wait_for_nodes(&server, "home", &["pve1=192.0.2.1", "pve4=192.0.2.4"]);
    // It left, and comes back as it was wanted.
    fake.set_members(&["pve1=192.0.2.1", "pve2=192.0.2.9", "pve3=192.0.2.3", "pve4=192.0.2.4"]);
    wait_for_nodes(&server, "home", &["pve1=192.0.2.1", "pve2=10.0.0.2", "pve4=192.0.2.4"]);
    server.pulse_ok(&["node", "address", "home", "pve2"]);
    server.pulse_ok(&["node", "resume", "home", "pve3"]);
    server.pulse_ok(&["node", "pause", "home", "pve4"]);
    fake.set_members(&["pve1=192.0.2.7", "pve2=192.0.2.9", "pve3=192.0.2.3"]);
    let one = wait_for_nodes(
        &server,
        "home",
        &["pve1=192.0.2.7", "pve2=192.0.2.9", "pve3=192.0.2.3", "pve4=192.0.2.4"],
    );
    assert_eq!(one["nodes"][3]["standing"], "paused");
    let table = server.pulse_ok(&["node", "list"]);
    assert!(table.contains("paused") && table.contains("cluster"), "{table}");

    // The instance as a whole.
    server.pulse_ok(&["instance", "pause", "home"]);
    let asked = fake.asked().len();
    fake.set_members(&["pve1=192.0.2.7"]);
    assert_eq!(shown(&server, "home")["pve"]["state"], "paused");
    pulse_test_support::let_pass(Duration::from_millis(2_500));
    assert!(fake.asked().len() <= asked + 4, "what was under way may end");
    assert_eq!(listed(&shown(&server, "home")).len(), 4);
    let refused = server.pulse(&["instance", "exclude", "home"]);
    assert!(
        !refused.is_success() && refused.stderr.contains("4 of 4") && refused.stderr.contains("--yes"),
        "{refused:?}"
    );
    server.pulse_ok(&["instance", "exclude", "home", "--yes"]);
    assert!(listed(&shown(&server, "home")).is_empty());
    server.pulse_ok(&["instance", "resume", "home"]);
    assert_eq!(listed(&shown(&server, "home")).len(), 4);
}

#[test]
fn every_captured_cluster_of_every_version_is_read_rightly() {
    let Some(folder) = fixtures() else { return };
    let captured =
        |name: &str| std::fs::read_to_string(folder.join("pve").join(name)).expect("it was captured");
    let versions = [
        ("pve5.1-version.json", "5.1-41"),
        ("pve5.4-version.json", "5.4-3"),
        ("pve6-version-666.json", "6.6-6"),
        ("pve6.1-version.json", "6.1-3"),
        ("pve6.2-version.json", "6.2-4"),
        ("pve8.3-version-console-keyboard.json", "8.3-2"),
        ("pve8.4-version-dotted.json", "8.4.1"),
        ("pve9.1-version-bare.json", "9.1.6"),
        ("pve7-node-version.json", "7.4-16"),
        ("pve9-node-version.json", "9.1-1"),
    ];
    let clusters: [(&str, &[&str]); 4] = [
        (
            "pve7-cluster-status-4-nodes.json",
            &["node1=192.168.1.1", "node2=192.168.1.2", "node3=192.168.1.3", "node4=192.168.1.4"],
        ),
        ("standalone-cluster-status-single-node.json", &["pve=192.168.1.2"]),
        (
            "pve9-cluster-status-3-nodes-offline-no-id.json",
            &["pve1=192.168.1.10", "pve2=192.168.1.11", "pve3=192.168.1.12"],
        ),
        (
            "cluster-status-3-nodes-one-offline-level-c.json",
            &["node1=192.168.1.10", "node2=192.168.1.11", "node3=192.168.1.12"],
        ),
    ];
    let server = Server::start();
    for (at, (version, text)) in versions.iter().enumerate() {
        let (cluster, members) = clusters[at % clusters.len()];
        let fake = FakeProxmox::cluster(members);
        fake.answer("/version", Reply::of(captured(version)));
        fake.answer("/cluster/status", Reply::of(captured(cluster)));
        let name = format!("i{at}");
        add(&server, &name, &[&fake]);
        let instance = wait_until_ok(&server, &name);
        assert_eq!(listed(&instance), members, "{version} {cluster}");
        assert_eq!(instance["pve"]["version"], *text, "{version}");
        server.pulse_ok(&["instance", "remove", &name]);
    }
}

#[test]
fn a_qdevice_is_no_node_and_a_url_with_an_ipv6_address_is_dialled() {
    let server = Server::start();
    let fake = FakeProxmox::start_at(Ipv6Addr::LOCALHOST.into());
    fake.answer("/version", Reply::of(r#"{"data":{"version":"9.1-1","release":"9.1","repoid":"ab"}}"#));
    let members = json!({ "data": [
        { "type": "cluster", "id": "cluster", "name": "two", "quorate": 1, "version": 3, "nodes": 2 },
        { "type": "node", "id": "node/a", "name": "a", "online": 1, "local": 1, "nodeid": 1, "level": "" },
        { "type": "node", "id": "node/b", "name": "b", "online": 1, "local": 0, "nodeid": 2, "ip": "fd00::2", "level": "" },
        { "type": "quorum", "id": "quorum/Qdevice", "name": "Qdevice", "online": 1, "nodeid": 0, "ip": "192.0.2.250" },
    ]});
    fake.answer("/cluster/status", Reply::of(members.to_string()));
    for path in ["/nodes", "/cluster/resources"] {
        let nodes = json!({ "data": [{ "type": "node", "node": "a" }, { "type": "node", "node": "b" }] });
        fake.answer(path, Reply::of(nodes.to_string()));
    }
    assert!(fake.url().starts_with("https://[::1]:"), "{}", fake.url());
    add(&server, "two", &[&fake]);
    let instance = wait_until_ok(&server, "two");
    // At a loopback address each proxy would find itself, so that one is none.
    assert_eq!(listed(&instance), ["a=", "b=fd00::2"]);
}

#[test]
fn an_address_that_is_not_told_any_more_or_leads_nowhere_changes_nothing() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2"]);
    add(&server, "home", &[&fake]);
    wait_until_ok(&server, "home");
    let revision = server.json(&["status"])["revision"].clone();
    for members in [["pve1", "pve2"], ["pve1=127.0.1.1", "pve2=fe80::1%vmbr0"], ["pve1=192.0.2.1", "pve2"]] {
        fake.set_members(&members);
        let polled = fake.polled().len();
        eventually(PATIENCE, "it is asked twice", || {
            if fake.polled().len() > polled + 2 { Ok(()) } else { Err(()) }
        });
        assert_eq!(
            listed(&wait_until_ok(&server, "home")),
            ["pve1=192.0.2.1", "pve2=192.0.2.2"],
            "{members:?}"
        );
    }
    assert_eq!(server.json(&["status"])["revision"], revision);
}

#[test]
fn several_hosts_are_tried_in_turn() {
    let server = Server::start();
    let first = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2"]);
    let second = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2"]);
    add(&server, "home", &[&first, &second]);
    assert_eq!(wait_until_ok(&server, "home")["pve"]["url"], first.url());
    // Before it was added both were asked; now one is enough.
    let (asked, polled) = (second.asked().len(), first.polled().len());
    eventually(PATIENCE, "it is asked", || if first.polled().len() > polled + 2 { Ok(()) } else { Err(()) });
    assert_eq!(second.asked().len(), asked);
    first.answer("/cluster/status", Reply::refusal(500, "Internal Server Error"));
    second.set_members(&["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3"]);
    let instance = wait_for_nodes(&server, "home", &["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3"]);
    assert_eq!((&instance["pve"]["url"], &instance["pve"]["state"]), (&json!(second.url()), &json!("ok")));
}

#[test]
fn each_node_says_where_it_comes_from_and_what_contradicts_is_shown_with_the_way_out() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2"]);
    server.pulse_ok(&[
        "instance",
        "add",
        "home",
        "--endpoint",
        "pve1=192.0.2.1",
        "--endpoint",
        "nas=192.0.2.2",
    ]);
    let file = pve::secret_file(&server);
    let url = fake.url();
    server.pulse_ok(&[
        "instance",
        "set",
        "home",
        "--pve",
        &url,
        "--token-id",
        TOKEN_ID,
        "--token-secret-file",
        &file,
        "--fingerprint",
        &fake.fingerprint(),
        "--poll-interval",
        "1s",
    ]);
    let instance = wait_for_nodes(&server, "home", &["nas=192.0.2.2", "pve1=192.0.2.1", "pve2=192.0.2.2"]);
    let origin = |name: &str| {
        let nodes = instance["nodes"].as_array().expect("it has nodes");
        nodes.iter().find(|node| node["name"] == name).map(|node| node["origin"].clone())
    };
    assert_eq!(origin("pve1"), Some(json!("cluster")), "the cluster confirms it: {instance}");
    assert_eq!(origin("nas"), Some(json!("manual")));
    let conflicts = server.pulse_ok(&["node", "list"]);
    assert!(
        conflicts.contains("192.0.2.2 is nas of home (manual) and pve2 of home (cluster)"),
        "{conflicts}"
    );
    assert!(conflicts.contains("pulse node exclude"), "{conflicts}");
    // The way out works.
    server.pulse_ok(&["node", "exclude", "home", "nas"]);
    wait_for_nodes(&server, "home", &["pve1=192.0.2.1", "pve2=192.0.2.2"]);
    assert!(!server.pulse_ok(&["node", "list"]).contains("conflict"));
    // Without a source, what was told stays.
    server.pulse_ok(&["instance", "set", "home", "--no-pve"]);
    let left = shown(&server, "home");
    assert_eq!((listed(&left).len(), &left["pve"]), (2, &Value::Null));
    let before = fake.asked().len();
    pulse_test_support::let_pass(Duration::from_millis(1_500));
    assert!(fake.asked().len() <= before + 4);
}

#[test]
fn a_source_is_asked_before_it_is_taken_and_help_says_how_its_token_is_made() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&["pve1"]);
    fake.demand("pulse@pve!monitor=another");
    let pin = fake.fingerprint();
    let refused = try_add(&server, "home", &[&fake.url()], &["--fingerprint", &pin]);
    assert!(!refused.is_success() && refused.stderr.contains("API token's secret"), "{refused:?}");
    assert!(refused.stderr.contains("--no-check"), "{refused:?}");
    assert!(!server.pulse(&["instance", "show", "home"]).is_success(), "nothing was changed");
    let taken = try_add(&server, "home", &[&fake.url()], &["--fingerprint", &pin, "--no-check"]);
    assert!(taken.is_success(), "{taken:?}");
    wait_for_problem(&server, "home", &["API token's secret"]);
    let table = server.pulse_ok(&["instance", "list"]);
    assert!(table.contains("problem") && table.contains("home: "), "{table}");
    let help = server.pulse_ok(&["instance", "add", "--help"]);
    for line in [
        "pveum role add PulseRead --privs Sys.Audit",
        "pveum user add pulse@pve",
        "pveum acl modify / --users pulse@pve --roles PulseRead",
        "pveum user token add pulse@pve monitor --privsep 0",
    ] {
        assert!(help.contains(line), "{line}: {help}");
    }
    for (arguments, word) in [
        (vec!["--pve", "http://pve:8006", "--token-id", "a@b!c"], "https://"),
        (vec!["--pve", "https://pve:8006/api2", "--token-id", "a@b!c"], "no path"),
        (vec!["--poll-interval", "1ms"], "1 s"),
        (vec!["--pve", "https://127.0.0.1:1", "--fingerprint", "AB"], "32 pairs"),
    ] {
        let refused = server.pulse(&[&["instance", "add", "x"], &arguments[..]].concat());
        assert!(refused.code == Some(2) && refused.stderr.contains(word), "{refused:?}");
    }
}
