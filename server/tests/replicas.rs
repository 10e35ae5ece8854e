//! Several servers on one PostgreSQL, and the traps of it: numbers that are taken early and shown late, bells that nobody hears or
//! that ring too early, proxies that hop to a server which is behind, tokens that are good or spent at all of them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pulse_proto::JoinString;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{RegisterRequest, RotateTokenRequest};
use pulse_test_support::{
    Client, PATIENCE, Server, connect, eventually, holding, in_time, let_pass, with_token,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt;

#[path = "support/older.rs"]
mod older;
#[path = "support/replicas.rs"]
mod support;

use support::{ASKED, Replicas, home, report, revision, set_nodes, shown_revision};

/// Passes bytes on to the database, until it is told to hold them.
struct Cable {
    address: SocketAddr,
    is_held: Arc<AtomicBool>,
    /// Whether the next connection on which a change of the fleet ends is cut before anybody hears of that.
    is_cut: Arc<AtomicBool>,
}

impl Cable {
    fn to(database: SocketAddr) -> Cable {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (is_held, is_cut): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let (held, cut) = (Arc::clone(&is_held), Arc::clone(&is_cut));
        std::thread::spawn(move || {
            for front in listener.incoming().flatten() {
                let Ok(back) = TcpStream::connect(database) else { continue };
                for (from, to) in [(&front, &back), (&back, &front)] {
                    let (from, to) =
                        (from.try_clone().expect("it is open"), to.try_clone().expect("it is open"));
                    let (held, cut) = (Arc::clone(&held), Arc::clone(&cut));
                    std::thread::spawn(move || pass_on(from, to, &held, &cut));
                }
            }
        });
        Cable { address, is_held, is_cut }
    }

    fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::SeqCst);
    }
}

