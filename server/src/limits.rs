//! How much callers may ask for: token buckets by caller, and how many calls run at one time.
//!
//! In: who calls, which the caller of this module knows already: a proxy, a host that registers, an address. Out: yes,
//! or how long to wait.
//! Always: memory is bounded, since keys that are idle are dropped; one caller's bucket touches no other's.
//! Never: answers anybody, or knows a token.

pub mod address;
mod bucket;
pub mod places;
pub mod sign_ins;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::config::{self, Config};
use crate::network::{self, Network};
use address::AddressGroup;
pub use bucket::TokenBuckets;
use places::{Place, Places};

/// Health watches and reflection streams at one time: they need no token, and a load balancer needs one.
const OPEN_STREAMS: usize = 256;

/// Registrations at one time of hosts that bring no good token of this server; and of those, of one address.
const STRANGERS: usize = 64;
const STRANGERS_OF_ONE: usize = 8;

/// Unary calls of one proxy at one time. It needs two or three; more are those of one that does not finish them, and
/// would take the places of all.
const CALLS_OF_ONE: usize = 8;

/// Watches of one proxy at one time. It has one; those that it began before end when they take what they are sent, which
/// one that never reads does not.
const WATCHES_OF_ONE: usize = 24;

/// Files for installers that are given out at one time; and of those, to one address. A fleet that upgrades itself takes turns.
const DOWNLOADS: usize = 64;
const DOWNLOADS_OF_ONE: usize = 8;

/// When to come back to a server that has as much to do as it takes.
pub const OVERLOAD_RETRY: Duration = Duration::from_secs(2);

/// What counts as one host that registers: the digest of its join token (or API token), its machine id and its hostname.
pub type RegistrationKey = (Option<[u8; 32]>, String, String);

/// Every bound on calls. Shared by all that serve them.
#[derive(Debug)]
pub struct CallLimits {
    /// Watches, by proxy.
    pub watches: TokenBuckets<Uuid>,
    /// Lists that were asked for over the paths of older proxies, by proxy.
    pub pulls: TokenBuckets<Uuid>,
    /// Registrations, by host.
    pub registrations: TokenBuckets<RegistrationKey>,
    failures: TokenBuckets<AddressGroup>,
    trusted_proxies: Vec<Network>,
    calls: Arc<Semaphore>,
    calls_of_one: Arc<Places<Who>>,
    registering: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    strangers_of_one: Arc<Places<Who>>,
    streams: Arc<Semaphore>,
    streams_of_one: Arc<Places<Who>>,
    open_streams: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    downloads_of_one: Arc<Places<Who>>,
}

/// A place among the calls or streams that run; it is free again when this is dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub struct Slot(OwnedSemaphorePermit, Option<Place<Who>>);

/// Whose places are counted apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Who {
    Proxy(Uuid),
    Address(AddressGroup),
}

impl CallLimits {
    /// The bounds that the configuration sets.
    pub fn of(config: &Config) -> CallLimits {
        let config::Limits { watches, pulls, registrations, failures, max_calls, max_watches, .. } =
            config.limits;
        let places = |most: u64| {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))
        };
        CallLimits {
            watches: TokenBuckets::new(watches),
            pulls: TokenBuckets::new(pulls),
            registrations: TokenBuckets::new(registrations),
            failures: TokenBuckets::new(failures),
            trusted_proxies: config.trusted_proxies.clone(),
            calls: places(max_calls),
            calls_of_one: Places::new(CALLS_OF_ONE),
            registering: places(max_calls),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            strangers_of_one: Places::new(STRANGERS_OF_ONE),
            streams: places(max_watches),
            streams_of_one: Places::new(WATCHES_OF_ONE),
            open_streams: Arc::new(Semaphore::new(OPEN_STREAMS)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            downloads_of_one: Places::new(DOWNLOADS_OF_ONE),
        }
    }

    /// Counts a call that brought no good token. An error says that its address brought too many, and how long to wait.
    ///
    /// `peer` is `None` for callers on this machine that came by no address.
    ///
    /// # Errors
    /// The time until the next failure would be answered as such.
    pub fn failed(&self, peer: Option<IpAddr>) -> Result<(), Duration> {
        self.counted(peer).map_or(Ok(()), |address| self.failures.take(&address))
    }

    /// What the bounds on one address count a caller under; `None`: they are not for it.
    fn counted(&self, peer: Option<IpAddr>) -> Option<AddressGroup> {
        let is_counted = |peer: &IpAddr| !network::any_contains(&self.trusted_proxies, *peer);
        peer.filter(is_counted).map(AddressGroup::of)
    }

    /// A place for a unary call of a proxy; `None`: as many run as may, of it or in all.
    pub fn call(&self, proxy: Uuid) -> Option<Slot> {
        slot_of_one(&self.calls, &self.calls_of_one, Who::Proxy(proxy))
    }

    /// A place for a registration of a host that brings a token of this server.
    pub fn registration(&self) -> Option<Slot> {
        slot(&self.registering)
    }

    /// A place for a registration of anybody else: few, so that strangers take none of those who are known.
    pub fn stranger(&self, peer: Option<IpAddr>) -> Option<Slot> {
        self.slot_at(peer, &self.strangers, &self.strangers_of_one)
    }

    /// A place for a file that anybody fetches.
    pub fn download(&self, peer: Option<IpAddr>) -> Option<Slot> {
        self.slot_at(peer, &self.downloads, &self.downloads_of_one)
    }

    fn slot_at(
        &self,
        peer: Option<IpAddr>,
        places: &Arc<Semaphore>,
        of_one: &Arc<Places<Who>>,
    ) -> Option<Slot> {
        match self.counted(peer) {
            Some(address) => slot_of_one(places, of_one, Who::Address(address)),
            None => slot(places),
        }
    }

    /// A place for a watch stream of a proxy, or of who only watches what a proxy is told (`None`).
    pub fn stream(&self, proxy: Option<Uuid>) -> Option<Slot> {
        match proxy {
            Some(proxy) => slot_of_one(&self.streams, &self.streams_of_one, Who::Proxy(proxy)),
            None => slot(&self.streams),
        }
    }

    /// A place for a stream that needs no token.
    pub fn open_stream(&self) -> Option<Slot> {
        slot(&self.open_streams)
    }
}

fn slot(places: &Arc<Semaphore>) -> Option<Slot> {
    Arc::clone(places).try_acquire_owned().ok().map(|place| Slot(place, None))
}

fn slot_of_one(places: &Arc<Semaphore>, of_one: &Arc<Places<Who>>, who: Who) -> Option<Slot> {
    let of_one = of_one.take(who)?;
    slot(places).map(|slot| Slot(slot.0, Some(of_one)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigSources;

    #[test]
    fn one_proxy_takes_no_more_watches_than_its_own_and_leaves_the_rest_to_others() {
        let (config, _) = Config::load(&ConfigSources::default()).expect("the defaults are good");
        let limits = CallLimits::of(&config);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let held: Vec<_> = (0..WATCHES_OF_ONE).map_while(|_| limits.stream(Some(one))).collect();
        assert_eq!(held.len(), WATCHES_OF_ONE);
        assert!(limits.stream(Some(one)).is_none());
        assert!(limits.stream(Some(other)).is_some() && limits.stream(None).is_some());
        drop(held);
        assert!(limits.stream(Some(one)).is_some());
    }
}
