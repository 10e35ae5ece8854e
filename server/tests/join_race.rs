//! Ten thousand hosts that bring one join token at once: as many get in as it is good for, and not one more.

use std::collections::HashMap;
use std::sync::Arc;

use pulse_proto::JoinString;
use pulse_test_support::v1::RegisterRequest;
use pulse_test_support::{Server, connect, with_token};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const RACERS: usize = 10_000;
/// HTTP/2 connections that carry them.
const CONNECTIONS: usize = 48;
/// Calls under way on each: what the server takes on one connection.
const CALLS_AT_ONCE: usize = 16;

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Lets all race with one token; returns the ids of the winners, and how often the others heard what.
async fn race(server: &Server, join: &str) -> (Vec<String>, HashMap<(Code, String), usize>) {
    let join: JoinString = join.parse().expect("the server made the join string");
    let token = Arc::new(join.join.expect("it has a secret").reveal().to_owned());
    let start = Arc::new(Barrier::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (grpc, token, start) = (connect(server).await, Arc::clone(&token), Arc::clone(&start));
        connections.spawn(async move {
            start.wait().await;
            let slots = Arc::new(Semaphore::new(CALLS_AT_ONCE));
            let mut racers = JoinSet::new();
            for racer in (connection..RACERS).step_by(CONNECTIONS) {
                let (mut grpc, token, slots) = (grpc.clone(), Arc::clone(&token), Arc::clone(&slots));
                racers.spawn(async move {
                    let _slot = slots.acquire().await.expect("it is never closed");
                    let host = RegisterRequest {
                        hostname: format!("host{racer}"),
                        machine_id: format!("{racer:064x}"),
                        ..RegisterRequest::default()
                    };
                    grpc.register(with_token(host, &token)).await.map(|answer| answer.into_inner().proxy_id)
                });
            }
            racers.join_all().await
        });
    }
    let (mut winners, mut losers) = (Vec::new(), HashMap::new());
    for outcome in connections.join_all().await.into_iter().flatten() {
        match outcome {
            Ok(id) => winners.push(id),
            Err(status) => *losers.entry((status.code(), reason_of(&status))).or_default() += 1,
        }
    }
    (winners, losers)
}

async fn lets_in(uses: usize) {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = server.join_string(&["--instance", "home", "--uses", &uses.to_string()]);
    let (mut winners, losers) = race(&server, &join).await;
    assert_eq!(winners.len(), uses, "{losers:?}");
    assert_eq!(losers.values().sum::<usize>(), RACERS - uses);
    for (code, reason) in losers.keys() {
        let is_right = match code {
            Code::Unauthenticated => reason == "JOIN_TOKEN_USED",
            // Those who fail too often are slowed.
            Code::ResourceExhausted => reason == "RATE_LIMITED" || reason == "OVERLOADED",
            _ => false,
        };
        assert!(is_right, "{code:?} {reason}");
    }
    let mut registered: Vec<String> =
        server.proxies().iter().map(|proxy| proxy["id"].as_str().expect("an id").to_owned()).collect();
    registered.sort();
    winners.sort();
    assert_eq!(registered, winners, "who got in is who is there");
    let token = server.json(&["join", "list"])["join_tokens"][0].clone();
    assert_eq!((&token["state"], token["used"].as_u64()), (&"used".into(), Some(uses as u64)));
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_ten_thousand_racers_gets_in_with_a_single_use_token() {
    lets_in(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_seven_get_in_with_a_token_for_seven() {
    lets_in(7).await;
}
