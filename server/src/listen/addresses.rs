//! How many connections each address has.
//!
//! Always: an address without connections takes no memory; those of trusted proxies are not counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::address::{AddressGroup, Network, any_contains};

/// The count of each address.
#[derive(Debug)]
pub(super) struct Addresses {
    most: usize,
    trusted_proxies: Vec<Network>,
    counts: Mutex<HashMap<AddressGroup, usize>>,
}

/// One connection of an address; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted(Option<(Arc<Addresses>, AddressGroup)>);

impl Addresses {
    pub(super) fn new(most: usize, trusted_proxies: Vec<Network>) -> Arc<Addresses> {
        Arc::new(Addresses { most, trusted_proxies, counts: Mutex::default() })
    }

    /// Counts a connection; the error is the address that has as many as it may.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, AddressGroup> {
        if any_contains(&self.trusted_proxies, address) {
            return Ok(Admitted(None));
        }
        let group = AddressGroup::of(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(group).or_insert(0);
        if *count >= self.most {
            return Err(group);
        }
        *count += 1;
        Ok(Admitted(Some((Arc::clone(self), group))))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some((addresses, group)) = &self.0 else { return };
        let mut counts = addresses.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(*group) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_others_as_many_of_their_own() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = Addresses::new(2, vec![Network::parse("10.0.0.0/8").unwrap()]);
        let first = addresses.admit(ip("192.0.2.1")).unwrap();
        let _second = addresses.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(addresses.admit(ip("192.0.2.1")).unwrap_err(), AddressGroup::of(ip("192.0.2.1")));
        drop(addresses.admit(ip("192.0.2.2")).unwrap());
        drop(first);
        let _third = addresses.admit(ip("192.0.2.1")).unwrap();
        let v6: Vec<_> =
            ["2001:db8::1", "2001:db8::2"].map(|address| addresses.admit(ip(address)).unwrap()).into();
        assert!(addresses.admit(ip("2001:db8::3")).is_err() && addresses.admit(ip("2001:db8:0:1::")).is_ok());
        let trusted: Vec<_> = (0..9).map(|_| addresses.admit(ip("10.1.1.1")).unwrap()).collect();
        assert_eq!(addresses.counts.lock().unwrap().len(), 2);
        drop((trusted, v6));
        assert_eq!(addresses.counts.lock().unwrap().len(), 1, "who has none is forgotten");
    }
}
