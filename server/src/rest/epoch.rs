//! `/epoch`: a new epoch of the fleet.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;

use super::access::Caller;
use super::refusal::Refusal;
use crate::Pulse;
use crate::api;

pub(super) async fn begin(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
) -> Result<Json<api::NewEpoch>, Refusal> {
    let before = pulse.changes.catalog().epoch;
    let epoch = pulse.changes.begin_epoch(&caller.actor()).await?;
    Ok(Json(api::NewEpoch { epoch, before, streams: pulse.fleet.connected() }))
}
