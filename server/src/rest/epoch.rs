//! `/epoch`: a new epoch of the fleet.

use std::sync::Arc;

use axum::extract::State;

use super::access::Caller;
use super::extract::Json;
use super::refusal::Refusal;
use crate::Pulse;
use crate::api;

/// Begins a new epoch: every list is made and signed anew, and is newer than any before.
#[utoipa::path(
    post,
    path = "/epoch",
    operation_id = "begin_epoch",
    tag = "server",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = OK, description = "The new epoch.", body = api::NewEpoch)),
)]
pub(super) async fn begin(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
) -> Result<Json<api::NewEpoch>, Refusal> {
    let before = pulse.changes.catalog().epoch;
    let epoch = pulse.changes.begin_epoch(&caller.actor()).await?;
    Ok(Json(api::NewEpoch { epoch, before, streams: pulse.fleet.connected() }))
}
