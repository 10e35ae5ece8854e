//! The lists that are pushed: so many nodes, one of which names the round, so that every push is another list.
//!
//! Always: the hash of a list is known before it is pushed, and stands in its message; by it a client knows the round.

use std::time::SystemTime;

use prost::Message;
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::v1::{AllowlistSnapshot, WatchAuthorizedNodesResponse};
use pulse_proto::{Allowlist, Node};
use serde_json::{Value, json};

/// One list.
#[derive(Clone, Debug)]
pub(crate) struct List {
    nodes: Vec<(String, String)>,
    hash: String,
}

impl List {
    /// A list of `size` nodes for a round. Names and addresses are as long as those of a real fleet.
    pub(crate) fn new(size: usize, round: u32) -> List {
        List::of((0..size).map(node).collect(), round)
    }

    /// A list of these nodes for a round, of which the first gets the round's name.
    pub(crate) fn of(mut nodes: Vec<(String, String)>, round: u32) -> List {
        nodes[0].0 = format!("pve-rack-round-{round:06}");
        let allowlist = Allowlist::new(
            nodes.iter().map(|(name, ip)| Node::new(name, ip).expect("the bench's own names keep the rules")),
        );
        List { nodes, hash: allowlist.hash().to_string() }
    }

    /// Its hash, as it stands in the message.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The body of the admin call that sets it.
    pub(crate) fn endpoints(&self) -> Value {
        let nodes = self.nodes.iter().map(|(name, ip)| json!({ "name": name, "ip": ip }));
        json!({ "endpoints": nodes.collect::<Vec<_>>() })
    }

    /// The message that a server pushes, as Pulse's: signed in form, though not by anybody.
    pub(crate) fn message(&self) -> Vec<u8> {
        let nodes = self.nodes.iter();
        let snapshot = AllowlistSnapshot {
            epoch: 1_764_000_000_000,
            scope: "instance:00000000-0000-4000-8000-000000000000".to_owned(),
            revision: 10_000,
            hash: self.hash.clone(),
            nodes: nodes
                .map(|(name, ip)| pulse_proto::v1::Node { name: name.clone(), ip: ip.clone() })
                .collect(),
            updated_at: Some(SystemTime::now().into()),
            refresh_interval: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
            key_id: "0123456789abcdef".to_owned(),
            signature: vec![0x5a; 64],
        };
        let kind = Some(Kind::Snapshot(snapshot));
        WatchAuthorizedNodesResponse { kind, server: None }.encode_to_vec()
    }
}

/// The node with this number: those of every list, but for the first.
pub(crate) fn node(number: usize) -> (String, String) {
    (
        format!("pve-rack-node-{number:07}"),
        format!("10.{}.{}.{}", 100 + number / 65_536, number / 256 % 256, number % 256),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_a_list_of_its_own_with_its_hash_near_the_front() {
        let (one, other) = (List::new(8, 1), List::new(8, 2));
        assert_ne!(one.hash(), other.hash());
        let message = one.message();
        let at = memchr::memmem::find(&message, one.hash().as_bytes()).unwrap();
        assert!(at < 128, "{at}");
        assert_eq!(message[0], 0x0a, "a list is field 1");
    }

    #[test]
    fn a_long_list_takes_8_kilobytes() {
        let long = |size| List::new(size, 1).message().len();
        assert!((500..=600).contains(&long(8)), "{}", long(8));
        assert!((7_900..=8_000).contains(&long(200)), "{}", long(200));
    }
}
