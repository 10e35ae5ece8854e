//! Which of the listed nodes is the host that the proxy runs on.
//!
//! On the ring: between `gate` and `sensors`; `collect` asks it. In: the nodes of a list, and what the host
//! knows of itself ([`LocalHost`]). Out: a [`Verdict`] for each node, and the words for the ones that are not read.
//! Always: in doubt nothing is read, so that no reading stands under a wrong node, and the reason names both sides.
//! Never: asks DNS or the network; the verdicts come from the arguments alone.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use pulse_proto::Node;
use pulse_proto::node::Address;

/// What a host knows of itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LocalHost {
    /// The name under which the proxy was registered, short or full.
    pub hostname: String,
    /// The node that the configuration calls this host (`this_node`, or `--hostname` at registration).
    pub this_node: Option<String>,
    /// The addresses of all interfaces. Loopback addresses are local whether they stand here or not.
    pub addresses: HashSet<IpAddr>,
}

/// What one listed node is to this host. The positions are those of other nodes of the same list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is this host.
    ThisHost,
    /// Neither its name nor its address is this host's.
    OtherHost,
    /// Its name is this host's, its address is not.
    AddressElsewhere,
    /// Its address is this host's, but the configuration calls another listed node this host.
    NamedOtherwise {
        /// The node that the configuration names.
        named: usize,
    },
    /// Its name is this host's, and another entry of the same name has this host's address.
    OtherEntry {
        /// That entry.
        entry: usize,
    },
    /// It could be this host, and so could another node: neither is read.
    Ambiguous {
        /// The other node.
        other: usize,
    },
}

impl LocalHost {
    /// Asks the system for the addresses of its interfaces, up or down: either way no other host answers to them here.
    ///
    /// # Errors
    /// What the system said.
    pub fn interface_addresses() -> io::Result<HashSet<IpAddr>> {
        Ok(if_addrs::get_if_addrs()?.iter().map(|interface| interface.ip().to_canonical()).collect())
    }

    fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// Whether the node's address is one of this host's.
    fn is_at(&self, node: &Node) -> bool {
        matches!(node.address(), Address::Ip(ip) if self.has(*ip))
    }
}

/// Tells for each node of a list whether it is `host`.
///
/// A node is this host if its address is local; or its name is the hostname and its address is empty or the hostname
/// too; or `this_node` names it. `this_node` decides: other nodes at this host's addresses are not read then.
/// Two nodes that match are both ambiguous, with two exceptions that leave no doubt: an entry that is nothing but
/// a local address is this host whatever else is listed, and of entries with one name those with a local address count.
pub fn verdicts(nodes: &[Node], host: &LocalHost) -> Vec<Verdict> {
    let named = host.this_node.as_deref().map(|name| positions(nodes, |node| is_called(node, name)));
    match named {
        Some(named) if !named.is_empty() => verdicts_as_named(nodes, host, &named),
        _ => verdicts_as_found(nodes, host),
    }
}

/// The verdicts where the configuration names nodes of the list, which stand at `named`.
fn verdicts_as_named(nodes: &[Node], host: &LocalHost, named: &[usize]) -> Vec<Verdict> {
    let local: Vec<usize> = named.iter().copied().filter(|&at| host.is_at(&nodes[at])).collect();
    let chosen = if local.is_empty() { named } else { &local };
    let mut verdicts = vec![Verdict::OtherHost; nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        if host.is_at(node) {
            verdicts[at] = match is_bare_address(node) {
                true => Verdict::ThisHost,
                false => Verdict::NamedOtherwise { named: chosen[0] },
            };
        }
    }
    for &at in named {
        verdicts[at] = Verdict::OtherEntry { entry: chosen[0] };
    }
    settle(&mut verdicts, nodes, host, chosen);
    verdicts
}

/// The verdicts by addresses and the hostname alone.
fn verdicts_as_found(nodes: &[Node], host: &LocalHost) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::OtherHost; nodes.len()];
    let (mut by_address, mut by_name) = (Vec::new(), Vec::new());
    for (at, node) in nodes.iter().enumerate() {
        if host.is_at(node) {
            match is_bare_address(node) {
                true => verdicts[at] = Verdict::ThisHost,
                false => by_address.push(at),
            }
        } else if is_called(node, &host.hostname) {
            match node.address() {
                Address::Unknown => by_name.push(at),
                Address::Dns(name) if is_same_host_name(name, &host.hostname) => by_name.push(at),
                Address::Dns(_) | Address::Ip(_) => verdicts[at] = Verdict::AddressElsewhere,
            }
        }
    }
    // `delly` beside `delly (192.168.0.5)`, as older servers list a host: the entry with the address is read.
    if let [entry, ..] = by_address[..] {
        by_name.retain(|&at| {
            let is_double = has_one_name(nodes, &[entry, at]);
            if is_double {
                verdicts[at] = Verdict::OtherEntry { entry };
            }
            !is_double
        });
    }
    by_address.append(&mut by_name);
    settle(&mut verdicts, nodes, host, &by_address);
    verdicts
}

