//! A ctrl token from its first use to its end: rotated, lost on the way, brought by hand, revoked, given back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pulse_proto::{Token, TokenKind};
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{RegisterResponse, RotateTokenRequest};
use pulse_test_support::{Client, PATIENCE, Proxy, Server, connect, eventually, in_time};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn home() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    server
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    text.trim().to_owned()
}

/// Writes a file for its owner alone.
fn write(path: &Path, text: &str) {
    fs::write(path, format!("{text}\n")).expect("a file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
}

fn token_in_use(proxy: &Proxy) -> PathBuf {
    proxy.control_dir().join("token")
}

/// The file with which a person brings a token.
fn token_file(proxy: &Proxy) -> PathBuf {
    proxy.config_path().with_file_name(".pulse-control-token")
}

/// Somebody with this token.
async fn bearer(server: &Server, token: &str) -> Client {
    let registered = RegisterResponse::default();
    Client { grpc: connect(server).await, token: token.to_owned(), proxy_id: String::new(), registered }
}

/// A token of a rotation that the proxy itself never hears of.
async fn rotated(server: &Server, token: &str) -> String {
    let client = bearer(server, token).await;
    let answer = client.grpc.clone().rotate_token(client.authorized(RotateTokenRequest {})).await;
    answer.expect("the token is good").into_inner().ctrl_token
}

async fn is_unknown(server: &Server, token: &str) {
    let status = bearer(server, token).await.try_watch(Default::default()).await.expect_err("it is unknown");
    assert_eq!((status.code(), &*reason_of(&status)), (Code::Unauthenticated, "UNKNOWN_TOKEN"), "{status:?}");
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Waits until the proxy has a stream and the newest list in force.
fn works(server: &Server, id: &str, what: &str) -> Value {
    eventually(PATIENCE, what, || {
        let shown = server.json(&["proxy", "show", id]);
        if shown["is_connected"] == true && shown["state"] == "IN_SYNC" { Ok(shown) } else { Err(shown) }
    })
}

fn is_gone(server: &Server, id: &str) {
    eventually(PATIENCE, "its stream is over", || {
        let shown = server.json(&["proxy", "show", id]);
        if shown["is_connected"] == false { Ok(()) } else { Err(shown) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_by_an_admin_reaches_the_proxy_now_or_when_it_is_back() {
    let server = home();
    let mut proxy = Proxy::join(&server, "home", "delly");
    let id = proxy.id();
    works(&server, &id, "it runs");
    let first = read(&token_in_use(&proxy));
    let settled = |before: &str| {
        eventually(PATIENCE, "it has a new token, and the one before is forgotten", || {
            let token = read(&token_in_use(&proxy));
            let has_previous = proxy.control_dir().join("token.previous").exists();
            let shown = server.json(&["proxy", "show", &id]);
            let is_asked = shown["is_rotation_requested"] == true;
            let is_there = token != before && !has_previous && !is_asked && shown["is_connected"] == true;
            if is_there { Ok(token) } else { Err((shown, has_previous)) }
        })
    };
    server.pulse_ok(&["proxy", "rotate", "delly"]);
    let second = settled(&first);
    is_unknown(&server, &first).await;

    proxy.kill();
    is_gone(&server, &id);
    server.pulse_ok(&["proxy", "rotate", "delly"]);
    assert!(server.pulse_ok(&["proxy", "show", "delly"]).contains("a new one is asked for"));
    proxy.start();
    let third = eventually(PATIENCE, "it took another token", || {
        let token = read(&token_in_use(&proxy));
        let shown = server.json(&["proxy", "show", &id]);
        let is_there = token != second && shown["is_rotation_requested"] == false;
        if is_there { Ok(token) } else { Err(shown) }
    });
    is_unknown(&server, &second).await;
    assert!(
        !server
            .process()
            .log()
            .iter()
            .any(|line| [&first, &second, &third].iter().any(|t| line.contains(*t)))
    );
    // The file that carries a token is no news by itself.
    works(&server, &id, "it goes on");
    assert_eq!(read(&token_file(&proxy)), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_works_after_a_kill_at_any_step_of_a_rotation() {
    let server = home();
    let mut proxy = Proxy::join(&server, "home", "delly");
    let id = proxy.id();
    works(&server, &id, "it runs");
    let (token, previous) = (token_in_use(&proxy), proxy.control_dir().join("token.previous"));
    for step in [
        "the server has a new token, and its answer was lost",
        "the old token stands beside itself",
        "the new token is in its place, and was never used",
        "the new token was used, and the old one stands beside it still",
        "the new token was used, and the old one is forgotten",
        "the new token was not used in time, and the server dropped it",
    ] {
        // A lost answer does not disturb a stream.
        let old = read(&token);
        let new = rotated(&server, &old).await;
        let (is_in_place, is_used) = match step {
            "the server has a new token, and its answer was lost" => {
                works(&server, &id, step);
                (false, false)
            }
            "the old token stands beside itself" => (false, false),
            "the new token is in its place, and was never used" => (true, false),
            "the new token was not used in time, and the server dropped it" => (true, false),
            _ => (true, true),
        };
        proxy.kill();
        is_gone(&server, &id);
        if !step.contains("its answer was lost") && !step.contains("is forgotten") {
            write(&previous, &old);
        }
        if is_in_place {
            write(&token, &new);
        }
        if is_used {
            bearer(&server, &new).await.watch(Default::default()).await.snapshot().await;
            is_gone(&server, &id);
        }
        if step.contains("the server dropped it") {
            rotated(&server, &old).await;
        }
        proxy.start();
        works(&server, &id, step);
        let expected = if is_in_place && !step.contains("the server dropped it") { new } else { old };
        eventually(PATIENCE, &format!("one token is left: {step}"), || {
            let seen = (read(&token) == expected, previous.exists());
            if seen == (true, false) { Ok(()) } else { Err(seen) }
        });
    }
    assert_eq!(server.proxies().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_removed_and_unknown_are_told_apart_over_a_restart_too() {
    let mut server = home();
    let join = server.join_string(&["--instance", "home", "--uses", "2"]);
    let revoked = Client::register(&server, &join, "delly").await;
    let removed = Client::register(&server, &join, "minipc").await;
    server.pulse_ok(&["proxy", "revoke", &revoked.proxy_id]);
    server.pulse_ok(&["proxy", "remove", &removed.proxy_id]);
    for _ in 0..2 {
        for client in [&revoked, &removed] {
            let client = client.reconnect(&server).await;
            let mut watch = client.watch(Default::default()).await;
            assert!(matches!(watch.next_kind().await, Kind::Revoked(_)));
            let status = in_time("the end", watch.next()).await.expect_err("the stream ends");
            assert_eq!((status.code(), &*reason_of(&status)), (Code::PermissionDenied, "PROXY_REVOKED"));
            let rotate = client.grpc.clone().rotate_token(client.authorized(RotateTokenRequest {})).await;
            assert_eq!(rotate.expect_err("it may do nothing").code(), Code::PermissionDenied);
        }
        let nobodys = Token::generate(TokenKind::Ctrl).expect("a token");
        is_unknown(&server, nobodys.reveal()).await;
        server.kill();
        server.start_again();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_registers_anew_ends_the_stream_of_its_earlier_token() {
    let server = home();
    let join = server.join_string(&["--instance", "home", "--uses", "2"]);
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&join);
    proxy.start();
    works(&server, &proxy.id(), "it runs");
    let thief = bearer(&server, &read(&token_in_use(&proxy))).await;
    let mut stolen = thief.watch(Default::default()).await;
    stolen.snapshot().await;
    proxy.kill();
    fs::remove_dir_all(proxy.state_dir()).expect("a folder can be removed");
    fs::remove_file(token_file(&proxy)).expect("a file can be removed");
    proxy.register_ok(&join);
    let id = proxy.id();
    let status = loop {
        match in_time("the end", stolen.next()).await {
            Ok(message) => assert!(message.is_some(), "it ends with a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), &*reason_of(&status)), (Code::Unauthenticated, "UNKNOWN_TOKEN"), "{status:?}");
    proxy.start();
    works(&server, &id, "it runs with its new token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_person_brings_is_taken_up_while_the_proxy_runs() {
    let server = home();
    let proxy = Proxy::join(&server, "home", "delly");
    let id = proxy.id();
    works(&server, &id, "it runs");
    let (path, own) = (token_file(&proxy), read(&token_file(&proxy)));

    // Damaged, and then missing: said once, and the one in use stays.
    write(&path, "pctl_tooshort");
    eventually(PATIENCE, "it is said", || {
        let log = proxy.process().log();
        if log.iter().any(|line| line.contains("the token file is not used")) { Ok(()) } else { Err(log) }
    });
    let changed = |endpoints: &[&str]| {
        server.pulse_ok(&[&["instance", "set", "--yes", "home"], endpoints].concat());
        server.wait_for_applied(&id, server.allowlist("home")["hash"].as_str().expect("a list has a hash"));
    };
    changed(&["--endpoint", "delly", "--endpoint", "nas"]);
    let said =
        proxy.process().log().iter().filter(|line| line.contains("the token file is not used")).count();
    assert_eq!(said, 1);
    assert!(!proxy.process().log().iter().any(|line| line.contains("tooshort")));
    fs::remove_file(&path).expect("a file can be removed");
    changed(&["--endpoint", "delly", "--endpoint", "minipc"]);
    assert_eq!(read(&token_in_use(&proxy)), own);

    // One of the same proxy, of a rotation elsewhere.
    let new = rotated(&server, &own).await;
    write(&path, &new);
    eventually(PATIENCE, "it is taken up", || {
        let in_use = read(&token_in_use(&proxy));
        if in_use == new { Ok(()) } else { Err("the old one") }
    });
    works(&server, &id, "it goes on with it");
    is_unknown(&server, &own).await;

    // Another proxy's token is a good one too: from now on this host is that proxy.
    let join = server.join_string(&["--instance", "home"]);
    let other = Client::register(&server, &join, "minipc").await;
    write(&path, &other.token);
    works(&server, &other.proxy_id, "it is the other proxy");
    is_gone(&server, &id);
    write(&path, &new);
    works(&server, &id, "it is itself again");

    // And one that nobody knows is said, until a better one comes.
    let nobodys = Token::generate(TokenKind::Ctrl).expect("a token");
    write(&path, nobodys.reveal());
    eventually(PATIENCE, "it is said", || {
        let log = proxy.process().log();
        let is_said = log.iter().any(|line| line.contains("does not know this proxy's token"));
        if is_said { Ok(()) } else { Err(log) }
    });
    assert_ne!(proxy.status()["list"]["nodes"], json!([]), "it works on with its list");
    write(&path, &new);
    works(&server, &id, "it is itself again");
}

#[test]
fn a_host_that_unregisters_reads_nothing_until_it_is_registered_again() {
    let mut server = home();
    let mut proxy = Proxy::builder("delly").config("allowed_nodes: [delly, 127.0.0.1]").join(&server, "home");
    let id = proxy.id();
    works(&server, &id, "it runs");

    // With the server away nothing is changed.
    server.kill();
    let ran = proxy.proxy("unregister", &["--json"]);
    assert_eq!((ran.code, &ran.json()["reason"]), (Some(1), &json!("unreachable")), "{ran:?}");
    server.start_again();
    works(&server, &id, "it is back");

    let ran = proxy.proxy("unregister", &[]);
    assert!(ran.is_success() && ran.stdout.contains("registered again"), "{ran:?}");
    assert_eq!(server.proxies(), [json!(null); 0]);
    let closed = |status: &Value| {
        status["running"] == true && status["revoked"].is_string() && status["list"]["nodes"] == json!([])
    };
    proxy.wait_for_status("the running proxy knows it", closed);
    proxy.terminate();
    assert_eq!(proxy.wait_exit(PATIENCE), Some(0));
    proxy.start();
    proxy.wait_for_status("it knows it after a restart, and the static list is no way around", closed);
    // Again, as after an answer that was lost.
    assert!(proxy.proxy("unregister", &[]).is_success());

    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    assert_ne!(proxy.id(), id, "it was taken off for good");
    works(&server, &proxy.id(), "it is registered again");
    let stranger = Proxy::builder("attic").build().proxy("unregister", &["--json"]);
    assert_eq!((stranger.code, &stranger.json()["reason"]), (Some(2), &json!("not_registered")));
}
