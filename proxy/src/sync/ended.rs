//! What the end of a stream means, and how long to leave the server alone then.
//!
//! In: [`Ended`]. Out: a wait. Always: what the server asks for is waited in full; beyond that, a new token, a new
//! registration or a sign that the server is back ends the wait. Never: dials.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Sync;
use super::trouble::Trouble;
use crate::backoff::Wait;
use crate::gate::{Closed, InForce};
use crate::link::Failure;
use crate::telemetry::chain;

/// A stream that lived this long was a good one: the next wait is short again.
const GOOD_STREAM: Duration = Duration::from_secs(60);

/// How often a waiting proxy looks for a new token or a new registration. Both are small files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How long to leave a server alone that refuses this proxy, unless there is a new token.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// How long to wait after another stream took over.
const REPLACED_PAUSE: Duration = Duration::from_secs(1);

/// How long a revoked proxy, or one without a token, sleeps between looks; only news ends it.
pub(super) const IDLE_PAUSE: Duration = Duration::from_secs(10 * 60);

/// How a stream ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The server is away, or failing.
    Failed(Failure),
    /// Nothing was heard for too long.
    Silent(Duration),
    /// The server said when to come back.
    Goodbye(Duration, String),
    /// There is a new token, or another registration: the next stream goes by it.
    Renewed,
    /// The server closed the stream without a word.
    Closed,
}

impl Sync {
    /// Sorts the end of a stream into how long to wait before the next.
    pub(super) fn after(&mut self, ended: Ended, lived: Duration) -> Wait {
        if lived >= GOOD_STREAM {
            self.backoff.reset();
        }
        match ended {
            Ended::Renewed => Wait::firm(Duration::ZERO),
            Ended::Goodbye(wait, reason) => {
                tracing::info!(
                    reason,
                    wait_seconds = wait.as_secs_f64(),
                    "the server ends the stream; this proxy comes back"
                );
                if wait.is_zero() {
                    // Without a slot of its own it is one of many, and the server may say the same again.
                    return self.backoff.next(None).made_firm();
                }
                self.backoff.reset();
                Wait::asked(wait)
            }
            Ended::Closed => {
                self.begin(Trouble::Unreachable, "the server closed the stream");
                self.backoff.next(None).made_firm()
            }
            Ended::Silent(limit) => {
                self.link.redial();
                let text = format!("nothing was heard for {} s: the list may be stale", limit.as_secs());
                self.begin(Trouble::Unreachable, &text);
                self.backoff.next(None)
            }
            Ended::Failed(failure) => self.after_failure(&failure),
        }
    }

    fn after_failure(&mut self, failure: &Failure) -> Wait {
        match failure {
            Failure::Revoked(reason) => {
                self.revoke(reason);
                Wait::firm(IDLE_PAUSE)
            }
            Failure::UnknownToken(text) => {
                if self.standing.take_back_token() {
                    tracing::info!(
                        "the token of the last rotation is not known to the server; the one before is used"
                    );
                    return Wait::firm(Duration::ZERO);
                }
                self.begin(Trouble::UnknownToken, text);
                self.backoff.next(Some(REFUSED_PAUSE)).made_firm()
            }
            Failure::Replaced(text) => {
                // It may have been a `sync` on this host; two proxies with one token back off from each other.
                self.begin(Trouble::Replaced, text);
                self.backoff.next(Some(REPLACED_PAUSE)).made_firm()
            }
            Failure::Refused(text) => {
                self.begin(Trouble::Refused, text);
                self.backoff.next(Some(REFUSED_PAUSE)).made_firm()
            }
            Failure::Unreachable(text) => {
                self.begin(Trouble::Unreachable, text);
                self.backoff.next(None)
            }
            // It may be mended at the other end, for example by a certificate that is put in place.
            Failure::WrongServer(text) => {
                self.begin(Trouble::WrongServer, text);
                self.backoff.next(None)
            }
            Failure::Unavailable { text, retry_after } => {
                self.begin(Trouble::Unreachable, text);
                // It answers, so an answer to a report is no news.
                self.backoff.next_asked(*retry_after).made_firm()
            }
        }
    }

    /// Closes the gate for good, on the disk too.
    fn revoke(&mut self, reason: &str) {
        if let Err(error) = self.standing.revoke(reason) {
            tracing::error!(error = %chain(&error), "the revocation is not on the disk: it counts until this program ends");
        }
        self.gate.put(InForce::Nothing(Closed::Revoked(reason.to_owned())));
        self.unreported = None;
        self.follow_standing();
        self.begin(Trouble::Revoked, reason);
    }

    /// Waits, and looks meanwhile whether a new token or a registration makes waiting pointless; but what the server asks
    /// for is waited in full. An answer to a report says that the server is back: then only the least is waited for.
    pub(super) async fn pause(&mut self, wait: Wait) {
        let begun = Instant::now();
        let mut until = begun + wait.total();
        let mut answered = pin!(self.link.answered());
        let mut is_answered = false;
        while Instant::now() < until {
            tokio::select! {
                biased;
                () = sleep_until(until.min(Instant::now() + LOOK_INTERVAL)) => {}
                () = &mut answered, if !is_answered => {
                    is_answered = true;
                    until = begun + wait.least();
                    continue;
                }
            }
            if Instant::now() < begun + wait.asked {
                continue;
            }
            let has_pending = || self.standing.home().pending().is_ok_and(|pending| pending.is_some());
            // Only those who wait for a person wait this long.
            if wait.floor >= REFUSED_PAUSE && !self.is_registered() && has_pending() {
                return;
            }
            if self.standing.refresh() {
                self.backoff.reset();
                return;
            }
        }
    }
}
