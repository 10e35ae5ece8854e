//! Join tokens, and windows for hosts without one.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ScopeKind;

/// `POST join-tokens`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewJoin {
    /// The join string, `pulse://…`, shown this once.
    pub join: String,
    /// The token.
    pub token: JoinToken,
}

/// Shows the token's id, not the secret.
impl fmt::Debug for NewJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJoin").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Whether a join token can still be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokens {
    /// The oldest first. Those that ended more than 30 days ago are not there.
    pub join_tokens: Vec<JoinToken>,
    /// The newest window for hosts without a join token; `null`: there was none, or it ended more than 30 days ago.
    pub window: Option<JoinWindow>,
}

/// `POST join-window`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewJoinWindow {
    /// The join string for hosts: without a secret.
    pub join: String,
    /// The window.
    pub window: JoinWindow,
}
