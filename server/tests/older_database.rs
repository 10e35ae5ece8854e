//! An old copy of the database is put back: it is noticed and shown, those who hold newer lists are sent none and keep
//! theirs, everybody else goes on, and a new epoch is the way out.

use std::path::Path;

use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{
    ListSource, Node, NodeReport, Reading, ReportSyncRequest, ReportTemperaturesRequest, SyncOutcome,
    WatchAuthorizedNodesRequest,
};
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually, holding, in_time};
use serde_json::{Value, json};

fn put_home(server: &Server, verb: &str, nodes: &[&str]) {
    let endpoints = nodes.iter().flat_map(|node| ["--endpoint", node]);
    server.pulse_ok(&["instance", verb, "home"].into_iter().chain(endpoints).collect::<Vec<_>>());
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key}: {value}"))
}

fn put_back(server: &mut Server, copy: &Path, epoch: &str) -> String {
    server.terminate();
    server.wait_exit(PATIENCE);
    let said = server.pulse_ok(&["restore", &copy.display().to_string(), epoch]);
    server.start_again();
    said
}

/// What every place says of a database that is older than the fleet, or not.
fn assert_shown(server: &Server, is_older: bool) {
    let status = server.json(&["status"]);
    assert_eq!(status["database_older_than_fleet"].is_object(), is_older, "{status}");
    assert_eq!(server.metrics().value("pulse_database_older_than_fleet"), f64::from(u8::from(is_older)));
    let ready = server.get("/readyz").expect("the server answers");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.body.contains("older than the fleet"), is_older, "{}", ready.body);
    assert_eq!(ready.body.contains(r#""status":"degraded""#), is_older, "{}", ready.body);
    let said = server.pulse_ok(&["status"]);
    assert_eq!(said.contains("older than the fleet") && said.contains("pulse epoch new"), is_older, "{said}");
    let listed = server.pulse_ok(&["proxy", "list"]);
    assert_eq!(listed.contains("(ahead)"), is_older, "{listed}");
}

#[test]
fn a_proxy_that_is_ahead_keeps_its_list_until_a_new_epoch_begins() {
    let mut server = Server::start();
    put_home(&server, "add", &["delly"]);
    let mut proxy = Proxy::join(&server, "home", "delly");
    let id = proxy.id();
    server.wait_for_applied(&id, text(&server.allowlist("home"), "hash"));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.tar");
    server.pulse_ok(&["backup", &copy.display().to_string()]);
    for nodes in [&["delly", "b"][..], &["delly", "b", "c"]] {
        put_home(&server, "set", nodes);
    }
    let newest = server.allowlist("home");
    server.wait_for_applied(&id, text(&newest, "hash"));

    put_back(&mut server, &copy, "--keep-epoch");
    let seen = eventually(PATIENCE, "the proxy is seen to be ahead", || {
        let shown = server.json(&["proxy", "show", &id]);
        if shown["ahead"].is_object() && shown["is_connected"] == true { Ok(shown) } else { Err(shown) }
    });
    assert_eq!(
        (&seen["ahead"]["epoch"], &seen["ahead"]["revision"]),
        (&newest["epoch"], &newest["revision"])
    );
    assert_eq!(server.json(&["status"])["database_older_than_fleet"]["proxies"], 1);
    assert_ne!(seen["state"], "IN_SYNC", "{seen}");
    assert_shown(&server, true);
    let shown = server.pulse_ok(&["proxy", "show", &id]);
    assert!(shown.contains("which this database never made") && shown.contains("pulse epoch new"), "{shown}");
    let begun =
        server.process().log().iter().filter(|line| line.contains("the database is older than")).count();
    assert_eq!(begun, 1, "said once: {:#?}", server.process().log());

    // It overtakes the revision with lists of its own: nobody may take the one history for the other.
    for nodes in [&["delly", "x"][..], &["delly", "y"], &["delly", "z"], &["delly"], &["delly", "w"]] {
        put_home(&server, "set", nodes);
    }
    let other = server.allowlist("home");
    assert!(other["revision"].as_u64() > newest["revision"].as_u64(), "{other} {newest}");
    // So long that a list would have been there: a later change of another kind has arrived.
    server.pulse_ok(&["proxy", "rotate", &id]);
    eventually(PATIENCE, "the proxy has a new token", || {
        let shown = server.json(&["proxy", "show", &id]);
        if shown["is_rotation_requested"] == false { Ok(()) } else { Err(shown) }
    });
    let held = &proxy.status()["list"];
    assert_eq!((&held["hash"], &held["revision"]), (&newest["hash"], &newest["revision"]));
    server.terminate();
    server.wait_exit(PATIENCE);
    server.start_again();
    assert_shown(&server, true);

    // What it reads is taken, of nodes that are on the present list too.
    eventually(PATIENCE, "a reading is taken", || {
        let temps = server.json(&["temps", "delly"]);
        let revision = server.json(&["proxy", "show", &id])["ahead"]["revision"].clone();
        let is_new = temps["nodes"][0]["age_seconds"].as_f64().is_some_and(|age| age < 5.0);
        if is_new && revision == newest["revision"] { Ok(()) } else { Err(temps) }
    });
    assert!(!proxy.process().has_said("a list is refused"), "{:#?}", proxy.process().log());

    let said = server.pulse_ok(&["epoch", "new", "--yes"]);
    assert!(said.contains("began"), "{said}");
    let synced = server.wait_for_applied(&id, text(&other, "hash"));
    assert!(synced["applied"]["epoch"].as_u64() > newest["epoch"].as_u64(), "{synced}");
    assert_eq!(synced["ahead"], Value::Null);
    assert_shown(&server, false);
    assert!(server.process().has_said("no longer older than the fleet"), "{:#?}", server.process().log());
    let audit = server.pulse_ok(&["audit"]);
    assert!(audit.contains("epoch.new") && audit.contains("backup.restore"), "{audit}");
    proxy.kill();
}

#[test]
fn a_backup_put_back_with_a_new_epoch_is_taken_by_all_at_once() {
    let mut server = Server::start();
    put_home(&server, "add", &["delly"]);
    let proxy = Proxy::join(&server, "home", "delly");
    let old = server.allowlist("home");
    server.wait_for_applied(&proxy.id(), text(&old, "hash"));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.tar");
    server.pulse_ok(&["backup", &copy.display().to_string()]);
    put_home(&server, "set", &["delly", "b"]);
    server.wait_for_applied(&proxy.id(), text(&server.allowlist("home"), "hash"));

    let said = put_back(&mut server, &copy, "--new-epoch");
    assert!(said.contains("is undone") && said.contains("must be registered again"), "{said}");
    let synced = server.wait_for_applied(&proxy.id(), text(&old, "hash"));
    assert!(synced["applied"]["epoch"].as_u64() > old["epoch"].as_u64(), "{synced}");
    assert_shown(&server, false);
}

#[test]
fn a_proxy_that_lies_keeps_a_list_from_nobody_but_itself() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::start();
    put_home(&server, "add", &["delly"]);
    let join = server.join_string(&["--instance", "home", "--uses", "3"]);
    runtime.block_on(async {
        let liar = Client::register(&server, &join, "liar").await;
        let honest = Client::register(&server, &join, "honest").await;
        let mut honest_watch = honest.watch(WatchAuthorizedNodesRequest::default()).await;
        let first = honest_watch.snapshot().await;
        honest.report_applied(&first).await;

        let held = WatchAuthorizedNodesRequest { revision: i64::MAX as u64, ..holding(&first) };
        let mut liar_watch = liar.watch(held).await;
        let opening = liar_watch.next().await.expect("the stream lives").expect("the stream lives");
        assert!(matches!(opening.kind, Some(Kind::Bookmark(_))), "a sign of life at once: {opening:?}");
        assert!(opening.server.is_some(), "with what the server is");
        assert_shown(&server, true);

        put_home(&server, "set", &["delly", "b"]);
        assert_eq!(honest_watch.snapshot().await.nodes.len(), 2);
        liar_watch.hears_only_bookmarks().await;

        // What it says to other calls is no more than that.
        let message = ReportSyncRequest { revision: i64::MAX as u64 - 1, ..applied(&first) };
        in_time("a report", liar.grpc.clone().report_sync(liar.authorized(message)))
            .await
            .expect("it is heard");
        put_home(&server, "set", &["delly", "c"]);
        assert_eq!(honest_watch.snapshot().await.nodes.len(), 2);

        server.pulse_ok(&["proxy", "revoke", &liar.proxy_id]);
        assert_shown(&server, false);
    });
}

