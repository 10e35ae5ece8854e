//! How much is measured: everything, what goes in two minutes, or just enough to see that the bench itself works.

use std::time::Duration;

use crate::rounds::SHORT_PAUSE;

/// How much, and how long.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Names the runs that can be compared with each other.
    pub(crate) kind: &'static str,
    /// Numbers of clients.
    pub(crate) clients: &'static [usize],
    /// Rounds of pushes for each size of list, and those before them that do not count.
    pub(crate) rounds: u32,
    pub(crate) warm_up: u32,
    /// How long a server that goes on later with what a push brought about is left alone for that, before the next peer's turn:
    /// Pulse saves every 2 s what it sent.
    pub(crate) later: Duration,
    /// Pushes that are compared with and without clients that stall.
    pub(crate) compared: u32,
    /// How long memory is left alone before it is looked at.
    pub(crate) settle: Duration,
    /// How long a load of reports lasts, in milliseconds.
    pub(crate) load_ms: u64,
    /// Loads of as many reports as go, for each server.
    pub(crate) loads: u64,
    /// Storms of each server.
    pub(crate) storms: usize,
    /// Instances beside the one that changes.
    pub(crate) instances: usize,
    /// Changes in one of them.
    pub(crate) changes: usize,
}

/// What the targets ask for: twenty minutes on two cores.
pub(crate) const FULL: Pace = Pace {
    kind: "full",
    clients: &[1_000, 5_000, 10_000],
    rounds: 9,
    warm_up: 2,
    later: Duration::from_millis(2_300),
    compared: 10,
    settle: Duration::from_secs(2),
    load_ms: 5_000,
    loads: 3,
    storms: 3,
    instances: 2_000,
    changes: 15,
};

/// Some two minutes.
pub(crate) const QUICK: Pace = Pace {
    kind: "quick",
    clients: &[1_000],
    rounds: 5,
    warm_up: 1,
    later: SHORT_PAUSE,
    compared: 4,
    settle: Duration::from_millis(500),
    load_ms: 2_000,
    loads: 1,
    storms: 1,
    instances: 200,
    changes: 7,
};

/// Whether the bench works, not what the figures are.
pub(crate) const TINY: Pace = Pace {
    kind: "tiny",
    clients: &[20],
    rounds: 2,
    warm_up: 1,
    later: SHORT_PAUSE,
    compared: 2,
    settle: Duration::from_millis(50),
    load_ms: 300,
    loads: 1,
    storms: 1,
    instances: 4,
    changes: 2,
};
