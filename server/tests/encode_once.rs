//! A push to 10,000 streams: each list is encoded once, however many follow it, and everybody gets it.
//!
//! In plain text and many streams to a connection, as 10,000 handshakes would be all that a debug build is measured by.
//! Most of the streams are observers', which a proxy may have without bound; to the push they are streams like any other.

use std::collections::HashMap;

use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::{Client, Server, Watch, connect, in_time};
use serde_json::json;
use tokio::task::JoinSet;

/// The streams that hear of a change of the instance home: of its own list, and of that of all nodes.
const HOME: usize = 8_000;
const ALL: usize = 2_000;
/// Those of another instance, which must hear nothing.
const AWAY: usize = 100;
/// Of these are streams of proxies, each with its own.
const PROXIES: usize = 100;
/// The most streams of a connection that a server can be told to take.
const OF_ONE_CONNECTION: usize = 1_000;

/// Who watches one list.
struct Audience {
    proxies: Vec<Client>,
    observer_token: String,
}

impl Audience {
    async fn of(server: &Server, instance: &str, scope: &str, first: &Client) -> Audience {
        let join = server.join_string(&["--instance", instance, "--uses", &PROXIES.to_string()]);
        let mut proxies = Vec::with_capacity(PROXIES);
        for host in 0..PROXIES {
            let proxy = first.register_beside(&join, &format!("{instance}-{scope}-{host}")).await;
            if scope == "all" {
                let path = format!("/proxies/{}", proxy.proxy_id);
                let answer = server.admin("PATCH", &path, Some(&json!({ "scope": "all" })));
                assert_eq!(answer.expect("the server answers").status, 200);
            }
            proxies.push(proxy);
        }
        let made = server.json(&["proxy", "debug-token", &proxies[0].proxy_id]);
        let observer_token = made["token"].as_str().expect("there is a token").to_owned();
        Audience { proxies, observer_token }
    }

    /// Whoever opens the stream of this number: first the proxies, then observers.
    fn member(&self, number: usize) -> Client {
        let proxy = &self.proxies[number % self.proxies.len()];
        match number < self.proxies.len() {
            true => proxy.clone(),
            false => Client { token: self.observer_token.clone(), ..proxy.clone() },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_10000_streams_follow_is_encoded_once_and_each_of_them_gets_it() {
    let server = Server::builder()
        .plaintext()
        .config(&format!("limits: {{max_streams_per_connection: {OF_ONE_CONNECTION}}}"))
        .start();
    for instance in ["home", "away"] {
        server.pulse_ok(&["instance", "add", instance, "--endpoint", &format!("{instance}-0")]);
    }
    let first = server.join_string(&["--instance", "home"]);
    let first = Client::register(&server, &first, "first").await;
    let audiences = [
        (Audience::of(&server, "home", "instance", &first).await, HOME),
        (Audience::of(&server, "home", "all", &first).await, ALL),
        (Audience::of(&server, "away", "instance", &first).await, AWAY),
    ];

    let members = audiences
        .iter()
        .enumerate()
        .flat_map(|(audience, (of, count))| (0..*count).map(move |number| (audience, of.member(number))));
    let members: Vec<(usize, Client)> = members.collect();
    let mut opening = JoinSet::new();
    for members in members.chunks(OF_ONE_CONNECTION) {
        let (members, grpc) = (members.to_vec(), connect(&server).await);
        opening.spawn(async move {
            let mut watches = Vec::with_capacity(members.len());
            for (audience, member) in members {
                let mut watch = Client { grpc: grpc.clone(), ..member }.watch(Default::default()).await;
                watch.snapshot().await;
                watches.push((audience, watch));
            }
            watches
        });
    }
    let mut watches: Vec<(usize, Watch)> = Vec::with_capacity(members.len());
    while let Some(opened) = opening.join_next().await {
        watches.extend(opened.expect("every watch begins with its list"));
    }
    assert_eq!(watches.len(), HOME + ALL + AWAY);
    let before = server.metrics();
    assert_eq!(before.value("pulse_watch_streams"), 3.0 * PROXIES as f64);

    for change in 1..=3 {
        let before = server.metrics();
        server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", &format!("home-{change}")]);
        let newest = [&["--instance", "home"][..], &["--all"]].map(|whose| {
            let shown = server.json(&[&["allowlist", "show"], whose].concat());
            let list = shown["allowlists"].get(0).unwrap_or(&shown);
            list["hash"].as_str().expect("there is a list").to_owned()
        });
        let mut heard = HashMap::new();
        for (audience, watch) in watches.iter_mut().filter(|(audience, _)| *audience < newest.len()) {
            let list = in_time("the change", watch.snapshot()).await;
            assert_eq!(list.hash, newest[*audience], "the newest list, and nothing before it");
            *heard.entry(*audience).or_insert(0) += 1;
        }
        assert_eq!(heard, HashMap::from([(0, HOME), (1, ALL)]));

        let after = server.metrics();
        let grown = |name| after.value(name) - before.value(name);
        assert_eq!(grown("pulse_encodes_total"), 2.0, "once for each of the two lists");
        assert_eq!(grown("pulse_pushes_total"), 2.0, "each list was announced once");
    }
    // Who follows another list was told nothing but signs of life, up to the newest revision.
    let revision = server.metrics().value("pulse_revision");
    for (_, watch) in watches.iter_mut().filter(|(audience, _)| *audience == 2) {
        loop {
            let message = watch.next().await.expect("the stream lives").expect("the stream lives");
            let Some(Kind::Bookmark(said)) = message.kind else { panic!("no bookmark: {message:?}") };
            if said.revision as f64 >= revision {
                break;
            }
        }
    }
}
