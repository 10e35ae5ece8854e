//! `/instances/{name}/held`: changes that would take away too much, and what an admin says to them.

use std::sync::Arc;

use axum::extract::State;

use super::access::Caller;
use super::extract::{Json, Path};
use super::refusal::Refusal;
use super::views;
use crate::Pulse;
use crate::api;

/// Lets out the changes of an instance that were held.
#[utoipa::path(
    post,
    path = "/instances/{name}/held/confirm",
    operation_id = "confirm_held",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind.")),
    responses((status = OK, description = "The instance as it is now.", body = api::Instance)),
)]
pub(super) async fn confirm(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(confirm): Json<api::ConfirmHeld>,
) -> Result<Json<api::Instance>, Refusal> {
    let seen: Option<Vec<u64>> =
        confirm.seen.map(|seen| seen.iter().map(|at| at.as_millisecond().unsigned_abs()).collect());
    let changed = pulse.changes.confirm_held(&caller.actor(), &name, seen.as_deref()).await?;
    Ok(Json(views::one(&pulse, &changed)))
}

/// Says no to the changes of an instance that were held.
#[utoipa::path(
    post,
    path = "/instances/{name}/held/discard",
    operation_id = "discard_held",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind.")),
    responses((status = OK, description = "The instance as it is now.", body = api::Instance)),
)]
pub(super) async fn discard(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<api::Instance>, Refusal> {
    let changed = pulse.changes.discard_held(&caller.actor(), &name).await?;
    Ok(Json(views::one(&pulse, &changed)))
}
