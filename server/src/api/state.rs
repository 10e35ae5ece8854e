//! What the API tells and nobody sets: proxies as they stand, lists, temperatures, status, the audit log.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Node, ScopeKind};

/// A list, and when something was done with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Mark {
    /// The epoch of the list.
    pub epoch: u64,
    /// The revision of the list.
    pub revision: u64,
    /// The hash of the list.
    pub hash: String,
    /// When.
    pub at: Timestamp,
}

/// When and why a proxy was revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// What was wrong with the list on a proxy's disk when the proxy started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeptList {
    /// `missing`, `damaged`, `older`, `foreign` or `unreadable`.
    pub problem: String,
    /// Which file, what is wrong with it, and what to do.
    pub detail: String,
    /// When it was said first.
    pub at: Timestamp,
}

/// A list that a proxy holds and that this database never made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ahead {
    /// The epoch of the list.
    pub epoch: u64,
    /// The revision of the list.
    pub revision: u64,
    /// When it was noticed.
    pub noticed_at: Timestamp,
}

/// A proxy: what it is, what it holds, what it last said.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Proxy {
    /// Its identity; survives renames, upgrades and further registrations.
    pub id: Uuid,
    /// The host's name, as it registered.
    pub hostname: String,
    /// How local callers reach it: `socket` or `http`.
    pub kind: String,
    /// Where local callers reach it in HTTP mode. Empty: nowhere.
    pub proxy_url: String,
    /// Its version, as it last said.
    pub version: String,
    /// The name of its instance; `null` while it waits for one.
    pub instance: Option<String>,
    /// Whether that instance was removed, so that it may read nothing.
    pub is_instance_removed: bool,
    /// Which nodes it may read.
    pub scope: ScopeKind,
    /// Last-sync state: `NEVER`, `IN_SYNC`, `PENDING`, `STALE`, `OFFLINE`, `REFUSED` or `REVOKED`.
    pub state: String,
    /// Whether it came with a join token or an admin approved it; until then it gets no list.
    pub is_approved: bool,
    /// Why it has no list yet, if it waits.
    pub waiting: Option<String>,
    /// Whether it has a stream open.
    pub is_connected: bool,
    /// How it asked for its list last: `grpc`, with a stream, or `rest`, now and then over the paths of older proxies. `null`:
    /// it never did.
    #[serde(default)]
    pub transport: Option<String>,
    /// The last list sent to it, or confirmed as held by it.
    pub pushed: Option<Mark>,
    /// The last list that it put in force.
    pub applied: Option<Mark>,
    /// Whether that list is on its disk.
    pub is_on_disk: bool,
    /// The last list that it refused, if it has applied none since.
    pub refused: Option<Mark>,
    /// Why it refused a list, or what was wrong with its disk. Empty: nothing.
    pub last_error: String,
    /// Where its list comes from, as it said: `pushed`, `cache`, `static` or `none`; `pulled` where it
    /// asked for it over the paths of older proxies. Empty: it did not say.
    pub list_source: String,
    /// Whether it does not check the server's certificate. A known pin and the lists' signatures it checks all the same.
    pub insecure_skip_verify: bool,
    /// What was wrong with the list on its disk when it last started; `is_on_disk` says whether another one took its
    /// place. `null`: nothing was.
    pub kept_list: Option<KeptList>,
    /// What it holds that this database never made; it is sent no list until a new epoch begins. `null`: nothing.
    pub ahead: Option<Ahead>,
    /// How long the newest list has waited for it; `null` if it has applied that one.
    pub lag_seconds: Option<f64>,
    /// When it was last heard.
    pub last_seen_at: Option<Timestamp>,
    /// When it last asked for a list.
    pub last_pull_at: Option<Timestamp>,
    /// The address from which it last came.
    #[schema(value_type = Option<String>)]
    pub peer_ip: Option<IpAddr>,
    /// Whether an admin asked that it take a new token, and it has not yet.
    pub is_rotation_requested: bool,
    /// When it registered first.
    pub created_at: Timestamp,
    /// When it registered last.
    pub registered_at: Timestamp,
    /// When and why it was revoked, if it was.
    pub revoked: Option<Revoked>,
}

/// `GET proxies`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Proxies {
    /// By hostname, then id.
    pub proxies: Vec<Proxy>,
}

/// Who may read what: one list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Allowlist {
    /// `all` or `instance:UUID`.
    pub scope: String,
    /// The name of the instance, for the list of one.
    pub instance: Option<String>,
    /// The life of the database.
    pub epoch: u64,
    /// The fleet's revision at which the list last changed; `null`: no proxy reads it, so it is not published.
    pub revision: Option<u64>,
    /// Which list it is.
    pub hash: String,
    /// When it last changed, if it is published.
    pub updated_at: Option<Timestamp>,
    /// The key that signed it, if it is published.
    pub key_id: Option<String>,
    /// The nodes, in the order in which they are hashed.
    pub nodes: Vec<Node>,
}

/// `GET allowlists`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Allowlists {
    /// That of all nodes first, then those of instances, by name.
    pub allowlists: Vec<Allowlist>,
}

/// One value of one sensor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reading {
    /// The sensor's stable name on its node.
    pub sensor: String,
    /// The chip's name.
    pub chip: String,
    /// The label that the driver gives; may be empty.
    pub label: String,
    /// What it measures: `cpu_package`, `cpu_core`, `nvme`, …
    pub kind: String,
    /// The temperature.
    pub temperature_celsius: f64,
    /// The driver's upper limit.
    pub max_celsius: Option<f64>,
    /// The driver's critical limit.
    pub critical_celsius: Option<f64>,
}

