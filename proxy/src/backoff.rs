//! How long to wait before trying again.
//!
//! In: the least that the server asks for. Out: a [`Wait`], whose two parts are told apart.
//! Always: exponential with full jitter, so that a fleet that lost its server does not come back in one moment; what the
//! server asks for is waited in full, up to a bound. Never: waits itself, or knows what is tried.
//! Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (full jitter).

use std::time::Duration;

use aws_lc_rs::rand;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

/// The longest time that a server may ask for; beyond it something is wrong with the server.
const LONGEST_FLOOR: Duration = Duration::from_secs(10 * 60);

/// How long to wait: all of `floor`, and then `jitter`, unless something says that waiting is pointless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What the server asks for, or what good manners do.
    pub floor: Duration,
    /// What is added so that not all come back together.
    pub jitter: Duration,
}

impl Wait {
    /// A wait that nothing shortens, bounded.
    pub fn firm(floor: Duration) -> Wait {
        Wait { floor: floor.min(LONGEST_FLOOR), jitter: Duration::ZERO }
    }

    /// The same wait, which nothing shortens.
    #[must_use]
    pub fn made_firm(self) -> Wait {
        Wait { floor: self.total(), jitter: Duration::ZERO }
    }

    /// Both parts.
    pub fn total(self) -> Duration {
        self.floor + self.jitter
    }
}

/// The waits between attempts: up to 1 s, 2 s, 4 s … 60 s.
#[derive(Debug)]
pub struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { ceiling: FIRST }
    }
}

impl Backoff {
    /// The next wait; `floor` is the least that the server asked for.
    pub fn next(&mut self, floor: Option<Duration>) -> Wait {
        self.next_at(floor, fraction())
    }

    /// Begins anew, after something that worked.
    pub fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// `fraction` is from 0 to 1.
    fn next_at(&mut self, floor: Option<Duration>, fraction: f64) -> Wait {
        let jitter = self.ceiling.mul_f64(fraction);
        self.ceiling = (self.ceiling * 2).min(LAST);
        // Added to the floor, or all who were told the same would come back together.
        Wait { jitter, ..Wait::firm(floor.unwrap_or_default()) }
    }
}

/// A random number from 0 to 1, to spread load. Without random bytes the middle is as good as any.
pub fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_one_second_to_sixty_and_begin_anew() {
        let mut backoff = Backoff::default();
        let longest: Vec<u64> = (0..8).map(|_| backoff.next_at(None, 1.0).total().as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next_at(None, 1.0).jitter, Duration::from_secs(1));
        assert_eq!(backoff.next_at(None, 0.0).total(), Duration::ZERO);
    }

    #[test]
    fn the_servers_word_is_a_floor_and_bounded() {
        let mut backoff = Backoff::default();
        let asked = Duration::from_secs(7);
        let wait = backoff.next_at(Some(asked), 0.5);
        assert_eq!(wait, Wait { floor: asked, jitter: FIRST / 2 });
        assert_eq!(wait.made_firm(), Wait::firm(Duration::from_millis(7500)));
        assert_eq!(Backoff::default().next(Some(Duration::MAX)).floor, LONGEST_FLOOR);
        for _ in 0..100 {
            assert!(Backoff::default().next(None).total() <= FIRST);
        }
    }
}
