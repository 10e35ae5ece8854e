//! What a cluster tells of its members, and changes that wait for an admin.
//!
//! Always: a new or another member is one change; what would take away too much is held, and goes out when an admin says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::Node;
use serde_json::json;
use uuid::Uuid;

use super::instances::{difference, hold, lines, note, present, same, set_typed};
use super::{ChangeError, Changes};
use crate::audit::Actor;
use crate::inventory::{Facts, Held, Instance, Origin, Use, gone, too_many_gone};
use crate::store::Leave;

/// What became of what a cluster tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taking {
    /// The instance's nodes are what it tells.
    Taken,
    /// That waits for an admin, or an admin said no to it; or nobody listens to it any more.
    Held,
}

/// What a cluster tells.
#[derive(Clone, Debug)]
pub struct Told {
    /// The instance.
    pub instance: Uuid,
    /// The members, as they are told.
    pub nodes: Vec<Node>,
    /// When they were told before that, if they were.
    pub heard_before: Option<SystemTime>,
    /// Whether it is another cluster than the one whose members the instance has: a URL that leads elsewhere by now, or a host that
    /// was taken out of its cluster, and believes that it is alone.
    pub is_other_cluster: bool,
    /// Leave to ask it, where several servers could.
    pub leave: Leave,
}

impl Changes {
    /// Takes what a cluster tells of its members.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] if a list becomes too long; [`ChangeError::Store`].
    pub async fn take_members(&self, actor: &Actor, told: &Told) -> Result<Taking, ChangeError> {
        // Mostly nothing is new, and then nobody waits for anybody.
        let catalog = self.catalog();
        match catalog.inventory.instance(told.instance) {
            Some(instance) if listens(instance) => {
                if let Some(taking) = known(instance, told) {
                    return Ok(taking);
                }
            }
            _ => return Ok(Taking::Held),
        }
        self.apply(actor, |draft| {
            let before = draft.before.inventory.instance(told.instance).filter(|instance| listens(instance));
            let Some(before) = before.cloned() else {
                return Ok((Taking::Held, note("instance.poll", "", json!({}))));
            };
            draft.under(told.leave);
            let at = draft.at;
            let after = before.with(|facts| {
                facts.replace(Origin::Cluster, told.nodes.clone(), at);
                facts.held.remove(&Origin::Cluster);
            });
            let detail = difference(&before, &after);
            if after == *before {
                return Ok((Taking::Taken, note("instance.poll", &before.name, detail)));
            }
            let gone = match told.is_other_cluster {
                true => Some(gone(before.endpoints(), after.endpoints())).filter(|gone| !gone.is_empty()),
                false => too_many_gone(before.endpoints(), after.endpoints()),
            };
            let Some(gone) = gone else {
                draft.put_instance(after);
                return Ok((Taking::Taken, note("instance.poll", &before.name, detail)));
            };
            let names: HashSet<String> =
                told.nodes.iter().map(|node| node.name().to_ascii_lowercase()).collect();
            let stamped = Arc::new(before.with(|facts| {
                // They were confirmed until then, and are not any more.
                let last = told.heard_before;
                for known in facts.nodes.iter_mut().filter(|known| known.origin == Origin::Cluster) {
                    if !names.contains(&known.node.name().to_ascii_lowercase()) {
                        known.confirmed_at = last.unwrap_or(known.confirmed_at).max(known.confirmed_at);
                    }
                }
            }));
            let held =
                Held { nodes: told.nodes.clone(), gone, by: actor.to_string(), at, is_discarded: false };
            let is_held = |present: &Held| same(&present.nodes, &held.nodes);
            if before.held.get(&Origin::Cluster).is_some_and(is_held) {
                return Ok((Taking::Held, note("allowlist.hold", &before.name, detail)));
            }
            let (_, note) = hold(draft, &stamped, Origin::Cluster, held);
            Ok((Taking::Held, note))
        })
        .await
    }

    /// Lets the changes of an instance go out that are held.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::NothingHeld`], [`ChangeError::Store`].
    pub async fn confirm_held(&self, actor: &Actor, name: &str) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            if before.held.is_empty() {
                return Err(ChangeError::NothingHeld(before.name.clone()));
            }
            let after = before.with(|facts| {
                for (origin, held) in std::mem::take(&mut facts.held) {
                    let_out(facts, origin, held, draft.at);
                }
            });
            let mut detail = difference(&before, &after);
            detail["held_by"] = before.held.values().map(|held| held.by.as_str()).collect();
            Ok((draft.put_instance(after), note("allowlist.confirm", &before.name, detail)))
        })
        .await
    }

    /// Says no to the changes of an instance that are held. What the cluster tells is not asked again, until it tells something
    /// else.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::NothingHeld`], [`ChangeError::Store`].
    pub async fn discard_held(&self, actor: &Actor, name: &str) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            let waiting: Vec<&Held> = before.held.values().filter(|held| !held.is_discarded).collect();
            if waiting.is_empty() {
                return Err(ChangeError::NothingHeld(before.name.clone()));
            }
            let detail = json!({ "kept": waiting.iter().flat_map(|held| &held.gone).collect::<Vec<_>>(),
                "nodes": lines(before.endpoints()).len() });
            let after = before.with(|facts| {
                facts.held.remove(&Origin::Manual);
                for held in facts.held.values_mut() {
                    held.is_discarded = true;
                }
            });
            Ok((draft.put_instance(after), note("allowlist.discard", &before.name, detail)))
        })
        .await
    }
}

fn let_out(facts: &mut Facts, origin: Origin, held: Held, at: SystemTime) {
    match origin {
        Origin::Cluster => facts.replace(origin, held.nodes, at),
        Origin::Manual | Origin::Import => set_typed(facts, held.nodes, at),
    }
}

/// Whether an instance takes what its cluster tells.
fn listens(instance: &Instance) -> bool {
    instance.is_present() && instance.source.is_some() && instance.standing == Use::Active
}

/// What became of it, if the same was told before.
fn known(instance: &Instance, told: &Told) -> Option<Taking> {
    if let Some(held) = instance.held.get(&Origin::Cluster) {
        return same(&held.nodes, &told.nodes).then_some(Taking::Held);
    }
    let at = SystemTime::UNIX_EPOCH;
    let after = instance.with(|facts| facts.replace(Origin::Cluster, told.nodes.clone(), at));
    (after.nodes == instance.nodes).then_some(Taking::Taken)
}
