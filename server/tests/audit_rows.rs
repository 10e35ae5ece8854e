//! What a row of the audit log says: who did what, from where, what came of it, what was before and what is after; also of what was
//! refused. And no secret.

use pulse_test_support::{Client, PATIENCE, Server};
use serde_json::{Value, json};

fn rows(server: &Server) -> Vec<Value> {
    let shown = server.pulse_ok(&["audit", "--json"]);
    shown.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

/// The newest row of this action.
fn newest(server: &Server, action: &str) -> Value {
    let found = rows(server).into_iter().rfind(|row| row["action"] == action);
    found.unwrap_or_else(|| panic!("no {action}: {:#?}", rows(server)))
}

/// What the newest row of this action says of one thing.
fn change(server: &Server, action: &str, of: &str) -> Value {
    let row = newest(server, action);
    let changes = row["detail"]["changes"].as_array().unwrap_or_else(|| panic!("no changes: {row}"));
    let found = changes.iter().find(|change| change["of"] == of);
    found.cloned().unwrap_or_else(|| panic!("nothing of {of}: {row}"))
}

#[test]
fn a_change_of_an_instance_says_what_it_was_and_what_it_is() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "a", "--endpoint", "b=10.0.0.2"]);
    let row = newest(&server, "instance.add");
    assert_eq!(
        (&row["result"], &row["from"]),
        (&json!("done"), &Value::Null),
        "it was asked for on this machine"
    );
    let made = change(&server, "instance.add", "instance:home");
    assert_eq!((&made["before"], &made["after"]["name"]), (&Value::Null, &json!("home")));
    assert_eq!(made["nodes"], json!({ "added": ["a|", "b|10.0.0.2"] }));
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "a", "--endpoint", "c"]);
    let set = change(&server, "instance.set", "instance:home");
    assert_eq!(set["nodes"], json!({ "added": ["c|"], "removed": ["b|10.0.0.2"] }));
    assert_eq!((&set["before"], &set["after"]), (&json!({}), &json!({})), "nothing else differs");
    server.pulse_ok(&["node", "address", "home", "a", "10.0.0.1"]);
    let wished = change(&server, "node.set", "instance:home");
    assert_eq!(wished["wishes"], json!({ "added": ["a|10.0.0.1|active"] }));
    assert_eq!(wished["nodes"], json!({ "added": ["a|10.0.0.1"], "removed": ["a|"] }));
    server.pulse_ok(&["instance", "exclude", "home", "--yes"]);
    let excluded = change(&server, "instance.use", "instance:home");
    let standing = |word: &str| json!({ "standing": word });
    assert_eq!((&excluded["before"], &excluded["after"]), (&standing("active"), &standing("excluded")));
    server.pulse_ok(&["instance", "remove", "home", "--yes"]);
    let removed = change(&server, "instance.remove", "instance:home");
    assert!(
        removed["before"]["removed_at"].is_null() && removed["after"]["removed_at"].is_string(),
        "{removed}"
    );
    server.pulse_ok(&["epoch", "new", "--yes"]);
    let begun = change(&server, "epoch.new", "fleet");
    assert!(begun["before"]["epoch"].as_u64() < begun["after"]["epoch"].as_u64(), "{begun}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_proxy_or_a_join_token_says_what_it_was_and_what_it_is() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = server.join_string(&["--instance", "home", "--uses", "2"]);
    let id = server.json(&["join", "list"])["join_tokens"][0]["id"].as_str().expect("an id").to_owned();
    let of = format!("join:{id}");
    let made = change(&server, "join.create", &of);
    assert_eq!(
        (&made["before"], &made["after"]["instance"], &made["after"]["uses"]),
        (&Value::Null, &json!("home"), &json!(2))
    );
    let client = Client::register(&server, &join, "delly").await;
    let used = change(&server, "proxy.register", &of);
    assert_eq!((&used["before"], &used["after"]), (&json!({ "used": 0 }), &json!({ "used": 1 })));
    let proxy = format!("proxy:{}", client.proxy_id);
    let registered = change(&server, "proxy.register", &proxy);
    assert_eq!(registered["after"]["tokens"], json!({ "current": 1 }));
    assert_eq!(newest(&server, "proxy.register")["from"], "127.0.0.1");
    server.pulse_ok(&["proxy", "set", &client.proxy_id, "--scope", "all"]);
    let set = change(&server, "proxy.set", &proxy);
    assert_eq!(
        (&set["before"], &set["after"]),
        (&json!({ "scope": "instance" }), &json!({ "scope": "all" }))
    );
    server.pulse_ok(&["proxy", "revoke", &client.proxy_id]);
    let revoked = change(&server, "proxy.revoke", &proxy);
    assert_eq!(
        (&revoked["before"]["standing"], &revoked["after"]["standing"]),
        (&json!("active"), &json!("revoked"))
    );
    assert_eq!(revoked["after"]["tokens"], json!({ "ended": 1 }));
    server.pulse_ok(&["join", "revoke", &id]);
    let revoked = change(&server, "join.revoke", &of);
    assert!(
        revoked["before"]["revoked_at"].is_null() && revoked["after"]["revoked_at"].is_string(),
        "{revoked}"
    );
    server.pulse_ok(&["join", "open", "--from", "192.0.2.0/24"]);
    let opened = newest(&server, "join.open");
    assert_eq!(opened["detail"]["changes"][0]["after"]["sources"], json!(["192.0.2.0/24"]));
    server.pulse_ok(&["join", "close"]);
    let closed = newest(&server, "join.close")["detail"]["changes"][0].clone();
    assert!(closed["before"]["closed_at"].is_null() && closed["after"]["closed_at"].is_string(), "{closed}");
    // Nothing of a secret, by whatever name.
    let all = server.pulse_ok(&["audit", "--json"]);
    let secret = join.rsplit('=').next().expect("it has a secret");
    assert!(!all.contains(secret) && !all.contains("digest") && !all.contains("sealed"), "{all}");
}

