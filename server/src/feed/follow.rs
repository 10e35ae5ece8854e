//! Follows the fleet, and tells the live feed what is new.
//!
//! In: changes, as they are in place; proxies and nodes of which something is new; the time. Out: events, of few names each.
//! Always: what is told can be asked for already; many things that are new at about the same time are told together. A listener
//! that was let in hears of everything after that. Never: works while nobody has listened for a minute.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use super::LiveFeed;
use crate::Pulse;
use crate::api::{FeedChanged, FeedNode, FeedPolls, FeedProxies, FeedProxy, FeedTemperatures};
use crate::changes::Changed;
use crate::fleet::FleetView;
use crate::registry::{Proxy, Standing};
use crate::shutdown::Drain;

/// How long what is new of proxies is gathered: less than a person notices, and ten thousand that come back take some seconds.
const TICK: Duration = Duration::from_millis(250);
/// Every so many ticks temperatures are told: they come each 10 s or so.
const TICKS_OF_TEMPERATURES: u32 = 4;
/// Every so many ticks all proxies are looked at, since time alone makes them OFFLINE or STALE: after 15 s at the earliest, and a look
/// at 10,000 takes some 15 ms.
const TICKS_OF_A_SWEEP: u32 = 8;
/// For how long the fleet is followed after the last listener: one that reloads its page, or whose connection broke, is back before.
const REST_AFTER: Duration = Duration::from_mins(1);

/// How often the database is asked what other servers know, and how long at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Names in one event: some 10 KiB. A change of more may concern everything.
const MOST_NAMES: usize = 100;
/// Proxies that are looked at before other tasks have their turn: half a millisecond.
const LOOKS_OF_A_TURN: usize = 256;

/// Follows the fleet while there are listeners, until the server goes down.
pub async fn follow(pulse: Arc<Pulse>, drain: Drain) {
    let feed = pulse.feed.clone();
    loop {
        tokio::select! {
            () = drain.started() => return,
            () = feed.is_wanted() => {}
        }
        let mut following = Following::begin(Arc::clone(&pulse)).await;
        feed.inner.is_awake.send_replace(true);
        tokio::select! {
            () = drain.started() => return,
            () = following.until_nobody_listens() => {}
            never = keep_looking(&pulse) => match never {},
        }
    }
}

impl LiveFeed {
    async fn is_wanted(&self) {
        while !self.has_listeners() {
            self.inner.came_or_went.notified().await;
        }
    }

    /// Goes to rest, unless somebody has just come.
    fn rests(&self) -> bool {
        self.inner.is_awake.send_replace(false);
        // Whoever comes counts itself first and looks then whether the feed is awake, so one of the two sees the other.
        if self.has_listeners() {
            self.inner.is_awake.send_replace(true);
            return false;
        }
        self.forget();
        true
    }
}

