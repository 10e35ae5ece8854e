//! `/api-tokens`: list, create, revoke.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;

use super::access::Caller;
use super::extract::{Json, Path};
use super::refusal::Refusal;
use crate::Pulse;
use crate::accounts::{ApiScope, Credential, CredentialKind};
use crate::api::{self, TokenState, time};
use crate::changes::{ChangeError, NewApiToken};
use crate::store::CredentialUse;

/// How long a token is good if the request does not say.
const DEFAULT_LIFE: Duration = Duration::from_hours(90 * 24);
/// How long a token is listed after its end.
const SHOWN_AFTER_END: Duration = Duration::from_hours(30 * 24);

/// Lists the API tokens, without their secrets.
#[utoipa::path(
    get,
    path = "/api-tokens",
    operation_id = "list_api_tokens",
    tag = "accounts",
    security(("api_token" = ["settings:read"]), ("session" = [])),
    responses((status = OK, description = "Those that did not end more than 30 days ago.", body = api::ApiTokens)),
)]
pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Result<Json<api::ApiTokens>, Refusal> {
    pulse.uses.save_now(&pulse.store).await;
    let uses = pulse.store.uses().await?;
    let uses: HashMap<&str, &CredentialUse> = uses.iter().map(|one| (one.credential.as_str(), one)).collect();
    let (catalog, now) = (pulse.changes.catalog(), pulse.clock.now());
    let is_shown = |token: &&Arc<Credential>| {
        let ended = token.ended_at.unwrap_or(token.expires_at);
        !now.duration_since(ended).is_ok_and(|ago| ago > SHOWN_AFTER_END)
    };
    let mut tokens: Vec<&Arc<Credential>> = catalog.accounts.credentials().filter(is_shown).collect();
    tokens.sort_by_key(|token| (token.created_at, &token.id));
    let view = |token: &Arc<Credential>| view(token, uses.get(token.id.as_str()).copied(), now);
    Ok(Json(api::ApiTokens { api_tokens: tokens.into_iter().filter_map(view).collect() }))
}

/// Makes an API token. A token makes none that may more than itself.
#[utoipa::path(
    post,
    path = "/api-tokens",
    operation_id = "create_api_token",
    tag = "accounts",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = CREATED, description = "The secret, shown this once.", body = api::NewApiToken)),
)]
pub(super) async fn create(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(create): Json<api::CreateApiToken>,
) -> Result<(StatusCode, Json<api::NewApiToken>), Refusal> {
    let scopes = create.scopes.iter().enumerate().map(|(at, word)| {
        let scope = word.parse::<ApiScope>();
        let scope =
            scope.map_err(|error| Refusal::invalid(format!("scopes[{at}]"), format!("{word:?}: {error}")))?;
        match caller.may(scope) {
            true => Ok(scope),
            // Otherwise a token that may change settings could make itself one that may everything.
            false => {
                let text = format!("a token without the scope {scope} cannot make one that has it");
                Err(Refusal::new(StatusCode::FORBIDDEN, "MISSING_SCOPE", text))
            }
        }
    });
    let scopes = scopes.collect::<Result<BTreeSet<ApiScope>, Refusal>>()?;
    let (catalog, now) = (pulse.changes.catalog(), pulse.clock.now());
    let own = match &caller {
        Caller::Token { id, .. } => catalog.accounts.credential_by_id(id),
        Caller::Local { .. } | Caller::User { .. } => None,
    };
    // One that was stolen would never end if it could make others that outlive it.
    let most = own.map(|own| own.expires_at.duration_since(now).unwrap_or_default());
    let ttl = match (create.ttl_seconds.map(Duration::from_secs), most) {
        (Some(ttl), Some(most)) if ttl > most => {
            let text = format!(
                "a token makes none that outlives itself, and this one has {} s left",
                most.as_secs()
            );
            return Err(Refusal::invalid("ttl_seconds", text));
        }
        (Some(ttl), _) => ttl,
        (None, most) => most.map_or(DEFAULT_LIFE, |most| most.min(DEFAULT_LIFE)),
    };
    let new = NewApiToken { name: create.name, scopes, ttl };
    let (token, secret) = pulse.changes.create_api_token(&caller.actor(), new).await?;
    let token = view(&token, None, pulse.clock.now());
    let token = token.ok_or_else(|| Refusal::from(ChangeError::Stopping))?;
    let secret = secret.reveal().to_owned();
    Ok((StatusCode::CREATED, Json(api::NewApiToken { secret, token })))
}

/// Ends an API token.
#[utoipa::path(
    delete,
    path = "/api-tokens/{id}",
    operation_id = "revoke_api_token",
    tag = "accounts",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id" = String, Path, description = "The token's id.")),
    responses((status = OK, description = "It is good no more.", body = api::ApiToken)),
)]
pub(super) async fn revoke(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<api::ApiToken>, Refusal> {
    pulse.changes.revoke_api_token(&caller.actor(), &id).await?;
    let catalog = pulse.changes.catalog();
    let token = catalog.accounts.credential_by_id(&id).and_then(|token| view(token, None, pulse.clock.now()));
    token.map(Json).ok_or_else(|| ChangeError::NotFound { what: "token", name: id }.into())
}

/// `None`: it is no API token.
fn view(token: &Credential, used: Option<&CredentialUse>, now: SystemTime) -> Option<api::ApiToken> {
    let CredentialKind::Api { name, scopes } = &token.kind else { return None };
    let state = match token.ended_at {
        Some(_) => TokenState::Revoked,
        None if token.is_good_at(now) => TokenState::Active,
        None => TokenState::Expired,
    };
    Some(api::ApiToken {
        id: token.id.clone(),
        name: name.clone(),
        scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        state,
        created_at: time(token.created_at),
        expires_at: time(token.expires_at),
        revoked_at: token.ended_at.map(time),
        last_used_at: used.map(|used| time(used.at)),
        last_used_from: used.and_then(|used| used.from).map(|from| from.to_string()),
    })
}