/// Gives the nodes at `chosen` their verdict: one is this host, several are if they are one host under several of its
/// own addresses.
fn settle(verdicts: &mut [Verdict], nodes: &[Node], host: &LocalHost, chosen: &[usize]) {
    let is_one_host =
        chosen.len() == 1 || has_one_name(nodes, chosen) && chosen.iter().all(|&at| host.is_at(&nodes[at]));
    for &at in chosen {
        verdicts[at] = match is_one_host {
            true => Verdict::ThisHost,
            false => Verdict::Ambiguous { other: if at == chosen[0] { chosen[1] } else { chosen[0] } },
        };
    }
}

impl Verdict {
    /// Why the node at position `at` of `nodes` is not read, for a person. `None` if it is this host.
    ///
    /// `nodes` and `host` are those that the verdict was made of.
    pub fn reason(self, at: usize, nodes: &[Node], host: &LocalHost) -> Option<String> {
        let node = &nodes[at];
        let name = node.name();
        let this = if host.hostname.is_empty() { "unnamed" } else { &host.hostname };
        Some(match self {
            Verdict::ThisHost => return None,
            Verdict::OtherHost => format!(
                "{name} is not this host ({this}): this version reads its own host only; if it is this host, set \
                 this_node: {name} in the proxy's configuration"
            ),
            Verdict::AddressElsewhere => format!(
                "the name {name} is this host's ({this}), but the address {} is none of its addresses: correct the \
                 address in Pulse, or set this_node: {name} in the proxy's configuration",
                node.address()
            ),
            Verdict::NamedOtherwise { named } => format!(
                "the address {} is this host's, but its configuration says that it is {} and not {name}: correct \
                 the address in Pulse, or this_node in the proxy's configuration",
                node.address(),
                nodes[named]
            ),
            Verdict::OtherEntry { entry } => format!(
                "{node} is listed beside {}, which has this host's address: that entry is read, this one is not",
                nodes[entry]
            ),
            Verdict::Ambiguous { other } => format!(
                "{node} and {} could both be this host ({this}), so neither is read: take one off in Pulse, or set \
                 this_node in the proxy's configuration to the name of the right one",
                nodes[other]
            ),
        })
    }
}

fn positions(nodes: &[Node], is_wanted: impl Fn(&Node) -> bool) -> Vec<usize> {
    nodes.iter().enumerate().filter(|(_, node)| is_wanted(node)).map(|(at, _)| at).collect()
}

/// Whether an entry is an address and nothing else.
fn is_bare_address(node: &Node) -> bool {
    node.name().parse::<IpAddr>().is_ok()
}

fn is_called(node: &Node, name: &str) -> bool {
    // The first part of an address is no short name.
    if is_bare_address(node) {
        return node.name().eq_ignore_ascii_case(name);
    }
    is_same_host_name(node.name(), name)
}

/// Whether two names are one host's, case-blind: equal, or one is short and is the first part of the other.
fn is_same_host_name(one: &str, other: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let (one, other) = (one.trim_end_matches('.'), other.trim_end_matches('.'));
    if one.is_empty() {
        return false;
    }
    one.eq_ignore_ascii_case(other)
        || (!one.contains('.') || !other.contains('.')) && short(one) == short(other)
}

fn has_one_name(nodes: &[Node], chosen: &[usize]) -> bool {
    chosen.windows(2).all(|pair| nodes[pair[0]].name().eq_ignore_ascii_case(nodes[pair[1]].name()))
}

#[cfg(test)]
mod tests {
    use super::Verdict::*;
    use super::*;

    /// The host `delly.lan` at 192.168.0.5, 10.0.0.5 and 2001:db8::5.
    fn delly() -> LocalHost {
        let addresses = ["192.168.0.5", "10.0.0.5", "2001:db8::5"];
        LocalHost {
            hostname: "delly.lan".into(),
            this_node: None,
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        }
    }

    fn named(this_node: &str) -> LocalHost {
        LocalHost { this_node: Some(this_node.into()), ..delly() }
    }

    fn nodes(lines: &[&str]) -> Vec<Node> {
        let node = |line: &&str| {
            let (name, address) = line.split_once('|').expect("name|address");
            Node::new(name, address).expect("a node")
        };
        lines.iter().map(node).collect()
    }

