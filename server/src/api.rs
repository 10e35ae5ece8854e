//! The JSON that the admin API speaks: one set of types for the server, the command line and, one day, the UI.
//!
//! In and out: requests and answers under [`ROOT`]. Times are RFC 3339 in UTC to the millisecond, durations end in
//! `_seconds`, temperatures in `_celsius`; what is not known is `null`.
//! Always: a request with an unknown key is refused; an answer may grow new keys, which older readers skip.
//! Never: holds a secret, but for the join string in the one answer that makes it.

mod history;
mod state;

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use history::{AddressChange, ListDiff, ListHistory, ListRevision};
pub use state::{
    Ahead, Allowlist, Allowlists, AuditRow, AuditRows, Certificate, KeptList, KeyExchange, Mark,
    NodeTemperatures, OlderDatabase, Proxies, Proxy, Reading, Revoked, Status, Temperatures,
};

/// What every path of the admin API begins with.
pub const ROOT: &str = "/api/v1";

/// The largest body of a request: 10,000 nodes are some 1 MiB, which no person types; 256 KiB hold 2,500.
pub const MAX_REQUEST_BYTES: usize = 256 << 10;

/// Audit rows in one answer if the request does not say, and at the most.
pub const AUDIT_ROWS: u32 = 100;
/// The most audit rows in one answer.
pub const MAX_AUDIT_ROWS: u32 = 1000;

/// Revisions of lists in one answer if the request does not say.
pub const LIST_REVISIONS: u32 = 20;
/// The most revisions of lists in one answer: each is compared with the one before, of up to 10,000 nodes.
pub const MAX_LIST_REVISIONS: u32 = 500;

/// A time as JSON has it: to the millisecond; what no calendar holds becomes the nearest time that it does.
#[must_use]
pub fn time(at: SystemTime) -> Timestamp {
    let (millis, beyond) = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_millis()).unwrap_or(i64::MAX), Timestamp::MAX),
        Err(before) => {
            let before = i64::try_from(before.duration().as_millis());
            (before.map_or(i64::MIN, |before| -before), Timestamp::MIN)
        }
    };
    Timestamp::from_millisecond(millis).unwrap_or(beyond)
}

/// A duration as JSON has it: seconds, to the millisecond.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

/// Why a request was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiError {
    /// What happened, to what, and what to do next.
    pub error: String,
    /// What a program may branch on, in capitals.
    pub reason: String,
    /// The field of the request that breaks a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// A node: a host whose temperatures can be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address: IPv4, IPv6 or a DNS name; empty if only the name is known.
    #[serde(default)]
    pub ip: String,
}

impl From<&pulse_proto::Node> for Node {
    fn from(node: &pulse_proto::Node) -> Node {
        Node { name: node.name().to_owned(), ip: node.address().to_string() }
    }
}

/// `POST instances`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddInstance {
    /// Its name: 1 to 63 of `[A-Za-z0-9._-]`, beginning alphanumeric.
    pub name: String,
    /// Its nodes.
    #[serde(default)]
    pub endpoints: Vec<Node>,
}

/// `PUT instances/{name}`: replaces the nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetEndpoints {
    /// All its nodes from now on.
    pub endpoints: Vec<Node>,
}

/// A Proxmox instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// Its identity.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub endpoints: Vec<Node>,
    /// How many proxies belong to it.
    pub proxies: usize,
    /// When it was added.
    pub created_at: Timestamp,
}

/// `GET instances`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instances {
    /// By name.
    pub instances: Vec<Instance>,
}

/// What was taken off: the answer to `DELETE instances/{name}` and `DELETE proxies/{id}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removed {
    /// The instance's name, or the proxy's id.
    pub removed: String,
}

/// Which nodes a proxy may read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// Those of its instance.
    Instance,
    /// Every node.
    All,
}

impl ScopeKind {
    /// The word for people and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ScopeKind::Instance => "instance",
            ScopeKind::All => "all",
        }
    }
}

/// `POST join-tokens`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateJoin {
    /// The instance to which its proxies are assigned, by name; `null`: that which matches the host.
    #[serde(default)]
    pub instance: Option<String>,
    /// Which nodes its proxies may read.
    #[serde(default = "own_instance")]
    pub scope: ScopeKind,
    /// How many registrations it is good for.
    #[serde(default = "one")]
    pub uses: u32,
    /// How long it is good for.
    #[serde(default = "one_day")]
    pub ttl_seconds: u64,
}

fn own_instance() -> ScopeKind {
    ScopeKind::Instance
}

fn one() -> u32 {
    1
}

fn one_day() -> u64 {
    24 * 60 * 60
}

/// A new join token: the one answer that shows the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJoin {
    /// The join string, `pulse://…`, shown this once.
    pub join: String,
    /// The token.
    pub token: JoinToken,
}

/// Shows the token's id, not the secret.
impl std::fmt::Debug for NewJoin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewJoin").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Whether a join token can still be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinState {
    /// It can.
    Open,
    /// It has no uses left.
    Used,
    /// It is past its time.
    Expired,
    /// An admin revoked it.
    Revoked,
    /// The instance to which it assigns was removed.
    InstanceRemoved,
}

