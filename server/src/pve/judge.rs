//! What a new membership does to the nodes of an instance: nothing, a change, or a change that waits for an admin.
//!
//! In: the nodes as they are, the members as they were told, what admins set. Out: a [`Verdict`]. Always: who is offline stays;
//! what would take away most of a list is held. Never: changes anything itself.

use std::collections::{BTreeMap, BTreeSet};

use pulse_proto::Node;

use super::Doubt;
use super::answers::Membership;

/// A list of so many nodes or more is guarded: more than half of it does not go by itself.
const GUARDED: usize = 4;

/// What an admin set for the nodes of a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// Addresses that stand in for those that the cluster tells, by the name of the node in lower case.
    pub addresses: BTreeMap<String, String>,
    /// Nodes that are not to be read, by their names in lower case.
    pub excluded: BTreeSet<String>,
}

/// What becomes of a membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The nodes are what they were.
    Same,
    /// These are the nodes now.
    Change(Vec<Node>),
    /// These would be the nodes, and an admin must say so: too many would go.
    Held {
        /// What they would be.
        nodes: Vec<Node>,
        /// The names of those that would go.
        gone: Vec<String>,
    },
}

/// The nodes of the members. `url_host` is the host part of the URL that was asked: the address of the node that answered, if
/// the answer has none.
///
/// # Errors
/// [`Doubt::Unfit`] if a member cannot be a node.
pub fn nodes_of(membership: &Membership, url_host: &str, wishes: &Wishes) -> Result<Vec<Node>, Doubt> {
    let is_alone = membership.members.len() == 1;
    let members = membership.members.iter();
    let wanted = members.filter(|member| !wishes.excluded.contains(&member.name.to_ascii_lowercase()));
    let nodes = wanted.map(|member| {
        let wish = wishes.addresses.get(&member.name.to_ascii_lowercase()).map(String::as_str);
        let own = || (member.is_local || is_alone).then_some(url_host);
        let address = wish.or(member.ip.as_deref()).or_else(own).unwrap_or_default();
        let unfit = |error: pulse_proto::NodeError| Doubt::Unfit {
            what: format!(
                "the cluster's node {:?} with the address {address:?} cannot be on a list ({error}): rename it, or exclude it with \
                 `pulse node exclude`",
                member.name
            ),
        };
        Node::new(&member.name, address).map_err(unfit)
    });
    nodes.collect()
}

/// Judges what would become of the nodes.
#[must_use]
pub fn judge(before: &[Node], after: Vec<Node>) -> Verdict {
    let as_set = |nodes: &[Node]| -> BTreeSet<String> { nodes.iter().map(Node::line).collect() };
    if as_set(before) == as_set(&after) {
        return Verdict::Same;
    }
    let names: BTreeSet<String> = after.iter().map(|node| node.name().to_ascii_lowercase()).collect();
    let gone = before.iter().filter(|node| !names.contains(&node.name().to_ascii_lowercase()));
    let gone: Vec<String> = gone.map(|node| node.name().to_owned()).collect();
    let is_most = before.len() >= GUARDED && gone.len() * 2 > before.len();
    let is_all = !before.is_empty() && gone.len() == before.len();
    if is_most || is_all { Verdict::Held { nodes: after, gone } } else { Verdict::Change(after) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pve::answers::Member;

    fn nodes(lines: &[&str]) -> Vec<Node> {
        let node = |line: &&str| {
            let (name, ip) = line.split_once('=').unwrap_or((line, ""));
            Node::new(name, ip).unwrap()
        };
        lines.iter().map(node).collect()
    }

    fn membership(members: &[(&str, Option<&str>, bool)]) -> Membership {
        let member = |(name, ip, is_local): &(&str, Option<&str>, bool)| Member {
            name: (*name).to_owned(),
            ip: ip.map(str::to_owned),
            is_online: false,
            is_local: *is_local,
        };
        Membership { cluster: Some("home".to_owned()), members: members.iter().map(member).collect() }
    }

    #[test]
    fn what_takes_most_of_a_list_or_all_of_it_is_held() {
        let four = nodes(&["a", "b", "c", "d"]);
        let held =
            |before: &[Node], after: &[&str]| matches!(judge(before, nodes(after)), Verdict::Held { .. });
        assert!(held(&four, &["a"]));
        assert!(held(&four, &[]));
        assert!(held(&four, &["e", "f", "g", "h"]), "all of them have other names");
        assert!(!held(&four, &["a", "b"]), "a half may go");
        assert!(!held(&nodes(&["a", "b", "c"]), &["a"]), "of a short list all but one may go");
        assert!(held(&nodes(&["a", "b", "c"]), &[]));
        assert!(held(&nodes(&["a"]), &["b"]), "the one node of a standalone host has another name");
        assert!(!held(&[], &["a"]));
        let Verdict::Held { gone, nodes } = judge(&four, nodes(&["A=192.0.2.1"])) else {
            panic!("it is held")
        };
        assert_eq!(gone, ["b", "c", "d"], "a name is the same in another case");
        assert_eq!(nodes.len(), 1);
    }

    #[test]
    fn an_order_is_no_change_and_an_address_is_one() {
        let before = nodes(&["a=192.0.2.1", "b=192.0.2.2"]);
        assert_eq!(judge(&before, nodes(&["b=192.0.2.2", "a=192.0.2.1"])), Verdict::Same);
        let moved = nodes(&["a=192.0.2.9", "b=192.0.2.2"]);
        assert_eq!(judge(&before, moved.clone()), Verdict::Change(moved));
    }

    #[test]
    fn an_address_is_the_admins_the_clusters_or_that_of_the_url() {
        let members = [("pve1", None, true), ("pve2", Some("192.0.2.2"), false), ("pve3", None, false)];
        let wishes = Wishes {
            addresses: [("pve2".to_owned(), "198.51.100.2".to_owned())].into(),
            excluded: BTreeSet::new(),
        };
        let made = nodes_of(&membership(&members), "2001:db8::1", &wishes).unwrap();
        assert_eq!(made, nodes(&["pve1=2001:db8::1", "pve2=198.51.100.2", "pve3"]));
        let excluded = Wishes { excluded: ["pve1".to_owned()].into(), ..wishes };
        assert_eq!(nodes_of(&membership(&members), "pve", &excluded).unwrap().len(), 2);
        let unfit = nodes_of(&membership(&[("-x", None, true)]), "pve", &Wishes::default()).unwrap_err();
        assert!(unfit.to_string().contains("pulse node exclude"), "{unfit}");
    }
}
