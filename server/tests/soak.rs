//! A fleet that comes and goes for a long time: lists change, reports come in, connections end in every way, and the
//! server holds no more at the end than after it had warmed up.
//!
//! `PULSE_SOAK_SECONDS` says for how long (30), `PULSE_SOAK_STREAMS` with how many proxies (200); `make soak` does it
//! with 2,000 for ten minutes, against the release build. Lists change ten times a second, and 500 reports come in a
//! second, however many proxies there are.

#[path = "support/client.rs"]
mod client;
#[path = "support/soak_member.rs"]
mod member;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use member::{Fleet, Member, Phase, departures_per_second};
use pulse::listen::file_limit;
use pulse_proto::Allowlist;
use pulse_test_support::{Client, PATIENCE, Server, connect, eventually, in_time};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

const CHANGES_PER_SECOND: f64 = 10.0;
const REPORTS_PER_SECOND: f64 = 500.0;

/// The nodes that lists are made of, beside the one that is on each of them and is reported on. Few, as each that was
/// ever reported stays known.
const NODES: usize = 64;

/// The share of what was to be done that must have been done: by the unoptimised build, with all the other tests beside it, half.
const DONE: f64 = if cfg!(debug_assertions) { 0.5 } else { 0.95 };

/// What memory may grow by between the end of the first third and the end: a tenth, and 16 MiB. The first is for the
/// allocator, whose arenas are filled in another way each time thousands of connections come and go; the second is the
/// database's page cache, which the rows of some two minutes fill. Ten minutes with 2,000 proxies are 200,000 reports,
/// 4,000 changes and 50,000 streams after that third, so 200 bytes that leak for each report are beyond it, 10 KiB for
/// each change, and a KiB for each stream.
fn allowed(bytes: u64) -> u64 {
    bytes + bytes / 10 + (16 << 20)
}

/// Files beside the connections that may be open for a moment: of the database, of a reload, of who asks for the metrics.
const FILES: usize = 8;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is a number, and not {value}")),
        Err(_) => default,
    }
}

fn open_files(server: &Server) -> usize {
    let folder = format!("/proc/{}/fd", server.process().pid());
    std::fs::read_dir(folder).expect("the server runs").count()
}

/// The middle of what was measured.
fn median(mut bytes: Vec<u64>) -> u64 {
    bytes.sort_unstable();
    bytes[bytes.len() / 2]
}

