//! Asks Proxmox VE who is a member of each instance, again and again.
//!
//! In: the sources in the catalog. Out: a change for each instance whose members changed; for people, what became of asking.
//! Always: each instance has a task of its own, which asks one question at a time, so that one that hangs slows no other; where
//! several servers share the database, one of them asks. Never: lets doubt change a list.

mod members;
mod polls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::{Chance, Clock, Node};
use rustls::RootCertStore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::audit::Actor;
use crate::changes::{ChangeError, Changes, Taking, Told, WantedSource, place_of_secret};
use crate::inventory::{Facts, Instance, Source, Use};
use crate::metrics::{Metrics, PollResult};
use crate::pve::Doubt;
use crate::pve::address::PveUrl;
use crate::pve::certificate::{Fingerprint, Trust};
use crate::pve::client::{self, ApiToken};
use crate::pve::poll::{self, Unheard};
use crate::shutdown::Drain;
use crate::store::{Leave, Store, StoreError};
pub use members::nodes_of;
pub use polls::{Heard, Polls};

/// How often a source is asked if an admin does not say.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest interval.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The longest interval.
pub const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// A source that cannot be believed is asked less often, down to a sixth, but at least once a minute; or on its own interval, if
/// that is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_INTERVALS: u32 = 6;

/// An instance that is new, or asked otherwise from now on, is asked within this time. Who begins to ask all of them takes an interval
/// for it, so that they are not asked at one time.
const SOON: Duration = Duration::from_secs(1);

/// The lease of the server that asks, and how often it is renewed.
const WORK: &str = "polling";
const LEASE_LIFE: Duration = Duration::from_secs(15);
const LEASE_RENEWAL: Duration = Duration::from_secs(5);

/// Asks Proxmox VE. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Poller {
    store: Store,
    changes: Changes,
    polls: Polls,
    metrics: Arc<Metrics>,
    /// The system's authorities, read once.
    roots: Arc<RootCertStore>,
    clock: Clock,
    chance: Chance,
}

/// An instance that is asked, and the task that does.
struct Asked {
    source: Source,
    task: AbortHandle,
}

impl Poller {
    /// Of what it needs.
    #[must_use]
    pub fn new(
        store: Store,
        changes: Changes,
        polls: Polls,
        metrics: Arc<Metrics>,
        clock: Clock,
        chance: Chance,
    ) -> Poller {
        Poller { store, changes, polls, metrics, roots: Arc::new(system_roots()), clock, chance }
    }

    /// Asks all sources until the server goes down.
    pub async fn keep_polling(self, drain: Drain) {
        let mut revisions = self.changes.revisions();
        let (mut tasks, mut asked) = (JoinSet::new(), HashMap::new());
        let (mut leave, mut is_beginning) = (None, true);
        loop {
            let now = if self.is_needed() { self.leave().await } else { None };
            if now != leave {
                // Whoever goes on under an old lease would change nothing any more.
                tasks.shutdown().await;
                asked.clear();
                (leave, is_beginning) = (now, true);
            }
            if let Some(leave) = leave {
                self.follow_catalog(leave, is_beginning, &mut asked, &mut tasks);
                is_beginning = false;
            }
            self.polls.save(&self.store, self.clock.now()).await;
            tokio::select! {
                () = drain.started() => break,
                changed = revisions.changed() => if changed.is_err() { break },
                Some(Err(error)) = tasks.join_next(), if !tasks.is_empty() => {
                    if error.is_panic() {
                        tracing::error!(%error, "asking an instance panicked: a defect; it is begun anew");
                        tasks.shutdown().await;
                        asked.clear();
                    }
                }
                () = sleep(LEASE_RENEWAL) => {}
            }
        }
        tasks.shutdown().await;
        self.polls.save_all(&self.store).await;
    }

    /// Whether there is anybody to ask.
    fn is_needed(&self) -> bool {
        self.changes.catalog().inventory.present().any(|instance| instance.source.is_some())
    }

