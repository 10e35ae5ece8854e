//! Hosts that an older installer registers, by a plain HTTP client: what the installer reads, each mistake, and hosts that
//! nobody knows yet.

#[path = "support/older.rs"]
mod older;

use older::{NODES, Older, REGISTER, grep, join_token, pull, refused, register};
use pulse_test_support::Server;
use serde_json::{Value, json};

/// Many mistakes of one address are what these tests are about.
fn server(config: &str) -> Server {
    Server::builder().config(&format!("limits: {{failed_calls_per_minute: 1000{config}}}")).start()
}

#[test]
fn an_api_token_that_may_register_is_as_good_as_a_join_token_and_no_other_one_is() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let register = |scope: &str| {
        let made = server.json(&["token", "create", scope, "--scope", scope]);
        let bearer = format!("Bearer {}", made["secret"].as_str().expect("it is shown once"));
        server.ask("POST", REGISTER, &[("authorization", &bearer)], r#"{"hostname":"delly"}"#).unwrap()
    };
    let refused = register("settings:write");
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("missing_scope")), "{refused:?}");
    let answer = register("proxies:register");
    assert_eq!((answer.status, &answer.json()["pve_instance"]), (200, &json!("home")), "{answer:?}");
    let proxy = &server.proxies()[0];
    assert_eq!((&proxy["hostname"], &proxy["is_approved"]), (&json!("delly"), &json!(true)), "{proxy}");
    let rows = server.admin("GET", "/audit", None).unwrap().json();
    let rows = rows["rows"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["action"] == "proxy.register").expect("it is noted");
    assert!(row["actor"].as_str().is_some_and(|actor| actor.starts_with("token:")), "{row}");
    let tokens = server.json(&["token", "list"]);
    let used = |name: &str| {
        let mut all = tokens["api_tokens"].as_array().into_iter().flatten();
        let one = all.find(|one| one["name"] == name).expect("it is listed");
        (one["last_used_at"].is_string(), one["last_used_from"].as_str())
    };
    assert_eq!(used("proxies:register"), (true, Some("127.0.0.1")), "{tokens}");
    assert_eq!(used("settings:write"), (false, None), "it was good for nothing: {tokens}");
}

#[test]
fn an_installer_finds_with_grep_what_it_writes_down() {
    let server = server("");
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=192.168.0.5", "--endpoint", "minipc"]);
    let join = join_token(&server, &["--instance", "home", "--uses", "5"]);
    let answer = register(&server, &join, &json!({"hostname": "delly", "later": [1]}));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert!(!answer.body.contains("\": ") && !answer.body.contains('\n'), "{}", answer.body);
    let found = |key| grep(&answer.body, key);
    assert!(
        found("ctrl_token").unwrap().starts_with("pctl_") && found("ctrl_token") == found("control_token")
    );
    assert_eq!((found("token"), found("refresh_interval")), (Some(""), Some("5")));
    assert_eq!((found("success"), found("pve_instance")), (Some("true"), Some("home")));
    assert_eq!(found("instance_id"), found("proxy_id"));
    let nodes = json!([{"name": "delly", "ip": "192.168.0.5"}, {"name": "minipc", "ip": ""}]);
    assert_eq!(answer.json()["allowed_nodes"], nodes);
    assert!(answer.json()["message"].as_str().unwrap().contains("home"));

    // It is a proxy like any other, and its token is good for what the others' is.
    let older = Older::of(&answer);
    let shown = server.json(&["proxy", "show", &older.id]);
    assert_eq!(
        (&shown["hostname"], &shown["instance"], &shown["kind"]),
        (&json!("delly"), &json!("home"), &json!("socket"))
    );
    assert_eq!((&shown["state"], &shown["transport"]), (&json!("NEVER"), &Value::Null));
    assert_eq!(older.pull(&server).status, 200);

    // With a URL it is in HTTP mode, in which Pulse gives it the bearer of its own listener.
    for body in [
        json!({"hostname": "minipc", "proxy_url": "HTTPS://minipc:8443"}),
        json!({"hostname": "minipc", "proxy_url": "https://minipc:8443", "mode": "http"}),
        json!({"hostname": "minipc", "proxy_url": "https://minipc:8443", "kind": "http", "mode": "socket"}),
    ] {
        let bearer = format!("Bearer {join}");
        let answer = server.ask("POST", REGISTER, &[("authorization", &bearer)], &body.to_string()).unwrap();
        assert!(grep(&answer.body, "token").is_some_and(|token| token.len() > 40), "{answer:?}");
        let shown = server.json(&["proxy", "show", &Older::of(&answer).id]);
        assert_eq!((&shown["kind"], &shown["proxy_url"]), (&json!("http"), &json!("https://minipc:8443")));
    }
    let socket = json!({"hostname": "other", "proxy_url": "https://minipc:8443", "kind": "socket"});
    let shown = server.json(&["proxy", "show", &Older::of(&register(&server, &join, &socket)).id]);
    assert_eq!((&shown["kind"], &shown["proxy_url"]), (&json!("socket"), &json!("")));
}

fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> pulse_test_support::Answer {
    server.ask(method, path, headers, r#"{"hostname":"delly"}"#).expect("the server answers")
}

#[test]
fn each_mistake_has_the_code_that_installers_know_and_uses_no_join_token() {
    let server = server("");
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = join_token(&server, &["--instance", "home"]);
    let large = format!(r#"{{"hostname":"delly","padding":"{}"}}"#, "x".repeat(8 * 1024));
    let deep = "[".repeat(8_000);
    for (body, code) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        (r#"{"hostname":7}"#, "invalid_json"),
        (r#"{"hostname":"a","hostname":"b"}"#, "invalid_json"),
        (&*deep, "invalid_json"),
        (&*large, "invalid_json"),
        ("{}", "missing_hostname"),
        (r#"{"hostname":" "}"#, "missing_hostname"),
        (r#"{"hostname":null}"#, "missing_hostname"),
        (r#"{"hostname":"delly","mode":"http"}"#, "missing_proxy_url"),
        (r#"{"hostname":"delly","proxy_url":"http://delly:8443"}"#, "invalid_proxy_url"),
        (r#"{"hostname":"delly","proxy_url":"delly"}"#, "invalid_proxy_url"),
        (r#"{"hostname":"delly","proxy_url":"https://"}"#, "invalid_proxy_url"),
        (r#"{"hostname":"delly","proxy_url":"https://a/\"><script>"}"#, "invalid_proxy_url"),
        (r#"{"hostname":"delly","proxy_url":"äääää"}"#, "invalid_proxy_url"),
        (r#"{"hostname":"delly","kind":"carrier pigeon"}"#, "invalid_request"),
        (r#"{"hostname":"de lly"}"#, "invalid_request"),
        (r#"{"hostname":"delly","machine_id":"x"}"#, "invalid_request"),
    ] {
        let answer = server.ask("POST", REGISTER, &[("x-join-token", &join)], body).unwrap();
        refused(&answer, 400, code);
    }
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| ask(&server, method, path, headers);
    refused(
        &ask("POST", &format!("{REGISTER}?wait=perhaps"), &[("x-join-token", &join)]),
        400,
        "invalid_request",
    );
    for method in ["GET", "PUT", "DELETE"] {
        let answer = ask(method, REGISTER, &[("x-join-token", &join)]);
        refused(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    refused(&ask("POST", REGISTER, &[("x-join-token", "pjoin_x")]), 401, "invalid_token");
    let unknown = |prefix: &str| format!("{prefix}{}", "A".repeat(43));
    refused(&ask("POST", REGISTER, &[("x-join-token", &unknown("pjoin_"))]), 401, "invalid_token");
    refused(
        &ask("POST", REGISTER, &[("authorization", &format!("Bearer {}", unknown("papi_")))]),
        401,
        "invalid_token",
    );
    refused(
        &ask("POST", REGISTER, &[("authorization", &format!("Bearer {}", unknown("pdbg_")))]),
        401,
        "invalid_token",
    );
    refused(
        &ask("POST", REGISTER, &[("x-join-token", &join), ("origin", "https://evil")]),
        403,
        "browser_refused",
    );
    for nothing in ["/api/temperature-proxy/host-status", "/api/temperature-proxy/", "/api/temperature-proxy"]
    {
        refused(&ask("POST", nothing, &[]), 404, "not_found");
    }
    assert_eq!(server.proxies(), Vec::<Value>::new());

    Older::register(&server, &join, "delly");
    refused(&register(&server, &join, &json!({"hostname": "other"})), 401, "join_token_used");
}

#[test]
fn without_a_credential_the_way_out_is_named_and_a_window_lets_hosts_wait() {
    let server = server("");
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let ask = |hostname: &str| {
        let body = json!({ "hostname": hostname }).to_string();
        server.ask("POST", REGISTER, &[], &body).unwrap()
    };
    let text = refused(&ask("delly"), 401, "missing_token");
    assert!(text.contains("pulse join create") && text.contains("pulse join open"), "{text}");

    server.pulse_ok(&["join", "open"]);
    let answer = ask("delly");
    assert_eq!((answer.status, grep(&answer.body, "pve_instance")), (200, Some("")));
    assert!(answer.json()["message"].as_str().unwrap().contains("approval"), "it says for what it waits");
    let older = Older::of(&answer);
    let text = refused(&older.pull(&server), 409, "waiting");
    assert!(text.contains("pulse proxy approve"), "{text}");
    server.pulse_ok(&["proxy", "approve", &older.id]);
    assert_eq!(older.pull(&server).json()["nodes"], json!([{"name": "delly", "ip": ""}]));
}

#[test]
fn a_host_that_nobody_knows_waits_unless_its_installer_will_not() {
    let server = server("");
    server.pulse_ok(&["instance", "add", "other", "--endpoint", "pve10.lan=10.0.0.10"]);
    let join = join_token(&server, &["--uses", "9"]);
    let refusing = format!("{REGISTER}?wait=false");
    // A part of a name, or of an address, is no match.
    for hostname in ["pve1", "pve10", "https", "8006", "10.0.0.1", "lan"] {
        let body = json!({ "hostname": hostname }).to_string();
        let answer = server.ask("POST", &refusing, &[("x-join-token", &join)], &body).unwrap();
        let text = refused(&answer, 404, "pve_instance_not_found");
        assert!(text.contains(hostname) && text.contains("pulse instance"), "{text}");
    }
    assert_eq!(server.proxies(), Vec::<Value>::new());
    assert_eq!(server.json(&["join", "list"])["join_tokens"][0]["used"], 0);

    let answer = register(&server, &join, &json!({"hostname": "pve1"}));
    let waiting = Older::of(&answer);
    assert_eq!((answer.status, grep(&answer.body, "pve_instance")), (200, Some("")));
    assert_eq!(answer.json()["allowed_nodes"], json!([]));
    // Not an empty list: an older proxy keeps what it has on every answer but 200.
    refused(&waiting.pull(&server), 409, "waiting");
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "PVE1"]);
    let answer = waiting.pull(&server);
    assert_eq!((answer.status, answer.json()["instance"].clone()), (200, json!("home")));
    let body = json!({"hostname": "PVE10.lan"}).to_string();
    let answer = server.ask("POST", &refusing, &[("x-join-token", &join)], &body).unwrap();
    assert_eq!((answer.status, grep(&answer.body, "pve_instance")), (200, Some("other")));
}

#[test]
fn an_installer_that_runs_again_leaves_no_dead_proxy_behind_and_takes_no_living_ones_token() {
    let server = server("");
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = join_token(&server, &["--instance", "home", "--uses", "9"]);
    let first = Older::register(&server, &join, "delly");
    // It failed after that, and nobody worked with the token yet.
    let second = Older::register(&server, &join, "DELLY");
    assert!(first.id == second.id && first.token != second.token);
    refused(&first.pull(&server), 401, "invalid_token");
    assert_eq!(second.pull(&server).status, 200);
    // Now somebody does, and a name proves nothing.
    let third = Older::register(&server, &join, "delly");
    assert_ne!(third.id, second.id);
    assert_eq!(second.pull(&server).status, 200);
    // With its token the host is itself, and keeps it.
    let headers = [("x-join-token", &*join), ("x-proxy-token", &*second.token)];
    let answer = server.ask("POST", REGISTER, &headers, r#"{"hostname":"delly"}"#).unwrap();
    let again = Older::of(&answer);
    assert_eq!((&again.id, &again.token), (&second.id, &second.token));
    // A newer installer says the machine id, and needs no more.
    let body = json!({"hostname": "minipc", "machine_id": "ab".repeat(32)});
    let (before, after) = (register(&server, &join, &body), register(&server, &join, &body));
    assert_eq!(Older::of(&before).id, Older::of(&after).id);
    assert_eq!(server.proxies().len(), 3);
}

#[test]
fn a_host_that_registers_too_often_and_an_address_without_a_token_are_told_when_to_come_back() {
    let server = Server::builder()
        .config("limits: {registration_burst: 2, registration_interval: 30s, failed_calls_per_minute: 3}")
        .start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = join_token(&server, &["--uses", "9"]);
    let wait = |answer: &pulse_test_support::Answer| {
        refused(answer, 429, "rate_limited");
        answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok()).expect("it says when")
    };
    for _ in 0..2 {
        Older::register(&server, &join, "delly");
    }
    let seconds = wait(&register(&server, &join, &json!({"hostname": "delly"})));
    assert!((1..=30).contains(&seconds), "{seconds}");
    let minipc = Older::register(&server, &join, "minipc");
    for _ in 0..3 {
        refused(&server.get(NODES).unwrap(), 401, "missing_token");
    }
    let seconds = wait(&server.get(NODES).unwrap());
    assert!((1..=60).contains(&seconds), "{seconds}");
    wait(&server.ask("POST", REGISTER, &[], r#"{"hostname":"delly"}"#).unwrap());
    // Good tokens still pass.
    assert_ne!(pull(&server, &minipc.token).status, 429);
    let metrics = server.metrics();
    assert_eq!(metrics.value(r#"pulse_rate_limited_total{bucket="registration"}"#), 1.0);
    assert_eq!(metrics.value(r#"pulse_rate_limited_total{bucket="failed_call"}"#), 2.0);
}
