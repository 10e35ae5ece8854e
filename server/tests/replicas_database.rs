//! What several servers need of their database: that it is there, that it has not lost what was committed, that they can read the
//! keys in it; and what they do without.

use std::path::Path;
use std::time::{Duration, Instant};

use pulse_test_support::postgres::Postgres;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{AllowlistSnapshot, RegisterRequest};
use pulse_test_support::{
    Client, PATIENCE, Proxy, Server, eventually, holding, in_time, let_pass, with_token,
};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

#[path = "support/replicas.rs"]
mod support;

use support::{ASKED, Replicas, home, report, revision, set_nodes, shown_revision};

/// How long the database is away.
const AWAY: Duration = Duration::from_secs(60);

/// The code and the reason of a refusal that says when to come back.
fn comes_back(refused: &Status) -> (Code, String) {
    let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "{refused:?}");
    let reason = refused.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    (refused.code(), reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_its_database_ends_no_stream_and_fails_each_write_with_what_to_do() {
    let mut replicas = Replicas::start(2);
    let Replicas { servers, postgres, .. } = &mut replicas;
    let [here, there] = &servers[..] else { panic!("there are two") };
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = here.join_string(&["--instance", "home", "--uses", "2"]);
    let client = Client::register(here, &join, "delly").await;
    let mut watch = client.watch(Default::default()).await;
    let list = watch.snapshot().await;
    client.report_applied(&list).await;
    here.wait_for_state(&client.proxy_id, "IN_SYNC");
    let taken = client.grpc.clone().report_temperatures(client.authorized(report(1))).await;
    assert_eq!(taken.expect("it is taken").into_inner().durable_sequence, 1);
    let known = revision(here) as f64;
    eventually(ASKED, "the other server knows the proxy", || {
        if shown_revision(there) == known { Ok(()) } else { Err(shown_revision(there)) }
    });

    postgres.kill();
    let away = Instant::now();
    // Another stream can be opened, at a server that it was not at; what is in force is served.
    let mut other = client.reconnect(there).await.watch(holding(&list)).await;
    assert!(matches!(other.next_kind().await, Kind::Unchanged(_)));
    drop(other);
    // A write fails, and says why.
    let refused =
        here.pulse(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "new"]);
    assert!(!refused.is_success());
    assert!(refused.stderr.contains("could not be committed"), "{}", refused.stderr);
    let token = join.split("join=").nth(1).expect("a join string has a token");
    let message = RegisterRequest { hostname: "attic".to_owned(), ..RegisterRequest::default() };
    let refused = client.grpc.clone().register(with_token(message, token)).await;
    let refused = refused.expect_err("nothing can be committed");
    assert_eq!(comes_back(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()), "{refused:?}");
    // Readings wait at their proxy.
    let refused = client.grpc.clone().report_temperatures(client.authorized(report(2))).await;
    let refused = refused.expect_err("nothing can be stored");
    assert_eq!(
        comes_back(&refused),
        (Code::ResourceExhausted, "STORE_UNAVAILABLE".to_owned()),
        "{refused:?}"
    );
    while away.elapsed() < AWAY {
        watch.hears_only_bookmarks().await;
        for server in [here, there] {
            let status = server.json(&["status"]);
            assert_eq!(status["database"], json!("degraded"));
            assert_eq!(server.get("/readyz").expect("it answers").status, 200);
        }
        assert_eq!(here.wait_for_state(&client.proxy_id, "IN_SYNC")["state"], json!("IN_SYNC"));
    }

    // And all of it is as before when the database is back.
    postgres.resume();
    eventually(PATIENCE, "changes are made again", || {
        let ran =
            there.pulse(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "back"]);
        if ran.is_success() { Ok(()) } else { Err(ran.stderr) }
    });
    let list = in_time("the change", watch.snapshot()).await;
    assert_eq!(list.nodes.len(), 2);
    assert_eq!(list.revision, revision(there));
    let taken = client.grpc.clone().report_temperatures(client.authorized(report(2))).await;
    assert_eq!(taken.expect("it is taken").into_inner().durable_sequence, 2);
    Client::register(there, &join, "attic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_keeps_nobody_from_looking_and_no_server_from_ending() {
    let mut replicas = Replicas::start(2);
    let client = home(&replicas.servers[0]).await;
    let mut watch = client.watch(Default::default()).await;
    let list = watch.snapshot().await;
    client.report_applied(&list).await;
    replicas.postgres.hang();
    let began = Instant::now();
    let status = replicas.servers[0].json(&["status"]);
    assert_eq!(status["revision"], json!(revision(&replicas.servers[0])));
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?} to look twice", began.elapsed());
    let began = Instant::now();
    let refused = replicas.servers[0].pulse(&["instance", "set", "--yes", "home", "--endpoint", "new"]);
    assert!(!refused.is_success());
    assert!(refused.stderr.contains("does not answer"), "{}", refused.stderr);
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?} to say so", began.elapsed());
    watch.hears_only_bookmarks().await;
    let server = &mut replicas.servers[0];
    server.terminate();
    assert_eq!(server.wait_exit(Duration::from_secs(10)), Some(0), "{:?}", server.process().log());
    replicas.postgres.go_on();
    let there = &replicas.servers[1];
    eventually(PATIENCE, "the other server goes on where it was", || {
        let ran =
            there.pulse(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "back"]);
        if ran.is_success() { Ok(()) } else { Err(ran.stderr) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_what_its_nodes_make_is_not_taken_over_and_that_is_shown() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    let client = home(here).await.reconnect(there).await;
    let mut watch = client.watch(Default::default()).await;
    let list = watch.snapshot().await;
    replicas.sql(
        "BEGIN; UPDATE fleet SET revision = revision + 1;
         INSERT INTO allowlists (scope, epoch, revision, hash, updated_at, refresh_interval_ms, key_id, signature, nodes)
             SELECT scope, epoch, (SELECT revision FROM fleet), 'sha256:' || repeat('0', 64), updated_at,
                 refresh_interval_ms, key_id, signature, nodes
             FROM allowlists WHERE scope LIKE 'instance:%' ORDER BY revision DESC LIMIT 1; COMMIT",
    );
    for server in [here, there] {
        eventually(ASKED, "it is shown that this server is behind", || {
            let status = server.json(&["status"]);
            let is_shown = status["database"] == json!("degraded")
                && status["replicas"][0]["revisions_behind"] == json!(1);
            if is_shown { Ok(()) } else { Err(status) }
        });
        let ready = server.get("/readyz").expect("it answers");
        assert!(ready.status == 200 && ready.body.contains("cannot be taken over"), "{ready:?}");
    }
    watch.hears_only_bookmarks().await;
    let same = client.watch(holding(&list)).await.next_kind().await;
    assert!(matches!(same, Kind::Unchanged(_)), "what is in force stays: {same:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_ahead_is_pushed_to_by_no_server() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    let client = home(here).await;
    let list = client.watch(Default::default()).await.snapshot().await;
    // It says that it holds what this database never made; then the database's own number overtakes that.
    let claim = AllowlistSnapshot {
        revision: list.revision + 3,
        hash: "sha256:".to_owned() + &"1".repeat(64),
        ..list
    };
    let mut watch = client.watch(holding(&claim)).await;
    watch.hears_only_bookmarks().await;
    drop(watch);
    for node in 0..6 {
        set_nodes(here, &["delly", &format!("node-{node}")]);
    }
    for server in [here, there] {
        eventually(ASKED, "every server shows it", || {
            let status = server.json(&["status"]);
            if status["database_older_than_fleet"].is_object() { Ok(()) } else { Err(status) }
        });
        let mut watch = client.reconnect(server).await.watch(holding(&claim)).await;
        watch.hears_only_bookmarks().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_server_needs_the_sealing_key_and_shares_authority_and_signature_by_it() {
    let mut replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    let (pin, other) = (here.json(&["status"])["pin"].clone(), there.json(&["status"])["pin"].clone());
    assert!(pin.is_string() && pin == other, "{pin} {other}");
    // A proxy that registered at one trusts the other, and what it signs.
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&here.join_string(&["--instance", "home"]));
    let id = here.proxies()[0]["id"].as_str().expect("it has an id").to_owned();
    let config = std::fs::read_to_string(proxy.config_path()).expect("it has a configuration");
    let moved = config.replace(&here.address().port().to_string(), &there.address().port().to_string());
    assert_ne!(config, moved);
    std::fs::write(proxy.config_path(), moved).expect("a file can be written");
    proxy.start();
    there.wait_for_state(&id, "IN_SYNC");
    // In the database is no key that anybody could use.
    let stored =
        replicas.sql("SELECT encode(signing_key, 'hex'), encode(authority_key, 'escape') FROM fleet");
    let (signing, authority) = stored.split_once('|').expect("there are two columns");
    // PKCS #8 begins with a sequence, what is sealed with its form.
    assert!(signing.starts_with("01") && !authority.contains("PRIVATE KEY"), "{stored}");

    let url = replicas.url.clone();
    let mut third = Server::builder().beside(&replicas.servers[0], &url);
    let path = third.data_dir().join("secret.key");
    let right = std::fs::read_to_string(&path).expect("it was copied");
    let before = replicas.sql("SELECT md5(CAST(fleet AS TEXT)) FROM fleet");
    let mut refused = |text: Option<&str>, says: &str| {
        match text {
            Some(text) => std::fs::write(&path, text).expect("a file can be written"),
            None => std::fs::remove_file(&path).expect("it is there"),
        }
        third.spawn();
        assert_eq!(third.wait_exit(PATIENCE), Some(2), "{:?}", third.process().log());
        assert!(third.process().has_said(says), "{:?}", third.process().log());
        assert!(!third.process().has_said(right.trim()), "it shows a key");
    };
    refused(None, "copy secret.key from the data folder of a server that is on this database");
    refused(Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), "is not the key under which");
    refused(Some("no key\n"), "it must be 32 bytes in base64");
    assert_eq!(replicas.sql("SELECT md5(CAST(fleet AS TEXT)) FROM fleet"), before, "nothing was changed");
    std::fs::write(&path, &right).expect("a file can be written");
    third.start_again();
    assert_eq!(third.json(&["status"])["pin"], pin);
    replicas.servers.push(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lost_its_last_commits_is_noticed_as_older_than_the_fleet() {
    let mut replicas = Replicas::start(1);
    let client = home(&replicas.servers[0]).await;
    // As a machine has it that takes over and lacks the last commits.
    let copy = replicas.sql("SELECT revision FROM fleet");
    set_nodes(&replicas.servers[0], &["delly", "lost"]);
    let mut watch = client.watch(Default::default()).await;
    let lost = watch.snapshot().await;
    replicas.sql(&format!(
        "BEGIN; DELETE FROM allowlists WHERE revision > {copy}; DELETE FROM audit WHERE revision > {copy};
         UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1);
         DELETE FROM instance_nodes WHERE name = 'lost'; UPDATE instances SET revision = {copy};
         UPDATE fleet SET revision = {copy}; COMMIT"
    ));
    let server = &mut replicas.servers[0];
    eventually(PATIENCE, "the server ends, to begin anew with what is there", || {
        server.process_ended().map(|_| ()).ok_or("it runs")
    });
    assert!(server.process().has_said("older than the fleet"), "{:?}", server.process().log());
    server.start_again();
    let mut watch = client.reconnect(server).await.watch(holding(&lost)).await;
    watch.hears_only_bookmarks().await;
    eventually(PATIENCE, "it is shown", || {
        let status = server.json(&["status"]);
        if status["database_older_than_fleet"].is_object() { Ok(()) } else { Err(status) }
    });
}

#[test]
fn the_database_is_reached_over_tls_and_only_if_its_certificate_is_from_the_named_authority() {
    let (postgres, authority) = Postgres::start_with_tls();
    let url = postgres.database().replace("127.0.0.1", "localhost");
    let config = |more: &str| format!("database_url: {url}?sslmode=require\n{more}");
    let server =
        Server::builder().config(&config(&format!("database_ca_file: {}", authority.display()))).start();
    let database = url.rsplit('/').next().expect("a URL has a path");
    let ssl = postgres.ask(
        database,
        "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
         WHERE application_name LIKE 'pulse%'",
    );
    let counts = String::from_utf8(ssl.stdout).expect("psql writes UTF-8");
    let (with, all) = counts.trim().split_once('|').expect("there are two columns");
    assert!(with == all && all != "0", "{counts}");
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    // The authorities of the system know nothing of it.
    let mut stranger = Server::builder().config(&config("")).prepare();
    stranger.spawn();
    assert_eq!(stranger.wait_exit(PATIENCE), Some(1));
    assert!(stranger.process().has_said("certificate"), "{:?}", stranger.process().log());
}

#[test]
fn a_password_is_read_from_a_file_or_the_environment_and_shown_nowhere() {
    const SECRET: &str = "hunter2-is-not-it";
    let postgres = Postgres::start();
    let url = postgres.database_with_password("guarded", SECRET);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
    std::fs::write(&right, format!("{SECRET}\n")).expect("a file can be written");
    std::fs::write(&wrong, "another").expect("a file can be written");
    let config = |file: &Path| format!("database_url: {url}\ndatabase_password_file: {}", file.display());
    let mut by_file = Server::builder().config(&config(&right)).start();
    let set = ["instance", "add", "home", "--endpoint", "delly"];
    by_file.pulse_ok(&set);
    let by_environment = Server::builder().env("PULSE_DATABASE_PASSWORD", SECRET);
    let mut by_environment = by_environment.beside(&by_file, &url);
    by_environment.start_again();
    assert_eq!(by_environment.json(&["instance", "list"])["instances"][0]["name"], json!("home"));
    let mut refused = Server::builder().config(&config(&wrong)).prepare();
    refused.spawn();
    assert_eq!(refused.wait_exit(PATIENCE), Some(1));
    assert!(refused.process().has_said("password authentication failed"), "{:?}", refused.process().log());
    by_file.terminate();
    assert_eq!(by_file.wait_exit(PATIENCE), Some(0));
    for server in [&by_file, &by_environment, &refused] {
        let log = server.process().log().join("\n");
        assert!(!log.contains(SECRET) && !log.contains("another"), "{log}");
    }
}

/// Thousandths of a degree as a payload has them, in hex: 32 bits, little-endian.
fn stored(celsius: u32) -> String {
    (celsius * 1_000).to_le_bytes().map(|byte| format!("{byte:02x}")).concat()
}

#[test]
fn readings_wait_while_the_database_is_away_and_none_is_lost_or_stored_twice() {
    let mut replicas = Replicas::start(1);
    let server = &replicas.servers[0];
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let mut proxy = Proxy::builder("delly").config("report_interval: 1s").build();
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    proxy.start();
    proxy.sysfs().let_read(41.0);
    let is_stored = |replicas: &Replicas, celsius: u32| {
        eventually(PATIENCE, &format!("{celsius} °C is stored"), || {
            let hex = stored(celsius);
            let sql = format!("SELECT count(*) FROM readings WHERE encode(payload, 'hex') LIKE '%{hex}%'");
            if replicas.sql(&sql) == "0" { Err(()) } else { Ok(()) }
        });
    };
    is_stored(&replicas, 41);
    replicas.postgres.kill();
    for celsius in [42, 43] {
        proxy.sysfs().let_read(f64::from(celsius));
        // Two reports of each.
        let_pass(Duration::from_secs(2));
    }
    assert_eq!(replicas.servers[0].json(&["status"])["database"], json!("degraded"));
    replicas.postgres.resume();
    proxy.sysfs().let_read(44.0);
    for celsius in [42, 43, 44] {
        is_stored(&replicas, celsius);
    }
    let doubles = replicas.sql("SELECT count(*) - count(DISTINCT collected_at) FROM readings");
    assert_eq!(doubles, "0", "each moment is stored once");
    let order = replicas.sql(
        "SELECT count(*) FROM (SELECT collected_at < lag(collected_at) OVER (ORDER BY id) AS is_late FROM readings) AS r
         WHERE is_late",
    );
    assert_eq!(order, "0", "they are stored in their order");
}
