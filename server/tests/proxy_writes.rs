//! Each write, flush and rename of the proxy's state, in turn, fails or is the last thing that happens: afterwards the
//! proxy holds a list that the server pushed, has a token that works, and loses or doubles no reading that was durable.
//!
//! The program is the real one; `strace` makes the fault.

use std::collections::HashSet;

use pulse_proto::{Allowlist, Node};
use pulse_test_support::{Blow, Fault, PATIENCE, Proxy, Server, eventually, written_in};
use serde_json::{Value, json};

#[path = "support/history.rs"]
mod support;

use support::history;

/// A server with one instance, and a proxy that is registered there and does not run.
struct Pair {
    server: Server,
    proxy: Proxy,
    id: String,
    number: u32,
    pushed: HashSet<String>,
}

impl Pair {
    fn new() -> Pair {
        // It comes back more often than proxies do.
        let often = "limits:\n  watch_burst: 1000\n  registration_burst: 1000";
        let server = Server::builder().config(often).start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
        // The static list must not be taken for a list that was pushed.
        let config = "allowed_nodes: [fallback]\nreport_interval: 1s";
        let proxy = Proxy::builder("delly").config(config).build();
        proxy.register_ok(&server.join_string(&["--instance", "home"]));
        let id = proxy.id();
        let mut pair = Pair { server, proxy, id, number: 0, pushed: HashSet::new() };
        pair.pushed.insert(pair.newest());
        pair
    }

    fn newest(&self) -> String {
        self.server.allowlist("home")["hash"].as_str().expect("a list has a hash").to_owned()
    }

    /// Pushes a list that was never there before.
    fn push(&mut self) -> String {
        self.number += 1;
        let names = ["delly".to_owned(), format!("node-{}", self.number)];
        let endpoints: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        let list = Allowlist::new(names.iter().map(|name| Node::new(name, "").expect("these are names")));
        self.pushed.insert(list.hash().to_string());
        let answer = self.server.admin(
            "PUT",
            "/instances/home",
            Some(&json!({ "endpoints": endpoints, "yes": true })),
        );
        assert_eq!(answer.expect("the server answers").status, 200);
        list.hash().to_string()
    }

    fn shown(&self) -> Value {
        self.server.json(&["proxy", "show", &self.id])
    }

    fn has_applied(&self, hash: &str) -> bool {
        let shown = self.shown();
        shown["applied"]["hash"] == hash && shown["state"] == "IN_SYNC" && shown["is_connected"] == true
    }

    /// Waits until the proxy is dead, or what was awaited is there. Says whether it lives.
    fn lives_until(&mut self, what: &str, is_so: impl Fn(&Pair) -> bool) -> bool {
        eventually(PATIENCE, what, || match (self.proxy.ended(), is_so(self)) {
            (Some(_), _) => Ok(false),
            (None, true) => Ok(true),
            (None, false) => Err((self.shown(), self.proxy.process().log())),
        })
    }

    fn stop(&mut self) {
        self.proxy.terminate();
        assert_eq!(self.proxy.wait_exit(PATIENCE), Some(0));
    }

    /// What lies on the disk is a list that was pushed, and none older than the server was told of.
    fn holds_a_pushed_list(&self, told: &Value) {
        let status = self.proxy.status();
        let list = &status["list"];
        assert_eq!(list["source"], "cache", "{status}");
        let hash = list["hash"].as_str().unwrap_or_else(|| panic!("no list: {status}"));
        assert!(self.pushed.contains(hash), "{status}");
        assert!(list["revision"].as_u64() >= told["applied"]["revision"].as_u64(), "{told} and {status}");
    }
}

fn a_list_arrives(blow: Blow) {
    if !Fault::can_be_made() {
        return;
    }
    let mut pair = Pair::new();
    let folder = pair.proxy.control_dir();
    let paths = || written_in(&folder, &["allowlist.cache", "identity.json"]);
    // Two files, each written, flushed and renamed, and its folder flushed.
    Fault::at_each_call(blow, 8, paths, |fault| {
        pair.proxy.start_with(fault);
        pair.lives_until("the proxy is there", |pair| pair.has_applied(&pair.newest()));
        let hash = pair.push();
        let lives = pair.lives_until("it has the list", |pair| pair.has_applied(&hash));
        let told = pair.shown();
        if lives {
            // Also when it could not be written at first.
            eventually(PATIENCE, "the list is on the disk", || {
                let shown = pair.shown();
                if shown["is_on_disk"] == true { Ok(()) } else { Err((shown, pair.proxy.process().log())) }
            });
            pair.stop();
            assert_eq!(pair.proxy.status()["list"]["hash"], hash.as_str());
        }
        assert!(lives || blow == Blow::Kill, "a disk that fails ended it: {:#?}", pair.proxy.process().log());
        pair.holds_a_pushed_list(&told);
    });
}

