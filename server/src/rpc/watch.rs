//! `WatchAuthorizedNodes`: one stream, from its first message to its end.
//!
//! The stream looks at the present state whenever its bell rings, and says what is new since it last looked. So a
//! slow proxy gets the newest list and nothing older, and no ring can be lost.
//! In: rings, the time, room on the way to the proxy. Out: frames; those of lists are shared with all streams of the
//! scope. Never: waits: the connection asks it.

mod farewell;
mod plain;
mod request;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use pulse_proto::encoded::Encoded;
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::{Chance, ListHash, Pin as KeyPin, Position, Scope, TokenDigest, reason, v1};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use self::farewell::Farewell;
pub(super) use self::plain::WatchStream;
use self::request::Held;
use super::auth::{Caller, DEBUG_TOKEN_ENDED, caller_of, revoked, revoked_status};
use super::status::{refusal, retry};
use super::{Rpc, ahead, limited};
use crate::bell::{Ring, Rung};
use crate::fleet::{Presenter, waiting_reason};
use crate::limits::{OVERLOAD_RETRY, Slot};
use crate::listen::feed::{Feed, FeedSlot, Next, Room};
use crate::metrics::StreamEnd;
use crate::publish::Subscriber;
use crate::registry::Proxy;

type Message = Encoded<v1::WatchAuthorizedNodesResponse>;

/// The first slot at which a proxy comes back after a goodbye: time for a restart.
const FIRST_SLOT: Duration = Duration::from_secs(1);
/// The distance of slots: a server takes 1,000 proxies back in a second.
const SLOT: Duration = Duration::from_millis(1);

/// Opens a watch. The connection takes the stream out of the answer and sends it; whoever serves the answer in another
/// way finds it in the body.
pub(super) async fn watch(
    rpc: &Arc<Rpc>,
    request: Request<v1::WatchAuthorizedNodesRequest>,
) -> Result<Response<WatchStream>, Status> {
    let v1::WatchAuthorizedNodesRequest { epoch, revision, .. } = *request.get_ref();
    ahead::settle(rpc, Position { epoch, revision }).await?;
    let slot = FeedSlot::new(open(rpc, request)?);
    let mut response = Response::new(WatchStream::new(slot.clone(), rpc.drain.clone()));
    response.extensions_mut().insert(slot);
    Ok(response)
}

fn open(rpc: &Arc<Rpc>, request: Request<v1::WatchAuthorizedNodesRequest>) -> Result<Box<dyn Feed>, Status> {
    let caller = caller_of(request.extensions())?;
    let message = request.into_inner();
    if caller.observes_until.is_none() {
        limited::watch(rpc, caller.proxy.id)?;
    }
    let slot = limited::stream_slot(rpc, caller.proxy.id, caller.observes_until.is_some())?;
    if let Some(why) = caller.revoked {
        if caller.observes_until.is_none() {
            rpc.metrics.stream_ended(StreamEnd::Revoked);
        }
        let status = revoked_status(&why);
        let revoked = encode(Kind::Revoked(v1::Revoked { reason: why }));
        return Ok(Box::new(Farewell::new(revoked.into_frame(), trailers(&status), slot)));
    }
    Ok(Box::new(Watch::open(rpc, &caller, &message, slot)?))
}

/// One stream.
struct Watch {
    rpc: Arc<Rpc>,
    proxy: Uuid,
    /// The token that opened it; the stream ends with it.
    token: TokenDigest,
    /// When the token ends, if this is an observer's stream, which counts for nothing.
    observes_until: Option<Instant>,
    presenter: Presenter,
    /// What rang and was not looked at yet.
    unseen: Rung,
    bookmark_every: Duration,
    /// When the next bookmark is due, or an observer's time is over.
    timer: Pin<Box<Sleep>>,
    /// Until the first look.
    held: Option<Box<Held>>,
    /// The list that is followed, and what was said of it last.
    following: Option<(Scope, Subscriber)>,
    said: Said,
    is_first: bool,
    /// The pins of the server's authority, as they were said last.
    told_pins: Arc<Vec<KeyPin>>,
    /// How the stream ends after what was said last.
    ending: Option<Ending>,
    end: StreamEnd,
    _slot: Slot,
}

