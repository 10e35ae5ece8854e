//! How lists came about, and how two of them differ.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Allowlist, Node};

/// One list of a scope, as it was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ListRevision {
    /// `all` or `instance:UUID`.
    pub scope: String,
    /// The name of the instance, for the list of one.
    pub instance: Option<String>,
    /// The life of the database.
    pub epoch: u64,
    /// The fleet's revision at which the list was made.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// Who made the change, as the audit log has it; `null` if the log has no such row.
    pub actor: Option<String>,
    /// What was done, as the audit log has it.
    pub action: Option<String>,
    /// Which list it is.
    pub hash: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// How many of them the list before it did not have.
    pub added: usize,
    /// How many nodes of the list before it does not have.
    pub removed: usize,
}

/// `GET allowlists/history`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ListHistory {
    /// The newest first.
    pub revisions: Vec<ListRevision>,
}

/// A node whose address is another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AddressChange {
    /// Its name.
    pub name: String,
    /// Its address in the first list.
    pub from_ip: String,
    /// Its address in the second list.
    pub to_ip: String,
}

/// `GET allowlists/diff`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ListDiff {
    /// The first list.
    pub from: Allowlist,
    /// The second list.
    pub to: Allowlist,
    /// Nodes that only the second has.
    pub added: Vec<Node>,
    /// Nodes that only the first has.
    pub removed: Vec<Node>,
    /// Nodes that both have, with another address.
    pub changed: Vec<AddressChange>,
}