impl JoinState {
    /// The word for people and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JoinState::Open => "open",
            JoinState::Used => "used",
            JoinState::Expired => "expired",
            JoinState::Revoked => "revoked",
            JoinState::InstanceRemoved => "instance_removed",
        }
    }
}

/// A join token, without the secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinToken {
    /// Its short name for people.
    pub id: String,
    /// Whether it can still be used.
    pub state: JoinState,
    /// The instance to which its proxies are assigned, by name; `null`: that which matches the host.
    pub instance: Option<String>,
    /// Which nodes its proxies may read.
    pub scope: ScopeKind,
    /// How many registrations it is good for.
    pub uses: u32,
    /// How many it has made.
    pub used: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// `GET join-tokens`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinTokens {
    /// The oldest first. Those that ended more than 30 days ago are not there.
    pub join_tokens: Vec<JoinToken>,
    /// The newest window for hosts without a join token; `null`: there was none, or it ended more than 30 days ago.
    pub window: Option<JoinWindow>,
}

/// `POST join-window`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenJoin {
    /// The networks from which hosts may come, such as `10.0.0.0/24`. Empty: from everywhere.
    #[serde(default)]
    pub from: Vec<String>,
    /// How long it is open.
    #[serde(default = "a_quarter_of_an_hour")]
    pub ttl_seconds: u64,
}

fn a_quarter_of_an_hour() -> u64 {
    15 * 60
}

/// A window in which hosts without a join token may register, to wait for approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinWindow {
    /// Whether it is open.
    pub is_open: bool,
    /// The networks from which hosts may come. Empty: from everywhere.
    pub from: Vec<String>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it closes by itself.
    pub closes_at: Timestamp,
    /// When it was closed before that, if it was.
    pub closed_at: Option<Timestamp>,
}

/// A new window.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewJoinWindow {
    /// The join string for hosts: without a secret.
    pub join: String,
    /// The window.
    pub window: JoinWindow,
}

/// `POST proxies/{id}/approve`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveProxy {
    /// The instance to which it belongs, by name; `null`: the one that matches the host.
    #[serde(default)]
    pub instance: Option<String>,
    /// Which nodes it may read; `null`: those of its instance.
    #[serde(default)]
    pub scope: Option<ScopeKind>,
}

/// `POST proxies/{id}/debug-token`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateDebugToken {
    /// How long it is good.
    #[serde(default = "one_hour")]
    pub ttl_seconds: u64,
}

fn one_hour() -> u64 {
    60 * 60
}

/// A new debug token: the one answer that shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDebugToken {
    /// The token, shown this once.
    pub token: String,
    /// Whose stream it watches.
    pub proxy_id: Uuid,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The command that watches with it, and takes it from the environment variable `TOKEN`.
    pub command: String,
}

/// Shows whose it is, not the secret.
impl std::fmt::Debug for NewDebugToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewDebugToken").field("proxy_id", &self.proxy_id).finish_non_exhaustive()
    }
}

/// `POST tls/finish`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishExchange {
    /// Yes, though some proxies may not have heard the new pin.
    #[serde(default)]
    pub yes: bool,
}

/// A new epoch: the answer to `POST epoch`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewEpoch {
    /// It: Unix milliseconds.
    pub epoch: u64,
    /// The one before.
    pub before: u64,
    /// How many proxies have a stream, to which the lists go at once.
    pub streams: usize,
}

/// `PATCH proxies/{id}`: what is `null` or left out stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetProxy {
    /// The instance to which it is moved, by name.
    #[serde(default)]
    pub instance: Option<String>,
    /// Which nodes it may read from now on.
    #[serde(default)]
    pub scope: Option<ScopeKind>,
}

#[cfg(test)]
mod tests {
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
        assert!(
            serde_json::from_value::<SetEndpoints>(json!({})).is_err(),
            "leaving it out is no empty list"
        );
        assert!(serde_json::from_value::<SetProxy>(json!({"scope": "everything"})).is_err());
    }

    #[test]
    fn an_answer_may_grow_new_keys() {
        let removed: Removed = serde_json::from_value(json!({"removed": "home", "later": 1})).unwrap();
        assert_eq!(removed.removed, "home");
    }

    #[test]
    fn an_error_has_its_field_only_where_one_is_wrong() {
        let error = ApiError { error: "text".into(), reason: "CODE".into(), field: None };
        assert_eq!(serde_json::to_value(&error).unwrap(), json!({"error": "text", "reason": "CODE"}));
        let error = ApiError { field: Some("name".into()), ..error };
        assert_eq!(serde_json::to_value(&error).unwrap()["field"], json!("name"));
    }

    #[test]
    fn a_proxy_keeps_its_keys() {
        let at = time(SystemTime::UNIX_EPOCH);
        let mark = Mark { epoch: 1, revision: 2, hash: "sha256:00".into(), at };
        let proxy = Proxy {
            id: Uuid::nil(),
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
}
