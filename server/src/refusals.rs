//! Calls that were refused: counted at once, and noted in the audit log, one row per reason and source a minute.
//!
//! In: a reason and where it came from, through a bounded queue. Out: metrics, and audit rows.
//! Always: a flood of refusals costs a bounded number of rows. Never: holds up the call that is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::Clock;
use serde_json::json;
use tokio::sync::mpsc;

use crate::audit::{Entry, unix_ms};
use crate::metrics::Metrics;
use crate::store::Store;

/// Refusals that may wait to be counted into rows; those beyond are in the metrics only.
const QUEUE: usize = 1_024;
/// Sources that get rows of their own in one minute; the rest share one.
const MAX_SOURCES: usize = 256;
/// What a row covers.
const PERIOD: Duration = Duration::from_secs(60);

/// Where refusals are told. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Refusals {
    queue: mpsc::Sender<(&'static str, String)>,
    metrics: Arc<Metrics>,
}

/// The other end: writes the rows.
#[derive(Debug)]
pub struct RefusalLog {
    queue: mpsc::Receiver<(&'static str, String)>,
    store: Store,
    clock: Clock,
}

impl Refusals {
    /// Makes both ends.
    pub fn new(store: Store, metrics: Arc<Metrics>, clock: Clock) -> (Refusals, RefusalLog) {
        let (tx, rx) = mpsc::channel(QUEUE);
        (Refusals { queue: tx, metrics }, RefusalLog { queue: rx, store, clock })
    }

    /// Tells of one refused call: why, and who was refused (an address or a proxy, never a secret).
    pub fn note(&self, reason: &'static str, source: String) {
        self.metrics.refused(reason);
        // A full queue means that rows are being coalesced already.
        let _ = self.queue.try_send((reason, source));
    }
}

impl RefusalLog {
    /// Writes rows each minute, until `stop`; then once more.
    pub async fn write(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.tick().await;
        let mut counts: HashMap<(&'static str, String), u64> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => self.append(&mut counts).await,
                Some((reason, source)) = self.queue.recv() => {
                    let is_known = counts.contains_key(&(reason, source.clone()));
                    let source = if is_known || counts.len() < MAX_SOURCES { source } else { "others".to_owned() };
                    *counts.entry((reason, source)).or_insert(0) += 1;
                }
                () = &mut stop => {
                    self.append(&mut counts).await;
                    return;
                }
            }
        }
    }

    async fn append(&self, counts: &mut HashMap<(&'static str, String), u64>) {
        if counts.is_empty() {
            return;
        }
        let at_ms = unix_ms(self.clock.now());
        let entries = counts.iter().map(|((reason, source), count)| Entry {
            at_ms,
            actor: source.clone(),
            action: "call.refuse",
            target: (*reason).to_owned(),
            detail: json!({ "count": count, "period_seconds": PERIOD.as_secs() }),
        });
        match self.store.append_audit(entries.collect()).await {
            Ok(()) => counts.clear(),
            // They stay and are counted into the rows of the next minute.
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "refusals are not noted yet");
            }
        }
    }
}
