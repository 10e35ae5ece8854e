//! What older installs have, and what of it becomes part of the fleet.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Node;

/// `POST import`: takes over what was read of older installs, all in one change.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// The name of the instance of what names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The host of the control token that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// SHA-256 fingerprints of certificates, for the sources of which nobody knows whom to trust.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
    /// What was read.
    pub instances: Vec<ImportInstance>,
}

/// An instance, or what of one a file knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportInstance {
    /// The file that it is from.
    pub source: String,
    /// Its name; left out: the file has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its nodes; where an address was set for one, with that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    /// Nodes with the address that a person set for them, whatever their cluster says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address_overrides: Vec<Node>,
    /// Where and as whom Proxmox VE is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pve: Option<ImportPve>,
    /// Its hosts with a proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<ImportProxy>,
}

/// Where and as whom Proxmox VE is asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportPve {
    /// The hosts to ask, in turn: `https://HOST:8006`.
    pub urls: Vec<String>,
    /// The API token's id: `USER@REALM!ID`.
    pub token_id: String,
    /// Its secret.
    pub token_secret: String,
    /// SHA-256 fingerprints of the certificates that are trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
    /// Whether the system's authorities vouch for its certificates, where there is no fingerprint.
    #[serde(default)]
    pub has_trust_from_system: bool,
}

/// Shows everything but the secret.
impl fmt::Debug for ImportPve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportPve")
            .field("urls", &self.urls)
            .field("token_id", &self.token_id)
            .field("fingerprints", &self.fingerprints)
            .field("has_trust_from_system", &self.has_trust_from_system)
            .finish_non_exhaustive()
    }
}

/// A proxy that an older server knows, or whose token a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportProxy {
    /// Its host; left out: it is not written down which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Where its own listener is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
    /// The SHA-256 of its control token, 64 hex digits; the token itself is never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<String>,
}

/// The answer to `POST import`: what would be done, or was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportPlan {
    /// Whether it was done, and not only thought through.
    pub is_done: bool,
    /// The revision of the fleet, afterwards if it was done.
    pub revision: u64,
    /// One for each thing.
    pub steps: Vec<ImportStep>,
}

/// What becomes of one thing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportStep {
    /// What becomes of it.
    pub outcome: ImportOutcome,
    /// `instance`, `node`, `address`, `source` or `proxy`.
    pub what: String,
    /// The instance's name; `null`: it is not known.
    pub instance: Option<String>,
    /// The thing, for people; and where it is left out, why.
    pub text: String,
    /// What to do, where it is left out.
    pub way_out: Option<String>,
}

/// What becomes of one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// It is added.
    Add,
    /// It is there already.
    There,
    /// It is left out.
    LeftOut,
}

impl ImportOutcome {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ImportOutcome::Add => "add",
            ImportOutcome::There => "is there",
            ImportOutcome::LeftOut => "left out",
        }
    }
}
