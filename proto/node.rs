//! [`Node`]: the name and the address of a host whose temperatures can be read.
//!
//! In: what people typed, what a cluster said, what came over the wire. Out: a valid node.
//! Always: name and address keep their rules, so that neither can be taken for a range of hosts.
//! Never: asks DNS.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest name of a node, in bytes: a DNS label.
pub const MAX_NAME_BYTES: usize = 63;
/// The longest DNS name, in bytes (RFC 1035, without the final dot).
const MAX_DNS_BYTES: usize = 253;

/// A host whose temperatures can be read.
///
/// Two nodes are the same line of a list if they are equal; names that differ in case only are
/// [the same name](Node::is_same_as).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    name: String,
    address: Address,
}

/// Where a node is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// Only the name is known.
    Unknown,
    /// An IPv4 or IPv6 address; never IPv4-mapped, never with a zone.
    Ip(IpAddr),
    /// A DNS name, as it was given.
    Dns(String),
}

/// Why a name or an address is not one. The text names the rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeError {
    /// A name is needed.
    #[error("a node needs a name: 1 to 63 of A-Z a-z 0-9 . _ -, beginning with a letter or digit")]
    EmptyName,
    /// The name is too long.
    #[error("node name {name} has {bytes} bytes: the most are 63")]
    LongName {
        /// The beginning of the name, quoted.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// The name has a character that names do not have.
    #[error(
        "node name {name} has the character {character:?}: a name is made of A-Z a-z 0-9 . _ - \
         (a node is one host: ranges, wildcards and separators are refused)"
    )]
    NameCharacter {
        /// The name, quoted.
        name: String,
        /// The first such character.
        character: char,
    },
    /// The name begins with `.`, `_` or `-`.
    #[error("node name {name} begins with {character:?}: a name begins with a letter or digit")]
    NameBeginning {
        /// The name, quoted.
        name: String,
        /// Its first character.
        character: char,
    },
    /// The name is an address, and not the node's own.
    #[error("node name {name} is an address: give the host's name, or the same value as its address")]
    NameIsAddress {
        /// The name, quoted.
        name: String,
    },
    /// The address is none.
    #[error(
        "node address {address} is refused: {rule} (an address is empty, one IPv4 or IPv6 address without \
         zone or brackets, or a DNS name; never a CIDR or a wildcard)"
    )]
    Address {
        /// The address, quoted.
        address: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The address is valid, but not in its one canonical form. Raised on the wire only.
    #[error("node address {address} is not canonical: it is written {canonical:?}")]
    NotCanonical {
        /// The address, quoted.
        address: String,
        /// How it is written.
        canonical: String,
    },
}

impl Node {
    /// Makes a node of a name and an address; an empty address means that only the name is known.
    ///
    /// The address is brought into its canonical form, the name stays as it is.
    ///
    /// # Errors
    /// [`NodeError`], naming the rule that is broken.
    pub fn new(name: &str, address: &str) -> Result<Node, NodeError> {
        check_name(name)?;
        let address: Address = address.parse()?;
        if let Ok(named) = name.parse::<IpAddr>()
            && address != Address::Ip(named.to_canonical())
        {
            return Err(NodeError::NameIsAddress { name: quoted(name) });
        }
        Ok(Node { name: name.to_owned(), address })
    }

    /// Takes a node from the wire, where the address must be in its canonical form already.
    ///
    /// # Errors
    /// [`NodeError`], naming the rule that is broken.
    pub fn from_wire(node: &crate::v1::Node) -> Result<Node, NodeError> {
        let parsed = Node::new(&node.name, &node.ip)?;
        let canonical = parsed.address.to_string();
        if canonical != node.ip {
            return Err(NodeError::NotCanonical { address: quoted(&node.ip), canonical });
        }
        Ok(parsed)
    }

    /// The name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether both stand for the same entry: equal addresses, and names that differ in case at most.
    pub fn is_same_as(&self, other: &Node) -> bool {
        self.address == other.address && self.name.eq_ignore_ascii_case(&other.name)
    }

    /// The line `name|ip` over which lists are sorted and hashed.
    pub fn line(&self) -> String {
        format!("{}|{}", self.name, self.address)
    }
}

