//! What each proxy holds and last said, and which stream is its own: the last-sync state.
//!
//! In: streams that open and end, lists sent, results reported. Out: a [`FleetView`] of each proxy; rows for the
//! store, in groups.
//! Always: *pushed* and *applied* are kept apart; time in which the server was away counts against nobody.
//! Never: decides what a proxy may read.

mod ahead;
mod elsewhere;
mod pulls;
mod saving;
mod state;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use pulse_proto::{Clock, ListHash, Position};
use tokio::time::Instant;
use uuid::Uuid;

use crate::bell::{Bell, Ring};
use crate::fresh::Fresh;
use crate::publish::Published;
use crate::registry::Proxy;
use crate::store::{KeptList, Mark, ProxyStatus};
pub use pulls::{Pull, Transport};
pub(crate) use state::waiting_reason;
pub use state::{FleetView, SyncState};

/// The number of a stream that is nobody's own: that of an observer.
const OBSERVER: u64 = u64::MAX;

/// What proxies do and say. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: RwLock<HashMap<Uuid, Arc<Entry>>>,
    /// Proxies whose rows are newer than the store's, each once.
    unsaved: Mutex<Vec<Uuid>>,
    /// Proxies of which something else is shown.
    fresh: Fresh<Uuid>,
    ahead: ahead::AheadProxies,
    elsewhere: elsewhere::Elsewhere,
    refresh_interval: Duration,
    clock: Clock,
    started: Instant,
    next_stream: AtomicU64,
}

/// One proxy.
#[derive(Debug)]
struct Entry {
    status: Mutex<ProxyStatus>,
    presence: Mutex<Presence>,
    /// Whether its row is newer than the store's, and it is named among those that are.
    is_unsaved: AtomicBool,
    /// The stream that other servers were told of last, by number. 0: none.
    told_stream: AtomicU64,
}

#[derive(Debug)]
struct Presence {
    /// The stream that is the proxy's own, by number. 0: none.
    stream: u64,
    /// Since when it is so: there is this stream, or none; at the beginning: since the server started. Without a stream also:
    /// since it last asked for its list.
    since: Instant,
    /// The list that was pushed into the open stream last, until the proxy says that it is in force.
    on_the_way: Option<Position>,
    /// The list that was sent into the open stream last, until the proxy says what it did with it.
    unanswered: Option<(Position, ListHash)>,
    /// Whether the proxy has said that of the list that was sent last.
    has_answered: bool,
    /// The bells of its streams, observers' too.
    bells: Vec<Arc<Bell>>,
}

impl Presence {
    /// Another stream becomes the proxy's own, or none (0).
    fn turn_to(&mut self, stream: u64) {
        (self.stream, self.since, self.on_the_way) = (stream, Instant::now(), None);
        (self.unanswered, self.has_answered) = (None, false);
    }

    /// The proxy says what it did with a list.
    fn answered(&mut self, said: Mark) {
        if self.unanswered.take_if(|sent| *sent == (said.position, said.hash)).is_some() {
            self.has_answered = true;
        }
    }

    fn ring(&self) {
        self.bells.iter().for_each(|bell| bell.ring(Ring::Proxy));
    }
}

impl Fleet {
    /// Begins with what the store loaded; every proxy counts as gone since now.
    pub fn new(
        refresh_interval: Duration,
        stored: impl IntoIterator<Item = ProxyStatus>,
        clock: Clock,
    ) -> Fleet {
        let started = Instant::now();
        let entries =
            stored.into_iter().map(|status| (status.proxy, Arc::new(Entry::new(status, started)))).collect();
        let (entries, unsaved) = (RwLock::new(entries), Mutex::default());
        let next_stream = AtomicU64::new(1);
        let (ahead, elsewhere, fresh) = Default::default();
        let inner = Inner {
            entries,
            unsaved,
            fresh,
            ahead,
            elsewhere,
            refresh_interval,
            clock,
            started,
            next_stream,
        };
        Fleet { inner: Arc::new(inner) }
    }

    /// Notes that a proxy opened a watch. Its stream before this one, if any, is told that it is no longer its own.
    pub fn connect(&self, proxy: Uuid, opened: Opened) -> Presenter {
        let entry = self.entry(proxy);
        let stream = self.inner.next_stream.fetch_add(1, Ordering::Relaxed);
        let bell = Arc::new(Bell::default());
        {
            let mut presence = lock(&entry.presence);
            presence.turn_to(stream);
            presence.ring();
            presence.bells.push(Arc::clone(&bell));
        }
        self.update(proxy, &entry, |status| {
            let now = self.inner.clock.now();
            (status.last_seen, status.last_pull) = (Some(now), Some(now));
            status.peer = opened.peer;
            status.version = opened.version;
            status.list_source = opened.list_source;
            status.insecure_skip_verify = opened.insecure_skip_verify;
            status.on_disk = match &*status.list_source {
                // It began with it.
                "cache" => true,
                "pushed" => status.on_disk,
                // Until it has another list on its disk, it has none.
                _ => status.on_disk && opened.kept_list.is_none(),
            };
            let before = status.kept_list.take();
            status.kept_list = opened.kept_list.map(|(problem, detail)| match before {
                Some(told) if told.problem == problem && told.detail == detail => told,
                _ => KeptList { problem, detail, at: now },
            });
        });
        Presenter { fleet: self.clone(), proxy, entry, stream, bell }
    }

