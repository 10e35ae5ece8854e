//! The other servers on the same database: who they are, and what they know of proxies and temperatures.
//!
//! In: what each server writes. Out: all servers, as they were heard of last; the fleet as all of them see it.
//! Always: who is silent counts as gone, by the database's clock. Never: needed to push a list, or to take a report.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::{Instant, interval};
use uuid::Uuid;

use crate::changes::Changes;
use crate::fleet::Fleet;
use crate::readings::Readings;
use crate::shutdown::Drain;
use crate::store::{Beat, Heard, Replica, Store, StoreError};

pub use crate::store::GONE;

/// How often a server says that it is there.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);

/// How old what is known of the others may be when somebody looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// See the module. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Replicas {
    store: Store,
    changes: Changes,
    fleet: Fleet,
    readings: Readings,
    name: Arc<str>,
    all: Arc<ArcSwap<Vec<Replica>>>,
    looked: Arc<Mutex<Looked>>,
    /// The newest revision of the fleet that was heard of.
    newest: Arc<AtomicU64>,
}

/// How far what others wrote was read.
#[derive(Debug, Default)]
struct Looked {
    at: Option<Instant>,
    /// What was written before is known.
    since: i64,
}

impl Replicas {
    /// Of a server by this name.
    pub fn new(store: Store, changes: Changes, fleet: Fleet, readings: Readings, name: &str) -> Replicas {
        let (all, looked, newest) = Default::default();
        Replicas { store, changes, fleet, readings, name: name.into(), all, looked, newest }
    }

    /// The newest revision of the fleet that was heard of: by this server, or from the database a moment ago.
    pub fn newest_revision(&self) -> u64 {
        self.newest.load(Ordering::Relaxed).max(self.changes.catalog().revision)
    }

    /// All servers on the database, this one first. Empty: the database is this one's alone, or was not reached yet.
    pub fn all(&self) -> Arc<Vec<Replica>> {
        self.all.load_full()
    }

    /// Says every few seconds that this server is there, until it goes down.
    pub async fn keep_beating(self, drain: Drain) {
        let mut ticks = interval(BEAT_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.started() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.beat().await {
                // The store itself says when it can no longer be written, and when it can again.
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the other servers are not told of this one"
                );
            }
        }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let beat = Beat {
            name: self.name.as_ref().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.changes.catalog().revision,
            streams: self.fleet.connected() as u64,
        };
        let Heard { replicas: all, taken, revision } = self.store.beat(beat).await?;
        self.newest.store(revision, Ordering::Relaxed);
        self.fleet.taken_over(&taken);
        let is_there = |replica: &&Replica| replica.silent_for < GONE;
        let there: HashSet<Uuid> = all.iter().skip(1).filter(is_there).map(|replica| replica.id).collect();
        self.fleet.others_are(there);
        self.all.store(Arc::new(all));
        Ok(())
    }

    /// Reads what others wrote of proxies and temperatures, unless that was done a moment ago.
    pub async fn look_around(&self) {
        if !self.store.is_shared() {
            return;
        }
        let mut looked = self.looked.lock().await;
        if looked.at.is_some_and(|at| at.elapsed() < LOOK_INTERVAL) {
            return;
        }
        match self.store.others(looked.since).await {
            Ok(others) => {
                looked.since = others.until;
                self.fleet.merge(others.statuses, others.streams);
                self.readings.merge(others.newest);
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "what other servers know is not known here"
                );
            }
        }
        // After an error too: who looks is not to wait for the database each time.
        looked.at = Some(Instant::now());
    }
}
