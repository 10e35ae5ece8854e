//! How many connections each address has.
//!
//! Always: those of trusted proxies are not counted.

use std::net::IpAddr;
use std::sync::Arc;

use crate::limits::address::AddressGroup;
use crate::limits::places::{Place, Places};
use crate::network::{Network, any_contains};

/// The count of each address.
#[derive(Debug)]
pub(super) struct Addresses {
    places: Arc<Places<AddressGroup>>,
    trusted_proxies: Vec<Network>,
}

/// One connection of an address; it counts until this is dropped. `None`: it is not counted.
pub(super) type Admitted = Option<Place<AddressGroup>>;

impl Addresses {
    pub(super) fn new(most: usize, trusted_proxies: Vec<Network>) -> Arc<Addresses> {
        Arc::new(Addresses { places: Places::new(most), trusted_proxies })
    }

    /// Counts a connection; the error is the address that has as many as it may.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Admitted, AddressGroup> {
        if any_contains(&self.trusted_proxies, address) {
            return Ok(None);
        }
        let group = AddressGroup::of(address);
        self.places.take(group).map(Some).ok_or(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_others_as_many_of_their_own() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = Addresses::new(2, vec!["10.0.0.0/8".parse().unwrap()]);
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
        drop((trusted, v6));
    }
}
