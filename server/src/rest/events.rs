//! `/events`: the live feed as server-sent events (WHATWG HTML, 9.2), over HTTP/1.1 or HTTP/2.
//!
//! In: a request, with the id of the last event that its sender has. Out: a stream that never ends by itself.
//! Always: an event is taken out of the feed only once there is room for it, so a listener that does not read costs its socket's
//! buffers; the stream ends with the server, and with what its sender was let in by.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use pulse_proto::reason;
use tokio::time::{Instant, sleep_until};

use super::access::Caller;
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, FeedHello, FeedReload};
use crate::feed::{Beginning, Listener};

/// How often something is sent, so that whoever stands between sees that the stream lives. Half of what the hastiest wait.
const ALIVE: Duration = Duration::from_secs(15);
const ALIVE_COMMENT: &[u8] = b": alive\n\n";
/// After how long a listener comes back whose stream ended, in milliseconds: time for a restart.
const RETRY: &[u8] = b"retry: 2000\n\n";

/// What a listener sends when it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to gather what it passes on.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

type Over = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tells what changed, as it happens: server-sent events.
///
/// The event `hello` comes first. Who sends the id of the last event that it has as `Last-Event-ID` goes on behind it; if that is not
/// possible, `reload` comes. See docs/live-feed.md for all events.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "follow_events",
    tag = "events",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that the caller has.")),
    responses(
        (status = OK, description = "Events, for as long as the caller listens. The data of each is JSON.", content(
            (api::FeedEvent = "text/event-stream"),
        )),
        (status = SERVICE_UNAVAILABLE, description = "There are as many listeners as there may be, or the server goes down.", body = api::ApiError, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn listen(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // One that is no text is none that was ever given.
    let after = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or_default());
    let listening = tokio::select! {
        biased;
        () = pulse.drain.started() => {
            let text = "the server goes down: come back when it is there again".to_owned();
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason::DRAINING, text));
        }
        listening = pulse.feed.listen(after) => listening,
    };
    let (listener, beginning) = listening.map_err(|error| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_LISTENERS", error.to_string())
    })?;
    let over = Box::pin(over(Arc::clone(&pulse), caller));
    let events = Events::new(pulse, listener, beginning, over);
    let frames = stream::unfold(events, |mut events: Events| async move {
        let event = events.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(event)), events))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store"), UNBUFFERED];
    Ok((headers, Body::new(StreamBody::new(frames))).into_response())
}

/// Waits until the stream is to end: with the server, or with the session or the token that it was opened with.
async fn over(pulse: Arc<Pulse>, caller: Caller) {
    tokio::select! {
        () = pulse.drain.started() => {}
        () = caller.ended(&pulse) => {}
    }
}

/// One stream.
struct Events {
    pulse: Arc<Pulse>,
    listener: Listener,
    /// What is sent before anything else.
    opening: VecDeque<Bytes>,
    over: Over,
}

impl Events {
    fn new(pulse: Arc<Pulse>, mut listener: Listener, beginning: Beginning, over: Over) -> Events {
        let catalog = pulse.changes.catalog();
        let hello = FeedHello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: catalog.epoch,
            revision: catalog.revision,
            is_resumed: beginning == Beginning::Resumed,
        };
        // One that lost the thread has nothing to come back with before it has heard of it.
        let mut opening = VecDeque::from([
            Bytes::from_static(RETRY),
            listener.own("hello", &hello, beginning != Beginning::Lost),
        ]);
        if beginning == Beginning::Lost {
            opening.push_back(listener.reload(&FeedReload { revision: catalog.revision }));
        }
        Events { pulse, listener, opening, over }
    }

    /// The next event; `None`: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(event) = self.opening.pop_front() {
            return Some(event);
        }
        let alive_at = Instant::now() + ALIVE;
        tokio::select! {
            biased;
            () = &mut self.over => None,
            event = self.listener.next() => Some(match event {
                Some(event) => event,
                None => {
                    let revision = self.pulse.changes.catalog().revision;
                    self.listener.reload(&FeedReload { revision })
                }
            }),
            () = sleep_until(alive_at) => Some(Bytes::from_static(ALIVE_COMMENT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http_body_util::BodyExt;
    use pulse_proto::{Allowlist, Position};
    use serde_json::{Value, json};

    use super::super::tests::{ask, pulse_until, register};
    use super::*;
    use crate::feed::follow::follow;
    use crate::shutdown::Signals;
    use crate::store::Mark;

    /// The next event of this name.
    async fn next(body: &mut Body, name: &str) -> Value {
        loop {
            let event = body.frame().await.expect("the stream lives").expect("and does not fail");
            let event = String::from_utf8(event.into_data().expect("events").to_vec()).expect("text");
            if event.contains(&format!("event: {name}\n")) {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("it has data");
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }

    #[tokio::test]
    async fn a_state_that_time_alone_changes_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (signals, hand) = Signals::by_hand();
        let pulse = pulse_until(folder.path(), signals.drain()).await;
        let working = tokio::spawn(signals.attend(follow(Arc::clone(&pulse), pulse.drain.clone())));
        let add = json!({"name": "home", "endpoints": [{"name": "delly"}]});
        ask(&pulse, "POST", "/instances", add).await;
        let (_, join) =
            ask(&pulse, "POST", "/join-tokens", json!({"instance": "home", "ttl_seconds": 60})).await;
        let id = register(&pulse, join["join"].as_str().unwrap(), "delly").await;

        let caller = Caller::Local { uid: 0 };
        let answer = listen(State(Arc::clone(&pulse)), caller, HeaderMap::new()).await.unwrap();
        let mut body = answer.into_body();
        let hello = next(&mut body, "hello").await;
        assert_eq!(hello["revision"], pulse.changes.catalog().revision);
        let position = Position { epoch: pulse.changes.catalog().epoch, revision: 1 };
        let older = Mark { position, hash: Allowlist::new([]).hash(), at: SystemTime::now() };
        let proxy = id.parse().unwrap();
        pulse.fleet.applied(proxy, older, true, String::new());
        let told = next(&mut body, "proxies").await;
        assert_eq!(
            (&told["proxies"][0]["id"], &told["proxies"][0]["state"]),
            (&json!(id), &json!("PENDING"))
        );
        // From here on nothing happens but that time goes by.
        tokio::time::pause();
        let begun = Instant::now();
        assert_eq!(next(&mut body, "proxies").await["proxies"][0]["state"], "STALE");
        let after = begun.elapsed();
        let due = Duration::from_secs(180);
        assert!((due - Duration::from_secs(5)..due + Duration::from_secs(5)).contains(&after), "{after:?}");

        hand.stop();
        assert!(body.frame().await.is_none(), "it ends with the server");
        working.await.unwrap();
    }
}
