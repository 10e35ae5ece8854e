//! Each write and flush of the server's database, in turn, fails or is the last thing that happens: afterwards every
//! change and every report that was acknowledged is there, once, and the audit chain holds.
//!
//! The program is the real one; `strace` makes the fault.

use std::path::PathBuf;
use std::time::SystemTime;

use pulse_test_support::v1::{Node, NodeReport, Reading, ReportTemperaturesRequest, SensorKind};
use pulse_test_support::{Blow, Client, Fault, PATIENCE, Server};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

#[path = "support/history.rs"]
mod support;

use support::history;

const SESSION: &str = "01a1fa32-2365-76ec-b33a-29d69c7ef23e";
/// Changes and reports between a start and an end, in turns.
const STEPS: u32 = 2;

/// A server with a proxy, what it was asked for, and what it acknowledged.
struct Ledger {
    server: Server,
    runtime: Runtime,
    proxy: Client,
    /// The change that was asked for last, and the one that was acknowledged last.
    asked: u32,
    acknowledged: u32,
    /// The newest report that was sent. Those before it were acknowledged.
    sequence: u64,
}

impl Ledger {
    fn new() -> Ledger {
        let server = Server::start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "node-0"]);
        let runtime = Runtime::new().expect("a runtime can be made");
        let join = server.join_string(&["--instance", "home"]);
        let proxy = runtime.block_on(Client::register(&server, &join, "delly"));
        Ledger { server, runtime, proxy, asked: 0, acknowledged: 0, sequence: 0 }
    }

    /// Asks for a change that was never made. `Err` says why it was not acknowledged.
    fn change(&mut self) -> Result<(), String> {
        self.asked += 1;
        let endpoints =
            json!({ "endpoints": [{ "name": "delly" }, { "name": format!("node-{}", self.asked) }] });
        let answer = self.server.admin("PUT", "/instances/home", Some(&endpoints));
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(answer.body);
        }
        self.acknowledged = self.asked;
        Ok(())
    }

    /// Sends the report of this sequence; its one reading tells which it is.
    fn report(&self, sequence: u64) -> Result<(), String> {
        let report = ReportTemperaturesRequest {
            session: SESSION.to_owned(),
            sequence,
            reports: vec![NodeReport {
                node: Some(Node { name: "delly".to_owned(), ip: String::new() }),
                collected_at: Some(SystemTime::now().into()),
                readings: vec![Reading {
                    sensor: "coretemp-isa-0000/temp1".to_owned(),
                    chip: "coretemp".to_owned(),
                    label: "Package id 0".to_owned(),
                    kind: SensorKind::CpuPackage.into(),
                    temperature_celsius: celsius(sequence),
                    ..Reading::default()
                }],
                ..NodeReport::default()
            }],
        };
        let sent = async {
            let mut grpc = self.proxy.reconnect(&self.server).await.grpc;
            grpc.report_temperatures(self.proxy.authorized(report)).await
        };
        let answer = self.runtime.block_on(sent).map_err(|status| status.to_string())?.into_inner();
        assert_eq!(answer.refused, vec![]);
        assert!(answer.durable_sequence >= sequence, "{answer:?}");
        Ok(())
    }

    /// Works until something is not acknowledged, or everything is done.
    fn work(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.change()?;
            self.report(self.sequence + 1)?;
            self.sequence += 1;
        }
        Ok(())
    }

    /// After a start without a fault: what was acknowledged is there, what was not may be sent again.
    fn is_whole(&mut self) {
        let list = self.server.allowlist("home");
        let names: Vec<&str> = list["nodes"]
            .as_array()
            .expect("a list has nodes")
            .iter()
            .filter_map(|node| node["name"].as_str())
            .collect();
        let of = |number: u32| format!("node-{number}");
        let is_there = |number: u32| names.contains(&of(number).as_str());
        assert!(is_there(self.acknowledged) || is_there(self.asked), "{names:?}, asked for {}", self.asked);
        assert_eq!(names.len(), 2, "{names:?}");
        // The one that failed comes again: it is stored once, whether it was stored then or not.
        self.sequence += 1;
        self.report(self.sequence).expect("a report is taken after a restart");
        self.change().expect("a change is made after a restart");
        let stored: Vec<i32> =
            history(&self.server, "delly").iter().map(|one| one.temperature_milli).collect();
        let expected: Vec<i32> =
            (1..=self.sequence).map(|sequence| (celsius(sequence) * 1000.0).round() as i32).collect();
        assert_eq!(stored, expected);
        let checked = self.server.pulse(&["check"]);
        assert!(checked.is_success(), "{checked:?}");
    }

    fn database(&self) -> Vec<PathBuf> {
        let folder = self.server.data_dir();
        let files = ["pulse.db", "pulse.db-wal", "pulse.db-journal"].map(|name| folder.join(name));
        files.into_iter().chain([folder]).collect()
    }
}

