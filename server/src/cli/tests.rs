//! The tables as people see them, and the whole way over a socket against a small server that answers as told.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::UnixListener;
use uuid::Uuid;

use super::*;
use crate::args::{Instance, Join, Proxy, Pve, Scope};

fn at(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_767_323_045 + seconds).expect("within the calendar")
}

fn noon() -> SystemTime {
    at(0).into()
}

pub(super) fn proxy_of(id: &str, hostname: &str) -> api::Proxy {
    api::Proxy {
        id: id.parse().expect("an id"),
        hostname: hostname.to_owned(),
        kind: "socket".to_owned(),
        proxy_url: String::new(),
        version: "0.1.0".to_owned(),
        instance: Some("home".to_owned()),
        is_instance_removed: false,
        scope: api::ScopeKind::Instance,
        state: "IN_SYNC".to_owned(),
        is_approved: true,
        waiting: None,
        is_connected: true,
        transport: Some("grpc".into()),
        pushed: Some(mark(12)),
        applied: Some(mark(12)),
        is_on_disk: true,
        refused: None,
        last_error: String::new(),
        list_source: "pushed".to_owned(),
        insecure_skip_verify: false,
        kept_list: None,
        ahead: None,
        lag_seconds: None,
        last_seen_at: Some(at(-3)),
        last_pull_at: Some(at(-300)),
        peer_ip: None,
        is_rotation_requested: false,
        created_at: at(-90_000),
        registered_at: at(-90_000),
        revoked: None,
    }
}

fn mark(revision: u64) -> api::Mark {
    api::Mark { epoch: 1, revision, hash: "sha256:00".to_owned(), at: at(-60) }
}

const ID: &str = "0192d3a8-7f3c-7d3e-8a51-0242ac120002";
const OTHER: &str = "0192d3a8-8000-7d3e-8a51-0242ac120002";

#[test]
fn proxy_list_shows_pushed_beside_applied() {
    let behind = api::Proxy {
        state: "PENDING".to_owned(),
        pushed: Some(mark(13)),
        lag_seconds: Some(0.4),
        ..proxy_of(ID, "delly")
    };
    let waiting = api::Proxy {
        instance: None,
        waiting: Some("no instance matches".to_owned()),
        state: "NEVER".to_owned(),
        pushed: None,
        applied: None,
        last_seen_at: None,
        version: String::new(),
        ..proxy_of(OTHER, "new\u{1b}host")
    };
    let all = api::Proxies { proxies: vec![behind, waiting] };
    assert_eq!(
        show::proxies(&all, noon()),
        "\
ID                                    HOSTNAME       INSTANCE   STATE    PUSHED  APPLIED  LAG     LAST SEEN  VERSION
0192d3a8-7f3c-7d3e-8a51-0242ac120002  delly          home       PENDING  13      12       400 ms  3 s ago    0.1.0
0192d3a8-8000-7d3e-8a51-0242ac120002  new\\u{1b}host  (waiting)  NEVER    -       -        -       never      -
"
    );
}

#[test]
fn proxy_show_says_what_stands_in_the_way() {
    let refusing = api::Proxy {
        state: "REFUSED".to_owned(),
        refused: Some(mark(14)),
        last_error: "the list's signature does not fit it".to_owned(),
        ..proxy_of(ID, "delly")
    };
    let text = show::proxy(&refusing, noon());
    assert!(text.contains("refused      revision 14, sha256:00 (60 s ago)\n"), "{text}");
    assert!(text.contains("last error   the list's signature does not fit it\n"), "{text}");
    assert!(!text.contains("revoked"), "{text}");
}

