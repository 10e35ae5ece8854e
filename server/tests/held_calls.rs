//! Calls and streams that a caller holds open while its token ends: what comes after that does nothing.

#[path = "support/client.rs"]
mod client;
#[path = "support/raw.rs"]
mod raw;

use std::time::SystemTime;

use http_body_util::BodyExt;
use prost::Message;
use pulse_proto::JoinString;
use pulse_test_support::raw::frame;
use pulse_test_support::v1::{
    Node, NodeReport, Reading, RegisterRequest, RegisterResponse, ReportTemperaturesRequest,
};
use pulse_test_support::{Client, PATIENCE, Server, connect, eventually, in_time, with_token};
use raw::{Raw, dial, held};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const SERVICE: &str = "/pulse.control.v1.ControlPlaneService";

fn home() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    server
}

/// Registers the host delly, which is the same one each time.
async fn registered(server: &Server, join: &str) -> Client {
    let join: JoinString = join.parse().expect("the server made the join string");
    let token = join.join.expect("it has a secret");
    let host = RegisterRequest {
        hostname: "delly".to_owned(),
        machine_id: "ab".repeat(32),
        ..RegisterRequest::default()
    };
    let mut grpc = connect(server).await;
    let answer: RegisterResponse =
        grpc.register(with_token(host, token.reveal())).await.expect("it is registered").into_inner();
    let (token, proxy_id) = (answer.ctrl_token.clone(), answer.proxy_id.clone());
    Client { grpc, token, proxy_id, registered: answer }
}

fn report() -> Vec<u8> {
    let node = Node { name: "delly".to_owned(), ip: String::new() };
    let reading = Reading { sensor: "cpu".to_owned(), temperature_celsius: 40.0, ..Reading::default() };
    let report = NodeReport {
        node: Some(node),
        collected_at: Some(SystemTime::now().into()),
        readings: vec![reading],
        ..NodeReport::default()
    };
    let message = ReportTemperaturesRequest {
        session: uuid::Uuid::now_v7().to_string(),
        sequence: 1,
        reports: vec![report],
    };
    message.encode_to_vec()
}

/// Calls that a caller began and does not end before it is told to.
struct Held {
    go: watch::Sender<bool>,
    calls: Vec<(&'static str, JoinHandle<Status>)>,
}

impl Held {
    /// Begins these calls. The server has heard the last one's headers when this returns.
    async fn begin(server: &Server, token: &str, calls: &[(&'static str, Vec<u8>)]) -> Held {
        let (go, going) = watch::channel(false);
        let connection = Raw::over(dial(server, &["h2"]).await).await;
        let mut begun = Vec::new();
        for (method, message) in calls {
            let (mut raw, token, body) =
                (connection.clone(), token.to_owned(), held(frame(message), going.clone()));
            let method = *method;
            let call = async move {
                let answer =
                    raw.call(&format!("{SERVICE}/{method}"), &token, body).await.expect("it is answered");
                outcome(answer).await
            };
            begun.push((method, tokio::spawn(call)));
        }
        // What comes behind them on the same connection is answered, so they are under way.
        let mut behind = connection.clone();
        for _ in 0..3 {
            let body = BodyExt::boxed_unsync(http_body_util::Full::from(frame(&[])));
            let answer =
                behind.call(&format!("{SERVICE}/ReportSync"), token, body).await.expect("it is answered");
            assert_eq!(outcome(answer).await.code(), Code::InvalidArgument, "it has no hash");
        }
        Held { go, calls: begun }
    }

    async fn end(self) -> Vec<(&'static str, Status)> {
        self.go.send(true).expect("the calls wait for it");
        let mut outcomes = Vec::new();
        for (method, call) in self.calls {
            outcomes.push((method, in_time("an answer", call).await.expect("the call ended")));
        }
        outcomes
    }
}

/// The status of a unary call.
async fn outcome(answer: http::Response<hyper::body::Incoming>) -> Status {
    let (head, body) = answer.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return status;
    }
    let body = in_time("the end of an answer", body.collect()).await.expect("it is whole");
    body.trailers().and_then(Status::from_header_map).expect("an answer ends with a status")
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_begun_with_a_token_that_ends_meanwhile_gets_no_new_token_and_changes_nothing() {
    let server = home();
    let join = server.join_string(&["--instance", "home", "--uses", "2"]);
    let thief = registered(&server, &join).await;
    let calls = [("RotateToken", vec![]), ("Unregister", vec![]), ("ReportTemperatures", report())];
    let held = Held::begin(&server, &thief.token, &calls).await;
    let owner = registered(&server, &join).await;
    assert_eq!(owner.proxy_id, thief.proxy_id);
    assert_ne!(owner.token, thief.token);
    for (method, status) in held.end().await {
        assert_eq!(
            (status.code(), &*reason_of(&status)),
            (Code::Unauthenticated, "UNKNOWN_TOKEN"),
            "{method}: {status:?}"
        );
    }
    assert_eq!(server.proxies().len(), 1);
    assert_eq!(server.json(&["temps"])["nodes"], serde_json::json!([]));
    owner.watch(Default::default()).await.snapshot().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_begun_before_its_proxy_was_revoked_is_refused_as_revoked() {
    let server = home();
    let client = registered(&server, &server.join_string(&["--instance", "home"])).await;
    let calls = [("RotateToken", vec![]), ("Unregister", vec![]), ("ReportTemperatures", report())];
    let held = Held::begin(&server, &client.token, &calls).await;
    server.pulse_ok(&["proxy", "revoke", &client.proxy_id]);
    for (method, status) in held.end().await {
        assert_eq!(
            (status.code(), &*reason_of(&status)),
            (Code::PermissionDenied, "PROXY_REVOKED"),
            "{method}: {status:?}"
        );
    }
    assert_eq!(server.json(&["temps"])["nodes"], serde_json::json!([]));
    assert_eq!(server.proxies()[0]["state"], "REVOKED", "it is not removed either");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_while_its_token_is_revoked_hears_that_at_once_and_nothing_of_what_comes_after() {
    let server = home();
    let join = server.join_string(&["--instance", "home", "--uses", "2"]);
    let thief = registered(&server, &join).await;
    let made = server.json(&["proxy", "debug-token", &thief.proxy_id]);
    let token = made["token"].as_str().expect("there is a token").to_owned();
    let observer = Client { token, ..thief.clone() };
    // Neither takes more than a byte, so its first list stays on its way.
    let mut streams = Vec::new();
    for who in [&thief, &observer] {
        let client = who.reconnect_with_window(&server, 1).await;
        streams.push(client.watch(Default::default()).await);
    }
    server.pulse_ok(&["proxy", "revoke", &thief.proxy_id]);
    eventually(PATIENCE, "the stream that counts has ended", || {
        match server.metrics().value("pulse_watch_streams") {
            0.0 => Ok(()),
            open => Err(open),
        }
    });
    assert_eq!(registered(&server, &join).await.proxy_id, thief.proxy_id);
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "secret"]);
    for watch in &mut streams {
        // The list is cut, and the end says why.
        let ended = in_time("the end", watch.next()).await;
        let status = ended.expect_err("no message is whole");
        assert_eq!(
            (status.code(), &*reason_of(&status)),
            (Code::PermissionDenied, "PROXY_REVOKED"),
            "{status:?}"
        );
    }
}
