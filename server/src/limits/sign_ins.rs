//! How often somebody may try to get in as an admin: by address, by address and name, and by name alone.
//!
//! Always: guesses from one address leave the admin at another one in peace, whatever names they are of: each costs a hash, and
//! few are made at one time; guesses from everywhere together are bounded too.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::TokenBuckets;
use super::address::AddressGroup;
use crate::config::Quota;

/// How many times as many tries as of one name from one address there may be of it from all addresses.
const EVERYWHERE: u32 = 10;
/// How many times as many there may be of all names from one address, at once and later.
const EVERY_NAME: u32 = 10;

/// Tries to log in.
#[derive(Debug)]
pub struct SignIns {
    of_all: TokenBuckets<Option<AddressGroup>>,
    from_one: TokenBuckets<(Option<AddressGroup>, String)>,
    from_all: TokenBuckets<String>,
}

impl SignIns {
    /// All buckets are full.
    pub fn new(quota: Quota) -> SignIns {
        let more = |times: u32| quota.burst.saturating_mul(NonZeroU32::new(times).expect("it is not zero"));
        let of_all = Quota { burst: more(EVERY_NAME), interval: quota.interval / EVERY_NAME };
        let from_all = Quota { burst: more(EVERYWHERE), interval: quota.interval };
        SignIns {
            of_all: TokenBuckets::new(of_all),
            from_one: TokenBuckets::new(quota),
            from_all: TokenBuckets::new(from_all),
        }
    }

    /// Takes a try, right or wrong, of a name in lower case.
    ///
    /// # Errors
    /// The time until the next one may be.
    pub fn attempt(&self, from: Option<IpAddr>, name: &str) -> Result<(), Duration> {
        // Only so much of it is kept.
        let name: String = name.chars().take(64).collect();
        let from = from.map(AddressGroup::of);
        // First, so that an address that makes up names fills no memory with them.
        self.of_all.take(&from)?;
        self.from_one.take(&(from, name.clone()))?;
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

    #[tokio::test(start_paused = true)]
    async fn an_address_that_makes_up_names_is_slowed_down_as_well() {
        let quota = Quota { burst: NonZeroU32::new(5).unwrap(), interval: Duration::from_secs(30) };
        let tries = SignIns::new(quota);
        let (one, other) = (Some(IpAddr::from([192, 0, 2, 1])), Some(IpAddr::from([192, 0, 2, 2])));
        let taken = (0..1_000).filter(|n| tries.attempt(one, &format!("name-{n}")).is_ok()).count();
        assert_eq!(taken, 50);
        assert!(tries.attempt(other, "admin").is_ok());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(tries.attempt(one, "admin").is_ok());
    }
}