impl Node {
    /// Compares the lines of two nodes, as if they were written out.
    pub(crate) fn cmp_line(&self, other: &Node) -> Ordering {
        let (one, two) = (self.name.as_bytes(), other.name.as_bytes());
        let common = one.len().min(two.len());
        // A name ends with the bar of its line, which no name has.
        let next = |name: &[u8]| name.get(common).copied().unwrap_or(b'|');
        let names = one[..common].cmp(&two[..common]).then_with(|| next(one).cmp(&next(two)));
        names.then_with(|| self.address.to_string().cmp(&other.address.to_string()))
    }
}

impl From<&Node> for crate::v1::Node {
    fn from(node: &Node) -> Self {
        crate::v1::Node { name: node.name.clone(), ip: node.address.to_string() }
    }
}

/// `name` or `name (address)`, for people.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unknown => f.write_str(&self.name),
            address => write!(f, "{} ({address})", self.name),
        }
    }
}

impl FromStr for Address {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Address, NodeError> {
        if text.is_empty() {
            return Ok(Address::Unknown);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            if ip.is_unspecified() {
                return Err(NodeError::Address {
                    address: quoted(text),
                    rule: "it is the address of no host",
                });
            }
            return Ok(Address::Ip(ip));
        }
        match dns_rule(text) {
            Some(rule) => Err(NodeError::Address { address: quoted(text), rule }),
            None => Ok(Address::Dns(text.to_owned())),
        }
    }
}

/// The form that is hashed and sent; empty if unknown.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unknown => Ok(()),
            Address::Ip(ip) => ip.fmt(f),
            Address::Dns(name) => f.write_str(name),
        }
    }
}

fn check_name(name: &str) -> Result<(), NodeError> {
    let Some(first) = name.chars().next() else {
        return Err(NodeError::EmptyName);
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(character) = name.chars().find(|c| !is_plain(*c)) {
        return Err(NodeError::NameCharacter { name: quoted(name), character });
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NodeError::NameBeginning { name: quoted(name), character: first });
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NodeError::LongName { name: quoted(name), bytes: name.len() });
    }
    Ok(())
}

/// The rule for DNS names that `text` breaks, if any (RFC 1123; `_` as many a network has it).
fn dns_rule(text: &str) -> Option<&'static str> {
    if text.len() > MAX_DNS_BYTES {
        return Some("it has more than 253 bytes");
    }
    if text.contains('/') {
        return Some("it is a range");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Some("it has a character that no DNS name has");
    }
    let labels = || text.split('.');
    if labels().any(|label| label.is_empty() || label.len() > 63) {
        return Some("its parts between dots have 1 to 63 bytes");
    }
    if labels().any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Some("its parts neither begin nor end with '-'");
    }
    // What ends in a number is read as an address by resolvers, in forms such as 127.1 or 0x7f.1.
    let last = labels().next_back().unwrap_or_default();
    let is_hex = last
        .strip_prefix("0x")
        .or(last.strip_prefix("0X"))
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Some("it ends in a number but is no address");
    }
    None
}