/// How a stream ends that has said its last.
struct Ending {
    /// The status, if the caller heard it.
    said: Status,
    /// The status, if there was no room for it.
    unsaid: Status,
}

/// What the stream said last of the proxy's list.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said {
    /// Its scope, its epoch and its hash.
    list: Option<(Scope, u64, ListHash)>,
    is_waiting: bool,
    asked_to_rotate: bool,
}

impl Watch {
    fn open(
        rpc: &Arc<Rpc>,
        caller: &Caller,
        message: &v1::WatchAuthorizedNodesRequest,
        slot: Slot,
    ) -> Result<Watch, Status> {
        let (held, opened) = request::read(rpc, caller, message)?;
        let observes_until = caller
            .observes_until
            .map(|until| Instant::now() + until.duration_since(rpc.clock.now()).unwrap_or_default());
        let presenter = match observes_until {
            Some(_) => rpc.fleet.observe(caller.proxy.id),
            None => {
                rpc.metrics.watch_streams.inc();
                rpc.fleet.connect(caller.proxy.id, opened)
            }
        };
        let bookmark_every = jittered(rpc.refresh_interval / 2, &rpc.chance);
        let timer = Box::pin(sleep_until(next_time(bookmark_every, observes_until)));
        Ok(Watch {
            rpc: Arc::clone(rpc),
            proxy: caller.proxy.id,
            token: caller.token,
            observes_until,
            presenter,
            unseen: Rung::ALL,
            bookmark_every,
            timer,
            held,
            following: None,
            said: Said { list: None, is_waiting: false, asked_to_rotate: false },
            is_first: true,
            told_pins: Arc::default(),
            ending: None,
            end: StreamEnd::Gone,
            _slot: slot,
        })
    }

    /// As if everything had rung.
    fn look_at_all(&mut self, room: Room) -> Option<Next> {
        self.unseen = Rung::ALL;
        let next = self.look(room);
        if next.is_none() {
            self.unseen = Rung::default();
        }
        next
    }

    /// Looks at the present state: what is to be said that has not been said?
    fn look(&mut self, room: Room) -> Option<Next> {
        // A list that changes says nothing of the proxy.
        if self.unseen.has(Ring::Proxy)
            && let Some(end) = self.look_at_proxy(room)
        {
            return Some(end);
        }
        if room == Room::None {
            return Some(Next::Waits);
        }
        let catalog = self.rpc.changes.catalog();
        let proxy = match self.following {
            // Most rings are of a list that changed for all, and look no proxy up.
            Some((scope, _)) if !self.unseen.has(Ring::Proxy) && !self.is_ahead(catalog.epoch) => {
                return self.list(scope, room);
            }
            _ => catalog.registry.proxy(self.proxy)?,
        };
        if let Some(next) = self.look_at_list(proxy, catalog.epoch, room) {
            return Some(next);
        }
        if !proxy.rotate_requested || self.observes_until.is_some() {
            self.said.asked_to_rotate = false;
        } else if !self.said.asked_to_rotate {
            self.said.asked_to_rotate = true;
            return Some(other(encode(Kind::RotateToken(v1::RotateToken {}))));
        }
        if !self.is_first && !Arc::ptr_eq(&self.told_pins, &self.rpc.pins()) {
            let bookmark = self.bookmark();
            return Some(other(self.with_server(&bookmark)));
        }
        None
    }

    /// What is to be said of the list that the proxy may have.
    fn look_at_list(&mut self, proxy: &Proxy, epoch: u64, room: Room) -> Option<Next> {
        if self.is_ahead(epoch) {
            // It keeps what it has, and hears that the server is there; no list until a new epoch begins.
            return self.is_first.then(|| {
                let bookmark = self.bookmark();
                self.opening(&bookmark)
            });
        }
        match proxy.scope() {
            Some(scope) => self.list(scope, room),
            None if self.said.is_waiting => None,
            None => {
                self.following = None;
                self.said = Said { list: None, is_waiting: true, ..self.said };
                Some(self.opening(&encode(Kind::Waiting(v1::Waiting { reason: waiting_reason(proxy) }))))
            }
        }
    }

