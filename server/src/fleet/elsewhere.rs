//! Proxies as the other servers on the database see them.
//!
//! In: what they wrote, and which of them are there. Out: whether a proxy has a stream with one of them, and what it last said
//! to anybody. Never: takes the word of another server for a proxy that spoke to this one later.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Fleet, lock};
use crate::store::{OthersStream, ProxyStatus};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// The servers that have a stream of a proxy.
    streams: Mutex<HashMap<Uuid, HashSet<Uuid>>>,
    /// The servers that are there.
    there: Mutex<HashSet<Uuid>>,
}

impl Fleet {
    /// Notes which other servers are there.
    pub fn others_are(&self, there: HashSet<Uuid>) {
        *lock(&self.inner.elsewhere.there) = there;
    }

    /// Takes what other servers wrote.
    pub fn merge(&self, statuses: Vec<ProxyStatus>, streams: Vec<OthersStream>) {
        for status in statuses {
            let entry = self.entry(status.proxy);
            let mut known = lock(&entry.status);
            if status.last_seen >= known.last_seen {
                *known = status;
            }
        }
        let mut known = lock(&self.inner.elsewhere.streams);
        for OthersStream { proxy, replica, is_open } in streams {
            let of_proxy = known.entry(proxy).or_default();
            if is_open {
                of_proxy.insert(replica);
            } else {
                of_proxy.remove(&replica);
            }
        }
        known.retain(|_, replicas| !replicas.is_empty());
    }

    /// Whether a proxy has a stream with another server.
    pub(super) fn is_elsewhere(&self, proxy: Uuid) -> bool {
        let streams = lock(&self.inner.elsewhere.streams);
        let Some(replicas) = streams.get(&proxy) else { return false };
        let there = lock(&self.inner.elsewhere.there);
        replicas.iter().any(|replica| there.contains(replica))
    }

    /// For how long a proxy that has no stream was heard by nobody: by this server since `absent_since`, and by others when
    /// it was seen last.
    pub(super) fn absent_for(&self, absent_since: Instant, status: &ProxyStatus) -> Duration {
        let here = absent_since.elapsed();
        let seen = status.last_seen.and_then(|seen| self.inner.clock.now().duration_since(seen).ok());
        seen.map_or(here, |seen| here.min(seen))
    }
}
