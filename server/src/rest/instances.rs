//! `/instances`: list, add, show, set, use, remove.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pulse_proto::Node;
use serde::Deserialize;
use utoipa::IntoParams;

use super::access::Caller;
use super::extract::{Json, Path, Query};
use super::refusal::Refusal;
use super::{apart, sources, views};
use crate::Pulse;
use crate::api;
use crate::changes::{ChangeError, NewInstance};
use crate::inventory::Instance;

/// Lists every instance, by name.
#[utoipa::path(
    get,
    path = "/instances",
    operation_id = "list_instances",
    tag = "instances",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    responses((status = OK, description = "Every instance.", body = api::Instances)),
)]
pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Response {
    apart(move || Json(views::all(&pulse))).await
}

/// Adds an instance.
///
/// With `pve` its hosts are asked first; nothing is added if none can be believed.
#[utoipa::path(
    post,
    path = "/instances",
    operation_id = "add_instance",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = CREATED, description = "The instance as it was added.", body = api::Instance)),
)]
pub(super) async fn add(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(add): Json<api::AddInstance>,
) -> Result<(StatusCode, Json<api::Instance>), Refusal> {
    let mut new = NewInstance::typed(&add.name, nodes(&add.endpoints)?);
    let catalog = pulse.changes.catalog();
    if catalog.inventory.by_name(&add.name).is_some() {
        // Before a host is asked for nothing.
        return Err(ChangeError::AlreadyThere(add.name).into());
    }
    if let Some(pve) = &add.pve {
        let empty = Instance::new(new.id, &add.name, Vec::new(), pulse.clock.now());
        new.source = Some(sources::wanted(&pulse, &empty, pve).await?);
    }
    let added = pulse.changes.add_instance(&caller.actor(), new).await?;
    Ok((StatusCode::CREATED, Json(views::one(&pulse, &added))))
}

/// Shows one instance.
#[utoipa::path(
    get,
    path = "/instances/{name}",
    operation_id = "show_instance",
    tag = "instances",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind.")),
    responses((status = OK, description = "The instance.", body = api::Instance)),
)]
pub(super) async fn show(
    State(pulse): State<Arc<Pulse>>,
    Path(name): Path<String>,
) -> Result<Json<api::Instance>, Refusal> {
    let catalog = pulse.changes.catalog();
    Ok(Json(views::one(&pulse, views::present(&catalog, &name)?)))
}

/// Replaces the nodes of an instance that were typed or imported.
#[utoipa::path(
    put,
    path = "/instances/{name}",
    operation_id = "set_instance",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind.")),
    responses((status = OK, description = "The instance as it is now; what would take away too much is held, and stands in `held`.", body = api::Instance)),
)]
pub(super) async fn set(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(set): Json<api::SetEndpoints>,
) -> Result<Json<api::Instance>, Refusal> {
    let endpoints = nodes(&set.endpoints)?;
    let actor = caller.actor();
    let changed = pulse.changes.set_endpoints(&actor, &name, endpoints, set.yes).await?;
    Ok(Json(views::one(&pulse, &changed)))
}

/// Pauses or excludes an instance, or takes it into use again.
#[utoipa::path(
    put,
    path = "/instances/{name}/standing",
    operation_id = "use_instance",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind.")),
    responses((status = OK, description = "The instance as it is now.", body = api::Instance)),
)]
pub(super) async fn set_use(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(set): Json<api::SetUse>,
) -> Result<Json<api::Instance>, Refusal> {
    let (actor, standing) = (caller.actor(), views::standing_of(set.standing));
    let changed = pulse.changes.use_instance(&actor, &name, standing, set.yes).await?;
    Ok(Json(views::one(&pulse, &changed)))
}

/// `?yes=true` on a removal that takes something from proxies.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Confirmation {
    /// Yes, though proxies lose their list.
    #[serde(default)]
    yes: bool,
}

/// Removes an instance. Its proxies get an empty list.
#[utoipa::path(
    delete,
    path = "/instances/{name}",
    operation_id = "remove_instance",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind."), Confirmation),
    responses((status = OK, description = "It is removed.", body = api::Removed)),
)]
pub(super) async fn remove(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(Confirmation { yes }): Query<Confirmation>,
) -> Result<Json<api::Removed>, Refusal> {
    pulse.changes.remove_instance(&caller.actor(), &name, yes).await?;
    Ok(Json(api::Removed { removed: name }))
}

/// The nodes in the order in which they were given. Doubles, those that differ in case only too, are one: the first.
fn nodes(given: &[api::Node]) -> Result<Vec<Node>, Refusal> {
    let parsed = given.iter().enumerate().map(|(at, node)| {
        let invalid =
            |error: pulse_proto::NodeError| Refusal::invalid(format!("endpoints[{at}]"), error.to_string());
        Node::new(&node.name, &node.ip).map_err(invalid)
    });
    let mut nodes = parsed.collect::<Result<Vec<Node>, Refusal>>()?;
    let mut seen = HashSet::new();
    nodes.retain(|node| seen.insert(node.line().to_ascii_lowercase()));
    Ok(nodes)
}