    fn is_ahead(&self, epoch: u64) -> bool {
        self.rpc.fleet.ahead_of(self.proxy, epoch).is_some()
    }

    /// Whether the stream may go on: the end if it may not. What ends it in the midst of a message is not said first.
    fn look_at_proxy(&mut self, room: Room) -> Option<Next> {
        if !self.presenter.is_current() {
            self.end = StreamEnd::Replaced;
            let text =
                "another stream with the same token took the place of this one: is the proxy running twice?";
            return Some(over(&refusal(Code::Aborted, reason::REPLACED_BY_ANOTHER_STREAM, text)));
        }
        let catalog = self.rpc.changes.catalog();
        let token = catalog.registry.token(&self.token);
        let Some((token, proxy)) = token.zip(catalog.registry.proxy(self.proxy)) else {
            return Some(self.end_unknown());
        };
        let why = revoked(proxy, token.standing)?;
        self.end = StreamEnd::Revoked;
        let status = revoked_status(&why);
        if room == Room::None {
            return Some(over(&status));
        }
        self.ending = Some(Ending { said: status.clone(), unsaid: status });
        Some(other(encode(Kind::Revoked(v1::Revoked { reason: why }))))
    }

    /// The newest list of the scope, if it was not said yet; or that the proxy holds it.
    fn list(&mut self, scope: Scope, room: Room) -> Option<Next> {
        if self.following.as_ref().is_none_or(|(followed, _)| *followed != scope) {
            let bell = Arc::clone(self.presenter.bell());
            self.following = self.rpc.lists.subscribe(scope, bell).map(|subscriber| (scope, subscriber));
        }
        let (_, subscriber) = self.following.as_ref()?;
        let newest = subscriber.newest();
        let (position, hash) = (newest.signed.position, newest.signed.allowlist.hash());
        if self.said.list == Some((scope, position.epoch, hash)) {
            return None;
        }
        if room != Room::Free {
            return Some(Next::Waits);
        }
        self.said = Said { list: Some((scope, position.epoch, hash)), is_waiting: false, ..self.said };
        let same = |held: &Held| {
            held.position.epoch == position.epoch && held.scope == scope.to_string() && held.hash == hash
        };
        if let Some(held) = self.held.take().filter(|held| same(held)) {
            self.presenter.holds(held.position, hash, held.is_in_force);
            let Position { epoch, .. } = position;
            let revision = self.rpc.changes.catalog().revision;
            let unchanged = Kind::Unchanged(v1::Unchanged { epoch, revision, hash: hash.to_string() });
            return Some(self.opening(&encode(unchanged)));
        }
        self.presenter.pushed(position, hash, !self.is_first);
        let message = match std::mem::take(&mut self.is_first) {
            true => {
                let server = self.rpc.introduction();
                self.told_pins = Arc::clone(&server.pins);
                newest.opening(&server.message)
            }
            false => newest.message.clone(),
        };
        Some(Next::Message { frame: message.into_frame(), is_list: true })
    }

    /// A message that is no list; the first one says what this server is.
    fn opening(&mut self, message: &Message) -> Next {
        if !std::mem::take(&mut self.is_first) {
            return other(message.clone());
        }
        other(self.with_server(message))
    }

    /// Adds to a message what this server is.
    fn with_server(&mut self, message: &Message) -> Message {
        let server = self.rpc.introduction();
        self.told_pins = Arc::clone(&server.pins);
        message.merged(&server.message)
    }

    fn bookmark(&self) -> Message {
        let catalog = self.rpc.changes.catalog();
        let hash = self.said.list.map(|(_, _, hash)| hash.to_string()).unwrap_or_default();
        encode(Kind::Bookmark(v1::Bookmark { epoch: catalog.epoch, revision: catalog.revision, hash }))
    }

