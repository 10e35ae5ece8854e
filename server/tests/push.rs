//! A change is at every proxy at once; a change that leaves a list as it was wakes nobody; who holds the newest list
//! hears just that.

use pulse_test_support::v1::WatchAuthorizedNodesRequest;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually, holding, in_time};
use serde_json::Value;

const NODES: [&str; 3] = ["delly", "minipc", "nas"];

/// `pulse instance VERB home` with these nodes, known by name.
fn put_home(server: &Server, verb: &str, nodes: &[&str]) {
    let endpoints = nodes.iter().flat_map(|node| ["--endpoint", node]);
    let arguments: Vec<&str> = ["instance", verb, "home"].into_iter().chain(endpoints).collect();
    server.pulse_ok(&arguments);
}

fn hash(list: &Value) -> &str {
    list["hash"].as_str().expect("a list has a hash")
}

#[test]
fn a_change_is_in_force_at_three_proxies_and_shown_so() {
    let server = Server::start();
    put_home(&server, "add", &NODES);
    let proxies = NODES.map(|hostname| Proxy::join(&server, "home", hostname));
    let first = server.allowlist("home");
    for proxy in &proxies {
        server.wait_for_applied(&proxy.id(), hash(&first));
    }

    put_home(&server, "set", &["delly", "minipc", "nas", "attic"]);

    let second = server.allowlist("home");
    assert_ne!(hash(&first), hash(&second));
    for proxy in &proxies {
        server.wait_for_applied(&proxy.id(), hash(&second));
    }
    let listed = server.proxies();
    assert_eq!(listed.len(), 3);
    for (proxy, name) in listed.iter().zip(NODES) {
        assert_eq!(proxy["hostname"], name, "by hostname");
        assert_eq!(proxy["state"], "IN_SYNC");
        for key in ["epoch", "revision", "hash"] {
            assert_eq!(proxy["pushed"][key], second[key], "{proxy}");
            assert_eq!(proxy["applied"][key], second[key], "{proxy}");
        }
        assert_eq!(proxy["is_on_disk"], true);
        assert_eq!(proxy["lag_seconds"], Value::Null);
        assert_eq!(proxy["list_source"], "pushed", "whatever it was when the stream began: {proxy}");
    }
    for proxy in &proxies {
        let kept = &proxy.status()["list"];
        assert_eq!((&kept["hash"], &kept["revision"]), (&second["hash"], &second["revision"]));
        assert_eq!(kept["nodes"].as_array().map(Vec::len), Some(4));
    }
    let table = server.pulse_ok(&["proxy", "list"]);
    assert!(NODES.iter().all(|name| table.contains(name)) && table.contains("IN_SYNC"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_leaves_a_list_as_it_was_wakes_nobody() {
    let server = Server::start();
    put_home(&server, "add", &NODES);
    server.pulse_ok(&["instance", "add", "other", "--endpoint", "far=10.0.0.1"]);
    let proxy = Proxy::join(&server, "home", "delly");
    let list = server.allowlist("home");
    server.wait_for_applied(&proxy.id(), hash(&list));
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "minipc").await;
    let mut watch = client.watch(Default::default()).await;
    watch.snapshot().await;
    let applied = proxy.process().log().len();

    // The same nodes in another order; another instance's nodes; changes that are of no list at all.
    let before = server.metrics();
    put_home(&server, "set", &["nas", "minipc", "delly"]);
    assert_eq!(server.metrics().value("pulse_pushes_total"), before.value("pulse_pushes_total"));
    server.pulse_ok(&[
        "instance",
        "set",
        "other",
        "--endpoint",
        "far=10.0.0.2",
        "--endpoint",
        "farther=10.0.0.3",
    ]);
    server.pulse_ok(&["instance", "add", "third", "--endpoint", "elsewhere"]);
    server.join_string(&[]);

    let (epoch, hash) = (list["epoch"].as_u64(), hash(&list));
    for _ in 0..2 {
        let message = watch.next().await.expect("the stream lives").expect("the stream lives");
        let Some(Kind::Bookmark(bookmark)) = message.kind else { panic!("no bookmark: {message:?}") };
        assert_eq!((Some(bookmark.epoch), bookmark.hash.as_str()), (epoch, hash));
    }
    let revision = server.json(&["status"])["revision"].as_u64().expect("the fleet has a revision");
    let mut newest = 0;
    while newest < revision {
        let message = watch.next().await.expect("the stream lives").expect("the stream lives");
        let Some(Kind::Bookmark(bookmark)) = message.kind else { panic!("no bookmark: {message:?}") };
        newest = bookmark.revision;
    }
    assert_eq!(proxy.process().log()[applied..], [""; 0], "the proxy heard of nothing");
    let shown = server.wait_for_state(&proxy.id(), "IN_SYNC");
    assert_eq!(shown["applied"]["revision"], list["revision"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_with_the_newest_list_hears_just_that() {
    let server = Server::start();
    put_home(&server, "add", &NODES);
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "minipc").await;
    let list = client.watch(Default::default()).await.snapshot().await;

    let back = client.reconnect(&server).await;
    let mut watch = back.watch(holding(&list)).await;
    let first = watch.next().await.expect("the stream lives").expect("the stream lives");
    let Some(Kind::Unchanged(unchanged)) = &first.kind else { panic!("not unchanged: {first:?}") };
    assert_eq!((unchanged.epoch, &unchanged.hash), (list.epoch, &list.hash));
    assert!(unchanged.revision >= list.revision);
    assert!(first.server.is_some(), "the first message says what the server is");
    watch.hears_only_bookmarks().await;

    // Only epoch, scope and hash together make it the same list.
    let other_epoch = WatchAuthorizedNodesRequest { epoch: list.epoch - 1, ..holding(&list) };
    let other_scope = WatchAuthorizedNodesRequest { scope: "all".to_owned(), ..holding(&list) };
    for held in [other_epoch, other_scope] {
        let again = back.watch(held.clone()).await.snapshot().await;
        assert_eq!(again.hash, list.hash, "{held:?}");
    }
}

#[test]
fn a_proxy_that_is_restarted_keeps_its_list_and_is_not_sent_it_again() {
    let server = Server::start();
    put_home(&server, "add", &NODES);
    let mut proxy = Proxy::join(&server, "home", "delly");
    let list = server.allowlist("home");
    server.wait_for_applied(&proxy.id(), hash(&list));
    proxy.terminate();
    assert_eq!(proxy.wait_exit(PATIENCE), Some(0));
    eventually(PATIENCE, "the stream's end is seen", || {
        match server.metrics().value("pulse_watch_streams") {
            0.0 => Ok(()),
            streams => Err(streams),
        }
    });
    proxy.start();

    eventually(PATIENCE, "the proxy is back", || {
        let shown = server.json(&["proxy", "show", &proxy.id()]);
        if shown["is_connected"] == true && shown["state"] == "IN_SYNC" { Ok(()) } else { Err(shown) }
    });
    // A change after its return: what it was told before this one, it was told by now.
    put_home(&server, "set", &["delly", "minipc"]);
    let next = server.allowlist("home");
    server.wait_for_applied(&proxy.id(), hash(&next));
    let revisions: Vec<String> =
        proxy.process().log().into_iter().filter(|line| line.contains("a new list is in force")).collect();
    assert_eq!(revisions.len(), 1, "of two lists, only the second was sent: {revisions:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_encoded_once_however_many_streams_there_are() {
    const STREAMS: usize = 50;
    let server = Server::start();
    put_home(&server, "add", &NODES);
    let join = server.join_string(&["--instance", "home", "--uses", "50"]);
    let mut watches = Vec::new();
    for host in 0..STREAMS {
        let client = Client::register(&server, &join, &format!("host-{host}")).await;
        let mut watch = client.watch(Default::default()).await;
        watch.snapshot().await;
        watches.push((client, watch));
    }
    let before = server.metrics();
    assert_eq!(before.value("pulse_watch_streams"), STREAMS as f64);

    put_home(&server, "set", &["delly"]);
    let list = server.allowlist("home");
    for (_, watch) in &mut watches {
        in_time("the change", watch.snapshot_of(hash(&list))).await;
    }

    let after = server.metrics();
    let grown = |name| after.value(name) - before.value(name);
    // The list of the instance; and that of all nodes, if somebody follows it.
    assert!((1.0..=2.0).contains(&grown("pulse_encodes_total")), "{}", grown("pulse_encodes_total"));
    assert_eq!(grown("pulse_pushes_total"), 1.0, "one push, whoever hears it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_read_gets_the_newest_list_and_not_all_of_them() {
    const CHANGES: usize = 20;
    let server = Server::start();
    put_home(&server, "add", &NODES);
    let join = server.join_string(&["--instance", "home", "--uses", "2"]);
    let client = Client::register(&server, &join, "delly").await;
    let slow = client.reconnect_with_window(&server, 1).await;
    let mut stalled = slow.watch(Default::default()).await;
    let other = Client::register(&server, &join, "minipc").await;
    let mut watch = other.watch(Default::default()).await;
    watch.snapshot().await;
    for change in 0..CHANGES {
        put_home(&server, "set", &["delly", &format!("node-{change}")]);
        // Nobody waits for the one that stands still.
        watch.snapshot_of(hash(&server.allowlist("home"))).await;
    }

    let newest = server.allowlist("home");
    let (mut lists, mut last) = (0, stalled.snapshot().await);
    while last.hash != hash(&newest) {
        lists += 1;
        last = stalled.snapshot().await;
    }
    // What was on its way when it stopped reading, and some that lay in buffers; never a queue.
    assert!(lists <= 4, "{lists} old lists of {CHANGES}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_streams_pushes_latency_refusals_states_and_ends() {
    let server = Server::start();
    put_home(&server, "add", &NODES);
    let proxy = Proxy::join(&server, "home", "delly");
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    put_home(&server, "set", &["delly"]);
    server.wait_for_applied(&proxy.id(), hash(&server.allowlist("home")));
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "minipc").await;
    let stranger =
        Client { token: format!("{}x", &client.token[..client.token.len() - 1]), ..client.clone() };
    let refused = stranger.try_watch(Default::default()).await.expect_err("a token that nobody has");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    drop(client.watch(Default::default()).await);

    let metrics = eventually(PATIENCE, "the stream's end is counted", || {
        let metrics = server.metrics();
        let ended = metrics.value("pulse_watch_streams_ended_total{reason=\"gone\"}");
        if ended >= 1.0 { Ok(metrics) } else { Err(ended) }
    });
    assert_eq!(metrics.value("pulse_watch_streams"), 1.0);
    assert!(metrics.value("pulse_pushes_total") >= 1.0);
    assert!(metrics.value("pulse_encodes_total") >= 2.0);
    assert!(metrics.value("pulse_push_latency_seconds_count") >= 1.0);
    assert!(metrics.has("pulse_push_latency_seconds_bucket{le="));
    assert!(metrics.value("pulse_refusals_total{reason=\"UNKNOWN_TOKEN\"}") >= 1.0, "{metrics:#?}");
    for state in ["NEVER", "IN_SYNC", "PENDING", "STALE", "OFFLINE", "REFUSED", "REVOKED"] {
        assert!(metrics.has(&format!("pulse_proxies{{state=\"{state}\"}}")), "{state} in {metrics:#?}");
    }
    assert_eq!(metrics.value("pulse_proxies{state=\"IN_SYNC\"}"), 1.0);
}

#[tokio::test]
async fn a_proxy_that_does_not_check_the_certificate_is_shown_so() {
    let server = Server::start();
    put_home(&server, "add", &NODES);
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "minipc").await;
    let watch_as = async |insecure_skip_verify| {
        let request = WatchAuthorizedNodesRequest { insecure_skip_verify, ..Default::default() };
        let mut watch = client.watch(request).await;
        watch.snapshot().await;
        server.json(&["proxy", "show", "minipc"])["insecure_skip_verify"].as_bool()
    };
    assert_eq!(watch_as(false).await, Some(false));
    assert_eq!(watch_as(true).await, Some(true));
    assert!(server.pulse_ok(&["proxy", "show", "minipc"]).contains("not checked"));
}
