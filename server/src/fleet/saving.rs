//! What proxies last said, on its way into the store.
//!
//! In: proxies whose rows are newer than the store's. Out: the rows, in groups, some seconds late at the most; where servers
//! share a database, which streams are this one's. Always: what could not be saved is tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Entry, Fleet, lock};
use crate::store::{ProxyStatus, Store, StoreError};

/// How long what a proxy said may wait before it is written.
const SAVE_INTERVAL: Duration = Duration::from_secs(2);

/// How many rows one transaction has: some 2 ms of work.
const SAVED_AT_ONCE: usize = 256;

/// A proxy's row, and its stream, as they are to be saved.
struct Unsaved {
    entry: Arc<Entry>,
    status: ProxyStatus,
    stream: u64,
    opened_at: Instant,
}

impl Fleet {
    /// Writes what is newer than the store, in groups, until `stop`; then once more.
    pub async fn save(self, store: Store, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(SAVE_INTERVAL);
        loop {
            let is_last = tokio::select! {
                biased;
                () = &mut stop => true,
                _ = ticks.tick() => false,
            };
            self.save_once(&store).await;
            if is_last {
                return;
            }
        }
    }

    async fn save_once(&self, store: &Store) {
        self.save_ahead(store).await;
        let unsaved = std::mem::take(&mut *lock(&self.inner.unsaved));
        let rows: Vec<Unsaved> = unsaved
            .iter()
            .filter_map(|id| self.existing(*id))
            .map(|entry| {
                // Before the row is read: what comes after that is named again.
                entry.is_unsaved.store(false, Ordering::Release);
                let status = lock(&entry.status).clone();
                let (stream, opened_at) = {
                    let presence = lock(&entry.presence);
                    (presence.stream, presence.since)
                };
                Unsaved { entry, status, stream, opened_at }
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        // A few in each transaction: changes and reports have their turn in between.
        let mut saved = Ok(());
        for group in rows.chunks(SAVED_AT_ONCE) {
            if saved.is_ok() {
                saved = save_group(store, group).await;
            }
        }
        if let Err(error) = saved {
            // They are tried again with the next group; the store itself says when it comes and goes.
            tracing::debug!(error = &error as &dyn std::error::Error, "sync states are not saved yet");
            for proxy in unsaved {
                if let Some(entry) = self.existing(proxy) {
                    self.is_newer(proxy, &entry);
                }
            }
        }
    }
}

async fn save_group(store: &Store, group: &[Unsaved]) -> Result<(), StoreError> {
    store.save_statuses(group.iter().map(|one| one.status.clone()).collect()).await?;
    if !store.is_shared() {
        return Ok(());
    }
    let is_news = |one: &&Unsaved| one.entry.told_stream.load(Ordering::Acquire) != one.stream;
    let news: Vec<&Unsaved> = group.iter().filter(is_news).collect();
    if news.is_empty() {
        return Ok(());
    }
    let age = |one: &&Unsaved| (one.stream != 0).then(|| one.opened_at.elapsed());
    store.save_streams(news.iter().map(|one| (one.status.proxy, age(one))).collect()).await?;
    news.iter().for_each(|one| one.entry.told_stream.store(one.stream, Ordering::Release));
    Ok(())
}
