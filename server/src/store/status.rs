//! What proxies did and said last.

use std::net::IpAddr;
use std::time::SystemTime;

use pulse_proto::{ListHash, Position};
use uuid::Uuid;

/// A list, by its place and its hash, and when something was done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Epoch and revision of the list.
    pub position: Position,
    /// Hash of the list.
    pub hash: ListHash,
    /// When, by the server's clock.
    pub at: SystemTime,
}

/// What was wrong with the list on a proxy's disk when the proxy started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptList {
    /// In one word: `missing`, `damaged`, `older`, `foreign`, `unreadable`.
    pub problem: String,
    /// For people: which file, what is wrong, what to do.
    pub detail: String,
    /// When it was said first, by the server's clock.
    pub at: SystemTime,
}

/// What a proxy did and said last. Written in groups, at most 5 s late.
#[derive(Clone, PartialEq, Debug)]
pub struct ProxyStatus {
    /// Whose it is.
    pub proxy: Uuid,
    /// When it was last heard.
    pub last_seen: Option<SystemTime>,
    /// When it last asked for a list: opened a watch, or (older proxies) pulled.
    pub last_pull: Option<SystemTime>,
    /// The last list sent to it, or confirmed as held by it.
    pub pushed: Option<Mark>,
    /// The last list that it put in force.
    pub applied: Option<Mark>,
    /// Whether that list is on its disk.
    pub on_disk: bool,
    /// The last list that it refused, if it has applied none since.
    pub refused: Option<Mark>,
    /// Why it refused it, or what was wrong with its disk. Empty: nothing.
    pub last_error: String,
    /// Where its list comes from, as it said: `pushed`, `cache`, `static`, `none`. Empty: it did not say.
    pub list_source: String,
    /// Its version, as it last said.
    pub version: String,
    /// Whether it does not check the server's certificate, as it last said.
    pub insecure_skip_verify: bool,
    /// What was wrong with the list on its disk when it last started, if something was.
    pub kept_list: Option<KeptList>,
    /// The address from which it last opened a watch.
    pub peer: Option<IpAddr>,
}

/// What a proxy holds that this database never made: the database is older than the fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ahead {
    /// Whose it is.
    pub proxy: Uuid,
    /// The list that it said it holds.
    pub position: Position,
    /// The fleet's epoch when it was noticed; a new epoch ends it.
    pub noticed_epoch: u64,
    /// When it was noticed.
    pub noticed_at: SystemTime,
}

/// What became of asking Proxmox VE for the nodes of an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PollStatus {
    /// The instance.
    pub instance: Uuid,
    /// When it was asked last.
    pub asked_at: SystemTime,
    /// When it last told all that was asked, and could be believed.
    pub heard_at: Option<SystemTime>,
    /// Which host told it.
    pub url: String,
    /// That host's version of Proxmox VE.
    pub version: String,
    /// The name of the cluster whose members are taken; empty: a host by itself.
    pub cluster: String,
    /// Why what it says changes nothing, and what to do; empty: it can be believed.
    pub problem: String,
    /// Since when.
    pub problem_since: Option<SystemTime>,
}

/// When a credential was used last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialUse {
    /// Its id.
    pub credential: String,
    /// When.
    pub at: SystemTime,
    /// From where; `None`: from this machine.
    pub from: Option<IpAddr>,
}
