//! The nodes that a configuration itself allows: what a proxy falls back to, and what older installs live by.
//!
//! In: the text of an entry. Out: [`StaticEntry`], and [`StaticList`] of many.
//! Always: an address is canonical, a name keeps its spelling, doubles (names: in any case) are one entry.
//! Never: takes a name for a network, or asks DNS.

use pulse_proto::Node;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Names, addresses and networks, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticList {
    entries: Vec<StaticEntry>,
}

/// One entry of a [`StaticList`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticEntry {
    /// A host's name, as it was written; compared case-blind.
    Name(String),
    /// An address, IPv4-mapped ones as IPv4.
    Address(IpAddr),
    /// All addresses of a network.
    Network(Network),
}

/// A network in CIDR notation, without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl StaticList {
    /// Joins entries; doubles are dropped.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = StaticEntry>) -> Self {
        let mut known = HashSet::new();
        let is_new = |entry: &StaticEntry| known.insert(entry.to_string().to_ascii_lowercase());
        Self { entries: entries.into_iter().filter(is_new).collect() }
    }

    /// The entries, in the order in which they were written.
    #[must_use]
    pub fn entries(&self) -> &[StaticEntry] {
        &self.entries
    }

    /// Whether there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Network {
    /// Whether `address` lies in this network; an IPv4-mapped address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

impl FromStr for StaticEntry {
    type Err = String;

    /// Reads a name, an address (IPv6 with or without brackets) or a CIDR; the error names the entry and the rule.
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if text.contains('/') {
            return network(text).map(Self::Network).ok_or_else(|| {
                format!(
                    "{text:?} is no network; write it like 192.168.0.0/24 or fd00::/64, or name single hosts"
                )
            });
        }
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(format!("{text:?} looks like an address but is none; each part goes from 0 to 255"));
        }
        let named = Node::new(text, "").map_err(|error| error.to_string())?;
        Ok(Self::Name(named.name().to_owned()))
    }
}

impl fmt::Display for StaticEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::Network(Network { address, prefix }) => write!(f, "{address}/{prefix}"),
        }
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u8 = prefix.parse().ok().filter(|_| digits)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if prefix > bits {
        return None;
    }
    // An IPv4-mapped network is the IPv4 one, as for addresses: its first 96 bits are fixed.
    match address.to_canonical() {
        IpAddr::V4(v4) if address.is_ipv6() && prefix >= 96 => Some((IpAddr::V4(v4), prefix - 96)),
        canonical if canonical.is_ipv4() == address.is_ipv4() => Some((address, prefix)),
        // It would hold both IPv4-mapped and other addresses.
        _ => None,
    }
    .map(|(address, prefix)| Network { address: masked(address, prefix), prefix })
}

/// `address` with all bits behind the first `prefix` set to 0.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(texts: &[&str]) -> Vec<String> {
        let list = StaticList::new(texts.iter().map(|text| text.parse().expect("an entry")));
        list.entries().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn entries_are_canonical_and_doubles_are_dropped() {
        let texts = [
            "delly",
            "DELLY",
            "192.168.0.134",
            "::ffff:192.168.0.134",
            "[FD00::0001]",
            "10.0.0.7/24",
            "fd00::5/64",
            "10.0.0.0/24",
        ];
        assert_eq!(shown(&texts), ["delly", "192.168.0.134", "fd00::1", "10.0.0.0/24", "fd00::/64"]);
        assert_eq!(
            shown(&["no", "0123x", "::ffff:10.0.0.0/104", "0.0.0.0/0"]),
            ["no", "0123x", "10.0.0.0/8", "0.0.0.0/0"]
        );
    }

    #[test]
    fn what_is_no_entry_is_refused_by_name() {
        for text in [
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "pve/24",
            "::ffff:10.0.0.0/90",
            "192.168.0.300",
            "a b",
            "-a",
            "*",
            "a|b",
            "pve1:8006",
            "fe80::1%eth0",
            "https://pve1:8006",
        ] {
            let error = text.parse::<StaticEntry>().unwrap_err();
            assert!(error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn network_holds_its_own_addresses_only() {
        let network = network("10.0.0.0/24").unwrap();
        for (address, inside) in [
            ("10.0.0.0", true),
            ("10.0.0.255", true),
            ("10.0.1.0", false),
            ("::ffff:10.0.0.5", true),
            ("::a00:5", false),
        ] {
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(super::network("0.0.0.0/0").unwrap().contains("255.1.2.3".parse().unwrap()));
        assert!(!super::network("::/0").unwrap().contains("10.0.0.1".parse().unwrap()));
        assert!(super::network("fd00::1/128").unwrap().contains("fd00::1".parse().unwrap()));
    }
}
