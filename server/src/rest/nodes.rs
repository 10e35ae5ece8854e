//! `/nodes`: every node that a source names, and what admins want of one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::access::Caller;
use super::extract::{Json, Path};
use super::refusal::Refusal;
use super::{apart, views};
use crate::Pulse;
use crate::api;
use crate::inventory::conflicts;

/// Lists every node that a source names, and what contradicts what.
#[utoipa::path(
    get,
    path = "/nodes",
    operation_id = "list_nodes",
    tag = "nodes",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    responses((status = OK, description = "Every node.", body = api::Nodes)),
)]
pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Response {
    apart(move || {
        let catalog = pulse.changes.catalog();
        let nodes = catalog.inventory.present().flat_map(|instance| views::nodes(&pulse, instance)).collect();
        let conflicts = conflicts(&catalog.inventory).into_iter().map(|conflict| conflict.text).collect();
        Json(api::Nodes { nodes, conflicts })
    })
    .await
}

/// Sets what an admin wants of one node: its address, and whether it is in use.
#[utoipa::path(
    patch,
    path = "/instances/{name}/nodes/{node}",
    operation_id = "set_node",
    tag = "nodes",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(
        ("name", Path, description = "The instance's name, case-blind."),
        ("node", Path, description = "The node's name, case-blind."),
    ),
    responses((status = OK, description = "The instance as it is now.", body = api::Instance)),
)]
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
