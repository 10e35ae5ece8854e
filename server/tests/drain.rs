//! SIGTERM: each stream gets a goodbye with a slot of its own, and the server is gone within ten seconds; a second
//! signal ends it at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pulse_test_support::v1::Goodbye;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::{Client, PATIENCE, Proxy, Server, Watch, eventually, in_time};

/// The longest that the end of the server may take.
const END: Duration = Duration::from_secs(10);

/// A server with an instance, and a join string for so many proxies.
fn server(uses: usize) -> (Server, String) {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    let join = server.join_string(&["--instance", "home", "--uses", &uses.to_string()]);
    (server, join)
}

/// A stream that has its list.
async fn stream(server: &Server, join: &str, hostname: &str) -> Watch {
    let client = Client::register(server, join, hostname).await;
    let mut watch = client.watch(Default::default()).await;
    watch.snapshot().await;
    watch
}

/// A stream that takes no more than a few bytes and so stands still before its first list.
async fn stalled_stream(server: &Server, join: &str, hostname: &str) -> Watch {
    let client = Client::register(server, join, hostname).await;
    client.reconnect_with_window(server, 1).await.watch(Default::default()).await
}

async fn goodbye(watch: &mut Watch) -> Goodbye {
    match watch.next_kind().await {
        Kind::Goodbye(goodbye) => goodbye,
        other => panic!("no goodbye: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_200_streams_gets_a_goodbye_and_a_slot_of_its_own() {
    const STREAMS: usize = 200;
    let (mut server, join) = server(STREAMS);
    let mut watches = Vec::new();
    for host in 0..STREAMS {
        watches.push(stream(&server, &join, &format!("host-{host}")).await);
    }
    assert_eq!(server.metrics().value("pulse_watch_streams"), STREAMS as f64);

    let told = Instant::now();
    server.terminate();
    let mut slots = BTreeSet::new();
    for watch in &mut watches {
        let goodbye = goodbye(watch).await;
        assert!(!goodbye.reason.is_empty());
        let slot = goodbye.reconnect_after.expect("it says when to come back");
        slots.insert((slot.seconds, slot.nanos));
        let end = in_time("the end of the stream", watch.next()).await;
        assert!(matches!(end, Ok(None)), "the stream ends well: {end:?}");
    }
    assert_eq!(slots.len(), STREAMS, "everybody has a slot of their own");
    let left = END.saturating_sub(told.elapsed());
    assert_eq!(server.wait_exit(left), Some(0));
}

#[test]
fn proxies_come_back_by_themselves_after_a_restart() {
    let (mut server, join) = server(2);
    let proxies = ["delly", "minipc"].map(|hostname| {
        let mut proxy = Proxy::builder(hostname).build();
        proxy.register_ok(&join);
        proxy.start();
        proxy
    });
    let before = proxies.each_ref().map(|proxy| server.wait_for_state(&proxy.id(), "IN_SYNC"));

    server.terminate();
    assert_eq!(server.wait_exit(END), Some(0));
    server.start_again();
    for listed in server.proxies() {
        assert_eq!(listed["state"], "IN_SYNC", "what it said before the restart counts: {listed}");
    }
    for (proxy, before) in proxies.iter().zip(before) {
        let after = eventually(PATIENCE, "the proxy is back", || {
            let shown = server.json(&["proxy", "show", &proxy.id()]);
            if shown["is_connected"] == true { Ok(shown) } else { Err(shown) }
        });
        assert_eq!(after["state"], "IN_SYNC");
        assert_eq!(after["applied"]["hash"], before["applied"]["hash"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_read_does_not_hold_up_the_end() {
    let (mut server, join) = server(1);
    let _stalled = stalled_stream(&server, &join, "delly").await;
    server.terminate();
    assert_eq!(server.wait_exit(END), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_server_at_once() {
    let (mut server, join) = server(2);
    let mut watch = stream(&server, &join, "minipc").await;
    let _stalled = stalled_stream(&server, &join, "delly").await;

    server.terminate();
    goodbye(&mut watch).await;
    assert!(server.process_ended().is_none(), "the stalled stream is waited for");
    server.terminate();
    // Alone, the first would have waited for 8 s.
    let code = server.wait_exit(Duration::from_secs(3));
    assert!(code.is_some_and(|code| code != 0), "it did not end as it should have: {code:?}");
}
