//! Token buckets, one for each key.
//!
//! Always: a key that was not used for as long as its bucket takes to fill is forgotten; time is the runtime's
//! monotonic clock, so a test or a simulation may drive it.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use tokio::time::Instant;

use crate::config::Quota;

/// Keys that are remembered at one time: some 10 MB. Whoever comes beyond that is not held up, because memory is
/// what has to last.
const MAX_KEYS: usize = 100_000;
/// How often idle keys are dropped.
const SWEEP: Duration = Duration::from_secs(60);
/// How often they are dropped while there is no room.
const SWEEP_WHEN_FULL: Duration = Duration::from_secs(1);

/// A bucket for each key, full at first.
pub struct TokenBuckets<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K, RandomState>, Elapsed, NoOpMiddleware<Duration>>,
    next_sweep: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> TokenBuckets<K> {
    /// Buckets that are all full.
    ///
    /// # Panics
    /// When the quota's interval is zero, which the configuration does not take.
    pub fn new(quota: Quota) -> TokenBuckets<K> {
        let rate = governor::Quota::with_period(quota.interval)
            .expect("the configuration takes no interval of zero")
            .allow_burst(quota.burst);
        let now = Instant::now();
        TokenBuckets {
            limiter: RateLimiter::new(rate, HashMapStateStore::default(), Elapsed(now)),
            next_sweep: Mutex::new(now + SWEEP),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The time until the next one is there, if there is none. Asking does not put it off.
    pub fn take(&self, key: &K) -> Result<(), Duration> {
        if !self.has_room() {
            return Ok(());
        }
        let none_left =
            |until: governor::NotUntil<Duration>| until.wait_time_from(self.limiter.clock().now());
        self.limiter.check_key(key).map_err(none_left)
    }

    fn has_room(&self) -> bool {
        let is_full = self.limiter.len() >= MAX_KEYS;
        let now = Instant::now();
        {
            let mut next = self.next_sweep.lock().unwrap_or_else(PoisonError::into_inner);
            let due = if is_full { *next - SWEEP + SWEEP_WHEN_FULL } else { *next };
            if now < due {
                return !is_full;
            }
            *next = now + SWEEP;
        }
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.limiter.len() < MAX_KEYS
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for TokenBuckets<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBuckets").field("keys", &self.limiter.len()).finish_non_exhaustive()
    }
}

/// The time since the buckets were made.
#[derive(Clone, Copy, Debug)]
struct Elapsed(Instant);

impl Clock for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use tokio::time::advance;

    const QUOTA: Quota = Quota { burst: NonZeroU32::new(12).unwrap(), interval: Duration::from_secs(5) };

    #[tokio::test(start_paused = true)]
    async fn twelve_at_once_and_then_one_each_five_seconds() {
        let buckets = TokenBuckets::new(QUOTA);
        for _ in 0..12 {
            buckets.take(&"a").unwrap();
        }
        // Asking again and again does not put the next one off.
        for _ in 0..100 {
            assert_eq!(buckets.take(&"a"), Err(Duration::from_secs(5)));
        }
        buckets.take(&"b").unwrap();
        advance(Duration::from_secs(2)).await;
        assert_eq!(buckets.take(&"a"), Err(Duration::from_secs(3)));
        advance(Duration::from_secs(3)).await;
        buckets.take(&"a").unwrap();
        assert_eq!(buckets.take(&"a"), Err(Duration::from_secs(5)));
        advance(Duration::from_secs(3600)).await;
        assert_eq!((0..100).take_while(|_| buckets.take(&"a").is_ok()).count(), 12, "it holds no more");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_keys_are_forgotten_and_the_rest_is_bounded() {
        let buckets = TokenBuckets::new(QUOTA);
        for key in 0..1_000 {
            buckets.take(&key).unwrap();
        }
        advance(SWEEP).await;
        buckets.take(&1_000).unwrap();
        assert_eq!(buckets.limiter.len(), 1);
        for key in 0..2 * MAX_KEYS {
            buckets.take(&key).unwrap();
        }
        assert_eq!(buckets.limiter.len(), MAX_KEYS);
        advance(SWEEP_WHEN_FULL + 3 * QUOTA.interval).await;
        buckets.take(&0).unwrap();
        assert_eq!(buckets.limiter.len(), 1);
    }
}
