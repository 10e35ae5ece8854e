//! A server whose instance gets its nodes from a fake Proxmox VE host.

#![allow(dead_code, reason = "each test file uses its own part")]

use pulse_test_support::proxmox::FakeProxmox;
use pulse_test_support::{PATIENCE, Ran, Server, eventually};
use serde_json::Value;

pub(crate) const TOKEN_ID: &str = "pulse@pve!monitor";
pub(crate) const SECRET: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

/// The file with the secret, as an admin has it.
pub(crate) fn secret_file(server: &Server) -> String {
    let path = server.data_dir().parent().expect("it is in a folder").join("token-secret");
    std::fs::write(&path, format!("{SECRET}\n")).expect("it can be written");
    path.display().to_string()
}

/// `pulse instance add NAME --pve …` with what else is said.
pub(crate) fn try_add(server: &Server, name: &str, urls: &[&str], more: &[&str]) -> Ran {
    let file = secret_file(server);
    let mut arguments = vec!["instance", "add", name, "--token-id", TOKEN_ID, "--token-secret-file", &file];
    urls.iter().for_each(|url| arguments.extend(["--pve", url]));
    arguments.extend(more);
    server.pulse(&arguments)
}

/// An instance that asks these hosts each second, whose certificates are pinned.
pub(crate) fn add(server: &Server, name: &str, fakes: &[&FakeProxmox]) {
    let urls: Vec<String> = fakes.iter().map(|fake| fake.url()).collect();
    let pins: Vec<String> = fakes.iter().map(|fake| fake.fingerprint()).collect();
    let mut more = vec!["--poll-interval", "1s"];
    pins.iter().for_each(|pin| more.extend(["--fingerprint", pin]));
    fakes.iter().for_each(|fake| fake.demand(&format!("{TOKEN_ID}={SECRET}")));
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let ran = try_add(server, name, &urls, &more);
    assert!(ran.is_success(), "{ran:?}");
}

/// The instance as it is shown.
pub(crate) fn shown(server: &Server, name: &str) -> Value {
    server.json(&["instance", "show", name])
}

/// Its nodes that may be read, as `name=ip`.
pub(crate) fn listed(instance: &Value) -> Vec<String> {
    let nodes = instance["endpoints"].as_array().expect("it has nodes");
    let text = |node: &Value, key: &str| node[key].as_str().unwrap_or_default().to_owned();
    nodes.iter().map(|node| format!("{}={}", text(node, "name"), text(node, "ip"))).collect()
}

/// Waits until exactly these nodes may be read.
pub(crate) fn wait_for_nodes(server: &Server, name: &str, nodes: &[&str]) -> Value {
    eventually(PATIENCE, &format!("instance {name} has the nodes {nodes:?}"), || {
        let instance = shown(server, name);
        if listed(&instance) == nodes { Ok(instance) } else { Err(instance) }
    })
}

/// Waits until the instance's problem has all of these words.
pub(crate) fn wait_for_problem(server: &Server, name: &str, words: &[&str]) -> Value {
    eventually(PATIENCE, &format!("instance {name} has the problem {words:?}"), || {
        let instance = shown(server, name);
        let problem = instance["pve"]["problem"].as_str().unwrap_or_default();
        if instance["pve"]["state"] == "problem" && words.iter().all(|word| problem.contains(word)) {
            return Ok(instance);
        }
        Err(instance)
    })
}

/// Waits until the instance is believed.
pub(crate) fn wait_until_ok(server: &Server, name: &str) -> Value {
    eventually(PATIENCE, &format!("instance {name} is believed"), || {
        let instance = shown(server, name);
        if instance["pve"]["state"] == "ok" { Ok(instance) } else { Err(instance) }
    })
}
