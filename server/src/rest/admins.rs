//! `/admins`: list, add, reset, remove. All but the list is for the Unix socket alone: whoever may make an admin is one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use pulse_proto::Token;

use super::access::Caller;
use super::extract::{Json, Path};
use super::refusal::Refusal;
use crate::Pulse;
use crate::accounts::{Credential, CredentialKind};
use crate::api::{self, time};

/// Lists the admins.
#[utoipa::path(
    get,
    path = "/admins",
    operation_id = "list_admins",
    tag = "accounts",
    security(("api_token" = ["settings:read"]), ("session" = [])),
    responses((status = OK, description = "By name.", body = api::Admins)),
)]
pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Json<api::Admins> {
    let (catalog, now) = (pulse.changes.catalog(), pulse.clock.now());
    let sessions = |name: &str| {
        let is_one = |one: &&Arc<Credential>| {
            matches!(&one.kind, CredentialKind::Session { admin } if admin == name) && one.is_good_at(now)
        };
        catalog.accounts.credentials().filter(is_one).count()
    };
    let admins = catalog.accounts.admins().map(|admin| api::Admin {
        name: admin.name.clone(),
        has_password: admin.password_hash.is_some(),
        sessions: sessions(&admin.name),
        created_at: time(admin.created_at),
        password_set_at: admin.password_set_at.map(time),
    });
    Json(api::Admins { admins: admins.collect() })
}

/// Adds an admin.
#[utoipa::path(
    post,
    path = "/admins",
    operation_id = "add_admin",
    tag = "accounts",
    security(("socket" = [])),
    responses((status = CREATED, description = "The link with which the password is set, shown this once.", body = api::NewLink)),
)]
pub(super) async fn add(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(add): Json<api::AddAdmin>,
) -> Result<(StatusCode, Json<api::NewLink>), Refusal> {
    let (link, secret) = pulse.changes.add_admin(&caller.actor(), &add.name).await?;
    Ok((StatusCode::CREATED, Json(new_link(&pulse, &add.name.trim().to_ascii_lowercase(), &link, &secret))))
}

/// Takes an admin's password and log-ins away.
#[utoipa::path(
    post,
    path = "/admins/{name}/reset",
    operation_id = "reset_admin",
    tag = "accounts",
    security(("socket" = [])),
    params(("name" = String, Path, description = "The admin's name.")),
    responses((status = CREATED, description = "The link with which a new password is set, shown this once.", body = api::NewLink)),
)]
pub(super) async fn reset(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<api::NewLink>), Refusal> {
    let (link, secret) = pulse.changes.reset_admin(&caller.actor(), &name).await?;
    Ok((StatusCode::CREATED, Json(new_link(&pulse, &name.to_ascii_lowercase(), &link, &secret))))
}

/// Takes an admin off, with all log-ins.
#[utoipa::path(
    delete,
    path = "/admins/{name}",
    operation_id = "remove_admin",
    tag = "accounts",
    security(("socket" = [])),
    params(("name" = String, Path, description = "The admin's name.")),
    responses((status = OK, description = "It is gone.", body = api::Removed)),
)]
pub(super) async fn remove(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<api::Removed>, Refusal> {
    pulse.changes.remove_admin(&caller.actor(), &name).await?;
    Ok(Json(api::Removed { removed: name }))
}

fn new_link(pulse: &Pulse, name: &str, link: &Credential, secret: &Token) -> api::NewLink {
    api::NewLink {
        name: name.to_owned(),
        link: pulse.set_up_link(secret, Some(name)),
        expires_at: time(link.expires_at),
    }
}
