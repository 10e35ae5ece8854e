//! Each call of a proxy, with any bytes as its message, at a whole server.
//!
//! Always: a message that is one is done, or refused by naming the field and its rule; what is answered is consistent.

use std::collections::HashSet;

use prost::Message;
use prost_types::Timestamp;
use pulse_proto::signature::PublicKey;
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::v1::{self, register_response::List};
use pulse_proto::{Position, SignedAllowlist, Token, TokenKind};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::server::{Server, ask};
use crate::{assert_tells, switches};

/// The proxy's own list is named as the one that it holds: with this bit of the first byte.
pub const TRUE_LIST: u8 = 1;
/// A session, a sequence, and times of now are put in, so that the rest is looked at.
pub const TRUE_FRAME: u8 = 2;
/// Nodes of the list are put in the place of those that are not.
pub const TRUE_NODES: u8 = 4;

/// `Register`: a proxy that is registered has an id, a token, and a list that it can verify.
///
/// # Panics
/// When that does not hold.
pub fn check_register(data: &[u8]) {
    let Some((switches, rest)) = switches(data) else { return };
    ask(|server| {
        let token = match switches & 3 {
            0 => None,
            1 => Some(server.token.clone()),
            _ => Some(server.join.clone()),
        };
        let Some(answer) = call::<v1::RegisterRequest>(server, "Register", token.as_deref(), rest) else {
            return;
        };
        let answer: v1::RegisterResponse = decoded(&answer);
        assert!(Uuid::try_parse(&answer.proxy_id).is_ok());
        assert!(answer.ctrl_token.is_empty() || Token::parse(TokenKind::Ctrl, &answer.ctrl_token).is_ok());
        let info = answer.server.expect("the server says what it is");
        match answer.list.expect("a list, or that there is none") {
            List::Snapshot(list) => verify(&list, &info),
            List::Waiting(waiting) => assert_tells(&waiting.reason, 1_024),
        }
    });
}

/// The fields that name the proxy's own list, to stand behind a message if the switch for it is on: two messages in a row
/// are the two merged, and the later one's fields count. A watch and a sync report name a list with the same numbers.
fn true_list(server: &Server, switches: u8) -> Vec<u8> {
    let Some(List::Snapshot(list)) = &server.registered.list else { return Vec::new() };
    if switches & TRUE_LIST == 0 {
        return Vec::new();
    }
    let (scope, hash) = (list.scope.clone(), list.hash.clone());
    let (epoch, revision) = (list.epoch, list.revision);
    v1::ReportSyncRequest { epoch, revision, scope, hash, ..Default::default() }.encode_to_vec()
}

/// `WatchAuthorizedNodes`: the first message says which list is the newest; `unchanged` is said only of that one.
///
/// # Panics
/// When that does not hold.
pub fn check_watch(data: &[u8]) {
    let Some((switches, rest)) = switches(data) else { return };
    ask(|server| {
        let mut message = rest.to_vec();
        message.extend(true_list(server, switches));
        let token = server.token.clone();
        let method = "WatchAuthorizedNodes";
        let answer = call::<v1::WatchAuthorizedNodesRequest>(server, method, Some(&token), &message);
        let Some(answer) = answer else { return };
        let request: v1::WatchAuthorizedNodesRequest = decoded(&message);
        let answer: v1::WatchAuthorizedNodesResponse = decoded(&answer);
        let info = answer.server.expect("the first message says what the server is");
        match answer.kind.expect("a message is of a kind") {
            Kind::Snapshot(list) => verify(&list, &info),
            Kind::Unchanged(same) => assert_eq!((same.epoch, same.hash), (request.epoch, request.hash)),
            // It said that it holds more than the server ever made: it gets no list before the next epoch.
            Kind::Bookmark(_) => {
                let shown =
                    server.admin("GET", &format!("/proxies/{}", server.registered.proxy_id), &Value::Null);
                assert!(shown.0 == 200 && shown.1["ahead"].is_object(), "{shown:?}");
                let (status, begun) = server.admin("POST", "/epoch", &Value::Null);
                assert_eq!(status, 200, "{begun}");
            }
            other => panic!("a stream begins with {other:?}"),
        }
    });
}