    fn told(lines: &[&str], host: &LocalHost) -> Vec<Verdict> {
        verdicts(&nodes(lines), host)
    }

    fn reason(lines: &[&str], host: &LocalHost, at: usize) -> String {
        let nodes = nodes(lines);
        verdicts(&nodes, host)[at].reason(at, &nodes, host).expect("a reason")
    }

    #[test]
    fn a_node_at_a_local_address_is_this_host_whatever_its_name() {
        for line in [
            "delly|192.168.0.5",
            "other|192.168.0.5",
            "other|2001:db8::5",
            "a|127.0.0.1",
            "a|127.8.9.1",
            "a|::1",
        ] {
            assert_eq!(told(&[line, "minipc|192.168.0.134"], &delly()), [ThisHost, OtherHost], "{line}");
        }
    }

    #[test]
    fn a_node_without_address_is_this_host_by_its_name_short_or_full_in_any_case() {
        for line in ["delly|", "DELLY|", "delly.lan|", "Delly.LAN|"] {
            assert_eq!(told(&[line], &delly()), [ThisHost], "{line}");
        }
        let short = LocalHost { hostname: "Delly".into(), ..delly() };
        for line in ["delly|", "delly.lan|", "delly.other|"] {
            assert_eq!(told(&[line], &short), [ThisHost], "{line}");
        }
    }

    #[test]
    fn another_name_without_address_is_another_host() {
        for line in ["dell|", "dellys|", "delly.other|", "lan|", "delly-lan|", "delly.lan.example|"] {
            assert_eq!(told(&[line], &delly()), [OtherHost], "{line}");
        }
    }

    #[test]
    fn a_host_without_a_name_is_found_by_address_only() {
        let nameless = LocalHost { hostname: String::new(), ..delly() };
        assert_eq!(told(&["delly|", "delly|192.168.0.5"], &nameless), [OtherHost, ThisHost]);
        assert!(reason(&["delly|"], &nameless, 0).contains("unnamed"));
    }

