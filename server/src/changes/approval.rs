//! Hosts without a join token: a window in which they may register, and the approval that they wait for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::instance::present;
use super::proxies::{active, note};
use super::{ChangeError, Changes, Note};
use crate::audit::Actor;
use crate::network::Network;
use crate::registry::{JoinWindow, Proxy, ScopeKind};

/// How long a window may be open.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24);
/// The most networks that one window names.
const MAX_SOURCES: usize = 64;

impl Changes {
    /// Lets hosts without a join token register for a while, to wait for approval. A window that is open closes with it.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] for time and networks, [`ChangeError::Store`].
    pub async fn open_joining(
        &self,
        actor: &Actor,
        ttl: Duration,
        sources: Vec<Network>,
    ) -> Result<Arc<JoinWindow>, ChangeError> {
        let invalid = |field, rule: &str| Err(ChangeError::Invalid { field, rule: rule.to_owned() });
        if !TTL.contains(&ttl) {
            return invalid("ttl_seconds", "a window is open for 1 minute to 24 hours");
        }
        if sources.len() > MAX_SOURCES {
            return invalid("from", "a window has at most 64 networks: name larger ones");
        }
        self.apply(actor, |draft| {
            if let Some(before) =
                draft.before.registry.join_window().filter(|before| before.is_open(draft.at))
            {
                let closed = JoinWindow { closed_at: Some(draft.at), ..(**before).clone() };
                draft.put_join_window(closed);
            }
            let window = draft.put_join_window(JoinWindow {
                id: Uuid::now_v7(),
                sources: sources.clone(),
                opened_at: draft.at,
                closes_at: draft.at + ttl,
                closed_at: None,
            });
            let detail = json!({ "ttl_seconds": ttl.as_secs() });
            let target = format!("window:{}", window.id);
            Ok((window, Note { action: "join.open", target, detail }))
        })
        .await
    }

    /// Closes the window that is open. Hosts that came through it go on waiting.
    ///
    /// # Errors
    /// [`ChangeError::NoWindow`], [`ChangeError::Store`].
    pub async fn close_joining(&self, actor: &Actor) -> Result<Arc<JoinWindow>, ChangeError> {
        self.apply(actor, |draft| {
            let open = draft.before.registry.join_window().filter(|window| window.is_open(draft.at));
            let before = open.ok_or(ChangeError::NoWindow)?;
            let window =
                draft.put_join_window(JoinWindow { closed_at: Some(draft.at), ..(**before).clone() });
            let target = format!("window:{}", window.id);
            Ok((window, Note { action: "join.close", target, detail: json!({}) }))
        })
        .await
    }

    /// Approves a proxy that registered without a join token, and assigns it: to the named instance, else to the one that
    /// matches the host. Its open stream gets the list at once. For one that is approved already nothing changes.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] for either, [`ChangeError::NotActive`]; [`ChangeError::Invalid`] if it is approved already
    /// and shall be assigned otherwise; [`ChangeError::Store`].
    pub async fn approve_proxy(
        &self,
        actor: &Actor,
        id: Uuid,
        instance: Option<String>,
        scope_kind: Option<ScopeKind>,
    ) -> Result<Arc<Proxy>, ChangeError> {
        self.apply(actor, |draft| {
            let before = active(draft, id)?;
            let named = instance.as_deref().map(|name| present(draft, name)).transpose()?;
            let scope_kind = scope_kind.unwrap_or(before.scope_kind);
            if before.is_approved {
                if named.is_some_and(|named| before.instance != Some(named.id))
                    || scope_kind != before.scope_kind
                {
                    let rule = format!("proxy {id} is approved already: move it with `pulse proxy set {id}`");
                    return Err(ChangeError::Invalid { field: "instance", rule });
                }
                return Ok((before, note("proxy.approve", id, json!({}))));
            }
            let matching = || draft.before.inventory.instance_of_host(&before.hostname, before.peer).cloned();
            let instance = named.or_else(matching).map(|instance| instance.id);
            let after =
                draft.put_proxy(Proxy { is_approved: true, instance, scope_kind, ..(*before).clone() });
            let detail = json!({ "hostname": after.hostname, "peer": after.peer });
            Ok((after, note("proxy.approve", id, detail)))
        })
        .await
    }
}
