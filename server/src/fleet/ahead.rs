//! Proxies that are ahead: they hold a list that this database never made, so it is older than the fleet.
//!
//! It comes about when an old copy of the database is put back. A list that such a proxy would be sent is older than
//! what it has, or only seems newer; so it is sent none, and keeps what it has, until a new epoch begins.
//! In: positions that proxies say they hold, beside the newest list that they would be sent. Out: who is ahead.
//! Always: what was noticed stays until the epoch ends, also when the database's own revision has overtaken it, and over
//! a restart. Never: what one proxy says keeps a list from another.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pulse_proto::Position;
use uuid::Uuid;

use super::{Fleet, lock};
use crate::registry::Registry;
use crate::store::{Ahead, Store};

/// What is known of proxies that are ahead.
#[derive(Debug, Default)]
pub(super) struct AheadProxies {
    noticed: Mutex<HashMap<Uuid, Ahead>>,
    unsaved: Mutex<HashSet<Uuid>>,
    /// Whether there is any, of whatever epoch: a push to many streams then takes no lock.
    is_any: AtomicBool,
    /// Whether the log has the beginning of it, and not the end.
    is_told: AtomicBool,
}

impl Fleet {
    /// Takes what the store has of proxies that are ahead.
    pub fn load_ahead(&self, stored: impl IntoIterator<Item = Ahead>) {
        let mut noticed = lock(&self.inner.ahead.noticed);
        noticed.extend(stored.into_iter().map(|ahead| (ahead.proxy, ahead)));
        self.inner.ahead.is_any.store(!noticed.is_empty(), Ordering::Release);
    }

    /// Takes what other servers on the database noticed: they must not push to these proxies either. Out: those that were not
    /// known here.
    pub fn hear_of_ahead(&self, noticed_elsewhere: Vec<Ahead>) -> Vec<Uuid> {
        if noticed_elsewhere.is_empty() {
            return Vec::new();
        }
        let mut noticed = lock(&self.inner.ahead.noticed);
        let mut new = Vec::new();
        for ahead in noticed_elsewhere {
            match noticed.get_mut(&ahead.proxy) {
                Some(known) if known.noticed_epoch >= ahead.noticed_epoch => {
                    known.position = known.position.max(ahead.position);
                }
                _ => {
                    noticed.insert(ahead.proxy, ahead);
                    new.push(ahead.proxy);
                }
            }
        }
        self.inner.ahead.is_any.store(true, Ordering::Release);
        new
    }

    /// Compares what a proxy says it holds with the newest list of its scope: in one history of the database a proxy
    /// never has more. Says whether it is ahead and was not known to be.
    ///
    /// The newest list stands in its place before anybody gets it, so a proxy that is quick is not taken for one that
    /// is ahead.
    pub fn notice(&self, proxy: Uuid, held: Position, newest: Position) -> bool {
        if held <= newest {
            return false;
        }
        let mut noticed = lock(&self.inner.ahead.noticed);
        match noticed.get_mut(&proxy) {
            Some(known) if known.noticed_epoch == newest.epoch => {
                // It is not written again: a proxy could say another number with each call.
                known.position = known.position.max(held);
                return false;
            }
            _ => {}
        }
        let noticed_at = self.inner.clock.now();
        let ahead = Ahead { proxy, position: held, noticed_epoch: newest.epoch, noticed_at };
        noticed.insert(proxy, ahead);
        self.inner.ahead.is_any.store(true, Ordering::Release);
        lock(&self.inner.ahead.unsaved).insert(proxy);
        tracing::warn!(%proxy, epoch = held.epoch, revision = held.revision, newest_epoch = newest.epoch,
            newest_revision = newest.revision, "a proxy holds a list that this database never made; it is sent none");
        true
    }