    /// The end of a stream whose token is good no more, though its proxy may be: the proxy has another one.
    fn end_unknown(&mut self) -> Next {
        self.end = StreamEnd::TokenEnded;
        let text = match self.observes_until {
            Some(_) => DEBUG_TOKEN_ENDED,
            None => {
                "the ctrl token of this stream has ended: a newer one took its place, or the host was not approved in time"
            }
        };
        over(&refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, text))
    }

    fn goodbye(&mut self, room: Room) -> Next {
        self.end = StreamEnd::Drained;
        // An observer needs no slot of its own.
        let taken = u64::from(self.observes_until.is_none());
        let slot = u32::try_from(self.rpc.goodbyes.fetch_add(taken, Ordering::Relaxed)).unwrap_or(u32::MAX);
        let after = FIRST_SLOT.saturating_add(SLOT.saturating_mul(slot));
        let reason = "the server goes down; it says when to come back";
        let unsaid = retry(Code::Unavailable, reason::DRAINING, reason, after);
        if room == Room::None {
            return over(&unsaid);
        }
        self.ending = Some(Ending { said: Status::ok(""), unsaid });
        let reconnect_after = after.try_into().ok();
        other(encode(Kind::Goodbye(v1::Goodbye { reconnect_after, reason: reason.to_owned() })))
    }
}

impl Feed for Watch {
    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Next {
        if let Some(ending) = &self.ending {
            // What was said last may not have found room.
            return over(if room == Room::None { &ending.unsaid } else { &ending.said });
        }
        if self.rpc.drain.has_started() {
            return self.goodbye(room);
        }
        if self.observes_until.is_some_and(|until| until <= Instant::now()) {
            return self.end_unknown();
        }
        loop {
            while let Poll::Ready(rung) = self.presenter.bell().poll_rung(cx) {
                self.unseen = self.unseen.and(rung);
            }
            if !self.unseen.is_empty() {
                if let Some(next) = self.look(room) {
                    return next;
                }
                self.unseen = Rung::default();
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Next::Nothing;
            }
            if self.observes_until.is_some_and(|until| until <= Instant::now()) {
                return self.end_unknown();
            }
            self.timer.as_mut().reset(next_time(self.bookmark_every, self.observes_until));
            // It says what the stream knows, so it had better look.
            if let Some(next) = self.look_at_all(room) {
                return next;
            }
            if room != Room::None {
                return other(self.bookmark());
            }
        }
    }

    fn is_read(&self) -> bool {
        self.presenter.has_answered()
    }

    fn give_up(&mut self) -> HeaderMap {
        self.end = StreamEnd::Blocked;
        let text = "the stream took nothing for too long and was ended: read it, and open another";
        trailers(&retry(Code::Unavailable, reason::STREAM_BLOCKED, text, OVERLOAD_RETRY))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.observes_until.is_some() {
            return;
        }
        self.rpc.metrics.watch_streams.dec();
        self.rpc.metrics.stream_ended(self.end);
    }
}

/// When to look at the time again.
fn next_time(bookmark_every: Duration, observes_until: Option<Instant>) -> Instant {
    let bookmark = Instant::now() + bookmark_every;
    observes_until.map_or(bookmark, |until| until.min(bookmark))
}

fn encode(kind: Kind) -> Message {
    Encoded::new(&v1::WatchAuthorizedNodesResponse { kind: Some(kind), server: None })
}

/// A message that is no list.
fn other(message: Message) -> Next {
    Next::Message { frame: message.into_frame(), is_list: false }
}

fn over(status: &Status) -> Next {
    Next::End(trailers(status))
}

/// The trailers that tell a status.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).expect("the texts of statuses are encoded for headers");
    trailers
}

/// A period that is up to a tenth shorter or longer, so that the fleet's bookmarks spread.
fn jittered(period: Duration, chance: &Chance) -> Duration {
    period.mul_f64(0.9 + chance.fraction() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_spread_by_a_tenth_at_most() {
        let (period, chance) = (Duration::from_secs(30), Chance::seeded(1));
        let periods: Vec<_> = (0..100).map(|_| jittered(period, &chance)).collect();
        assert!(periods.iter().all(|p| (period * 9 / 10..=period * 11 / 10).contains(p)));
        assert!(periods.iter().any(|p| *p != periods[0]));
    }
}