    /// Leave to ask; `None`: another server does, or the database cannot be asked who does.
    async fn leave(&self) -> Option<Leave> {
        match timeout(LEASE_RENEWAL, self.store.leave(WORK, LEASE_LIFE)).await {
            Ok(Ok(leave)) => leave,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "who asks Proxmox VE is not known");
                None
            }
            Err(_) => None,
        }
    }

    /// Begins to ask what is new, and ends asking what is gone or has changed.
    fn follow_catalog(
        &self,
        leave: Leave,
        is_beginning: bool,
        asked: &mut HashMap<Uuid, Asked>,
        tasks: &mut JoinSet<()>,
    ) {
        let catalog = self.changes.catalog();
        let is_asked = |instance: &Instance| instance.is_present() && instance.standing == Use::Active;
        let source_of = |id: Uuid| {
            let instance = catalog.inventory.instance(id).filter(|instance| is_asked(instance));
            instance.and_then(|instance| instance.source.as_ref())
        };
        asked.retain(|id, asked| {
            let stays = source_of(*id) == Some(&asked.source);
            if !stays {
                asked.task.abort();
            }
            stays
        });
        self.polls
            .keep_only(|id| catalog.inventory.instance(id).is_some_and(|instance| instance.source.is_some()));
        for instance in catalog.inventory.present().filter(|instance| is_asked(instance)) {
            let Some(source) = instance.source.clone() else { continue };
            asked.entry(instance.id).or_insert_with(|| {
                let (this, id, server) = (self.clone(), instance.id, catalog.server_id);
                let within = if is_beginning { source.poll_interval } else { SOON };
                let interval = source.poll_interval;
                let task = tasks.spawn(async move {
                    sleep(within.mul_f64(this.chance.fraction())).await;
                    this.ask_on(id, server, interval, leave).await;
                });
                Asked { source, task }
            });
        }
    }

    /// Asks one instance for ever.
    async fn ask_on(&self, id: Uuid, server: Uuid, poll_interval: Duration, leave: Leave) {
        let (mut doubts, mut is_first) = (0, true);
        loop {
            let begun = Instant::now();
            let is_believed = self.ask(id, server, leave).await;
            self.metrics.pve_poll_seconds.observe(begun.elapsed().as_secs_f64());
            self.metrics.polled(if is_believed { PollResult::Believed } else { PollResult::Doubted });
            doubts = if is_believed { 0 } else { doubts + 1 };
            // Those that were added together are not asked together for ever.
            let shorter = if std::mem::take(&mut is_first) { self.chance.fraction() } else { 1.0 };
            sleep(pause(poll_interval, doubts, self.chance.fraction()).mul_f64(shorter)).await;
        }
    }

    /// Asks one instance once. Out: whether it could be believed.
    async fn ask(&self, id: Uuid, server: Uuid, leave: Leave) -> bool {
        // As it is now: another sealing key seals the secret anew.
        let catalog = self.changes.catalog();
        let Some(instance) = catalog.inventory.instance(id) else { return true };
        let Some(source) = &instance.source else { return true };
        let token = match self.token(server, instance, source) {
            Ok(token) => token,
            // The key was exchanged between two looks.
            Err(_) if self.changes.catalog().revision != catalog.revision => return true,
            Err(problem) => return self.doubt(id, problem),
        };
        // Who answered last is asked first: a host that hangs costs its time once.
        let mut urls = source.urls.clone();
        let last = self.polls.of(id).map(|poll| poll.url).unwrap_or_default();
        let first = urls.iter().position(|url| url.to_string() == last).unwrap_or_default();
        urls.rotate_left(first);
        let told = match poll::poll(&self.asked(&urls, &token, &source.fingerprints)).await {
            Ok(told) => told,
            Err(Unheard(doubts)) => return self.doubt(id, said(&doubts)),
        };
        let catalog = self.changes.catalog();
        let Some(instance) = catalog.inventory.instance(id) else { return true };
        let urls = source.urls.clone();
        let before = self.polls.of(id).filter(|poll| poll.heard_at.is_some());
        let cluster = told.membership.cluster.clone().unwrap_or_default();
        // A host by itself may become one of a cluster; what it tells then is more, and not less.
        let is_other_cluster = before.as_ref().is_some_and(|poll| poll.cluster != cluster);
        let nodes = match nodes_of(&told.membership, told.url.host(), instance, is_other_cluster) {
            Ok(nodes) => nodes,
            Err(doubt) => return self.doubt(id, doubt.to_string()),
        };
        let told_of = Told {
            instance: id,
            urls,
            nodes,
            heard_before: before.as_ref().and_then(|poll| poll.heard_at),
            recently: self.polls.recently(id, self.clock.now()),
            is_other_cluster,
            leave,
        };
        match self.changes.take_members(&Actor::CLUSTER, &told_of).await {
            Ok(taking) => {
                let heard = Heard {
                    at: self.clock.now(),
                    url: told.url.to_string(),
                    version: told.version.text,
                    // While it waits, the instance has the members of the one before.
                    cluster: Some(cluster).filter(|_| taking == Taking::Taken),
                };
                if let Some(before) = self.polls.heard(id, heard, &told_of.nodes) {
                    tracing::info!(instance = %instance.name, %before, "Proxmox VE can be believed again");
                }
                true
            }
            // Another server asks by now; this one hears so.
            Err(ChangeError::Store(StoreError::LeaseLost { .. })) => true,
            Err(error) => self.doubt(id, format!("what the cluster tells is not taken: {error}")),
        }
    }

    /// The nodes that a source tells at this moment, for an instance that does not use it yet.
    ///
    /// # Errors
    /// Why nothing can be believed.
    pub async fn try_source(&self, wanted: &WantedSource, facts: &Facts) -> Result<Vec<Node>, Unheard> {
        let asked = self.asked(&wanted.urls, &wanted.token, &wanted.fingerprints);
        let told = poll::poll_at_once(&asked).await?;
        let nodes = nodes_of(&told.membership, told.url.host(), facts, false);
        nodes.map_err(|doubt| Unheard(vec![(told.url, doubt)]))
    }

    /// The certificates that hosts show, all asked at one time, and why the system does not trust them, if it does not.
    pub async fn look(&self, urls: Vec<PveUrl>) -> Vec<(PveUrl, (Option<Fingerprint>, Option<Doubt>))> {
        let trust = Trust::System(Arc::clone(&self.roots));
        let looks = urls.into_iter().map(|url| {
            let trust = trust.clone();
            tokio::spawn(async move {
                let looked = match client::look(&url, &trust).await {
                    Ok(shown) => (shown, None),
                    Err(Doubt::Certificate { shown, text }) => {
                        (shown, Some(Doubt::Certificate { shown, text }))
                    }
                    Err(doubt) => (None, Some(doubt)),
                };
                (url, looked)
            })
        });
        let looks: Vec<_> = looks.collect();
        let mut looked = Vec::new();
        for look in looks {
            match look.await {
                Ok(one) => looked.push(one),
                Err(error) => tracing::error!(%error, "a look at a certificate panicked: a defect"),
            }
        }
        looked
    }

    fn asked(&self, urls: &[PveUrl], token: &ApiToken, fingerprints: &[Fingerprint]) -> poll::Source {
        let trust = match fingerprints.is_empty() {
            true => Trust::System(Arc::clone(&self.roots)),
            false => Trust::Pinned(fingerprints.to_vec()),
        };
        poll::Source { urls: urls.to_vec(), token: token.clone(), trust }
    }

    fn token(&self, server: Uuid, instance: &Instance, source: &Source) -> Result<ApiToken, String> {
        let opened = self.store.open_sealed(&place_of_secret(server, instance.id), &source.sealed_secret);
        let secret = opened.ok().and_then(|secret| String::from_utf8(secret).ok()).ok_or_else(|| {
            format!(
                "the secret of the API token does not open: give it again with `pulse instance set {} --token-secret-file FILE`",
                instance.name
            )
        })?;
        ApiToken::new(&source.token_id, &secret)
    }

    fn doubt(&self, id: Uuid, problem: String) -> bool {
        let catalog = self.changes.catalog();
        let name = catalog.inventory.instance(id).map_or("", |instance| instance.name.as_str());
        if self.polls.doubted(id, self.clock.now(), &problem) {
            tracing::warn!(instance = name, %problem, "what Proxmox VE says cannot be believed; the list stays as it is");
        }
        false
    }
}

