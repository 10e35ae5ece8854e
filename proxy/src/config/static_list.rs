//! The nodes that the configuration itself allows: what a proxy falls back to, and what older installs live by.
//!
//! In: texts from `allowed_nodes`, its environment variable and `allowed_nodes_file`. Out: [`StaticList`].
//! Always: an address is canonical, a name keeps its spelling, doubles (names: in any case) are one entry.
//! Never: takes a name for a network, or asks DNS.

use pulse_config::{Document, Environment, Mistakes, Remark, Value, nearest, read};
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

/// Reads the text of an `allowed_nodes_file`, in any of its three forms: a block with the key `allowed_nodes`, a bare
/// list, or plain lines with `#` comments and an optional leading `-`.
///
/// # Errors
/// Every entry that is none, and every key that is unknown.
pub(crate) fn read_list_file(text: &str, file: &str) -> Result<Vec<StaticEntry>, Mistakes> {
    let key = "allowed_nodes";
    match Document::parse(text, file) {
        Ok(document) => match document.root.value {
            Value::Map(_) => {
                let reading =
                    read(&document, &Environment::default(), "", |keys| keys.union(key, str::parse))?;
                Ok(reading.value)
            }
            Value::List(nodes) => {
                let texts = nodes.iter().map(|node| match &node.value {
                    Value::Scalar(text) => Ok((node.line, text.trim())),
                    Value::Null => Ok((node.line, "")),
                    other => Err((
                        node.line,
                        format!("each entry must be a single value, but is {}", other.kind()),
                    )),
                });
                entries(texts, file)
            }
            Value::Null => Ok(Vec::new()),
            Value::Scalar(_) => plain_lines(text, file),
        },
        // Lines are no YAML, for example if a comment stands between two names: but what was begun as YAML is told as such.
        Err(mistakes) if looks_like_yaml(text, key) => Err(mistakes),
        Err(_) => plain_lines(text, file),
    }
}

fn looks_like_yaml(text: &str, key: &str) -> bool {
    text.lines().map(str::trim).any(|line| {
        let word = line.split_once(':').map(|(word, _)| word);
        line.starts_with(['[', '{']) && !line.ends_with(']')
            || word.is_some_and(|word| nearest(word, [key]).is_some())
    })
}

fn plain_lines(text: &str, file: &str) -> Result<Vec<StaticEntry>, Mistakes> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().map(|(index, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let entry = line.strip_prefix('-').unwrap_or(line).trim();
        Ok((index + 1, entry))
    });
    entries(lines, file)
}

fn entries<'t>(
    texts: impl Iterator<Item = Result<(usize, &'t str), (usize, String)>>,
    file: &str,
) -> Result<Vec<StaticEntry>, Mistakes> {
    let mut entries = Vec::new();
    let mut mistakes: Vec<Remark> = Vec::new();
    for text in texts {
        let entry = match text {
            Ok((_, "")) => continue,
            Ok((line, text)) => text.parse().map_err(|mistake| (line, mistake)),
            Err(mistake) => Err(mistake),
        };
        match entry {
            Ok(entry) => entries.push(entry),
            Err((line, text)) => mistakes.extend(Mistakes::in_file(file, Some(line), text).into_remarks()),
        }
    }
    if mistakes.is_empty() { Ok(entries) } else { Err(Mistakes::new(mistakes)) }
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

    #[test]
    fn all_three_forms_of_the_file_are_read() {
        for text in [
            "allowed_nodes:\n  - delly\n  - 10.0.0.0/24\n  - fd00::1\n",
            "allowed_nodes: [delly]\nallowed_nodes:\n- 10.0.0.0/24\n- fd00::1\n",
            "- delly\n- 10.0.0.0/24\n- fd00::1\n",
            "[delly, 10.0.0.0/24, 'fd00::1']\n",
            "delly\n10.0.0.0/24\nfd00::1\n",
            "# mine\ndelly # the first\n\n- 10.0.0.0/24\r\n  fd00::1\n",
            "\u{feff}delly\n-10.0.0.0/24\n#x\nfd00::1",
            "fd00::1\n# between\ndelly\n10.0.0.0/24\n",
        ] {
            let mut found: Vec<_> =
                read_list_file(text, "f").expect(text).iter().map(ToString::to_string).collect();
            found.sort();
            assert_eq!(found, ["10.0.0.0/24", "delly", "fd00::1"], "{text:?}");
        }
        for text in ["", "# nothing\n", "allowed_nodes:\n", "[]", "allowed_nodes: []\n", "- \n"] {
            assert_eq!(read_list_file(text, "f"), Ok(vec![]), "{text:?}");
        }
    }

    #[test]
    fn mistakes_in_the_file_name_their_lines() {
        let mistakes = |text: &str| read_list_file(text, "f").unwrap_err().to_string();
        assert!(mistakes("delly\n*\na b\n").starts_with("f:2: node name \"*\""));
        assert_eq!(mistakes("delly\n*\na b\n").lines().count(), 2);
        assert!(mistakes("- [a]\n").starts_with("f:1: each entry must be a single value"));
        assert!(mistakes("allowed_node: [a]\n").contains("did you mean allowed_nodes?"));
        assert!(mistakes("allowed_nodes:\n\t- a\n").contains("tabs"));
        assert!(mistakes("allowed_nodes: [a, b\n").contains("not valid YAML"));
    }
}
