//! Checks a database on PostgreSQL: what every database has. References are PostgreSQL's own care, and its pages are
//! `pg_amcheck`'s.
//!
//! Always: one view of all tables, while servers go on; nothing is written, and no table is made.

use std::path::Path;

use tokio::runtime::Handle;

use super::{Address, Connection, schema};
use crate::config;
use crate::sealing;
use crate::store::engine::check::{Kind, check as check_tables};
use crate::store::engine::fault::Fault;
use crate::store::engine::{catalog, sealed};
use crate::store::{Checked, StoreError};

/// Checks the database, whose secrets are sealed under the key in this file. Blocks.
///
/// # Errors
/// [`StoreError`] if it cannot be asked, is not of this version, or its keys cannot be opened.
pub fn check(
    secret_key: &Path,
    database: &config::Database,
    runtime: &Handle,
) -> Result<Checked, StoreError> {
    let address = Address::of(database)?;
    let name = address.name.clone();
    let before = sealing::all_of(secret_key);
    let mut connection = Connection::new(address, runtime.clone());
    let checked = connection.view(|sql| {
        if !schema::is_newest(sql)? {
            return Err(Fault::Unreadable("it is no database of this version of Pulse".to_owned()));
        }
        // Without its key nothing that is signed can be judged.
        let fleet = catalog::fleet(sql)?;
        let keys = sealed::found(before, secret_key)?;
        sealed::open_signing_by(&keys, fleet.server_id, &fleet.signing_key)?;
        let key = |fleet, sealed: &[u8]| sealed::open_signing_by(&keys, fleet, sealed);
        Ok(check_tables(sql, &Kind { is_newest: true, has_head: true, audit_keys: &keys, key: &key }, |_| ()))
    });
    checked.map_err(|fault| fault.while_doing("check the database", &name))
}