    /// Opens the view of somebody who only watches what the proxy is told: it is no stream of the proxy's own, and nothing
    /// of it counts.
    pub fn observe(&self, proxy: Uuid) -> Presenter {
        let entry = self.entry(proxy);
        let bell = Arc::new(Bell::default());
        lock(&entry.presence).bells.push(Arc::clone(&bell));
        Presenter { fleet: self.clone(), proxy, entry, stream: OBSERVER, bell }
    }

    /// Notes that a call of the proxy came.
    pub fn seen(&self, proxy: Uuid) {
        self.update(proxy, &self.entry(proxy), |status| status.last_seen = Some(self.inner.clock.now()));
    }

    /// Notes that the proxy put a list in force. Says whether it is the one that was pushed into its open stream: only
    /// the way of such a list can be timed, as a proxy that was away made it wait.
    pub fn applied(&self, proxy: Uuid, mark: Mark, on_disk: bool, detail: String) -> bool {
        let entry = self.entry(proxy);
        self.update(proxy, &entry, |status| {
            status.last_seen = Some(mark.at);
            status.on_disk = on_disk;
            counts_as_pushed(status);
            let is_it = |known: Mark| (known.position, known.hash) == (mark.position, mark.hash);
            let is_known = status.applied.is_some_and(is_it);
            if is_known && status.refused.is_some_and(|refused| !is_it(refused)) {
                // It says only that the list is on its disk by now: the other one, which it refused, stays refused.
                return;
            }
            status.applied = status.applied.filter(|_| is_known).or(Some(mark));
            status.refused = None;
            status.last_error = detail;
        });
        let mut presence = lock(&entry.presence);
        presence.answered(mark);
        let arrived = presence.on_the_way == Some(mark.position);
        if arrived {
            presence.on_the_way = None;
        }
        arrived
    }

    /// Notes that the proxy refused a list.
    pub fn refused(&self, proxy: Uuid, mark: Mark, why: String) {
        let entry = self.entry(proxy);
        self.update(proxy, &entry, |status| {
            status.last_seen = Some(mark.at);
            status.refused = Some(mark);
            status.last_error = why;
        });
        lock(&entry.presence).answered(mark);
    }

    /// The proxies of which something else may be shown than before. What time alone changes, and another newest list, is not
    /// among it.
    pub fn fresh(&self) -> &Fresh<Uuid> {
        &self.inner.fresh
    }

    /// Tells a proxy's stream to look again.
    pub fn ring(&self, proxy: Uuid) {
        if let Some(entry) = self.existing(proxy) {
            lock(&entry.presence).ring();
        }
    }

    /// How many proxies have a stream.
    pub fn connected(&self) -> usize {
        let entries = self.inner.entries.read().expect("no holder of this lock panics");
        entries.values().filter(|entry| lock(&entry.presence).stream != 0).count()
    }

    /// A proxy as it is shown in the present epoch, beside the newest list of its scope.
    pub fn view(&self, proxy: &Proxy, newest: Option<&Published>, epoch: u64) -> FleetView {
        let entry = self.existing(proxy.id);
        let status = entry.as_ref().map_or_else(|| unheard(proxy.id), |entry| lock(&entry.status).clone());
        let (is_connected, absent_since) = match &entry {
            Some(entry) => {
                let presence = lock(&entry.presence);
                (presence.stream != 0, presence.since)
            }
            None => (false, self.inner.started),
        };
        let absent_for =
            (!is_connected && !self.is_elsewhere(proxy.id)).then(|| self.absent_for(absent_since, &status));
        let ahead = self.ahead_of(proxy.id, epoch);
        state::view(proxy, status, ahead, absent_for, newest, self.inner.refresh_interval)
    }

    fn existing(&self, proxy: Uuid) -> Option<Arc<Entry>> {
        self.inner.entries.read().expect("no holder of this lock panics").get(&proxy).cloned()
    }

    fn entry(&self, proxy: Uuid) -> Arc<Entry> {
        if let Some(entry) = self.existing(proxy) {
            return entry;
        }
        let mut entries = self.inner.entries.write().expect("no holder of this lock panics");
        let new = || Arc::new(Entry::new(unheard(proxy), self.inner.started));
        Arc::clone(entries.entry(proxy).or_insert_with(new))
    }

