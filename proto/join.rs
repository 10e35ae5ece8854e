//! [`JoinString`]: all that a host needs to join, in one line; and [`Pin`], which names the server's key.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::DEFAULT_PORT;
use crate::hash::sha256;
use crate::hex;
use crate::token::{Token, TokenError, TokenKind};

/// SHA-256 of a SubjectPublicKeyInfo (DER): of Pulse's own CA, or of a leaf. Written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// The text is no pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a pin is written sha256: and 64 lower-case hex digits")]
pub struct PinError;

impl Pin {
    /// The pin of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(der: &[u8]) -> Pin {
        Pin(sha256(der))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Pin, PinError> {
        text.strip_prefix("sha256:").and_then(hex::decode).map(Pin).ok_or(PinError)
    }
}

/// `pulse://HOST:PORT/?pin=sha256:HEX&join=pjoin_…`: where the server is, how to know it, and the join token, if the host
/// has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinString {
    /// A DNS name or an address; IPv6 without brackets.
    pub host: String,
    /// The port; 7655 if none is written.
    pub port: u16,
    /// The pin of Pulse's own CA. None: the certificate is checked with the system's roots.
    pub pin: Option<Pin>,
    /// The join token. None: the host asks to be approved, while `pulse join open` lets it.
    pub join: Option<Token>,
}

/// Why a text is no join string. Never holds the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JoinError {
    /// It begins otherwise.
    #[error("a join string begins with pulse://; `pulse join create` and `pulse join open` print one")]
    Scheme,
    /// Host or port are not readable.
    #[error("the join string's HOST:PORT cannot be read; an IPv6 address stands in brackets")]
    Authority,
    /// It has more than host, port and keys.
    #[error("the join string has a path or a fragment; its form is pulse://HOST:PORT/?pin=…&join=…")]
    Path,
    /// A key stands there twice.
    #[error("the join string has the key {0} twice; copy it again, whole")]
    Doubled(&'static str),
    /// The join token cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The pin cannot be read.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl JoinString {
    /// `HOST:PORT`, with an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// The whole string, token and all: shown once, to the one who asked for it.
    pub fn reveal(&self) -> String {
        let pin = self.pin.map(|pin| format!("pin={pin}"));
        let join = self.join.as_ref().map(|join| format!("join={}", join.reveal()));
        let keys: Vec<String> = pin.into_iter().chain(join).collect();
        let query = if keys.is_empty() { String::new() } else { format!("?{}", keys.join("&")) };
        format!("pulse://{}/{query}", self.authority())
    }
}

/// `HOST:PORT`, with an IPv6 address in brackets.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl FromStr for JoinString {
    type Err = JoinError;

    fn from_str(text: &str) -> Result<JoinString, JoinError> {
        let rest = text.trim().strip_prefix("pulse://").ok_or(JoinError::Scheme)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if rest.contains('#') {
            return Err(JoinError::Path);
        }
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains('/') {
            return Err(JoinError::Path);
        }
        let (host, port) = split_authority(place).ok_or(JoinError::Authority)?;
        let (mut pin, mut join) = (None, None);
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (slot, name) = match key {
                "pin" => (&mut pin, "pin"),
                "join" => (&mut join, "join"),
                // A later version may say more.
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(JoinError::Doubled(name));
            }
        }
        let join = join.map(|join| Token::parse(TokenKind::Join, join)).transpose()?;
        Ok(JoinString { host, port, pin: pin.map(str::parse).transpose()?, join })
    }
}

/// Splits `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`; the port is 7655 if none is written.
pub fn split_authority(text: &str) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(is_host) {
        return None;
    }
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0)?
        }
        None if rest.is_empty() => DEFAULT_PORT,
        _ => return None,
    };
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn token() -> Token {
        Token::generate(TokenKind::Join).unwrap()
    }

    fn error(text: &str) -> JoinError {
        text.parse::<JoinString>().unwrap_err()
    }

    #[test]
    fn a_join_string_survives_the_way_to_text_and_back() {
        for host in ["pulse.lan", "10.0.0.1", "2001:db8::1"] {
            for pin in [None, Some(PIN.parse().unwrap())] {
                for join in [None, Some(token())] {
                    let join = JoinString { host: host.into(), port: 8000, pin, join };
                    assert_eq!(join.reveal().parse(), Ok(join));
                }
            }
        }
    }

    #[test]
    fn the_port_is_7655_if_none_is_written_and_unknown_keys_are_ignored() {
        let token = token();
        let join: JoinString = format!(" pulse://[::1]?x=1&join={}&later\n", token.reveal()).parse().unwrap();
        assert_eq!((join.host.as_str(), join.port, join.pin), ("::1", 7655, None));
    }

    #[test]
    fn a_join_string_needs_no_secret() {
        for (text, has_pin) in
            [("pulse://a:1/", false), ("pulse://a:1", false), (&*format!("pulse://a:1/?pin={PIN}"), true)]
        {
            let join: JoinString = text.parse().unwrap();
            assert_eq!((join.pin.is_some(), join.join), (has_pin, None), "{text}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        let token = token();
        let t = token.reveal();
        assert_eq!(error(&format!("https://a/?join={t}")), JoinError::Scheme);
        assert_eq!(error("pulse://a/?join="), JoinError::Token(TokenError::Kind("join", "pjoin_")));
        assert_eq!(error("pulse://a/#x"), JoinError::Path);
        assert_eq!(error(&format!("pulse://a/?join={t}&join={t}")), JoinError::Doubled("join"));
        assert_eq!(error(&format!("pulse://a/?pin=sha256:00&join={t}")), JoinError::Pin(PinError));
        assert_eq!(error(&format!("pulse://a/b?join={t}")), JoinError::Path);
        for place in ["", ":1", "a:0", "a:65536", "a:+1", "a:", "::1", "[::1", "[a]:1", "a b", "user@a"] {
            assert_eq!(error(&format!("pulse://{place}/?join={t}")), JoinError::Authority, "{place}");
        }
        let damaged = error(&format!("pulse://a/?join={}", &t[..20]));
        assert!(damaged.to_string().contains("damaged") && !damaged.to_string().contains(&t[8..20]));
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let token = token();
        let join = JoinString { host: "a".into(), port: 1, pin: None, join: Some(token.clone()) };
        assert!(!format!("{join:?}").contains(&token.reveal()[6..]));
    }
}
