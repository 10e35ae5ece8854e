//! [`Catalog`]: what exists and who may connect, at one revision.
//!
//! In: what the store loaded, then each change. Out: one consistent, immutable picture for all that reads.
//! Cloning is cheap: instances, proxies and tokens are shared.

use std::sync::Arc;

use uuid::Uuid;

use crate::accounts::Accounts;
use crate::inventory::Inventory;
use crate::registry::Registry;

/// Inventory and registry at one revision of the fleet.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The identity of the database.
    pub server_id: Uuid,
    /// Unix milliseconds at the creation of the database.
    pub epoch: u64,
    /// The fleet's revision.
    pub revision: u64,
    /// The hash of the audit row that made the revision: where in the database's history this is. Empty: none did.
    pub audit_hash: Arc<str>,
    /// What exists.
    pub inventory: Inventory,
    /// Who may connect.
    pub registry: Registry,
    /// Who may administer.
    pub accounts: Accounts,
}
