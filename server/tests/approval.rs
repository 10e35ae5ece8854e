//! Hosts without a join token: only while a window is open to them, and with nothing but a name until an admin approves
//! them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{NodeReport, Reading, ReportTemperaturesRequest};
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually, in_time};
use serde_json::{Value, json};

/// A server with the instance home: the nodes delly and minipc.
fn home() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    server
}

/// Opens a window; returns the join string.
fn open(server: &Server, options: &[&str]) -> String {
    let opened = server.json(&[&["join", "open"], options].concat());
    opened["join"].as_str().expect("there is a join string").to_owned()
}

fn actions(server: &Server) -> Vec<String> {
    let rows = server.pulse_ok(&["audit", "--json"]);
    let row = |line: &str| serde_json::from_str::<Value>(line).expect("a row is JSON");
    rows.lines().map(|line| row(line)["action"].as_str().expect("a row has an action").to_owned()).collect()
}

/// Registers, and expects to be refused; returns the reason and the text.
fn refused(proxy: &Proxy, join: &str) -> (String, String) {
    let ran = proxy.register_with(join, &["--hostname", "delly", "--json"]);
    let said = ran.json();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let text = |key: &str| said[key].as_str().expect("an error has a reason and a text").to_owned();
    (text("reason"), text("error"))
}

#[test]
fn a_host_without_a_join_token_waits_with_its_static_list_until_it_is_approved() {
    let mut server = home();
    let mut proxy = Proxy::builder("delly").config("allowed_nodes: [minipc]").build();
    let whole = server.join_string(&[]);
    let without_secret = whole.split("&join=").next().expect("it has a beginning").to_owned();
    let (reason, text) = refused(&proxy, &without_secret);
    assert_eq!(reason, "missing_token");
    for way_out in ["pulse join create", "pulse join open", "in quotes"] {
        assert!(text.contains(way_out), "{text}");
    }

    // A window that is open elsewhere is not open here.
    open(&server, &["--from", "192.0.2.0/24", "--from", "2001:db8::/48"]);
    let (reason, text) = refused(&proxy, &without_secret);
    assert_eq!(reason, "missing_token");
    assert!(text.contains("--from"), "{text}");
    let join = open(&server, &["--ttl", "1h", "--from", "127.0.0.0/8"]);
    assert_eq!(join, without_secret, "the join string has no secret");
    assert!(join.contains("?pin=sha256:"), "{join}");
    let listed = server.json(&["join", "list"])["window"].clone();
    assert_eq!((&listed["is_open"], &listed["from"]), (&json!(true), &json!(["127.0.0.0/8"])));
    assert!(server.pulse_ok(&["join", "list"]).contains("from 127.0.0.0/8: open: closes in"));

    let ran = proxy.register_with(&join, &["--hostname", "delly", "--json"]);
    assert!(ran.is_success(), "{ran:?}");
    let id = proxy.id();
    let said = ran.json();
    let waiting = said["waiting"].as_str().expect("it says why there is no list").to_owned();
    assert!(waiting.contains(&format!("pulse proxy approve {id}")), "{waiting}");
    // Though an instance has a node of its name.
    assert_eq!((&said["instance"], &said["nodes"]), (&Value::Null, &Value::Null));
    proxy.start();
    let connected = |shown: &Value| shown["is_connected"] == true;
    let waits = |server: &Server| {
        eventually(PATIENCE, "it waits on its stream", || {
            let shown = server.json(&["proxy", "show", &id]);
            if connected(&shown) { Ok(shown) } else { Err(shown) }
        })
    };
    let shown = waits(&server);
    assert_eq!(
        (&shown["is_approved"], &shown["state"], &shown["waiting"], &shown["instance"]),
        (&json!(false), &json!("NEVER"), &json!(waiting), &Value::Null)
    );
    assert!(server.pulse_ok(&["proxy", "list"]).contains("(not approved)"));
    assert!(server.pulse_ok(&["proxy", "show", "delly"]).contains("registered without a join token"));
    proxy.wait_for_status("its static list counts", |status| status["list"]["source"] == "static");
    let moved = server.pulse(&["proxy", "set", "delly", "--instance", "home"]);
    assert!(!moved.is_success() && moved.stderr.contains("pulse proxy approve"), "{moved:?}");

    // It goes on waiting over a restart, with the window closed.
    server.pulse_ok(&["join", "close"]);
    assert_eq!(refused(&Proxy::builder("delly").build(), &join).0, "missing_token");
    server.kill();
    server.start_again();
    assert_eq!(waits(&server)["waiting"], json!(waiting));
    assert_eq!(server.json(&["join", "list"])["window"]["is_open"], json!(false));

    let before = proxy.process().log().len();
    let approved = server.pulse_ok(&["proxy", "approve", &id]);
    assert!(approved.contains("may read the nodes of instance home"), "{approved}");
    let shown = server.wait_for_state(&id, "IN_SYNC");
    assert_eq!((&shown["is_approved"], &shown["waiting"]), (&json!(true), &Value::Null));
    let log = proxy.process().log().split_off(before);
    assert!(!log.iter().any(|line| line.contains("not reachable")), "on the same stream: {log:#?}");
    assert!(server.pulse_ok(&["audit"]).contains("host:127.0.0.1"));
    let actions = actions(&server);
    for action in ["join.open", "proxy.register", "join.close", "proxy.approve"] {
        assert!(actions.iter().any(|done| done == action), "{action}: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unapproved_proxy_gets_no_list_and_its_reports_are_refused_by_name() {
    let server = home();
    let join = open(&server, &[]);
    let client = Client::register(&server, &join, "delly").await;
    assert!(client.registered.instance.is_none() && !client.token.is_empty());
    let mut watch = client.watch(Default::default()).await;
    let kind = watch.next_kind().await;
    let Kind::Waiting(waiting) = kind else { panic!("not waiting: {kind:?}") };
    assert!(waiting.reason.contains(&format!("pulse proxy approve {}", client.proxy_id)), "{waiting:?}");

    let node = || Some(pulse_test_support::v1::Node { name: "delly".to_owned(), ip: String::new() });
    let report = ReportTemperaturesRequest {
        session: "0192a000-0000-7000-8000-000000000001".to_owned(),
        sequence: 1,
        reports: vec![NodeReport {
            node: node(),
            collected_at: Some(std::time::SystemTime::now().into()),
            readings: vec![Reading {
                sensor: "coretemp-isa-0000/temp1".to_owned(),
                temperature_celsius: 40.0,
                ..Reading::default()
            }],
            ..NodeReport::default()
        }],
    };
    let answer = client.grpc.clone().report_temperatures(client.authorized(report)).await;
    let refused = answer.expect("the report as such is good").into_inner().refused;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].node, node());
    assert_eq!(server.json(&["temps"])["nodes"], json!([]));

    // With the approval the list comes into the open stream; the scope is as it was asked for.
    server.pulse_ok(&["proxy", "approve", &client.proxy_id, "--scope", "all"]);
    let list = watch.snapshot().await;
    assert_eq!((list.scope.as_str(), list.nodes.len()), ("all", 2));
    let again = server.pulse(&["proxy", "approve", &client.proxy_id, "--scope", "instance"]);
    assert!(again.stderr.contains("approved already"), "{again:?}");
    // A host that is waved off hears it as any other.
    let other = Client::register(&server, &join, "minipc").await;
    let mut watch = other.watch(Default::default()).await;
    assert!(matches!(watch.next_kind().await, Kind::Waiting(_)));
    server.pulse_ok(&["proxy", "remove", &other.proxy_id]);
    assert!(matches!(watch.next_kind().await, Kind::Revoked(_)));
    assert_eq!(
        in_time("the end", watch.next()).await.expect_err("it ends").code(),
        tonic::Code::PermissionDenied
    );
}