#[test]
fn a_proxy_killed_at_any_write_of_a_list_holds_one_that_was_pushed() {
    a_list_arrives(Blow::Kill);
}

#[test]
fn a_write_of_a_list_that_fails_costs_nothing_and_is_made_up_for() {
    a_list_arrives(Blow::Error("EIO"));
}

#[test]
fn a_list_that_finds_the_disk_full_is_in_force_and_is_written_later() {
    a_list_arrives(Blow::Error("ENOSPC"));
}

fn a_token_is_renewed(blow: Blow) {
    if !Fault::can_be_made() {
        return;
    }
    let mut pair = Pair::new();
    let folder = pair.proxy.control_dir();
    let token_file = pair.proxy.config_path().with_file_name(".pulse-control-token");
    let paths = || {
        let mut paths = written_in(&folder, &["token", "token.previous", "identity.json"]);
        paths
            .extend(written_in(token_file.parent().expect("a file has a folder"), &[".pulse-control-token"]));
        paths
    };
    let newest = pair.newest();
    Fault::at_each_call(blow, 8, paths, |fault| {
        pair.proxy.start_with(fault);
        if pair.lives_until("the proxy is there", |pair| pair.has_applied(&newest)) {
            pair.server.pulse_ok(&["proxy", "rotate", &pair.id]);
            let lives = pair.lives_until("it was asked, and has settled", |pair| {
                let is_said = |text: &str| pair.proxy.process().has_said(text);
                // An old token that cannot be removed does no harm, and goes with the next stream.
                let is_tidy = !folder.join("token.previous").exists() || fault.happened().is_some();
                let is_renewed = is_said("this proxy has a new token") && is_tidy;
                (is_renewed || is_said("the token is not renewed")) && pair.has_applied(&newest)
            });
            if lives {
                pair.stop();
            }
            assert!(lives || blow == Blow::Kill, "a disk that fails ended it");
        }
        // Whatever happened, one of its tokens works, and it is the same proxy.
        pair.proxy.start();
        assert!(pair.lives_until("it is back", |pair| pair.has_applied(&newest)));
        assert_eq!(pair.server.proxies().len(), 1);
        pair.stop();
    });
}

#[test]
fn a_proxy_killed_at_any_write_of_a_new_token_has_one_that_works() {
    a_token_is_renewed(Blow::Kill);
}

#[test]
fn a_new_token_that_cannot_be_written_leaves_the_proxy_with_one_that_works() {
    a_token_is_renewed(Blow::Error("EIO"));
}

fn a_host_registers(blow: Blow) {
    if !Fault::can_be_made() {
        return;
    }
    let server = Server::builder().config("limits:\n  registration_burst: 1000").start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let status = server.json(&["status"]);
    let server_id = status["server_id"].as_str().unwrap_or_else(|| panic!("no server id: {status}"));
    let join = server.join_string(&["--instance", "home", "--uses", "1000"]);
    let proxy = std::cell::RefCell::new(Proxy::builder("delly").config("report_interval: 1s").build());
    let paths = || {
        *proxy.borrow_mut() = Proxy::builder("delly").config("report_interval: 1s").build();
        let proxy = proxy.borrow();
        let control = proxy.state_dir().join("control");
        let names = ["identity.json", "token", "token.previous", "allowlist.cache", "listener-token"];
        let mut paths = written_in(&control.join(server_id), &names);
        let beside = proxy.config_path();
        let beside = beside.parent().expect("a file has a folder");
        paths.extend(written_in(beside, &["config.yaml", ".pulse-control-token"]));
        paths
    };
    Fault::at_each_call(blow, 12, paths, |fault| {
        let mut proxy = proxy.borrow_mut();
        let ran = proxy.register_with_fault(&join, fault);
        if let (Blow::Error(_), Some(call)) = (blow, fault.happened()) {
            assert!(!ran.stderr.contains("panicked"), "{ran:?}");
            assert!(!ran.is_success() || !ran.stderr.is_empty(), "{call} was swallowed: {ran:?}");
        }
        proxy.register_ok(&join);
        proxy.start();
        server.wait_for_state(&proxy.id(), "IN_SYNC");
        proxy.terminate();
        assert_eq!(proxy.wait_exit(PATIENCE), Some(0));
    });
}

