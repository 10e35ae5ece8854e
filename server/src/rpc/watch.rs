//! `WatchAuthorizedNodes`: one stream, from its first message to its end.
//!
//! The stream looks at the present state whenever it is woken, and says what is new since it last looked. So a
//! slow proxy gets the newest list and nothing older, and no wake-up can be lost.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream;
use pulse_proto::encoded::Encoded;
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::{ListHash, Position, Scope, reason, v1};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::auth::{Caller, revoked_status};
use super::register::caller;
use super::status::refusal;
use super::{Rpc, WatchStream, edge};
use crate::fleet::{Opened, Presenter, waiting_reason};
use crate::metrics::StreamEnd;
use crate::publish::Subscriber;
use crate::registry::Standing;
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
    let caller = caller(request.extensions())?;
    let message = request.into_inner();
    if let Some(why) = caller.revoked {
        rpc.metrics.stream_ended(StreamEnd::Revoked);
        let status = revoked_status(&why);
        let revoked = encode(Kind::Revoked(v1::Revoked { reason: why }), None);
        return Ok(Box::pin(tokio_stream::iter([Ok(revoked), Err(status)])));
    }
    let watch = Watch::open(rpc, &caller, &message)?;
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
    presenter: Presenter,
    drain: Drain,
    bookmarks: Interval,
    /// Until the first look.
    held: Option<Held>,
    /// The list that is followed, and what was said of it last.
    following: Option<(Scope, Subscriber)>,
    said: Said,
    is_first: bool,
    /// The status with which the stream ends after what was said last; the inner `None` ends it well.
    ending: Option<Option<Status>>,
    end: StreamEnd,
}

/// What the stream said last of the proxy's list.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said {
    list: Option<(Scope, ListHash)>,
    is_waiting: bool,
    asked_to_rotate: bool,
}

impl Watch {
    fn open(rpc: &Rpc, caller: &Caller, message: &v1::WatchAuthorizedNodesRequest) -> Result<Watch, Status> {
        let hash = edge::hash("hash", &message.hash)?;
        let position = edge::position("", message.epoch, message.revision)?;
        let scope = edge::text("scope", &message.scope, 64)?;
        let version = edge::text("version", &message.version, 64)?;
        let is_in_force = matches!(message.source(), v1::ListSource::Pushed | v1::ListSource::Cache);
        let held = hash.map(|hash| Held { scope, position, hash, is_in_force });
        let opened = Opened {
            peer: caller.peer,
            version,
            list_source: source_word(message.source()).to_owned(),
            insecure_skip_verify: message.insecure_skip_verify,
        };
        let presenter = rpc.fleet.connect(caller.proxy.id, opened);
        rpc.metrics.watch_streams.inc();
        let period = jittered(rpc.refresh_interval / 2);
        let mut bookmarks = interval_at(Instant::now() + period, period);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Watch {
            rpc: rpc.clone(),
            proxy: caller.proxy.id,
            presenter,
            drain: rpc.drain.clone(),
            bookmarks,
            held,
            following: None,
            said: Said { list: None, is_waiting: false, asked_to_rotate: false },
            is_first: true,
            ending: None,
            end: StreamEnd::Gone,
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
        let proxy = catalog.registry.proxy(self.proxy)?;
        if let Standing::Revoked { reason, .. } | Standing::Removed { reason, .. } = &proxy.standing {
            self.end_with(StreamEnd::Revoked, Some(revoked_status(reason)));
            return Some(Ok(encode(Kind::Revoked(v1::Revoked { reason: reason.clone() }), None)));
        }
        let kind = match proxy.scope() {
            Some(scope) => self.list(scope),
            None if self.said.is_waiting => None,
            None => {
                self.following = None;
                self.said = Said { list: None, is_waiting: true, ..self.said };
                let waiting = Kind::Waiting(v1::Waiting { reason: waiting_reason(&proxy.hostname) });
                Some(encode(waiting, None))
            }
        };
        if let Some(message) = kind {
            return Some(Ok(self.opening(message)));
        }
        if !proxy.rotate_requested {
            self.said.asked_to_rotate = false;
        } else if !self.said.asked_to_rotate {
            self.said.asked_to_rotate = true;
            return Some(Ok(encode(Kind::RotateToken(v1::RotateToken {}), None)));
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
        if self.said.list == Some((scope, hash)) {
            return None;
        }
        self.said = Said { list: Some((scope, hash)), is_waiting: false, ..self.said };
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
        let server = Some(self.rpc.server_info());
        message.merged(&Encoded::new(&v1::WatchAuthorizedNodesResponse { kind: None, server }))
    }

    fn bookmark(&self) -> Message {
        let catalog = self.rpc.changes.catalog();
        let hash = self.said.list.map(|(_, hash)| hash.to_string()).unwrap_or_default();
        encode(Kind::Bookmark(v1::Bookmark { epoch: catalog.epoch, revision: catalog.revision, hash }), None)
    }

    fn goodbye(&mut self) -> Message {
        let slot = u32::try_from(self.rpc.goodbyes.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX);
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

fn encode(kind: Kind, server: Option<v1::ServerInfo>) -> Message {
    Encoded::new(&v1::WatchAuthorizedNodesResponse { kind: Some(kind), server })
}

/// A period that is up to a tenth shorter or longer, so that the fleet's bookmarks spread.
fn jittered(period: Duration) -> Duration {
    // Any hasher of std begins with a random key.
    let random = RandomState::new().hash_one(period);
    let permille = u32::try_from(900 + random % 201).unwrap_or(1_000);
    period * permille / 1_000
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
        let period = Duration::from_secs(30);
        let periods: Vec<_> = (0..100).map(|_| jittered(period)).collect();
        assert!(periods.iter().all(|p| (period * 9 / 10..=period * 11 / 10).contains(p)));
        assert!(periods.iter().any(|p| *p != periods[0]));
    }
}