fn applied(list: &pulse_test_support::v1::AllowlistSnapshot) -> ReportSyncRequest {
    ReportSyncRequest {
        epoch: list.epoch,
        scope: list.scope.clone(),
        hash: list.hash.clone(),
        outcome: SyncOutcome::Applied.into(),
        ..ReportSyncRequest::default()
    }
}

#[test]
fn every_word_of_a_newer_list_is_noticed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::start();
    put_home(&server, "add", &["delly"]);
    let join = server.join_string(&["--instance", "home", "--uses", "4"]);
    let ahead = |client: &Client| server.json(&["proxy", "show", &client.proxy_id])["ahead"].clone();
    runtime.block_on(async {
        let list = {
            let client = Client::register(&server, &join, "first").await;
            client.watch(WatchAuthorizedNodesRequest::default()).await.snapshot().await
        };
        let newer = list.revision + 1;

        let watching = Client::register(&server, &join, "watching").await;
        let held = WatchAuthorizedNodesRequest {
            revision: newer,
            source: ListSource::Cache.into(),
            ..holding(&list)
        };
        let _watch = watching.watch(held).await;
        assert_eq!(ahead(&watching)["revision"], newer);

        let reading = Client::register(&server, &join, "reading").await;
        let report = NodeReport {
            node: Some(Node { name: "delly".to_owned(), ip: String::new() }),
            collected_at: Some(std::time::SystemTime::now().into()),
            epoch: list.epoch,
            revision: newer,
            readings: vec![Reading {
                sensor: "cpu".to_owned(),
                temperature_celsius: 40.0,
                ..Reading::default()
            }],
            ..NodeReport::default()
        };
        let session = "0192d3a8-7f3c-7d3e-8a51-0242ac120002".to_owned();
        let message = ReportTemperaturesRequest { session, sequence: 1, reports: vec![report] };
        let taken = reading.grpc.clone().report_temperatures(reading.authorized(message)).await;
        assert!(
            taken.expect("it is taken").into_inner().refused.is_empty(),
            "the node is on the present list"
        );
        assert_eq!(ahead(&reading)["revision"], newer);

        let refusing = Client::register(&server, &join, "refusing").await;
        let mut watch = refusing.watch(WatchAuthorizedNodesRequest::default()).await;
        let pushed = watch.snapshot().await;
        let message = ReportSyncRequest {
            revision: pushed.revision,
            outcome: SyncOutcome::Refused.into(),
            refusal_reason: pulse_test_support::v1::RefusalReason::OlderRevision.into(),
            ..applied(&pushed)
        };
        refusing.grpc.clone().report_sync(refusing.authorized(message)).await.expect("it is heard");
        assert_eq!(ahead(&refusing)["revision"], pushed.revision + 1, "it did not say how much newer");
        put_home(&server, "set", &["delly", "b"]);
        watch.hears_only_bookmarks().await;

        let status = server.json(&["status"]);
        assert_eq!(status["database_older_than_fleet"]["proxies"], json!(3), "{status}");
        server.pulse_ok(&["epoch", "new", "--yes"]);
        assert_eq!(watch.snapshot().await.nodes.len(), 2, "in the open stream, at once");
        assert_shown(&server, false);
    });
}