/// Two servers, of which the second reaches the database over a cable.
fn with_a_cable() -> (Replicas, Cable) {
    let mut replicas = Replicas::start(1);
    let (server, database) = replicas.url.rsplit_once('/').expect("a URL has a path");
    let address = server.rsplit('@').next().expect("a URL has a host").parse().expect("it is an address");
    let cable = Cable::to(address);
    let url = format!("postgres://{}@{}/{database}", pulse_test_support::postgres::USER, cable.address);
    let mut second = Server::builder().beside(&replicas.servers[0], &url);
    second.start_again();
    replicas.servers.push(second);
    (replicas, cable)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, is_held: &AtomicBool, is_cut: &AtomicBool) {
    let (mut buffer, mut is_change) = ([0; 16 << 10], false);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while is_held.load(Ordering::SeqCst) {
            let_pass(Duration::from_millis(5));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        let has = |text: &[u8]| buffer[..count].windows(text.len()).any(|bytes| bytes == text);
        // Its audit row goes by, then its end.
        is_change |= has(b"instance.set") || has(b"proxy.register");
        let ends = has(b"COMMIT\0");
        if ends && std::mem::take(&mut is_change) && is_cut.swap(false, Ordering::SeqCst) {
            // The database has it, and its answer reaches nobody.
            let _ = from.shutdown(Shutdown::Both);
            let_pass(Duration::from_millis(200));
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
    eventually(PATIENCE, "every server is shown, and which does the upkeep", || {
        let status = replicas.servers[1].json(&["status"]);
        let all = status["replicas"].as_array().cloned().unwrap_or_default();
        let is_whole = |replica: &&Value| {
            replica["version"] == json!(env!("CARGO_PKG_VERSION"))
                && replica["streams"] == json!(PROXIES / 3)
                && replica["revisions_behind"] == json!(0)
        };
        let leases: Vec<_> = all.iter().map(|replica| replica["leases"].clone()).collect();
        let holders = leases.iter().filter(|leases| **leases == json!(["pruning"])).count();
        let is_so = all.iter().filter(is_whole).count() == 3 && holders == 1;
        if is_so { Ok(()) } else { Err(status) }
    });
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
    // A token that one has just made is good at the other at once.
    let client = home(here).await.reconnect(there).await;
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
async fn a_token_that_is_rotated_at_one_is_good_at_another_and_its_first_use_there_ends_the_old_one_here() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    let old = home(here).await;
    let rotated = old.grpc.clone().rotate_token(old.authorized(RotateTokenRequest {})).await;
    let token = rotated.expect("the token is good").into_inner().ctrl_token;
    let new = Client { token, ..old.reconnect(there).await };
    new.watch(Default::default()).await.snapshot().await;
    eventually(Duration::from_secs(1), "the old token is good nowhere", || {
        let sql = "SELECT string_agg(standing, ' ' ORDER BY standing) FROM ctrl_tokens";
        let standings = replicas.sql(sql);
        let (shown, newest) = (shown_revision(here), replicas.sql("SELECT revision FROM fleet"));
        if shown.to_string() == newest { Ok(()) } else { Err((shown, newest, standings)) }
    });
    let refused = old.try_watch(Default::default()).await.expect_err("its time is over");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_with_one_token_ends_the_first_also_when_that_is_at_another_server() {
    let replicas = Replicas::start(2);
    let [here, there] = &replicas.servers[..] else { panic!("there are two") };
    let client = home(here).await;
    let mut first = client.watch(Default::default()).await;
    let list = first.snapshot().await;
    // At once: which of both is written first does not matter, but which was opened last.
    let mut second = client.reconnect(there).await.watch(holding(&list)).await;
    assert!(matches!(second.next_kind().await, Kind::Unchanged(_)));
    let end = loop {
        match first.next().await {
            Ok(Some(message)) => assert!(matches!(message.kind, Some(Kind::Bookmark(_))), "{message:?}"),
            other => break other,
        }
    };
    let status = end.expect_err("it is told why it ends");
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    let reason = status.get_details_error_info().map(|info| info.reason);
    assert_eq!(reason.as_deref(), Some("REPLACED_BY_ANOTHER_STREAM"));
    // The one that was opened last stays, and the way back is free.
    second.hears_only_bookmarks().await;
    let mut back = client.watch(holding(&list)).await;
    assert!(matches!(back.next_kind().await, Kind::Unchanged(_)));
    while let Ok(Some(_)) = second.next().await {}
    back.hears_only_bookmarks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_lets_in_as_many_as_it_is_for_however_many_servers_are_asked() {
    const USES: usize = 5;
    const RACERS: usize = 8;
    let replicas = Replicas::start(3);
    replicas.servers[0].pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = replicas.servers[0].join_string(&["--instance", "home", "--uses", &USES.to_string()]);
    let join: JoinString = join.parse().expect("the server made it");
    let token = join.join.expect("it has a token").reveal().to_owned();
    let mut racing = JoinSet::new();
    for (at, server) in replicas.servers.iter().enumerate() {
        let grpc = connect(server).await;
        for racer in 0..RACERS {
            let (mut grpc, token, host) = (grpc.clone(), token.clone(), at * RACERS + racer);
            racing.spawn(async move {
                let hostname = format!("host-{host}");
                let host = RegisterRequest {
                    hostname,
                    machine_id: format!("{host:064x}"),
                    ..RegisterRequest::default()
                };
                grpc.register(with_token(host, &token)).await
            });
        }
    }
    let (mut winners, mut losers) = (0, HashMap::<_, usize>::new());
    for outcome in racing.join_all().await {
        match outcome {
            Ok(_) => winners += 1,
            Err(status) => {
                let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
                *losers.entry(reason).or_default() += 1;
            }
        }
    }
    assert_eq!(winners, USES, "{losers:?}");
    assert!(losers.contains_key("JOIN_TOKEN_USED"), "{losers:?}");
    for server in &replicas.servers {
        eventually(ASKED, "every server has the same proxies and knows that the token is spent", || {
            let known = server.proxies().len();
            let token = server.json(&["join", "list"])["join_tokens"][0].clone();
            if (known, &token["used"]) == (USES, &json!(USES)) { Ok(()) } else { Err((known, token)) }
        });
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
async fn a_change_rings_once_with_its_number_and_reports_never_ring() {
    let replicas = Replicas::start(1);
    let server = &replicas.servers[0];
    let client = home(server).await;
    let (listener, mut connection) =
        tokio_postgres::connect(&replicas.url, tokio_postgres::NoTls).await.expect("the database is there");
    let (rings_tx, mut rings) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(ring) = message {
                let _ = rings_tx.send(ring.payload().to_owned());
            }
        }
    });
    listener.batch_execute("LISTEN pulse_revision").await.expect("anybody may listen");
    let mut watch = client.watch(Default::default()).await;
    client.report_applied(&watch.snapshot().await).await;
    for sequence in 1..=20 {
        let taken = client.grpc.clone().report_temperatures(client.authorized(report(sequence))).await;
        assert_eq!(taken.expect("it is taken").into_inner().durable_sequence, sequence);
    }
    // The first ring is that of the change which comes after all of them.
    set_nodes(server, &["delly", "new"]);
    let ring = in_time("a ring", rings.recv()).await.expect("the connection is open");
    assert_eq!(ring, revision(server).to_string());
    listener.batch_execute("SELECT pg_notify('pulse_revision', 'last')").await.expect("anybody may ring");
    let last = in_time("a ring", rings.recv()).await.expect("the connection is open");
    assert_eq!(last, "last", "the change rang once");
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
async fn a_change_whose_end_was_not_heard_is_looked_for_and_answered_as_what_became_of_it() {
    let (replicas, cable) = with_a_cable();
    let far = &replicas.servers[1];
    far.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = far.join_string(&["--instance", "home"]);
    let cut = || cable.is_cut.store(true, Ordering::SeqCst);
    cut();
    far.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "new"]);
    cut();
    let client = Client::register(far, &join, "delly").await;
    assert!(!cable.is_cut.load(Ordering::SeqCst), "both were cut");
    assert!(far.process().has_said("the end of a change was not heard"), "{:?}", far.process().log());
    let made = replicas.sql("SELECT count(*) FROM audit WHERE action = 'instance.set'");
    assert_eq!(made, "1", "it was made once");
    assert_eq!(replicas.sql("SELECT count(*) FROM proxies"), "1");
    let list = client.watch(Default::default()).await.snapshot().await;
    assert_eq!(list.nodes.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_hops_to_a_server_which_is_behind_never_gets_an_older_list() {
    let (replicas, cable) = with_a_cable();
    let [here, behind] = &replicas.servers[..] else { panic!("there are two") };
    let client = home(here).await;
    // It has a stream at both in turn, so that the one that falls behind knows its token.
    let mut watch = client.reconnect(behind).await.watch(Default::default()).await;
    watch.snapshot().await;
    drop(watch);
    let mut watch = client.watch(Default::default()).await;
    let old = watch.snapshot().await;

    cable.hold(true);
    set_nodes(here, &["delly", "new"]);
    let new = watch.snapshot().await;
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

#[test]
fn who_polls_is_one_proxy_to_all_servers_whichever_it_asks() {
    let replicas = Replicas::start(2);
    let [first, second] = &replicas.servers[..] else { panic!("there are two") };
    first.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = older::join_token(first, &["--instance", "home", "--uses", "3"]);
    let older = older::Older::register(second, &join, "delly");
    let polled = [first, second].map(|server| older.pull(server).json()["hash"].clone());
    assert_eq!(polled[0], polled[1]);
    for server in [first, second] {
        let shown = server.wait_for_state(&older.id, "IN_SYNC");
        assert_eq!((&shown["transport"], &shown["applied"]["hash"]), (&json!("rest"), &polled[0]));
    }
    // Its token was used, at whichever server: an installer that runs again does not take it away.
    eventually(PATIENCE, "the second server wrote it down", || {
        match replicas.sql("SELECT count(*) FROM proxy_status WHERE list_source = 'pulled'").as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert_ne!(older::Older::register(first, &join, "delly").id, older.id);
    assert_eq!(older.pull(first).status, 200);
}

#[test]
fn who_is_let_in_at_one_server_is_in_at_all_of_them_and_so_is_who_is_put_out() {
    let replicas = Replicas::start(2);
    let [first, second] = &replicas.servers[..] else { panic!("there are two") };
    let made = first.json(&["token", "create", "test", "--scope", "monitoring:read"]);
    let bearer = format!("Bearer {}", made["secret"].as_str().expect("it is shown once"));
    let sees = |server: &Server, name: &str, value: &str| {
        server.api("GET", "/status", &[(name, value)], None).expect("the server answers").status == 200
    };
    assert!(sees(second, "authorization", &bearer), "a token of a moment ago");
    let links = [first, second].map(Server::first_link);
    let enter = |server: &Server, path: &str, body: &Value| {
        let answer = server.api("POST", path, &[], Some(body)).expect("the server answers");
        let cookie = answer.header("set-cookie").and_then(|set| set.split(';').next());
        cookie.map(str::to_owned).ok_or(answer.status)
    };
    let password = "correct horse battery";
    let set_up =
        |link: &str| json!({ "link": link.split_once('#').expect("a link").1, "password": password });
    let cookies = [
        enter(first, "/set-up", &set_up(&links[0])).expect("the link is good"),
        enter(second, "/session", &json!({ "name": "admin", "password": password })).expect("it is set"),
    ];
    assert_eq!(enter(second, "/set-up", &set_up(&links[1])), Err(403), "there is an admin by now");
    for (server, cookie) in [first, second].into_iter().flat_map(|one| cookies.each_ref().map(|of| (one, of)))
    {
        assert!(sees(server, "cookie", cookie));
    }
    first.json(&["admin", "reset", "admin"]);
    second.json(&["token", "revoke", made["token"]["id"].as_str().expect("it has an id")]);
    for server in [first, second] {
        eventually(ASKED, "all of it is over", || {
            let is_in = [("authorization", &bearer), ("cookie", &cookies[0]), ("cookie", &cookies[1])];
            let in_still = is_in.map(|(name, value)| sees(server, name, value));
            if in_still == [false; 3] { Ok(()) } else { Err(in_still) }
        });
    }
}
