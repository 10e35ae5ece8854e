//! Several servers on one PostgreSQL ask Proxmox VE as one: one of them does, another takes its place, and all show what it hears.

#[path = "support/pve.rs"]
mod pve;
#[path = "support/replicas.rs"]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use pulse_test_support::proxmox::{FakeProxmox, Reply};
use pulse_test_support::{PATIENCE, Server, eventually, let_pass};
use pve::{add, listed, shown, wait_for_nodes, wait_for_problem, wait_until_ok};
use support::Replicas;

const TWO: [&str; 2] = ["pve1=192.0.2.1", "pve2=192.0.2.2"];
const THREE: [&str; 3] = ["pve1=192.0.2.1", "pve2=192.0.2.2", "pve3=192.0.2.3"];

fn leaseholder(replicas: &Replicas) -> String {
    replicas.sql("SELECT holder FROM leases WHERE name = 'polling'")
}

fn id(server: &Server) -> String {
    server.json(&["status"])["replicas"][0]["id"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn one_server_asks_another_takes_its_place_and_all_show_what_it_hears() {
    let mut replicas = Replicas::start(3);
    let fake = FakeProxmox::cluster(&TWO);
    add(&replicas.servers[1], "home", &[&fake]);
    for server in &replicas.servers {
        wait_until_ok(server, "home");
    }
    // One asks: three would ask three times as often.
    let before = fake.polled().len();
    let_pass(Duration::from_secs(4));
    let polled = fake.polled().len() - before;
    assert!((2..=5).contains(&polled), "{polled} polls within 4 s");
    assert_eq!(fake.most_under_way(), 1);

    // Doubt is shown by each of them.
    fake.answer("/nodes", Reply::refusal(403, "Permission check failed (/, Sys.Audit)"));
    for server in &replicas.servers {
        let instance = wait_for_problem(server, "home", &["lacks the privilege Sys.Audit"]);
        assert_eq!(listed(&instance), TWO);
    }
    fake.set_members(&TWO);

    // Who asks is killed, and another goes on.
    let holder = leaseholder(&replicas);
    let asking = replicas.servers.iter().position(|server| id(server) == holder).expect("one of them asks");
    replicas.servers[asking].kill();
    fake.set_members(&THREE);
    let left: Vec<usize> = (0..3).filter(|at| *at != asking).collect();
    for at in &left {
        wait_for_nodes(&replicas.servers[*at], "home", &THREE);
    }
    assert_ne!(leaseholder(&replicas), holder);

    // A change that waits is let out at one that does not ask.
    fake.set_members(&["other=192.0.2.3"]);
    let holder = leaseholder(&replicas);
    let other = left.iter().find(|at| id(&replicas.servers[**at]) != holder).expect("one does not ask");
    let other = &replicas.servers[*other];
    eventually(PATIENCE, "it is held", || {
        let instance = shown(other, "home");
        if instance["held"].as_array().is_some_and(|held| held.len() == 1) { Ok(()) } else { Err(instance) }
    });
    other.pulse_ok(&["allowlist", "confirm", "home"]);
    let lists: BTreeSet<String> =
        left.iter().map(|at| replicas.servers[*at].allowlist("home")["hash"].to_string()).collect();
    assert_eq!(lists.len(), 1, "both have the one list");
    wait_for_nodes(other, "home", &["other=192.0.2.3"]);
}

#[test]
fn a_leaseholder_that_was_paused_changes_nothing_with_what_it_heard_before() {
    let replicas = Replicas::start(2);
    let fake = FakeProxmox::cluster(&TWO);
    add(&replicas.servers[0], "home", &[&fake]);
    wait_until_ok(&replicas.servers[1], "home");
    let holder = leaseholder(&replicas);
    let asking = replicas.servers.iter().position(|server| id(server) == holder).expect("one of them asks");
    let (paused, other) = (&replicas.servers[asking], &replicas.servers[1 - asking]);
    let signal = |name: &str| {
        let pid = paused.process().pid().to_string();
        let sent = std::process::Command::new("kill").args([name, &pid]).status().expect("kill can be run");
        assert!(sent.success());
    };
    signal("-STOP");
    fake.set_members(&THREE);
    wait_for_nodes(other, "home", &THREE);
    assert_ne!(leaseholder(&replicas), holder);
    signal("-CONT");
    eventually(PATIENCE, "it is back, and shows what the other one heard", || {
        let instance = shown(paused, "home");
        if listed(&instance) == THREE { Ok(()) } else { Err(instance) }
    });
    assert_ne!(leaseholder(&replicas), holder, "it has not taken the lease back");
    assert_eq!(fake.most_under_way(), 1, "never two at one time");
    assert_eq!(listed(&shown(other, "home")), THREE);
}
