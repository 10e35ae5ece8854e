//! The admin API as a whole, over a real store: what is set is shown, and what is refused says why.

use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use pulse_proto::{Clock, JoinString, Token};
use serde_json::{Value, json};

use super::*;
use crate::changes::Registration;
use crate::config::{Config, ConfigSources};
use crate::listen::admin_socket::AdminPeer;
use crate::metrics::Metrics;
use crate::pulse::Place;
use crate::refusals::Refusals;
use crate::registry::ProxyKind;
use crate::shutdown::{Drain, Signals};
use crate::store::{Retention, Store};

pub(super) async fn pulse(folder: &Path) -> Arc<Pulse> {
    pulse_until(folder, Signals::by_hand().0.drain()).await
}

/// A server on an empty folder, without its ways in, that goes down when `drain` says so.
pub(super) async fn pulse_until(folder: &Path, drain: Drain) -> Arc<Pulse> {
    let sources = ConfigSources { data_dir: Some(folder.to_owned()), ..ConfigSources::default() };
    let (config, _) = Config::load(&sources).expect("the defaults are good");
    let retention = Retention { max_bytes: config.readings.max_bytes, max_age: config.readings.max_age };
    let store = Store::open(folder, retention, Clock::system()).await.expect("the folder is empty");
    let metrics = Arc::new(Metrics::new());
    let public_authority = ("pulse.lan".to_owned(), 7655);
    let place = Place { listen_addrs: config.listen.clone(), public_authority, tls: None };
    let (refusals, _) = Refusals::new(store.clone(), Arc::clone(&metrics), Clock::system());
    let pulse = Pulse::load(&config, store, metrics, refusals, place, drain, Clock::system()).await;
    Arc::new(pulse.expect("the database is new"))
}

/// Asks as the user 1000; returns status and JSON.
pub(super) async fn ask(pulse: &Arc<Pulse>, method: &str, path: &str, body: Value) -> (u16, Value) {
    use tower::ServiceExt;
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(format!("{}{path}", api::ROOT));
    let request = request.header("content-type", "application/json").extension(AdminPeer { uid: 1000 });
    let router = admin_router(Arc::clone(pulse));
    let response = router.oneshot(request.body(body).expect("a request")).await;
    let response = response.unwrap_or_else(|never| match never {});
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    assert!(status != StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}: {body:?}");
    (status.as_u16(), serde_json::from_slice(&body).expect("every answer is JSON"))
}

pub(super) async fn register(pulse: &Arc<Pulse>, join: &str, hostname: &str) -> String {
    let join: JoinString = join.parse().expect("a join string");
    let registration = Registration {
        join: join.join.as_ref().map(Token::digest),
        api: None,
        proven: None,
        older: None,
        hostname: hostname.to_owned(),
        kind: ProxyKind::Socket,
        proxy_url: String::new(),
        machine_id: String::new(),
        version: "0.1.0".to_owned(),
        peer: None,
    };
    pulse.changes.register(registration).await.expect("the join token is good").proxy.id.to_string()
}

