//! The lists that are pushed: so many nodes, one of which names the round, so that every push is another list.
//!
//! Always: the addresses are those that are kept for benchmarks (RFC 2544, 198.18.0.0/15), and the names begin with that of
//! the bench's own instance: no host is one of them.

use pulse_proto::{Allowlist, Node, v1};

use crate::api;

/// One list.
#[derive(Clone, Debug)]
pub(super) struct List {
    nodes: Vec<Node>,
    hash: String,
}

impl List {
    /// A list of so many nodes for a round.
    pub(super) fn new(instance: &str, size: usize, round: u32) -> List {
        let name = |number| match number {
            0 => format!("{instance}-round-{round:06}"),
            _ => format!("{instance}-node-{number:07}"),
        };
        let address = |number: usize| format!("198.18.{}.{}", number / 256 % 256, number % 256);
        let node =
            |number| Node::new(&name(number), &address(number)).expect("the bench's names keep the rules");
        let nodes: Vec<Node> = (0..size).map(node).collect();
        let hash = Allowlist::new(nodes.iter().cloned()).hash().to_string();
        List { nodes, hash }
    }

    /// Its hash, as it stands in the message.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// Its nodes as the admin API has them.
    pub(super) fn endpoints(&self) -> Vec<api::Node> {
        self.nodes.iter().map(api::Node::from).collect()
    }

    /// Its nodes as reports name them.
    pub(super) fn nodes(&self) -> Vec<v1::Node> {
        Allowlist::new(self.nodes.iter().cloned()).to_wire()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_a_list_of_its_own() {
        let (one, other) = (List::new("bench-0a1b2c3d", 2_000, 1), List::new("bench-0a1b2c3d", 2_000, 2));
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.nodes().len(), 2_000);
        let body = serde_json::to_vec(&api::SetEndpoints { endpoints: one.endpoints(), yes: true }).unwrap();
        assert!(body.len() < api::MAX_REQUEST_BYTES, "{}", body.len());
    }
}
