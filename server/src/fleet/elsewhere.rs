//! Proxies as the other servers on the database see them.
//!
//! In: what they wrote, and which of them are there. Out: whether a proxy has a stream with one of them, and what it last said
//! to anybody. Never: takes the word of another server for a proxy that spoke to this one later.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Fleet, lock};
use crate::store::{OthersStream, ProxyStatus};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// The server that has the stream of a proxy, where it is another one.
    streams: Mutex<HashMap<Uuid, Uuid>>,
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
        for OthersStream { proxy, replica } in streams {
            match replica {
                Some(replica) => known.insert(proxy, replica),
                None => known.remove(&proxy),
            };
        }
    }

    /// Ends the streams of proxies that have opened one with another server since: a proxy has one stream, the newest.
    pub fn taken_over(&self, proxies: &[Uuid]) {
        for entry in proxies.iter().filter_map(|proxy| self.existing(*proxy)) {
            let mut presence = lock(&entry.presence);
            // One that the database does not know yet is newer still.
            if presence.stream != 0 && presence.stream == entry.told_stream.load(Ordering::Acquire) {
                presence.turn_to(0);
                presence.ring();
            }
        }
    }

    /// Whether a proxy has a stream with another server.
    pub(super) fn is_elsewhere(&self, proxy: Uuid) -> bool {
        let streams = lock(&self.inner.elsewhere.streams);
        let there = lock(&self.inner.elsewhere.there);
        streams.get(&proxy).is_some_and(|replica| there.contains(replica))
    }

    /// For how long a proxy that has no stream was heard by nobody: by this server since `absent_since`, and by others when
    /// it was seen last.
    pub(super) fn absent_for(&self, absent_since: Instant, status: &ProxyStatus) -> Duration {
        let here = absent_since.elapsed();
        let seen = status.last_seen.and_then(|seen| self.inner.clock.now().duration_since(seen).ok());
        seen.map_or(here, |seen| here.min(seen))
    }
}
