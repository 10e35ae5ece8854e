//! `/join-tokens`: list, create, revoke; `/join-window`: open, close.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use pulse_proto::JoinString;

use super::access::Caller;
use super::extract::{Json, Path};
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, JoinState, time};
use crate::catalog::Catalog;
use crate::changes::{ChangeError, NewJoin};
use crate::network::Network;
use crate::registry::{JoinToken, JoinWindow, ScopeKind};

/// How long a join token or a window is listed after its end.
const SHOWN_AFTER_END: Duration = Duration::from_hours(30 * 24);

/// Lists the join tokens, without their secrets, and the newest window.
#[utoipa::path(
    get,
    path = "/join-tokens",
    operation_id = "list_join_tokens",
    tag = "join tokens",
    security(("api_token" = ["settings:read"]), ("session" = [])),
    responses((status = OK, description = "Those that did not end more than 30 days ago.", body = api::JoinTokens)),
)]
pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Json<api::JoinTokens> {
    let (catalog, now) = (pulse.changes.catalog(), pulse.clock.now());
    let is_shown = |token: &&Arc<JoinToken>| !is_long_over(token.revoked_at.unwrap_or(token.expires_at), now);
    let mut tokens: Vec<&Arc<JoinToken>> = catalog.registry.join_tokens().filter(is_shown).collect();
    tokens.sort_by_key(|token| token.created_at);
    let window = catalog.registry.join_window();
    let window = window.filter(|window| !is_long_over(window.closed_at.unwrap_or(window.closes_at), now));
    Json(api::JoinTokens {
        join_tokens: tokens.iter().map(|token| view(&catalog, token, now)).collect(),
        window: window.map(|window| window_view(window, now)),
    })
}

/// Whether a join token or a window ended so long ago that it is not listed.
fn is_long_over(ended: SystemTime, now: SystemTime) -> bool {
    now.duration_since(ended).is_ok_and(|ago| ago > SHOWN_AFTER_END)
}

/// Opens a window in which hosts without a join token may register, to wait for approval.
#[utoipa::path(
    post,
    path = "/join-window",
    operation_id = "open_join_window",
    tag = "join tokens",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = CREATED, description = "The join string for hosts, and the window.", body = api::NewJoinWindow)),
)]
pub(super) async fn open(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(open): Json<api::OpenJoin>,
) -> Result<(StatusCode, Json<api::NewJoinWindow>), Refusal> {
    let parse = |(at, text): (usize, &String)| {
        text.parse::<Network>().map_err(|error| Refusal::invalid(format!("from[{at}]"), error.to_string()))
    };
    let sources = open.from.iter().enumerate().map(parse).collect::<Result<Vec<Network>, Refusal>>()?;
    let ttl = Duration::from_secs(open.ttl_seconds);
    let window = pulse.changes.open_joining(&caller.actor(), ttl, sources).await?;
    let (host, port) = pulse.public_authority.clone();
    let join = JoinString { host, port, pin: pulse.pin(), join: None }.reveal();
    let window = window_view(&window, pulse.clock.now());
    Ok((StatusCode::CREATED, Json(api::NewJoinWindow { join, window })))
}

/// Closes the window for hosts without a join token.
#[utoipa::path(
    delete,
    path = "/join-window",
    operation_id = "close_join_window",
    tag = "join tokens",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = OK, description = "The window as it is now.", body = api::JoinWindow)),
)]
pub(super) async fn close(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
) -> Result<Json<api::JoinWindow>, Refusal> {
    let window = pulse.changes.close_joining(&caller.actor()).await?;
    Ok(Json(window_view(&window, pulse.clock.now())))
}

fn window_view(window: &JoinWindow, now: SystemTime) -> api::JoinWindow {
    api::JoinWindow {
        is_open: window.is_open(now),
        from: window.sources.iter().map(ToString::to_string).collect(),
        opened_at: time(window.opened_at),
        closes_at: time(window.closes_at),
        closed_at: window.closed_at.map(time),
    }
}

/// Makes a join token. This answer alone shows its secret, in the join string.
#[utoipa::path(
    post,
    path = "/join-tokens",
    operation_id = "create_join_token",
    tag = "join tokens",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = CREATED, description = "The join string and the token.", body = api::NewJoin)),
)]
pub(super) async fn create(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(create): Json<api::CreateJoin>,
) -> Result<(StatusCode, Json<api::NewJoin>), Refusal> {
    let new = NewJoin {
        instance: create.instance,
        scope_kind: scope_kind(create.scope),
        uses: create.uses,
        ttl: Duration::from_secs(create.ttl_seconds),
    };
    let (token, secret) = pulse.changes.create_join(&caller.actor(), new).await?;
    let (host, port) = pulse.public_authority.clone();
    let join = JoinString { host, port, pin: pulse.pin(), join: Some(secret) }.reveal();
    let token = view(&pulse.changes.catalog(), &token, pulse.clock.now());
    Ok((StatusCode::CREATED, Json(api::NewJoin { join, token })))
}

/// Revokes a join token.
#[utoipa::path(
    delete,
    path = "/join-tokens/{id}",
    operation_id = "revoke_join_token",
    tag = "join tokens",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id", Path, description = "The token's id, or its beginning if no other begins like that.")),
    responses((status = OK, description = "The token as it is now.", body = api::JoinToken)),
)]
pub(super) async fn revoke(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<api::JoinToken>, Refusal> {
    pulse.changes.revoke_join(&caller.actor(), &id).await?;
    let catalog = pulse.changes.catalog();
    let not_found = || ChangeError::NotFound { what: "join token", name: id.clone() };
    let token = catalog.registry.join_token_by_id(&id).ok_or_else(not_found)?;
    Ok(Json(view(&catalog, token, pulse.clock.now())))
}

fn view(catalog: &Catalog, token: &JoinToken, now: SystemTime) -> api::JoinToken {
    let instance = token.instance.and_then(|id| catalog.inventory.instance(id));
    api::JoinToken {
        id: token.id.clone(),
        state: state(token, instance.is_some_and(|instance| !instance.is_present()), now),
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
fn state(token: &JoinToken, is_instance_removed: bool, now: SystemTime) -> JoinState {
    if is_instance_removed {
        JoinState::InstanceRemoved
    } else if token.revoked_at.is_some() {
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
        assert_eq!(state(&open, false, now), JoinState::Open);
        let used = JoinToken { used: 2, ..open };
        assert_eq!(state(&used, false, now), JoinState::Used);
        let expired = JoinToken { expires_at: now, ..used };
        assert_eq!(state(&expired, false, now), JoinState::Expired);
        let revoked = JoinToken { revoked_at: Some(now), ..expired };
        assert_eq!(state(&revoked, false, now), JoinState::Revoked);
        assert_eq!(state(&revoked, true, now), JoinState::InstanceRemoved);
    }

    #[test]
    fn what_ended_more_than_a_month_ago_is_not_listed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365);
        assert!(!is_long_over(now - SHOWN_AFTER_END, now));
        assert!(is_long_over(now - SHOWN_AFTER_END - Duration::from_secs(1), now));
        assert!(!is_long_over(now + SHOWN_AFTER_END * 2, now), "it has not ended yet");
    }
}
