//! Lists of before: how they came about.

use std::time::SystemTime;

use pulse_proto::{ListHash, Position, Scope, SignedAllowlist};

/// How a list came about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListChange {
    /// Of which scope it is.
    pub scope: Scope,
    /// Its place in time.
    pub position: Position,
    /// Its hash.
    pub hash: ListHash,
    /// When it was made.
    pub at: SystemTime,
    /// Who made the change, as the audit log has it; `None` if the log has no such row.
    pub actor: Option<String>,
    /// What was done, as the audit log has it.
    pub action: Option<String>,
    /// How many nodes it has.
    pub nodes: usize,
    /// How many of them the list before it did not have.
    pub added: usize,
    /// How many nodes of the list before it does not have.
    pub removed: usize,
}

/// The list of one scope at one revision.
#[derive(Clone, PartialEq, Debug)]
pub enum ListFound {
    /// It was made then.
    List(Box<SignedAllowlist>),
    /// None was made then; these are the revisions before and after at which one was.
    Between {
        /// The one before.
        before: Option<u64>,
        /// The one after.
        after: Option<u64>,
    },
}
