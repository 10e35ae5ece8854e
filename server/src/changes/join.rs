//! Changes of join tokens: create, revoke.

use std::sync::Arc;
use std::time::Duration;

use pulse_proto::{Token, TokenKind, hex};
use serde_json::json;

use super::instance::present;
use super::{ChangeError, Changes, Note};
use crate::audit::Actor;
use crate::registry::{JoinToken, ScopeKind};

/// The most registrations that one join token is good for.
const MAX_USES: u32 = 100_000;
/// The longest life of a join token: a year.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// A join token that an admin asks for.
#[derive(Clone, Debug)]
pub struct NewJoin {
    /// The name of the instance to which its proxies are assigned; `None`: that which matches the host.
    pub instance: Option<String>,
    /// Which nodes its proxies may read.
    pub scope_kind: ScopeKind,
    /// How many registrations it is good for, from 1.
    pub uses: u32,
    /// How long it is good.
    pub ttl: Duration,
}

impl Changes {
    /// Makes a join token; the secret is returned this once.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] for the instance, [`ChangeError::Invalid`] for uses and time, [`ChangeError::Store`].
    pub async fn create_join(
        &self,
        actor: &Actor,
        new: NewJoin,
    ) -> Result<(Arc<JoinToken>, Token), ChangeError> {
        let invalid = |field, rule: &str| Err(ChangeError::Invalid { field, rule: rule.to_owned() });
        if new.uses == 0 || new.uses > MAX_USES {
            return invalid("uses", "a join token is good for 1 to 100000 registrations");
        }
        if new.ttl < Duration::from_secs(1) || new.ttl > MAX_TTL {
            return invalid("ttl_seconds", "a join token lives 1 second to 365 days");
        }
        let token = Token::generate(TokenKind::Join)?;
        let digest = token.digest();
        let joined = self
            .apply(actor, |draft| {
                let instance = new.instance.as_deref().map(|name| present(draft, name)).transpose()?;
                // Eight digits of the digest name it: they are unique enough, and tell nothing of the secret.
                let id = hex::encode(&digest.as_bytes()[..4]);
                let row = draft.put_join_token(JoinToken {
                    id: id.clone(),
                    digest,
                    instance: instance.as_ref().map(|instance| instance.id),
                    scope_kind: new.scope_kind,
                    uses: new.uses,
                    used: 0,
                    created_at: draft.at,
                    expires_at: draft.at + new.ttl,
                    revoked_at: None,
                });
                let detail = json!({
                    "instance": instance.map(|instance| instance.name.clone()),
                    "scope": match new.scope_kind {
                        ScopeKind::Instance => "instance",
                        ScopeKind::All => "all",
                    },
                    "uses": new.uses,
                    "ttl_seconds": new.ttl.as_secs(),
                });
                Ok((row, Note { action: "join.create", target: format!("join:{id}"), detail }))
            })
            .await?;
        Ok((joined, token))
    }

    /// Revokes a join token: it is good for no more registrations.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn revoke_join(&self, actor: &Actor, id: &str) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let not_found = || ChangeError::NotFound { what: "join token", name: id.to_owned() };
            let before = draft.before.registry.join_token_by_id(id).ok_or_else(not_found)?;
            if before.revoked_at.is_none() {
                draft.put_join_token(JoinToken { revoked_at: Some(draft.at), ..(**before).clone() });
            }
            Ok(((), Note { action: "join.revoke", target: format!("join:{id}"), detail: json!({}) }))
        })
        .await
    }
}
