//! A revoked proxy's stream ends within a second, and its list is empty for good; nobody else notices.

use std::time::{Duration, Instant};

use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually, in_time};

/// How long a revoked proxy may still have its stream.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_proxy_hears_it_within_a_second_and_other_streams_do_not_notice() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    let join = server.join_string(&["--instance", "home", "--uses", "4"]);
    let revoked = Client::register(&server, &join, "delly").await;
    let mut ending = revoked.watch(Default::default()).await;
    ending.snapshot().await;
    let mut others = Vec::new();
    for host in ["minipc", "nas", "attic"] {
        let client = Client::register(&server, &join, host).await;
        let mut watch = client.watch(Default::default()).await;
        watch.snapshot().await;
        others.push((client, watch));
    }

    let asked = Instant::now();
    let answer = server.admin("POST", &format!("/proxies/{}/revoke", revoked.proxy_id), None);
    assert_eq!(answer.expect("the server answers").status, 200);
    let kind = ending.next_kind().await;
    let Kind::Revoked(said) = kind else { panic!("not revoked: {kind:?}") };
    assert!(!said.reason.is_empty(), "it says why");
    let status = ending.next().await.expect_err("the stream ends");
    assert!(asked.elapsed() < AT_ONCE, "it took {:?}", asked.elapsed());
    assert_eq!(status.code(), tonic::Code::PermissionDenied);

    // For good: the token is known, and gives nothing.
    let mut again = revoked.watch(Default::default()).await;
    assert!(matches!(again.next_kind().await, Kind::Revoked(_)));
    assert_eq!(again.next().await.expect_err("the stream ends").code(), tonic::Code::PermissionDenied);
    let report = revoked.authorized(Default::default());
    let refused = in_time("an answer", revoked.grpc.clone().report_temperatures(report)).await;
    assert_eq!(refused.expect_err("a revoked proxy reports nothing").code(), tonic::Code::PermissionDenied);

    for (client, watch) in &mut others {
        watch.hears_only_bookmarks().await;
        let shown = server.json(&["proxy", "show", &client.proxy_id]);
        assert_eq!(shown["is_connected"], true);
    }
    assert_eq!(server.metrics().value("pulse_watch_streams"), 3.0);
}

#[test]
fn a_revoked_proxy_reads_nothing_until_it_is_registered_again() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    // The static list is no way around a revocation.
    let mut proxy = Proxy::builder("delly").config("allowed_nodes: [delly, 127.0.0.1]").join(&server, "home");
    let neighbour = Proxy::join(&server, "home", "minipc");
    let id = proxy.id();
    server.wait_for_state(&id, "IN_SYNC");
    let applied = server.wait_for_state(&neighbour.id(), "IN_SYNC");
    let quiet = neighbour.process().log().len();

    server.pulse_ok(&["proxy", "revoke", &id]);
    eventually(PATIENCE, "the stream is over and the list empty", || {
        let shown = server.json(&["proxy", "show", &id]);
        let held = proxy.status();
        let is_over = shown["is_connected"] == false && shown["state"] == "REVOKED";
        let is_empty = held["revoked"].is_string() && held["list"]["nodes"] == serde_json::json!([]);
        if is_over && is_empty { Ok(()) } else { Err((shown, held)) }
    });

    // With the server down, after a restart, it is the disk that knows.
    server.kill();
    proxy.terminate();
    assert_eq!(proxy.wait_exit(PATIENCE), Some(0));
    proxy.start();
    proxy.wait_for_status("it runs and may read nothing", |status| {
        status["running"] == true
            && status["revoked"].is_string()
            && status["list"]["nodes"] == serde_json::json!([])
            && status["list"]["source"] == "none"
    });

    server.start_again();
    assert_eq!(server.json(&["proxy", "show", &id])["state"], "REVOKED");
    let shown = eventually(PATIENCE, "the neighbour is back", || {
        let shown = server.json(&["proxy", "show", &neighbour.id()]);
        if shown["is_connected"] == true { Ok(shown) } else { Err(shown) }
    });
    assert_eq!(shown["applied"]["hash"], applied["applied"]["hash"]);
    let noticed: Vec<_> =
        neighbour.process().log()[quiet..].iter().filter(|line| line.contains("revoked")).cloned().collect();
    assert_eq!(noticed, [""; 0]);

    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    let listed = eventually(PATIENCE, "it is in sync again", || {
        let listed = server.json(&["proxy", "show", &proxy.id()]);
        if listed["state"] == "IN_SYNC" { Ok(listed) } else { Err(listed) }
    });
    assert_eq!(listed["applied"]["hash"], applied["applied"]["hash"]);
}
