//! Every captured answer of Proxmox VE is read as what it is, and what is made of them by hand as the doubt that it is.

use pulse_test_support::fixtures;

use super::*;
use crate::pve::refusal;

fn captured(name: &str) -> Option<Vec<u8>> {
    let folder = fixtures()?;
    Some(std::fs::read(folder.join("pve").join(name)).unwrap_or_else(|error| panic!("read {name}: {error}")))
}

/// `name=ip`, with `+` before the one that answered and `-` before one that is offline.
fn shown(membership: &Membership) -> Vec<String> {
    let show = |member: &Member| {
        let local = if member.is_local { "+" } else { "" };
        let offline = if member.is_online { "" } else { "-" };
        format!("{local}{offline}{}={}", member.name, member.ip.as_deref().unwrap_or_default())
    };
    membership.members.iter().map(show).collect()
}

const VERSIONS: [(&str, &str, u32); 12] = [
    ("pve5.1-version.json", "5.1-41", 5),
    ("pve5.4-version.json", "5.4-3", 5),
    ("pve6-version-666.json", "6.6-6", 6),
    ("pve6.1-version.json", "6.1-3", 6),
    ("pve6.2-version.json", "6.2-4", 6),
    ("pve7-node-version.json", "7.4-16", 7),
    ("pve8.3-version-console-keyboard.json", "8.3-2", 8),
    ("pve8.4-version-dotted.json", "8.4.1", 8),
    ("pve9-node-version.json", "9.1-1", 9),
    ("pve9.1-version-bare.json", "9.1.6", 9),
    ("pve7-node-status.json", "", 0),
    ("pve9-cluster-config-nodes.json", "", 0),
];

