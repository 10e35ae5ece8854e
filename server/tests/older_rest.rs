//! A proxy that polls as older ones do: it sees what a proxy with a stream sees, is shown as a proxy like any other, is held
//! to its own limits, and can report and say goodbye.

#[path = "support/older.rs"]
mod older;

use older::{NODES, Older, REPORT, UNREGISTER, join_token, pull, refused};
use pulse_test_support::{Answer, Client, PATIENCE, Server, eventually};
use serde_json::{Value, json};

fn server(config: &str) -> Server {
    let server = Server::builder().config(config).start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=192.168.0.5", "--endpoint", "minipc"]);
    server
}

/// An older proxy of the instance home.
fn older(server: &Server) -> Older {
    Older::register(server, &join_token(server, &["--instance", "home"]), "delly")
}

fn header(answer: &Answer, name: &str) -> String {
    answer.header(name).unwrap_or_else(|| panic!("{name} is missing in {answer:?}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_polls_and_who_watches_see_the_same_list_and_hash_at_the_same_revision() {
    let server = server("limits: {pull_burst: 100}");
    let older = older(&server);
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "minipc").await;
    let mut watch = client.watch(Default::default()).await;
    let mut seen = None;
    for nodes in [
        &["delly=192.168.0.5", "minipc"][..],
        &["delly=192.168.0.5"],
        &["pve1=10.0.0.11", "pve2"],
        &["delly"],
    ] {
        if seen.is_some() {
            let set = ["instance", "set", "home", "--yes"].into_iter();
            server.pulse_ok(
                &set.chain(nodes.iter().flat_map(|node| ["--endpoint", *node])).collect::<Vec<_>>(),
            );
        }
        let pushed = watch.snapshot().await;
        let answer = older.pull(&server);
        let polled = answer.json();
        assert_eq!(polled["hash"], pushed.hash);
        assert_eq!(header(&answer, "x-pulse-revision"), pushed.revision.to_string());
        assert_eq!(header(&answer, "x-pulse-epoch"), pushed.epoch.to_string());
        let listed: Vec<Value> =
            pushed.nodes.iter().map(|node| json!({"name": node.name, "ip": node.ip})).collect();
        assert_eq!(polled["nodes"], json!(listed));
        assert_eq!((&polled["instance"], &polled["refresh_interval"]), (&json!("home"), &json!(5)));
        assert_ne!(Some(&pushed.hash), seen.as_ref());
        seen = Some(pushed.hash);

        // The same kind of thing in the list of proxies; one of them has a stream, the other one asks.
        client.report_applied(&watch_list(&server)).await;
        let both = eventually(PATIENCE, "both are in sync", || {
            let proxies = server.proxies();
            if proxies.iter().all(|proxy| proxy["state"] == "IN_SYNC") { Ok(proxies) } else { Err(proxies) }
        });
        let of = |id: &str| both.iter().find(|proxy| proxy["id"] == id).expect("it is listed");
        let (polling, watching) = (of(&older.id), of(&client.proxy_id));
        assert_eq!(polling["applied"]["hash"], watching["applied"]["hash"]);
        assert_eq!(polling["pushed"]["revision"], watching["pushed"]["revision"]);
        assert_eq!((&polling["transport"], &watching["transport"]), (&json!("rest"), &json!("grpc")));
        assert_eq!((&polling["is_connected"], &watching["is_connected"]), (&json!(false), &json!(true)));
        assert_eq!(polling["list_source"], "pulled");
    }
    let shown = server.pulse_ok(&["proxy", "show", &older.id]);
    assert!(shown.contains("over the paths of older proxies"), "{shown}");
}

/// The newest list of the instance home, as a proxy says that it has it.
fn watch_list(server: &Server) -> pulse_test_support::v1::AllowlistSnapshot {
    let list = server.allowlist("home");
    let number = |key: &str| list[key].as_u64().expect("a list has it");
    let text = |key: &str| list[key].as_str().expect("a list has it").to_owned();
    pulse_test_support::v1::AllowlistSnapshot {
        epoch: number("epoch"),
        scope: text("scope"),
        revision: number("revision"),
        hash: text("hash"),
        ..Default::default()
    }
}

#[test]
fn an_answer_is_what_older_proxies_read_and_says_when_nothing_is_new() {
    let mut server = server("");
    let older = older(&server);
    let answer = older.pull(&server);
    assert_eq!((answer.status, header(&answer, "content-type").as_str()), (200, "application/json"));
    assert!(
        !answer.body.contains("\": ") && answer.body.contains("\"refresh_interval\":5,"),
        "{}",
        answer.body
    );
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["generated_at", "hash", "instance", "nodes", "refresh_interval", "updated_at"]);
    for at in ["generated_at", "updated_at"] {
        let at: Result<jiff::Timestamp, _> = body[at].as_str().unwrap().parse();
        assert!(at.is_ok(), "{body}");
    }
    let tag = header(&answer, "etag");
    let first = server.json(&["proxy", "show", &older.id]);

    let same = older.pull_if_new(&server, &tag);
    assert_eq!((same.status, same.body.as_str(), header(&same, "etag")), (304, "", tag.clone()));
    assert_eq!(older.pull_if_new(&server, &format!("\"{}\"", body["hash"].as_str().unwrap())).status, 304);
    let second = server.json(&["proxy", "show", &older.id]);
    assert!(second["last_pull_at"].as_str() > first["last_pull_at"].as_str(), "a 304 is a pull: {second}");
    assert_eq!(second["applied"], first["applied"]);

    // A name that is shown, and an interval, are part of the answer though the list is the same.
    server.pulse_ok(&[
        "instance",
        "add",
        "office",
        "--endpoint",
        "delly=192.168.0.5",
        "--endpoint",
        "minipc",
    ]);
    server.pulse_ok(&["proxy", "set", &older.id, "--instance", "office"]);
    let moved = older.pull_if_new(&server, &tag);
    assert_eq!(
        (moved.status, &moved.json()["hash"], &moved.json()["instance"]),
        (200, &body["hash"], &json!("office"))
    );
    let tag = header(&moved, "etag");
    server.pulse_ok(&["instance", "set", "office", "--yes", "--endpoint", "delly"]);
    assert_eq!(older.pull_if_new(&server, &tag).status, 200);

    for method in ["HEAD", "POST", "DELETE"] {
        let answer = older.ask(&server, method, NODES, "");
        assert_eq!((answer.status, header(&answer, "allow").as_str()), (405, "GET"));
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
    let by_bearer = older.ask(&server, "GET", NODES, "");
    assert_eq!(by_bearer.status, 200);

    // What was pulled is known after a restart.
    server.terminate();
    server.wait_exit(PATIENCE);
    server.start_again();
    let shown = server.json(&["proxy", "show", &older.id]);
    assert_eq!((&shown["state"], &shown["transport"]), (&json!("IN_SYNC"), &json!("rest")));
}

#[test]
fn a_proxy_may_ask_so_often_and_one_that_may_not_ask_is_told_why() {
    let server = server("");
    let other = Older::register(&server, &join_token(&server, &["--instance", "home"]), "minipc");
    let older = older(&server);
    refused(&server.get(NODES).unwrap(), 401, "missing_token");
    for unknown in ["x", &"a".repeat(44), &format!("pctl_{}", "A".repeat(43))] {
        let text = refused(&pull(&server, unknown), 401, "invalid_token");
        assert!(!text.contains(&"a".repeat(44)), "{text}");
    }
    let answers: Vec<Answer> = (0..14).map(|_| older.pull(&server)).collect();
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    // One comes back each 5 s, however long the others took.
    assert!((12..14).contains(&taken), "{taken}");
    let last = &answers[13];
    refused(last, 429, "rate_limited");
    let wait: u64 = header(last, "retry-after").parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait}");
    assert_eq!(other.pull(&server).status, 200, "another one is not held up");
    assert!(server.metrics().value(r#"pulse_rate_limited_total{bucket="pull"}"#) >= 1.0);

    server.pulse_ok(&["proxy", "revoke", &other.id]);
    let text = refused(&other.pull(&server), 403, "proxy_revoked");
    assert!(text.contains("join token"), "{text}");
    assert_eq!(server.json(&["proxy", "show", &other.id])["state"], "REVOKED");
    refused(&other.ask(&server, "POST", REPORT, "{}"), 403, "proxy_revoked");
}

#[test]
fn a_token_that_an_older_server_made_goes_on_polling_once_it_is_imported() {
    let server = server("");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".pulse-control-token");
    // 32 bytes in base64, as older servers made them.
    let token = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=";
    std::fs::write(&file, token).unwrap();
    refused(&pull(&server, token), 401, "invalid_token");
    server.pulse_ok(&["import", "--yes", file.to_str().unwrap(), "--host", "delly"]);
    let answer = pull(&server, token);
    assert_eq!((answer.status, &answer.json()["instance"]), (200, &json!("home")));
    assert_eq!(server.proxies()[0]["state"], "IN_SYNC");
}

#[test]
fn a_proxy_says_goodbye_with_its_own_token_and_under_its_own_name() {
    let server = server("");
    let older = older(&server);
    refused(&server.ask("DELETE", UNREGISTER, &[], "").unwrap(), 401, "missing_token");
    refused(&older.ask(&server, "GET", UNREGISTER, ""), 405, "method_not_allowed");
    let other = older.ask(&server, "DELETE", &format!("{UNREGISTER}?hostname=minipc"), "");
    let text = refused(&other, 409, "hostname_mismatch");
    assert!(text.contains("delly"), "{text}");
    assert_eq!(older.pull(&server).status, 200);
    let gone = older.ask(&server, "DELETE", &format!("{UNREGISTER}?hostname=Delly"), "");
    assert_eq!((gone.status, &gone.json()["success"]), (200, &json!(true)));
    assert_eq!(server.proxies(), Vec::<Value>::new());
    refused(&older.pull(&server), 403, "proxy_revoked");
    refused(&older.ask(&server, "DELETE", UNREGISTER, ""), 403, "proxy_revoked");
}

#[test]
fn a_report_as_json_is_taken_as_one_over_grpc_is() {
    let server = server("limits: {max_request_bytes: 1MiB}");
    let older = older(&server);
    let at = jiff::Timestamp::now().to_string();
    let reading = |sensor: &str, kind: &str, celsius: f64| json!({"sensor": sensor, "chip": "coretemp", "kind": kind, "temperature_celsius": celsius, "max_celsius": 80});
    let report = |sequence: u64, nodes: Value| {
        let session = "0190d0a0-0000-7000-8000-000000000001";
        json!({"session": session, "sequence": sequence, "reports": nodes}).to_string()
    };
    let delly = json!({"name": "delly", "ip": "192.168.0.5"});
    let good = json!({"node": delly, "collected_at": at,
        "readings": [reading("a/temp1", "cpu_package", 61.5), reading("a/temp2", "of a later version", -3.0)]});
    let unread = json!({"node": {"name": "minipc"}, "collected_at": at, "unreadable_reason": "no such host"});
    let strange =
        json!({"node": {"name": "strange"}, "collected_at": at, "readings": [reading("b/temp1", "", 1.0)]});
    let answer = older.ask(&server, "POST", REPORT, &report(1, json!([good, unread, strange])));
    assert_eq!((answer.status, &answer.json()["durable_sequence"]), (200, &json!(1)));
    let refusal = &answer.json()["refused"][0];
    assert_eq!(refusal["node"], json!({"name": "strange", "ip": ""}));
    assert!(refusal["reason"].as_str().unwrap().contains("not on the list"), "{answer:?}");
    let shown = server.json(&["temps"]);
    let of = |node: &str| shown["nodes"].as_array().unwrap().iter().find(|one| one["node"] == node).unwrap();
    let readings = &of("delly")["readings"];
    assert_eq!(
        (&readings[0]["temperature_celsius"], &readings[0]["kind"]),
        (&json!(61.5), &json!("cpu_package"))
    );
    assert_eq!((&readings[1]["kind"], &readings[0]["max_celsius"]), (&json!("other"), &json!(80.0)));
    assert_eq!(of("minipc")["unreadable_reason"], "no such host");

    // Told twice it is taken once.
    assert_eq!(older.ask(&server, "POST", REPORT, &report(1, json!([good]))).status, 200);
    assert_eq!(server.metrics().value(r#"pulse_reports_total{result="repeated"}"#), 1.0);

    let hot = json!({"node": delly, "collected_at": at, "readings": [reading("a/temp1", "", 151.0)]});
    let answer = older.ask(&server, "POST", REPORT, &report(2, json!([hot])));
    refused(&answer, 400, "invalid_request");
    assert_eq!(answer.json()["details"]["field"], "reports[0].readings[0].temperature_celsius");
    let large = report(2, json!([{"padding": "x".repeat(1 << 20)}]));
    for bad in ["", "{", "{}", r#"{"session":"x"}"#, &large, &report(2, json!([{"node": delly}]))] {
        refused(&older.ask(&server, "POST", REPORT, bad), 400, "invalid_json");
    }
    for (session, sequence) in [("x", 1), ("0190d0a0-0000-7000-8000-000000000001", 0)] {
        let body = json!({"session": session, "sequence": sequence, "reports": []}).to_string();
        refused(&older.ask(&server, "POST", REPORT, &body), 400, "invalid_request");
    }
    refused(&server.ask("POST", REPORT, &[], "{}").unwrap(), 401, "missing_token");
    assert_eq!(older.pull(&server).status, 200, "the server is well");
}
