//! What a change takes away, and whether that is so much that an admin must say so first.
//!
//! In: the nodes on a list before and after. Out: the names that would go. Pure.

use std::collections::BTreeSet;

use pulse_proto::Node;

/// A list of so many nodes or more is guarded: more than half of it does not go by itself.
const GUARDED: usize = 4;

/// The names of the nodes that would go. A node whose address changes does not go.
#[must_use]
pub fn gone(before: &[Node], after: &[Node]) -> Vec<String> {
    let names: BTreeSet<String> = after.iter().map(|node| node.name().to_ascii_lowercase()).collect();
    let gone = before.iter().filter(|node| !names.contains(&node.name().to_ascii_lowercase()));
    gone.map(|node| node.name().to_owned()).collect()
}

/// The same, if they are too many: more than half of a list of four or more, or all of any list.
#[must_use]
pub fn too_many_gone(before: &[Node], after: &[Node]) -> Option<Vec<String>> {
    let gone = gone(before, after);
    let is_all = !before.is_empty() && gone.len() == before.len();
    (is_most(gone.len(), before.len()) || is_all).then_some(gone)
}

/// Whether so many of so many are more than may go.
#[must_use]
pub fn is_most(gone: usize, before: usize) -> bool {
    before >= GUARDED && gone * 2 > before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(lines: &[&str]) -> Vec<Node> {
        let node = |line: &&str| {
            let (name, ip) = line.split_once('=').unwrap_or((line, ""));
            Node::new(name, ip).unwrap()
        };
        lines.iter().map(node).collect()
    }

    #[test]
    fn more_than_half_of_a_list_or_all_of_it_is_too_much() {
        let four = nodes(&["a", "b", "c", "d"]);
        let is_held = |before: &[Node], after: &[&str]| too_many_gone(before, &nodes(after)).is_some();
        assert!(is_held(&four, &["a"]));
        assert!(is_held(&four, &[]));
        assert!(is_held(&four, &["e", "f", "g", "h"]), "all of them have other names");
        assert!(!is_held(&four, &["a", "b"]), "a half may go");
        assert!(!is_held(&nodes(&["a", "b", "c"]), &["a"]), "of a short list all but one may go");
        assert!(is_held(&nodes(&["a", "b", "c"]), &[]));
        assert!(is_held(&nodes(&["a"]), &["b"]), "the one node of a standalone host has another name");
        assert!(!is_held(&[], &["a"]));
        let gone = too_many_gone(&four, &nodes(&["A=192.0.2.1"])).unwrap();
        assert_eq!(gone, ["b", "c", "d"], "a name is the same in another case");
    }

    #[test]
    fn an_address_that_changes_takes_nothing_away() {
        let before = nodes(&["a=192.0.2.1", "b=192.0.2.2"]);
        assert_eq!(too_many_gone(&before, &nodes(&["b=198.51.100.2", "a=198.51.100.1"])), None);
    }
}
