//! `/proxies`: list, show, set, rotate, revoke, remove.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pulse_proto::join::authority;
use uuid::Uuid;

use super::access::Caller;
use super::apart;
use super::extract::{Json, Path};
use super::join_tokens::{scope_kind, scope_word};
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, seconds, time};
use crate::catalog::Catalog;
use crate::changes::ChangeError;
use crate::fleet::FleetView;
use crate::registry::{Proxy, ProxyKind, Standing};
use crate::store;

/// Lists every proxy with what it holds and last said.
#[utoipa::path(
    get,
    path = "/proxies",
    operation_id = "list_proxies",
    tag = "proxies",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    responses((status = OK, description = "Every proxy.", body = api::Proxies)),
)]
pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Response {
    apart(move || Json(all(&pulse))).await
}

fn all(pulse: &Pulse) -> api::Proxies {
    let catalog = pulse.changes.catalog();
    let mut proxies: Vec<&Arc<Proxy>> = catalog.registry.proxies().collect();
    proxies.sort_by_cached_key(|proxy| (proxy.hostname.to_ascii_lowercase(), proxy.id));
    let view = |proxy: &&Arc<Proxy>| view(&catalog, proxy, pulse.view(proxy));
    api::Proxies { proxies: proxies.iter().map(view).collect() }
}

/// Shows one proxy.
#[utoipa::path(
    get,
    path = "/proxies/{id}",
    operation_id = "show_proxy",
    tag = "proxies",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    params(("id", Path, description = "The proxy's id.")),
    responses((status = OK, description = "The proxy.", body = api::Proxy)),
)]
pub(super) async fn show(
    State(pulse): State<Arc<Pulse>>,
    Path(id): Path<String>,
) -> Result<Json<api::Proxy>, Refusal> {
    one(&pulse, parse(&id)?)
}

/// Moves a proxy to an instance, or says which nodes it may read.
#[utoipa::path(
    patch,
    path = "/proxies/{id}",
    operation_id = "set_proxy",
    tag = "proxies",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id", Path, description = "The proxy's id.")),
    responses((status = OK, description = "The proxy as it is now.", body = api::Proxy)),
)]
pub(super) async fn set(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(set): Json<api::SetProxy>,
) -> Result<Json<api::Proxy>, Refusal> {
    let id = parse(&id)?;
    let scope = set.scope.map(scope_kind);
    pulse.changes.set_proxy(&caller.actor(), id, set.instance, scope).await?;
    one(&pulse, id)
}

/// Approves a host that registered without a join token.
#[utoipa::path(
    post,
    path = "/proxies/{id}/approve",
    operation_id = "approve_proxy",
    tag = "proxies",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id", Path, description = "The proxy's id.")),
    responses((status = OK, description = "The proxy as it is now.", body = api::Proxy)),
)]
pub(super) async fn approve(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(approve): Json<api::ApproveProxy>,
) -> Result<Json<api::Proxy>, Refusal> {
    let id = parse(&id)?;
    let scope = approve.scope.map(scope_kind);
    pulse.changes.approve_proxy(&caller.actor(), id, approve.instance, scope).await?;
    one(&pulse, id)
}

/// Makes a token that watches a proxy's stream and changes nothing. This answer alone shows it.
#[utoipa::path(
    post,
    path = "/proxies/{id}/debug-token",
    operation_id = "create_debug_token",
    tag = "proxies",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id", Path, description = "The proxy's id.")),
    responses((status = CREATED, description = "The token, and a command that watches with it.", body = api::NewDebugToken)),
)]
pub(super) async fn debug_token(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(create): Json<api::CreateDebugToken>,
) -> Result<(StatusCode, Json<api::NewDebugToken>), Refusal> {
    let proxy_id = parse(&id)?;
    let ttl = Duration::from_secs(create.ttl_seconds);
    let (token, until) = pulse.changes.debug_token(&caller.actor(), proxy_id, ttl).await?;
    let token = token.reveal().to_owned();
    let (expires_at, command) = (time(until), watch_command(&pulse));
    Ok((StatusCode::CREATED, Json(api::NewDebugToken { token, proxy_id, expires_at, command })))
}

/// What watches a proxy's stream from a shell. The token comes from the environment: no process list shows it.
fn watch_command(pulse: &Pulse) -> String {
    let (host, port) = &pulse.public_authority;
    let (trust, server) = match pulse.ca_path() {
        Some(path) => (format!("-cacert {} ", path.display()), authority(host, *port)),
        // Without TLS the port is on loopback; whatever else stands at the public address does TLS.
        None if pulse.tls.is_none() => (
            "-plaintext ".to_owned(),
            pulse.listen_addrs.first().map(ToString::to_string).unwrap_or_default(),
        ),
        None => (String::new(), authority(host, *port)),
    };
    format!(
        "grpcurl {trust}-expand-headers -H 'authorization: Bearer ${{TOKEN}}' {server} \
         pulse.control.v1.ControlPlaneService/WatchAuthorizedNodes"
    )
}

