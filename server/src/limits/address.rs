//! Addresses as limits see them: one IPv4 address, or one IPv6 /64.
//!
//! Always: an IPv4-mapped address is IPv4. An IPv6 subscriber has a /64 at least, so a single address of it says nothing.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// What counts as one address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AddressGroup(IpAddr);

impl AddressGroup {
    /// The group of an address.
    pub fn of(address: IpAddr) -> AddressGroup {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                AddressGroup(Ipv6Addr::from_bits(address.to_bits() & u128::MAX << 64).into())
            }
            v4 => AddressGroup(v4),
        }
    }
}

impl fmt::Display for AddressGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_group_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        let group = |text| AddressGroup::of(ip(text));
        assert_ne!(group("127.0.0.1"), group("127.0.0.2"));
        assert_eq!(group("127.0.0.1"), group("::ffff:127.0.0.1"));
        assert_eq!(group("2001:db8::1"), group("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(group("2001:db8::1"), group("2001:db8:0:1::1"));
        assert_eq!(group("2001:db8::1").to_string(), "2001:db8::/64");
    }
}