    fn update(&self, proxy: Uuid, entry: &Entry, update: impl FnOnce(&mut ProxyStatus)) {
        update(&mut lock(&entry.status));
        self.is_newer(proxy, entry);
    }

    /// Names a proxy among those whose rows are newer than the store's.
    fn is_newer(&self, proxy: Uuid, entry: &Entry) {
        self.inner.fresh.mark(proxy);
        if !entry.is_unsaved.swap(true, Ordering::AcqRel) {
            lock(&self.inner.unsaved).push(proxy);
        }
    }
}

impl Entry {
    fn new(status: ProxyStatus, absent_since: Instant) -> Entry {
        let presence = Presence {
            stream: 0,
            since: absent_since,
            on_the_way: None,
            unanswered: None,
            has_answered: false,
            bells: Vec::new(),
        };
        let (status, presence) = (Mutex::new(status), Mutex::new(presence));
        Entry { status, presence, is_unsaved: AtomicBool::new(false), told_stream: AtomicU64::new(0) }
    }
}

/// What a proxy says when it opens a watch.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The address that it calls from.
    pub peer: Option<IpAddr>,
    /// Its version.
    pub version: String,
    /// Where its list comes from: `pushed`, `cache`, `static`, `none`.
    pub list_source: String,
    /// Whether it does not check the server's certificate.
    pub insecure_skip_verify: bool,
    /// What was wrong with the list on its disk when it started: in one word, and for people.
    pub kept_list: Option<(String, String)>,
}

/// One stream's presence. Dropping it says that the stream is gone.
#[derive(Debug)]
pub struct Presenter {
    fleet: Fleet,
    proxy: Uuid,
    entry: Arc<Entry>,
    stream: u64,
    bell: Arc<Bell>,
}

impl Presenter {
    /// Rings when the stream shall look again.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Whether this is still the proxy's own stream; another one may have taken over.
    pub fn is_current(&self) -> bool {
        self.stream == OBSERVER || lock(&self.entry.presence).stream == self.stream
    }

    /// Whether the proxy has said what it did with the list that it was sent last.
    pub fn has_answered(&self) -> bool {
        let presence = lock(&self.entry.presence);
        presence.stream == self.stream && presence.has_answered
    }

    /// Notes that a list was sent; `is_change` if the stream was open before the list was new.
    pub fn pushed(&self, position: Position, hash: ListHash, is_change: bool) {
        if self.stream == OBSERVER {
            return;
        }
        {
            let mut presence = lock(&self.entry.presence);
            presence.on_the_way = is_change.then_some(position);
            (presence.unanswered, presence.has_answered) = (Some((position, hash)), false);
        }
        let mark = Mark { position, hash, at: self.fleet.inner.clock.now() };
        self.fleet.update(self.proxy, &self.entry, |status| status.pushed = Some(mark));
    }

    /// Notes that the proxy holds the newest list already: it was sent and applied before.
    pub fn holds(&self, position: Position, hash: ListHash, is_in_force: bool) {
        if self.stream == OBSERVER {
            return;
        }
        let mark = Mark { position, hash, at: self.fleet.inner.clock.now() };
        self.fleet.update(self.proxy, &self.entry, |status| {
            status.pushed = Some(mark);
            if is_in_force
                && status.applied.is_none_or(|applied| (applied.position, applied.hash) != (position, hash))
            {
                status.applied = Some(mark);
            }
            if is_in_force {
                counts_as_pushed(status);
            }
            if is_in_force && status.refused.take_if(|refused| refused.hash == hash).is_some() {
                status.last_error.clear();
            }
        });
    }
}

/// A proxy says once, when its stream begins, where its list comes from; a list that it puts in force afterwards, or hears
/// to be the newest, is pushed.
fn counts_as_pushed(status: &mut ProxyStatus) {
    if !status.list_source.is_empty() {
        status.list_source = "pushed".to_owned();
    }
}

impl Drop for Presenter {
    fn drop(&mut self) {
        let mut presence = lock(&self.entry.presence);
        presence.bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
        if presence.stream == self.stream {
            presence.turn_to(0);
            drop(presence);
            let now = self.fleet.inner.clock.now();
            self.fleet.update(self.proxy, &self.entry, |status| status.last_seen = Some(now));
        }
    }
}

fn unheard(proxy: Uuid) -> ProxyStatus {
    ProxyStatus {
        proxy,
        last_seen: None,
        last_pull: None,
        pushed: None,
        applied: None,
        on_disk: false,
        refused: None,
        last_error: String::new(),
        list_source: String::new(),
        insecure_skip_verify: false,
        kept_list: None,
        version: String::new(),
        peer: None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