#[test]
fn temps_shows_the_cpu_and_the_hottest_others() {
    let reading = |kind: &str, label: &str, temperature_celsius| api::Reading {
        sensor: format!("chip/{label}"),
        chip: "chip".to_owned(),
        label: label.to_owned(),
        kind: kind.to_owned(),
        temperature_celsius,
        max_celsius: Some(90.0),
        critical_celsius: None,
    };
    let read = api::NodeTemperatures {
        node: "delly".to_owned(),
        ip: "192.168.0.5".to_owned(),
        instance: Some("home".to_owned()),
        proxy_id: ID.parse().unwrap(),
        collected_at: at(-3),
        received_at: at(-3),
        age_seconds: 3.2,
        unreadable_reason: None,
        readings: vec![
            reading("cpu_package", "Package id 0", 54.0),
            reading("cpu_package", "Package id 1", 61.25),
            reading("cpu_core", "Core 0", 70.0),
            reading("disk", "", 38.0),
            reading("nvme", "Composite", 61.9),
            reading("gpu", "edge", 45.0),
        ],
    };
    let unread = api::NodeTemperatures {
        node: "minipc".to_owned(),
        unreadable_reason: Some("it is not this host".to_owned()),
        readings: Vec::new(),
        ..read.clone()
    };
    let all = api::Temperatures { nodes: vec![read.clone(), unread.clone()] };
    assert_eq!(
        show::temperatures(&all),
        "\
NODE    INSTANCE  CPU      HOTTEST OTHERS                 AGE
delly   home      61.2 °C  nvme 61.9 °C, gpu 45.0 °C      3 s
minipc  home      -        not read: it is not this host  3 s
"
    );
    let one = show::sensors(&api::Temperatures { nodes: vec![read] });
    assert!(
        one.contains("nvme         Composite     chip  61.9 °C  90.0 °C  -         chip/Composite\n"),
        "{one}"
    );
    let one = show::sensors(&api::Temperatures { nodes: vec![unread] });
    assert!(one.ends_with("not read  it is not this host\n"), "{one}");
}

#[test]
fn a_list_that_nobody_reads_says_so() {
    let mut list = api::Allowlist {
        scope: "all".to_owned(),
        instance: None,
        epoch: 1,
        revision: Some(7),
        hash: "sha256:00".to_owned(),
        updated_at: Some(at(0)),
        key_id: Some("k".to_owned()),
        nodes: vec![api::Node { name: "delly".to_owned(), ip: String::new() }],
    };
    let text = |list: &api::Allowlist| show::allowlists(&api::Allowlists { allowlists: vec![list.clone()] });
    assert_eq!(
        text(&list),
        "all nodes: 1 node, revision 7 of 2026-01-02 03:04:05Z\nsha256:00\nNODE   ADDRESS\ndelly  -\n"
    );
    (list.revision, list.updated_at) = (None, None);
    assert!(text(&list).contains("not published: no proxy reads it"));
}

#[test]
fn empty_answers_say_what_to_do_next() {
    let now = noon();
    for (text, next) in [
        (show::instances(&api::Instances { instances: vec![] }, now), "pulse instance add"),
        (show::join_tokens(&api::JoinTokens { join_tokens: vec![], window: None }, now), "pulse join create"),
        (show::proxies(&api::Proxies { proxies: vec![] }, now), "pulse join create"),
        (show::temperatures(&api::Temperatures { nodes: vec![] }), "pulse proxy list"),
        (show::allowlists(&api::Allowlists { allowlists: vec![] }), "pulse instance add"),
    ] {
        assert!(text.contains(next), "{text}");
    }
}

