//! Signs of life of one connection: that the caller is there, and that it read what it was sent.
//!
//! A ping is answered by the caller's HTTP/2 once it has read all that was sent before it. So an answer says that the
//! caller is there, and that the lists before the ping are read. A ping is sent every once in a while, soon
//! after a list of which the caller does not speak by itself, and at once when another list waits for that one to be read.
//! Always: one ping at a time; who does not answer in time is given up. Never: asks while a list goes out, so that a push
//! costs one write.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::listen::{Bounds, Peer, STALLED};

/// How long after a list it is asked whether it was read, if nothing else asks: when a push to all is over, and before the
/// next change comes. Each connection adds up to as much again, so that they do not all ask at once.
const ASK_AFTER_LIST: Duration = Duration::from_millis(300);

/// The number of a ping: one that is sent later is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PingNumber(u64);

/// What was heard, or was not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// A ping was answered.
    Answered,
    /// A ping was sent.
    Asked,
    /// Nothing was asked for yet, and the time for that is over.
    Idle,
    /// The caller does not answer.
    None,
}

/// See the module.
pub(super) struct Life {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    ask_after_list: Duration,
    /// When the first request must be there; `None` once it is.
    first_request: Option<Instant>,
    sent: u64,
    answered: u64,
    /// When the ping that is on its way must be answered.
    answer_until: Option<Instant>,
    /// Whether a list was sent since the last ping.
    list_unasked: bool,
    /// When to ask next.
    ask_at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Life {
    pub(super) fn new(pings: PingPong, peer: Peer, bounds: &Bounds, first_request: Duration) -> Life {
        let now = Instant::now();
        let share = f64::from(peer.address.port() % 256) / 256.0;
        let (first_request, ask_at) = (now + first_request, now + bounds.keep_alive_interval);
        Life {
            pings,
            interval: bounds.keep_alive_interval,
            timeout: bounds.keep_alive_timeout,
            ask_after_list: ASK_AFTER_LIST.mul_f64(1.0 + share),
            first_request: Some(first_request),
            sent: 0,
            answered: 0,
            answer_until: None,
            list_unasked: false,
            ask_at,
            timer: Box::pin(sleep_until(first_request.min(ask_at))),
        }
    }

    /// The caller asked for something.
    pub(super) fn first_request_came(&mut self) {
        self.first_request = None;
    }

    /// A list was handed to the connection. The ping whose answer says that it was read.
    pub(super) fn list_went(&mut self) -> PingNumber {
        self.list_unasked = true;
        self.ask_at = self.ask_at.min(Instant::now() + self.ask_after_list);
        PingNumber(self.sent + 1)
    }

    /// Every list is known to be read: nobody needs to be asked soon.
    pub(super) fn lists_are_read(&mut self) {
        if std::mem::take(&mut self.list_unasked) {
            self.ask_at = Instant::now() + self.interval;
        }
    }

    /// Whether this ping was answered.
    pub(super) fn has_answered(&self, ping: PingNumber) -> bool {
        self.answered >= ping.0
    }

    /// Somebody waits for the answer to this ping: if it was not sent yet, it is to be now.
    pub(super) fn ask_now(&mut self, ping: PingNumber) {
        if self.sent < ping.0 {
            self.ask_at = Instant::now();
        }
    }

    /// What was heard.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Sign> {
        if self.answer_until.is_some()
            && let Poll::Ready(answer) = self.pings.poll_pong(cx)
        {
            // Otherwise the connection is at its end, which it says itself.
            if answer.is_ok() {
                self.answered = self.sent;
                self.answer_until = None;
                if !self.list_unasked {
                    self.ask_at = Instant::now() + self.interval;
                }
                return Poll::Ready(Sign::Answered);
            }
        }
        let now = Instant::now();
        if self.first_request.is_some_and(|until| until <= now) {
            return Poll::Ready(Sign::Idle);
        }
        let next = match self.answer_until {
            Some(until) if until <= now => return Poll::Ready(Sign::None),
            Some(until) => until,
            None if self.ask_at <= now => return self.ask(now),
            None => self.ask_at,
        };
        let next = self.first_request.map_or(next, |until| until.min(next));
        // Moving a timer costs more than letting one ring that finds nothing to do.
        if self.timer.deadline() > next || self.timer.deadline() <= now {
            self.timer.as_mut().reset(next);
        }
        match self.timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // It rang in this very moment: look again.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn ask(&mut self, now: Instant) -> Poll<Sign> {
        // It fails when the connection is at its end, which it says itself.
        let _ = self.pings.send_ping(Ping::opaque());
        self.sent += 1;
        // A list may be large, and the way slow.
        let patience = if self.list_unasked { self.timeout.max(STALLED) } else { self.timeout };
        self.answer_until = Some(now + patience);
        self.list_unasked = false;
        Poll::Ready(Sign::Asked)
    }
}
