//! What one caller may ask for, on the real programs: token buckets, slowed guesses, calls and connections beyond the
//! caps. Whoever keeps within them is not touched.

#[path = "support/client.rs"]
mod client;
#[path = "support/raw.rs"]
mod raw;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pulse_proto::{Token, TokenKind, reason};
use pulse_test_support::v1::{
    NodeReport, Reading, RegisterRequest, RegisterResponse, ReportSyncRequest, ReportTemperaturesRequest,
    RotateTokenRequest,
};
use pulse_test_support::{Client, PATIENCE, Proxy, Server, connect, eventually, in_time, with_token};
use raw::{ONE, OTHER, Raw, dial, dial_from, endless};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const SERVICE: &str = "/pulse.control.v1.ControlPlaneService";

/// A server with an instance.
fn server(config: &str) -> Server {
    let server = Server::builder().config(config).start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    server
}

fn join(server: &Server, uses: usize) -> String {
    server.join_string(&["--instance", "home", "--uses", &uses.to_string()])
}

/// Checks that a refusal says when to come back, and returns that.
fn told_to_wait(status: &Status, reason: &str) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().expect("a refusal has a reason");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), (reason::DOMAIN, reason));
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    retry.expect("it says when to come back")
}

/// Begins watches until one is refused, and returns how many began, and the refusal.
async fn watch_until_refused(client: &Client) -> (u64, Status) {
    for begun in 0..100 {
        if let Err(status) = client.try_watch(Default::default()).await {
            return (begun, status);
        }
    }
    panic!("100 watches were taken")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thirteenth_watch_of_a_minute_is_told_when_the_next_may_begin() {
    let server = server("");
    let join = join(&server, 2);
    let (client, other) =
        (Client::register(&server, &join, "delly").await, Client::register(&server, &join, "minipc").await);
    let begun = Instant::now();
    let (taken, status) = watch_until_refused(&client).await;
    // One comes back each 5 s.
    let most = 12 + begun.elapsed().as_secs() / 5 + 1;
    assert!((12..=most).contains(&taken), "{taken} watches began, of {most} at the most");
    let wait = told_to_wait(&status, reason::RATE_LIMITED);
    assert!(wait <= Duration::from_secs(5), "{wait:?}");
    other.watch(Default::default()).await;
    let answer = client.grpc.clone().rotate_token(client.authorized(RotateTokenRequest {})).await;
    assert!(answer.is_ok(), "other calls are not held up: {answer:?}");

    tokio::time::sleep(wait).await;
    client.watch(Default::default()).await;
    let limited = server.metrics().value(r#"pulse_rate_limited_total{bucket="watch"}"#);
    assert_eq!(limited, 1.0);
    assert!(!server.metrics().has("pulse_rate_limited_total{proxy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_may_not_watch_yet_waits_as_long_as_it_is_told_and_comes_back() {
    let server = server("limits: {watch_interval: 20s}");
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&join(&server, 1));
    let token = std::fs::read_to_string(proxy.control_dir().join("token")).unwrap();
    let client = Client {
        grpc: connect(&server).await,
        token: token.trim().to_owned(),
        proxy_id: proxy.id(),
        registered: RegisterResponse::default(),
    };
    let (_, status) = watch_until_refused(&client).await;
    let (refused_at, wait) = (Instant::now(), told_to_wait(&status, reason::RATE_LIMITED));
    assert!(wait > Duration::from_secs(10), "{wait:?}");

    proxy.start();
    let shown = server.wait_for_state(&proxy.id(), "IN_SYNC");
    assert!(refused_at.elapsed() >= wait, "it came back after {:?} of {wait:?}", refused_at.elapsed());
    assert_eq!(shown["is_connected"], true);
    let limited = server.metrics().value(r#"pulse_rate_limited_total{bucket="watch"}"#);
    assert_eq!(limited, 2.0, "the proxy asked once, and then when it was told to");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_is_held_up_is_made_when_its_time_comes() {
    // Longer than the 30 s after which a registration that waits for a person is looked at again.
    let server = server("limits: {registration_burst: 1, registration_interval: 40s}");
    let join = join(&server, 3);
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&join);
    let begun = Instant::now();
    let first = proxy.id();
    // Its identity is lost, so that the registration that waits is all that it has.
    std::fs::remove_dir_all(proxy.state_dir()).unwrap();
    let ran = proxy.register(&join);
    assert!(ran.is_success() || ran.code == Some(1), "{ran:?}");
    // Another host is not held up.
    Client::register(&server, &join, "minipc").await;

    proxy.start();
    let done = "the registration that waited is done";
    eventually(PATIENCE, done, || if proxy.process().has_said(done) { Ok(()) } else { Err(()) });
    assert!(begun.elapsed() >= Duration::from_secs(39), "{:?}", begun.elapsed());
    assert_eq!(proxy.id(), first);
    let limited = server.metrics().value(r#"pulse_rate_limited_total{bucket="registration"}"#);
    assert_eq!(limited, 2.0, "the command asked once, and the proxy once before it was time");
}

/// A call of an address of this machine, with a ctrl token.
async fn report_from(server: &Server, from: IpAddr, token: &str) -> Status {
    let stream = dial_from(from, server.address(), &server.ca_path(), &["h2"]).await;
    // A message of no bytes.
    let body = http_body_util::BodyExt::boxed_unsync(http_body_util::Full::from(&b"\0\0\0\0\0"[..]));
    let mut raw = Raw::over(stream.expect("the server shakes hands")).await;
    let answer = raw.call(&format!("{SERVICE}/ReportSync"), token, body).await.expect("it is answered");
    match Status::from_header_map(answer.headers()) {
        Some(status) => status,
        None => Status::ok("the answer has a body"),
    }
}

fn wrong() -> String {
    Token::generate(TokenKind::Ctrl).expect("the system has random bytes").reveal().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_one_wrong_tokens_of_one_address_are_slowed_and_nobody_else_is() {
    let server = server("");
    let join = join(&server, 4);
    let good = Client::register(&server, &join, "delly").await;
    let revoked = Client::register(&server, &join, "minipc").await;
    server.pulse_ok(&["proxy", "revoke", &revoked.proxy_id]);

    let begun = Instant::now();
    let mut failed = 0;
    let slowed = loop {
        let status = report_from(&server, ONE, &wrong()).await;
        if status.code() != Code::Unauthenticated {
            break status;
        }
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, reason::UNKNOWN_TOKEN);
        failed += 1;
    };
    let most = 30 + begun.elapsed().as_secs() / 2 + 1;
    assert!((30..=most).contains(&failed), "{failed} were answered, of {most} at the most");
    let wait = told_to_wait(&slowed, reason::RATE_LIMITED);
    assert!(wait <= Duration::from_secs(2), "{wait:?}");

    // Calls without a token and wrong join tokens count as well. One failure comes back each 2 s.
    let mut client = connect(&server).await;
    for is_registration in [false, true] {
        let guess = Token::generate(TokenKind::Join).unwrap();
        let mut status = Status::ok("");
        for _ in 0..100 {
            let registration = RegisterRequest { hostname: "x".into(), ..RegisterRequest::default() };
            status = match is_registration {
                true => client.register(with_token(registration, guess.reveal())).await.unwrap_err(),
                false => client.report_sync(ReportSyncRequest::default()).await.unwrap_err(),
            };
            if status.code() == Code::ResourceExhausted {
                break;
            }
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        }
        told_to_wait(&status, reason::RATE_LIMITED);
    }

    // The same address with tokens that are good, or were.
    let mut watch = good.watch(Default::default()).await;
    watch.snapshot().await;
    let status = report_from(&server, ONE, &good.token).await;
    assert_eq!(status.code(), Code::InvalidArgument, "it is heard: {status:?}");
    let status = report_from(&server, ONE, &revoked.token).await;
    assert_eq!(status.get_details_error_info().unwrap().reason, reason::PROXY_REVOKED);
    Client::register(&server, &join, "third").await;
    // Another address.
    let status = report_from(&server, OTHER, &wrong()).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let metrics = server.metrics();
    assert!(metrics.value(r#"pulse_rate_limited_total{bucket="failed_call"}"#) >= 1.0);
    assert!(metrics.value(r#"pulse_refusals_total{reason="RATE_LIMITED"}"#) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_front_is_not_slowed_and_has_as_many_connections_as_it_needs() {
    let server = server(
        "trusted_proxies: [127.0.0.2]\nlimits: {failed_calls_per_minute: 2, max_connections_per_address: 3}",
    );
    for _ in 0..10 {
        assert_eq!(report_from(&server, OTHER, &wrong()).await.code(), Code::Unauthenticated);
    }
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(dial_from(OTHER, server.address(), &server.ca_path(), &["h2"]).await.unwrap());
    }
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_of_one_address_are_closed_and_said_once() {
    let server = server("limits: {max_connections_per_address: 4}");
    let dial = async || dial_from(OTHER, server.address(), &server.ca_path(), &["h2"]).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(dial().await.unwrap());
    }
    for _ in 0..50 {
        assert!(dial().await.is_err());
    }
    assert_eq!(server.get("/readyz").unwrap().status, 200, "another address");
    let refused = server.metrics().value(r#"pulse_connections_refused_total{reason="address_limit"}"#);
    assert_eq!(refused, 50.0);
    let told = |line: &&String| line.contains("connections of one address are refused");
    let log = server.process().log();
    assert_eq!(log.iter().filter(told).count(), 1);
    assert!(log.iter().find(told).unwrap().contains("127.0.0.2"), "{log:?}");

    open.pop();
    in_time("a place is free", async {
        while dial().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_cap_are_told_to_come_back_while_probes_streams_and_the_admin_are_served() {
    let server = server("limits: {max_calls: 8}");
    let join = join(&server, 3);
    let good = Client::register(&server, &join, "delly").await;
    let bad = Client::register(&server, &join, "minipc").await;
    let mut proxy = Proxy::builder("third").build();
    proxy.register_ok(&join);
    // Eight reports that are begun and not finished. Their answers are awaited elsewhere.
    let raw = Raw::over(dial(&server, &["h2"]).await).await;
    let held: Vec<_> = (0..8)
        .map(|_| {
            let (mut raw, token) = (raw.clone(), bad.token.clone());
            tokio::spawn(async move {
                // One that is answered found no place, as a report had it at that moment: it asks for one again.
                loop {
                    drop(
                        raw.call(&format!("{SERVICE}/ReportTemperatures"), &token, endless(b"\0\0\0")).await,
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        })
        .collect();
    let report = async || {
        let report = good.authorized(ReportTemperaturesRequest::default());
        in_time("an answer", good.grpc.clone().report_temperatures(report)).await.unwrap_err()
    };
    let mut seen = report().await;
    for _ in 0..500 {
        if seen.code() == Code::ResourceExhausted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen = report().await;
    }
    let wait = told_to_wait(&seen, reason::OVERLOADED);
    assert!(wait >= Duration::from_secs(1), "{wait:?}");

    assert_eq!(server.get("/readyz").unwrap().status, 200);
    assert_eq!(server.admin("GET", "/status", None).unwrap().status, 200);
    let mut watch = good.watch(Default::default()).await;
    watch.snapshot().await;
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "third"]);
    watch.snapshot().await;
    Client::register(&server, &server.join_string(&["--instance", "home"]), "fourth").await;

    // A proxy keeps its readings meanwhile, and asks no more often than it is told to.
    let before = server.metrics().value(r#"pulse_refusals_total{reason="OVERLOADED"}"#);
    let begun = Instant::now();
    proxy.start();
    let waiting = "readings cannot be delivered: they wait";
    eventually(PATIENCE, waiting, || if proxy.process().has_said(waiting) { Ok(()) } else { Err(()) });
    tokio::time::sleep(Duration::from_secs(6)).await;
    let refused = server.metrics().value(r#"pulse_refusals_total{reason="OVERLOADED"}"#) - before;
    // Reports each 2 s at the most, and sync reports with the signs of life, each 2.25 s at the most.
    let most = 2.0 * (begun.elapsed().as_secs_f64() / 2.0 + 2.0);
    assert!((1.0..=most).contains(&refused), "{refused} calls were refused, of {most} at the most");
    held.iter().for_each(tokio::task::JoinHandle::<()>::abort);
    drop(raw);
    eventually(PATIENCE, "the readings are stored", || {
        let stored = server.metrics().value("pulse_readings_total");
        if stored > 0.0 { Ok(()) } else { Err(stored) }
    });
}

/// Calls that are begun on one connection and not finished; they end with what is returned.
async fn held(
    server: &Server,
    from: IpAddr,
    method: &str,
    token: &str,
    calls: usize,
) -> (Raw, JoinSet<Status>) {
    let stream = dial_from(from, server.address(), &server.ca_path(), &["h2"]).await;
    let raw = Raw::over(stream.expect("the server shakes hands")).await;
    let mut held = JoinSet::new();
    for _ in 0..calls {
        let (mut raw, path, token) = (raw.clone(), format!("{SERVICE}/{method}"), token.to_owned());
        held.spawn(async move {
            let answer = raw.call(&path, &token, endless(b"\0\0\0")).await.expect("it is answered");
            Status::from_header_map(answer.headers()).expect("it is refused")
        });
    }
    (raw, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_finishes_no_call_takes_no_place_of_another() {
    let server = server("limits: {max_calls: 16}");
    let join = join(&server, 2);
    let good = Client::register(&server, &join, "delly").await;
    let bad = Client::register(&server, &join, "minipc").await;
    let (_raw, mut held) = held(&server, ONE, "ReportTemperatures", &bad.token, 16).await;
    for _ in 0..8 {
        let refused = in_time("half of them are refused", held.join_next()).await.unwrap().unwrap();
        told_to_wait(&refused, reason::OVERLOADED);
    }
    let report = good.authorized(ReportTemperaturesRequest::default());
    let answer = good.grpc.clone().report_temperatures(report).await.unwrap_err();
    assert_eq!(answer.code(), Code::InvalidArgument, "it is heard: {answer:?}");
    assert!(held.try_join_next().is_none(), "the others are under way still");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_begun_and_never_read_take_one_place() {
    let server = server("limits: {watch_burst: 100}");
    let join = join(&server, 2);
    let bad = Client::register(&server, &join, "delly").await;
    // More than one proxy may have at a time. Each ends the one before, though that is in the middle of its list.
    let mut unread = Vec::new();
    for _ in 0..40 {
        let client = bad.reconnect_with_window(&server, 0).await;
        let watch = client.try_watch(Default::default()).await.expect("there is a place");
        unread.push((client, watch));
    }
    eventually(PATIENCE, "one is left", || {
        let metrics = server.metrics();
        let replaced = metrics.value("pulse_watch_streams_ended_total{reason=\"replaced\"}");
        match (metrics.value("pulse_watch_streams"), replaced) {
            (1.0, 39.0) => Ok(()),
            other => Err(other),
        }
    });
    let good = Client::register(&server, &join, "minipc").await;
    good.watch(Default::default()).await.snapshot().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_takes_no_place_of_a_host_that_may_register() {
    let server = server("limits: {max_calls: 8}");
    let used = join(&server, 1);
    let bad = Client::register(&server, &used, "delly").await;
    server.pulse_ok(&["proxy", "revoke", &bad.proxy_id]);
    let secret = used.split("join=").nth(1).unwrap();
    let mut all = Vec::new();
    for (from, token) in [(ONE, &*bad.token), (OTHER, secret)] {
        all.push(held(&server, from, "Register", token, 8).await);
    }
    // What comes behind them on their connections is answered, so they are under way.
    for (raw, _) in &all {
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::Full::from(&b"\0\0\0\0\0"[..]));
        raw.clone().call(&format!("{SERVICE}/ReportSync"), "none", body).await.expect("it is answered");
    }
    Client::register(&server, &join(&server, 1), "minipc").await;
    assert!(all.iter_mut().all(|(_, held)| held.try_join_next().is_none()), "they are under way still");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_one_address_take_no_place_of_a_host_that_a_window_is_open_to() {
    let server = server("");
    let opened = server.json(&["join", "open", "--from", "127.0.0.1"]);
    let mut all = Vec::new();
    for _ in 0..5 {
        let (raw, mut held) = held(&server, OTHER, "Register", &wrong(), 16).await;
        // Eight of the first sixteen are refused, and then all.
        for _ in 0..8 {
            let refused = in_time("it is refused", held.join_next()).await.unwrap().unwrap();
            told_to_wait(&refused, reason::OVERLOADED);
        }
        all.push((raw, held));
    }
    Client::register(&server, opened["join"].as_str().unwrap(), "minipc").await;
    assert!(all[0].1.try_join_next().is_none(), "those that were begun are under way still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_asks_for_a_new_token_again_and_again_is_told_to_wait() {
    let server = server("");
    let join = join(&server, 2);
    let client = Client::register(&server, &join, "delly").await;
    let rotate = async |client: &Client| {
        client.grpc.clone().rotate_token(client.authorized(RotateTokenRequest {})).await
    };
    let begun = Instant::now();
    let mut rotated = 0;
    let refused = loop {
        match rotate(&client).await {
            Ok(_) => rotated += 1,
            Err(status) => break status,
        }
    };
    let most = 12 + begun.elapsed().as_secs() / 5 + 1;
    assert!((12..=most).contains(&rotated), "{rotated} tokens were made, of {most} at the most");
    told_to_wait(&refused, reason::RATE_LIMITED);
    // Its own token is as good as before, and another proxy's rotation is its own affair.
    client.watch(Default::default()).await.snapshot().await;
    rotate(&Client::register(&server, &join, "minipc").await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_have_a_cap_of_their_own() {
    let server = server("limits: {max_watches: 2, max_calls: 8}");
    let join = join(&server, 3);
    let mut clients = Vec::new();
    for host in ["delly", "minipc", "third"] {
        clients.push(Client::register(&server, &join, host).await);
    }
    let first = clients[0].watch(Default::default()).await;
    let _second = clients[1].watch(Default::default()).await;
    let refused = clients[2].try_watch(Default::default()).await.unwrap_err();
    told_to_wait(&refused, reason::OVERLOADED);
    // Calls are made all the same.
    let rotated = clients[2].grpc.clone().rotate_token(clients[2].authorized(RotateTokenRequest {})).await;
    rotated.unwrap();
    drop(first);
    in_time("a place is free", async {
        while clients[2].try_watch(Default::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_reports_beyond_their_bounds_are_refused_by_name() {
    let server = server("limits: {max_nodes_per_list: 3}");
    let endpoints = ["a", "b", "c", "d"].map(|name| ["--endpoint", name]).concat();
    let ran = server.pulse(&[&["instance", "set", "--yes", "home"], &endpoints[..]].concat());
    assert!(!ran.is_success() && ran.stderr.contains('3') && ran.stderr.contains('4'), "{ran:?}");
    server.pulse_ok(&[&["instance", "set", "--yes", "home"], &endpoints[..6]].concat());

    let client = Client::register(&server, &join(&server, 1), "a").await;
    let readings = vec![Reading { sensor: "s".into(), ..Reading::default() }; pulse_proto::MAX_READINGS + 1];
    let message = ReportTemperaturesRequest {
        session: uuid::Uuid::now_v7().to_string(),
        sequence: 1,
        reports: vec![NodeReport { readings, ..NodeReport::default() }],
    };
    let status = client.grpc.clone().report_temperatures(client.authorized(message)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "reports");
    assert!(violations[0].description.contains("4096"), "{violations:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_calls_are_answered_while_the_database_is_loaded() {
    let mut server = Server::builder().on_file().start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = join(&server, 1);
    let client = Client::register(&server, &join, "delly").await;
    server.kill();
    // Another program holds the database, so that loading it takes as long as that.
    let database = rusqlite::Connection::open(server.data_dir().join("pulse.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    server.spawn();
    let answer = eventually(PATIENCE, "the port answers", || server.get("/readyz"));
    assert_eq!((answer.status, answer.body.as_str()), (503, r#"{"status":"starting"}"#));
    assert_eq!(server.get("/healthz").unwrap().status, 200);
    let client = client.reconnect(&server).await;
    let status = client.try_watch(Default::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_error_info().unwrap().reason, reason::STARTING);
    assert!(status.get_details_retry_info().and_then(|info| info.retry_delay).is_some());
    database.execute_batch("ROLLBACK").unwrap();
    drop(database);
    eventually(PATIENCE, "the server is ready", || match server.get("/readyz") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(other),
    });
    // The connection of before is served as well.
    client.watch(Default::default()).await.snapshot().await;
}
