//! [`News`]: what each change changed, for those who follow the fleet.
//!
//! In: changes that are in place, of this server and of others. Out: each of them, in order, to the one who follows.
//! Always: bounded: what comes faster than it is taken is told as one change that may concern everything. Never: holds a change up.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pulse_proto::Scope;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::store::{Change, Newer};

/// How many changes may wait to be taken: what a task of its own does at once.
const MOST_WAITING: usize = 256;

/// What one change changed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Changed {
    /// The revision that shows it.
    pub revision: u64,
    /// Instances.
    pub instances: BTreeSet<Uuid>,
    /// Proxies, or their tokens.
    pub proxies: BTreeSet<Uuid>,
    /// Scopes whose list is new.
    pub lists: BTreeSet<Scope>,
    /// Whether there was something of join tokens, or of the window for hosts without one.
    pub is_joining: bool,
    /// Whether there was something of admins, log-ins or API tokens.
    pub is_access: bool,
    /// Whether it concerns more than is named here.
    pub is_everything: bool,
}

impl Changed {
    /// What these rows change. Proxies and lists are added by whoever puts them in place.
    pub(super) fn by(changes: &[Change]) -> Changed {
        let mut changed = Changed::default();
        for change in changes {
            match change {
                Change::Instance(instance) => {
                    changed.instances.insert(instance.id);
                }
                // They are among those that are concerned.
                Change::Proxy(_) | Change::Token(_) | Change::DropToken(_) => {}
                Change::JoinToken(_) | Change::JoinWindow(_) => changed.is_joining = true,
                Change::Admin(_) | Change::Credential(_) => changed.is_access = true,
                Change::Epoch(_) => changed.is_everything = true,
                // Nothing that is shown.
                Change::SealingKey(_) => {}
            }
        }
        changed
    }

    /// What others changed.
    pub(super) fn by_others(newer: &Newer, epoch: u64) -> Changed {
        Changed {
            instances: newer.instances.iter().map(|instance| instance.id).collect(),
            is_joining: !newer.join_tokens.is_empty() || !newer.join_windows.is_empty(),
            is_access: !newer.admins.is_empty() || !newer.credentials.is_empty(),
            is_everything: newer.epoch != epoch,
            ..Changed::default()
        }
    }
}

/// See the module.
#[derive(Default, Debug)]
pub struct News {
    is_followed: AtomicBool,
    waiting: Mutex<Vec<Changed>>,
    rung: Notify,
}

impl News {
    /// Whether somebody follows.
    pub(super) fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Acquire)
    }

    /// Tells of a change that is in place.
    pub(super) fn tell(&self, changed: Changed) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST_WAITING {
            waiting.clear();
            waiting.push(Changed { revision: changed.revision, is_everything: true, ..Changed::default() });
        } else {
            waiting.push(changed);
        }
        drop(waiting);
        self.rung.notify_one();
    }

    /// From now on somebody follows, or nobody does any more.
    pub fn follow(&self, is_followed: bool) {
        self.is_followed.store(is_followed, Ordering::Release);
        if !is_followed {
            drop(self.take());
        }
    }

    /// Waits until there is something to take.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }

    /// What was told since the last call, in order.
    pub fn take(&self) -> Vec<Changed> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_in_time_becomes_one_change_of_everything() {
        let news = News::default();
        for revision in 1..=300 {
            news.tell(Changed { revision, ..Changed::default() });
        }
        let taken = news.take();
        assert!(taken[0].is_everything && taken[0].revision == 257, "{:?}", taken[0]);
        assert_eq!(taken.last().map(|last| (last.revision, last.is_everything)), Some((300, false)));
        assert_eq!(taken.len(), 44);
    }
}