#[test]
fn a_registration_without_a_secret_waits_for_its_server_and_a_join_token_approves_later() {
    let mut server = home();
    let join = open(&server, &[]);
    server.kill();
    let mut proxy = Proxy::builder("delly").build();
    let (reason, text) = refused(&proxy, &join);
    assert_eq!(reason, "unreachable");
    assert!(text.contains("is kept"), "{text}");
    let path = proxy.state_dir().join("control/pending-registration.json");
    let mode = fs::metadata(&path).expect("it is kept").permissions().mode() & 0o777;
    let kept = fs::read_to_string(&path).expect("it is kept");
    assert_eq!((mode, kept.contains("pjoin_")), (0o600, false), "{kept}");
    proxy.start();
    server.start_again();
    let waiting = eventually(PATIENCE, "it is registered, and waits", || {
        let proxies = server.proxies();
        let is_there = proxies.first().is_some_and(|proxy| proxy["is_connected"] == true);
        if is_there { Ok(proxies[0].clone()) } else { Err(proxies) }
    });
    assert_eq!(waiting["is_approved"], json!(false));
    assert!(!path.exists());

    // A good join token that it brings later approves it, as the proxy that it is.
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    let id = proxy.id();
    assert_eq!(waiting["id"], json!(id));
    assert_eq!(server.wait_for_state(&id, "IN_SYNC")["is_approved"], json!(true));
}

#[test]
fn a_registration_that_waits_beside_a_stream_is_given_up_when_it_is_refused_and_says_which() {
    let mut server = home();
    let mut proxy = Proxy::join(&server, "home", "delly");
    let id = proxy.id();
    server.wait_for_state(&id, "IN_SYNC");
    let used = server.join_string(&[]);
    Proxy::builder("minipc").build().register_ok(&used);
    proxy.terminate();
    assert_eq!(proxy.wait_exit(PATIENCE), Some(0));
    server.kill();
    assert_eq!(refused(&proxy, &used).0, "unreachable");
    server.start_again();
    proxy.start();
    let path = proxy.state_dir().join("control/pending-registration.json");
    eventually(PATIENCE, "it is given up", || {
        let log = proxy.process().log();
        let is_said = log.iter().any(|line| line.contains("is given up") && line.contains("used"));
        if is_said && !path.exists() { Ok(()) } else { Err(log) }
    });
    // It is who it was, and its stream came back meanwhile.
    eventually(PATIENCE, "its stream", || {
        let shown = server.json(&["proxy", "show", &id]);
        if shown["is_connected"] == true && shown["state"] == "IN_SYNC" { Ok(()) } else { Err(shown) }
    });
}