/// What other servers know is taken in, as if an admin asked for it.
async fn keep_looking(pulse: &Pulse) -> Infallible {
    loop {
        if pulse.store.is_shared() && timeout(LONGEST_LOOK, pulse.replicas.look_around()).await.is_err() {
            tracing::debug!("the database does not answer: the live feed tells what is known here");
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What is known to listeners. While it is there, what is new is noted.
struct Following {
    pulse: Arc<Pulse>,
    /// Proxies that are to be looked at.
    unseen: HashSet<Uuid>,
    /// What was told of each proxy, as a digest.
    told: HashMap<Uuid, u64>,
    /// What is known of asking each instance that has a problem.
    problems: BTreeMap<Uuid, String>,
}

impl Following {
    /// Begins to note what is new, and looks at everything once.
    async fn begin(pulse: Arc<Pulse>) -> Following {
        pulse.changes.news().follow(true);
        pulse.fleet.fresh().follow(true);
        pulse.readings.fresh().follow(true);
        let problems = problems(&pulse);
        let (unseen, told) = Default::default();
        let mut following = Following { pulse, unseen, told, problems };
        following.look_at_all();
        following.look().await;
        following
    }

    async fn until_nobody_listens(&mut self) {
        let pulse = Arc::clone(&self.pulse);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut count, mut listened_at) = (0_u32, Instant::now());
        loop {
            tokio::select! {
                () = pulse.changes.news().rung() => {
                    self.tell_changes();
                    continue;
                }
                _ = ticks.tick() => {}
            }
            count = count.wrapping_add(1);
            if count.is_multiple_of(TICKS_OF_A_SWEEP) {
                self.look_at_all();
                self.tell_polls();
            }
            for proxies in self.look().await.chunks(MOST_NAMES) {
                self.pulse.feed.tell("proxies", &FeedProxies { proxies: proxies.to_vec() });
            }
            if count.is_multiple_of(TICKS_OF_TEMPERATURES) {
                self.tell_temperatures();
            }
            if pulse.feed.has_listeners() {
                listened_at = Instant::now();
            } else if listened_at.elapsed() >= REST_AFTER && pulse.feed.rests() {
                return;
            }
        }
    }

    fn tell_changes(&mut self) {
        let catalog = self.pulse.changes.catalog();
        for changed in self.pulse.changes.news().take() {
            let Changed { revision, instances, proxies, lists, is_joining, is_access, is_everything } =
                changed;
            self.unseen.extend(&proxies);
            let names = instances.len() + proxies.len() + lists.len();
            let mut event = FeedChanged {
                revision,
                instances: Vec::new(),
                proxies: Vec::new(),
                allowlists: Vec::new(),
                is_joining,
                is_access,
                is_everything: is_everything || names > MOST_NAMES,
            };
            if !event.is_everything {
                let instances = instances.iter().filter_map(|id| catalog.inventory.instance(*id));
                event.instances = instances.map(|instance| instance.name.clone()).collect();
                event.proxies = proxies.into_iter().collect();
                event.allowlists = lists.iter().map(ToString::to_string).collect();
            }
            self.pulse.feed.tell("changed", &event);
        }
    }

    fn look_at_all(&mut self) {
        let catalog = self.pulse.changes.catalog();
        self.unseen.extend(catalog.registry.proxies().map(|proxy| proxy.id));
        self.told.retain(|id, _| catalog.registry.proxy(*id).is_some_and(|proxy| !is_removed(proxy)));
    }

    /// Looks at the proxies that are to be looked at. Out: those of which something else is shown than was told.
    async fn look(&mut self) -> Vec<FeedProxy> {
        self.unseen.extend(self.pulse.fleet.fresh().take());
        let catalog = self.pulse.changes.catalog();
        let mut news = Vec::new();
        for (count, id) in std::mem::take(&mut self.unseen).into_iter().enumerate() {
            if count % LOOKS_OF_A_TURN == LOOKS_OF_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let Some(proxy) = catalog.registry.proxy(id).filter(|proxy| !is_removed(proxy)) else { continue };
            let newest = proxy.scope().and_then(|scope| self.pulse.lists.newest(scope));
            let view = self.pulse.fleet.view(proxy, newest.as_deref(), catalog.epoch);
            let digest = digest(&view);
            if self.told.insert(id, digest) != Some(digest) {
                news.push(short(id, &view));
            }
        }
        news
    }

    fn tell_temperatures(&self) {
        let catalog = self.pulse.changes.catalog();
        let mut nodes = Vec::new();
        for key in self.pulse.readings.fresh().take() {
            // A value of one that was taken off is history.
            let instance = catalog.inventory.instance(key.0).filter(|instance| instance.is_present());
            let Some((instance, report)) = instance.zip(self.pulse.readings.newest_at(&key)) else {
                continue;
            };
            let (instance, node) = (instance.name.clone(), report.node.name().to_owned());
            nodes.push(FeedNode { instance, node });
        }
        for nodes in nodes.chunks(MOST_NAMES) {
            self.pulse.feed.tell("temperatures", &FeedTemperatures { nodes: nodes.to_vec() });
        }
    }

    fn tell_polls(&mut self) {
        let now = problems(&self.pulse);
        let before = std::mem::replace(&mut self.problems, now);
        let all: HashSet<&Uuid> = before.keys().chain(self.problems.keys()).collect();
        let catalog = self.pulse.changes.catalog();
        let others = all.into_iter().filter(|id| before.get(id) != self.problems.get(id));
        let instances = others.filter_map(|id| catalog.inventory.instance(*id));
        let instances: Vec<String> = instances.map(|instance| instance.name.clone()).collect();
        for instances in instances.chunks(MOST_NAMES) {
            self.pulse.feed.tell("polls", &FeedPolls { instances: instances.to_vec() });
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.pulse.changes.news().follow(false);
        self.pulse.fleet.fresh().follow(false);
        self.pulse.readings.fresh().follow(false);
    }
}

fn is_removed(proxy: &Proxy) -> bool {
    matches!(proxy.standing, Standing::Removed { .. })
}

fn problems(pulse: &Pulse) -> BTreeMap<Uuid, String> {
    let polls = pulse.polls.all().into_values().filter(|poll| !poll.problem.is_empty());
    polls.map(|poll| (poll.instance, poll.problem)).collect()
}

fn short(id: Uuid, view: &FleetView) -> FeedProxy {
    FeedProxy {
        id,
        state: view.state.as_str().to_owned(),
        is_connected: view.is_connected,
        pushed_revision: view.status.pushed.map(|mark| mark.position.revision),
        applied_revision: view.status.applied.map(|mark| mark.position.revision),
    }
}

/// Of all that is shown of a proxy, but for times: those of a proxy that is well change all the while.
fn digest(view: &FleetView) -> u64 {
    let FleetView { state, waiting, is_connected, lag: _, ahead, status, transport } = view;
    let mut digest = DefaultHasher::new();
    (state, waiting, is_connected, transport).hash(&mut digest);
    for mark in [status.pushed, status.applied, status.refused] {
        mark.map(|mark| (mark.position.epoch, mark.position.revision, mark.hash)).hash(&mut digest);
    }
    ahead.map(|ahead| (ahead.position.epoch, ahead.position.revision)).hash(&mut digest);
    (status.on_disk, &status.last_error, &status.list_source, status.insecure_skip_verify).hash(&mut digest);
    let kept = status.kept_list.as_ref().map(|kept| (&kept.problem, &kept.detail));
    (kept, &status.version, status.peer).hash(&mut digest);
    digest.finish()
}
