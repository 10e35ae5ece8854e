//! A debug token watches what its proxy is pushed, and is noticed nowhere else.

use std::time::Duration;

use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{
    RegisterRequest, ReportSyncRequest, ReportTemperaturesRequest, RotateTokenRequest, UnregisterRequest,
};
use pulse_test_support::{Client, PATIENCE, Server, eventually, in_time, let_pass, with_token};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A server with the instance home, and a proxy of it.
async fn home() -> (Server, Client) {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "delly").await;
    (server, client)
}

/// Who watches with a new debug token of a proxy.
async fn observer(server: &Server, proxy: &Client, options: &[&str]) -> Client {
    let made = server.json(&[&["proxy", "debug-token", &*proxy.proxy_id], options].concat());
    let token = made["token"].as_str().expect("there is a token").to_owned();
    assert!(token.starts_with("pdbg_"));
    Client { token, ..proxy.reconnect(server).await }
}

fn set(server: &Server, names: &[&str]) {
    let endpoints = names.iter().flat_map(|name| ["--endpoint", name]);
    let arguments: Vec<&str> = ["instance", "set", "--yes", "home"].into_iter().chain(endpoints).collect();
    server.pulse_ok(&arguments);
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_sees_what_the_proxy_sees_and_does_not_count() {
    let (server, proxy) = home().await;
    let shown = || {
        let mut shown = server.json(&["proxy", "show", &proxy.proxy_id]);
        // It grows by itself.
        shown["lag_seconds"] = Value::Null;
        shown
    };
    let (before, streams) = (shown(), || server.metrics().value("pulse_watch_streams"));
    let observer = observer(&server, &proxy, &[]).await;
    let mut watched = observer.watch(Default::default()).await;
    assert_eq!(watched.snapshot().await.nodes.len(), 2);
    assert_eq!(shown(), before, "the proxy is as far as it was: never seen");
    assert_eq!(streams(), 0.0);

    // Beside the proxy's own stream, neither replaces the other, in whatever order they come.
    let mut own = proxy.watch(Default::default()).await;
    let list = own.snapshot().await;
    proxy.report_applied(&list).await;
    let mut second = observer.watch(pulse_test_support::holding(&list)).await;
    assert!(matches!(second.next_kind().await, Kind::Unchanged(_)));
    let is_in_sync = server.wait_for_state(&proxy.proxy_id, "IN_SYNC");
    assert_eq!((&is_in_sync["is_connected"], streams()), (&json!(true), 1.0));
    own.hears_only_bookmarks().await;
    watched.hears_only_bookmarks().await;

    // Both hear of a change, and of nothing that is between server and proxy alone.
    server.pulse_ok(&["proxy", "rotate", &proxy.proxy_id]);
    assert!(matches!(own.next_kind().await, Kind::RotateToken(_)));
    set(&server, &["delly", "minipc", "nas"]);
    let (mine, theirs) = (own.snapshot().await, watched.snapshot().await);
    assert_eq!(mine, theirs);
    assert_eq!(second.snapshot().await, mine);
    // More watches than a proxy may begin are no matter for an observer, nor for the proxy after it.
    for _ in 0..20 {
        let mut watch = observer.watch(Default::default()).await;
        watch.snapshot().await;
    }
    own.hears_only_bookmarks().await;

    server.terminate();
    loop {
        if let Kind::Goodbye(_) = watched.next_kind().await {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_method_refuses_a_debug_token() {
    let (server, proxy) = home().await;
    let observer = observer(&server, &proxy, &[]).await;
    let mut grpc = observer.grpc.clone();
    let register = RegisterRequest { hostname: "minipc".to_owned(), ..RegisterRequest::default() };
    let mut beside = tonic::Request::new(register.clone());
    let value = observer.token.parse().expect("tokens are ASCII");
    beside.metadata_mut().insert("x-proxy-token", value);
    let refused = [
        grpc.register(observer.authorized(register)).await.map(drop),
        grpc.register(beside).await.map(drop),
        grpc.report_sync(observer.authorized(ReportSyncRequest::default())).await.map(drop),
        grpc.report_temperatures(observer.authorized(ReportTemperaturesRequest::default())).await.map(drop),
        grpc.rotate_token(observer.authorized(RotateTokenRequest {})).await.map(drop),
        grpc.unregister(observer.authorized(UnregisterRequest {})).await.map(drop),
    ];
    for outcome in refused {
        let status = outcome.expect_err("a debug token only watches");
        assert_eq!(
            (status.code(), &*reason_of(&status)),
            (Code::PermissionDenied, "DEBUG_TOKEN"),
            "{status:?}"
        );
        assert!(status.message().contains("WatchAuthorizedNodes"), "{status:?}");
    }
    assert_eq!(server.proxies().len(), 1);
    let unknown = format!("pdbg_{}", "A".repeat(43));
    let request = with_token(Default::default(), &unknown);
    let status = grpc.watch_authorized_nodes(request).await.expect_err("nobody made it");
    assert_eq!((status.code(), &*reason_of(&status)), (Code::Unauthenticated, "UNKNOWN_TOKEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debug_token_ends_in_time_and_with_its_proxy_over_a_restart_too() {
    let (mut server, proxy) = home().await;
    let short = observer(&server, &proxy, &["--ttl", "2s"]).await;
    let mut ending = short.watch(Default::default()).await;
    ending.snapshot().await;
    let long = observer(&server, &proxy, &["--ttl", "24h"]).await;
    let status = loop {
        match ending.next().await {
            Ok(message) => {
                assert!(matches!(message.and_then(|message| message.kind), Some(Kind::Bookmark(_))));
            }
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), &*reason_of(&status)), (Code::Unauthenticated, "UNKNOWN_TOKEN"));
    assert!(status.message().contains("pulse proxy debug-token"), "{status:?}");
    let again = short.try_watch(Default::default()).await.expect_err("it is over");
    assert_eq!(again.code(), Code::Unauthenticated);
    eventually(PATIENCE, "it is taken off", || {
        let audit = server.pulse_ok(&["audit"]);
        if audit.contains("proxy.expire") { Ok(()) } else { Err(audit) }
    });

    server.kill();
    server.start_again();
    let long = long.reconnect(&server).await;
    let mut watched = long.watch(Default::default()).await;
    watched.snapshot().await;
    server.pulse_ok(&["proxy", "revoke", &proxy.proxy_id]);
    assert!(matches!(watched.next_kind().await, Kind::Revoked(_)));
    let status = in_time("the end", watched.next()).await.expect_err("the stream ends");
    assert_eq!((status.code(), &*reason_of(&status)), (Code::PermissionDenied, "PROXY_REVOKED"));
    let mut again = long.watch(Default::default()).await;
    assert!(matches!(again.next_kind().await, Kind::Revoked(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_is_printed_and_the_token_is_nowhere_else() {
    let (server, proxy) = home().await;
    let text = server.pulse_ok(&["proxy", "debug-token", "delly", "--ttl", "90m"]);
    let (first, command) = text.trim_end().split_once(' ').expect("a variable, and then the command");
    let token = first.strip_prefix("TOKEN=").expect("the token is in the environment");
    let ca = server.ca_path();
    let start =
        format!("grpcurl -cacert {} -expand-headers -H 'authorization: Bearer ${{TOKEN}}' ", ca.display());
    assert!(command.starts_with(&start), "{command}");
    assert!(command.ends_with("/WatchAuthorizedNodes") && !command.contains(token), "{command}");
    let observer = Client { token: token.to_owned(), ..proxy.clone() };
    observer.watch(Default::default()).await.snapshot().await;

    let audit = server.pulse_ok(&["audit"]);
    assert!(audit.contains("proxy.debug_token"), "{audit}");
    for _ in 1..8 {
        server.pulse_ok(&["proxy", "debug-token", "delly", "--ttl", "1s"]);
    }
    let full = server.pulse(&["proxy", "debug-token", "delly", "--json"]);
    assert!(full.code == Some(1) && full.stderr.contains("TOO_MANY_DEBUG_TOKENS"), "{full:?}");
    let_pass(Duration::from_secs(1));
    server.pulse_ok(&["proxy", "debug-token", "delly"]);
    for entry in std::fs::read_dir(server.data_dir()).expect("the data folder is listed") {
        let path = entry.expect("an entry").path();
        let bytes = if path.is_file() { std::fs::read(&path).expect("a file is read") } else { Vec::new() };
        let is_in = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!is_in, "the token is in {}", path.display());
    }
    assert!(!server.process().log().iter().any(|line| line.contains(token)));
}
