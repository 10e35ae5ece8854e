//! Leave to do work that one server at a time does: none is needed where no other server is, else a lease.

use std::time::Duration;

use uuid::Uuid;

use super::fault::Result;
use super::sql::Sql;
use crate::store::Leave;
use crate::store::postgres::leases;

/// Takes or renews a lease. `None`: another server has it.
pub(super) fn take(
    database: &dyn Sql,
    work: &'static str,
    replica: Uuid,
    life: Duration,
) -> Result<Option<Leave>> {
    let fence = leases::take(database, work, replica, life)?;
    Ok(fence.map(|fence| Leave::Lease { work, replica, fence }))
}

/// Looks whether it is good still. The caller's transaction keeps it so.
pub(super) fn check(leave: Leave, database: &dyn Sql) -> Result<()> {
    match leave {
        Leave::Alone => Ok(()),
        Leave::Lease { work, replica, fence } => leases::hold(database, work, replica, fence),
    }
}