#[tokio::test]
async fn an_instance_is_added_changed_shown_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let pulse = pulse(folder.path()).await;
    let add = json!({"name": "home", "endpoints": [{"name": "delly", "ip": "192.168.0.5"}]});
    let (status, added) = ask(&pulse, "POST", "/instances", add.clone()).await;
    assert_eq!((status, &added["endpoints"], &added["proxies"]), (201, &add["endpoints"], &json!(0)));

    let (status, refused) = ask(&pulse, "POST", "/instances", add).await;
    assert_eq!((status, &refused["reason"]), (409, &json!("ALREADY_THERE")));
    let range = json!({"endpoints": [{"name": "a"}, {"name": "b", "ip": "10.0.0.0/8"}]});
    let (status, refused) = ask(&pulse, "PUT", "/instances/home", range).await;
    assert_eq!((status, &refused["field"]), (422, &json!("endpoints[1]")));

    let set = json!({"endpoints": [{"name": "minipc", "ip": ""}], "yes": true});
    let (status, changed) = ask(&pulse, "PUT", "/instances/HOME", set.clone()).await;
    assert_eq!((status, &changed["endpoints"], &changed["id"]), (200, &set["endpoints"], &added["id"]));
    assert_eq!(ask(&pulse, "GET", "/instances/home", Value::Null).await, (200, changed.clone()));
    let doubled = json!({"endpoints": [{"name": "minipc"}, {"name": "MiniPC"}, {"name": "minipc"}]});
    assert_eq!(ask(&pulse, "PUT", "/instances/home", doubled).await, (200, changed.clone()));
    assert_eq!(ask(&pulse, "GET", "/instances", Value::Null).await, (200, json!({"instances": [changed]})));

    let (_, lists) = ask(&pulse, "GET", "/allowlists?instance=home", Value::Null).await;
    assert_eq!(
        (&lists["allowlists"][0]["revision"], &lists["allowlists"][0]["nodes"]),
        (&json!(2), &set["endpoints"])
    );

    assert_eq!(
        ask(&pulse, "DELETE", "/instances/home", Value::Null).await,
        (200, json!({"removed": "home"}))
    );
    let (status, missing) = ask(&pulse, "GET", "/instances/home", Value::Null).await;
    assert_eq!((status, &missing["reason"]), (404, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn a_proxy_is_joined_moved_revoked_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let pulse = pulse(folder.path()).await;
    for name in ["home", "lab"] {
        ask(&pulse, "POST", "/instances", json!({"name": name})).await;
    }
    let (status, new) =
        ask(&pulse, "POST", "/join-tokens", json!({"instance": "home", "ttl_seconds": 60})).await;
    let join = new["join"].as_str().unwrap();
    assert_eq!((status, join.starts_with("pulse://pulse.lan:7655/?join=pjoin_")), (201, true), "{join}");
    assert_eq!((&new["token"]["state"], &new["token"]["uses"]), (&json!("open"), &json!(1)));
    let id = register(&pulse, join, "delly").await;
    let (_, tokens) = ask(&pulse, "GET", "/join-tokens", Value::Null).await;
    assert_eq!(tokens["join_tokens"][0]["state"], "used");
    assert!(!tokens.to_string().contains("pjoin_"), "the secret is shown once");

    let path = format!("/proxies/{id}");
    let (status, shown) = ask(&pulse, "GET", &path, Value::Null).await;
    assert_eq!((status, &shown["hostname"], &shown["instance"]), (200, &json!("delly"), &json!("home")));
    assert_eq!(
        (&shown["state"], &shown["pushed"], &shown["version"]),
        (&json!("NEVER"), &Value::Null, &json!("0.1.0"))
    );
    let (_, moved) = ask(&pulse, "PATCH", &path, json!({"instance": "lab", "scope": "all"})).await;
    assert_eq!((&moved["instance"], &moved["scope"]), (&json!("lab"), &json!("all")));
    let (_, rotating) = ask(&pulse, "POST", &format!("{path}/rotate"), Value::Null).await;
    assert_eq!(rotating["is_rotation_requested"], true);

    let (status, refused) = ask(&pulse, "DELETE", "/instances/lab", Value::Null).await;
    assert_eq!((status, &refused["reason"]), (409, &json!("NEEDS_YES")));
    assert_eq!(ask(&pulse, "DELETE", "/instances/lab?yes=true", Value::Null).await.0, 200);
    let (_, orphan) = ask(&pulse, "GET", &path, Value::Null).await;
    assert_eq!((&orphan["instance"], &orphan["is_instance_removed"]), (&json!("lab"), &json!(true)));

    let (_, revoked) = ask(&pulse, "POST", &format!("{path}/revoke"), Value::Null).await;
    assert_eq!((&revoked["state"], &revoked["lag_seconds"]), (&json!("REVOKED"), &Value::Null));
    assert!(revoked["revoked"]["reason"].is_string(), "{revoked}");
    assert_eq!(ask(&pulse, "DELETE", &path, Value::Null).await, (200, json!({"removed": id})));
    assert_eq!(ask(&pulse, "GET", &path, Value::Null).await.0, 404);
    assert_eq!(ask(&pulse, "GET", "/proxies", Value::Null).await, (200, json!({"proxies": []})));
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_the_user_who_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let pulse = pulse(folder.path()).await;
    for name in ["home", "lab", "attic"] {
        ask(&pulse, "POST", "/instances", json!({"name": name})).await;
    }
    let (_, all) = ask(&pulse, "GET", "/audit", Value::Null).await;
    let rows = all["rows"].as_array().unwrap();
    let targets: Vec<_> = rows.iter().map(|row| (row["seq"].as_u64(), row["target"].as_str())).collect();
    let target = |seq, name| (Some(seq), Some(name));
    assert_eq!(targets, [target(1, "instance:home"), target(2, "instance:lab"), target(3, "instance:attic")]);
    assert!(rows.iter().all(|row| row["actor"] == "admin:uid=1000" && row["action"] == "instance.add"));
    let (_, behind) = ask(&pulse, "GET", "/audit?after=1&limit=1", Value::Null).await;
    assert_eq!(behind["rows"], json!([rows[1]]));
}

#[tokio::test]
async fn status_tells_what_a_client_needs_to_connect() {
    let folder = tempfile::tempdir().unwrap();
    let pulse = pulse(folder.path()).await;
    ask(&pulse, "POST", "/instances", json!({"name": "home"})).await;
    let (code, status) = ask(&pulse, "GET", "/status", Value::Null).await;
    assert_eq!(
        (code, &status["public_address"], &status["instances"]),
        (200, &json!("pulse.lan:7655"), &json!(1))
    );
    assert_eq!((&status["revision"], &status["database"]), (&json!(1), &json!("ok")));
    assert_eq!(status["proxies_by_state"]["IN_SYNC"], 0);
    let shape: api::Status = serde_json::from_value(status).unwrap();
    assert_eq!(shape.server_id, pulse.changes.catalog().server_id);
    let (code, missing) = ask(&pulse, "GET", "/temperatures?node=delly", Value::Null).await;
    assert_eq!((code, &missing["reason"]), (404, &json!("NOT_FOUND")));
    assert_eq!(ask(&pulse, "GET", "/temperatures", Value::Null).await, (200, json!({"nodes": []})));
}
