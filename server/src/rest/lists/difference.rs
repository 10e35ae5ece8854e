//! How two lists differ: what only one of them has, and which node has another address. Pure.

use std::collections::{BTreeSet, HashMap};

use pulse_proto::{Allowlist, Node};

use crate::api;

/// Nodes that only the second has, that only the first has, and that have another address.
pub(super) fn of(
    from: &Allowlist,
    to: &Allowlist,
) -> (Vec<api::Node>, Vec<api::Node>, Vec<api::AddressChange>) {
    let lines = |list: &Allowlist| list.nodes().iter().map(Node::line).collect::<BTreeSet<_>>();
    let (before, after) = (lines(from), lines(to));
    let mut added: Vec<&Node> = to.nodes().iter().filter(|node| !before.contains(&node.line())).collect();
    let mut removed: Vec<&Node> = from.nodes().iter().filter(|node| !after.contains(&node.line())).collect();
    // A name that stands once on either side is one node that moved; a name with several addresses is not guessed at.
    let (once_before, once_after) = (once(&removed), once(&added));
    let mut changed = Vec::new();
    removed.retain(|node| match once_after.get(&node.name().to_ascii_lowercase()) {
        Some(now) if once_before.contains_key(&node.name().to_ascii_lowercase()) => {
            changed.push(api::AddressChange {
                name: now.name().to_owned(),
                from_ip: node.address().to_string(),
                to_ip: now.address().to_string(),
            });
            false
        }
        _ => true,
    });
    let moved: BTreeSet<&str> = changed.iter().map(|change| change.name.as_str()).collect();
    added.retain(|node| !moved.contains(node.name()));
    drop(moved);
    let view = |nodes: Vec<&Node>| nodes.into_iter().map(api::Node::from).collect();
    (view(added), view(removed), changed)
}

/// Nodes by name, case-blind, but for names that stand there more than once.
fn once<'a>(nodes: &[&'a Node]) -> HashMap<String, &'a Node> {
    let mut count: HashMap<String, (u32, &Node)> = HashMap::new();
    for node in nodes {
        count.entry(node.name().to_ascii_lowercase()).or_insert((0, *node)).0 += 1;
    }
    count.into_iter().filter(|(_, (count, _))| *count == 1).map(|(name, (_, node))| (name, node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(nodes: &[(&str, &str)]) -> Allowlist {
        Allowlist::new(nodes.iter().map(|(name, ip)| Node::new(name, ip).expect("a node")))
    }

    #[test]
    fn a_node_that_moved_is_neither_new_nor_gone() {
        let from = list(&[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3"), ("d", "")]);
        let to = list(&[("a", "10.0.0.1"), ("B", "10.0.0.9"), ("e", ""), ("d", "")]);
        let (added, removed, changed) = of(&from, &to);
        assert_eq!(added.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["e"]);
        assert_eq!(removed.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["c"]);
        let moved = api::AddressChange {
            name: "B".to_owned(),
            from_ip: "10.0.0.2".to_owned(),
            to_ip: "10.0.0.9".to_owned(),
        };
        assert_eq!(changed, [moved]);
    }

    #[test]
    fn a_name_with_several_addresses_is_not_guessed_at() {
        let from = list(&[("a", "10.0.0.1"), ("a", "10.0.0.2")]);
        let to = list(&[("a", "10.0.0.3")]);
        let (added, removed, changed) = of(&from, &to);
        assert_eq!((added.len(), removed.len(), changed.len()), (1, 2, 0));
    }

    #[test]
    fn equal_lists_do_not_differ() {
        let one = list(&[("a", ""), ("b", "10.0.0.2")]);
        assert_eq!(of(&one, &one), (vec![], vec![], vec![]));
    }
}