#[test]
fn every_captured_version_is_read() {
    for (name, text, major) in VERSIONS {
        let Some(body) = captured(name) else { return };
        match version(&body) {
            Ok(version) => assert_eq!((version.text.as_str(), version.major), (text, major), "{name}"),
            Err(Doubt::NotProxmox(_)) => assert_eq!(major, 0, "{name}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

const MEMBERSHIPS: [(&str, Option<&str>, &[&str]); 4] = [
    (
        "cluster-status-3-nodes-one-offline-level-c.json",
        Some("testcluster"),
        &["+node1=192.168.1.10", "node2=192.168.1.11", "-node3=192.168.1.12"],
    ),
    (
        "pve7-cluster-status-4-nodes.json",
        Some("clustername"),
        &["+node1=192.168.1.1", "node2=192.168.1.2", "node3=192.168.1.3", "node4=192.168.1.4"],
    ),
    (
        "pve9-cluster-status-3-nodes-offline-no-id.json",
        Some("testcluster"),
        &["+pve1=192.168.1.10", "pve2=192.168.1.11", "-pve3=192.168.1.12"],
    ),
    ("standalone-cluster-status-single-node.json", None, &["+pve=192.168.1.2"]),
];

#[test]
fn every_captured_cluster_is_read_and_one_that_is_offline_is_a_member() {
    for (name, cluster, members) in MEMBERSHIPS {
        let Some(body) = captured(name) else { return };
        let read = membership(&body).unwrap_or_else(|doubt| panic!("{name}: {doubt}"));
        assert_eq!(read.cluster.as_deref(), cluster, "{name}");
        assert_eq!(shown(&read), members, "{name}");
    }
}

#[test]
fn the_nodes_of_every_captured_answer_are_read() {
    for (name, expected) in [
        ("pve-nodes-3-one-offline-bare-list.json", &["pve1", "pve2", "pve3"][..]),
        ("pve6.2-nodes-single.json", &["pve"]),
        ("pve6.2-cluster-resources-node-only.json", &["pve"]),
        ("pve7-nodes-4.json", &["node1", "node2", "node3", "node4"]),
    ] {
        let Some(body) = captured(name) else { return };
        let read = nodes("/nodes", &body).unwrap_or_else(|doubt| panic!("{name}: {doubt}"));
        assert_eq!(read.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{name}");
    }
    let Some(body) = captured("pve7-cluster-resources-mixed.json") else { return };
    let read = nodes("/cluster/resources", &body).expect("machines in it are no nodes");
    assert!(read.iter().all(|name| name.starts_with("node")), "{read:?}");
}

#[test]
fn every_captured_error_has_a_message_of_its_own() {
    let Some(folder) = fixtures() else { return };
    let means = [
        ("pve5.2-wrong-path-501-no-such-file.http", "knows no such path"),
        ("pve5.3-node-status-500-hostname-lookup.http", "mend /etc/hosts or DNS there"),
        ("pve6.2-access-ticket-401-authentication-failure.http", "check --token-id"),
        ("pve6.2-api-token-401-invalid-token.http", "does not know the API token's secret"),
        ("pve6.2-verification-failed-400.http", "does not take the question"),
        ("pve7-node-status-unknown-node-500.http", "500"),
    ];
    let mut texts = BTreeSet::new();
    for (name, words) in means {
        let answer = std::fs::read_to_string(folder.join("pve").join(name)).expect("it was captured");
        let first = answer.lines().next().unwrap_or_default();
        let mut line = first.splitn(3, ' ').skip(1);
        let status = line.next().and_then(|status| status.parse().ok()).expect("it has a status");
        let doubt = refusal(status, line.next().unwrap_or_default(), "pve1");
        let text = doubt.unwrap_or_else(|| panic!("{first} is no refusal")).to_string();
        assert!(text.contains(words) && text.contains("pve1"), "{name}: {text}");
        texts.insert(text);
    }
    assert_eq!(texts.len(), means.len(), "{texts:#?}");
    let entries = std::fs::read_dir(folder.join("pve")).expect("the folder is there").flatten();
    let refusals =
        entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "http"));
    assert_eq!(refusals.count(), means.len(), "one that was captured is not looked at");
}

fn cluster(more: &str, nodes: &str) -> Vec<u8> {
    format!(r#"{{"data":[{{"type":"cluster","name":"home","quorate":1{more}}}{nodes}]}}"#).into_bytes()
}

fn node(name: &str, more: &str) -> String {
    format!(r#",{{"type":"node","name":"{name}","online":1{more}}}"#)
}

#[test]
fn what_is_empty_half_or_contradicts_itself_is_a_doubt_of_its_own() {
    let two = node("a", "") + &node("b", "");
    let doubt = |body: &[u8]| membership(body).expect_err("it is a doubt");
    assert!(matches!(doubt(b"<html>"), Doubt::Garbage { .. }));
    assert!(matches!(doubt(br#"{"data":{"a":1}}"#), Doubt::Garbage { .. }));
    assert!(matches!(doubt(br#"{"data":["a"]}"#), Doubt::Garbage { .. }));
    assert!(matches!(doubt(br#"{"data":null}"#), Doubt::Empty { .. }));
    assert!(matches!(doubt(br#"{"data":[]}"#), Doubt::Empty { .. }));
    assert!(matches!(doubt(&cluster("", "")), Doubt::Empty { .. }));
    assert!(matches!(doubt(&cluster(r#","nodes":3"#, &two)), Doubt::Half { expected: 3, found: 2, .. }));
    assert!(matches!(doubt(&cluster(r#","nodes":1"#, &two)), Doubt::Half { expected: 1, found: 2, .. }));
    assert_eq!(doubt(&cluster(r#","quorate":0"#, &two)), Doubt::NoQuorum);
    assert_eq!(
        doubt(&cluster("", &(node("a", "") + &node("A", "")))),
        Doubt::Doubled { name: "A".to_owned() }
    );
    let alone = format!(r#"{{"data":[{}]}}"#, two.trim_start_matches(','));
    assert!(matches!(doubt(alone.as_bytes()), Doubt::Garbage { .. }), "several nodes without a cluster");
    assert!(matches!(doubt(&cluster("", r#",{"type":"node","online":1}"#)), Doubt::Garbage { .. }));
}

#[test]
fn numbers_that_are_text_and_truth_values_are_read_alike() {
    let body = cluster(
        r#","nodes":"2","version":"7""#,
        &(node("a", r#","local":true"#) + &node("b", r#","ip":"192.0.2.2""#)),
    );
    assert_eq!(shown(&membership(&body).unwrap()), ["+a=", "b=192.0.2.2"]);
}

#[test]
fn a_qdevice_is_no_node() {
    let body =
        cluster(r#","nodes":2"#, &(node("a", "") + &node("b", "") + &node("Qdevice", r#","nodeid":0"#)));
    assert_eq!(shown(&membership(&body).unwrap()), ["a=", "b="]);
    let alone = br#"{"data":[{"type":"node","name":"qdevice","online":1,"local":1}]}"#;
    assert_eq!(membership(alone).unwrap().members.len(), 1, "a standalone host may be called so");
}

#[test]
fn a_member_that_one_answer_has_and_the_other_has_not_is_a_doubt() {
    let read = membership(&cluster(r#","nodes":2"#, &(node("a", "") + &node("b", "")))).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(agree(&read, &names(&["a", "b"])), Ok(()));
    for other in [&["a"][..], &["a", "b", "c"], &["a", "c"], &[]] {
        assert!(matches!(agree(&read, &names(other)), Err(Doubt::Half { .. })), "{other:?}");
    }
}
