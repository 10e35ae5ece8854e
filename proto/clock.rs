//! The wall clock, as a handle that is given to whoever tells the time of day.
//!
//! In: nothing, or a function of a test. Out: the time of day. Always: one handle is one clock, however often it is cloned.
//! Never: measures how long something took; that is the runtime's monotonic clock, which no step of the wall clock moves.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A wall clock. Cloning shares it.
#[derive(Clone)]
pub struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl Clock {
    /// The clock of the system.
    pub fn system() -> Clock {
        Clock(None)
    }

    /// A clock that says what `now` gives: tests step it, and let it go wrong.
    pub fn driven(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Clock {
        Clock(Some(Arc::new(now)))
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(now) => now(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() { "Clock(system)" } else { "Clock(driven)" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_handles_of_a_driven_clock_step_together() {
        let at = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH));
        let hands = Arc::clone(&at);
        let clock = Clock::driven(move || *hands.lock().unwrap());
        let other = clock.clone();
        *at.lock().unwrap() += Duration::from_secs(86_400);
        assert_eq!(other.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
        *at.lock().unwrap() = SystemTime::UNIX_EPOCH;
        assert_eq!(clock.now(), other.now());
    }
}
