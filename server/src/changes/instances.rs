//! Changes of instances: add, set, remove.

use std::sync::Arc;

use pulse_proto::{Node, Scope};
use serde_json::json;
use uuid::Uuid;

use super::instance::{hold, note, present};
use super::sources::WantedSource;
use super::{ChangeError, Changes};
use crate::allowlist;
use crate::audit::Actor;
use crate::catalog::Catalog;
use crate::inventory::{Held, Instance, Origin, too_many_gone};

/// An instance that is to be.
#[derive(Clone, Debug)]
pub struct NewInstance {
    /// Its identity: what belongs to it can be sealed before it is there.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Nodes that were typed.
    pub endpoints: Vec<Node>,
    /// Where further ones come from, and what its cluster tells at the moment.
    pub source: Option<(WantedSource, Vec<Node>)>,
}

impl NewInstance {
    /// One whose nodes are typed.
    #[must_use]
    pub fn typed(name: &str, endpoints: Vec<Node>) -> NewInstance {
        NewInstance { id: Uuid::now_v7(), name: name.to_owned(), endpoints, source: None }
    }
}

impl Changes {
    /// Adds an instance.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] for the name, [`ChangeError::AlreadyThere`], [`ChangeError::Store`].
    pub async fn add_instance(&self, actor: &Actor, new: NewInstance) -> Result<Arc<Instance>, ChangeError> {
        check_name(&new.name)?;
        self.apply(actor, |draft| {
            if draft.before.inventory.by_name(&new.name).is_some() {
                return Err(ChangeError::AlreadyThere(new.name.clone()));
            }
            let source = match &new.source {
                Some((wanted, _)) => Some(self.sealed(draft.before.server_id, new.id, wanted, None)?),
                None => None,
            };
            let instance = Instance::new(new.id, &new.name, new.endpoints.clone(), draft.at).with(|facts| {
                if let Some((_, members)) = &new.source {
                    facts.replace(Origin::Cluster, members.clone(), draft.at);
                }
                facts.source = source;
            });
            Ok((draft.put_instance(instance), note("instance.add", &new.name, json!({}))))
        })
        .await
    }

    /// Replaces the nodes of an instance that were typed or imported. Equal ones change nothing, and wake nobody. What would take
    /// away too much is held, unless it is `confirmed`.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Invalid`] if a list becomes too long, [`ChangeError::Store`].
    pub async fn set_endpoints(
        &self,
        actor: &Actor,
        name: &str,
        endpoints: Vec<Node>,
        confirmed: bool,
    ) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            let after = before.with(|facts| facts.put(Origin::Manual, endpoints.clone(), draft.at));
            // Mostly one node of many is new; the whole lists stand in the history, under their revisions.
            if after == *before {
                return Ok((Arc::clone(&before), note("instance.set", &before.name, json!({}))));
            }
            if let Some(gone) = too_many_gone(before.endpoints(), after.endpoints()).filter(|_| !confirmed) {
                let held = Held {
                    nodes: endpoints.clone(),
                    gone,
                    by: actor.to_string(),
                    at: draft.at,
                    is_discarded: false,
                };
                return Ok(hold(draft, &before, Origin::Manual, held));
            }
            Ok((draft.put_instance(after), note("instance.set", &before.name, json!({}))))
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
            if let Some((gone, of)) = gone_from_all(draft.before, &before).filter(|_| !confirmed) {
                return Err(ChangeError::TooManyGone { list: "all nodes".to_owned(), gone, before: of });
            }
            let removed = before.with(|facts| {
                facts.nodes.clear();
                facts.wishes.clear();
                facts.held.clear();
                // With it the sealed secret goes.
                facts.source = None;
                facts.removed_at = Some(draft.at);
            });
            draft.put_instance(removed);
            let detail = json!({ "proxies": proxies });
            Ok(((), note("instance.remove", &before.name, detail)))
        })
        .await
    }
}

/// What the removal of an instance would take off the list of everything, and of how many nodes, if that is too much and somebody
/// reads it.
fn gone_from_all(catalog: &Catalog, removed: &Instance) -> Option<(Vec<String>, usize)> {
    if !catalog.registry.has_scope(Scope::All) {
        return None;
    }
    let all = allowlist::compile(&catalog.inventory, Scope::All);
    let mut inventory = catalog.inventory.clone();
    inventory.put(Arc::new(removed.with(|facts| facts.nodes.clear())));
    let gone = too_many_gone(all.nodes(), allowlist::compile(&inventory, Scope::All).nodes())?;
    Some((gone, all.len()))
}

/// The name of an instance keeps the rules of a node's name.
pub(super) fn check_name(name: &str) -> Result<(), ChangeError> {
    match Node::new(name, "") {
        Ok(_) => Ok(()),
        Err(error) => Err(ChangeError::Invalid {
            field: "name",
            rule: error.to_string().replace("node name", "instance name"),
        }),
    }
}
