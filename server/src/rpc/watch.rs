//! `WatchAuthorizedNodes`: one stream, from its first message to its end.
//!
//! The stream looks at the present state whenever it is woken, and says what is new since it last looked. So a
//! slow proxy gets the newest list and nothing older, and no wake-up can be lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream;
use pulse_proto::encoded::Encoded;
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::{Chance, ListHash, MAX_REASON_BYTES, Pin, Position, Scope, TokenDigest, reason, v1};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::auth::{Caller, DEBUG_TOKEN_ENDED, caller_of, revoked, revoked_status};
use super::status::refusal;
use super::{Rpc, WatchStream, ahead, edge, limited};
use crate::fleet::{Opened, Presenter, waiting_reason};
use crate::limits::Slot;
use crate::metrics::StreamEnd;
use crate::publish::Subscriber;
use crate::shutdown::Drain;

type Message = Encoded<v1::WatchAuthorizedNodesResponse>;

/// The first slot at which a proxy comes back after a goodbye: time for a restart.
const FIRST_SLOT: Duration = Duration::from_secs(1);
/// The distance of slots: a server takes 1,000 proxies back in a second.
const SLOT: Duration = Duration::from_millis(1);

pub(super) fn watch(
    rpc: &Rpc,
    request: Request<v1::WatchAuthorizedNodesRequest>,
) -> Result<WatchStream, Status> {
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
        let revoked = encode(Kind::Revoked(v1::Revoked { reason: why }), None);
        return Ok(Box::pin(tokio_stream::iter([Ok(revoked), Err(status)])));
    }
    let watch = Watch::open(rpc, &caller, &message, slot)?;
    Ok(Box::pin(stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) })))
}

/// What the proxy said it holds.
struct Held {
    scope: String,
    position: Position,
    hash: ListHash,
    is_in_force: bool,
}