#[test]
fn ten_thousand_nodes_do_not_make_a_row_of_that_length() {
    let server = Server::start();
    let endpoints: Vec<Value> = (0..2_500).map(|n| json!({ "name": format!("node-{n}") })).collect();
    let body = json!({ "name": "home", "endpoints": endpoints });
    let answer = server.admin("POST", "/instances", Some(&body)).expect("the server answers");
    assert!(answer.status < 300, "{}", answer.body);
    let row = newest(&server, "instance.add");
    let nodes = &row["detail"]["changes"][0]["nodes"];
    assert_eq!((nodes["added"].as_array().map(Vec::len), &nodes["added_count"]), (Some(256), &json!(2_500)));
    assert!(row.to_string().len() < 16_384, "{}", row.to_string().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_asked_for_and_did_not_get_is_noted_with_the_reason() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    Client::register(&server, &server.join_string(&["--instance", "home"]), "delly").await;
    for _ in 0..2 {
        assert!(!server.pulse(&["instance", "add", "home"]).is_success(), "it is there");
    }
    for (method, path, body) in [
        ("DELETE", "/instances/nothere", None),
        ("DELETE", "/instances/home", None),
        ("PUT", "/instances/home", Some(json!({ "endpoints": [{ "name": "*" }] }))),
        ("GET", "/instances/nothere", None),
    ] {
        let answer = server.admin(method, path, body.as_ref()).expect("the server answers");
        assert!(answer.status >= 400, "{method} {path}: {}", answer.body);
    }
    // What was not written yet is written at the end.
    server.terminate();
    server.wait_exit(PATIENCE);
    server.start_again();
    let refused: Vec<Value> =
        rows(&server).into_iter().filter(|row| row["action"] == "call.refuse").collect();
    let uid = rustix::process::getuid().as_raw();
    for (reason, call, count) in [
        ("ALREADY_THERE", "POST /instances", 2),
        ("NOT_FOUND", "DELETE /instances/{name}", 1),
        ("NEEDS_YES", "DELETE /instances/{name}", 1),
        ("INVALID_REQUEST", "PUT /instances/{name}", 1),
    ] {
        let found = refused.iter().find(|row| row["target"] == reason && row["detail"]["call"] == call);
        let row = found.unwrap_or_else(|| panic!("{reason} of {call}: {refused:#?}"));
        assert_eq!((&row["detail"]["count"], &row["result"]), (&json!(count), &json!("refused")), "{row}");
        assert_eq!(row["actor"], format!("admin:uid={uid}"));
    }
    assert_eq!(refused.len(), 4, "what merely was not found is no refusal: {refused:#?}");
    server.pulse_ok(&["audit", "verify"]);
}
