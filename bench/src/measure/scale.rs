//! T16: what a change in one instance costs when there are many others; and a start with all of them.

use std::net::TcpStream;
use std::time::Duration;

use super::figure;
use crate::client::control::Command;
use crate::clock::now_ns;
use crate::crowd::Crowd;
use crate::failure::{Doing, Failure, Outcome};
use crate::fleet;
use crate::list::{List, node};
use crate::peers::Peer;
use crate::peers::pulse::Pulse;
use crate::process::wait_until;
use crate::record::{median, milliseconds};
use crate::run::{Bench, progress};

/// Nodes of each instance, and proxies of it.
const NODES: usize = 50;
const PROXIES: usize = 5;
/// The most that are connected: what one machine has files for, at both ends.
const CONNECTED: usize = 10_000;
/// How long a change, or a start, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is waited for what should not come.
const QUIET: Duration = Duration::from_millis(200);

/// Measures with many instances: 2,000 have 100,000 nodes and 10,000 proxies.
pub(crate) fn measure(bench: &mut Bench) -> Outcome<()> {
    let (instances, changes) = (bench.pace.instances, bench.pace.changes);
    let (nodes, proxies) = (instances * NODES, instances * PROXIES);
    progress(&format!("{instances} instances with {nodes} nodes and {proxies} proxies are made"));
    let folder = bench.folder.path().join("scale");
    let tokens = bench.folder.path().join("scale-tokens");
    let mut pulse = Pulse::start(&bench.pulse, &folder, false, &tokens)?;
    for instance in 0..instances {
        let mut add = list_of(instance, 0).endpoints();
        add["name"] = name(instance).into();
        pulse.admin("POST", "/instances", Some(&add))?;
    }
    // A host that is a node of an instance belongs to it. Its first node changes its name, so that is no host.
    let hosts = (0..proxies).map(|number| node(number / PROXIES * NODES + 1 + number % PROXIES).0).collect();
    let join = fleet::join_token(&pulse, None, proxies)?;
    let all = fleet::register_hosts(&pulse, &join, hosts)?;
    std::fs::write(&tokens, all.join("\n")).doing("write the tokens")?;

    let mut crowd = Crowd::start()?;
    let connected = proxies.min(CONNECTED);
    crowd.connect(pulse.connect(connected))?;
    progress("changes in one instance of many");
    let (mut wakes, mut commits, mut calls, mut cpus) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for change in 0..changes {
        let instance = change * 37 % (connected / PROXIES);
        let list = list_of(instance, u32::try_from(change).expect("they are few") + 1);
        crowd.tell(&Command::Expect { marker: list.hash().to_owned() })?;
        let before = pulse.commits_ns()?.unwrap_or_default();
        let cpu = pulse.server().cpu_ns()?;
        let asked_ns = pulse.set(&name(instance), &list)?;
        calls.push(milliseconds(now_ns() - asked_ns));
        let timeout_ms = u64::try_from(PATIENCE.as_millis()).expect("it is short");
        let answer = crowd.tell(&Command::Await { count: Some(PROXIES), timeout_ms })?;
        std::thread::sleep(QUIET);
        let cpu = pulse.server().cpu_ns()? - cpu;
        let commit = pulse.commits_ns()?.unwrap_or_default() - before;
        let quiet = crowd.tell(&Command::Look)?;
        let woken = connected - quiet.missing;
        let times = answer.times.filter(|_| woken == PROXIES && quiet.stale == 0).ok_or_else(|| {
            Failure::new(format!(
                "a change in one instance reached {woken} proxies in place of {PROXIES}, and {} others got a list",
                quiet.stale
            ))
        })?;
        let first = milliseconds(times.first_ns.saturating_sub(asked_ns));
        wakes.push(first - milliseconds(commit));
        commits.push(milliseconds(commit));
        cpus.push(milliseconds(cpu));
    }
    let middle = |values: Vec<f64>| median(values).unwrap_or(f64::NAN);
    let value = middle(wakes);
    let note = format!(
        "admin's call to first arrival, less the commit to disk ({:.1} ms); the call {:.1} ms, server CPU {:.1} ms; {nodes} nodes, {proxies} proxies, {connected} connected, {PROXIES} woken",
        middle(commits),
        middle(calls),
        middle(cpus)
    );
    bench.run.figures.push(figure(
        "T16",
        "commit to first wake-up, one instance of many",
        proxies,
        value,
        "ms",
        note,
    ));
    drop(crowd);
    cold_start(bench, pulse, nodes, proxies)
}

fn cold_start(bench: &mut Bench, mut pulse: Pulse, nodes: usize, proxies: usize) -> Outcome<()> {
    let began_ns = pulse.kill_and_start()?;
    let address = pulse.address();
    let listening = wait_until("Pulse to listen", PATIENCE, || {
        Ok(TcpStream::connect(address).ok().map(|_| milliseconds(now_ns() - began_ns)))
    })?;
    pulse.wait_ready()?;
    let ready = milliseconds(now_ns() - began_ns);
    let memory = super::kibibytes_each(pulse.server().resident_bytes()?.cast_signed(), 1024);
    let note = format!("ready after {ready:.0} ms, {memory:.0} MiB; {nodes} nodes, {proxies} proxies");
    bench.run.figures.push(figure("", "cold start to listening", proxies, listening, "ms", note));
    Ok(())
}

fn name(instance: usize) -> String {
    format!("cluster-{instance:05}")
}

fn list_of(instance: usize, round: u32) -> List {
    let nodes = (instance * NODES..(instance + 1) * NODES).map(node).collect();
    // Every instance's first node is another one in every round.
    List::of(nodes, u32::try_from(instance).expect("they are few") * 100 + round)
}
