//! What a cluster tells of its members, and changes that wait for an admin.
//!
//! Always: a new or another member is one change; what would take away too much is held, and goes out when an admin says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulse_proto::Node;
use serde_json::json;
use uuid::Uuid;

use super::instance::{hold, note, present, same};
use super::{ChangeError, Changes};
use crate::audit::difference::MAX_LINES;
use crate::audit::{Actor, unix_ms};
use crate::inventory::{Held, Instance, Origin, Use, gone, is_most, too_many_gone};
use crate::pve::address::PveUrl;
use crate::store::Leave;

/// A held change is not replaced by another one sooner than this.
const HELD_AT_LEAST: Duration = Duration::from_secs(20);

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
    /// The hosts that were asked, one of which told it.
    pub urls: Vec<PveUrl>,
    /// The members, as they are told.
    pub nodes: Vec<Node>,
    /// When they were told before that, if they were.
    pub heard_before: Option<SystemTime>,
    /// The names, in lower case, that were told within the last hour: halves that go one after the other are more than a half.
    pub recently: Vec<String>,
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
            Some(instance) if listens(instance, told) => {
                if let Some(taking) = known(instance, told) {
                    return Ok(taking);
                }
            }
            _ => return Ok(Taking::Held),
        }
        self.apply(actor, |draft| {
            let before =
                draft.before.inventory.instance(told.instance).filter(|instance| listens(instance, told));
            let Some(before) = before.cloned() else {
                return Ok((Taking::Held, note("instance.poll", "", json!({}))));
            };
            draft.under(told.leave);
            let at = draft.at;
            let after = before.with(|facts| facts.put(Origin::Cluster, told.nodes.clone(), at));
            if after == *before {
                return Ok((Taking::Taken, note("instance.poll", &before.name, json!({}))));
            }
            let gone = too_much(&before, &after, told);
            let Some(gone) = gone else {
                draft.put_instance(after);
                return Ok((Taking::Taken, note("instance.poll", &before.name, json!({}))));
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
            // A cluster that says one thing and then another is not written down each time.
            let is_held = |present: &Held| {
                let is_new = at.duration_since(present.at).is_ok_and(|age| age < HELD_AT_LEAST);
                same(&present.nodes, &held.nodes) || (is_new && !present.is_discarded)
            };
            if before.held.get(&Origin::Cluster).is_some_and(is_held) {
                return Ok((Taking::Held, note("allowlist.hold", &before.name, json!({}))));
            }
            let (_, note) = hold(draft, &stamped, Origin::Cluster, held);
            Ok((Taking::Held, note))
        })
        .await
    }

    /// Lets the changes of an instance go out that are held; only if they are those that an admin has `seen`: since when each of
    /// them waits, in Unix milliseconds.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::NothingHeld`], [`ChangeError::HeldChanged`], [`ChangeError::Store`].
    pub async fn confirm_held(
        &self,
        actor: &Actor,
        name: &str,
        seen: Option<&[u64]>,
    ) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            if before.held.is_empty() {
                return Err(ChangeError::NothingHeld(before.name.clone()));
            }
            let since = |held: &Held| unix_ms(held.at);
            if seen.is_some_and(|seen| !before.held.values().map(since).eq(seen.iter().copied())) {
                return Err(ChangeError::HeldChanged(before.name.clone()));
            }
            let after = before.with(|facts| {
                for (origin, held) in std::mem::take(&mut facts.held) {
                    facts.put(origin, held.nodes, draft.at);
                }
            });
            let held_by: Vec<&str> = before.held.values().map(|held| held.by.as_str()).collect();
            let detail = json!({ "held_by": held_by });
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
            let kept: Vec<&String> = waiting.iter().flat_map(|held| &held.gone).collect();
            let detail =
                json!({ "kept": kept.iter().take(MAX_LINES).collect::<Vec<_>>(), "kept_count": kept.len() });
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

/// The names of those that would go, if an admin must say so first.
fn too_much(before: &Instance, after: &Instance, told: &Told) -> Option<Vec<String>> {
    let gone = gone(before.endpoints(), after.endpoints());
    if told.is_other_cluster {
        // A node of the same name is another machine there: whoever does not stay where it is counts as gone.
        let stays = |node: &&Node| after.endpoints().contains(node);
        let gone: Vec<String> = before
            .endpoints()
            .iter()
            .filter(|node| !stays(node))
            .map(|node| node.name().to_owned())
            .collect();
        return Some(gone).filter(|gone| !gone.is_empty());
    }
    let names: HashSet<String> = told.nodes.iter().map(|node| node.name().to_ascii_lowercase()).collect();
    let missing = told.recently.iter().filter(|name| !names.contains(*name)).count();
    if !gone.is_empty() && is_most(missing, told.recently.len()) {
        return Some(gone);
    }
    // An admin said no to it once.
    let discarded = before.held.get(&Origin::Cluster).filter(|held| held.is_discarded);
    if discarded.is_some_and(|held| gone.iter().any(|name| held.gone.contains(name))) {
        return Some(gone);
    }
    too_many_gone(before.endpoints(), after.endpoints())
}

/// Whether an instance takes what its cluster tells: not when it has another source by now.
fn listens(instance: &Instance, told: &Told) -> bool {
    let is_asked = instance.source.as_ref().is_some_and(|source| source.urls == told.urls);
    instance.is_present() && is_asked && instance.standing == Use::Active
}

/// What became of it, if the same was told before.
fn known(instance: &Instance, told: &Told) -> Option<Taking> {
    let at = SystemTime::UNIX_EPOCH;
    let after = instance.with(|facts| facts.put(Origin::Cluster, told.nodes.clone(), at));
    if let Some(held) = instance.held.get(&Origin::Cluster) {
        // What an admin changed meanwhile may have made it harmless.
        let is_held = same(&held.nodes, &told.nodes) && too_much(instance, &after, told).is_some();
        return is_held.then_some(Taking::Held);
    }
    (after.nodes == instance.nodes).then_some(Taking::Taken)
}
