//! Admins, log-ins and API tokens.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST set-up`: sets a password, with a one-time link or as the first admin.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetUp {
    /// The secret of the link: what comes behind the `#`.
    pub link: String,
    /// The name of the first admin; not taken with the link of an admin who has one.
    #[serde(default)]
    pub name: Option<String>,
    /// The password, 12 to 256 characters.
    pub password: String,
}

/// Shows neither link nor password.
impl fmt::Debug for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetUp").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `POST session`: logs in.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// The admin's name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Shows no password.
impl fmt::Debug for LogIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogIn").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `PUT session/password`.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    /// The password that is good now.
    pub password: String,
    /// The one that takes its place, 12 to 256 characters.
    pub new_password: String,
}

/// Shows no password.
impl fmt::Debug for SetPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetPassword").finish_non_exhaustive()
    }
}

/// How a caller got in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallerKind {
    /// Over the Unix socket.
    Local,
    /// Logged in, with a cookie.
    User,
    /// With an API token.
    Token,
}

/// Who asks, and what that allows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// How the caller got in.
    pub kind: CallerKind,
    /// The name: an admin's, an API token's; of a local admin the user id.
    pub name: String,
    /// The API token's scopes; of anybody else all of them.
    pub scopes: Vec<String>,
    /// What a log-in sends as `x-csrf-token` with each change; `null` for other callers, who need none.
    pub csrf_token: Option<String>,
    /// When it ends by itself; `null`: never.
    pub expires_at: Option<Timestamp>,
}

/// Shows no CSRF token.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("kind", &self.kind).field("name", &self.name).finish_non_exhaustive()
    }
}

/// An admin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Admin {
    /// The name.
    pub name: String,
    /// Whether a password is set; without one only a one-time link lets the admin in.
    pub has_password: bool,
    /// How many log-ins there are.
    pub sessions: usize,
    /// When the admin was added.
    pub created_at: Timestamp,
    /// When the password was set last.
    pub password_set_at: Option<Timestamp>,
}

/// `GET admins`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Admins {
    /// By name.
    pub admins: Vec<Admin>,
}

/// `POST admins`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAdmin {
    /// The name: 1 to 63 letters, digits, dots, underscores and hyphens.
    pub name: String,
}

/// A one-time link: the one answer that shows the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewLink {
    /// The admin whose password it sets.
    pub name: String,
    /// The link, shown this once.
    pub link: String,
    /// When it ends unused.
    pub expires_at: Timestamp,
}

/// Shows no link.
impl fmt::Debug for NewLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewLink").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether an API token can still be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It can.
    Active,
    /// It is past its time.
    Expired,
    /// An admin ended it.
    Revoked,
}

impl TokenState {
    /// The word for it, everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenState::Active => "active",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        }
    }
}

/// An API token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    /// Its id, as the audit log has it.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// What it is good for: `monitoring:read`, `settings:read`, `settings:write`, `proxies:register`.
    pub scopes: Vec<String>,
    /// Whether it can still be used.
    pub state: TokenState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was used last, at most some seconds late; `null`: never.
    pub last_used_at: Option<Timestamp>,
    /// The address that it was used from last.
    pub last_used_from: Option<String>,
}

/// `GET api-tokens`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApiTokens {
    /// The oldest first; those that ended more than 30 days ago are left out.
    pub api_tokens: Vec<ApiToken>,
}

/// `POST api-tokens`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiToken {
    /// Its name, for people: 1 to 64 characters.
    pub name: String,
    /// What it shall be good for.
    pub scopes: Vec<String>,
    /// How long it is good for, 1 to 315,360,000; `null`: 90 days, or until the end of the token with which this is asked.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
}

/// A new API token: the one answer that shows the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewApiToken {
    /// The secret, `papi_…`, shown this once.
    pub secret: String,
    /// The token.
    pub token: ApiToken,
}

/// Shows the token's id, not the secret.
impl fmt::Debug for NewApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewApiToken").field("token", &self.token).finish_non_exhaustive()
    }
}
