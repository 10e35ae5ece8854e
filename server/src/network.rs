//! [`Network`]: a range of addresses, as an admin writes it.
//!
//! Always: an IPv4-mapped address counts as the IPv4 address that it is, in a network as in who calls.
//! Never: asks DNS, or walks the range.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and how many of its leading bits count; without a length it is that one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Without the bits that do not count.
    address: IpAddr,
    prefix_bits: u32,
}

/// The text is no network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no network: write an address such as 10.0.0.7, or a range such as 10.0.0.0/24 or 2001:db8::/48"
)]
pub struct NetworkError(String);

impl Network {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix_bits) == Some(self.address)
    }
}

/// Whether one of the networks has the address.
pub fn any_contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The address with its first bits only; `None` if it has fewer.
fn masked(address: IpAddr, prefix_bits: u32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let ignored = 32_u32.checked_sub(prefix_bits)?;
            let mask = u32::MAX.checked_shl(ignored).unwrap_or_default();
            Some(IpAddr::V4((u32::from(address) & mask).into()))
        }
        IpAddr::V6(address) => {
            let ignored = 128_u32.checked_sub(prefix_bits)?;
            let mask = u128::MAX.checked_shl(ignored).unwrap_or_default();
            Some(IpAddr::V6((u128::from(address) & mask).into()))
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let error = || NetworkError(text.chars().take(80).collect());
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let written: IpAddr = address.parse().map_err(|_| error())?;
        let address = written.to_canonical();
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            None => whole,
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                let bits: u32 = bits.parse().map_err(|_| error())?;
                // The first 96 bits of a mapped address say that it is one.
                let mapped = if written != address { 96 } else { 0 };
                bits.checked_sub(mapped).ok_or_else(error)?
            }
            Some(_) => return Err(error()),
        };
        Ok(Network { address: masked(address, prefix_bits).ok_or_else(error)?, prefix_bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_the_addresses_whose_first_bits_are_its_own() {
        for (text, inside, outside) in [
            ("10.1.2.0/24", "10.1.2.255", "10.1.3.0"),
            ("10.1.2.77/24", "10.1.2.1", "10.1.1.255"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/48", "2001:db8:0:ffff::1", "2001:db8:1::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::1", "::1", "::2"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{text} {outside}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        assert!(network("10.1.0.0/16").contains("::ffff:10.1.2.3".parse().unwrap()));
        assert_eq!(network("::ffff:10.1.0.0/112"), network("10.1.0.0/16"));
        assert_eq!(network("::ffff:10.1.2.3").to_string(), "10.1.2.3/32");
        assert!("::ffff:10.1.2.3/95".parse::<Network>().is_err());
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_way_to_write_one() {
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "pulse.lan", "10.0.0.1:80"]
        {
            let error = bad.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains("10.0.0.0/24"), "{error}");
        }
        for text in ["10.1.2.0/24", "2001:db8::/48"] {
            assert_eq!(network(text).to_string(), text);
        }
    }
}