/// `ReportSync`: what is reported is shown as it is to be shown: bounded, and on one line.
///
/// # Panics
/// When that does not hold.
pub fn check_report_sync(data: &[u8]) {
    let Some((switches, rest)) = switches(data) else { return };
    ask(|server| {
        let mut message = rest.to_vec();
        message.extend(true_list(server, switches));
        let token = server.token.clone();
        if call::<v1::ReportSyncRequest>(server, "ReportSync", Some(&token), &message).is_some() {
            let (status, shown) =
                server.admin("GET", &format!("/proxies/{}", server.registered.proxy_id), &Value::Null);
            assert_eq!(status, 200);
            check_shown(&shown);
        }
    });
}

/// `ReportTemperatures`: of the nodes that it names each is taken or refused by name, and what is shown of them later
/// can be believed.
///
/// # Panics
/// When that does not hold.
pub fn check_report_temperatures(data: &[u8]) {
    let Some((switches, rest)) = switches(data) else { return };
    ask(|server| {
        let token = server.token.clone();
        let mut message = rest.to_vec();
        if let Ok(mut request) = v1::ReportTemperaturesRequest::decode(rest) {
            put_right(&mut request, server, switches);
            if switches & (TRUE_FRAME | TRUE_NODES) != 0 {
                message = request.encode_to_vec();
            }
        }
        let mut called = server.call("ReportTemperatures", Some(&token), &message);
        // Of a session that it does not know the server asks once for what comes first, then takes what there is.
        if let Err(status) = &called
            && status.code() == Code::Unavailable
        {
            let request: v1::ReportTemperaturesRequest = decoded(&message);
            assert!(request.sequence > 1, "the first report is told to wait for the first: {status:?}");
            let details = status.get_error_details();
            assert!(details.error_info().is_some_and(|info| info.reason == "STARTING"), "{status:?}");
            assert!(details.retry_info().is_some(), "when to come back? {status:?}");
            called = server.call("ReportTemperatures", Some(&token), &message);
        }
        let answer =
            judge::<v1::ReportTemperaturesRequest>("ReportTemperatures", called, Some(&token), &message);
        let Some(answer) = answer else { return };
        let request: v1::ReportTemperaturesRequest = decoded(&message);
        let answer: v1::ReportTemperaturesResponse = decoded(&answer);
        // On a slow disk it is answered first, and is there soon.
        let mut durable = answer.durable_sequence;
        for _ in 0..100 {
            if durable >= request.sequence {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            let again = server.call("ReportTemperatures", Some(&token), &message);
            durable =
                again.map_or(0, |again| decoded::<v1::ReportTemperaturesResponse>(&again).durable_sequence);
        }
        assert!(durable >= request.sequence, "the server says OK and does not have it");
        for refused in &answer.refused {
            assert_tells(&refused.reason, 1_024);
            assert!(request.reports.iter().any(|report| report.node == refused.node), "{refused:?}");
        }
        let again = server.call("ReportTemperatures", Some(&token), &message);
        assert!(again.is_ok(), "the same report again is refused: {again:?}");

        let (status, shown) = server.admin("GET", "/temperatures", &Value::Null);
        assert_eq!(status, 200);
        check_shown(&shown);
    });
}

fn put_right(request: &mut v1::ReportTemperaturesRequest, server: &Server, switches: u8) {
    if switches & TRUE_FRAME != 0 {
        request.session = Uuid::now_v7().to_string();
        request.sequence = request.sequence.clamp(1, 1_000);
        let now = Timestamp::from(std::time::SystemTime::now());
        for report in &mut request.reports {
            report.collected_at = Some(now);
            (report.epoch, report.revision) = (report.epoch >> 1, report.revision >> 1);
        }
    }
    if let (true, Some(List::Snapshot(list))) = (switches & TRUE_NODES != 0, &server.registered.list) {
        for (report, node) in request.reports.iter_mut().zip(list.nodes.iter().cycle()) {
            report.node = Some(node.clone());
            (report.epoch, report.revision) = (list.epoch, list.revision);
        }
    }
}

/// `RotateToken`: the new token is one, and another than that before.
///
/// # Panics
/// When that does not hold.
pub fn check_rotate_token(data: &[u8]) {
    ask(|server| {
        let token = server.token.clone();
        let Some(answer) = call::<v1::RotateTokenRequest>(server, "RotateToken", Some(&token), data) else {
            return;
        };
        let answer: v1::RotateTokenResponse = decoded(&answer);
        assert!(Token::parse(TokenKind::Ctrl, &answer.ctrl_token).is_ok());
        assert_ne!(answer.ctrl_token, token);
        assert!(answer.use_before.is_some());
    });
}

/// `Unregister`: whoever said goodbye is gone, and nobody else.
///
/// # Panics
/// When that does not hold.
pub fn check_unregister(data: &[u8]) {
    ask(|server| {
        let leaving = server.register("leaving");
        let called = call::<v1::UnregisterRequest>(server, "Unregister", Some(&leaving.ctrl_token), data);
        let again = server.call("ReportSync", Some(&leaving.ctrl_token), &[]);
        let code = again.expect_err("an empty report is refused").code();
        match called {
            Some(_) => assert_eq!(code, Code::PermissionDenied, "the token of one that left is good still"),
            None => assert_eq!(code, Code::InvalidArgument, "a goodbye that was refused counts"),
        }
        let token = server.token.clone();
        let other = server.call("ReportSync", Some(&token), &[]).expect_err("an empty report is refused");
        assert_eq!(other.code(), Code::InvalidArgument, "another proxy is gone too");
    });
}

/// Calls with bytes as the message `M`. `None`: they were refused, as they had to be.
fn call<M: Message + Default>(
    server: &mut Server,
    method: &str,
    token: Option<&str>,
    message: &[u8],
) -> Option<Vec<u8>> {
    let called = server.call(method, token, message);
    judge::<M>(method, called, token, message)
}

/// What came of a call with bytes as the message `M`. `None`: they were refused, as they had to be.
fn judge<M: Message + Default>(
    method: &str,
    called: Result<Vec<u8>, Status>,
    token: Option<&str>,
    message: &[u8],
) -> Option<Vec<u8>> {
    match called {
        Ok(answer) => {
            assert!(M::decode(message).is_ok(), "{method}: what is no message is done");
            Some(answer)
        }
        Err(status) => {
            check_refusal(&status, M::decode(message).is_ok(), token);
            None
        }
    }
}

/// A refusal is the caller's doing, says so, and fits into a header list.
fn check_refusal(status: &Status, is_message: bool, token: Option<&str>) {
    let text = status.message();
    assert_tells(text, 4_096);
    assert!(status.details().len() <= 8_192, "{} bytes of details", status.details().len());
    assert!(token.is_none_or(|token| !text.contains(token)), "a refusal tells the token");
    if !is_message {
        let codes = [Code::Internal, Code::InvalidArgument, Code::Unauthenticated];
        assert!(codes.contains(&status.code()), "{status:?}");
        return;
    }
    match status.code() {
        Code::InvalidArgument => {
            let details = status.get_error_details();
            let violations = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
            assert!(!violations.is_empty(), "no field is named: {status:?}");
            for violation in violations {
                assert_tells(&violation.field, 256);
                assert_tells(&violation.description, 2_048);
            }
        }
        Code::Unauthenticated => assert!(status.get_error_details().error_info().is_some(), "{status:?}"),
        Code::ResourceExhausted => {
            assert!(status.get_error_details().retry_info().is_some(), "when to come back? {status:?}");
        }
        _ => panic!("a message is answered with {status:?}"),
    }
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("the server's answers are messages")
}

fn verify(list: &v1::AllowlistSnapshot, server: &v1::ServerInfo) {
    let keys: Vec<_> =
        server.signing_keys.iter().filter_map(|key| PublicKey::from_bytes(&key.public_key).ok()).collect();
    let verified = SignedAllowlist::verify(list, &keys, Position::default());
    assert!(verified.is_ok(), "the proxy would refuse the list: {verified:?}");
}

/// No text that is shown has a control character or more than a few lines' length, and no number is none.
fn check_shown(shown: &Value) {
    let mut open = vec![shown];
    let mut keys = HashSet::new();
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => {
                assert!(text.len() <= 4_096, "{} bytes are shown", text.len());
                assert!(!text.chars().any(char::is_control), "{text:?} is shown");
            }
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => {
                for (key, value) in fields {
                    if key == "temperature_celsius" {
                        let celsius = value.as_f64().expect("a temperature is a number");
                        assert!((-40.0..=150.0).contains(&celsius), "{celsius} °C are shown");
                    }
                    keys.insert(key);
                    open.push(value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
