//! How long to wait before trying again.
//!
//! In: the least that the server asks for. Out: a [`Wait`], whose two parts are told apart.
//! Always: exponential with full jitter, so that a fleet that lost its server does not come back in one moment; what the
//! server asks for is waited in full, up to a bound. Never: waits itself, or knows what is tried.
//! Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (full jitter).

use std::time::Duration;

use pulse_proto::Chance;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

/// The longest time that a server may ask for; beyond it something is wrong with the server.
const LONGEST_FLOOR: Duration = Duration::from_secs(10 * 60);

/// How long to wait: `floor`, and then `jitter`, unless something says that waiting is pointless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// What the server asks for, counted from the beginning too: nothing at all shortens it.
    pub asked: Duration,
    /// What good manners ask for: only news ends it, such as a new token.
    pub floor: Duration,
    /// What is added so that not all come back together.
    pub jitter: Duration,
}

impl Wait {
    /// A wait that only news ends, bounded.
    pub fn firm(floor: Duration) -> Wait {
        Wait { floor: floor.min(LONGEST_FLOOR), ..Wait::default() }
    }

    /// The wait that a server asks for, bounded.
    pub fn asked(asked: Duration) -> Wait {
        Wait { asked: asked.min(LONGEST_FLOOR), ..Wait::default() }
    }

    /// The same wait, in which a sign that the server is back is no news.
    #[must_use]
    pub fn made_firm(self) -> Wait {
        Wait { floor: self.total(), jitter: Duration::ZERO, ..self }
    }

    /// What is waited if the server shows that it is back.
    pub fn least(self) -> Duration {
        self.asked.max(self.floor)
    }

    /// What is waited if nothing happens.
    pub fn total(self) -> Duration {
        self.least() + self.jitter
    }
}

/// The waits between attempts: up to 1 s, 2 s, 4 s … 60 s.
#[derive(Debug)]
pub struct Backoff {
    ceiling: Duration,
    chance: Chance,
}

impl Backoff {
    /// Begins with the shortest wait; `chance` spreads the waits.
    pub fn new(chance: Chance) -> Backoff {
        Backoff { ceiling: FIRST, chance }
    }

    /// The next wait; `floor` is the least that good manners ask for.
    pub fn next(&mut self, floor: Option<Duration>) -> Wait {
        let fraction = self.chance.fraction();
        self.next_at(Wait::firm(floor.unwrap_or_default()), fraction)
    }

    /// The next wait; `asked` is the least that the server asked for.
    pub fn next_asked(&mut self, asked: Option<Duration>) -> Wait {
        let fraction = self.chance.fraction();
        self.next_at(Wait::asked(asked.unwrap_or_default()), fraction)
    }

    /// Begins anew, after something that worked.
    pub fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// `fraction` is from 0 to 1.
    fn next_at(&mut self, least: Wait, fraction: f64) -> Wait {
        let jitter = self.ceiling.mul_f64(fraction);
        self.ceiling = (self.ceiling * 2).min(LAST);
        // Added to the least, or all who were told the same would come back together.
        Wait { jitter, ..least }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Chance::system())
    }

    #[test]
    fn waits_double_from_one_second_to_sixty_and_begin_anew() {
        let (mut backoff, none) = (backoff(), Wait::default());
        let longest: Vec<u64> = (0..8).map(|_| backoff.next_at(none, 1.0).total().as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next_at(none, 1.0).jitter, Duration::from_secs(1));
        assert_eq!(backoff.next_at(none, 0.0).total(), Duration::ZERO);
    }

    #[test]
    fn the_servers_word_is_a_floor_and_bounded() {
        let mut backoff = backoff();
        let asked = Duration::from_secs(7);
        let wait = backoff.next_at(Wait::asked(asked), 0.5);
        assert_eq!(wait, Wait { asked, floor: Duration::ZERO, jitter: FIRST / 2 });
        assert_eq!((wait.least(), wait.total()), (asked, Duration::from_millis(7500)));
        let firm = Wait { asked, ..Wait::firm(Duration::from_millis(7500)) };
        assert_eq!(wait.made_firm(), firm);
        assert_eq!(self::backoff().next_asked(Some(Duration::MAX)).asked, LONGEST_FLOOR);
        for _ in 0..100 {
            assert!(self::backoff().next(None).total() <= FIRST);
        }
    }
}