/// Asks a proxy to take a new token.
#[utoipa::path(
    post,
    path = "/proxies/{id}/rotate",
    operation_id = "rotate_proxy_token",
    tag = "proxies",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id", Path, description = "The proxy's id.")),
    responses((status = OK, description = "The proxy as it is now.", body = api::Proxy)),
)]
pub(super) async fn rotate(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<api::Proxy>, Refusal> {
    let id = parse(&id)?;
    pulse.changes.request_rotation(&caller.actor(), id).await?;
    one(&pulse, id)
}

/// Revokes a proxy's token. It reads nothing more.
#[utoipa::path(
    post,
    path = "/proxies/{id}/revoke",
    operation_id = "revoke_proxy",
    tag = "proxies",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id", Path, description = "The proxy's id.")),
    responses((status = OK, description = "The proxy as it is now.", body = api::Proxy)),
)]
pub(super) async fn revoke(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<api::Proxy>, Refusal> {
    let id = parse(&id)?;
    pulse.changes.revoke_proxy(&caller.actor(), id).await?;
    one(&pulse, id)
}

/// Takes a proxy off. Its token is revoked.
#[utoipa::path(
    delete,
    path = "/proxies/{id}",
    operation_id = "remove_proxy",
    tag = "proxies",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("id", Path, description = "The proxy's id.")),
    responses((status = OK, description = "It is removed.", body = api::Removed)),
)]
pub(super) async fn remove(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<api::Removed>, Refusal> {
    let id = parse(&id)?;
    pulse.changes.remove_proxy(&caller.actor(), id).await?;
    Ok(Json(api::Removed { removed: id.to_string() }))
}

fn parse(id: &str) -> Result<Uuid, Refusal> {
    let not_found = |_| ChangeError::NotFound { what: "proxy", name: id.chars().take(80).collect() };
    Ok(Uuid::parse_str(id).map_err(not_found)?)
}

/// As it is now: after a change, its own view.
fn one(pulse: &Pulse, id: Uuid) -> Result<Json<api::Proxy>, Refusal> {
    let catalog = pulse.changes.catalog();
    let is_there = |proxy: &&Arc<Proxy>| !matches!(proxy.standing, Standing::Removed { .. });
    let not_found = || ChangeError::NotFound { what: "proxy", name: id.to_string() };
    let proxy = catalog.registry.proxy(id).filter(is_there).ok_or_else(not_found)?;
    Ok(Json(view(&catalog, proxy, pulse.view(proxy))))
}

fn view(catalog: &Catalog, proxy: &Proxy, fleet: FleetView) -> api::Proxy {
    let instance = proxy.instance.and_then(|id| catalog.inventory.instance(id));
    let status = fleet.status;
    let kind = match proxy.kind {
        ProxyKind::Socket => "socket",
        ProxyKind::Http => "http",
    };
    let revoked = match &proxy.standing {
        Standing::Active => None,
        Standing::Revoked { at, reason } | Standing::Removed { at, reason } => {
            Some(api::Revoked { at: time(*at), reason: reason.clone() })
        }
    };
    api::Proxy {
        id: proxy.id,
        hostname: proxy.hostname.clone(),
        kind: kind.to_owned(),
        proxy_url: proxy.proxy_url.clone(),
        // What it last said on a stream is newer than its registration.
        version: if status.version.is_empty() { proxy.version.clone() } else { status.version },
        is_instance_removed: instance.is_some_and(|instance| !instance.is_present()),
        instance: instance.map(|instance| instance.name.clone()),
        scope: scope_word(proxy.scope_kind),
        state: fleet.state.as_str().to_owned(),
        is_approved: proxy.is_approved,
        waiting: fleet.waiting,
        is_connected: fleet.is_connected,
        transport: fleet.transport.map(|transport| transport.as_str().to_owned()),
        pushed: status.pushed.as_ref().map(mark),
        applied: status.applied.as_ref().map(mark),
        is_on_disk: status.on_disk,
        refused: status.refused.as_ref().map(mark),
        last_error: status.last_error,
        list_source: status.list_source,
        insecure_skip_verify: status.insecure_skip_verify,
        kept_list: status.kept_list.map(|kept| api::KeptList {
            problem: kept.problem,
            detail: kept.detail,
            at: time(kept.at),
        }),
        ahead: fleet.ahead.filter(|_| proxy.is_active()).as_ref().map(ahead),
        // No list is on its way to a revoked proxy.
        lag_seconds: fleet.lag.filter(|_| proxy.is_active()).map(seconds),
        last_seen_at: status.last_seen.map(time),
        last_pull_at: status.last_pull.map(time),
        peer_ip: status.peer.or(proxy.peer),
        is_rotation_requested: proxy.rotate_requested,
        created_at: time(proxy.created_at),
        registered_at: time(proxy.registered_at),
        revoked,
    }
}

fn ahead(ahead: &store::Ahead) -> api::Ahead {
    let pulse_proto::Position { epoch, revision } = ahead.position;
    api::Ahead { epoch, revision, noticed_at: time(ahead.noticed_at) }
}

fn mark(mark: &store::Mark) -> api::Mark {
    api::Mark {
        epoch: mark.position.epoch,
        revision: mark.position.revision,
        hash: mark.hash.to_string(),
        at: time(mark.at),
    }
}
