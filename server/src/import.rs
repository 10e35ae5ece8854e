//! What older installs have, read so that it can be taken over: the reading half of `pulse import`.
//!
//! In: the path of one file, or of an older server's data folder. Out: [`Findings`]: instances with their nodes, where and as whom
//! to ask Proxmox VE, digests of control tokens; and by name what was not taken. Always: sizes are bounded, and a part that is
//! damaged leaves the others. Never: writes, asks DNS or the network, or shows a secret.

mod control_token;
mod corosync;
mod endpoint;
mod fields;
mod file;
mod list;
mod nodes_file;
mod proxies;
mod sealed;

use std::fmt;
use std::path::Path;

use pulse_proto::{Node, TokenDigest};

use crate::pve::address::PveUrl;
use crate::pve::certificate::Fingerprint;
use crate::pve::client::ApiToken;
pub use proxies::is_proxy_url;

/// What was found, and what was not taken.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    /// What can be taken over, in the order in which it was found.
    pub instances: Vec<FoundInstance>,
    /// What could not be read or is not taken.
    pub unread: Vec<Unread>,
    /// What a person should know of what is taken.
    pub notes: Vec<String>,
}

/// An instance, or what of one a file knows: each form has a part of this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundInstance {
    /// A name that an instance may have: the cluster's, or that of the older instance. `None`: the form has none.
    pub name: Option<String>,
    /// Its nodes, without doubles; where an address was overridden, with that one.
    pub nodes: Vec<Node>,
    /// Where and as whom Proxmox VE is asked, if an API token is there.
    pub pve: Option<FoundPve>,
    /// Names of nodes with the address that a person set for them, as against what the cluster says.
    pub address_overrides: Vec<(String, String)>,
    /// Its hosts with a proxy.
    pub proxies: Vec<FoundProxy>,
    /// The file that it is from.
    pub source: String,
}

/// Where and as whom Proxmox VE is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundPve {
    /// Its hosts, the first one first. Not empty.
    pub urls: Vec<PveUrl>,
    /// The token that is shown to them.
    pub token: ApiToken,
    /// Of the certificates that are pinned.
    pub fingerprints: Vec<Fingerprint>,
    /// Whether the system's authorities vouch for its certificates. `false` without a fingerprint: nobody did, and one must be
    /// given first.
    pub has_trust_from_system: bool,
}

/// A proxy that an older server knows, or whose token a file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundProxy {
    /// Its host. `None`: it is not written down which one has this token.
    pub hostname: Option<String>,
    /// Where its own listener is, if it has one.
    pub proxy_url: Option<String>,
    /// SHA-256 of its control token, as it will show it.
    pub token_digest: Option<TokenDigest>,
}

/// Something that was not read or not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unread {
    /// The file, with the line if it is about one.
    pub place: String,
    /// What was not taken, and why.
    pub what: String,
    /// What to do.
    pub way_out: String,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.way_out)
    }
}

impl Unread {
    fn new(place: impl Into<String>, what: impl Into<String>, way_out: impl Into<String>) -> Unread {
        Unread { place: place.into(), what: what.into(), way_out: way_out.into() }
    }
}

impl Findings {
    fn of_unread(unread: Unread) -> Findings {
        Findings { unread: vec![unread], ..Findings::default() }
    }
}

impl FoundInstance {
    fn new(name: Option<String>, source: &str) -> FoundInstance {
        FoundInstance {
            name,
            nodes: Vec::new(),
            pve: None,
            address_overrides: Vec::new(),
            proxies: Vec::new(),
            source: source.to_owned(),
        }
    }

    /// Adds a node, if it is not there.
    fn add(&mut self, node: Node) {
        if !self.nodes.iter().any(|known| known.is_same_as(&node)) {
            self.nodes.push(node);
        }
    }
}

/// Reads one file of an older install: a proxy's `config.yaml`, its `allowed_nodes.yaml` in any of its three forms, its control
/// token, or a `corosync.conf`. Which one it is, its name and its text tell.
///
/// A file that cannot be read is among [`Findings::unread`], as its parts are.
#[must_use]
pub fn read_file(path: &Path) -> Findings {
    let source = path.display().to_string();
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if [sealed::NODES_FILE, sealed::KEY_FILE].contains(&name.as_str()) {
        let what = "this is of an older server's data folder";
        return Findings::of_unread(Unread::new(
            source,
            what,
            "give the folder that holds it, with --pulse-data",
        ));
    }
    let text = match file::text(path) {
        Ok(text) => text,
        Err(unread) => return Findings::of_unread(unread),
    };
    if corosync::is_meant(&name, &text) {
        corosync::read(&text, &source)
    } else if control_token::is_meant(&name, &text) {
        control_token::read(&name, &text, &source)
    } else {
        list::read(&text, &source)
    }
}

/// Reads the data folder of an older server: `nodes.enc` with the key beside it.
///
/// What cannot be read is among [`Findings::unread`]; nothing in the folder is changed.
#[must_use]
pub fn read_pulse_data(folder: &Path) -> Findings {
    let source = folder.join(sealed::NODES_FILE).display().to_string();
    match sealed::open(folder) {
        Ok(json) => nodes_file::read(&json, &source),
        Err(unread) => Findings::of_unread(unread),
    }
}

/// A name that an instance may have, made of one that it had: what names do not have becomes `-`. `None`: nothing is left.
fn instance_name(text: &str) -> Option<String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let plain: String = text.trim().chars().map(plain).collect();
    let name: String = plain.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().take(63).collect();
    // The rules of a node's name are those of an instance's. An address is none.
    Node::new(&name, "").ok().map(|named| named.name().to_owned())
}

/// Foreign text for a message: escaped, and at most 80 characters of it.
fn quoted(text: &str) -> String {
    let beginning: String = text.chars().take(80).collect();
    if beginning.len() < text.len() { format!("{beginning:?}…") } else { format!("{beginning:?}") }
}

/// Whether a host is this machine, whichever that is: no node of a fleet.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"].contains(&host.as_str())
        }
    }
}

#[cfg(test)]
mod tests;
