//! The address of the server, as a configuration or a person writes it.
//!
//! Always: TLS; a plain `http://` means `https://` on the same port, and the caller is told so.
//! Never: repeats the text in an error, because user names and passwords are put into addresses too.

use pulse_proto::join::{authority, split_authority};
use std::fmt;
use std::str::FromStr;

/// `https://HOST:PORT`: where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    host: String,
    port: u16,
}

/// Why a text is no address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    /// It does not begin with `https://`.
    #[error("must begin with https://, like https://pulse.lan:7655")]
    Scheme,
    /// A user name or password stands in it.
    #[error("must not hold a user name or password; the token stands in a file of its own")]
    Credentials,
    /// Something follows the port.
    #[error("must end after the port: Pulse is served at the root of its address, without a path")]
    Path,
    /// No host, or no port.
    #[error(
        "must name a host and, if it is not 7655, a port, like https://pulse.lan:7655 or https://[fd00::1]:7655"
    )]
    Authority,
}

impl ServerUrl {
    /// The address of `host` (IPv6 without brackets) and `port`; `None` if they are none.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let (host, port) = split_authority(&authority(host, port))?;
        Some(Self { host, port })
    }

    /// The host; an IPv6 address stands here without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT`, with an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Whether `text` asks for plain HTTP, which is read as HTTPS.
    #[must_use]
    pub fn is_plain_http(text: &str) -> bool {
        after_scheme(text.trim(), "http://").is_some()
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let text = text.trim();
        let rest = after_scheme(text, "https://").or_else(|| after_scheme(text, "http://"));
        let rest = rest.ok_or(ServerUrlError::Scheme)?;
        if rest.contains('@') {
            return Err(ServerUrlError::Credentials);
        }
        let rest = rest.trim_end_matches('/');
        if rest.contains(['/', '?', '#']) {
            return Err(ServerUrlError::Path);
        }
        let (host, port) = split_authority(rest).ok_or(ServerUrlError::Authority)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

fn after_scheme<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_https_with_the_port() {
        for (text, shown) in [
            ("https://pulse.lan:7655", "https://pulse.lan:7655"),
            ("https://pulse.lan", "https://pulse.lan:7655"),
            ("HTTPS://pulse.lan:443//", "https://pulse.lan:443"),
            ("http://pulse.lan:7655/", "https://pulse.lan:7655"),
            ("https://[fd00::1]", "https://[fd00::1]:7655"),
            (" https://192.168.0.5:1 ", "https://192.168.0.5:1"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().map(|url| url.to_string()), Ok(shown.to_owned()), "{text}");
        }
        assert!(ServerUrl::is_plain_http("HTTP://pulse") && !ServerUrl::is_plain_http("https://pulse"));
    }

    #[test]
    fn what_is_no_address_of_a_server_is_refused() {
        use ServerUrlError::{Authority, Credentials, Path, Scheme};
        for (text, error) in [
            ("pulse.lan:7655", Scheme),
            ("ftp://pulse", Scheme),
            ("", Scheme),
            ("ü", Scheme),
            ("https://user:pass@pulse", Credentials),
            ("https://pulse/api", Path),
            ("https://pulse?x", Path),
            ("https://", Authority),
            ("https://pulse:0", Authority),
            ("https://pulse:99999", Authority),
            ("https://[fd00::1", Authority),
            ("https://pulse lan", Authority),
        ] {
            assert_eq!(text.parse::<ServerUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn host_and_port_make_an_address_or_none() {
        assert_eq!(
            ServerUrl::new("fd00::1", 1).map(|url| url.to_string()).as_deref(),
            Some("https://[fd00::1]:1")
        );
        assert_eq!(ServerUrl::new("a b", 1), None);
    }
}
