//! Where the nodes of an instance come from: Proxmox VE, or nobody but an admin.

use std::sync::Arc;
use std::time::Duration;

use pulse_proto::Node;
use serde_json::json;
use uuid::Uuid;

use super::instance::{note, present};
use super::{ChangeError, Changes};
use crate::audit::Actor;
use crate::inventory::{Instance, KnownNode, Origin, Source};
use crate::pve::address::PveUrl;
use crate::pve::certificate::Fingerprint;
use crate::pve::client::ApiToken;
use crate::store::Store;

/// Where the secret of an instance's API token belongs: it is sealed for it, and opens nowhere else.
#[must_use]
pub fn place_of_secret(server_id: Uuid, instance: Uuid) -> String {
    Store::place_of("instance_sources", "sealed_secret", server_id, instance)
}

/// A source as an admin wants it: its secret is not sealed yet.
#[derive(Clone, Debug)]
pub struct WantedSource {
    /// The hosts that are asked, in turn. Not empty.
    pub urls: Vec<PveUrl>,
    /// The API token.
    pub token: ApiToken,
    /// The certificates that are trusted; empty: those that the system trusts.
    pub fingerprints: Vec<Fingerprint>,
    /// How often it is asked.
    pub poll_interval: Duration,
}

impl Changes {
    /// A source with its secret sealed. Within a change, so that no exchange of the key comes between. The same secret stays as it
    /// is sealed.
    pub(super) fn sealed(
        &self,
        server_id: Uuid,
        instance: Uuid,
        wanted: &WantedSource,
        before: Option<&Source>,
    ) -> Result<Source, ChangeError> {
        let place = place_of_secret(server_id, instance);
        let is_same = |source: &&Source| {
            let opened = self.store.open_sealed(&place, &source.sealed_secret);
            opened.is_ok_and(|secret| secret == wanted.token.secret().as_bytes())
        };
        let sealed_secret = match before.filter(is_same) {
            Some(source) => Arc::clone(&source.sealed_secret),
            None => Arc::from(self.store.seal(&place, wanted.token.secret().as_bytes())?),
        };
        Ok(Source {
            urls: wanted.urls.clone(),
            token_id: wanted.token.id().to_owned(),
            sealed_secret,
            fingerprints: wanted.fingerprints.clone(),
            poll_interval: wanted.poll_interval,
        })
    }

    /// Gives an instance another source, or none: then what its cluster told stays, as if an admin had typed it.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn set_source(
        &self,
        actor: &Actor,
        name: &str,
        source: Option<WantedSource>,
    ) -> Result<Arc<Instance>, ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            let server_id = draft.before.server_id;
            let source = match &source {
                Some(wanted) => Some(self.sealed(server_id, before.id, wanted, before.source.as_ref())?),
                None => None,
            };
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
                let asked = |source: &Option<Source>| source.as_ref().map(|source| source.urls.clone());
                if asked(&facts.source) != asked(&source) {
                    // Whoever said it is not asked any more.
                    facts.held.remove(&Origin::Cluster);
                }
                facts.source.clone_from(&source);
            });
            // A secret that was given anew is sealed otherwise, and shows by nothing else.
            let secret =
                |instance: &Instance| instance.source.as_ref().map(|source| source.sealed_secret.clone());
            let is_given = after.source.is_some() && secret(&after) != secret(&before);
            let detail = json!({ "secret_given": is_given });
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
