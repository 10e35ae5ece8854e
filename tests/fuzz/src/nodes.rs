//! Nodes and lists, as people type them and as the wire brings them.

use pulse_proto::{Allowlist, Node, v1};

use crate::assert_tells;

/// Lines `name|address`: each is a node that stays what it is on every way, or a reason why not; the list of them does
/// not depend on their order.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut nodes = Vec::new();
    for line in text.lines() {
        let (name, address) = line.split_once('|').unwrap_or((line, ""));
        match Node::new(name, address) {
            Ok(node) => {
                round_trip(&node, name);
                nodes.push(node);
            }
            Err(error) => assert_tells(&error.to_string(), 1_024),
        }
    }
    let list = Allowlist::new(nodes.iter().cloned());
    assert!(list.len() <= nodes.len());
    for node in &nodes {
        assert!(list.nodes().iter().any(|kept| kept.is_same_as(node)), "{node} is lost");
    }
    assert_eq!(list, Allowlist::new(nodes.iter().rev().cloned()), "the order of the input matters");
    assert_eq!(Allowlist::from_wire(&list.to_wire()).as_ref(), Ok(&list), "the wire changes the list");
    let lines: Vec<_> = list.nodes().iter().map(Node::line).collect();
    assert!(lines.is_sorted());
    assert!(list.nodes().iter().all(|node| list.contains(node)));
    assert_eq!(list.hash().to_string().parse(), Ok(list.hash()));
}

fn round_trip(node: &Node, name: &str) {
    assert_eq!(node.name(), name, "a name is kept as it was given");
    let wire = v1::Node::from(node);
    assert_eq!(Node::from_wire(&wire).as_ref(), Ok(node));
    assert_eq!(Node::new(&wire.name, &wire.ip).as_ref(), Ok(node));
    let line = node.line();
    assert_eq!(line.split_once('|'), Some((&*wire.name, &*wire.ip)));
    assert!(!line.contains(['\n', '/', '*']), "{line:?} could be taken for more than one node");
    assert!(node.is_same_as(node));
}
