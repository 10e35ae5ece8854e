//! Instances, their nodes with where they come from, and Proxmox VE as a source.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Node;

/// `POST instances`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddInstance {
    /// Its name: 1 to 63 of `[A-Za-z0-9._-]`, beginning alphanumeric.
    pub name: String,
    /// Nodes that were typed.
    #[serde(default)]
    pub endpoints: Vec<Node>,
    /// Proxmox VE as the source of further ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pve: Option<SetPve>,
}

/// `PUT instances/{name}`: replaces the nodes that were typed or imported.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetEndpoints {
    /// All of them from now on.
    pub endpoints: Vec<Node>,
    /// Yes, though more than half of a list of four or more, or all of a list, goes: else such a change is held.
    #[serde(default)]
    pub yes: bool,
}

/// `PUT instances/{name}/pve`, and part of `POST instances`: Proxmox VE as a source. What is left out stays as it was.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPve {
    /// The hosts to ask, in turn: `https://HOST:8006`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// The API token's id: `USER@REALM!ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// Its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<String>,
    /// SHA-256 fingerprints of the certificates that are trusted; empty: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprints: Option<Vec<String>>,
    /// Further ones, beside those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_fingerprints: Vec<String>,
    /// How often it is asked: 1 to 3600 s, 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_interval_seconds: Option<f64>,
    /// Take it though it cannot be asked at the moment.
    #[serde(default)]
    pub is_unchecked: bool,
}

/// Shows everything but the secret.
impl fmt::Debug for SetPve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetPve")
            .field("urls", &self.urls)
            .field("token_id", &self.token_id)
            .field("fingerprints", &self.fingerprints)
            .field("add_fingerprints", &self.add_fingerprints)
            .field("poll_interval_seconds", &self.poll_interval_seconds)
            .field("is_unchecked", &self.is_unchecked)
            .finish_non_exhaustive()
    }
}

/// `POST pve/certificates`: which certificates hosts show. Nothing secret is sent to them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LookAtCertificates {
    /// The hosts: `https://HOST:8006`.
    pub urls: Vec<String>,
}

/// The answer to `POST pve/certificates`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CertificatesShown {
    /// One for each URL, in the order in which they were given.
    pub certificates: Vec<CertificateShown>,
}

/// The certificate of one host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CertificateShown {
    /// The host.
    pub url: String,
    /// Its SHA-256 fingerprint; `null`: it showed none.
    pub fingerprint: Option<String>,
    /// Whether the system trusts it.
    pub is_trusted: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// Whether an instance or a node is in use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is.
    #[default]
    Active,
    /// It stays as it is, whatever its source says.
    Paused,
    /// It is on no list.
    Excluded,
}

impl Standing {
    /// The word for people and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Paused => "paused",
            Standing::Excluded => "excluded",
        }
    }
}

/// `PUT instances/{name}/standing`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetUse {
    /// What it is to be.
    pub standing: Standing,
    /// Yes, though all of its nodes go off the list.
    #[serde(default)]
    pub yes: bool,
}

/// `PATCH instances/{name}/nodes/{node}`: what is left out stays as it was.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetNode {
    /// Where it is, whatever its source says; empty: as that says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether it is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Yes, though more than half of a list of four or more, or all of a list, goes.
    #[serde(default)]
    pub yes: bool,
}

/// A Proxmox instance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its identity.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The nodes that may be read.
    pub endpoints: Vec<Node>,
    /// Every node that a source names, with what it is.
    #[serde(default)]
    pub nodes: Vec<KnownNode>,
    /// Whether it is in use.
    #[serde(default)]
    pub standing: Standing,
    /// Proxmox VE as the source of its nodes, and what it says; `null`: it is not.
    #[serde(default)]
    pub pve: Option<PveStatus>,
    /// Changes that wait for an admin, or that an admin said no to.
    #[serde(default)]
    pub held: Vec<Held>,
    /// What contradicts what, with the way out.
    #[serde(default)]
    pub conflicts: Vec<String>,
    /// How many proxies belong to it.
    pub proxies: usize,
    /// When it was added.
    pub created_at: Timestamp,
}

/// A node as its source names it, and what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct KnownNode {
    /// The instance's name.
    pub instance: String,
    /// Its name.
    pub name: String,
    /// Its address, as its source says; empty: only the name is known.
    pub ip: String,
    /// Where an admin says that it is; `null`: as its source says.
    pub set_ip: Option<String>,
    /// `cluster`, `manual` or `import`: who says that it exists. `none`: nobody at the moment, but something is set for it.
    pub origin: String,
    /// When that source said so last.
    pub confirmed_at: Option<Timestamp>,
    /// Whether it is in use.
    pub standing: Standing,
    /// Whether it is on lists.
    pub is_listed: bool,
}

/// `GET nodes`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Nodes {
    /// By instance, origin and name.
    pub nodes: Vec<KnownNode>,
    /// What contradicts what, with the way out.
    pub conflicts: Vec<String>,
}

/// Proxmox VE as a source, and what it says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PveStatus {
    /// The hosts that are asked, in turn.
    pub urls: Vec<String>,
    /// The API token's id.
    pub token_id: String,
    /// The certificates that are trusted; empty: those that the system trusts.
    pub fingerprints: Vec<String>,
    /// How often it is asked.
    pub poll_interval_seconds: f64,
    /// `ok`; `problem`: what it says cannot be believed, and `problem` says why; `waiting`: it has not answered yet; `paused` or
    /// `excluded`: it is not asked.
    pub state: String,
    /// What is wrong, and what to do.
    pub problem: Option<String>,
    /// Since when.
    pub problem_since: Option<Timestamp>,
    /// When it was asked last.
    pub asked_at: Option<Timestamp>,
    /// When it was last believed.
    pub heard_at: Option<Timestamp>,
    /// The host that was believed.
    pub url: Option<String>,
    /// That host's version of Proxmox VE.
    pub version: Option<String>,
}

/// A change that would take away too much, and waits for an admin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// The instance's name.
    pub instance: String,
    /// Whose nodes it would change: `cluster` or `manual`.
    pub origin: String,
    /// Who wants it.
    pub by: String,
    /// Since when it waits.
    pub held_at: Timestamp,
    /// The nodes that would go.
    pub gone: Vec<String>,
    /// What the nodes of this origin would be.
    pub nodes: Vec<Node>,
    /// Whether an admin said no to it.
    pub is_discarded: bool,
}

/// `POST instances/{name}/held/confirm`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmHeld {
    /// Since when each held change waits that the admin has seen; if others are held by now, nothing goes out. `null`: whatever is
    /// held.
    #[serde(default)]
    pub seen: Option<Vec<Timestamp>>,
}

/// `GET instances`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Instances {
    /// By name.
    pub instances: Vec<Instance>,
}
