//! One feed on its stream: what goes out, and when.
//!
//! Always: a list goes only when the one before it was read (but for its last 64 KiB, which h2 may hold while the socket
//! takes nothing: a ping overtakes them), and what goes then is the newest; a message is handed to the
//! connection in parts for which the caller has room; a stream that stays blocked is ended, with its reason.
//! Never: holds more than what is left of one message, whose bytes all streams share.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use tokio::time::{Sleep, sleep};

use super::life::{Life, PingNumber};
use crate::listen::STALLED;
use crate::listen::feed::{Feed, Next, Room};
use crate::listen::shards::PushTurn;

/// Whether a stream goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fed {
    /// It waits: for news, for room, or for a sign that the caller reads.
    Waiting,
    /// It is over.
    Ended,
}

/// What is left of a message.
struct Rest {
    bytes: Bytes,
    is_list: bool,
    /// Since nothing of it could be sent.
    blocked: Option<Pin<Box<Sleep>>>,
}

/// A feed and the stream that it goes to.
pub(super) struct Feeding {
    feed: Box<dyn Feed>,
    stream: SendStream<Bytes>,
    rest: Option<Rest>,
    /// The ping whose answer says that the last list was read.
    unread: Option<PingNumber>,
    waits: Waits,
}

/// What the feed waits for, beside the ring with which it says that there is something new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    /// To be asked: it is new, or something else happened.
    Question,
    /// For more room than this.
    MoreRoom(Room),
    /// For nothing.
    No,
}

impl Feeding {
    pub(super) fn new(feed: Box<dyn Feed>, stream: SendStream<Bytes>) -> Feeding {
        Feeding { feed, stream, rest: None, unread: None, waits: Waits::Question }
    }

    /// There may be something that did not ring.
    pub(super) fn look_again(&mut self) {
        self.waits = Waits::Question;
    }

    /// Sends what there is room for; what is new only in a turn to push. `None`: it is always its turn.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, turn: Option<&PushTurn>, life: &mut Life) -> Fed {
        // Also an error: the stream is gone.
        if self.stream.poll_reset(cx).is_ready() {
            return Fed::Ended;
        }
        if self.unread.is_some_and(|ping| life.has_answered(ping) || self.feed.is_read()) {
            self.unread = None;
        }
        loop {
            let room = match self.send_rest(cx, life) {
                Ok(true) if self.unread.is_some() => Room::ListUnread,
                Ok(true) => Room::Free,
                Ok(false) => Room::None,
                Err(Gone) => return Fed::Ended,
            };
            let next = match turn {
                None => self.feed.poll_next(cx, room),
                Some(turn) if turn.is_on() => {
                    self.feed.poll_next(&mut Context::from_waker(turn.waker()), room)
                }
                Some(turn) => {
                    if !matches!(self.waits, Waits::No) && self.waits != Waits::MoreRoom(room) {
                        turn.waker().wake_by_ref();
                    }
                    return self.patience(cx);
                }
            };
            self.waits = if matches!(next, Next::Waits) { Waits::MoreRoom(room) } else { Waits::No };
            match next {
                Next::Message { frame, is_list } => {
                    debug_assert!(room != Room::None, "there is no room");
                    self.rest = Some(Rest { bytes: frame, is_list, blocked: None });
                }
                Next::End(trailers) => return self.end(trailers),
                Next::Waits => {
                    if let (Room::ListUnread, Some(ping)) = (room, self.unread) {
                        life.ask_now(ping);
                    }
                    return self.patience(cx);
                }
                Next::Nothing => return self.patience(cx),
            }
        }
    }

    /// Whether a list is on its way that is not known to be read.
    pub(super) fn has_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// The caller gave no sign of life: tells the feed, and the caller, if there is room for it.
    pub(super) fn give_up(&mut self) {
        let trailers = self.feed.give_up();
        self.end(trailers);
    }

    /// Sends what is left of the last message. Says whether that was all.
    fn send_rest(&mut self, cx: &mut Context<'_>, life: &mut Life) -> Result<bool, Gone> {
        let Some(rest) = &mut self.rest else { return Ok(true) };
        while !rest.bytes.is_empty() {
            self.stream.reserve_capacity(rest.bytes.len());
            let room = match self.stream.capacity() {
                0 => match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(_) => return Err(Gone),
                    Poll::Pending => {
                        rest.blocked.get_or_insert_with(|| Box::pin(sleep(STALLED)));
                        return Ok(false);
                    }
                },
                room => room,
            };
            let part = rest.bytes.split_to(room.min(rest.bytes.len()));
            self.stream.send_data(part, false).map_err(|_| Gone)?;
            rest.blocked = None;
        }
        if rest.is_list {
            self.unread = Some(life.list_went());
        }
        self.rest = None;
        Ok(true)
    }

    /// Goes on waiting, unless the stream was blocked for too long.
    fn patience(&mut self, cx: &mut Context<'_>) -> Fed {
        let blocked = self.rest.as_mut().and_then(|rest| rest.blocked.as_mut());
        match blocked.map(|blocked| blocked.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => {
                let trailers = self.feed.give_up();
                self.end(trailers)
            }
            _ => Fed::Waiting,
        }
    }

    /// Ends the stream. A message that was not sent to its end stays so: the trailers say why.
    fn end(&mut self, trailers: HeaderMap) -> Fed {
        if self.stream.send_trailers(trailers).is_err() {
            self.stream.send_reset(Reason::CANCEL);
        }
        Fed::Ended
    }
}

/// The stream is gone.
struct Gone;
