//! One connection of HTTP/2: its calls, its feeds and its signs of life, in one task.
//!
//! In: a stream, a router. Out: requests to the router, answers to the caller; an answer that is a [`Feed`] is sent by the
//! connection itself, message by message.
//! Always: what is to be said is said before the connection is looked at, so that one turn writes all of it; a caller
//! that takes nothing is let go. Never: queues a list behind another.
//!
//! hyper would serve calls as well. It takes a second task and some boxes for each stream, and has neither the means to
//! ask whether a message was read, nor to send one that ends a stream whose last one is blocked.

mod answer;
mod body;
mod feeding;
mod life;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite};

use self::feeding::{Fed, Feeding};
use self::life::{Life, Sign};
use super::shards::PushTurn;
use super::{Bounds, Peer};

/// What a request's body may bring before the router has read it: 64 KiB for a call, 256 KiB for a connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// What a slow reader may leave unsent in memory, for each call.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// After so many requests, one after the other, of one connection others have their turn.
const REQUESTS_OF_A_TURN: usize = 32;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Its caller, or a drain, closed it.
    Closed,
    /// An error of HTTP/2 or of the network.
    Failed(h2::Error),
    /// Nothing was asked in the time that a new connection has for it.
    Idle,
    /// The caller gave no sign of life, or did not read what it was sent.
    Silent,
}

type Call = Pin<Box<dyn Future<Output = Option<Feeding>> + Send>>;

/// A connection that is served.
pub(super) struct Http2<S> {
    connection: Connection<S, Bytes>,
    router: Router,
    peer: Peer,
    /// Calls that are not answered to their end; `None` while there are none, which is most of the time.
    calls: Option<Box<FuturesUnordered<Call>>>,
    feeds: Vec<Feeding>,
    /// When it may push; `None`: always.
    turn: Option<PushTurn>,
    life: Life,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2<S> {
    /// Shakes hands. The caller bounds the time.
    ///
    /// # Errors
    /// The caller does not speak HTTP/2, or went away.
    pub(super) async fn begin(
        stream: S,
        router: Router,
        peer: Peer,
        bounds: &Bounds,
        first_request: Duration,
    ) -> Result<Http2<S>, h2::Error> {
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(bounds.streams_per_connection)
            .max_header_list_size(bounds.header_list_bytes)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES);
        let mut connection: Connection<S, Bytes> = builder.handshake(stream).await?;
        let pings = connection.ping_pong().expect("it is taken once");
        let life = Life::new(pings, peer, bounds, first_request);
        Ok(Http2 { connection, router, peer, calls: None, feeds: Vec::new(), turn: None, life })
    }

    /// Takes no new calls; those that run go on to their end.
    pub(super) fn begin_to_drain(&mut self) {
        self.connection.graceful_shutdown();
        // They say goodbye.
        self.feeds.iter_mut().for_each(Feeding::look_again);
    }

    /// From now on it pushes only when it has its turn.
    pub(super) fn push_by(&mut self, turn: Option<PushTurn>) {
        self.turn = turn;
    }

    /// Whether it has a feed, as most have for most of their life.
    pub(super) fn is_pushed_to(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// Serves until the connection ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut requests = 0;
        loop {
            self.answer(cx);
            self.feed(cx);
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.life.first_request_came();
                    let call = answer::answer(self.router.clone(), self.peer, request, respond);
                    self.calls.get_or_insert_default().push(Box::pin(guarded(call)));
                    requests += 1;
                    if requests == REQUESTS_OF_A_TURN {
                        // Others have their turn.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(End::Failed(error)),
                Poll::Ready(None) => return Poll::Ready(End::Closed),
                Poll::Pending => {}
            }
            match self.life.poll(cx) {
                // What waited for it can go now; a ping that was just sent is still to be written.
                Poll::Ready(Sign::Answered | Sign::Asked) => {}
                Poll::Ready(Sign::Idle) => return Poll::Ready(End::Idle),
                Poll::Ready(Sign::None) => {
                    self.feeds.iter_mut().for_each(Feeding::give_up);
                    // Why its streams end goes out if there is room for it, then that the connection does.
                    let _ = self.connection.poll_closed(cx);
                    self.connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                    let _ = self.connection.poll_closed(cx);
                    return Poll::Ready(End::Silent);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Goes on with the calls; those whose answer is a feed are answered by [`Http2::feed`] from then on.
    fn answer(&mut self, cx: &mut Context<'_>) {
        let Some(calls) = &mut self.calls else { return };
        loop {
            match calls.poll_next_unpin(cx) {
                Poll::Ready(Some(feeding)) => self.feeds.extend(feeding),
                Poll::Ready(None) => {
                    self.calls = None;
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Has each feed send what there is room for.
    fn feed(&mut self, cx: &mut Context<'_>) {
        let mut at = 0;
        while at < self.feeds.len() {
            match self.feeds[at].poll(cx, self.turn.as_ref(), &mut self.life) {
                Fed::Waiting => at += 1,
                Fed::Ended => drop(self.feeds.swap_remove(at)),
            }
        }
        if !self.feeds.iter().any(Feeding::has_unread) {
            self.life.lists_are_read();
        }
    }
}

/// A call that panics is a defect of its own: its stream is reset, and the others of its connection go on.
async fn guarded(call: impl Future<Output = Option<Feeding>>) -> Option<Feeding> {
    let answered = AssertUnwindSafe(call).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        tracing::error!("a call panicked, which is a defect: its stream is reset");
        None
    })
}