#[test]
fn a_registration_killed_at_any_write_is_made_by_the_next_one() {
    a_host_registers(Blow::Kill);
}

#[test]
fn a_registration_that_finds_the_disk_full_says_so_and_the_next_one_works() {
    a_host_registers(Blow::Error("ENOSPC"));
}

/// Values that were durable are stored once, in their order, whatever happened to the file that holds them.
fn readings_wait(blow: Blow) {
    if !Fault::can_be_made() {
        return;
    }
    let mut pair = Pair::new();
    let newest = pair.newest();
    let buffer = written_in(&pair.proxy.control_dir(), &["readings.buffer"]);
    let mut expected: Vec<i32> = Vec::new();
    let mut next = 40.0;
    Fault::at_each_call(
        blow,
        4,
        || buffer.clone(),
        |fault| {
            pair.server.kill();
            // Durable: the proxy wrote them when it was stopped.
            next += 0.5;
            let durable = next;
            pair.proxy.start();
            pair.proxy.sysfs().let_read(durable);
            pair.stop();
            // These may be lost to a kill, and to nothing else.
            next += 0.5;
            pair.proxy.start_with(fault);
            pair.proxy.sysfs().let_read(next);
            pair.proxy.terminate();
            let code = pair.proxy.wait_exit(PATIENCE);
            assert!(code == Some(0) || blow == Blow::Kill || fault.happened().is_some(), "{code:?}");
            pair.server.start_again();
            pair.proxy.start();
            assert!(pair.lives_until("it is back", |pair| pair.has_applied(&newest)));
            next += 0.5;
            pair.proxy.sysfs().let_read(next);
            let milli = |celsius: f64| (celsius * 1000.0) as i32;
            let stored = eventually(PATIENCE, "the last value is stored", || {
                let stored = history(&pair.server, "delly");
                let is_there = stored.iter().any(|one| one.temperature_milli == milli(next));
                if is_there { Ok(stored) } else { Err(stored) }
            });
            expected.push(milli(durable));
            let times: Vec<i64> = stored.iter().map(|one| one.collected_at_ms).collect();
            assert!(
                times.windows(2).all(|pair| pair[0] < pair[1]),
                "{fault:?}: one came twice, or out of order: {stored:#?}"
            );
            for value in &expected {
                assert!(
                    stored.iter().any(|one| one.temperature_milli == *value),
                    "{fault:?}: {value} is lost: {stored:#?}"
                );
            }
            pair.stop();
        },
    );
}

#[test]
fn a_proxy_killed_at_any_write_of_its_buffer_loses_and_doubles_no_durable_reading() {
    readings_wait(Blow::Kill);
}

#[test]
fn a_buffer_that_cannot_be_written_loses_and_doubles_no_durable_reading() {
    readings_wait(Blow::Error("EIO"));
}

#[test]
fn a_proxy_killed_at_any_write_of_its_revocation_reads_nothing_afterwards() {
    if !Fault::can_be_made() {
        return;
    }
    for blow in [Blow::Kill, Blow::Error("EIO")] {
        let mut pair = Pair::new();
        let paths = written_in(&pair.proxy.control_dir(), &["identity.json"]);
        Fault::at_each_call(
            blow,
            3,
            || paths.clone(),
            |fault| {
                pair.proxy.register_ok(&pair.server.join_string(&["--instance", "home"]));
                pair.proxy.start();
                assert!(pair.lives_until("the proxy is there", |pair| pair.has_applied(&pair.newest())));
                pair.stop();
                pair.server.pulse_ok(&["proxy", "revoke", &pair.id]);
                pair.proxy.start_with(fault);
                let lives =
                    pair.lives_until("it hears of it", |pair| pair.proxy.process().has_said("revoked"));
                if lives {
                    pair.proxy.terminate();
                    pair.proxy.wait_exit(PATIENCE);
                }
                assert!(lives || blow == Blow::Kill);
                // It is told again, whatever its disk says.
                pair.proxy.start();
                // The disk may say it at once, before there is a program that could be asked to end.
                assert!(pair.lives_until("it runs", |pair| pair.proxy.process().has_said("running")));
                pair.proxy.wait_for_status("it may read nothing", |status| {
                    status["revoked"].is_string() && status["list"]["source"] == "none"
                });
                pair.stop();
            },
        );
    }
}
