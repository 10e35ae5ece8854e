//! How often somebody may try to get in as an admin: by address and name, and by name alone.
//!
//! Always: guesses from one address leave the admin at another one in peace; guesses from everywhere together are bounded too.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::TokenBuckets;
use super::address::AddressGroup;
use crate::config::Quota;

/// How many times as many tries as from one address there may be from all.
const EVERYWHERE: u32 = 10;

/// Tries to log in.
#[derive(Debug)]
pub struct SignIns {
    from_one: TokenBuckets<(Option<AddressGroup>, String)>,
    from_all: TokenBuckets<String>,
}

impl SignIns {
    /// All buckets are full.
    pub fn new(quota: Quota) -> SignIns {
        let burst = quota.burst.saturating_mul(NonZeroU32::new(EVERYWHERE).expect("it is not zero"));
        let from_all = TokenBuckets::new(Quota { burst, interval: quota.interval });
        SignIns { from_one: TokenBuckets::new(quota), from_all }
    }

    /// Takes a try, right or wrong, of a name in lower case.
    ///
    /// # Errors
    /// The time until the next one may be.
    pub fn attempt(&self, from: Option<IpAddr>, name: &str) -> Result<(), Duration> {
        // Only so much of it is kept.
        let name: String = name.chars().take(64).collect();
        self.from_one.take(&(from.map(AddressGroup::of), name.clone()))?;
        self.from_all.take(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn guesses_from_one_address_do_not_lock_out_the_admin_at_another() {
        let quota = Quota { burst: NonZeroU32::new(5).unwrap(), interval: Duration::from_secs(30) };
        let tries = SignIns::new(quota);
        let address = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        assert_eq!((0..100).take_while(|_| tries.attempt(address(1), "admin").is_ok()).count(), 5);
        assert!(tries.attempt(address(2), "admin").is_ok());
        assert!(tries.attempt(address(1), "other").is_ok());
        let everywhere = (3..=255).filter(|last| tries.attempt(address(*last), "admin").is_ok()).count();
        assert_eq!(everywhere, 44, "fifty of one name in all");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(tries.attempt(address(1), "admin").is_ok());
    }
}
