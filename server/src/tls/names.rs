//! The names for which the server's certificate is good.
//!
//! Always: `localhost`, `127.0.0.1` and `::1` are among them; names are lower case, addresses canonical.
//! Never: asks the system what it is called.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One name: an address or a DNS name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Name {
    Address(IpAddr),
    Dns(String),
}

/// A set of names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Names(BTreeSet<Name>);

impl Names {
    /// The constant three, every specific address in `listen`, and `hosts`: DNS names or addresses, without ports. What
    /// no certificate can hold is left out.
    pub(super) fn new(listen: &[SocketAddr], hosts: impl IntoIterator<Item = String>) -> Names {
        let mut names = BTreeSet::from([
            Name::Dns("localhost".to_owned()),
            Name::Address(Ipv4Addr::LOCALHOST.into()),
            Name::Address(Ipv6Addr::LOCALHOST.into()),
        ]);
        let specific =
            listen.iter().map(|address| address.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
        names.extend(specific.map(Name::Address));
        names.extend(hosts.into_iter().filter_map(|host| Name::parse(&host)));
        Names(names)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }
}

impl FromIterator<Name> for Names {
    fn from_iter<T: IntoIterator<Item = Name>>(names: T) -> Names {
        Names(names.into_iter().collect())
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match name {
                Name::Address(ip) => write!(f, "{comma}{ip}")?,
                Name::Dns(name) => write!(f, "{comma}{name}")?,
            }
        }
        Ok(())
    }
}

impl Name {
    /// `None` for what no certificate can hold, such as the empty hostname of a container.
    pub(super) fn parse(text: &str) -> Option<Name> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Name::Address(ip.to_canonical()));
        }
        let is_part = |part: &str| {
            let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            (1..=63).contains(&part.len()) && part.bytes().all(is_letter) && !part.starts_with('-')
        };
        let text = text.strip_suffix('.').unwrap_or(text);
        (text.len() <= 253 && text.split('.').all(is_part)).then(|| Name::Dns(text.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_constant_three_and_what_is_said() {
        let listen = ["[::]:7655", "10.0.0.5:7655", "[::ffff:10.0.0.6]:1"].map(|a| a.parse().unwrap());
        let hosts = ["Pulse.LAN.", "pulse", "2001:db8::1", "", "a b", "-x"].map(str::to_owned);
        let names = Names::new(&listen, hosts);
        assert_eq!(
            names.to_string(),
            "10.0.0.5, 10.0.0.6, 127.0.0.1, ::1, 2001:db8::1, localhost, pulse, pulse.lan"
        );
        assert_eq!(Names::new(&[], []).to_string(), "127.0.0.1, ::1, localhost");
    }
}
