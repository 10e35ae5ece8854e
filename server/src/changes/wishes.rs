//! What admins want of nodes and instances, whatever their sources say: another address, a pause, off every list.

use std::sync::Arc;

use pulse_proto::Node;
use serde_json::json;

use super::instance::{note, present};
use super::{ChangeError, Changes, Draft, Note};
use crate::audit::Actor;
use crate::inventory::{Instance, Use, Wish, too_many_gone};

/// The longest name of a node that an admin can speak of: one that Proxmox VE may have though no list takes it.
const MAX_NAME_BYTES: usize = 255;

impl Changes {
    /// Pauses an instance, takes it off every list, or has it in use again.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`]; [`ChangeError::TooManyGone`] if too many nodes would go and `confirmed` is not said;
    /// [`ChangeError::Store`].
    pub async fn use_instance(
        &self,
        actor: &Actor,
        name: &str,
        standing: Use,
        confirmed: bool,
    ) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            let after = before.with(|facts| facts.standing = standing);
            put(draft, before, after, confirmed, |name| note("instance.use", name, json!({})))
        })
        .await
    }

    /// Changes what is wanted of a node. An empty wish is none.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] for the instance; [`ChangeError::NoSource`] if it has no such node and no cluster that could tell
    /// it; [`ChangeError::Invalid`] for a name or an address; [`ChangeError::TooManyGone`] if too many nodes would go and
    /// `confirmed` is not said; [`ChangeError::Store`].
    pub async fn wish(
        &self,
        actor: &Actor,
        instance: &str,
        node: &str,
        confirmed: bool,
        change: impl Fn(&mut Wish) + Send,
    ) -> Result<Arc<Instance>, ChangeError> {
        if node.is_empty() || node.len() > MAX_NAME_BYTES || node.chars().any(|c| c.is_control() || c == '/')
        {
            let rule = "must be the name of a node, as `pulse node list` or the instance's problem shows it"
                .to_owned();
            return Err(ChangeError::Invalid { field: "node", rule });
        }
        self.apply(actor, |draft| {
            let before = present(draft, instance)?;
            let is_there = before.nodes.iter().any(|known| known.node.name().eq_ignore_ascii_case(node));
            if !is_there && before.source.is_none() {
                return Err(ChangeError::NoSource(before.name.clone(), node.to_owned()));
            }
            let key = node.to_ascii_lowercase();
            let mut wish = before.wishes.get(&key).cloned().unwrap_or_default();
            change(&mut wish);
            if let Some(address) = &wish.address {
                let made = Node::new(node, address);
                let made =
                    made.map_err(|error| ChangeError::Invalid { field: "address", rule: error.to_string() })?;
                wish.address = Some(made.address().to_string());
            }
            let after = before.with(|facts| {
                if wish == Wish::default() {
                    facts.wishes.remove(&key);
                } else {
                    facts.wishes.insert(key, wish);
                }
            });
            put(draft, before, after, confirmed, |name| note("node.set", name, json!({ "node": node })))
        })
        .await
    }
}

fn put(
    draft: &mut Draft<'_>,
    before: Arc<Instance>,
    after: Instance,
    confirmed: bool,
    note: impl FnOnce(&str) -> Note,
) -> Result<(Arc<Instance>, Note), ChangeError> {
    if let Some(gone) = too_many_gone(before.endpoints(), after.endpoints()).filter(|_| !confirmed) {
        return Err(ChangeError::TooManyGone {
            list: format!("instance {:?}", before.name),
            gone,
            before: before.endpoints().len(),
        });
    }
    let note = note(&before.name);
    if after == *before {
        return Ok((before, note));
    }
    Ok((draft.put_instance(after), note))
}
