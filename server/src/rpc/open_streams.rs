//! Streams that need no token: reflection, and the watch of a server's health.
//!
//! Always: few at one time; none outlives the drain by more than a moment, and no reflection stream its caller's need,
//! so that an idle one holds nothing up. Never: looks at what is asked.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response};
use axum::middleware::Next;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pulse_proto::reason;
use tonic::Code;

use super::Rpc;
use super::limited;
use super::status::retry;
use crate::limits::{OVERLOAD_RETRY, Slot};

/// How long a reflection stream may be there: a client asks some questions at once.
const REFLECTION: Duration = Duration::from_secs(60);
/// What a stream has at a drain to end by itself: those who watch the health hear first that the server goes down.
const GRACE: Duration = Duration::from_millis(500);

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The layer.
pub(super) async fn bound(State(rpc): State<Arc<Rpc>>, request: Request<Body>, next: Next) -> Response<Body> {
    let peer = limited::peer_of(request.extensions());
    let longest = match request.uri().path().rsplit('/').next() {
        Some("ServerReflectionInfo") => Some(REFLECTION),
        Some("Watch") => None,
        // A unary call, which the deadline of calls bounds.
        _ => return next.run(request).await,
    };
    let Some(slot) = rpc.limits.open_stream() else {
        return limited::overloaded(&rpc, limited::source(peer)).into_http();
    };
    let end = |later: Duration| -> End {
        let drain = rpc.drain.clone();
        Box::pin(async move {
            tokio::select! {
                () = async { drain.started().await; tokio::time::sleep(GRACE).await } => {}
                () = lasting(longest) => {}
            }
            tokio::time::sleep(later).await;
        })
    };
    // Both halves: a service that waits for questions would never see that its answers end. The answers first, so that
    // they end with a status that says why.
    let (asked, answered) = (end(GRACE), end(Duration::ZERO));
    let request = request.map(|body| until(body, asked, None, None));
    next.run(request).await.map(|body| until(body, answered, Some(farewell()), Some(slot)))
}

async fn lasting(longest: Option<Duration>) {
    match longest {
        Some(longest) => tokio::time::sleep(longest).await,
        None => std::future::pending().await,
    }
}

/// The status with which a stream ends that did not end by itself.
fn farewell() -> HeaderMap {
    let text = "the stream was open for long enough, or the server goes down: begin another";
    let status = retry(Code::Unavailable, reason::DRAINING, text, OVERLOAD_RETRY);
    let mut trailers = HeaderMap::new();
    // Only a status whose text is no header's could fail, and this one is.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// The body until `end`, and the trailers then; `slot` is held as long.
fn until(body: Body, end: End, trailers: Option<HeaderMap>, slot: Option<Slot>) -> Body {
    let frames = stream::unfold(Some((body, end, trailers, slot)), |state| async move {
        let (mut body, mut end, trailers, slot) = state?;
        tokio::select! {
            biased;
            frame = body.frame() => {
                frame.map(|frame| (frame, Some((body, end, trailers, slot))))
            }
            () = &mut end => trailers.map(|trailers| (Ok(Frame::trailers(trailers)), None)),
        }
    });
    Body::new(StreamBody::new(frames))
}