/// A temperature of its own for each of some thousand reports, in hundredths.
fn celsius(sequence: u64) -> f64 {
    20.0 + f64::from(u32::try_from(sequence).expect("a test sends few reports")) / 100.0
}

#[test]
fn a_server_killed_at_any_write_of_its_database_loses_nothing_that_it_acknowledged() {
    if !Fault::can_be_made() {
        return;
    }
    let mut ledger = Ledger::new();
    let paths = ledger.database();
    Fault::at_each_call(
        Blow::Kill,
        20,
        || paths.clone(),
        |fault| {
            ledger.server.kill();
            ledger.server.spawn_with(fault);
            if ledger.server.comes_up() {
                let worked = ledger.work();
                if worked.is_ok() {
                    ledger.server.terminate();
                }
                ledger.server.wait_exit(PATIENCE);
            }
            ledger.server.start_again();
            ledger.is_whole();
        },
    );
}

#[test]
fn a_write_of_the_database_that_fails_is_told_and_loses_nothing_that_was_acknowledged() {
    if !Fault::can_be_made() {
        return;
    }
    for error in ["EIO", "ENOSPC"] {
        let mut ledger = Ledger::new();
        let paths = ledger.database();
        Fault::at_each_call(
            Blow::Error(error),
            20,
            || paths.clone(),
            |fault| {
                ledger.server.terminate();
                ledger.server.wait_exit(PATIENCE);
                ledger.server.spawn_with(fault);
                if ledger.server.comes_up() {
                    if let Err(told) = ledger.work() {
                        assert!(!told.is_empty());
                        // It goes on: the disk fails once.
                        let sequence = ledger.sequence + 1;
                        ledger.report(sequence).unwrap_or_else(|error| panic!("{fault:?}, {told}: {error}"));
                        ledger.sequence = sequence;
                        ledger.change().unwrap_or_else(|error| panic!("{fault:?}, {told}: {error}"));
                    }
                    ledger.server.terminate();
                    let code = ledger.server.wait_exit(PATIENCE);
                    assert!(code == Some(0) || fault.happened().is_some(), "it ended with {code:?}");
                } else {
                    let log = ledger.server.process().log().join("\n");
                    assert!(log.contains("pulse.db"), "a start that fails says at what: {log}");
                    assert!(!log.contains("panicked"), "{log}");
                }
                ledger.server.start_again();
                ledger.is_whole();
            },
        );
    }
}

#[test]
fn a_first_start_that_is_killed_anywhere_is_made_good_by_the_next() {
    if !Fault::can_be_made() {
        return;
    }
    let server = std::cell::RefCell::new(Server::builder().prepare());
    let paths = || {
        *server.borrow_mut() = Server::builder().prepare();
        let folder = server.borrow().data_dir();
        let database = ["pulse.db", "pulse.db-wal", "pulse.db-journal"];
        let keys = ["ca.key", "ca.pem", "server.key", "server.pem", "secret.key"];
        let names = [&database[..], &keys].concat();
        let files = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.new"))]);
        files.chain([folder.clone()]).collect()
    };
    Fault::at_each_call(Blow::Kill, 20, paths, |fault| {
        let mut server = server.borrow_mut();
        server.spawn_with(fault);
        if server.comes_up() {
            server.terminate();
            server.wait_exit(PATIENCE);
        }
        server.start_again();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
        let status: Value = server.json(&["status"]);
        assert_eq!(status["revision"], 1, "{status}");
        let checked = server.pulse(&["check"]);
        assert!(checked.is_success(), "{checked:?}");
    });
}
