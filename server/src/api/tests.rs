use super::*;
use serde_json::json;

#[test]
fn times_are_rfc_3339_in_utc_to_the_millisecond_and_never_fail() {
    let text = |at: SystemTime| serde_json::to_value(time(at)).unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_323_045_006_999);
    assert_eq!(text(at), json!("2026-01-02T03:04:05.006Z"));
    assert_eq!(text(SystemTime::UNIX_EPOCH), json!("1970-01-01T00:00:00Z"));
    let hostile = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
    assert!(text(hostile).as_str().unwrap().starts_with("9999-12-3"), "{}", text(hostile));
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 50);
    assert!(text(early).as_str().unwrap().starts_with("-009999-"), "{}", text(early));
}

#[test]
fn requests_have_the_defaults_of_the_command_line_and_refuse_unknown_keys() {
    let join: CreateJoin = serde_json::from_value(json!({})).unwrap();
    let default = CreateJoin { instance: None, scope: ScopeKind::Instance, uses: 1, ttl_seconds: 86_400 };
    assert_eq!(join, default);
    let add: AddInstance =
        serde_json::from_value(json!({"name": "home", "endpoints": [{"name": "delly"}]})).unwrap();
    assert_eq!(add.endpoints, [Node { name: "delly".into(), ip: String::new() }]);
    for wrong in [
        json!({"name": "home", "endpoint": []}),
        json!({"name": "home", "endpoints": [{"name": "delly", "address": "10.0.0.1"}]}),
    ] {
        assert!(serde_json::from_value::<AddInstance>(wrong.clone()).is_err(), "{wrong}");
    }
    assert!(serde_json::from_value::<SetEndpoints>(json!({})).is_err(), "leaving it out is no empty list");
    assert!(serde_json::from_value::<SetProxy>(json!({"scope": "everything"})).is_err());
}

#[test]
fn an_answer_may_grow_new_keys() {
    let removed: Removed = serde_json::from_value(json!({"removed": "home", "later": 1})).unwrap();
    assert_eq!(removed.removed, "home");
}

#[test]
fn an_error_has_its_field_only_where_one_is_wrong() {
    let error = ApiError::new(StatusCode::CONFLICT, "NEEDS_YES", "text".into());
    let golden = json!({
        "type": "urn:pulse:problem:needs-yes", "title": "Needs yes", "status": 409, "detail": "text", "reason": "NEEDS_YES",
    });
    assert_eq!(serde_json::to_value(&error).unwrap(), golden);
    let error = ApiError { field: Some("name".into()), ..error };
    assert_eq!(serde_json::to_value(&error).unwrap()["field"], json!("name"));
    assert_eq!(
        ApiError::new(StatusCode::CONFLICT, "", String::new()).title,
        "",
        "a reason without letters is no panic"
    );
}

#[test]
fn a_proxy_keeps_its_keys() {
    let at = time(SystemTime::UNIX_EPOCH);
    let mark = Mark { epoch: 1, revision: 2, hash: "sha256:00".into(), at };
    let proxy = Proxy {
        id: uuid::Uuid::nil(),
        hostname: "delly".into(),
        kind: "socket".into(),
        proxy_url: String::new(),
        version: "0.1.0".into(),
        instance: Some("home".into()),
        is_instance_removed: false,
        scope: ScopeKind::Instance,
        state: "PENDING".into(),
        is_approved: true,
        waiting: None,
        is_connected: true,
        transport: Some("grpc".into()),
        pushed: Some(mark),
        applied: None,
        is_on_disk: false,
        refused: None,
        last_error: String::new(),
        list_source: "cache".into(),
        insecure_skip_verify: false,
        kept_list: None,
        ahead: None,
        lag_seconds: Some(seconds(Duration::from_micros(1_500_400))),
        last_seen_at: Some(at),
        last_pull_at: None,
        peer_ip: Some([10, 0, 0, 1].into()),
        is_rotation_requested: false,
        created_at: at,
        registered_at: at,
        revoked: None,
    };
    let golden = json!({
        "id": "00000000-0000-0000-0000-000000000000", "hostname": "delly", "kind": "socket", "proxy_url": "",
        "version": "0.1.0", "instance": "home", "is_instance_removed": false, "scope": "instance",
        "state": "PENDING", "is_approved": true, "waiting": null, "is_connected": true,
        "transport": "grpc",
        "pushed": {"epoch": 1, "revision": 2, "hash": "sha256:00", "at": "1970-01-01T00:00:00Z"},
        "applied": null, "is_on_disk": false, "refused": null, "last_error": "", "list_source": "cache",
        "insecure_skip_verify": false, "kept_list": null, "ahead": null, "lag_seconds": 1.5, "last_seen_at": "1970-01-01T00:00:00Z", "last_pull_at": null,
        "peer_ip": "10.0.0.1", "is_rotation_requested": false, "created_at": "1970-01-01T00:00:00Z",
        "registered_at": "1970-01-01T00:00:00Z", "revoked": null,
    });
    assert_eq!(serde_json::to_value(&proxy).unwrap(), golden);
    assert_eq!(serde_json::from_value::<Proxy>(golden).unwrap(), proxy);
}

#[test]
fn debug_of_a_new_join_does_not_show_the_join_string() {
    let at = time(SystemTime::UNIX_EPOCH);
    let token = JoinToken {
        id: "0a1b2c3d".into(),
        state: JoinState::Open,
        instance: None,
        scope: ScopeKind::All,
        uses: 1,
        used: 0,
        created_at: at,
        expires_at: at,
        revoked_at: None,
    };
    let join = NewJoin { join: "pulse://a/?join=pjoin_secret".into(), token };
    assert!(!format!("{join:?}").contains("secret"));
    assert_eq!(
        serde_json::to_value(&join).unwrap(),
        json!({"join": "pulse://a/?join=pjoin_secret", "token": {
            "id": "0a1b2c3d", "state": "open", "instance": null, "scope": "all", "uses": 1, "used": 0,
            "created_at": "1970-01-01T00:00:00Z", "expires_at": "1970-01-01T00:00:00Z", "revoked_at": null,
        }})
    );
}
