//! kill -9 of the server: the proxies stay on their lists and keep collecting; when it is back they catch up by
//! themselves, and what they read meanwhile arrives in order, once.

use std::time::SystemTime;

use pulse_test_support::v1::{NodeReport, Reading, ReportTemperaturesRequest, SensorKind};
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually, in_time};

#[path = "support/history.rs"]
mod support;

use support::history;

fn wait_for_reading(server: &Server, node: &str, celsius: f64) {
    eventually(PATIENCE, &format!("{celsius} °C of {node} are stored"), || {
        let history = history(server, node);
        let is_there = history.iter().any(|stored| f64::from(stored.temperature_milli) == celsius * 1000.0);
        if is_there { Ok(()) } else { Err(history) }
    });
}

#[test]
fn an_outage_costs_no_list_and_no_reading() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    let proxies = ["delly", "minipc"].map(|hostname| Proxy::join(&server, "home", hostname));
    let list = server.allowlist("home");
    let hash = list["hash"].as_str().expect("a list has a hash");
    for (proxy, node) in proxies.iter().zip(["delly", "minipc"]) {
        server.wait_for_applied(&proxy.id(), hash);
        proxy.sysfs().let_read(41.0);
        wait_for_reading(&server, node, 41.0);
    }

    server.kill();
    let gap = [42.0, 43.5, 42.5, 50.0, 49.0];
    for celsius in gap {
        for proxy in &proxies {
            // Waits until it is read: the proxy keeps collecting.
            proxy.sysfs().let_read(celsius);
        }
    }
    for proxy in &proxies {
        assert_eq!(proxy.status()["list"]["hash"], hash, "it stays on its list");
        let log = proxy.process().log();
        let troubles = log.iter().filter(|line| line.contains("the server is not reachable")).count();
        assert_eq!(troubles, 1, "an outage is said once: {log:#?}");
    }

    server.start_again();
    server.pulse_ok(&[
        "instance",
        "set",
        "home",
        "--endpoint",
        "delly",
        "--endpoint",
        "minipc",
        "--endpoint",
        "nas",
    ]);
    let changed = server.allowlist("home");
    for (proxy, node) in proxies.iter().zip(["delly", "minipc"]) {
        let shown =
            server.wait_for_applied(&proxy.id(), changed["hash"].as_str().expect("a list has a hash"));
        assert_eq!(shown["is_connected"], true);
        proxy.sysfs().let_read(60.0);
        wait_for_reading(&server, node, 60.0);

        let history = history(&server, node);
        let in_order = history.windows(2).all(|pair| pair[0].collected_at_ms < pair[1].collected_at_ms);
        assert!(in_order, "in the order of their collection, each once: {history:#?}");
        // Each value was set when the one before had been read, so it stands for one round or several in a row.
        let mut values: Vec<f64> =
            history.iter().map(|stored| f64::from(stored.temperature_milli) / 1000.0).collect();
        values.dedup();
        let expected = [&[41.0], &gap[..], &[60.0]].concat();
        let from = values.iter().position(|value| *value == 41.0).expect("it was stored before the outage");
        assert_eq!(values[from..], expected, "{history:#?}");
        // It is 2 s between two rounds at most, also over the outage.
        let gaps = history.windows(2).map(|pair| pair[1].collected_at_ms - pair[0].collected_at_ms);
        println!("{node}: {} readings, the longest pause {} ms", history.len(), gaps.max().unwrap_or(0));
    }
}

#[test]
fn a_proxy_that_is_restarted_while_the_server_is_away_loses_no_reading() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let mut proxy = Proxy::join(&server, "home", "delly");
    proxy.sysfs().let_read(41.0);
    wait_for_reading(&server, "delly", 41.0);

    server.kill();
    proxy.sysfs().let_read(45.0);
    proxy.sysfs().let_read(46.0);
    proxy.terminate();
    assert_eq!(proxy.wait_exit(PATIENCE), Some(0));
    proxy.start();
    proxy.sysfs().let_read(47.0);
    server.start_again();

    wait_for_reading(&server, "delly", 47.0);
    let history = history(&server, "delly");
    let mut values: Vec<i32> = history.iter().map(|stored| stored.temperature_milli).collect();
    values.dedup();
    let from = values.iter().position(|value| *value == 41_000).expect("it was stored before the outage");
    assert!(values[from..].starts_with(&[41_000, 45_000]), "{history:#?}");
    assert_eq!(values.last(), Some(&47_000), "{history:#?}");
    assert!(history.windows(2).all(|pair| pair[0].collected_at_ms < pair[1].collected_at_ms), "{history:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_sent_twice_is_taken_once() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let client = Client::register(&server, &server.join_string(&["--instance", "home"]), "delly").await;
    let list = client.watch(Default::default()).await.snapshot().await;
    let report = |sequence, celsius| ReportTemperaturesRequest {
        session: "01a1fa32-2365-76ec-b33a-29d69c7ef23e".to_owned(),
        sequence,
        reports: vec![NodeReport {
            node: Some(list.nodes[0].clone()),
            collected_at: Some(SystemTime::now().into()),
            epoch: list.epoch,
            revision: list.revision,
            readings: vec![Reading {
                sensor: "coretemp-isa-0000/temp1".to_owned(),
                chip: "coretemp".to_owned(),
                label: "Package id 0".to_owned(),
                kind: SensorKind::CpuPackage.into(),
                temperature_celsius: celsius,
                ..Reading::default()
            }],
            unreadable_reason: String::new(),
        }],
    };
    for (sequence, celsius, durable) in [(1, 40.0, 1), (1, 99.0, 1), (2, 41.0, 2), (2, 41.0, 2), (1, 40.0, 2)]
    {
        let message = client.authorized(report(sequence, celsius));
        let answer = in_time("an answer", client.grpc.clone().report_temperatures(message)).await;
        let answer = answer.expect("a double is no error").into_inner();
        assert_eq!((answer.durable_sequence, answer.refused), (durable, vec![]));
    }
    let stored: Vec<i32> = history(&server, "delly").iter().map(|stored| stored.temperature_milli).collect();
    assert_eq!(stored, [40_000, 41_000]);
    let metrics = server.metrics();
    assert_eq!(metrics.value("pulse_reports_total{result=\"stored\"}"), 2.0);
    assert_eq!(metrics.value("pulse_reports_total{result=\"repeated\"}"), 3.0);
}
