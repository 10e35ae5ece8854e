//! Chance, as a handle: what spreads load over time.
//!
//! In: the system's random bytes, or a seed. Out: fractions. Always: handles of one seed draw from one series, so that a
//! seed decides all that follows. Never: makes secrets or names; those come from the system alone.
//! Source: the seeded series is splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand;

/// A source of chance. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Chance(Option<Arc<AtomicU64>>);

/// The step of the seeded series: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    /// The system's random bytes.
    pub fn system() -> Chance {
        Chance(None)
    }

    /// A series that `seed` decides.
    pub fn seeded(seed: u64) -> Chance {
        Chance(Some(Arc::new(AtomicU64::new(seed))))
    }

    /// A number from 0 to 1. Without random bytes the middle is as good as any.
    pub fn fraction(&self) -> f64 {
        let Some(state) = &self.0 else {
            let mut bytes = [0; 4];
            return match rand::fill(&mut bytes) {
                Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
                Err(_) => 0.5,
            };
        };
        let mut mixed = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The upper half: its bits are the better mixed ones.
        f64::from((mixed >> 32) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_series_and_its_handles_share_it() {
        let draw = |chance: &Chance| (0..50).map(|_| chance.fraction()).collect::<Vec<_>>();
        let (one, again, other) = (Chance::seeded(7), Chance::seeded(7), Chance::seeded(8));
        let handles = [one.clone(), one];
        let series = draw(&handles[0]);
        assert_eq!(series, draw(&again));
        assert_ne!(series, draw(&other));
        assert_ne!(series, draw(&handles[1]), "the other drew from the same series");
        assert!(series.iter().all(|fraction| (0.0..=1.0).contains(fraction)));
        assert!(
            series.iter().any(|fraction| *fraction < 0.2) && series.iter().any(|fraction| *fraction > 0.8)
        );
    }

    #[test]
    fn the_system_gives_fractions_too() {
        let drawn: Vec<f64> = (0..50).map(|_| Chance::system().fraction()).collect();
        assert!(drawn.iter().all(|fraction| (0.0..=1.0).contains(fraction)));
        assert!(drawn.iter().any(|fraction| *fraction != drawn[0]));
    }
}
