//! Where a Proxmox VE host is asked: `https://HOST:8006`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use pulse_proto::join::authority;

/// The port of Proxmox VE's API.
pub const PORT: u16 = 8006;

/// The address of a host's API.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PveUrl {
    host: String,
    port: u16,
}

impl PveUrl {
    /// Its host: a name or an address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Display for PveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl FromStr for PveUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<PveUrl, String> {
        let rule = || "must be a URL like https://pve1.lan:8006".to_owned();
        let rest = match text.strip_prefix("https://") {
            Some(rest) => rest,
            None if text.starts_with("http://") => {
                return Err(
                    "must begin with https://: Proxmox VE speaks nothing else on port 8006".to_owned()
                );
            }
            None => return Err(rule()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err("must end with the port: no path, as Pulse knows the paths itself".to_owned());
        }
        if rest.contains('@') {
            return Err("must have no user in it: give the API token with --token-id".to_owned());
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (host, port) = inner.split_once(']').ok_or_else(rule)?;
                host.parse::<Ipv6Addr>()
                    .map_err(|_| format!("has {host:?} in brackets, which is no IPv6 address"))?;
                (host, port)
            }
            None => match rest.matches(':').count() {
                0 => (rest, ""),
                1 => rest.split_at(rest.find(':').unwrap_or(rest.len())),
                _ => return Err(format!("must have an IPv6 address in brackets: https://[{rest}]:8006")),
            },
        };
        let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_named) {
            return Err(rule());
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => PORT,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(format!("has the port {port:?}, which is none")),
            },
            None => return Err(rule()),
        };
        Ok(PveUrl { host: host.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_with_or_without_its_port_and_ipv6_in_brackets() {
        for (text, host, shown) in [
            ("https://pve1.lan:8006", "pve1.lan", "https://pve1.lan:8006"),
            ("https://PVE1/", "pve1", "https://pve1:8006"),
            ("https://192.0.2.1:443", "192.0.2.1", "https://192.0.2.1:443"),
            ("https://[2001:db8::1]:8006", "2001:db8::1", "https://[2001:db8::1]:8006"),
            ("https://[2001:db8::1]", "2001:db8::1", "https://[2001:db8::1]:8006"),
        ] {
            let url: PveUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.host(), url.to_string().as_str()), (host, shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_the_rule() {
        for (text, rule) in [
            ("pve1.lan:8006", "must be a URL like"),
            ("http://pve1.lan:8006", "must begin with https://"),
            ("https://", "must be a URL like"),
            ("https://pve1:8006/api2/json", "no path"),
            ("https://root@pve1:8006", "no user"),
            ("https://2001:db8::1", "brackets: https://[2001:db8::1]:8006"),
            ("https://[pve1]:8006", "no IPv6 address"),
            ("https://[2001:db8::1", "must be a URL like"),
            ("https://pve1:0", "which is none"),
            ("https://pve1:port", "which is none"),
            ("https://pve 1", "must be a URL like"),
        ] {
            let error = text.parse::<PveUrl>().expect_err(text);
            assert!(error.contains(rule), "{text}: {error}");
        }
    }
}
