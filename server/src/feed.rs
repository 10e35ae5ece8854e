//! The live feed: what changed, told to any number of listeners as it happens.
//!
//! In: events, from the one task that follows the fleet ([`follow`]). Out: each of them, in order, to every [`Listener`].
//! Always: events stand once, in one bounded ring, and a listener is no more than a place in it: a slow one holds nothing up
//! and nothing back. Whoever fell behind the ring, or comes with an id that this server does not know, is told to load everything
//! anew; nobody misses an event without being told. Never: does any work while nobody listens.

pub mod follow;
mod ring;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::metrics::Metrics;
use ring::{Ring, Sought};

/// Listeners at one time. Each is a page that somebody has open, or a program; a place in the ring and a socket.
pub const MOST_LISTENERS: usize = 1024;

/// Events that a listener may be behind: two minutes of all that a busy fleet tells, and a page comes back after seconds.
const MOST_EVENTS: usize = 1024;
/// The same in bytes, with what they take beside their text.
const MOST_BYTES: usize = 4 << 20;

/// See the module. Cloning shares it.
#[derive(Clone, Debug)]
pub struct LiveFeed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// This start of this server, in ids: those of another one mean nothing here.
    start: String,
    ring: RwLock<Ring>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
    /// Whether the fleet is followed.
    is_awake: watch::Sender<bool>,
    listeners: AtomicUsize,
    /// Rung when a listener comes or goes.
    came_or_went: Notify,
    metrics: Arc<Metrics>,
}

/// Where a listener begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// With what comes from now on.
    Now,
    /// Behind the event that it wrote down last.
    Resumed,
    /// With what comes from now on, as what it wrote down last is not known here any more, or never was.
    Lost,
}

/// There are as many listeners as there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{MOST_LISTENERS} listeners follow the live feed, and more it does not take: end some, and ask again"
)]
pub struct TooManyListeners;

impl LiveFeed {
    /// A feed of its own: ids of any other mean nothing to it.
    pub fn new(metrics: Arc<Metrics>) -> LiveFeed {
        LiveFeed::of(metrics, Ring::new(MOST_EVENTS, MOST_BYTES))
    }

    fn of(metrics: Arc<Metrics>, ring: Ring) -> LiveFeed {
        let start = Uuid::new_v4().simple().to_string()[..12].to_owned();
        let newest = watch::Sender::new(ring.newest());
        let (is_awake, listeners, came_or_went) = Default::default();
        let ring = RwLock::new(ring);
        let inner = Inner { start, ring, newest, is_awake, listeners, came_or_went, metrics };
        LiveFeed { inner: Arc::new(inner) }
    }

    /// Tells all listeners. `data` is one line of JSON.
    fn tell(&self, event: &'static str, data: &impl Serialize) {
        let mut ring = self.inner.ring.write().unwrap_or_else(PoisonError::into_inner);
        let number = ring.newest() + 1;
        ring.push(self.render(Some(number), event, data));
        drop(ring);
        self.inner.newest.send_replace(number);
    }

    /// An event as it goes over the wire.
    fn render(&self, number: Option<u64>, event: &str, data: &impl Serialize) -> Bytes {
        // Plain data: it has no map whose keys are no strings, which is all that could fail.
        let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
        let id = number.map(|number| format!("id: {}-{number}\n", self.inner.start)).unwrap_or_default();
        Bytes::from(format!("{id}event: {event}\ndata: {data}\n\n"))
    }

    /// Forgets all events: who comes with the id of one is told to load anew.
    fn forget(&self) {
        let mut ring = self.inner.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.forget();
        let newest = ring.newest();
        drop(ring);
        self.inner.newest.send_replace(newest);
    }

    fn has_listeners(&self) -> bool {
        self.inner.listeners.load(Ordering::SeqCst) > 0
    }

    /// Begins to listen, behind the event of the id `after`, if it is known. Waits until the fleet is followed; from then on
    /// nothing is missed.
    ///
    /// # Errors
    /// [`TooManyListeners`].
    pub async fn listen(&self, after: Option<&str>) -> Result<(Listener, Beginning), TooManyListeners> {
        // First: from now on the feed does not go to rest.
        let place = Place::take(self)?;
        let mut is_awake = self.inner.is_awake.subscribe();
        // It cannot fail: the sender is in `inner`.
        let _ = is_awake.wait_for(|is_awake| *is_awake).await;
        let newest = self.inner.newest.subscribe();
        let ring = self.inner.ring.read().unwrap_or_else(PoisonError::into_inner);
        let known = after.and_then(|after| self.number(after)).filter(|number| ring.has_all_after(*number));
        let beginning = match (after, known) {
            (None, _) => Beginning::Now,
            (Some(_), Some(_)) => Beginning::Resumed,
            (Some(_), None) => Beginning::Lost,
        };
        let position = known.unwrap_or_else(|| ring.newest());
        drop(ring);
        Ok((Listener { place, newest, position }, beginning))
    }

    /// The number in an id of this feed.
    fn number(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&*self.inner.start)?.strip_prefix('-')?.parse().ok()
    }
}

/// A place among the listeners; it is free again when this is dropped.
#[derive(Debug)]
struct Place(LiveFeed);

impl Place {
    fn take(feed: &LiveFeed) -> Result<Place, TooManyListeners> {
        let inner = &feed.inner;
        // Taken before it is counted, so that it is given back if there are too many.
        let place = Place(feed.clone());
        let before = inner.listeners.fetch_add(1, Ordering::SeqCst);
        inner.metrics.feed_listeners.inc();
        if before >= MOST_LISTENERS {
            return Err(TooManyListeners);
        }
        inner.came_or_went.notify_one();
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inner.listeners.fetch_sub(1, Ordering::SeqCst);
        self.0.inner.metrics.feed_listeners.dec();
        self.0.inner.came_or_went.notify_one();
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub struct Listener {
    place: Place,
    newest: watch::Receiver<u64>,
    /// The number of the last event that it has.
    position: u64,
}

impl Listener {
    /// An event for this listener alone. With `is_id`, it may come back with what it has at present.
    pub fn own(&self, event: &str, data: &impl Serialize, is_id: bool) -> Bytes {
        self.place.0.render(is_id.then_some(self.position), event, data)
    }

    /// The event that tells it to load everything anew; it goes on behind it.
    pub fn reload(&mut self, data: &impl Serialize) -> Bytes {
        self.place.0.inner.metrics.feed_reloads.inc();
        self.own("reload", data, true)
    }

    /// The next event, as soon as there is one; `None`: it fell too far behind, and goes on with what comes from now on. Nothing is
    /// lost if the caller gives up.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            // Before the look: what comes after it is noticed.
            self.newest.borrow_and_update();
            let sought = {
                let ring = self.place.0.inner.ring.read().unwrap_or_else(PoisonError::into_inner);
                ring.after(self.position)
            };
            match sought {
                Sought::Event(event) => {
                    self.position += 1;
                    return Some(event);
                }
                Sought::Gone { newest } => {
                    self.position = newest;
                    return None;
                }
                Sought::NotYet => {}
            }
            // It cannot fail: the sender is in the feed.
            let _ = self.newest.changed().await;
        }
    }
}

#[cfg(test)]
mod tests;