    #[test]
    fn a_name_with_a_foreign_address_is_not_read_and_the_reason_names_both() {
        assert_eq!(told(&["delly|192.168.0.6"], &delly()), [AddressElsewhere]);
        let reason = reason(&["delly|192.168.0.6"], &delly(), 0);
        for part in ["delly", "delly.lan", "192.168.0.6", "this_node: delly"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
    }

    #[test]
    fn a_foreign_namesake_does_not_keep_this_host_from_being_read() {
        assert_eq!(told(&["delly|192.168.0.5", "delly|192.168.0.6"], &delly()), [ThisHost, AddressElsewhere]);
    }

    #[test]
    fn a_dns_address_counts_only_as_the_hostname() {
        assert_eq!(told(&["delly|delly.lan"], &delly()), [ThisHost]);
        assert_eq!(told(&["delly|DELLY"], &delly()), [ThisHost]);
        assert_eq!(told(&["delly|delly.other"], &delly()), [AddressElsewhere]);
        assert_eq!(told(&["delly|localhost"], &delly()), [AddressElsewhere]);
        assert_eq!(told(&["minipc|delly.lan"], &delly()), [OtherHost]);
    }

    #[test]
    fn of_two_names_at_this_hosts_addresses_neither_is_read_and_the_reason_names_both() {
        let lines = ["a|192.168.0.5", "minipc|192.168.0.134", "b|10.0.0.5", "c|127.0.0.1"];
        assert_eq!(
            told(&lines, &delly()),
            [Ambiguous { other: 2 }, OtherHost, Ambiguous { other: 0 }, Ambiguous { other: 0 }]
        );
        let reason = reason(&lines, &delly(), 2);
        assert!(
            reason.contains("b (10.0.0.5) and a (192.168.0.5)") && reason.contains("this_node"),
            "{reason}"
        );
    }

    #[test]
    fn a_name_and_another_nodes_address_are_ambiguous() {
        assert_eq!(
            told(&["delly|", "other|192.168.0.5"], &delly()),
            [Ambiguous { other: 1 }, Ambiguous { other: 0 }]
        );
    }

    #[test]
    fn short_and_full_name_without_addresses_are_two_nodes() {
        assert_eq!(
            told(&["delly|", "delly.lan|"], &delly()),
            [Ambiguous { other: 1 }, Ambiguous { other: 0 }]
        );
        assert_eq!(
            told(&["delly|", "delly|delly.lan"], &delly()),
            [Ambiguous { other: 1 }, Ambiguous { other: 0 }]
        );
    }

    #[test]
    fn an_entry_without_address_gives_way_to_its_double_with_one() {
        let lines = ["delly|", "delly|192.168.0.5"];
        assert_eq!(told(&lines, &delly()), [OtherEntry { entry: 1 }, ThisHost]);
        assert!(reason(&lines, &delly(), 0).contains("delly (192.168.0.5)"));
    }

    #[test]
    fn one_name_at_two_local_addresses_is_one_host() {
        assert_eq!(told(&["delly|192.168.0.5", "Delly|10.0.0.5"], &delly()), [ThisHost, ThisHost]);
    }

    #[test]
    fn a_bare_address_is_this_host_beside_its_name() {
        // The static list of an older install: names and addresses of one host, each on its own.
        let lines =
            ["delly|", "192.168.0.5|192.168.0.5", "127.0.0.1|127.0.0.1", "192.168.0.134|192.168.0.134"];
        assert_eq!(told(&lines, &delly()), [ThisHost, ThisHost, ThisHost, OtherHost]);
    }

    #[test]
    fn the_first_part_of_an_address_is_no_name() {
        let host = LocalHost { hostname: "192".into(), ..delly() };
        assert_eq!(told(&["192.168.0.134|192.168.0.134"], &host), [OtherHost]);
    }

    #[test]
    fn this_node_is_read_whatever_its_address() {
        for line in ["minipc|", "minipc|192.168.0.134", "MINIPC|minipc.example"] {
            assert_eq!(told(&[line, "x|1.2.3.4"], &named("minipc")), [ThisHost, OtherHost], "{line}");
        }
        assert_eq!(told(&["minipc|"], &named("minipc.lan")), [ThisHost]);
    }

    #[test]
    fn this_node_decides_between_names_at_local_addresses() {
        let lines = ["delly|192.168.0.5", "vip|10.0.0.5", "10.0.0.5|10.0.0.5"];
        assert_eq!(told(&lines, &named("delly")), [ThisHost, NamedOtherwise { named: 0 }, ThisHost]);
        let reason = reason(&lines, &named("delly"), 1);
        assert!(reason.contains("delly (192.168.0.5)") && reason.contains("not vip"), "{reason}");
    }

    #[test]
    fn this_node_stands_above_the_hostname() {
        assert_eq!(told(&["delly|", "minipc|"], &named("minipc")), [OtherHost, ThisHost]);
    }

    #[test]
    fn this_node_that_is_not_listed_changes_nothing() {
        assert_eq!(told(&["delly|", "minipc|"], &named("absent")), [ThisHost, OtherHost]);
    }

    #[test]
    fn this_node_listed_twice_is_the_entry_with_a_local_address_or_ambiguous() {
        assert_eq!(
            told(&["pve|192.168.0.6", "pve|192.168.0.5", "pve|"], &named("pve")),
            [OtherEntry { entry: 1 }, ThisHost, OtherEntry { entry: 1 }]
        );
        assert_eq!(
            told(&["pve|", "pve|pve.example"], &named("pve")),
            [Ambiguous { other: 1 }, Ambiguous { other: 0 }]
        );
    }

    #[test]
    fn one_name_at_two_foreign_addresses_is_ambiguous_even_if_named() {
        assert_eq!(
            told(&["pve|192.168.0.6", "pve|192.168.0.7"], &named("pve")),
            [Ambiguous { other: 1 }, Ambiguous { other: 0 }]
        );
    }

    #[test]
    fn reasons_fit_into_a_report() {
        let name = |first: char| first.to_string().repeat(63);
        let label = "x".repeat(61);
        let dns = [label.as_str(); 4].join(".");
        let lines = [format!("{}|{dns}", name('a')), format!("{}|{dns}", name('b'))];
        let host = LocalHost { hostname: "h".repeat(253), ..delly() };
        let nodes = nodes(&[&lines[0], &lines[1]]);
        // The report cuts at 512 bytes: the two names must stand before that.
        let reason = Ambiguous { other: 1 }.reason(0, &nodes, &host).unwrap();
        assert!(reason.find(&name('b')).unwrap() + 63 <= 512, "{reason}");
    }

    #[test]
    fn an_empty_list_has_no_verdicts_and_ten_thousand_nodes_are_quick() {
        assert!(told(&[], &delly()).is_empty());
        let many: Vec<Node> =
            (0..10_000).map(|n| Node::new(&format!("n{n}"), "127.0.0.1").unwrap()).collect();
        assert!(verdicts(&many, &delly()).iter().all(|verdict| matches!(verdict, Ambiguous { .. })));
    }

    #[test]
    fn the_systems_own_addresses_are_read() {
        LocalHost::interface_addresses().expect("the interfaces are listed");
    }
}
