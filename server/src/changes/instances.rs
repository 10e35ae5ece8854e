//! Changes of instances: add, set, remove.

use std::collections::HashSet;
use std::sync::Arc;

use pulse_proto::Node;
use serde_json::json;
use uuid::Uuid;

use super::{ChangeError, Changes, Draft, Note};
use crate::audit::Actor;
use crate::inventory::Instance;

impl Changes {
    /// Adds an instance with its static endpoints.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] for the name, [`ChangeError::AlreadyThere`], [`ChangeError::Store`].
    pub async fn add_instance(
        &self,
        actor: &Actor,
        name: &str,
        endpoints: Vec<Node>,
    ) -> Result<Arc<Instance>, ChangeError> {
        check_name(name)?;
        self.apply(actor, |draft| {
            if draft.before.inventory.by_name(name).is_some() {
                return Err(ChangeError::AlreadyThere(name.to_owned()));
            }
            let detail = json!({ "endpoints": lines(&endpoints) });
            let instance = Instance {
                id: Uuid::now_v7(),
                name: name.to_owned(),
                endpoints: endpoints.clone(),
                created_at: draft.at,
                removed_at: None,
            };
            Ok((draft.put_instance(instance), note("instance.add", name, detail)))
        })
        .await
    }

    /// Replaces the endpoints of an instance. Equal ones change nothing, and wake nobody.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Invalid`] if a list becomes too long, [`ChangeError::Store`].
    pub async fn set_endpoints(
        &self,
        actor: &Actor,
        name: &str,
        endpoints: Vec<Node>,
    ) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            // Mostly one node of many is new; the whole lists stand in the history, under their revisions.
            let (had, has): (HashSet<_>, HashSet<_>) =
                (before.endpoints.iter().collect(), endpoints.iter().collect());
            let detail = json!({
                "added": lines(has.difference(&had).copied()),
                "removed": lines(had.difference(&has).copied()),
                "nodes": endpoints.len(),
                "nodes_before": before.endpoints.len(),
            });
            if endpoints == before.endpoints {
                return Ok((Arc::clone(&before), note("instance.set", &before.name, detail)));
            }
            let after = draft.put_instance(Instance {
                id: before.id,
                name: before.name.clone(),
                endpoints: endpoints.clone(),
                created_at: before.created_at,
                removed_at: before.removed_at,
            });
            Ok((after, note("instance.set", &before.name, detail)))
        })
        .await
    }

    /// Removes an instance: its proxies get a signed empty list.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`]; [`ChangeError::NeedsYes`] if it has proxies and `confirmed` is not said;
    /// [`ChangeError::Store`].
    pub async fn remove_instance(
        &self,
        actor: &Actor,
        name: &str,
        confirmed: bool,
    ) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            let proxies = draft.before.registry.proxies_of(before.id).count();
            if proxies > 0 && !confirmed {
                return Err(ChangeError::NeedsYes { name: before.name.clone(), proxies });
            }
            let removed = Instance { endpoints: Vec::new(), removed_at: Some(draft.at), ..(*before).clone() };
            draft.put_instance(removed);
            let detail = json!({ "before": lines(&before.endpoints), "proxies": proxies });
            Ok(((), note("instance.remove", &before.name, detail)))
        })
        .await
    }
}

/// The instance of this name, as it is before the change.
pub(super) fn present(draft: &Draft<'_>, name: &str) -> Result<Arc<Instance>, ChangeError> {
    let not_found = || ChangeError::NotFound { what: "instance", name: name.to_owned() };
    draft.before.inventory.by_name(name).cloned().ok_or_else(not_found)
}

/// The name of an instance keeps the rules of a node's name.
fn check_name(name: &str) -> Result<(), ChangeError> {
    match Node::new(name, "") {
        Ok(_) => Ok(()),
        Err(error) => Err(ChangeError::Invalid {
            field: "name",
            rule: error.to_string().replace("node name", "instance name"),
        }),
    }
}

fn note(action: &'static str, name: &str, detail: serde_json::Value) -> Note {
    Note { action, target: format!("instance:{name}"), detail }
}

/// Nodes as they are noted, in order.
fn lines<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<String> {
    let mut lines: Vec<String> = nodes.into_iter().map(Node::line).collect();
    lines.sort_unstable();
    lines
}
