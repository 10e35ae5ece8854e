//! What changes of instances share: finding one, noting what comes and goes, holding what must wait.

use std::sync::Arc;

use pulse_proto::Node;
use serde_json::json;

use super::{ChangeError, Draft, Note};
use crate::audit::difference::first_of;
use crate::inventory::{Held, Instance, Origin};

/// Holds a change until an admin says more. What is held already, or was said no to, stays as it is.
pub(super) fn hold(
    draft: &mut Draft<'_>,
    before: &Arc<Instance>,
    origin: Origin,
    held: Held,
) -> (Arc<Instance>, Note) {
    let is_said = |present: &Held| same(&present.nodes, &held.nodes);
    let detail = json!({
        "of": origin.as_str(),
        "gone": first_of(&held.gone),
        "gone_count": held.gone.len(),
        "nodes": first_of(&lines(&held.nodes)),
        "nodes_count": held.nodes.len(),
        "nodes_before": before.endpoints().len(),
    });
    let note = note("allowlist.hold", &before.name, detail);
    if before.held.get(&origin).is_some_and(is_said) {
        return (Arc::clone(before), note);
    }
    let after = before.with(|facts| drop(facts.held.insert(origin, held)));
    (draft.put_instance(after), note)
}

/// Whether both are the same nodes, in any order.
pub(super) fn same(one: &[Node], other: &[Node]) -> bool {
    one.len() == other.len() && lines(one) == lines(other)
}

/// The instance of this name, as it is before the change.
pub(super) fn present(draft: &Draft<'_>, name: &str) -> Result<Arc<Instance>, ChangeError> {
    let not_found = || ChangeError::NotFound { what: "instance", name: name.to_owned() };
    draft.before.inventory.by_name(name).cloned().ok_or_else(not_found)
}

pub(super) fn note(action: &'static str, name: &str, detail: serde_json::Value) -> Note {
    Note { action, target: format!("instance:{name}"), detail }
}

/// Nodes as they are noted, in order.
fn lines<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<String> {
    let mut lines: Vec<String> = nodes.into_iter().map(Node::line).collect();
    lines.sort_unstable();
    lines
}
