//! What is there for older installs beside the list: files for installers, and a port in plain text that has nothing else.

#[path = "support/older.rs"]
mod older;

use std::net::SocketAddr;
use std::os::unix::fs::symlink;

use older::{NODES, Older, REGISTER, grep, join_token, refused};
use pulse_proto::hash::sha256;
use pulse_proto::hex;
use pulse_test_support::{Port, Server, ask_in_plain_text};
use serde_json::json;

#[test]
fn installers_fetch_their_files_with_checksums_and_nothing_else() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("install");
    std::fs::create_dir(&folder).unwrap();
    let program: String = (0..300_000).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    std::fs::write(folder.join("pulse-sensor-proxy-linux-amd64"), &program).unwrap();
    std::fs::write(folder.join("install-sensor-proxy.sh"), "#!/bin/sh\n").unwrap();
    std::fs::write(outer.path().join("secret"), "hidden").unwrap();
    symlink(outer.path().join("secret"), folder.join("link")).unwrap();
    let server = Server::builder().config(&format!("install_dir: {}", folder.display())).start();

    let fetched = server.get("/api/install/pulse-sensor-proxy?arch=linux-amd64").unwrap();
    assert!(fetched.status == 200 && fetched.body == program, "{}", fetched.head);
    let sum = hex::encode(&sha256(program.as_bytes()));
    assert_eq!(fetched.header("x-checksum-sha256"), Some(&*sum));
    assert_eq!(fetched.header("content-length"), Some("300000"));
    let head = server.ask("HEAD", "/api/install/pulse-sensor-proxy?arch=linux-amd64", &[], "").unwrap();
    assert_eq!((head.status, head.header("content-length"), &*head.body), (200, Some("300000"), ""));
    let tag = fetched.header("etag").unwrap();
    let again = server
        .ask("GET", "/api/install/pulse-sensor-proxy-linux-amd64", &[("if-none-match", tag)], "")
        .unwrap();
    assert_eq!((again.status, &*again.body), (304, ""));
    let text = server.get("/api/install/pulse-sensor-proxy-linux-amd64.sha256").unwrap().body;
    assert_eq!(text, format!("{sum}  pulse-sensor-proxy-linux-amd64\n"));
    let script = server.get("/api/install/install-sensor-proxy.sh").unwrap();
    assert_eq!(script.header("content-type"), Some("text/x-shellscript; charset=utf-8"));

    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//etc/passwd",
        "/link",
        "/link.sha256",
        "/missing",
        "/",
    ] {
        let answer = server.get(&format!("/api/install{path}")).unwrap();
        assert!(answer.status == 404 && !answer.body.contains("hidden"), "{path}: {answer:?}");
    }
    let missing = server.get("/api/install/migrate-temperature-proxy.sh").unwrap();
    assert!(missing.body.contains("install_dir"), "{missing:?}");
}

/// Asks the port in plain text.
fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> pulse_test_support::Answer {
    ask_in_plain_text(at, method, path, headers, body).expect("the port answers")
}

#[test]
fn the_port_in_plain_text_serves_older_proxies_and_nothing_else_and_is_said_loudly() {
    let port = Port::take();
    let server = Server::builder().argument("--legacy-http").argument(&port.address().to_string()).start();
    let at = port.address();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = join_token(&server, &["--instance", "home"]);
    let body = json!({"hostname": "delly"}).to_string();
    let answer = ask(at, "POST", REGISTER, &[("x-join-token", &join)], &body);
    assert_eq!((answer.status, grep(&answer.body, "pve_instance")), (200, Some("home")));
    let older = Older::of(&answer);
    let plain = ask(at, "GET", NODES, &[("x-proxy-token", &older.token)], "");
    let over_tls = older.pull(&server);
    assert_eq!((plain.status, &plain.json()["hash"]), (200, &over_tls.json()["hash"]));
    refused(&ask(at, "GET", NODES, &[], ""), 401, "missing_token");
    assert_eq!(ask(at, "GET", "/api/install/missing", &[], "").status, 404);

    let rpc = "/pulse.control.v1.ControlPlaneService/Register";
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/temperature-proxyx",
        "/api/installx",
        rpc,
    ] {
        let answer = ask(at, "GET", path, &[], "");
        assert!(answer.status == 404 && answer.body.contains("https://"), "{path}: {answer:?}");
    }
    let metrics = server.metrics();
    assert_eq!(metrics.value("pulse_legacy_http_requests_total"), 12.0);
    let status = server.json(&["status"]);
    assert_eq!(
        (&status["legacy_http"], &status["legacy_http_requests"]),
        (&json!(at.to_string()), &json!(12))
    );
    let shown = server.pulse_ok(&["status"]);
    assert!(shown.contains("WARNING") && shown.contains("in plain text"), "{shown}");
    assert!(server.process().has_said("older proxies are served in plain text"));
}

#[test]
fn without_being_asked_for_there_is_no_port_in_plain_text() {
    let server = Server::start();
    assert_eq!(server.json(&["status"])["legacy_http"], json!(null));
    assert!(!server.pulse_ok(&["status"]).contains("WARNING"));
}
