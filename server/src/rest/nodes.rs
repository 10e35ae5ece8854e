//! `/nodes`: every node that a source names, and what admins want of one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{Json, Response};

use super::access::Caller;
use super::refusal::Refusal;
use super::{apart, views};
use crate::Pulse;
use crate::api;
use crate::inventory::conflicts;

pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Response {
    apart(move || {
        let catalog = pulse.changes.catalog();
        let nodes = catalog.inventory.present().flat_map(|instance| views::nodes(&pulse, instance)).collect();
        let conflicts = conflicts(&catalog.inventory).into_iter().map(|conflict| conflict.text).collect();
        Json(api::Nodes { nodes, conflicts })
    })
    .await
}

pub(super) async fn set(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path((name, node)): Path<(String, String)>,
    Json(set): Json<api::SetNode>,
) -> Result<Json<api::Instance>, Refusal> {
    let change = |wish: &mut crate::inventory::Wish| {
        if let Some(address) = &set.address {
            wish.address = Some(address.clone()).filter(|address| !address.is_empty());
        }
        if let Some(standing) = set.standing {
            wish.standing = views::standing_of(standing);
        }
    };
    let changed = pulse.changes.wish(&caller.actor(), &name, &node, set.yes, change).await?;
    Ok(Json(views::one(&pulse, &changed)))
}
