//! One call: the request to the router, the answer to the caller.
//!
//! Always: a call whose caller gave up, or takes nothing for 30 s, is dropped; bytes go out as fast as the caller takes them,
//! and no faster are they asked for. An answer that is a feed is handed back.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::ServiceExt;

use super::body::RequestBody;
use super::feeding::Feeding;
use crate::listen::feed::FeedSlot;
use crate::listen::{Peer, STALLED};

/// Headers of a connection, which HTTP/2 does not have (RFC 9113, 8.2.2).
const OF_A_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Answers one call to its end, or up to where its feed begins.
pub(super) async fn answer(
    router: Router,
    peer: Peer,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<Feeding> {
    let (mut parts, stream) = request.into_parts();
    parts.extensions.insert(peer);
    let (body, unwanted) = RequestBody::new(stream, &parts.headers);
    let body = Body::new(body);
    let response = {
        let mut answering = pin!(router.oneshot(Request::from_parts(parts, body)));
        poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
            Poll::Ready(Err(never)) => match never {},
            // The caller may give up meanwhile.
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await?
    };
    let (mut head, body) = response.into_parts();
    let feed = head.extensions.remove::<FeedSlot>().and_then(|slot| slot.take());
    complete(&mut head.headers, &body, feed.is_some());
    let is_over = feed.is_none() && body.is_end_stream();
    // It fails if the caller gave up, or for a header that HTTP/2 does not have; then h2 has ended the stream.
    let answer = respond.send_response(Response::from_parts(head, ()), is_over);
    let stream = answer.inspect_err(|error| tracing::debug!(%error, "an answer could not be sent")).ok()?;
    match feed {
        Some(feed) => Some(Feeding::new(feed, stream)),
        None => {
            if !is_over {
                send(body, stream).await;
            }
            unwanted.read().await;
            None
        }
    }
}

/// Adds what every answer has, and takes away what HTTP/2 does not have.
fn complete(headers: &mut HeaderMap, body: &Body, is_feed: bool) {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    if !headers.contains_key(header::DATE) {
        let now =
            jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
        if let Some(now) = now.ok().and_then(|now| HeaderValue::try_from(now).ok()) {
            headers.insert(header::DATE, now);
        }
    }
    if let Some(length) = body.size_hint().exact().filter(|_| !is_feed && !body.is_end_stream()) {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

/// Sends a body, and its trailers. Whoever dropped the stream, on either side, wants no more of it.
async fn send(mut body: Body, mut stream: SendStream<Bytes>) {
    loop {
        // What is sent without room for it would lie in memory.
        let frame = tokio::select! {
            biased;
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
            frame = body.frame() => frame,
        };
        let sent = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => send_all(bytes, &mut stream, body.is_end_stream()).await,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => {
                        let _ = stream.send_trailers(trailers);
                        return;
                    }
                    Err(_) => Ok(()),
                },
            },
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return;
            }
            None => {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
        };
        if sent.is_err() || body.is_end_stream() {
            return;
        }
    }
}

/// Sends bytes as there is room for them.
async fn send_all(mut bytes: Bytes, stream: &mut SendStream<Bytes>, is_last: bool) -> Result<(), h2::Error> {
    loop {
        if bytes.is_empty() {
            return if is_last { stream.send_data(bytes, true) } else { Ok(()) };
        }
        stream.reserve_capacity(bytes.len());
        let room = match stream.capacity() {
            0 => match timeout(STALLED, poll_fn(|cx| poll_room(stream, cx))).await {
                Ok(Some(room)) => room?,
                Ok(None) => return Err(Reason::CANCEL.into()),
                Err(_) => {
                    stream.send_reset(Reason::CANCEL);
                    return Err(Reason::CANCEL.into());
                }
            },
            room => room,
        };
        let part = bytes.split_to(room.min(bytes.len()));
        let ends = is_last && bytes.is_empty();
        stream.send_data(part, ends)?;
        if ends {
            return Ok(());
        }
    }
}

/// Waits for room, or for the caller's giving up.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    cx: &mut std::task::Context<'_>,
) -> Poll<Option<Result<usize, h2::Error>>> {
    if let Poll::Ready(reset) = stream.poll_reset(cx) {
        return Poll::Ready(Some(Err(reset.map_or_else(|error| error, Into::into))));
    }
    stream.poll_capacity(cx)
}
