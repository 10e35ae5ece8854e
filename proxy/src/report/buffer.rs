//! The reports that are not known to be on the server's disk, in the order in which they were made.
//!
//! In: rounds, and the server's answers. Out: the next report to send.
//! Always: bounded in time and bytes; a sequence is used once in a session; what leaves is durable, refused or too old.
//! Never: waits, or knows the network or the disk.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use prost::Message;
use prost::bytes::Bytes;
use pulse_proto::v1::{ReportTemperaturesRequest, ReportTemperaturesResponse};
use tokio::time::Instant;
use uuid::Uuid;

use super::wire;
use crate::collect::NodeReading;

/// The longest time that a report waits.
pub const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// The most bytes that wait, as they are sent.
pub const MAX_BYTES: usize = 4 << 20;

/// Which report: the session that made it, and its place in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) session: Uuid,
    pub(super) sequence: u64,
}

/// A report that waits, encoded: half the memory of its parts.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) key: Key,
    pub(super) encoded: Bytes,
    since: Instant,
    /// Whether it holds a temperature, and not only reasons why there is none.
    has_readings: bool,
    /// Whether the server has answered it since the way to it was last lost.
    is_sent: bool,
}

/// The reports that wait.
#[derive(Debug)]
pub(super) struct Buffer {
    session: Uuid,
    next_sequence: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Dropped since the buffer was last empty.
    dropped: u64,
}

impl Buffer {
    /// Begins a session. `earlier` are the reports of sessions before, in their order; time in which no proxy ran
    /// does not make them older.
    pub(super) fn new(earlier: Vec<ReportTemperaturesRequest>) -> Buffer {
        let mut buffer = Buffer {
            session: Uuid::now_v7(),
            next_sequence: 1,
            waiting: VecDeque::new(),
            bytes: 0,
            dropped: 0,
        };
        let newest = earlier.iter().filter_map(collected_at).max();
        let now = Instant::now();
        for request in earlier {
            // Damaged files are told by their hash; what is no report all the same is of no use to anybody.
            let Ok(session) = request.session.parse() else { continue };
            let key = Key { session, sequence: request.sequence };
            let age =
                newest.zip(collected_at(&request)).and_then(|(newest, at)| newest.duration_since(at).ok());
            let since = age.and_then(|age| now.checked_sub(age)).unwrap_or(now);
            buffer.append(Waiting::new(key, &request, since));
        }
        buffer.drop_oldest();
        buffer
    }

    /// Takes a round, and drops what has waited too long or is too much.
    pub(super) fn push(&mut self, round: &[NodeReading]) {
        for reports in wire::grouped(round, wire::MAX_REPORT_BYTES) {
            let key = Key { session: self.session, sequence: self.next_sequence };
            self.next_sequence += 1;
            let session = key.session.as_hyphenated().to_string();
            let request = ReportTemperaturesRequest { session, sequence: key.sequence, reports };
            self.append(Waiting::new(key, &request, Instant::now()));
        }
        self.drop_oldest();
    }

    /// The oldest report that the server has not answered.
    pub(super) fn next(&self) -> Option<&Waiting> {
        self.waiting.iter().find(|report| !report.is_sent)
    }

    /// Forgets that reports were sent: what the server had not on its disk may be lost.
    pub(super) fn send_again(&mut self) {
        for report in &mut self.waiting {
            report.is_sent = false;
        }
    }

    /// Takes the server's answer to a report: forgets what is on its disk and what it refuses by name.
    pub(super) fn answered(&mut self, key: Key, answer: &ReportTemperaturesResponse) {
        let is_durable = |report: &Waiting| {
            report.key.session == key.session
                && report.key.sequence <= answer.durable_sequence
                // Never more than was sent, whatever the server says.
                && (report.is_sent || report.key == key)
        };
        self.retain(|report| !is_durable(report));
        let Some(at) = self.waiting.iter().position(|report| report.key == key) else { return };
        self.waiting[at].is_sent = true;
        if answer.refused.is_empty() {
            return;
        }
        let mut request = self.waiting[at].request();
        request.reports.retain(|report| !answer.refused.iter().any(|refused| refused.node == report.node));
        if request.reports.is_empty() {
            self.remove(key);
            return;
        }
        let report = Waiting { is_sent: true, ..Waiting::new(key, &request, self.waiting[at].since) };
        self.bytes = self.bytes - self.waiting[at].encoded.len() + report.encoded.len();
        self.waiting[at] = report;
    }

    /// Forgets one report.
    pub(super) fn remove(&mut self, key: Key) {
        self.retain(|report| report.key != key);
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.dropped = 0;
        self.retain(|_| false);
    }

    /// All that wait, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How long the oldest has waited.
    pub(super) fn oldest_age(&self) -> Option<Duration> {
        self.waiting.front().map(|report| report.since.elapsed())
    }

    fn append(&mut self, report: Waiting) {
        self.bytes += report.encoded.len();
        self.waiting.push_back(report);
    }

    fn retain(&mut self, keep: impl Fn(&Waiting) -> bool) {
        let bytes = &mut self.bytes;
        self.waiting.retain(|report| {
            let keep = keep(report);
            if !keep {
                *bytes -= report.encoded.len();
            }
            keep
        });
        if self.waiting.is_empty() && self.dropped > 0 {
            tracing::info!(dropped = self.dropped, "no report waits any more: no more are dropped");
            self.dropped = 0;
        }
    }

    /// Drops the oldest until the bounds are kept. Where bytes are short, reports without a temperature go first: they
    /// are told again, and the reasons of a long list must not push readings out.
    fn drop_oldest(&mut self) {
        let mut dropped = 0;
        while self.waiting.front().is_some_and(|report| report.since.elapsed() > MAX_AGE) {
            self.drop_at(0);
            dropped += 1;
        }
        // The newest stays, however large it is.
        while self.bytes > MAX_BYTES && self.waiting.len() > 1 {
            let older = self.waiting.len() - 1;
            let at = self.waiting.iter().take(older).position(|report| !report.has_readings).unwrap_or(0);
            self.drop_at(at);
            dropped += 1;
        }
        if dropped > 0 && self.dropped == 0 {
            tracing::warn!(
                max_age_seconds = MAX_AGE.as_secs(),
                max_bytes = MAX_BYTES,
                "the server has been away for too long: the oldest reports are dropped"
            );
        }
        self.dropped += dropped;
    }

    fn drop_at(&mut self, at: usize) {
        if let Some(report) = self.waiting.remove(at) {
            self.bytes -= report.encoded.len();
        }
    }
}

impl Waiting {
    fn new(key: Key, request: &ReportTemperaturesRequest, since: Instant) -> Waiting {
        Waiting {
            key,
            encoded: request.encode_to_vec().into(),
            since,
            has_readings: request.reports.iter().any(|report| !report.readings.is_empty()),
            is_sent: false,
        }
    }

    /// Whether the server has answered it, without having it on its disk yet.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// The report as it is sent.
    pub(super) fn request(&self) -> ReportTemperaturesRequest {
        ReportTemperaturesRequest::decode(self.encoded.clone()).expect("it was encoded here")
    }
}

/// When the newest node of a report was read.
fn collected_at(request: &ReportTemperaturesRequest) -> Option<SystemTime> {
    request.reports.iter().filter_map(|report| SystemTime::try_from(report.collected_at?).ok()).max()
}

#[cfg(test)]
mod tests;
