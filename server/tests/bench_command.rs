//! `pulse bench` measures a running server with proxies of its own, and leaves nothing of them behind; nobody else notices.

use std::process::{Command, Stdio};

use pulse_test_support::{PATIENCE, Proxy, Server, binary, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// What is left of the bench: its instances, its proxies, its join tokens that are good.
fn left_of_bench(server: &Server) -> Vec<Value> {
    let (instances, tokens) = (server.json(&["instance", "list"]), server.json(&["join", "list"]));
    let of = |value: &Value, key: &str| value[key].as_str().is_some_and(|text| text.starts_with("bench-"));
    let instances = array(&instances["instances"]).iter().filter(|instance| of(instance, "name")).cloned();
    let proxies = server.proxies().into_iter().filter(|proxy| of(proxy, "hostname"));
    let is_good = |token: &&Value| of(token, "instance") && token["state"] == "open";
    let tokens = array(&tokens["join_tokens"]).iter().filter(is_good).cloned();
    instances.chain(proxies).chain(tokens).collect()
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no array: {value}"))
}

/// Action and target of the newest rows of the audit log.
fn audit_rows(server: &Server) -> Vec<(String, String)> {
    let ran = server.pulse_ok(&["audit", "--json"]);
    let row = |line| serde_json::from_str(line).expect("a row of the audit log is JSON");
    let rows = ran.lines().map(row);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    rows.map(|row: Value| (text(&row, "action"), text(&row, "target"))).collect()
}

fn assert_in_order(times: &Value) {
    let figure = |key: &str| times[key].as_f64().unwrap_or_else(|| panic!("no {key}: {times}"));
    let figures = ["first_ms", "p50_ms", "p99_ms", "last_ms"].map(figure);
    assert!(figures[0] > 0.0 && figures.is_sorted(), "{times}");
}

#[test]
fn it_measures_with_proxies_of_its_own_and_leaves_everybody_elses_alone() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
    let proxy = Proxy::join(&server, "home", "delly");
    let before = server.wait_for_state(&proxy.id(), "IN_SYNC");

    let figures = server.json(&["bench", "--proxies", "20", "--rounds", "2", "--yes"]);
    assert_eq!((&figures["proxies"], &figures["streams"]), (&json!(20), &json!(20)), "{figures}");
    let pushes = array(&figures["pushes"]);
    let sizes: Vec<_> = pushes.iter().map(|push| (push["clients"].clone(), push["nodes"].clone())).collect();
    assert_eq!(sizes, [(json!(20), json!(8)), (json!(20), json!(200))]);
    for push in pushes {
        assert_in_order(push);
        assert_eq!(array(&push["rounds"]).len(), 2);
        array(&push["rounds"]).iter().for_each(assert_in_order);
        assert!(push["server_cpu_us_per_client"].is_f64(), "{push}");
    }
    assert_eq!((&figures["registrations"]["count"], &figures["storm"]["count"]), (&json!(20), &json!(20)));
    assert!(figures["reports"]["count"].as_u64() > Some(0), "{figures}");
    assert!(figures["reports"]["per_second"].as_f64() > Some(0.0), "{figures}");
    assert!(figures["server_resident_memory_bytes"].as_u64() > Some(1 << 20), "{figures}");
    assert_eq!(figures["server_not_known"], Value::Null);

    assert_eq!(left_of_bench(&server), [Value::Null; 0]);
    let after = server.json(&["proxy", "show", &proxy.id()]);
    assert_eq!(after["state"], "IN_SYNC");
    for mark in ["pushed", "applied", "is_connected"] {
        assert_eq!(after[mark], before[mark], "{mark}");
    }
    // The stream is the same one: it asked for no list since.
    assert_eq!(after["last_pull_at"], before["last_pull_at"]);

    let instance = format!("instance:{}", figures["instance"].as_str().unwrap());
    let actions = audit_rows(&server);
    for action in ["instance.add", "instance.set", "instance.remove"] {
        assert!(actions.contains(&(action.to_owned(), instance.clone())), "no {action}: {actions:?}");
    }
    let count = |action: &str| actions.iter().filter(|(of, _)| of == action).count();
    assert_eq!(count("proxy.remove"), 20, "{actions:?}");
    assert_eq!(count("join.revoke"), 1, "{actions:?}");
}

#[test]
fn without_yes_and_without_a_terminal_nothing_is_begun() {
    let server = Server::start();
    let revision = server.json(&["status"])["revision"].clone();
    let ran = server.pulse(&["bench", "--proxies", "20"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for said in ["20 simulated proxies", "running server", "not touched", "--yes"] {
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    assert_eq!(ran.stdout, "");
    assert_eq!(server.json(&["status"])["revision"], revision);
}

#[test]
fn a_proxy_that_reads_every_node_keeps_it_from_beginning() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&server.join_string(&["--instance", "home", "--scope", "all"]));
    proxy.start();
    let before = server.wait_for_state(&proxy.id(), "IN_SYNC");
    let ran = server.pulse(&["bench", "--proxies", "20", "--yes"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("--scope instance"), "{ran:?}");
    let after = server.json(&["proxy", "show", &proxy.id()]);
    assert_eq!(after["pushed"], before["pushed"]);
}

#[test]
fn a_limit_of_the_server_is_named_with_the_value_that_is_needed() {
    let server = Server::builder().config("limits:\n  max_connections_per_address: 20").start();
    let ran = server.pulse(&["bench", "--proxies", "40", "--rounds", "1", "--yes"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("limits.max_connections_per_address: 48"), "{ran:?}");
    assert_eq!(left_of_bench(&server), [Value::Null; 0]);
}

#[test]
fn a_signal_in_the_middle_leaves_nothing_behind() {
    let server = Server::start();
    for signal in [Signal::INT, Signal::TERM] {
        let mut bench = Command::new(binary("pulse"));
        bench.env_clear().args(["bench", "--proxies", "20", "--rounds", "1000", "--yes", "--data-dir"]);
        bench.arg(server.data_dir()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let bench = bench.spawn().unwrap();
        eventually(PATIENCE, "its streams are open", || {
            let streams = server.json(&["status"])["streams"].clone();
            if streams == 20 { Ok(()) } else { Err(streams) }
        });
        kill_process(Pid::from_child(&bench), signal).unwrap();
        let output = bench.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cancelled") && said.contains("removed"), "{said}");
        assert_eq!(output.stdout, b"");
        assert_eq!(left_of_bench(&server), [Value::Null; 0]);
    }
}
