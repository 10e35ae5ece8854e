//! Leases: work that one server at a time does, each with a number that only rises.
//!
//! In: who asks, and for what. Out: the number under which it may work. Always: time is the database's, so that no server's
//! clock counts; work under a lease looks at it in its own transaction and holds the row until that ends, so that a
//! server which was paused writes nothing under a lease that another one has by now.

use std::time::Duration;

use uuid::Uuid;

use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sql::{Sql, row, values};

/// How long one lasts. Its work is begun anew more often than that, and renews it.
const LIFE: Duration = Duration::from_secs(180);

/// Takes a lease that is free, or renews one that is held. Out: its number; `None`: another server has it.
pub(in crate::store) fn take(database: &dyn Sql, name: &'static str, holder: Uuid) -> Result<Option<i64>> {
    let sql = "INSERT INTO leases (name, holder, fence, ends_at)
               VALUES ($1, $2, 1, unix_ms() + $3)
               ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at,
                   fence = CASE WHEN leases.holder = excluded.holder THEN leases.fence ELSE leases.fence + 1 END
               WHERE leases.holder = excluded.holder OR leases.ends_at <= unix_ms()
               RETURNING fence";
    let life = i64::try_from(LIFE.as_millis()).unwrap_or(i64::MAX);
    row(database, "leases", sql, &values![name, holder, life], |cells| cells.plain("fence"))
}

/// Looks whether a lease is still held under this number, and keeps it from others until the transaction ends.
pub(in crate::store) fn hold(database: &dyn Sql, name: &'static str, holder: Uuid, fence: i64) -> Result<()> {
    let sql = "SELECT fence FROM leases WHERE name = $1 AND holder = $2 AND fence = $3 FOR UPDATE";
    match row(database, "leases", sql, &values![name, holder, fence], |cells| cells.plain::<i64>("fence"))? {
        Some(_) => Ok(()),
        None => Err(Fault::LeaseLost),
    }
}
