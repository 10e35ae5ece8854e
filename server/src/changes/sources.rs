//! Where the nodes of an instance come from: Proxmox VE, or nobody but an admin.

use std::sync::Arc;

use pulse_proto::Node;
use serde_json::json;

use super::instances::{difference, note, present};
use super::{ChangeError, Changes};
use crate::audit::Actor;
use crate::inventory::{Instance, KnownNode, Origin, Source};

impl Changes {
    /// Gives an instance another source, or none: then what its cluster told stays, as if an admin had typed it.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn set_source(
        &self,
        actor: &Actor,
        name: &str,
        source: Option<Source>,
    ) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            let after = before.with(|facts| {
                if source.is_none() {
                    let mut told: Vec<Node> = Vec::new();
                    facts.nodes.retain(|KnownNode { node, origin, .. }| {
                        if *origin == Origin::Cluster {
                            told.push(node.clone());
                        }
                        *origin != Origin::Cluster
                    });
                    let is_typed = |known: &&KnownNode| known.origin == Origin::Manual;
                    let mut typed: Vec<Node> =
                        facts.nodes.iter().filter(is_typed).map(|known| known.node.clone()).collect();
                    let names: Vec<String> =
                        facts.nodes.iter().map(|known| known.node.name().to_ascii_lowercase()).collect();
                    typed.extend(
                        told.into_iter().filter(|node| !names.contains(&node.name().to_ascii_lowercase())),
                    );
                    facts.replace(Origin::Manual, typed, draft.at);
                    facts.held.remove(&Origin::Cluster);
                }
                facts.source = source.clone();
            });
            let mut detail = difference(&before, &after);
            detail["pve"] = after.source.as_ref().map_or(serde_json::Value::Null, noted);
            detail["pve_before"] = before.source.as_ref().map_or(serde_json::Value::Null, noted);
            if after == *before {
                return Ok((before, note("instance.source", name, detail)));
            }
            let name = before.name.clone();
            Ok((draft.put_instance(after), note("instance.source", &name, detail)))
        })
        .await
    }
}

/// A source for the audit log: everything but the secret.
pub(super) fn noted(source: &Source) -> serde_json::Value {
    json!({
        "urls": source.urls.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "token_id": source.token_id,
        "fingerprints": source.fingerprints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "poll_interval_seconds": source.poll_interval.as_secs_f64(),
    })
}
