//! What is asked of one proxy.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ScopeKind;

/// `PATCH proxies/{id}`: what is `null` or left out stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetProxy {
    /// The instance to which it is moved, by name.
    #[serde(default)]
    pub instance: Option<String>,
    /// Which nodes it may read from now on.
    #[serde(default)]
    pub scope: Option<ScopeKind>,
}

/// `POST proxies/{id}/approve`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
impl fmt::Debug for NewDebugToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDebugToken").field("proxy_id", &self.proxy_id).finish_non_exhaustive()
    }
}