#[test]
fn a_new_epoch_amid_changes_reaches_every_stream_and_none_goes_back() {
    const STREAMS: usize = 50;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::start();
    put_home(&server, "add", &["delly"]);
    let join = server.join_string(&["--instance", "home", "--uses", "50"]);
    let change = |number: usize| {
        let body = json!({ "endpoints": [{ "name": "delly" }, { "name": format!("n{number}") }] });
        let answer = server.admin("PUT", "/instances/home", Some(&body)).expect("the server answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let watches = runtime.block_on(async {
        let first = Client::register(&server, &join, "host-0").await;
        let mut watches = Vec::new();
        for number in 0..STREAMS {
            let client = match number {
                0 => first.clone(),
                _ => first.register_beside(&join, &format!("host-{number}")).await,
            };
            // A connection takes a few streams only.
            let client = client.reconnect(&server).await;
            watches.push(client.watch(WatchAuthorizedNodesRequest::default()).await);
        }
        watches
    });
    let before = server.allowlist("home")["epoch"].as_u64().expect("a number");
    let epochs: Vec<u64> = std::thread::scope(|scope| {
        scope.spawn(|| (1..=60).for_each(change));
        let begin = || server.json(&["epoch", "new", "--yes"])["epoch"].as_u64().expect("a number");
        (0..5).map(|_| begin()).collect()
    });
    assert!(epochs.is_sorted_by(|one, next| one < next) && epochs[0] > before, "{before} {epochs:?}");
    change(99);
    let newest = server.allowlist("home");
    assert_eq!(newest["epoch"].as_u64(), epochs.last().copied());
    runtime.block_on(async {
        for mut watch in watches {
            let mut reached = (0, 0);
            while reached != (newest["epoch"].as_u64().unwrap(), newest["revision"].as_u64().unwrap()) {
                let list = watch.snapshot().await;
                assert!((list.epoch, list.revision) > reached, "{list:?} came behind {reached:?}");
                reached = (list.epoch, list.revision);
            }
        }
    });
    let history = server.json(&["allowlist", "history", "--instance", "home", "--limit", "500"]);
    let places: Vec<_> = history["revisions"].as_array().expect("a list").iter().collect();
    assert_eq!(places.len(), 67, "the first, 60 and one changes, 5 epochs");
    let place = |one: &Value| (one["epoch"].as_u64(), one["revision"].as_u64());
    assert!(places.is_sorted_by(|newer, older| place(newer) > place(older)), "{places:#?}");
    assert_shown(&server, false);
    server.pulse_ok(&["check"]);
}
