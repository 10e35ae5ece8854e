//! Several servers on one PostgreSQL, and the traps of it: numbers that are taken early and shown late, bells that nobody hears or
//! that ring too early, proxies that hop to a server which is behind, databases that go away or lost their last commits.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pulse_test_support::postgres::Postgres;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::{Client, PATIENCE, Proxy, Server, Watch, eventually, holding, in_time, let_pass};
use serde_json::{Value, json};
use tonic::Code;

/// How long another server may take to hear of a change whose ring was lost: it asks every second.
const ASKED: Duration = Duration::from_secs(3);

/// A database, and some servers on it.
struct Replicas {
    servers: Vec<Server>,
    postgres: Postgres,
    url: String,
}

impl Replicas {
    fn start(count: usize) -> Replicas {
        let postgres = Postgres::start();
        let url = postgres.database();
        let first = Server::builder().config(&format!("database_url: {url}")).start();
        let mut replicas = Replicas { servers: vec![first], postgres, url };
        for _ in 1..count {
            replicas.join(&replicas.url.clone());
        }
        replicas
    }

    /// Starts one more, which reaches the database under this URL.
    fn join(&mut self, url: &str) {
        let mut server = Server::builder().beside(&self.servers[0], url);
        server.start_again();
        self.servers.push(server);
    }

    fn database(&self) -> &str {
        self.url.rsplit('/').next().expect("a URL has a path")
    }

    /// Asks the database itself.
    fn sql(&self, sql: &str) -> String {
        let asked = self.postgres.ask(self.database(), sql);
        assert!(asked.status.success(), "{sql}: {}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).expect("psql writes UTF-8").trim().to_owned()
    }
}

fn set_nodes(server: &Server, nodes: &[&str]) -> Instant {
    let mut arguments = vec!["instance", "set", "home"];
    nodes.iter().for_each(|node| arguments.extend(["--endpoint", node]));
    server.pulse_ok(&arguments);
    Instant::now()
}

fn revision(server: &Server) -> u64 {
    server.json(&["status"])["revision"].as_u64().expect("a revision is a number")
}

/// The revision that a server pushes, without making it ask: as its metrics have it.
fn shown_revision(server: &Server) -> f64 {
    server.metrics().value("pulse_revision")
}

async fn next_list(watch: &mut Watch) -> pulse_test_support::v1::AllowlistSnapshot {
    watch.snapshot().await
}

/// Passes bytes on to the database, until it is told to hold them.
struct Cable {
    address: SocketAddr,
    is_held: Arc<AtomicBool>,
}

impl Cable {
    fn to(database: SocketAddr) -> Cable {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let (address, is_held) =
            (listener.local_addr().expect("it is bound"), Arc::new(AtomicBool::new(false)));
        let held = Arc::clone(&is_held);
        std::thread::spawn(move || {
            for front in listener.incoming().flatten() {
                let Ok(back) = TcpStream::connect(database) else { continue };
                for (from, to) in [(&front, &back), (&back, &front)] {
                    let (from, to) =
                        (from.try_clone().expect("it is open"), to.try_clone().expect("it is open"));
                    let held = Arc::clone(&held);
                    std::thread::spawn(move || pass_on(from, to, &held));
                }
            }
        });
        Cable { address, is_held }
    }

    fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, is_held: &AtomicBool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while is_held.load(Ordering::SeqCst) {
            let_pass(Duration::from_millis(5));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_at_one_is_applied_at_all_and_a_server_that_is_killed_loses_nothing() {
    const PROXIES: usize = 300;
    let mut replicas = Replicas::start(3);
    replicas.servers[0].pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = replicas.servers[1].join_string(&["--instance", "home", "--uses", &PROXIES.to_string()]);
    let mut clients: Vec<Client> = Vec::new();
    for host in 0..PROXIES {
        let server = &replicas.servers[host % 3];
        let client = match clients.get(host.wrapping_sub(3)) {
            Some(before) => before.register_beside(&join, &format!("host-{host}")).await,
            None => Client::register(server, &join, &format!("host-{host}")).await,
        };
        clients.push(client);
    }
    // Each has a connection of its own, as proxies have.
    for (host, client) in clients.iter_mut().enumerate() {
        *client = client.reconnect(&replicas.servers[host % 3]).await;
    }
    let mut watches = Vec::new();
    for client in &clients {
        let mut watch = client.watch(Default::default()).await;
        let list = watch.snapshot().await;
        client.report_applied(&list).await;
        watches.push(watch);
    }
    for server in &replicas.servers {
        eventually(PATIENCE, "every server shows all streams", || {
            let status = server.json(&["status"]);
            let (streams, in_sync) = (&status["streams"], &status["proxies_by_state"]["IN_SYNC"]);
            let is_so = *streams == json!(PROXIES) && *in_sync == json!(PROXIES);
            if is_so { Ok(()) } else { Err(format!("{streams} streams, {in_sync} in sync: {status}")) }
        });
    }
    // A change at each of them reaches the proxies of all.
    let mut newest = Vec::new();
    for (at, server) in replicas.servers.iter().enumerate() {
        let changed = set_nodes(server, &["delly", &format!("node-{at}")]);
        newest.clear();
        for (client, watch) in clients.iter().zip(&mut watches) {
            let list = watch.snapshot().await;
            assert_eq!(list.nodes.len(), 2);
            client.report_applied(&list).await;
            newest.push(list);
        }
        println!("a change at server {at} is applied by {PROXIES} proxies after {:?}", changed.elapsed());
        assert!(newest.iter().all(|list| list.hash == newest[0].hash && list.revision == newest[0].revision));
    }
    // One is killed: its proxies go on at the others, which know what they hold.
    replicas.servers[2].kill();
    for (host, client) in clients.iter().enumerate().filter(|(host, _)| host % 3 == 2) {
        let moved = client.reconnect(&replicas.servers[host % 2]).await;
        let mut watch = moved.watch(holding(&newest[host])).await;
        assert!(matches!(watch.next_kind().await, Kind::Unchanged(_)), "it holds the newest list");
        watches[host] = watch;
    }
    set_nodes(&replicas.servers[0], &["delly"]);
    for watch in &mut watches {
        assert_eq!(watch.snapshot().await.nodes.len(), 1);
    }
    let status = replicas.servers[1].json(&["status"]);
    assert_eq!(status["database_older_than_fleet"], Value::Null);
    eventually(PATIENCE, "the killed server is shown as silent", || {
        let status = replicas.servers[1].json(&["status"]);
        let all = status["replicas"].as_array().cloned().unwrap_or_default();
        let silent = all.iter().filter(|replica| replica["is_alive"] == json!(false)).count();
        if (all.len(), silent) == (3, 1) { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_at_one_ends_the_stream_at_another_within_a_second() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = here.join_string(&["--instance", "home"]);
    // A token that one has just made is good at the other at once.
    let client = Client::register(here, &join, "delly").await.reconnect(there).await;
    let mut watch = client.watch(Default::default()).await;
    watch.snapshot().await;
    here.pulse_ok(&["proxy", "revoke", &client.proxy_id]);
    let revoked = Instant::now();
    assert!(matches!(watch.next_kind().await, Kind::Revoked(_)));
    assert!(revoked.elapsed() < Duration::from_secs(1), "it took {:?}", revoked.elapsed());
    let refused = client.try_watch(Default::default()).await;
    if let Ok(mut watch) = refused {
        assert!(matches!(watch.next_kind().await, Kind::Revoked(_)), "a tombstone is one at every server");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_listen_connection_delays_a_change_by_a_second_or_two_and_no_more() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    for round in 0..3 {
        let ended = replicas.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE application_name = 'pulse bell' AND datname = current_database()",
        );
        println!("{ended} bells are deaf");
        set_nodes(here, &["delly", &format!("node-{round}")]);
        let wanted = revision(here) as f64;
        eventually(ASKED, "the change is heard of without a bell", || {
            let shown = shown_revision(there);
            if shown == wanted { Ok(()) } else { Err(shown) }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_before_the_commit_is_visible_loses_nothing() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let before = revision(here);
    // Somebody else's transaction, without a ring; and rings while it is open.
    let pending = std::thread::scope(|scope| {
        let committing = scope.spawn(|| {
            replicas.sql(
                "BEGIN; UPDATE fleet SET revision = revision + 1;
                 INSERT INTO instances (id, name, created_at, removed_at, revision)
                     SELECT '00000000-0000-0000-0000-000000000007', 'seven', 0, NULL, revision FROM fleet;
                 SELECT pg_sleep(1.5); COMMIT",
            )
        });
        while !committing.is_finished() {
            replicas.sql("SELECT pg_notify('pulse_revision', '9999')");
            for server in [here, there] {
                let shown = shown_revision(server);
                assert!(
                    shown == before as f64 || committing.is_finished(),
                    "{shown} is shown and not committed"
                );
            }
        }
        committing.join().expect("it does not panic")
    });
    println!("{pending}");
    for server in [here, there] {
        eventually(ASKED, "what was committed without a ring is there", || {
            let shown = shown_revision(server);
            if shown == (before + 1) as f64 { Ok(()) } else { Err(shown) }
        });
        let shown = server.json(&["instance", "list"]);
        assert!(shown.to_string().contains("seven"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_takes_its_number_early_and_commits_late_is_not_overtaken() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let before = revision(here);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            replicas.sql(
                "BEGIN; UPDATE fleet SET revision = revision + 1; SELECT pg_sleep(2);
                 INSERT INTO instances (id, name, created_at, removed_at, revision)
                     SELECT '00000000-0000-0000-0000-000000000007', 'seven', 0, NULL, revision FROM fleet; COMMIT",
            )
        });
        eventually(PATIENCE, "it has taken its number", || {
            let waiting = replicas.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND wait_event = 'PgSleep'");
            if waiting == "0" { Err(waiting) } else { Ok(()) }
        });
        // This one asked later, and gets a later number, however long the other takes.
        set_nodes(there, &["delly", "late"]);
    });
    assert_eq!(revision(there), before + 2);
    assert_eq!(revision(here), before + 2);
    let numbers =
        replicas.sql("SELECT string_agg(name || '=' || revision, ' ' ORDER BY revision) FROM instances");
    assert_eq!(numbers, format!("seven={} home={}", before + 1, before + 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_hops_to_a_server_which_is_behind_never_gets_an_older_list() {
    let mut replicas = Replicas::start(1);
    let (server, database) = replicas.url.rsplit_once('/').expect("a URL has a path");
    let address = server.rsplit('@').next().expect("a URL has a host").parse().expect("it is an address");
    let cable = Cable::to(address);
    let url = format!("postgres://{}@{}/{database}", pulse_test_support::postgres::USER, cable.address);
    replicas.join(&url);
    let [here, behind] = &replicas.servers[..] else { panic!("there are two") };
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = here.join_string(&["--instance", "home"]);
    let client = Client::register(here, &join, "delly").await;
    // It has a stream at both in turn, so that the one that falls behind knows its token.
    let mut watch = client.reconnect(behind).await.watch(Default::default()).await;
    watch.snapshot().await;
    drop(watch);
    let mut watch = client.watch(Default::default()).await;
    let old = watch.snapshot().await;

    cable.hold(true);
    set_nodes(here, &["delly", "new"]);
    let new = next_list(&mut watch).await;
    assert!(new.revision > old.revision);
    drop(watch);
    let hopped = client.reconnect(behind).await;
    let asking = hopped.clone();
    let held = holding(&new);
    let opening =
        tokio::spawn(
            async move { asking.grpc.clone().watch_authorized_nodes(asking.authorized(held)).await },
        );
    // It has to ask the database before it says anything.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        !opening.is_finished()
            || opening.await.is_ok_and(|answer| answer.is_err_and(|s| s.code() == Code::Unavailable))
    );
    cable.hold(false);
    eventually(PATIENCE, "the server has caught up", || {
        let shown = shown_revision(behind);
        if shown >= new.revision as f64 { Ok(()) } else { Err(shown) }
    });
    let mut watch = hopped.watch(holding(&new)).await;
    assert!(matches!(watch.next_kind().await, Kind::Unchanged(_)));
    assert_eq!(
        behind.json(&["status"])["database_older_than_fleet"],
        Value::Null,
        "nobody is ahead of anything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_a_server_goes_on_and_says_so() {
    let mut replicas = Replicas::start(2);
    let Replicas { servers, postgres, .. } = &mut replicas;
    let [here, there] = &servers[..] else { panic!("there are two") };
    here.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = here.join_string(&["--instance", "home"]);
    let client = Client::register(here, &join, "delly").await;
    let mut watch = client.watch(Default::default()).await;
    let list = watch.snapshot().await;
    let known = revision(here) as f64;
    eventually(ASKED, "the other server knows the proxy", || {
        if shown_revision(there) == known { Ok(()) } else { Err(shown_revision(there)) }
    });
    postgres.kill();
    // The stream goes on, another can be opened, and what is in force is served.
    watch.hears_only_bookmarks().await;
    let mut other = client.reconnect(there).await.watch(holding(&list)).await;
    assert!(matches!(other.next_kind().await, Kind::Unchanged(_)));
    // A write fails, and says why.
    let refused = here.pulse(&["instance", "set", "home", "--endpoint", "delly", "--endpoint", "new"]);
    assert!(!refused.is_success());
    assert!(
        refused.stderr.contains("committed") || refused.stderr.contains("database"),
        "{}",
        refused.stderr
    );
    let status = client.grpc.clone().register(client.authorized(Default::default())).await;
    drop(status);
    // And all of it is as before when the database is back.
    postgres.resume();
    eventually(PATIENCE, "changes are made again", || {
        let ran = there.pulse(&["instance", "set", "home", "--endpoint", "delly", "--endpoint", "back"]);
        if ran.is_success() { Ok(()) } else { Err(ran.stderr) }
    });
    let list = in_time("the change", other.snapshot()).await;
    assert_eq!(list.nodes.len(), 2);
    assert_eq!(list.revision, revision(here));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lost_its_last_commits_is_noticed_as_older_than_the_fleet() {
    let mut replicas = Replicas::start(1);
    replicas.servers[0].pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = replicas.servers[0].join_string(&["--instance", "home"]);
    let client = Client::register(&replicas.servers[0], &join, "delly").await;
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
    let refused = client.reconnect(server).await.watch(holding(&lost)).await;
    drop(refused);
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