/// Quotes hostile text for a message: escaped, and at most 80 characters of it.
fn quoted(text: &str) -> String {
    let beginning: String = text.chars().take(80).collect();
    if beginning.len() < text.len() { format!("{beginning:?}…") } else { format!("{beginning:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, address: &str) -> String {
        Node::new(name, address).unwrap_err().to_string()
    }

    #[test]
    fn names_and_addresses_of_real_hosts_are_taken() {
        for (name, address) in [
            ("delly", ""),
            ("delly", "192.168.0.5"),
            ("pve-01.lab.example", "2001:db8::5"),
            ("n_1", "pve-01.lab.example"),
            ("192.168.0.134", "192.168.0.134"),
            ("1.2.3", "10.0.0.1"),
            (&"a".repeat(63), ""),
        ] {
            Node::new(name, address).unwrap_or_else(|e| panic!("{name} {address}: {e}"));
        }
    }

    #[test]
    fn addresses_are_made_canonical() {
        let address = |text: &str| Node::new("a", text).unwrap().address().to_string();
        assert_eq!(address("2001:0DB8:0:0::5"), "2001:db8::5");
        assert_eq!(address("::ffff:192.168.0.5"), "192.168.0.5");
        assert_eq!(address("PVE.example"), "PVE.example");
    }

    #[test]
    fn nodes_compare_as_their_lines_do() {
        let nodes: Vec<Node> =
            [("a", ""), ("a", "10.0.0.1"), ("a", "b"), ("a-b", ""), ("a.b", ""), ("ab", ""), ("B", "")]
                .map(|(name, address)| Node::new(name, address).unwrap())
                .into();
        for one in &nodes {
            for other in &nodes {
                assert_eq!(one.cmp_line(other), one.line().cmp(&other.line()), "{one} {other}");
            }
        }
    }

    #[test]
    fn a_range_is_never_a_node() {
        assert!(refusal("0.0.0.0/0", "").contains("'/'"), "{}", refusal("0.0.0.0/0", ""));
        assert!(refusal("0.0.0.0/0", "0.0.0.0/0").contains("'/'"));
        assert!(refusal("a", "10.0.0.0/24").contains("it is a range"));
        assert!(refusal("a", "::/0").contains("it is a range"));
        assert!(refusal("*", "").contains("'*'"));
        assert!(refusal("a", "*.lab.example").contains("no DNS name"));
        assert!(refusal("a", "0.0.0.0").contains("no host"));
        assert!(refusal("a", "::").contains("no host"));
    }

    #[test]
    fn separators_white_space_and_control_characters_are_refused_by_name() {
        for (name, named) in [
            ("a|b", "'|'"),
            ("a b", "' '"),
            ("a\tb", "'\\t'"),
            ("a\nb", "'\\n'"),
            ("a\0", "'\\0'"),
            ("ä", "'ä'"),
            ("\u{200b}a", "'\\u{200b}'"),
        ] {
            assert!(refusal(name, "").contains(named), "{}", refusal(name, ""));
        }
        for address in ["a|b", "a b", "a\nb", "a\0", "ä", "10.0.0.1 ", "fe80::1%eth0", "[::1]", "10.0.0.1:80"]
        {
            assert!(refusal("a", address).contains("refused"), "{address:?}");
        }
    }

    #[test]
    fn a_name_has_1_to_63_bytes_and_begins_alphanumeric() {
        assert!(refusal("", "").contains("needs a name"));
        assert!(refusal(&"a".repeat(64), "").contains("64 bytes"));
        for name in ["-a", ".a", "_a"] {
            assert!(refusal(name, "").contains("begins with"), "{name}");
        }
    }

    #[test]
    fn a_name_is_an_address_only_if_it_is_the_nodes_own() {
        assert!(refusal("192.168.0.5", "").contains("is an address"));
        assert!(refusal("192.168.0.5", "192.168.0.6").contains("is an address"));
    }

    #[test]
    fn a_dns_name_cannot_be_mistaken_for_an_address() {
        for address in ["127.1", "256.1.1.1", "0x7f.0x1", "1", "a.1", "a..b", "-a.b", "a-.b", "a."] {
            assert!(Node::new("a", address).is_err(), "{address}");
        }
        assert!(Node::new("a", &format!("{}.b", "a".repeat(64))).is_err());
        assert!(Node::new("a", &"a.".repeat(127)).is_err());
    }

    #[test]
    fn the_wire_takes_canonical_addresses_only() {
        let wire = |ip: &str| Node::from_wire(&crate::v1::Node { name: "a".into(), ip: ip.into() });
        assert!(wire("192.168.0.5").is_ok());
        assert!(matches!(wire("::ffff:192.168.0.5"), Err(NodeError::NotCanonical { .. })));
        assert!(matches!(wire("2001:DB8::5"), Err(NodeError::NotCanonical { .. })));
    }

    #[test]
    fn hostile_text_is_escaped_and_cut_in_messages() {
        let message = refusal(&format!("\u{1b}[31m{}", "x".repeat(100_000)), "");
        assert!(message.len() < 500 && !message.contains('\u{1b}'), "{message}");
    }
}
