//! The time of each host: the simulation's, and how wrong that host's wall clock is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pulse_proto::Clock;

/// When the simulations begin: 2025-11-20 12:00:00 UTC.
const BEGIN: Duration = Duration::from_secs(1_763_640_000);

/// The time since the simulation began, as whoever steps it last said. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimTime(Arc<AtomicU64>);

impl SimTime {
    /// Sets it, between two steps.
    pub(crate) fn set(&self, elapsed: Duration) {
        self.0.store(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time now; within a host to the millisecond, else that of the last step.
    pub(crate) fn elapsed(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

/// The wall clock of one host. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct WallClock {
    time: SimTime,
    /// How far it is ahead, in milliseconds.
    ahead: Arc<AtomicI64>,
}

impl WallClock {
    pub(crate) fn new(time: SimTime) -> WallClock {
        WallClock { time, ahead: Arc::default() }
    }

    /// How far it is ahead of the true time, in milliseconds.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Makes it so far ahead.
    pub(crate) fn set_ahead_ms(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// The handle for the program of this host.
    pub(crate) fn handle(&self) -> Clock {
        let this = self.clone();
        Clock::driven(move || {
            let now = SystemTime::UNIX_EPOCH + BEGIN + this.time.elapsed();
            let ahead = this.ahead_ms();
            match ahead >= 0 {
                true => now + Duration::from_millis(ahead.unsigned_abs()),
                false => now - Duration::from_millis(ahead.unsigned_abs()),
            }
        })
    }
}
