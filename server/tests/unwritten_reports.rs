//! Reports that the server has answered and not written yet: whatever becomes of the server, each is stored in the end,
//! once, and in its order.
//!
//! Another program holds the database meanwhile, as a slow disk would.

use std::time::{Duration, SystemTime};

use pulse_test_support::v1::{Node, NodeReport, Reading, ReportTemperaturesRequest, SensorKind};
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually};
use rusqlite::Connection;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

#[path = "support/history.rs"]
mod support;

use support::history;

const SESSION: &str = "01a1fa32-2365-76ec-b33a-29d69c7ef23e";

/// Holds the database: nothing can be written until the value is dropped.
fn hold(server: &Server) -> Connection {
    let database = Connection::open(server.data_dir().join("pulse.db")).expect("the database is there");
    database.busy_timeout(PATIENCE).expect("a time-out can be set");
    database.execute_batch("BEGIN IMMEDIATE").expect("nobody else holds it for long");
    database
}

fn milli(celsius: f64) -> i32 {
    (celsius * 1000.0) as i32
}

/// Waits until a value is stored; returns all that are, in the order of arrival.
fn wait_for_stored(server: &Server, celsius: f64) -> Vec<i32> {
    let stored = eventually(PATIENCE, &format!("{celsius} is stored"), || {
        let stored = history(server, "delly");
        let is_there = stored.iter().any(|one| one.temperature_milli == milli(celsius));
        if is_there { Ok(stored) } else { Err(stored) }
    });
    let times: Vec<i64> = stored.iter().map(|one| one.collected_at_ms).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "one came twice, or out of order: {stored:#?}");
    let mut values: Vec<i32> = stored.iter().map(|one| one.temperature_milli).collect();
    values.dedup();
    values
}

/// A server and a proxy that reports each second; its first value is stored.
fn pair() -> (Server, Proxy) {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let proxy = Proxy::builder("delly").config("report_interval: 1s").build();
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    (server, proxy)
}

/// Has the proxy read a value, and waits until the server has answered the `nth` report, the one with it, while it cannot
/// write.
fn answered_and_not_written(server: &Server, proxy: &Proxy, nth: u32, celsius: f64) {
    proxy.sysfs().let_read(celsius);
    eventually(PATIENCE, "the report is answered", || {
        let answered = server.metrics().value("pulse_reports_total{result=\"stored\"}");
        if answered >= f64::from(nth) { Ok(()) } else { Err(answered) }
    });
    let shown = server.pulse_ok(&["temps", "delly", "--json"]);
    assert!(shown.contains(&format!("\"temperature_celsius\": {celsius:.1}")), "it is the newest: {shown}");
    assert!(history(server, "delly").iter().all(|one| one.temperature_milli != milli(celsius)));
}

#[test]
fn a_server_killed_between_its_answer_and_the_disk_gets_the_readings_again() {
    let (mut server, mut proxy) = pair();
    proxy.start();
    proxy.sysfs().let_read(41.0);
    wait_for_stored(&server, 41.0);
    let held = hold(&server);
    answered_and_not_written(&server, &proxy, 2, 42.0);
    answered_and_not_written(&server, &proxy, 3, 43.0);
    server.kill();
    drop(held);
    proxy.sysfs().let_read(44.0);
    server.start_again();
    assert_eq!(wait_for_stored(&server, 44.0), [41_000, 42_000, 43_000, 44_000]);
}

#[test]
fn a_server_that_cannot_write_for_a_while_stores_what_it_answered() {
    let (mut server, mut proxy) = pair();
    proxy.start();
    proxy.sysfs().let_read(41.0);
    wait_for_stored(&server, 41.0);
    let held = hold(&server);
    answered_and_not_written(&server, &proxy, 2, 42.0);
    // Longer than the server waits for whoever holds the database, so that the attempt fails.
    eventually(PATIENCE, "the server notices", || {
        let status = server.pulse_ok(&["status", "--json"]);
        if status.contains("\"degraded\"") { Ok(()) } else { Err(status) }
    });
    drop(held);
    proxy.sysfs().let_read(43.0);
    assert_eq!(wait_for_stored(&server, 43.0), [41_000, 42_000, 43_000]);
    // It ends with all of it on the disk.
    server.terminate();
    assert_eq!(server.wait_exit(PATIENCE), Some(0));
}

fn report(session: u128, sequence: u64) -> ReportTemperaturesRequest {
    let reading = Reading {
        sensor: "coretemp-isa-0000/temp1".to_owned(),
        chip: "coretemp".to_owned(),
        kind: SensorKind::CpuPackage.into(),
        temperature_celsius: 40.0,
        ..Reading::default()
    };
    ReportTemperaturesRequest {
        session: uuid::Uuid::from_u128(session).to_string(),
        sequence,
        reports: vec![NodeReport {
            node: Some(Node { name: "delly".to_owned(), ip: String::new() }),
            collected_at: Some(SystemTime::now().into()),
            readings: vec![reading],
            ..NodeReport::default()
        }],
    }
}

async fn send(client: &Client, report: ReportTemperaturesRequest) -> Result<u64, Status> {
    let answer = client.grpc.clone().report_temperatures(client.authorized(report)).await;
    answer.map(|answer| answer.into_inner().durable_sequence)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back_and_takes_the_report_then() {
    // More than the queue takes, from so many sessions; each waits for one answer at a time, and not for long.
    const SESSIONS: u128 = 48;
    const EACH: u64 = 100;
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = server.join_string(&["--instance", "home", "--uses", "100"]);
    let mut clients = Vec::new();
    for session in 0..SESSIONS {
        let client = Client::register(&server, &join, &format!("host-{session}")).await;
        assert_eq!(send(&client, report(session, 1)).await.expect("it is taken"), 1);
        clients.push(client);
    }
    let held = hold(&server);
    let mut sending = JoinSet::new();
    for (session, client) in (0..).zip(clients.clone()) {
        sending.spawn(async move {
            for sequence in 2..EACH {
                // Whoever gives up waiting does not take the report back.
                let answer = send(&client, report(session, sequence));
                if let Ok(Err(refused)) = tokio::time::timeout(Duration::from_millis(100), answer).await {
                    return Some((session, sequence, refused));
                }
            }
            None
        });
    }
    let refused: Vec<_> = sending.join_all().await.into_iter().flatten().collect();
    let full = refused.iter().find(|(_, _, refused)| refused.code() == Code::ResourceExhausted);
    let (session, sequence, status) = full.unwrap_or_else(|| panic!("nobody is refused: {refused:?}"));
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(wait.is_some_and(|wait| wait >= Duration::from_secs(1)), "{status:?}");
    assert_eq!(status.get_details_error_info().map(|info| info.reason).as_deref(), Some("OVERLOADED"));
    drop(held);
    let client = &clients[usize::try_from(*session).expect("there are few")];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match send(client, report(*session, *sequence)).await {
            Ok(durable) if durable >= *sequence => break,
            other => assert!(tokio::time::Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_session_that_goes_on_behind_a_gap_is_asked_once_for_what_is_missing() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "delly").await;
    let session = u128::from_str_radix(&SESSION.replace('-', ""), 16).expect("it is a UUID");
    assert_eq!(send(&client, report(session, 1)).await.expect("it is taken"), 1);
    server.kill();
    server.start_again();
    let client = client.reconnect(&server).await;
    let refused = send(&client, report(session, 4)).await.expect_err("2 and 3 may have been lost");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{refused:?}");
    // It has 3 still, and 2 no more.
    for sequence in [3, 4, 7] {
        assert_eq!(send(&client, report(session, sequence)).await.expect("it is taken"), sequence);
    }
}
