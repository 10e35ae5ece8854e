//! `/backup`: all that is needed to bring the fleet back, as one file.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;

use super::access::Caller;
use super::refusal::Refusal;
use crate::Pulse;
use crate::api;
use crate::audit::{Entry, Outcome};

/// Begins a backup and streams it. What goes wrong later cuts the stream short, and the reader sees that.
#[utoipa::path(
    post,
    path = "/backup",
    operation_id = "make_backup",
    tag = "server",
    security(("socket" = [])),
    responses(
        (status = OK, description = "The backup, a tar file.", body = api::Backup, content_type = "application/x-tar"),
        (status = INTERNAL_SERVER_ERROR, description = "No backup was made.", body = api::ApiError),
    ),
)]
pub(super) async fn make(State(pulse): State<Arc<Pulse>>, caller: Caller) -> Result<Response, Refusal> {
    let actor = caller.actor();
    let (now, target) = (pulse.clock.now(), "fleet".to_owned());
    let entry = Entry::new(now, &actor, "backup.make", target, Outcome::Done, json!({}));
    // It holds every key, so who took it is noted; but a database that cannot be written is backed up all the same.
    if let Err(error) = pulse.store.append_audit(vec![entry]).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            by = %actor,
            "a backup is made without an audit row"
        );
    }
    let stream = pulse.backups.begin(&pulse.store).await?;
    tracing::info!(by = %actor, revision = stream.manifest.revision, "a backup is made");
    let chunks = ReceiverStream::new(stream.chunks);
    Ok(([(CONTENT_TYPE, "application/x-tar")], Body::from_stream(chunks)).into_response())
}