    /// What a proxy holds that this database never made, in the present epoch.
    pub fn ahead_of(&self, proxy: Uuid, epoch: u64) -> Option<Ahead> {
        if !self.inner.ahead.is_any.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.inner.ahead.noticed).get(&proxy).filter(|ahead| ahead.noticed_epoch == epoch).copied()
    }

    /// The active proxies that are ahead, the first noticed first. A revoked or removed one reads nothing, and counts
    /// no more. Not empty: the database is older than the fleet.
    pub fn ahead(&self, registry: &Registry, epoch: u64) -> Vec<Ahead> {
        let noticed = lock(&self.inner.ahead.noticed);
        let is_active = |ahead: &&Ahead| registry.proxy(ahead.proxy).is_some_and(|proxy| proxy.is_active());
        let of_now = noticed.values().filter(|ahead| ahead.noticed_epoch == epoch);
        let mut all: Vec<Ahead> = of_now.filter(is_active).copied().collect();
        all.sort_by_key(|ahead| (ahead.noticed_at, ahead.proxy));
        all
    }

    /// The highest epoch of a list that a proxy was noticed to hold, of those that are not above `at_most`.
    pub fn highest_epoch_ahead(&self, at_most: u64) -> Option<u64> {
        let noticed = lock(&self.inner.ahead.noticed);
        noticed.values().map(|ahead| ahead.position.epoch).filter(|epoch| *epoch <= at_most).max()
    }

    /// Says in the log when the database begins to be older than the fleet, and when that ends.
    pub fn tell_ahead(&self, registry: &Registry, epoch: u64) {
        let ahead = self.ahead(registry, epoch);
        let was_told = self.inner.ahead.is_told.swap(!ahead.is_empty(), Ordering::Relaxed);
        match (was_told, ahead.is_empty()) {
            (false, false) => tracing::error!(
                proxies = ahead.len(),
                epoch,
                "the database is older than the fleet: was an old copy put back? `pulse epoch new` makes its lists newer \
                 than all that proxies hold"
            ),
            (true, true) => tracing::info!(epoch, "the database is no longer older than the fleet"),
            _ => {}
        }
    }

    /// Writes what is newer than the store.
    pub async fn save_ahead(&self, store: &Store) {
        let unsaved = std::mem::take(&mut *lock(&self.inner.ahead.unsaved));
        if unsaved.is_empty() {
            return;
        }
        let rows: Vec<Ahead> = {
            let noticed = lock(&self.inner.ahead.noticed);
            unsaved.iter().filter_map(|proxy| noticed.get(proxy).copied()).collect()
        };
        if let Err(error) = store.save_ahead(rows).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "proxies ahead are not saved yet");
            lock(&self.inner.ahead.unsaved).extend(unsaved);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pulse_proto::Clock;

    use super::*;

    #[tokio::test]
    async fn what_was_noticed_stays_until_the_epoch_ends_however_far_the_database_comes() {
        let fleet = Fleet::new(Duration::from_secs(60), [], Clock::system());
        let (proxy, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let at = |epoch, revision| Position { epoch, revision };
        assert!(!fleet.notice(proxy, at(5, 3), at(5, 3)), "the newest is not ahead");
        assert!(!fleet.notice(proxy, at(4, 9), at(5, 3)), "an earlier epoch is not either");
        assert!(fleet.ahead_of(proxy, 5).is_none() && fleet.highest_epoch_ahead(9).is_none());
        assert!(fleet.notice(proxy, at(5, 4), at(5, 3)));
        assert!(!fleet.notice(proxy, at(5, 8), at(5, 3)), "it is known");
        assert!(!fleet.notice(proxy, at(5, 2), at(5, 20)));
        assert_eq!(fleet.ahead_of(proxy, 5).map(|ahead| ahead.position), Some(at(5, 8)));
        assert!(fleet.ahead_of(other, 5).is_none(), "nobody else is concerned");
        assert!(fleet.ahead_of(proxy, 6).is_none(), "a new epoch ends it");
        assert!(fleet.notice(other, at(7, 1), at(6, 30)), "a later epoch than ours is ahead too");
    }
}
