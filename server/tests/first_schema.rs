//! A database of the first release: it can be checked as it is, the server brings it up to date, keeps everything that
//! is in it, and goes on.

use pulse_test_support::{PATIENCE, Proxy, Server, eventually};
use serde_json::Value;

#[path = "support/first_schema.rs"]
mod schema;
#[path = "support/sealed.rs"]
mod sealed;

use schema::set_back;
use sealed::{holds, in_the_open, signing_key};

/// What an admin sees of what lasts.
fn shown(server: &Server) -> Vec<Value> {
    let mut shown: Vec<Value> = [&["instance", "list"][..], &["join", "list"], &["allowlist", "history"]]
        .iter()
        .map(|arguments| server.json(arguments))
        .collect();
    // When a node was typed was not kept then.
    for instance in shown[0]["instances"].as_array_mut().expect("there are instances") {
        for node in instance["nodes"].as_array_mut().expect("it has nodes") {
            node["confirmed_at"] = Value::Null;
        }
    }
    for proxy in server.proxies() {
        let lasting = ["id", "hostname", "instance", "scope", "standing", "applied", "pushed", "machine_id"];
        shown.extend(lasting.map(|key| proxy[key].clone()));
    }
    let audit = server.pulse_ok(&["audit", "--json"]);
    let rows = audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    // That its ends are sealed from then on is noted.
    shown.extend(rows.filter(|row| row["action"] != "audit.seal"));
    shown
}

#[test]
fn a_database_of_the_first_schema_keeps_everything_and_goes_on() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "b=10.0.0.2"]);
    server.pulse_ok(&["instance", "add", "lab", "--endpoint", "x"]);
    server.join_string(&["--instance", "lab", "--uses", "7"]);
    let mut proxy = Proxy::join(&server, "home", "delly");
    let other = Proxy::join(&server, "home", "b");
    for proxy in [&proxy, &other] {
        server.wait_for_applied(&proxy.id(), server.allowlist("home")["hash"].as_str().expect("a hash"));
    }
    eventually(PATIENCE, "a reading is there", || {
        let temps = server.json(&["temps", "delly"]);
        if temps["nodes"][0]["age_seconds"].is_number() { Ok(()) } else { Err(temps) }
    });
    server.pulse_ok(&["proxy", "revoke", &other.id()]);
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "c"]);
    server.wait_for_applied(&proxy.id(), server.allowlist("home")["hash"].as_str().expect("a hash"));
    proxy.kill();
    server.terminate();
    server.wait_exit(PATIENCE);
    server.start_again();
    let (before, sensors) = (shown(&server), server.json(&["temps"])["nodes"][0]["hottest"].clone());
    server.terminate();
    server.wait_exit(PATIENCE);

    let key = signing_key(&server.data_dir());
    set_back(&server.data_dir());
    assert!(holds(&server.data_dir().join("pulse.db"), &key), "it was not sealed then");
    let checked = server.json(&["check"]);
    assert_eq!(checked["is_good"], true, "{checked}");
    server.start_again();
    assert_eq!(signing_key(&server.data_dir()), key);
    assert_eq!(in_the_open(&server.data_dir(), &key), [""; 0], "it is sealed, and its traces are gone");
    assert_eq!(shown(&server), before);
    assert_eq!(server.json(&["temps"])["nodes"][0]["hottest"], sensors);
    assert!(server.proxies().iter().all(|proxy| proxy["is_approved"] == true), "each had a join token");
    proxy.start();
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "d"]);
    server.wait_for_applied(&proxy.id(), server.allowlist("home")["hash"].as_str().expect("a hash"));
    server.pulse_ok(&["join", "open"]);
    let checked = server.json(&["check"]);
    assert_eq!(checked["is_good"], true, "the audit log goes on where it ended: {checked}");
    assert!(server.pulse_ok(&["audit"]).contains("audit.seal"), "since when it is sealed is in it");
    server.pulse_ok(&["audit", "verify"]);
}
