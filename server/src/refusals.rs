//! Calls that were refused: counted at once, and noted in the audit log, one row per reason, source and call a minute.
//!
//! In: a reason and where it came from, through a bounded queue. Out: metrics, and audit rows.
//! Always: a flood of refusals costs a bounded number of rows. Never: holds up the call that is refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::Clock;
use serde_json::json;
use tokio::sync::mpsc;

use crate::audit::{Actor, Entry, Outcome};
use crate::metrics::Metrics;
use crate::store::Store;

/// Refusals that may wait to be counted into rows; those beyond are in the metrics only.
const QUEUE: usize = 1_024;
/// Sources and calls that get rows of their own in one minute; the rest share one for each reason.
const MAX_ROWS: usize = 64;
/// What a row covers.
const PERIOD: Duration = Duration::from_secs(60);
/// How refusals of callers who are known are counted; their reasons are many.
const OF_KNOWN: &str = "ADMIN_REQUEST";

/// What refusals of one row have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Refused {
    /// Why.
    reason: Cow<'static, str>,
    /// Who: an address or a proxy, never a secret; or the actor.
    source: String,
    /// From which address, where that is another machine.
    from: Option<IpAddr>,
    /// What was asked for; empty: a proxy's call.
    call: String,
}

/// Whom a refusal concerns of whom no more is known than an address.
pub fn source(from: Option<IpAddr>) -> String {
    from.map_or_else(|| "local".to_owned(), |from| from.to_string())
}

/// Where refusals are told. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Refusals {
    queue: mpsc::Sender<Refused>,
    metrics: Arc<Metrics>,
}

/// The other end: writes the rows.
#[derive(Debug)]
pub struct RefusalLog {
    queue: mpsc::Receiver<Refused>,
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
        let from = source.parse().ok();
        self.tell(Refused { reason: Cow::Borrowed(reason), source, from, call: String::new() });
    }

    /// Tells that somebody did not get in: why, from where, and as which admin, if it is the name of one.
    pub fn note_sign_in(&self, reason: &'static str, from: Option<IpAddr>, admin: Option<&str>) {
        self.metrics.refused(reason);
        let call = admin.map(|admin| format!("log in as {admin}")).unwrap_or_default();
        self.tell(Refused { reason: Cow::Borrowed(reason), source: source(from), from, call });
    }

    /// Tells of something that a known caller asked for and did not get: why, in a word that programs may branch on; and what,
    /// such as `DELETE /instances/{name}`, without what the caller put into it.
    pub fn note_known(&self, reason: String, actor: &Actor, call: String) {
        self.metrics.refused(OF_KNOWN);
        self.tell(Refused { reason: Cow::Owned(reason), source: actor.to_string(), from: actor.from, call });
    }

    fn tell(&self, refused: Refused) {
        // A full queue means that rows are being coalesced already.
        let _ = self.queue.try_send(refused);
    }
}

impl RefusalLog {
    /// Writes rows each minute, until `stop`; then once more.
    pub async fn write(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.tick().await;
        let mut counts: HashMap<Refused, u64> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => self.append(&mut counts).await,
                Some(refused) = self.queue.recv() => count(&mut counts, refused),
                () = &mut stop => {
                    while let Ok(refused) = self.queue.try_recv() {
                        count(&mut counts, refused);
                    }
                    self.append(&mut counts).await;
                    return;
                }
            }
        }
    }

    async fn append(&self, counts: &mut HashMap<Refused, u64>) {
        if counts.is_empty() {
            return;
        }
        let now = self.clock.now();
        let entries = counts.iter().map(|(refused, count)| {
            let Refused { reason, source, from, call } = refused.clone();
            let mut detail = json!({ "count": count, "period_seconds": PERIOD.as_secs() });
            if !call.is_empty() {
                detail["call"] = json!(call);
            }
            Entry::of_source(now, source, from, "call.refuse", reason.into_owned(), Outcome::Refused, detail)
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

/// Counts one. Those for which there is no row of their own any more share one for each of the reasons that proxies are told, and
/// one for all others.
fn count(counts: &mut HashMap<Refused, u64>, mut refused: Refused) {
    if !counts.contains_key(&refused) && counts.len() >= MAX_ROWS {
        let reason = match refused.reason {
            Cow::Borrowed(reason) => Cow::Borrowed(reason),
            Cow::Owned(_) => Cow::Borrowed(OF_KNOWN),
        };
        refused = Refused { reason, source: "others".to_owned(), from: None, call: String::new() };
    }
    *counts.entry(refused).or_insert(0) += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_a_bounded_number_of_rows_that_count_all_of_it() {
        let mut counts = HashMap::new();
        for n in 0..10_000_u32 {
            let refused = |reason, call: &str| {
                let (source, from) = (format!("source-{n}"), None);
                Refused { reason, source, from, call: call.to_owned() }
            };
            count(&mut counts, refused(Cow::Borrowed("UNKNOWN_TOKEN"), ""));
            count(&mut counts, refused(Cow::Owned(format!("REASON-{n}")), "POST /instances"));
        }
        assert_eq!(counts.len(), MAX_ROWS + 2);
        assert_eq!(counts.values().sum::<u64>(), 20_000);
    }
}
