//! The seed's own choices.

use std::time::Duration;

use pulse_proto::Chance;

/// Draws from the series of one seed.
#[derive(Debug)]
pub(crate) struct Dice(Chance);

impl Dice {
    /// Begins the series of `seed`.
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(Chance::seeded(seed))
    }

    /// A series for somebody else.
    pub(crate) fn fork(&self) -> Chance {
        Chance::seeded(self.below(u64::from(u32::MAX)) << 32 | self.below(u64::from(u32::MAX)))
    }

    /// A number from 0 to `end` - 1.
    pub(crate) fn below(&self, end: u64) -> u64 {
        ((self.0.fraction() * end as f64) as u64).min(end - 1)
    }

    /// A place in a list of `length`.
    pub(crate) fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }

    /// Whether something happens that happens so often, of 100 times.
    pub(crate) fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A time between two.
    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        let spread = u64::try_from((most - least).as_millis()).unwrap_or(u64::MAX);
        least + Duration::from_millis(self.below(spread + 1))
    }
}
