//! What several servers on one database tell each other by it, as plain types.

use std::time::{Duration, SystemTime};

use pulse_proto::{SignedAllowlist, TokenDigest};
use uuid::Uuid;

use super::{PollStatus, ProxyStatus};
use crate::accounts::{Admin, Credential};
use crate::inventory::Instance;
use crate::registry::{CtrlToken, JoinToken, JoinWindow, Proxy};
use crate::report::NodeReport;

/// A server that said nothing for so long is gone: five times in a row it was not heard.
pub const GONE: Duration = Duration::from_secs(10);

/// Where in the database's history somebody stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stand {
    /// The identity of the database.
    pub server_id: Uuid,
    /// The fleet's revision.
    pub revision: u64,
    /// The hash of the audit row that made it. Empty: none did.
    pub audit_hash: String,
}

/// What others changed: every row as it is now, once.
#[derive(Debug)]
pub struct Newer {
    /// Where the database stands.
    pub stand: Stand,
    /// The fleet's epoch.
    pub epoch: u64,
    /// Instances.
    pub instances: Vec<Instance>,
    /// Proxies.
    pub proxies: Vec<Proxy>,
    /// Ctrl tokens.
    pub tokens: Vec<CtrlToken>,
    /// Ctrl tokens that were forgotten.
    pub dropped_tokens: Vec<TokenDigest>,
    /// Join tokens.
    pub join_tokens: Vec<JoinToken>,
    /// Join windows.
    pub join_windows: Vec<JoinWindow>,
    /// Admins.
    pub admins: Vec<Admin>,
    /// What lets admins and programs in.
    pub credentials: Vec<Credential>,
    /// Every list that was made meanwhile, by revision.
    pub lists: Vec<SignedAllowlist>,
}

/// What a server says of itself once in a while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Its name, for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The revision that it serves.
    pub revision: u64,
    /// How many proxies have a stream with it.
    pub streams: u64,
}

/// A server on the database, as it was heard of last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    /// Its identity from its start to its end.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it started, by the database's clock.
    pub started_at: SystemTime,
    /// For how long it has said nothing.
    pub silent_for: Duration,
    /// The revision that it serves.
    pub revision: u64,
    /// How many proxies have a stream with it.
    pub streams: u64,
    /// The work that it does for all, by name.
    pub leases: Vec<String>,
}

/// What other servers wrote.
#[derive(Debug)]
pub struct Others {
    /// Where the next look begins.
    pub until: i64,
    /// What they know of proxies.
    pub statuses: Vec<ProxyStatus>,
    /// Which streams they have.
    pub streams: Vec<OthersStream>,
    /// The newest reports of nodes; this server's own may be among them.
    pub newest: Vec<NodeReport>,
    /// What became of asking Proxmox VE: all of it.
    pub polls: Vec<PollStatus>,
}

/// Which other server has the stream of a proxy.
#[derive(Clone, Copy, Debug)]
pub struct OthersStream {
    /// The proxy.
    pub proxy: Uuid,
    /// The server. `None`: no other one.
    pub replica: Option<Uuid>,
}

/// What a server hears when it says that it is there.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// All servers on the database, this one first. Empty: the database is this one's alone.
    pub replicas: Vec<Replica>,
    /// The proxies whose stream here is over, as they have opened one with another server.
    pub taken: Vec<Uuid>,
    /// The fleet's revision, as the database has it.
    pub revision: u64,
}
