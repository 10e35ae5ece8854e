//! `/epoch`: a new epoch of the fleet.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Json;

use super::refusal::Refusal;
use crate::Pulse;
use crate::api;
use crate::audit::Actor;
use crate::listen::admin_socket::AdminPeer;

pub(super) async fn begin(
    State(pulse): State<Arc<Pulse>>,
    Extension(peer): Extension<AdminPeer>,
) -> Result<Json<api::NewEpoch>, Refusal> {
    let before = pulse.changes.catalog().epoch;
    let epoch = pulse.changes.begin_epoch(&Actor::admin(peer.uid)).await?;
    Ok(Json(api::NewEpoch { epoch, before, streams: pulse.fleet.connected() }))
}
