//! The authority's key, which all servers on a database share: in its one row, sealed under the key that each server is given.
//!
//! Always: whoever comes first founds, and those after it take what is there. Never: writes a key in the open.

use std::path::Path;

use pulse_proto::Clock;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{Address, schema};
use crate::config;
use crate::sealing::SealingKey;
use crate::store::StoreError;
use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sealed;
use crate::store::engine::sql::{Sql, row, values};

/// The authority's key, in PEM: the one that is there, or else this one from here on. Until the transaction ends nobody else
/// founds one.
pub(in crate::store) fn share(database: &dyn Sql, sealing: &SealingKey, own: &str) -> Result<String> {
    let sql = "SELECT server_id, authority_key FROM fleet FOR UPDATE";
    let found = row(database, "fleet", sql, &[], |cells| {
        Ok((cells.parsed::<Uuid>("server_id")?, cells.plain::<Option<Vec<u8>>>("authority_key")?))
    })?;
    let (fleet, key) = found.ok_or_else(|| Fault::Unreadable("table fleet has no row".to_owned()))?;
    let place = sealed::place("authority_key", fleet);
    let Some(key) = key else {
        let sealed = sealing.seal(&place, own.as_bytes()).map_err(Fault::Sealed)?;
        database.execute("UPDATE fleet SET authority_key = $1", &values![sealed])?;
        return Ok(own.to_owned());
    };
    let key = sealing.open_sealed(&place, &key).map_err(Fault::Sealed)?;
    String::from_utf8(key).map_err(|_| Fault::Unreadable("table fleet: authority_key is no text".to_owned()))
}

/// What the authority's key in PEM is to be, on a database that servers share: the one that is there, or `own` from here on.
/// `secret_key` is the file of the key under which it is sealed.
/// Blocks, and opens a connection of its own.
///
/// # Errors
/// [`StoreError`], as [`crate::store::Store::connect`].
pub fn share_authority(
    database: &config::Database,
    secret_key: &Path,
    own: &str,
    runtime: &Handle,
    clock: &Clock,
) -> std::result::Result<String, StoreError> {
    let address = Address::of(database)?;
    let name = address.name.clone();
    let (mut connection, sealing) = schema::open_writer(address, runtime.clone(), secret_key, clock)?;
    let shared = connection.transact(|sql| share(sql, &sealing, own));
    let (key, _) = shared.map_err(|fault| fault.while_doing("share the authority's key", &name))?;
    Ok(key)
}
