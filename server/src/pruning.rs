//! Old rows of the audit log go, as the configuration says.
//!
//! In: how much is kept. Out: batches that are removed, each with the row that says so. Always: one server at a time; few rows at a
//! time, so that no change waits for long. Never: begins for single rows.

use std::time::Duration;

use pulse_proto::Clock;
use tokio::time::sleep;

use crate::config::AuditRetention;
use crate::shutdown::Drain;
use crate::store::{Store, StoreError};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_hours(1);
/// Between two batches, so that others have their turn.
const PAUSE: Duration = Duration::from_millis(50);
/// The work, as the database knows it, and how long leave for it lasts.
const WORK: &str = "audit pruning";
const LEAVE: Duration = Duration::from_secs(180);

/// Removes what need not be kept, until the server goes down.
pub async fn keep_pruning(store: Store, keep: AuditRetention, clock: Clock, drain: Drain) {
    loop {
        let pruned = tokio::select! {
            pruned = prune(&store, keep, &clock) => pruned,
            () = drain.started() => return,
        };
        match pruned {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "old rows of the audit log could not be removed");
            }
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = drain.started() => return,
        }
    }
}

async fn prune(store: &Store, keep: AuditRetention, clock: &Clock) -> Result<(), StoreError> {
    let mut began = false;
    loop {
        // `None`: another server does it.
        let Some(leave) = store.leave(WORK, LEAVE).await? else { return Ok(()) };
        if !store.prune_audit(keep, clock.now(), leave, began).await? {
            return Ok(());
        }
        began = true;
        sleep(PAUSE).await;
    }
}
