//! Hosts as an older server wrote them: the members of a cluster, and the URLs of both.
//!
//! Always: an address that a person set goes before the one that the cluster said, and that before the URL's host.

use std::net::Ipv6Addr;

use pulse_proto::Node;

use super::fields::Fields;
use super::{is_loopback, quoted};
use crate::pve::address::PveUrl;

/// A member of a cluster. It holds a secret, so it has no `Debug`.
pub(super) struct Endpoint<'v> {
    /// Its name, or that of its URL.
    pub(super) name: &'v str,
    url: &'v str,
    address: &'v str,
    /// The address that a person set for it; empty if none did.
    pub(super) address_override: &'v str,
    /// Of its certificate; empty if it is not pinned.
    pub(super) fingerprint: &'v str,
    /// Its proxy's; empty if it has none.
    pub(super) control_token: &'v str,
}

impl<'v> Endpoint<'v> {
    /// Reads a member.
    ///
    /// # Errors
    /// It is none, or a value in it is of another type.
    pub(super) fn read(fields: Fields<'v>) -> Result<Endpoint<'v>, String> {
        let url = fields.text("Host")?;
        let name = match fields.text("NodeName")? {
            "" => host_of(url),
            name => name,
        };
        Ok(Endpoint {
            name,
            url,
            address: fields.text("IP")?,
            address_override: fields.text("IPOverride")?,
            fingerprint: fields.text("Fingerprint")?,
            control_token: fields.text("TemperatureProxyControlToken")?,
        })
    }

    /// Where others reach it.
    pub(super) fn address(&self) -> &'v str {
        [self.address_override, self.address]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or(host_of(self.url))
    }

    /// Where its API is; `None`: it is not known.
    ///
    /// # Errors
    /// The rule that its URL breaks.
    pub(super) fn pve_url(&self) -> Result<Option<PveUrl>, String> {
        // A URL that was made of the address which a person overrode leads nowhere; one with a name may.
        let is_overridden = !self.address_override.is_empty() && host_of(self.url) == self.address;
        if !self.url.is_empty() && !is_overridden {
            return pve_url(self.url).map(Some);
        }
        match (self.address(), pve_url(self.url)) {
            ("", _) => Ok(None),
            (address, Ok(url)) => pve_url(&with_port(address, url.port())).map(Some),
            (address, Err(_)) => pve_url(address).map(Some),
        }
    }

    /// Whether it is the one at this host.
    pub(super) fn is_at(&self, host: &str) -> bool {
        let names = [self.name, self.address_override, self.address, host_of(self.url)];
        !host.is_empty() && names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// A node of a host; one that is only known at a loopback, or at its own name, has no address.
///
/// # Errors
/// The rule that its name or address breaks.
pub(super) fn node(name: &str, address: &str) -> Result<Node, String> {
    if is_loopback(name) {
        return Err(format!("{} is a loopback, and no node of a fleet", quoted(name)));
    }
    let says_nothing = address.eq_ignore_ascii_case(name) && address.parse::<std::net::IpAddr>().is_err();
    let address = if is_loopback(address) || says_nothing { "" } else { address };
    Node::new(name, address).map_err(|error| error.to_string())
}

/// The URL of a host's API; older servers took it without scheme, and with a path behind it.
///
/// # Errors
/// The rule that it breaks. Nothing of it is shown, as a password may stand in it.
pub(super) fn pve_url(text: &str) -> Result<PveUrl, String> {
    let (scheme, authority) = parts(text);
    let scheme = if scheme.eq_ignore_ascii_case("http") { "http" } else { "https" };
    let authority = match authority.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => authority.to_owned(),
    };
    format!("{scheme}://{authority}").parse()
}

/// The host of a URL: a name or an address, IPv6 without brackets.
pub(super) fn host_of(url: &str) -> &str {
    let (_, authority) = parts(url);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some((host, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return host;
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

/// Scheme and authority of a URL.
fn parts(url: &str) -> (&str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    (scheme, rest.split(['/', '?', '#']).next().unwrap_or_default())
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_older_servers_are_read_with_or_without_scheme_port_and_path() {
        for (text, host, url) in [
            ("https://pve1.lan:8006", "pve1.lan", Ok("https://pve1.lan:8006")),
            ("pve1.lan", "pve1.lan", Ok("https://pve1.lan:8006")),
            ("HTTPS://PVE1:443/#v1:0", "PVE1", Ok("https://pve1:443")),
            ("https://[fd00::1]:8006/", "fd00::1", Ok("https://[fd00::1]:8006")),
            ("fd00::1", "fd00::1", Ok("https://[fd00::1]:8006")),
            ("http://10.0.0.5:8006", "10.0.0.5", Err("must begin with https://")),
            ("https://root:hidden@pve1", "pve1", Err("no user")),
            ("", "", Err("must be a URL")),
        ] {
            assert_eq!(host_of(text), host, "{text}");
            match (pve_url(text), url) {
                (Ok(read), Ok(url)) => assert_eq!(read.to_string(), url, "{text}"),
                (Err(rule), Err(part)) => {
                    assert!(rule.contains(part) && !rule.contains("hidden"), "{text}: {rule}");
                }
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
    }
}
