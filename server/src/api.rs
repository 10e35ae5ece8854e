//! The JSON that the admin API speaks: one set of types for the server, the command line and, one day, the UI.
//!
//! In and out: requests and answers under [`ROOT`]. Times are RFC 3339 in UTC to the millisecond, durations end in
//! `_seconds`, temperatures in `_celsius`; what is not known is `null`.
//! Always: a request with an unknown key is refused; an answer may grow new keys, which older readers skip.
//! Never: holds a secret, but for the join string in the one answer that makes it.

mod accounts;
mod audit;
mod events;
mod history;
mod import;
mod instances;
mod join;
mod proxies;
mod state;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use accounts::{
    AddAdmin, Admin, Admins, ApiToken, ApiTokens, CallerKind, CreateApiToken, LogIn, NewApiToken, NewLink,
    Session, SetPassword, SetUp, TokenState,
};
pub use audit::AuditVerdict;
pub use events::{
    FeedChanged, FeedEvent, FeedHello, FeedNode, FeedPolls, FeedProxies, FeedProxy, FeedReload,
    FeedTemperatures,
};
pub use history::{AddressChange, ListDiff, ListHistory, ListRevision};
pub use import::{Import, ImportInstance, ImportOutcome, ImportPlan, ImportProxy, ImportPve, ImportStep};
pub use instances::{
    AddInstance, CertificateShown, CertificatesShown, ConfirmHeld, Held, Instance, Instances, KnownNode,
    LookAtCertificates, Nodes, PveStatus, SetEndpoints, SetNode, SetPve, SetUse, Standing,
};
pub use join::{CreateJoin, JoinState, JoinToken, JoinTokens, JoinWindow, NewJoin, NewJoinWindow, OpenJoin};
pub use proxies::{ApproveProxy, CreateDebugToken, NewDebugToken, SetProxy};
pub use state::{
    Ahead, Allowlist, Allowlists, AuditRow, AuditRows, Certificate, KeptList, KeyExchange, Mark,
    NodeTemperatures, OlderDatabase, Proxies, Proxy, Reading, Replica, Revoked, Status, Temperatures,
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

/// Why a request was not done: problem details as in RFC 9457, sent as `application/problem+json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// The kind of problem, as a name: `urn:pulse:problem:needs-yes`. It says the same as `reason`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem for people, the same each time.
    pub title: String,
    /// The answer's status code.
    pub status: u16,
    /// What happened, to what, and what to do next.
    pub detail: String,
    /// What a program may branch on, in capitals.
    pub reason: String,
    /// The field of the request that breaks a rule: `endpoints[0].ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ApiError {
    /// An error about no field. Kind and title follow from the reason.
    #[must_use]
    pub fn new(status: StatusCode, reason: &str, detail: String) -> ApiError {
        let words = reason.to_ascii_lowercase();
        let (first, rest) = words.split_at_checked(1).unwrap_or_default();
        ApiError {
            kind: format!("urn:pulse:problem:{}", words.replace('_', "-")),
            title: format!("{}{}", first.to_ascii_uppercase(), rest.replace('_', " ")),
            status: status.as_u16(),
            detail,
            reason: reason.to_owned(),
            field: None,
        }
    }
}

/// A node: a host whose temperatures can be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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

/// What was taken off: the answer to `DELETE instances/{name}` and `DELETE proxies/{id}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// The instance's name, or the proxy's id.
    pub removed: String,
}

/// Which nodes a proxy may read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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

/// `POST tls/finish`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishExchange {
    /// Yes, though some proxies may not have heard the new pin.
    #[serde(default)]
    pub yes: bool,
}

/// `POST key/rotate`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// The file of the new key, by its absolute path, where the server does not make it itself.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub new_key_file: Option<PathBuf>,
}

/// The sealing key was exchanged: the answer to `POST key/rotate`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RotatedKey {
    /// The file that has the new key.
    #[schema(value_type = String)]
    pub key_file: PathBuf,
    /// The file whose place that one must take before the server's next start; null: it has it already.
    #[schema(value_type = Option<String>)]
    pub replaces: Option<PathBuf>,
}

/// A file with all that brings the fleet back: the answer to `POST backup`.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct Backup(pub Vec<u8>);

/// A new epoch: the answer to `POST epoch`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewEpoch {
    /// It: Unix milliseconds.
    pub epoch: u64,
    /// The one before.
    pub before: u64,
    /// How many proxies have a stream, to which the lists go at once.
    pub streams: usize,
}

#[cfg(test)]
mod tests;
