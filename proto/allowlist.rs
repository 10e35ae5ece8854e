//! [`Allowlist`]: the nodes that one scope may read, as a sorted set.
//!
//! In: nodes in any order. Out: the set, in the order in which it is hashed and sent.
//! Always: sorted by line, no doubles, names that differ in case only are one.

use crate::hash::ListHash;
use crate::node::{Node, NodeError};
use crate::v1;

/// The nodes that a scope may read, sorted by their lines, without doubles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowlist {
    nodes: Vec<Node>,
    hash: ListHash,
}

impl Allowlist {
    /// Makes a list of nodes in any order. Of nodes that differ in the case of their names only, the one
    /// whose line sorts first stays, whatever the order they came in.
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Allowlist {
        let mut keyed: Vec<(String, Node)> = nodes.into_iter().map(|node| (node.line(), node)).collect();
        keyed.sort_by_cached_key(|(line, _)| (line.to_ascii_lowercase(), line.clone()));
        keyed.dedup_by(|(_, later), (_, kept)| later.is_same_as(kept));
        keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
        let hash = ListHash::of_lines(keyed.iter().map(|(line, _)| line.as_str()));
        Allowlist { nodes: keyed.into_iter().map(|(_, node)| node).collect(), hash }
    }

    /// Takes a list from the wire. The hash is that of the nodes as they came; the caller compares it.
    ///
    /// # Errors
    /// [`NodeError`] of the first node that breaks a rule.
    pub fn from_wire(nodes: &[v1::Node]) -> Result<Allowlist, NodeError> {
        Ok(Allowlist::new(nodes.iter().map(Node::from_wire).collect::<Result<Vec<_>, _>>()?))
    }

    /// The nodes, sorted by their lines.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The hash that says which list this is.
    pub fn hash(&self) -> ListHash {
        self.hash
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no node, so that nothing may be read.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether exactly this node is on it.
    pub fn contains(&self, node: &Node) -> bool {
        self.nodes.binary_search_by(|probe| probe.cmp_line(node)).is_ok()
    }

    /// The nodes as they are sent.
    pub fn to_wire(&self) -> Vec<v1::Node> {
        self.nodes.iter().map(v1::Node::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str) -> Node {
        Node::new(name, address).unwrap()
    }

    #[test]
    fn order_and_doubles_of_the_input_do_not_matter() {
        let one = Allowlist::new([node("b", ""), node("a", "10.0.0.1"), node("b", "")]);
        let other = Allowlist::new([node("a", "10.0.0.1"), node("b", "")]);
        assert_eq!(one, other);
        assert_eq!(one.len(), 2);
    }

    #[test]
    fn nodes_are_sorted_by_line_not_by_name() {
        let list = Allowlist::new([node("a", ""), node("a-b", "")]);
        assert_eq!(list.nodes().iter().map(Node::name).collect::<Vec<_>>(), ["a-b", "a"]);
    }

    #[test]
    fn names_that_differ_in_case_only_are_one() {
        let list = Allowlist::new([
            node("delly", ""),
            node("Other", ""),
            node("DELLY", ""),
            node("Delly", "10.0.0.1"),
        ]);
        let lines: Vec<_> = list.nodes().iter().map(Node::line).collect();
        assert_eq!(lines, ["DELLY|", "Delly|10.0.0.1", "Other|"]);
    }

    #[test]
    fn a_node_is_found_by_its_exact_line() {
        let list = Allowlist::new((0..100).map(|n| node(&format!("n{n}"), "")));
        assert!(list.contains(&node("n42", "")));
        assert!(!list.contains(&node("N42", "")));
        assert!(!list.contains(&node("n42", "10.0.0.1")));
    }
}