/// The newest report of one node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeTemperatures {
    /// The node's name.
    pub node: String,
    /// Its address; empty if only the name is known.
    pub ip: String,
    /// The name of its instance; `null` if that was removed since.
    pub instance: Option<String>,
    /// The proxy that read it.
    pub proxy_id: Uuid,
    /// When it was read, by the proxy's clock.
    pub collected_at: Timestamp,
    /// When the report arrived, by the server's clock.
    pub received_at: Timestamp,
    /// The time since it was read.
    pub age_seconds: f64,
    /// Why it could not be read, if it could not.
    pub unreadable_reason: Option<String>,
    /// The values.
    pub readings: Vec<Reading>,
}

/// `GET temperatures`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Temperatures {
    /// By node, then instance.
    pub nodes: Vec<NodeTemperatures>,
}

/// A server on the same database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// Its identity from its start to its end.
    pub id: Uuid,
    /// Its host and port.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it started, by the database's clock.
    pub started_at: Timestamp,
    /// Whether it was heard of in the last 10 s.
    pub is_alive: bool,
    /// For how long it was silent.
    pub silent_seconds: f64,
    /// The revision that it served then.
    pub revision: u64,
    /// How many revisions it is behind this server.
    pub revisions_behind: u64,
    /// How many proxies had a stream with it.
    pub streams: u64,
    /// The work that it does for all: `pruning`.
    pub leases: Vec<String>,
}

/// `GET status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// The identity of the database.
    pub server_id: Uuid,
    /// The life of the database.
    pub epoch: u64,
    /// The fleet's revision.
    pub revision: u64,
    /// When the server started.
    pub started_at: Timestamp,
    /// How long it has run.
    pub uptime_seconds: f64,
    /// The addresses on which it listens.
    pub listen: Vec<String>,
    /// `HOST:PORT` as join strings have it.
    pub public_address: String,
    /// The pin that join strings carry; `null` with a certificate of the admin's own, or in plain text.
    pub pin: Option<String>,
    /// The file of the CA certificate, for clients such as grpcurl.
    pub ca_path: Option<String>,
    /// How things stand with the server's certificate; `null` in plain text.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// How many instances there are.
    pub instances: usize,
    /// How many of them ask Proxmox VE, and cannot believe what it says.
    #[serde(default)]
    pub instances_with_problems: usize,
    /// How many changes would take away too much, and wait for an admin.
    #[serde(default)]
    pub held_changes: usize,
    /// How many nodes contradict each other.
    #[serde(default)]
    pub conflicts: usize,
    /// How many proxies there are.
    pub proxies: usize,
    /// How many of them are in each last-sync state.
    pub proxies_by_state: BTreeMap<String, u64>,
    /// How many proxies have a stream open.
    pub streams: usize,
    /// `ok`, or `degraded`: the last write failed, and lists stay as they are.
    pub database: String,
    /// The address at which older proxies are served in plain text; `null`: none.
    #[serde(default)]
    pub legacy_http: Option<String>,
    /// How many requests came there since the server started.
    #[serde(default)]
    pub legacy_http_requests: u64,
    /// Set if proxies hold lists that this database never made: an old copy of it was put back.
    pub database_older_than_fleet: Option<OlderDatabase>,
    /// The servers on the same database, this one first; empty if it is this one's alone.
    #[serde(default)]
    pub replicas: Vec<Replica>,
    /// How many nodes have a reading.
    pub nodes_with_readings: usize,
    /// When the newest reading arrived.
    pub newest_reading_at: Option<Timestamp>,
}

/// How things stand with the server's certificate.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// When it ends.
    pub ends_at: Timestamp,
    /// When the CA certificate ends, which is renewed with the same key long before; `null` with a certificate of the
    /// admin's own.
    pub ca_ends_at: Option<Timestamp>,
    /// The exchange of the CA's key, while it lasts.
    pub exchange: Option<KeyExchange>,
    /// Why the files on disk are not the ones in use; `null`: they are.
    pub trouble: Option<String>,
}

/// `POST tls/rotate` and `POST tls/finish`: the exchange of the CA's key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyExchange {
    /// The pin of the key before, which is good until the exchange is finished.
    pub previous_pin: String,
    /// When it began.
    pub began_at: Timestamp,
}

/// The database is older than the fleet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct OlderDatabase {
    /// How many proxies said so.
    pub proxies: usize,
    /// Since when it is known.
    pub since: Timestamp,
    /// What it means, and the way out.
    pub detail: String,
}

/// One row of the audit log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Its place, from 1, without gaps.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// The address that it was asked for from; `null`: from the server's own machine, or a row from before this was noted.
    #[serde(default)]
    pub from: Option<String>,
    /// What became of it: `done`, `refused`, `failed`; `null`: a row from before this was noted.
    #[serde(default)]
    pub result: Option<String>,
    /// All of that and the rest, as it was hashed.
    pub detail: serde_json::Value,
    /// The fleet's revision after it.
    pub revision: u64,
    /// Hash of the row before, 64 hex digits.
    pub previous_hash: String,
    /// Hash of this row, 64 hex digits.
    pub hash: String,
}

/// `GET audit`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditRows {
    /// The oldest first.
    pub rows: Vec<AuditRow>,
}
