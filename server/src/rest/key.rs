//! `/key/rotate`: the exchange of the key under which secrets are sealed.

use std::sync::Arc;

use axum::extract::State;

use super::access::Caller;
use super::extract::Json;
use super::refusal::Refusal;
use crate::Pulse;
use crate::api;
use crate::changes::ChangeError;
use crate::sealing::SealingError;
use crate::store::StoreError;

/// Exchanges the key under which secrets are sealed.
#[utoipa::path(
    post,
    path = "/key/rotate",
    operation_id = "rotate_sealing_key",
    tag = "server",
    security(("socket" = [])),
    responses((status = OK, description = "Where the new key is.", body = api::RotatedKey)),
)]
pub(super) async fn rotate(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(asked): Json<api::RotateKey>,
) -> Result<Json<api::RotatedKey>, Refusal> {
    // A backup is to have the key that opens its database.
    let hold_off = pulse.backups.hold_off()?;
    let by = caller.actor();
    let actor = by.clone();
    let exchanging = async move {
        let _hold_off = hold_off;
        pulse.changes.exchange_key(&actor, asked.new_key_file).await
    };
    // To the end, also when the caller is gone.
    let exchanged = tokio::spawn(exchanging).await.unwrap_or(Err(ChangeError::Stopping));
    let exchange = exchanged.map_err(refused)?;
    tracing::info!(by = %by, "every secret is sealed under another key");
    let (key_file, replaces) = (exchange.file().to_owned(), exchange.replaces().map(Into::into));
    Ok(Json(api::RotatedKey { key_file, replaces }))
}

/// What stands in the way is said by its own text.
fn refused(error: ChangeError) -> Refusal {
    let (reason, text) = match &error {
        ChangeError::Store(error @ StoreError::OtherServers(_)) => ("OTHER_SERVERS", error.to_string()),
        ChangeError::Store(StoreError::Sealed(error)) => match error {
            SealingError::Elsewhere(_) => ("KEY_ELSEWHERE", error.to_string()),
            SealingError::Own(_) => ("KEY_IS_OWN", error.to_string()),
            SealingError::Same(_) => ("SAME_KEY", error.to_string()),
            error => ("KEY_NOT_USABLE", format!("the key was not exchanged: {error}")),
        },
        _ => return error.into(),
    };
    Refusal::conflict(reason, text)
}
