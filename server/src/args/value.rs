//! Values that several commands take.

use std::time::Duration;

use clap::ValueEnum;
use pulse_proto::Node;

use crate::api;
use crate::poller::{MAX_INTERVAL, MIN_INTERVAL};
use crate::pve::address::PveUrl;
use crate::pve::certificate::Fingerprint;
use crate::pve::client::ApiToken;

/// Which nodes a proxy may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Those of its instance
    Instance,
    /// Every node that Pulse knows
    All,
}

impl From<Scope> for api::ScopeKind {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Instance => Self::Instance,
            Scope::All => Self::All,
        }
    }
}

/// `NODE=ADDR`; `NODE` or `NODE=` if only the name is known.
pub(super) fn endpoint(text: &str) -> Result<Node, String> {
    let (name, address) = text.split_once('=').unwrap_or((text, ""));
    Node::new(name, address).map_err(|error| error.to_string())
}

/// Where Proxmox VE is asked.
pub(super) fn pve_url(text: &str) -> Result<String, String> {
    text.parse::<PveUrl>().map(|url| url.to_string())
}

/// The id of an API token.
pub(super) fn token_id(text: &str) -> Result<String, String> {
    // Any secret: it is the id's rule that counts here.
    ApiToken::new(text, "secret").map(|token| token.id().to_owned())
}

/// An address at which a node is.
pub(super) fn address(text: &str) -> Result<String, String> {
    // Any name: it is the address's rule that counts here.
    let node = Node::new("node", text).map_err(|error| error.to_string())?;
    Ok(node.address().to_string())
}

/// The fingerprint of a certificate.
pub(super) fn fingerprint(text: &str) -> Result<String, String> {
    text.parse::<Fingerprint>().map(|fingerprint| fingerprint.to_string())
}

/// A host's name, as proxies register with it.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=253).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 253 of A-Z a-z 0-9 . _ -".to_owned())
}

/// How often Proxmox VE is asked.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = pulse_config::parse_duration(text)?;
    if (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
        return Ok(interval);
    }
    Err(format!("must be {} s to {} s, but is {text:?}", MIN_INTERVAL.as_secs(), MAX_INTERVAL.as_secs()))
}

/// How long something is good for.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    match pulse_config::parse_duration(text)? {
        short if short < Duration::from_secs(1) => Err(format!("must be at least 1s, but is {text:?}")),
        ttl => Ok(ttl),
    }
}
