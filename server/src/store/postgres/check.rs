//! Checks a database on PostgreSQL: what every database has. References are PostgreSQL's own care, and its pages are
//! `pg_amcheck`'s.
//!
//! Always: one view of all tables, while servers go on; nothing is written, and no table is made.

use std::path::Path;

use tokio::runtime::Handle;

use super::{Address, Connection, keys, schema};
use crate::config;
use crate::sealing::SealingKey;
use crate::store::engine::catalog;
use crate::store::engine::check::{Kind, check as check_tables};
use crate::store::engine::fault::Fault;
use crate::store::{Checked, StoreError};

/// Checks the database, whose keys are sealed under the one in the data folder or where the configuration says. Blocks.
///
/// # Errors
/// [`StoreError`] if it cannot be asked, is not of this version, or its keys cannot be opened.
pub fn check(data_dir: &Path, database: &config::Database, runtime: &Handle) -> Result<Checked, StoreError> {
    let address = Address::of(database)?;
    let name = address.name.clone();
    let sealing = SealingKey::open(&database.secret_key_file(data_dir))?;
    let mut connection = Connection::new(address, runtime.clone());
    let checked = connection.view(|sql| {
        if !schema::is_newest(sql)? {
            return Err(Fault::Unreadable("it is no database of this version of Pulse".to_owned()));
        }
        // Without its key nothing that is signed can be judged.
        let fleet = catalog::fleet(sql)?;
        keys::open_signing(&sealing, fleet.server_id, &fleet.signing_key)?;
        let key = |fleet, sealed: &[u8]| keys::open_signing(&sealing, fleet, sealed);
        Ok(check_tables(sql, &Kind { is_newest: true, has_head: true, key: &key }, |_| ()))
    });
    checked.map_err(|fault| fault.while_doing("check the database", &name))
}