/// Why each host could not be believed; the same reason once.
pub fn said(doubts: &[(PveUrl, Doubt)]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for (url, doubt) in doubts {
        let text = doubt.to_string();
        // Those that name no host themselves are put behind one, where there are several.
        let text = if doubts.len() > 1 && !text.contains(url.host()) {
            format!("{}: {text}", url.authority())
        } else {
            text
        };
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join("; ")
}

/// How long to wait until a source is asked again. `chance` is between 0 and 1.
fn pause(interval: Duration, doubts: u32, chance: f64) -> Duration {
    if doubts < 2 {
        // Ten percent around the interval, so that many instances spread by themselves.
        return interval.mul_f64(0.9 + 0.2 * chance);
    }
    let longest = (interval * LONGEST_INTERVALS).min(LONGEST_PAUSE).max(interval);
    let longer = interval.saturating_mul(1 << (doubts - 1).min(10)).min(longest);
    longer.mul_f64(0.5 + 0.5 * chance).max(interval.mul_f64(0.9))
}

/// The authorities that the system trusts.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_believed_is_asked_less_often_and_at_least_once_a_minute() {
        let (ten, hour) = (Duration::from_secs(10), Duration::from_secs(3600));
        for chance in [0.0, 0.5, 0.99] {
            for doubts in [0, 1] {
                let wait = pause(ten, doubts, chance);
                assert!(wait >= Duration::from_secs(9) && wait <= Duration::from_secs(11), "{wait:?}");
            }
            for doubts in 2..60 {
                assert!(pause(ten, doubts, chance) <= LONGEST_PAUSE);
                assert!(pause(ten, doubts, chance) >= Duration::from_secs(9));
            }
            assert!(pause(hour, 9, chance) >= Duration::from_secs(3240), "its own interval is longer");
        }
        assert!(pause(ten, 9, 0.99) > Duration::from_secs(55));
    }
}
