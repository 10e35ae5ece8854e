//! `/join-tokens`: list, create, revoke.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use pulse_proto::JoinString;

use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, JoinState, time};
use crate::audit::Actor;
use crate::catalog::Catalog;
use crate::changes::{ChangeError, NewJoin};
use crate::listen::admin_socket::AdminPeer;
use crate::registry::{JoinToken, ScopeKind};

pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Json<api::JoinTokens> {
    let (catalog, now) = (pulse.changes.catalog(), SystemTime::now());
    let mut tokens: Vec<&Arc<JoinToken>> = catalog.registry.join_tokens().collect();
    tokens.sort_by_key(|token| token.created_at);
    Json(api::JoinTokens { join_tokens: tokens.iter().map(|token| view(&catalog, token, now)).collect() })
}

pub(super) async fn create(
    State(pulse): State<Arc<Pulse>>,
    Extension(peer): Extension<AdminPeer>,
    Json(create): Json<api::CreateJoin>,
) -> Result<(StatusCode, Json<api::NewJoin>), Refusal> {
    let new = NewJoin {
        instance: create.instance,
        scope_kind: scope_kind(create.scope),
        uses: create.uses,
        ttl: Duration::from_secs(create.ttl_seconds),
    };
    let (token, secret) = pulse.changes.create_join(&Actor::admin(peer.uid), new).await?;
    let (host, port) = pulse.public_authority.clone();
    let join = JoinString { host, port, pin: pulse.pin, join: secret }.reveal();
    let token = view(&pulse.changes.catalog(), &token, SystemTime::now());
    Ok((StatusCode::CREATED, Json(api::NewJoin { join, token })))
}

pub(super) async fn revoke(
    State(pulse): State<Arc<Pulse>>,
    Extension(peer): Extension<AdminPeer>,
    Path(id): Path<String>,
) -> Result<Json<api::JoinToken>, Refusal> {
    pulse.changes.revoke_join(&Actor::admin(peer.uid), &id).await?;
    let catalog = pulse.changes.catalog();
    let not_found = || ChangeError::NotFound { what: "join token", name: id.clone() };
    let token = catalog.registry.join_token_by_id(&id).ok_or_else(not_found)?;
    Ok(Json(view(&catalog, token, SystemTime::now())))
}

fn view(catalog: &Catalog, token: &JoinToken, now: SystemTime) -> api::JoinToken {
    let instance = token.instance.and_then(|id| catalog.inventory.instance(id));
    api::JoinToken {
        id: token.id.clone(),
        state: state(token, now),
        instance: instance.map(|instance| instance.name.clone()),
        scope: scope_word(token.scope_kind),
        uses: token.uses,
        used: token.used,
        created_at: time(token.created_at),
        expires_at: time(token.expires_at),
        revoked_at: token.revoked_at.map(time),
    }
}

/// In the order in which a registration would be refused.
fn state(token: &JoinToken, now: SystemTime) -> JoinState {
    if token.revoked_at.is_some() {
        JoinState::Revoked
    } else if token.expires_at <= now {
        JoinState::Expired
    } else if token.used >= token.uses {
        JoinState::Used
    } else {
        JoinState::Open
    }
}

/// The word of the API as the registry has it.
pub(super) fn scope_kind(word: api::ScopeKind) -> ScopeKind {
    match word {
        api::ScopeKind::Instance => ScopeKind::Instance,
        api::ScopeKind::All => ScopeKind::All,
    }
}

/// The registry's word as the API has it.
pub(super) fn scope_word(kind: ScopeKind) -> api::ScopeKind {
    match kind {
        ScopeKind::Instance => api::ScopeKind::Instance,
        ScopeKind::All => api::ScopeKind::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse_proto::TokenDigest;

    #[test]
    fn a_token_is_shown_with_the_reason_for_which_it_would_be_refused() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let open = JoinToken {
            id: "0a1b2c3d".to_owned(),
            digest: TokenDigest::from_bytes([0; 32]),
            instance: None,
            scope_kind: ScopeKind::Instance,
            uses: 2,
            used: 1,
            created_at: SystemTime::UNIX_EPOCH,
            expires_at: now + Duration::from_secs(1),
            revoked_at: None,
        };
        assert_eq!(state(&open, now), JoinState::Open);
        let used = JoinToken { used: 2, ..open };
        assert_eq!(state(&used, now), JoinState::Used);
        let expired = JoinToken { expires_at: now, ..used };
        assert_eq!(state(&expired, now), JoinState::Expired);
        assert_eq!(state(&JoinToken { revoked_at: Some(now), ..expired }, now), JoinState::Revoked);
    }
}