/// One stream.
struct Watch {
    rpc: Rpc,
    proxy: Uuid,
    /// The token that opened it; the stream ends with it.
    token: TokenDigest,
    /// When the token ends, if this is an observer's stream, which counts for nothing.
    observes_until: Option<Instant>,
    presenter: Presenter,
    drain: Drain,
    bookmarks: Interval,
    /// Until the first look.
    held: Option<Held>,
    /// The list that is followed, and what was said of it last.
    following: Option<(Scope, Subscriber)>,
    said: Said,
    is_first: bool,
    /// The pins of the server's authority, as they were said last.
    told_pins: Arc<Vec<Pin>>,
    /// The status with which the stream ends after what was said last; the inner `None` ends it well.
    ending: Option<Option<Status>>,
    end: StreamEnd,
    _slot: Slot,
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
        rpc: &Rpc,
        caller: &Caller,
        message: &v1::WatchAuthorizedNodesRequest,
        slot: Slot,
    ) -> Result<Watch, Status> {
        let hash = edge::hash("hash", &message.hash)?;
        let position = edge::position("", message.epoch, message.revision)?;
        let scope = edge::scope("scope", &message.scope)?;
        let version = edge::version("version", &message.version)?;
        // Who names a list holds it in force, unless it says that another one is.
        let is_in_force = !matches!(message.source(), v1::ListSource::Static | v1::ListSource::None);
        let held = hash.map(|hash| Held { scope, position, hash, is_in_force });
        if held.is_some() && caller.observes_until.is_none() {
            ahead::notice(rpc, &caller.proxy, position);
        }
        let detail = edge::remark("kept_list_detail", &message.kept_list_detail, MAX_REASON_BYTES)?;
        let kept_list =
            kept_list_word(message.kept_list_problem()).map(|problem| (problem.to_owned(), detail));
        if let Some((problem, detail)) =
            kept_list.as_ref().filter(|_| message.source() != v1::ListSource::Pushed)
        {
            tracing::warn!(proxy = %caller.proxy.id, problem, detail, "a proxy could not begin with its kept list");
        }
        let opened = Opened {
            peer: caller.peer,
            version,
            list_source: source_word(message.source()).to_owned(),
            insecure_skip_verify: message.insecure_skip_verify,
            kept_list,
        };
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
        let period = jittered(rpc.refresh_interval / 2, &rpc.chance);
        let mut bookmarks = interval_at(Instant::now() + period, period);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watch {
            rpc: rpc.clone(),
            proxy: caller.proxy.id,
            token: caller.token,
            observes_until,
            presenter,
            drain: rpc.drain.clone(),
            bookmarks,
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

    /// The next message, or the end.
    async fn next(&mut self) -> Option<Result<Message, Status>> {
        if let Some(ending) = self.ending.take() {
            self.ending = Some(None);
            return ending.map(Err);
        }
        loop {
            if let Some(answer) = self.look() {
                return Some(answer);
            }
            tokio::select! {
                biased;
                () = self.drain.started() => return Some(Ok(self.goodbye())),
                () = ended(self.observes_until) => return Some(self.end_unknown()),
                () = self.presenter.rung() => {}
                () = list_changed(&mut self.following) => {}
                _ = self.bookmarks.tick() => return Some(Ok(self.bookmark())),
            }
        }
    }

    /// Looks at the present state: what is to be said that has not been said?
    fn look(&mut self) -> Option<Result<Message, Status>> {
        if !self.presenter.is_current() {
            self.end_with(StreamEnd::Replaced, None);
            let text =
                "another stream with the same token took the place of this one: is the proxy running twice?";
            return Some(Err(refusal(Code::Aborted, reason::REPLACED_BY_ANOTHER_STREAM, text)));
        }
        let catalog = self.rpc.changes.catalog();
        let Some(token) = catalog.registry.token(&self.token) else { return Some(self.end_unknown()) };
        let proxy = catalog.registry.proxy(self.proxy)?;
        if let Some(reason) = revoked(proxy, token.standing) {
            self.end_with(StreamEnd::Revoked, Some(revoked_status(&reason)));
            return Some(Ok(encode(Kind::Revoked(v1::Revoked { reason }), None)));
        }
        let is_ahead = self.rpc.fleet.ahead_of(self.proxy, catalog.epoch).is_some();
        let kind = match proxy.scope() {
            // It keeps what it has, and hears that the server is there; no list until a new epoch begins.
            _ if is_ahead => self.is_first.then(|| self.bookmark()),
            Some(scope) => self.list(scope),
            None if self.said.is_waiting => None,
            None => {
                self.following = None;
                self.said = Said { list: None, is_waiting: true, ..self.said };
                let waiting = Kind::Waiting(v1::Waiting { reason: waiting_reason(proxy) });
                Some(encode(waiting, None))
            }
        };
        if let Some(message) = kind {
            return Some(Ok(self.opening(message)));
        }
        if !proxy.rotate_requested || self.observes_until.is_some() {
            self.said.asked_to_rotate = false;
        } else if !self.said.asked_to_rotate {
            self.said.asked_to_rotate = true;
            return Some(Ok(encode(Kind::RotateToken(v1::RotateToken {}), None)));
        }
        if !self.is_first && self.told_pins != self.rpc.pins() {
            return Some(Ok(self.with_server(self.bookmark())));
        }
        None
    }

    /// The newest list of the scope, if it was not said yet; or that the proxy holds it.
    fn list(&mut self, scope: Scope) -> Option<Message> {
        if self.following.as_ref().is_none_or(|(followed, _)| *followed != scope) {
            self.following = self.rpc.lists.subscribe(scope).map(|subscriber| (scope, subscriber));
        }
        let (_, subscriber) = self.following.as_ref()?;
        let newest = subscriber.newest();
        let (position, hash) = (newest.signed.position, newest.signed.allowlist.hash());
        let held = self.held.take();
        if self.said.list == Some((scope, position.epoch, hash)) {
            return None;
        }
        self.said = Said { list: Some((scope, position.epoch, hash)), is_waiting: false, ..self.said };
        let same = |held: &Held| {
            held.position.epoch == position.epoch && held.scope == scope.to_string() && held.hash == hash
        };
        if let Some(held) = held.filter(same) {
            self.presenter.holds(held.position, hash, held.is_in_force);
            let Position { epoch, .. } = position;
            let revision = self.rpc.changes.catalog().revision;
            return Some(encode(
                Kind::Unchanged(v1::Unchanged { epoch, revision, hash: hash.to_string() }),
                None,
            ));
        }
        self.presenter.pushed(position, hash, !self.is_first);
        Some(newest.message.clone())
    }

    /// Adds to the first message what this server is.
    fn opening(&mut self, message: Message) -> Message {
        if !std::mem::take(&mut self.is_first) {
            return message;
        }
        self.with_server(message)
    }

    /// Adds to a message what this server is.
    fn with_server(&mut self, message: Message) -> Message {
        self.told_pins = self.rpc.pins();
        let server = Some(self.rpc.server_info());
        message.merged(&Encoded::new(&v1::WatchAuthorizedNodesResponse { kind: None, server }))
    }

    fn bookmark(&self) -> Message {
        let catalog = self.rpc.changes.catalog();
        let hash = self.said.list.map(|(_, _, hash)| hash.to_string()).unwrap_or_default();
        encode(Kind::Bookmark(v1::Bookmark { epoch: catalog.epoch, revision: catalog.revision, hash }), None)
    }

    /// The end of a stream whose token is good no more, though its proxy may be: the proxy has another one.
    fn end_unknown(&mut self) -> Result<Message, Status> {
        self.end_with(StreamEnd::TokenEnded, None);
        let text = match self.observes_until {
            Some(_) => DEBUG_TOKEN_ENDED,
            None => {
                "the ctrl token of this stream has ended: a newer one took its place, or the host was not approved in time"
            }
        };
        Err(refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, text))
    }

    fn goodbye(&mut self) -> Message {
        // An observer needs no slot of its own.
        let taken = u64::from(self.observes_until.is_none());
        let slot = u32::try_from(self.rpc.goodbyes.fetch_add(taken, Ordering::Relaxed)).unwrap_or(u32::MAX);
        let reconnect_after = FIRST_SLOT.saturating_add(SLOT.saturating_mul(slot));
        self.end_with(StreamEnd::Drained, None);
        let reason = "the server goes down; it says when to come back".to_owned();
        encode(Kind::Goodbye(v1::Goodbye { reconnect_after: reconnect_after.try_into().ok(), reason }), None)
    }

    fn end_with(&mut self, end: StreamEnd, status: Option<Status>) {
        self.end = end;
        self.ending = Some(status);
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

async fn list_changed(following: &mut Option<(Scope, Subscriber)>) {
    match following {
        Some((_, subscriber)) => subscriber.changed().await,
        None => std::future::pending().await,
    }
}

async fn ended(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn encode(kind: Kind, server: Option<v1::ServerInfo>) -> Message {
    Encoded::new(&v1::WatchAuthorizedNodesResponse { kind: Some(kind), server })
}

/// A period that is up to a tenth shorter or longer, so that the fleet's bookmarks spread.
fn jittered(period: Duration, chance: &Chance) -> Duration {
    period.mul_f64(0.9 + chance.fraction() / 5.0)
}

/// The problem in lower case; `None`: there is none, or a later version's.
fn kept_list_word(problem: v1::KeptListProblem) -> Option<&'static str> {
    match problem {
        v1::KeptListProblem::Unspecified => None,
        v1::KeptListProblem::Missing => Some("missing"),
        v1::KeptListProblem::Damaged => Some("damaged"),
        v1::KeptListProblem::Older => Some("older"),
        v1::KeptListProblem::Foreign => Some("foreign"),
        v1::KeptListProblem::Unreadable => Some("unreadable"),
    }
}

fn source_word(source: v1::ListSource) -> &'static str {
    match source {
        v1::ListSource::Unspecified => "",
        v1::ListSource::Pushed => "pushed",
        v1::ListSource::Cache => "cache",
        v1::ListSource::Static => "static",
        v1::ListSource::None => "none",
    }
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