fn change(server: &Server, number: usize) {
    let nodes = (0..7).map(|at| json!({ "name": format!("node-{}", (number + 9 * at) % NODES) }));
    let endpoints: Vec<_> = std::iter::once(json!({ "name": "delly" })).chain(nodes).collect();
    let answer =
        server.admin("PUT", "/instances/home", Some(&json!({ "endpoints": endpoints, "yes": true })));
    let answer = answer.expect("the admin socket answers");
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Changes the list at an even pace until the phase is over; returns how often.
fn changes(server: &Server, phase: &watch::Receiver<Phase>) -> usize {
    let begun = Instant::now();
    let mut made = 0;
    while *phase.borrow() == Phase::Going {
        change(server, made);
        made += 1;
        let due = Duration::from_secs_f64(made as f64 / CHANGES_PER_SECOND);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    made
}

/// Registers so many proxies, some at a time.
async fn register(server: &Server, streams: usize) -> Vec<Client> {
    let join = server.join_string(&["--instance", "home", "--uses", &streams.to_string()]);
    let first = Client::register(server, &join, "host-0").await;
    let mut clients = vec![first.clone()];
    let mut registering = JoinSet::new();
    for host in 1..streams {
        let (first, join) = (first.clone(), join.clone());
        registering.spawn(async move { first.register_beside(&join, &format!("host-{host}")).await });
        if registering.len() == 8 || host + 1 == streams {
            while let Some(client) = registering.join_next().await {
                clients.push(client.expect("it is registered"));
            }
        }
    }
    // None of them keeps the connection over which it was registered.
    let apart = connect(server).await;
    clients.into_iter().map(|client| Client { grpc: apart.clone(), ..client }).collect()
}

/// What the store has, of each proxy: the times of collection, in the order of arrival.
fn stored(server: &Server, proxy_id: &[u8], database: &Connection) -> Vec<i64> {
    let sql = "SELECT collected_at FROM readings WHERE proxy_id = ?1 ORDER BY id";
    let mut statement = database.prepare_cached(sql).expect("the tables are there");
    let rows = statement.query_map([proxy_id], |row| row.get(0)).expect("the tables can be read");
    let rows: Result<Vec<i64>, _> = rows.collect();
    rows.unwrap_or_else(|error| panic!("{}: {error}", server.data_dir().display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_comes_and_goes_costs_no_more_in_the_end_and_everybody_has_the_newest_list() {
    let time = Duration::from_secs(setting("PULSE_SOAK_SECONDS", 30));
    let streams = usize::try_from(setting("PULSE_SOAK_STREAMS", 200)).expect("so many fit");
    assert!(time >= Duration::from_secs(15) && streams > 0, "too short to say anything");
    // Each stream is a file of this process too.
    let limit = file_limit::raise();
    assert!(limit.connections > streams as u64, "{limit:?} for {streams} streams: see ulimit -n");
    let server = Server::builder().config("limits: {max_connections_per_address: 100000}").start();
    let server = Arc::new(server);
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let files_alone = open_files(&server);
    let clients = register(&server, streams).await;

    let (phases, phase) = watch::channel(Phase::Going);
    let interval = Duration::from_secs_f64(streams as f64 / REPORTS_PER_SECOND);
    let fleet = Arc::new(Fleet::new(Arc::clone(&server), phase.clone(), interval));
    let members: Vec<Arc<Member>> = clients.into_iter().map(|client| Arc::new(Member::new(client))).collect();
    let mut following = JoinSet::new();
    for (seed, member) in members.iter().enumerate() {
        following.spawn(Arc::clone(member).follow(Arc::clone(&fleet), seed as u64));
    }
    eventually(PATIENCE, "everybody is there", || {
        let there = server.metrics().value("pulse_watch_streams");
        if there >= 0.9 * streams as f64 { Ok(()) } else { Err(there) }
    });
    let mut reporting = JoinSet::new();
    for (seed, member) in members.iter().enumerate() {
        reporting.spawn(Arc::clone(member).report(Arc::clone(&fleet), seed as u64));
    }
    let changing = {
        let (server, phase) = (Arc::clone(&server), phase.clone());
        std::thread::spawn(move || changes(&server, &phase))
    };

    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(500)).await;
        samples.push(server.process().resident_bytes());
        if let Some(ended) = following.try_join_next() {
            panic!("a stream ended before its time: {ended:?}");
        }
    }
    // From now on nobody leaves, and what was begun is finished.
    phases.send(Phase::Settling).expect("the fleet listens");
    let made = changing.join().expect("every change was made");
    let mut reported = 0;
    while let Some(member) = in_time("the last reports", reporting.join_next()).await {
        reported += member.expect("every report was taken in the end");
    }

    // Every list is the newest.
    let newest = server.allowlist("home");
    let hash = newest["hash"].as_str().expect("there is a list").to_owned();
    for member in &members {
        let list = member.holds(&hash).await;
        let nodes = Allowlist::from_wire(&list.nodes).expect("the nodes are nodes");
        assert_eq!((nodes.hash().to_string(), nodes.len()), (hash.clone(), 8));
        member.say_applied(&list).await;
    }
    let metrics = server.metrics();
    assert_eq!(metrics.value("pulse_watch_streams"), streams as f64);
    assert_eq!(metrics.value("pulse_proxies{state=\"IN_SYNC\"}"), streams as f64);

    // Every report that was accepted is stored, and once.
    let database =
        Connection::open_with_flags(server.data_dir().join("pulse.db"), OpenFlags::SQLITE_OPEN_READ_ONLY);
    let database = database.expect("the database is there");
    let mut rows = 0;
    for member in &members {
        let stored = stored(&server, member.id().as_bytes(), &database);
        assert_eq!(stored, member.accepted(), "of {}", member.id());
        rows += stored.len();
    }
    assert_eq!(rows, reported);

    // Nothing has grown.
    let third = samples.len() / 3;
    let window = (samples.len() / 10).max(3);
    let (warm, end) =
        (median(samples[third..third + window].to_vec()), median(samples[samples.len() - window..].to_vec()));
    let files = eventually(PATIENCE, "no connection is left of those that ended", || {
        let files = open_files(&server);
        if files <= files_alone + streams + FILES { Ok(files) } else { Err(files) }
    });
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let counts = &fleet.counts;
    let (cuts, closes, resets) = (count(&counts.cuts), count(&counts.closes), count(&counts.resets));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let tenths: Vec<_> =
        (1..=10).map(|tenth| format!("{:.1}", mib(samples[samples.len() * tenth / 10 - 1]))).collect();
    // Not by `eprintln!`, which the test runner hides when a test passes.
    writeln!(
        std::io::stderr(),
        "{streams} streams for {} s: {made} changes, {} lists heard, {reported} reports, {} told to wait; {} reconnects \
         by a reset, {} by a close, {} new watches on the same connection; {:.1} MiB after a third, {:.1} MiB at the \
         end (allowed: {:.1} MiB; by tenths of the time: {}); {files} files",
        time.as_secs(),
        count(&counts.lists),
        count(&counts.told_to_wait),
        cuts,
        closes,
        resets,
        mib(warm),
        mib(end),
        mib(allowed(warm)),
        tenths.join(", "),
    )
    .expect("standard error can be written");
    assert!(end <= allowed(warm), "memory grew from {warm} to {end} bytes: {samples:?}");
    let seconds = time.as_secs_f64();
    assert!(made as f64 >= DONE * CHANGES_PER_SECOND * seconds, "{made} changes");
    assert!(reported as f64 >= DONE * REPORTS_PER_SECOND * seconds, "{reported} reports");
    let left = (cuts + closes + resets) as f64;
    assert!(left >= DONE * departures_per_second(streams) * seconds, "{counts:?}");
    assert!(cuts.min(closes).min(resets) > 0, "{counts:?}");

    // And when all have gone nothing is left of them.
    phases.send(Phase::Over).expect("the fleet listens");
    while let Some(ended) = in_time("the end of the streams", following.join_next()).await {
        ended.expect("it ended well");
    }
    drop(members);
    eventually(PATIENCE, "nobody is there any more", || {
        let metrics = server.metrics();
        let left =
            (metrics.value("pulse_watch_streams"), metrics.value("pulse_connections"), open_files(&server));
        let is_empty = left.0 == 0.0 && left.1 <= 1.0 && left.2 <= files_alone + FILES;
        if is_empty { Ok(()) } else { Err(left) }
    });
}
