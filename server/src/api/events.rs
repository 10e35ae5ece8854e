//! What the live feed tells: the data of each event of `GET events`.
//!
//! An event names what is different, and what is small enough to be patched it carries. The rest is asked for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What stands in an event as its data; the event's name says which.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FeedEvent {
    /// `hello`.
    Hello(FeedHello),
    /// `changed`.
    Changed(FeedChanged),
    /// `proxies`.
    Proxies(FeedProxies),
    /// `temperatures`.
    Temperatures(FeedTemperatures),
    /// `polls`.
    Polls(FeedPolls),
    /// `reload`.
    Reload(FeedReload),
}

/// `hello`: the first event of each stream. What is asked for after it is not older than what the stream tells next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedHello {
    /// The server's version: another one may bring another UI.
    pub version: String,
    /// The fleet's epoch.
    pub epoch: u64,
    /// The fleet's revision.
    pub revision: u64,
    /// Whether the stream goes on where the one before it ended, so that nothing need be loaded anew.
    pub is_resumed: bool,
}

/// `reload`: events are missing between those before and those after it, so everything is to be loaded anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedReload {
    /// The fleet's revision.
    pub revision: u64,
}

/// `changed`: a change of the fleet is in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedChanged {
    /// The revision that it made. The audit log has a new row, too.
    pub revision: u64,
    /// Instances that are new, different or removed, by name.
    pub instances: Vec<String>,
    /// Proxies that are new, different or removed.
    pub proxies: Vec<Uuid>,
    /// Scopes that have another list: `all`, or `instance:` and its id.
    pub allowlists: Vec<String>,
    /// Whether join tokens, or the window for hosts without one, are different.
    pub is_joining: bool,
    /// Whether admins, log-ins or API tokens are different.
    pub is_access: bool,
    /// Whether there is more than is named here: everything is to be loaded anew.
    pub is_everything: bool,
}

/// `proxies`: something else is shown of these proxies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedProxies {
    /// Them.
    pub proxies: Vec<FeedProxy>,
}

/// A proxy, in short; all of it is at `GET proxies/{id}`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedProxy {
    /// Its identity.
    pub id: Uuid,
    /// Its last-sync state: the same word as in `GET proxies/{id}`.
    pub state: String,
    /// Whether it has a stream.
    pub is_connected: bool,
    /// The revision of the list that it was sent last; null: none was.
    pub pushed_revision: Option<u64>,
    /// The revision of the list that it has in force; null: none.
    pub applied_revision: Option<u64>,
}

/// `temperatures`: there are newer readings of these nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedTemperatures {
    /// Them; the readings are at `GET temperatures?node=NAME`.
    pub nodes: Vec<FeedNode>,
}

/// A node by its names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedNode {
    /// Its instance's.
    pub instance: String,
    /// Its own.
    pub node: String,
}

/// `polls`: something else is known of asking the Proxmox VE of these instances.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedPolls {
    /// Them, by name.
    pub instances: Vec<String>,
}
