//! Fifty instances with twenty nodes each are asked smoothly, and one that hangs slows no other.
//!
//! `PULSE_POLL_SECONDS` says for how long (20 s, asked each 2 s); from 100 s on each is asked each 10 s, as it is by default.
//! `make soak-polls` does it for ten minutes against the release build, and says what it cost.

#[path = "support/pve.rs"]
mod pve;

use std::time::{Duration, Instant};

use pulse_test_support::proxmox::{FakeProxmox, Reply};
use pulse_test_support::{PATIENCE, Server, eventually, let_pass};
use pve::{SECRET, TOKEN_ID};
use serde_json::json;

const INSTANCES: usize = 50;
const NODES: usize = 20;

/// Seconds of CPU that the server took so far: user and system, in hundredths of a second (`proc_pid_stat(5)`).
fn cpu_seconds(server: &Server) -> f64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", server.process().pid())).expect("the server runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the name ends there");
    let field = |number: usize| fields.split(' ').nth(number - 3).and_then(|text| text.parse::<f64>().ok());
    (field(14).expect("it has a user time") + field(15).expect("it has a system time")) / 100.0
}

fn members(instance: usize) -> Vec<String> {
    (0..NODES).map(|node| format!("pve-{instance}-{node}=10.{instance}.0.{}", node + 1)).collect()
}

#[test]
fn fifty_instances_are_asked_smoothly_and_one_that_hangs_slows_no_other() {
    let seconds =
        std::env::var("PULSE_POLL_SECONDS").map_or(20, |text| text.parse().expect("it is a number"));
    let interval = Duration::from_secs(if seconds >= 100 { 10 } else { 2 });
    let server = Server::start();
    let mut fakes = Vec::new();
    for number in 0..INSTANCES {
        let members = members(number);
        let fake = FakeProxmox::cluster(&members.iter().map(String::as_str).collect::<Vec<_>>());
        fake.demand(&format!("{TOKEN_ID}={SECRET}"));
        let pve = json!({
            "urls": [fake.url()], "token_id": TOKEN_ID, "token_secret": SECRET, "fingerprints": [fake.fingerprint()],
            "poll_interval_seconds": interval.as_secs_f64(),
        });
        let body = json!({ "name": format!("i{number}"), "pve": pve });
        let answer = server.admin("POST", "/instances", Some(&body)).expect("the server answers");
        assert_eq!(answer.status, 201, "{answer:?}");
        fakes.push(fake);
    }
    let (hanging, others) = fakes.split_first().expect("there are fifty");
    hanging.answer("/cluster/status", Reply::stall());
    let revision = server.json(&["status"])["revision"].clone();
    let (begun, cpu) = (Instant::now(), cpu_seconds(&server));
    let memory = server.metrics().value("process_resident_memory_bytes");
    let_pass(Duration::from_secs(seconds));
    let (took, used) = (begun.elapsed(), cpu_seconds(&server) - cpu);
    let after = server.metrics().value("process_resident_memory_bytes");
    println!(
        "{INSTANCES} instances with {NODES} nodes, each asked every {} s for {seconds} s: {:.2} % of a core, {:.1} MiB before, \
         {:.1} MiB after",
        interval.as_secs(),
        100.0 * used / took.as_secs_f64(),
        memory / f64::from(1 << 20),
        after / f64::from(1 << 20),
    );

    let polls = |fake: &FakeProxmox| fake.polled().into_iter().filter(|at| *at >= begun).collect::<Vec<_>>();
    let due = took.as_secs_f64() / interval.as_secs_f64();
    for (number, fake) in others.iter().enumerate() {
        let polled = polls(fake).len() as f64;
        assert!(
            polled > 0.7 * due && polled < 1.2 * due + 2.0,
            "instance {number}: {polled} polls, {due} were due"
        );
        assert_eq!(fake.most_under_way(), 1, "instance {number}");
    }
    // Smoothly: in no tenth of an interval is more than a third of them asked.
    let mut all: Vec<Instant> =
        others.iter().flat_map(polls).filter(|at| *at >= begun + 2 * interval).collect();
    all.sort_unstable();
    let window = interval / 10;
    let within = |at: usize| all[at..].iter().take_while(|later| **later < all[at] + window).count();
    let most = (0..all.len()).map(within).max().expect("they were asked");
    assert!(most <= INSTANCES / 3, "{most} polls within {window:?}");
    assert_eq!(server.json(&["status"])["revision"], revision, "nothing changed");
    assert_eq!(server.json(&["status"])["instances_with_problems"], 1, "the one that hangs");

    // And a change of one is there within its poll.
    others[7].set_members(&["alone=10.8.0.1"]);
    eventually(PATIENCE, "it is held, as it takes away nearly all", || {
        let instance = pve::shown(&server, "i8");
        if instance["held"].as_array().is_some_and(|held| held.len() == 1) { Ok(()) } else { Err(instance) }
    });
}
