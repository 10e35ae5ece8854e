//! The live feed: everybody hears the same, who comes back misses nothing, who fell too far behind is told so, and a slow one
//! costs nobody else.

#[path = "support/client.rs"]
mod client;
#[path = "support/listening.rs"]
mod listening;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use listening::{Event, Listening};
use pulse_test_support::v1::{Node, NodeReport, Reading, ReportTemperaturesRequest};
use pulse_test_support::{Client, PATIENCE, Server, eventually, in_time};
use serde_json::json;

/// The events that the server keeps for those who are behind.
const RING: u64 = 1024;

fn server() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    server
}

/// Makes so many changes.
fn change(server: &Server, count: u64) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for _ in 0..count {
        let node = format!("node-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let nodes = json!({"yes": true, "endpoints": [{"name": "delly"}, {"name": node}]});
        let answer = server.admin("PUT", "/instances/home", Some(&nodes)).expect("the server answers");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn newest(server: &Server) -> u64 {
    server.metrics().value("pulse_revision") as u64
}

fn revision(event: &Event) -> u64 {
    event.data["revision"].as_u64().unwrap_or_else(|| panic!("no revision: {event:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_listeners_hear_the_same_in_the_same_order() {
    const LISTENERS: usize = 200;
    let server = server();
    let mut listeners = Vec::new();
    for _ in 0..LISTENERS {
        listeners.push(Listening::begin(&server, None).await);
    }
    assert_eq!(server.metrics().value("pulse_feed_listeners"), LISTENERS as f64);
    change(&server, 21);
    let last = newest(&server);

    let mut heard = Vec::new();
    for listener in &mut listeners {
        let mut events = vec![listener.next().await];
        while events.last().is_none_or(|event| event.data["revision"] != last) {
            events.push(listener.next().await);
        }
        heard.push(events);
    }
    assert!(heard.iter().all(|events| *events == heard[0]), "somebody heard something else");
    let revisions: Vec<u64> = heard[0].iter().map(revision).collect();
    assert_eq!(revisions, (last - 20..=last).collect::<Vec<_>>(), "each change, once, in order");
    let first = &heard[0][0];
    assert_eq!((&*first.name, &first.data["instances"]), ("changed", &json!(["home"])), "{first:?}");
    let list = &server.allowlist("home")["scope"];
    assert_eq!(first.data["allowlists"], json!([list]), "{first:?}");
    drop(listeners);
    eventually(PATIENCE, "the places are free again", || {
        let left = server.metrics().value("pulse_feed_listeners");
        if left == 0.0 { Ok(()) } else { Err(left) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_with_an_id_misses_nothing() {
    let server = server();
    let mut listener = Listening::begin(&server, None).await;
    assert_eq!(listener.hello.data["is_resumed"], false);
    let mut after = listener.hello.id.clone().expect("it may come back with what hello says");
    let mut expected = revision(&listener.hello) + 1;
    // Each time it reads a little less than there is, and goes away in the middle.
    for round in 0..4 {
        change(&server, 10);
        listener.end();
        change(&server, 10);
        listener = Listening::begin(&server, Some(&after)).await;
        assert_eq!(listener.hello.data["is_resumed"], true, "round {round}");
        assert_eq!(listener.hello.id.as_ref(), Some(&after), "what comes next is not counted as read");
        for _ in 0..15 {
            let event = listener.next().await;
            assert_eq!((&*event.name, revision(&event)), ("changed", expected), "round {round}");
            expected += 1;
            after = event.id.expect("each event has an id");
        }
    }
    while expected <= newest(&server) {
        assert_eq!(revision(&listener.next().await), expected);
        expected += 1;
    }
    assert_eq!(server.metrics().value("pulse_feed_reloads_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_listener_costs_nobody_else_and_one_too_far_behind_is_told_to_reload() {
    const SLOW: usize = 20;
    // What sockets hold of a listener that does not read: some hundred events.
    const IN_SOCKETS: u64 = 300;
    let server = server();
    let first = Listening::begin(&server, None).await;
    let first_id = first.hello.id.clone().expect("it has one");
    first.end();
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(Listening::begin_and_not_read(&server).await);
    }
    let mut good = Listening::begin(&server, None).await;
    let first = revision(&good.hello) + 1;
    let before = server.process().resident_bytes();

    let mut slowest = Duration::ZERO;
    for expected in first..first + RING + IN_SOCKETS {
        let begun = Instant::now();
        change(&server, 1);
        assert_eq!(revision(&good.next_named("changed").await), expected);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "a listener that reads waited {slowest:?} for a change");
    let grown = server.process().resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "it grew by {grown} bytes");

    // They go on where they stood, hear that something is missing, and hear all that comes after it.
    for listener in &mut slow {
        let mut last = revision(&listener.next_named("hello").await);
        let reload = loop {
            let event = listener.next().await;
            if event.name == "reload" {
                break event;
            }
            assert_eq!(revision(&event), last + 1, "nothing is left out before it is said");
            last += 1;
        };
        assert!(revision(&reload) > last + 1 && reload.id.is_some(), "{last}: {reload:?}");
    }
    assert_eq!(server.metrics().value("pulse_feed_reloads_total"), SLOW as f64);
    change(&server, 1);
    for listener in &mut slow {
        assert_eq!(revision(&listener.next().await), newest(&server));
    }

    let mut late = Listening::begin(&server, Some(&first_id)).await;
    assert_eq!((&late.hello.data["is_resumed"], &late.hello.id), (&json!(false), &None));
    let reload = late.next().await;
    assert_eq!((&*reload.name, revision(&reload)), ("reload", newest(&server)));
    change(&server, 1);
    assert_eq!(revision(&late.next().await), newest(&server));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_from_before_a_restart_means_reload_and_the_end_of_the_server_ends_the_stream() {
    let mut server = server();
    let mut listener = Listening::begin(&server, None).await;
    change(&server, 1);
    let id = listener.next().await.id.expect("each event has an id");
    let unread = Listening::begin_and_not_read(&server).await;
    let told = Instant::now();
    server.terminate();
    assert_eq!(listener.next_or_end().await, None);
    assert!(told.elapsed() < Duration::from_secs(5), "it ended after {:?}", told.elapsed());
    assert_eq!(server.wait_exit(Duration::from_secs(10)), Some(0));
    drop(unread);

    server.start_again();
    let mut listener = Listening::begin(&server, Some(&id)).await;
    assert_eq!((&listener.hello.data["is_resumed"], &listener.hello.id), (&json!(false), &None));
    let reload = listener.next().await;
    assert_eq!((&*reload.name, revision(&reload)), ("reload", newest(&server)));
    let again = reload.id.expect("it may come back with this one");
    listener.end();
    change(&server, 1);
    let mut listener = Listening::begin(&server, Some(&again)).await;
    assert_eq!(listener.hello.data["is_resumed"], true);
    assert_eq!(revision(&listener.next().await), newest(&server));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_does_is_told() {
    let server = server();
    let mut listener = Listening::begin(&server, None).await;
    let join = server.join_string(&["--instance", "home"]);
    let joining = listener.next_named("changed").await;
    assert_eq!((&joining.data["is_joining"], &joining.data["proxies"]), (&json!(true), &json!([])));
    let client = Client::register(&server, &join, "delly").await;
    let registered = listener.next_named("changed").await;
    assert_eq!(registered.data["proxies"], json!([client.proxy_id]), "{registered:?}");

    let mut watch = client.watch(Default::default()).await;
    let list = watch.snapshot().await;
    let is_shown = async |listener: &mut Listening, state: &str, is_connected: bool| {
        let told = async {
            loop {
                let event = listener.next_named("proxies").await;
                let proxy = &event.data["proxies"][0];
                assert_eq!(proxy["id"], client.proxy_id, "{event:?}");
                if proxy["state"] == state && proxy["is_connected"] == is_connected {
                    return proxy.clone();
                }
            }
        };
        let told = in_time("the state is told", told).await;
        let shown = server.json(&["proxy", "show", &client.proxy_id]);
        assert_eq!((&shown["state"], &shown["is_connected"]), (&told["state"], &told["is_connected"]));
        told
    };
    let pushed = is_shown(&mut listener, "NEVER", true).await;
    assert_eq!(
        (&pushed["pushed_revision"], &pushed["applied_revision"]),
        (&json!(list.revision), &json!(null))
    );
    client.report_applied(&list).await;
    let applied = is_shown(&mut listener, "IN_SYNC", true).await;
    assert_eq!(applied["applied_revision"], list.revision);

    client.grpc.clone().report_temperatures(client.authorized(report())).await.expect("the report is good");
    let temperatures = listener.next_named("temperatures").await;
    assert_eq!(temperatures.data, json!({"nodes": [{"instance": "home", "node": "delly"}]}));
    assert_eq!(server.json(&["temps", "delly"])["nodes"][0]["readings"][0]["temperature_celsius"], 40.5);

    drop(watch);
    is_shown(&mut listener, "IN_SYNC", false).await;
    server.pulse_ok(&["proxy", "revoke", &client.proxy_id]);
    is_shown(&mut listener, "REVOKED", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_has_it_too_and_a_stream_ends_with_the_token_that_opened_it() {
    let server = server();
    let create = |scope: &str| server.json(&["token", "create", "page", "--scope", scope]);
    let (token, kept) = (create("monitoring:read"), create("monitoring:read"));
    let secret = |token: &serde_json::Value| token["secret"].as_str().expect("it is shown once").to_owned();
    let mut listeners = Vec::new();
    for is_http2 in [true, false] {
        listeners.push(Listening::begin_afar(&server, &secret(&token), is_http2).await);
    }
    let mut other = Listening::begin_afar(&server, &secret(&kept), true).await;
    change(&server, 1);
    for listener in listeners.iter_mut().chain([&mut other]) {
        assert_eq!(revision(&listener.next_named("changed").await), newest(&server));
    }
    server.pulse_ok(&["token", "revoke", token["token"]["id"].as_str().expect("it has an id")]);
    for listener in &mut listeners {
        assert_eq!(listener.next_or_end_named("changed").await, None);
    }
    let revoked = other.next_named("changed").await;
    assert_eq!((revision(&revoked), &revoked.data["is_access"]), (newest(&server), &json!(true)));

    let bearer = format!("Bearer {}", secret(&create("settings:read")));
    let answer = server.ask("GET", "/api/v1/events", &[("authorization", &bearer)], "");
    let answer = answer.expect("the server answers");
    assert_eq!((answer.status, &answer.json()["reason"]), (403, &json!("MISSING_SCOPE")));
}

fn report() -> ReportTemperaturesRequest {
    let reading = Reading {
        sensor: "coretemp-isa-0000/temp1".to_owned(),
        temperature_celsius: 40.5,
        ..Reading::default()
    };
    let report = NodeReport {
        node: Some(Node { name: "delly".to_owned(), ip: String::new() }),
        collected_at: Some(SystemTime::now().into()),
        readings: vec![reading],
        ..NodeReport::default()
    };
    let session = uuid::Uuid::now_v7().to_string();
    ReportTemperaturesRequest { session, sequence: 1, reports: vec![report] }
}
