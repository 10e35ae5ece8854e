//! From the commit of a change until 200 streams have said that it is in force: everybody gets it; how long it took is
//! printed, not judged, because it depends on the machine and on what else runs on it.

use std::collections::HashSet;
use std::io::Write;
use std::time::{Duration, Instant};

use pulse_test_support::{Client, PATIENCE, Server, eventually};
use serde_json::json;
use tokio::task::JoinSet;

const STREAMS: usize = 200;
const CHANGES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_each_of_200_streams() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    let join = server.join_string(&["--instance", "home", "--uses", &STREAMS.to_string()]);
    let mut followers = Vec::new();
    for host in 0..STREAMS {
        let client = Client::register(&server, &join, &format!("host-{host}")).await;
        let mut watch = client.watch(Default::default()).await;
        // The way of a proxy's first list is not timed: it was committed long before.
        client.report_applied(&watch.snapshot().await).await;
        followers.push((client, watch));
    }

    let before = server.metrics();
    let mut arrived: Vec<Duration> = Vec::new();
    for change in 0..CHANGES {
        let mut waiting = JoinSet::new();
        let asked = Instant::now();
        for (client, mut watch) in followers.drain(..) {
            waiting.spawn(async move {
                let list = watch.snapshot().await;
                let took = asked.elapsed();
                client.report_applied(&list).await;
                (client, watch, list.hash, took)
            });
        }
        let body = json!({ "endpoints": [{ "name": "delly" }, { "name": format!("node-{change}") }] });
        let answer = server.admin("PUT", "/instances/home", Some(&body)).expect("the server answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut hashes = HashSet::new();
        while let Some(follower) = waiting.join_next().await {
            let (client, watch, hash, took) = follower.expect("nobody missed the change");
            hashes.insert(hash);
            followers.push((client, watch));
            arrived.push(took);
        }
        assert_eq!(followers.len(), STREAMS);
        // Asked for only now, because a program that starts would take the processor from what is timed.
        assert_eq!(
            server.allowlist("home")["hash"].as_str().map(|newest| hashes == [newest.to_owned()].into()),
            Some(true)
        );
    }

    let metrics = eventually(PATIENCE, "every report is counted", || {
        let metrics = server.metrics();
        let counted = metrics.value("pulse_push_latency_seconds_count")
            - before.value("pulse_push_latency_seconds_count");
        if counted >= (STREAMS * CHANGES) as f64 { Ok(metrics) } else { Err(counted) }
    });
    let applied =
        |share| metrics.quantile("pulse_push_latency_seconds", share).unwrap_or(f64::INFINITY) * 1000.0;
    arrived.sort();
    let got = |share: f64| arrived[((arrived.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    // Not by `eprintln!`, which the test runner hides when a test passes.
    writeln!(
        std::io::stderr(),
        "{STREAMS} streams, {CHANGES} changes: commit to applied p50 <= {:.0} ms, p99 <= {:.0} ms (the server's histogram); \
         from asking for the change to the message p50 {:.1} ms, p99 {:.1} ms, last {:.1} ms (the streams' own clock); \
         the server holds {:.1} MiB",
        applied(0.5),
        applied(0.99),
        got(0.5),
        got(0.99),
        got(1.0),
        server.process().resident_bytes() as f64 / f64::from(1 << 20),
    )
    .expect("standard error can be written");
}
