//! The keys that all servers on a database share: the one that signs lists, and the authority's. Both are in its one row, sealed
//! under the key that each server is given.
//!
//! Always: whoever comes first founds, and those after it take what is there. Never: writes a key in the open.

use uuid::Uuid;

use crate::sealing::SealingKey;
use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sql::{Sql, row, values};

/// Seals the key that signs the lists of this fleet.
pub(in crate::store) fn seal_signing(sealing: &SealingKey, fleet: Uuid, key: &[u8]) -> Result<Vec<u8>> {
    sealing.seal(&place("signing_key", fleet), key).map_err(Fault::Sealed)
}

/// Opens the key that signs the lists of this fleet.
pub(in crate::store) fn open_signing(sealing: &SealingKey, fleet: Uuid, sealed: &[u8]) -> Result<Vec<u8>> {
    sealing.open_sealed(&place("signing_key", fleet), sealed).map_err(Fault::Sealed)
}

/// The authority's key, in PEM: the one that is there, or else this one from here on. Until the transaction ends nobody else
/// founds one.
pub(in crate::store) fn share_authority(
    database: &dyn Sql,
    sealing: &SealingKey,
    own: &str,
) -> Result<String> {
    let sql = "SELECT server_id, authority_key FROM fleet FOR UPDATE";
    let found = row(database, "fleet", sql, &[], |cells| {
        Ok((cells.parsed::<Uuid>("server_id")?, cells.plain::<Option<Vec<u8>>>("authority_key")?))
    })?;
    let (fleet, sealed) = found.ok_or_else(|| Fault::Unreadable("table fleet has no row".to_owned()))?;
    let place = place("authority_key", fleet);
    let Some(sealed) = sealed else {
        let sealed = sealing.seal(&place, own.as_bytes()).map_err(Fault::Sealed)?;
        database.execute("UPDATE fleet SET authority_key = $1", &values![sealed])?;
        return Ok(own.to_owned());
    };
    let key = sealing.open_sealed(&place, &sealed).map_err(Fault::Sealed)?;
    String::from_utf8(key).map_err(|_| Fault::Unreadable("table fleet: authority_key is no text".to_owned()))
}

/// Where a key belongs: of another fleet, or in another column, it does not open.
fn place(column: &str, fleet: Uuid) -> String {
    format!("fleet.{column} of {fleet}")
}
