//! [`Ring`]: the newest events, by number.
//!
//! Always: bounded, in events and in bytes; the oldest goes first. Numbers rise by one, but where all was forgotten.

use std::collections::VecDeque;

use bytes::Bytes;

/// What an event takes in memory beside its text: its place in the ring, and the count of those who share it.
const EVENT_BYTES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// The number of the newest event, in the ring or before it.
    newest: u64,
    most_events: usize,
    most_bytes: usize,
}

/// What stands behind a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Sought {
    /// The event with the next number.
    Event(Bytes),
    /// Nothing yet.
    NotYet,
    /// What is not in the ring any more.
    Gone {
        /// The number to go on behind.
        newest: u64,
    },
}

impl Ring {
    pub(super) fn new(most_events: usize, most_bytes: usize) -> Ring {
        Ring { events: VecDeque::new(), bytes: 0, newest: 0, most_events, most_bytes }
    }

    /// The number of the newest event.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Adds an event, with the next number.
    pub(super) fn push(&mut self, event: Bytes) {
        self.newest += 1;
        self.bytes += event.len() + EVENT_BYTES;
        self.events.push_back(event);
        while self.events.len() > self.most_events || self.bytes > self.most_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.len() + EVENT_BYTES;
        }
    }

    /// Forgets all events, and what is told next does not follow on them.
    pub(super) fn forget(&mut self) {
        self.events = VecDeque::new();
        self.bytes = 0;
        self.newest += 1;
    }

    /// Whether everything behind this number is there, or is yet to come.
    pub(super) fn has_all_after(&self, number: u64) -> bool {
        number <= self.newest && self.newest - number <= self.events.len() as u64
    }

    /// What stands behind a number.
    pub(super) fn after(&self, number: u64) -> Sought {
        if number == self.newest {
            return Sought::NotYet;
        }
        let behind = usize::try_from(self.newest.saturating_sub(number)).unwrap_or(usize::MAX);
        let place = self.events.len().checked_sub(behind).filter(|_| number < self.newest);
        match place.and_then(|place| self.events.get(place)) {
            Some(event) => Sought::Event(event.clone()),
            None => Sought::Gone { newest: self.newest },
        }
    }
}