#[test]
fn audit_rows_stand_one_a_line_even_if_one_is_odd() {
    let row = json!({
        "seq": 1, "at": "2026-01-02T03:04:05Z", "actor": "admin:uid=0", "action": "instance.add",
        "target": "instance:home", "detail": {"endpoints": ["delly|"]}, "revision": 1,
        "previous_hash": "00", "hash": "11",
    });
    let mut far = row.clone();
    (far["from"], far["result"]) = (json!("192.0.2.7"), json!("refused"));
    far["detail"] = json!({"from": "192.0.2.7", "result": "refused"});
    let text = show::audit(&[row, far, json!({"seq": 2})], true);
    assert_eq!(
        text,
        "\
SEQ  TIME                  WHO          FROM       WHAT          TO WHAT        RESULT   REVISION  DETAIL
1    2026-01-02 03:04:05Z  admin:uid=0             instance.add  instance:home           1         {\"endpoints\":[\"delly|\"]}
1    2026-01-02 03:04:05Z  admin:uid=0  192.0.2.7  instance.add  instance:home  refused  1
?                                                                                                  {\"seq\":2}
"
    );
}

#[test]
fn status_is_one_fact_a_line() {
    let status = api::Status {
        version: "0.1.0".to_owned(),
        server_id: Uuid::nil(),
        epoch: 1,
        revision: 2,
        started_at: at(-7_200),
        uptime_seconds: 7_200.0,
        listen: vec!["[::]:7655".to_owned()],
        public_address: "pulse.lan:7655".to_owned(),
        pin: None,
        ca_path: None,
        certificate: None,
        instances: 4,
        instances_with_problems: 2,
        held_changes: 0,
        conflicts: 1,
        proxies: 3,
        proxies_by_state: [("IN_SYNC".to_owned(), 2), ("OFFLINE".to_owned(), 1), ("STALE".to_owned(), 0)]
            .into(),
        streams: 2,
        replicas: Vec::new(),
        legacy_http: Some("10.0.0.5:7656".to_owned()),
        legacy_http_requests: 7,
        database: "degraded".to_owned(),
        database_older_than_fleet: Some(api::OlderDatabase {
            proxies: 2,
            since: at(-60),
            detail: "what it means".to_owned(),
        }),
        nodes_with_readings: 1,
        newest_reading_at: None,
    };
    let text = show::status(&status);
    assert!(text.contains("running       2 h, since 2026-01-02 01:04:05Z\n"), "{text}");
    let instances =
        "instances     4; 2 problems: see `pulse instance list`; 1 conflict: see `pulse node list`\n";
    assert!(text.contains(instances), "{text}");
    assert!(text.contains("WARNING       older proxies are served in plain text at 10.0.0.5:7656"), "{text}");
    assert!(text.contains("proxies       3 (2 IN_SYNC, 1 OFFLINE)\n"), "{text}");
    assert!(text.contains("database      degraded: the last write failed"), "{text}");
    assert!(
        text.contains("older than the fleet: 2 proxies are ahead of it since 2026-01-02 03:03:05Z\n"),
        "{text}"
    );
}

/// What the small server was asked: method, path with query, body.
type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

/// Serves one answer to everything, until the test ends.
fn serve(socket: &Path, status: StatusCode, answer: Value) -> Asked {
    let listener = UnixListener::bind(socket).expect("the socket is free");
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let router = Router::new().fallback(move |method: Method, uri: Uri, body: Bytes| async move {
        let body = String::from_utf8_lossy(&body).into_owned();
        log.lock().expect("no holder panics").push((method.to_string(), uri.to_string(), body));
        (status, answer.to_string()).into_response()
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    asked
}

async fn ask(
    status: StatusCode,
    answer: Value,
    admin: Admin,
    json: bool,
) -> (Result<String, Failure>, Asked) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("admin.sock");
    let asked = serve(&socket, status, answer);
    let asking = Asking { client: Client::new(Way::Socket(socket)), json };
    (asking.answer(&admin).await, asked)
}

#[tokio::test]
async fn a_request_reaches_the_server_as_the_api_has_it() {
    let answer = json!({
        "id": ID, "name": "home", "endpoints": [{"name": "delly", "ip": "10.0.0.1"}], "proxies": 0,
        "created_at": "2026-01-02T03:04:05Z", "later": true,
    });
    let endpoints = vec![pulse_proto::Node::new("delly", "10.0.0.1").unwrap()];
    let add = Admin::Instance(Instance::Add { name: "home".into(), endpoints, pve: Pve::default() });
    let (text, asked) = ask(StatusCode::CREATED, answer.clone(), add, false).await;
    assert_eq!(text.unwrap(), "added instance home with 1 node\n");
    let body = r#"{"name":"home","endpoints":[{"name":"delly","ip":"10.0.0.1"}]}"#.to_owned();
    assert_eq!(*asked.lock().unwrap(), [("POST".to_owned(), "/api/v1/instances".to_owned(), body)]);

    let show = Admin::Instance(Instance::Show { name: "a/b ?".into() });
    let (text, asked) = ask(StatusCode::OK, answer.clone(), show, true).await;
    assert_eq!(serde_json::from_str::<Value>(&text.unwrap()).unwrap(), answer, "keys of later versions stay");
    assert_eq!(asked.lock().unwrap()[0].1, "/api/v1/instances/a%2Fb%20%3F");
}

#[tokio::test]
async fn join_create_prints_the_join_string_alone() {
    let answer = json!({"join": "pulse://a/?join=pjoin_x", "token": {
        "id": "0a1b2c3d", "state": "open", "instance": null, "scope": "instance", "uses": 1, "used": 0,
        "created_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-03T03:04:05Z", "revoked_at": null,
    }});
    let (scope, ttl) = (Scope::Instance, Duration::from_secs(90));
    let create = Admin::Join(Join::Create { instance: None, scope, uses: 1, ttl });
    let (text, asked) = ask(StatusCode::CREATED, answer, create, false).await;
    assert_eq!(text.unwrap(), "pulse://a/?join=pjoin_x\n");
    assert_eq!(
        asked.lock().unwrap()[0].2,
        r#"{"instance":null,"scope":"instance","uses":1,"ttl_seconds":90}"#
    );
}

#[tokio::test]
async fn a_hostname_is_looked_up_before_the_change() {
    let answer = json!({"proxies": [proxy_of(ID, "delly"), proxy_of(OTHER, "pve")]});
    let revoke = Admin::Proxy(Proxy::Revoke { id: "PVE".into() });
    // The list is no proxy, so that the change's own answer cannot be shown; what was asked is what counts.
    let (_, asked) = ask(StatusCode::OK, answer, revoke, true).await;
    let paths: Vec<_> =
        asked.lock().unwrap().iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(paths, ["GET /api/v1/proxies".to_owned(), format!("POST /api/v1/proxies/{OTHER}/revoke")]);
}

#[tokio::test]
async fn a_refusal_is_the_servers_own_text() {
    let refusal = json!({
        "type": "urn:pulse:problem:not-found", "title": "Not found", "status": 404,
        "detail": "there is no instance \"x\u{1b}\"", "reason": "NOT_FOUND", "field": "name",
    });
    let (result, _) = ask(StatusCode::NOT_FOUND, refusal, Admin::Status, false).await;
    let failure = result.unwrap_err();
    assert_eq!((failure.exit_code, failure.to_string().as_str()), (1, r#"there is no instance "x\u{1b}""#));
    let told = json!({"error": "there is no instance \"x\u{1b}\"", "reason": "NOT_FOUND", "field": "name"});
    assert_eq!(serde_json::from_str::<Value>(&failure.to_json()).unwrap(), told);
    let (result, _) = ask(StatusCode::BAD_GATEWAY, json!("<html>"), Admin::Status, false).await;
    assert!(result.unwrap_err().to_string().contains("502"));
    let (result, _) = ask(StatusCode::OK, json!({"version": 1}), Admin::Status, false).await;
    assert!(result.unwrap_err().to_string().contains("different versions"));
}

#[tokio::test]
async fn a_server_that_does_not_run_is_told_apart_from_one_that_may_not_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let status = || async {
        Asking { client: Client::new(Way::Socket(socket.clone())), json: false }
            .answer(&Admin::Status)
            .await
            .unwrap_err()
    };
    let missing = status().await;
    assert!(missing.to_string().contains("does not exist; start it with `pulse serve`"), "{missing}");
    drop(UnixListener::bind(&socket).unwrap());
    let stale = status().await;
    assert!(stale.to_string().contains("no server answers"), "{stale}");
    assert!(missing.is_passing() && stale.is_passing());
    let denied = Failure::connecting(&socket, &ErrorKind::PermissionDenied.into());
    assert!(denied.to_string().contains("sudo") && !denied.is_passing(), "{denied}");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_an_error_not_an_empty_answer() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let hang_up = tokio::spawn(async move { drop(listener.accept().await) });
    let failure = Asking { client: Client::new(Way::Socket(socket)), json: false }
        .answer(&Admin::Status)
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("no answer from the server"), "{failure}");
    hang_up.await.unwrap();
}

#[test]
fn the_nearest_word_says_where_the_socket_is() {
    use super::client::way::socket;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pulse.yaml");
    std::fs::write(&file, "data_dir: /srv/pulse\n").unwrap();
    let none = Environment::default;
    let variable = || Environment::from_iter([("PULSE_DATA_DIR", "/var/other")]);
    let place = Place { config: Some(file.clone()), ..Place::default() };
    assert_eq!(socket(&place, none()).unwrap(), Path::new("/srv/pulse/admin.sock"));
    assert_eq!(socket(&place, variable()).unwrap(), Path::new("/var/other/admin.sock"));
    let place = Place { data_dir: Some("/data".into()), ..place };
    assert_eq!(socket(&place, variable()).unwrap(), Path::new("/data/admin.sock"));
    let place = Place { socket: Some("/run/x.sock".into()), ..place };
    assert_eq!(socket(&place, variable()).unwrap(), Path::new("/run/x.sock"));
    std::fs::write(&file, "data_dirr: /srv/pulse\n").unwrap();
    let failure = socket(&Place { config: Some(file), ..Place::default() }, none()).unwrap_err();
    assert!(
        failure.exit_code == 2
            && failure.to_string().contains("data_dir")
            && failure.to_string().contains("--socket")
    );
}
