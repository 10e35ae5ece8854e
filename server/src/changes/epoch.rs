//! A new epoch: the way out when proxies hold lists that this database never made.
//!
//! A proxy compares (epoch, revision), so that a list of a new epoch is newer than every list before it, whatever its
//! revision. Content and hashes of the lists stay.

use std::time::Duration;

use serde_json::json;

use super::{ChangeError, Changes, Note};
use crate::audit::{Actor, unix_ms};

/// How far ahead of this server's clock a proxy's epoch may lie and still count: the clock that made it may have been
/// wrong. A later one is no server's, and must not carry the fleet's epoch away.
const MAX_CLOCK_AHEAD: Duration = Duration::from_hours(24);

impl Changes {
    /// Begins a new epoch, and signs every list anew. Returns it: Unix milliseconds, above the one before and above
    /// those of lists that proxies hold.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] if there is no larger number, [`ChangeError::Store`].
    pub async fn begin_epoch(&self, actor: &Actor) -> Result<u64, ChangeError> {
        self.apply(actor, |draft| {
            let before = draft.before.epoch;
            let latest = unix_ms(draft.at + MAX_CLOCK_AHEAD);
            let held = self.fleet.highest_epoch_ahead(latest).unwrap_or_default();
            let epoch = before.max(held).checked_add(1).map(|least| least.max(unix_ms(draft.at)));
            let epoch = epoch.filter(|epoch| i64::try_from(*epoch).is_ok()).ok_or(ChangeError::Invalid {
                field: "epoch",
                rule: format!("there is none behind {before}; restore a backup with an earlier one"),
            })?;
            draft.begin_epoch(epoch);
            Ok((epoch, Note { action: "epoch.new", target: "fleet".to_owned(), detail: json!({}) }))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use pulse_proto::{Clock, Node, Position};
    use uuid::Uuid;

    use super::*;
    use crate::changes::NewInstance;
    use crate::store::{Retention, Store};

    const BEGUN_MS: u64 = 1_767_323_045_006;

    fn at(ms: u64) -> Clock {
        Clock::driven(move || SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }

    async fn open(folder: &Path, clock: Clock) -> (Store, Changes) {
        let retention = Retention { max_bytes: u64::MAX, max_age: Duration::MAX };
        let store = Store::open(folder, retention, clock.clone()).await.expect("the store opens");
        let changes = Changes::alone(&store, &clock).await.expect("it loads");
        (store, changes)
    }

    #[tokio::test]
    async fn every_list_gets_the_new_epoch_and_keeps_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let (store, changes) = open(folder.path(), at(BEGUN_MS)).await;
        for name in ["home", "lab"] {
            let node = Node::new(name, "").unwrap();
            changes.add_instance(&Actor::SERVER, NewInstance::typed(name, vec![node])).await.unwrap();
        }
        changes.remove_instance(&Actor::SERVER, "lab", false).await.unwrap();
        let lists = |changes: &Changes| {
            let newest = |scope| changes.lists.newest(scope).expect("it has a list").signed.clone();
            changes.lists.scopes().into_iter().map(newest).collect::<Vec<_>>()
        };
        let before = lists(&changes);
        let epoch = changes.begin_epoch(&Actor::admin(0)).await.unwrap();
        assert_eq!(epoch, BEGUN_MS + 1, "the clock stands still");
        let after = lists(&changes);
        assert_eq!(after.len(), 2, "those of removed instances too");
        for list in &after {
            assert_eq!(list.position, Position { epoch, revision: 4 });
            assert!(before.iter().any(|old| old.allowlist == list.allowlist && old.scope == list.scope));
        }
        let loaded = store.load().await.unwrap();
        assert_eq!((loaded.epoch, loaded.revision), (epoch, 4));
        assert!(loaded.lists.iter().all(|list| list.position.epoch == epoch));
        let row = store.audit_tail(1).await.unwrap().remove(0);
        assert_eq!((row.action.as_str(), row.actor.as_str(), row.revision), ("epoch.new", "admin:uid=0", 4));
    }

    #[tokio::test]
    async fn a_new_epoch_is_above_all_that_are_held_but_follows_no_lie() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, changes) = open(folder.path(), at(BEGUN_MS)).await;
        let newest = Position { epoch: BEGUN_MS, revision: 0 };
        let (honest, liar) = (Uuid::from_u128(1), Uuid::from_u128(2));
        // An hour ahead: an earlier clock was wrong.
        let held = BEGUN_MS + 3_600_000;
        changes.fleet.notice(honest, Position { epoch: held, revision: 3 }, newest);
        let epoch = changes.begin_epoch(&Actor::SERVER).await.unwrap();
        assert_eq!(epoch, held + 1);
        let newest = Position { epoch, revision: 1 };
        changes.fleet.notice(liar, Position { epoch: i64::MAX as u64, revision: 1 }, newest);
        assert!(changes.fleet.ahead_of(liar, epoch).is_some());
        let next = changes.begin_epoch(&Actor::SERVER).await.unwrap();
        assert_eq!(next, epoch + 1, "nobody carries it away");
        assert!(changes.fleet.ahead_of(liar, next).is_none(), "until it says so again");
        let (newest, held) = (Position { epoch: next, revision: 2 }, next + 1_000);
        changes.fleet.notice(liar, Position { epoch: i64::MAX as u64, revision: 1 }, newest);
        changes.fleet.notice(honest, Position { epoch: held, revision: 3 }, newest);
        let last = changes.begin_epoch(&Actor::SERVER).await.unwrap();
        assert_eq!(last, held + 1, "a lie hides nobody who is ahead");
    }

    #[tokio::test]
    async fn a_clock_that_went_back_does_not_make_an_epoch_older() {
        let folder = tempfile::tempdir().unwrap();
        let (store, changes) = open(folder.path(), at(BEGUN_MS)).await;
        drop(changes);
        store.close().await.unwrap();
        drop(store);
        let (_store, changes) = open(folder.path(), at(0)).await;
        assert_eq!(changes.begin_epoch(&Actor::SERVER).await.unwrap(), BEGUN_MS + 1);
    }
}
