//! `/instances`: list, add, show, set, remove.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Json, Response};
use pulse_proto::Node;
use serde::Deserialize;
use uuid::Uuid;

use super::apart;
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, time};
use crate::audit::Actor;
use crate::catalog::Catalog;
use crate::changes::ChangeError;
use crate::inventory::Instance;
use crate::listen::admin_socket::AdminPeer;

pub(super) async fn list(State(pulse): State<Arc<Pulse>>) -> Response {
    apart(move || Json(all(&pulse.changes.catalog()))).await
}

pub(super) async fn add(
    State(pulse): State<Arc<Pulse>>,
    Extension(peer): Extension<AdminPeer>,
    Json(add): Json<api::AddInstance>,
) -> Result<(StatusCode, Json<api::Instance>), Refusal> {
    let endpoints = nodes(&add.endpoints)?;
    let added = pulse.changes.add_instance(&Actor::admin(peer.uid), &add.name, endpoints).await?;
    Ok((StatusCode::CREATED, Json(one(&pulse.changes.catalog(), &added))))
}

pub(super) async fn show(
    State(pulse): State<Arc<Pulse>>,
    Path(name): Path<String>,
) -> Result<Json<api::Instance>, Refusal> {
    let catalog = pulse.changes.catalog();
    Ok(Json(one(&catalog, present(&catalog, &name)?)))
}

pub(super) async fn set(
    State(pulse): State<Arc<Pulse>>,
    Extension(peer): Extension<AdminPeer>,
    Path(name): Path<String>,
    Json(set): Json<api::SetEndpoints>,
) -> Result<Json<api::Instance>, Refusal> {
    let endpoints = nodes(&set.endpoints)?;
    let changed = pulse.changes.set_endpoints(&Actor::admin(peer.uid), &name, endpoints).await?;
    Ok(Json(one(&pulse.changes.catalog(), &changed)))
}

/// `?yes=true` on a removal that takes something from proxies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    #[serde(default)]
    yes: bool,
}

pub(super) async fn remove(
    State(pulse): State<Arc<Pulse>>,
    Extension(peer): Extension<AdminPeer>,
    Path(name): Path<String>,
    Query(Confirmation { yes }): Query<Confirmation>,
) -> Result<Json<api::Removed>, Refusal> {
    pulse.changes.remove_instance(&Actor::admin(peer.uid), &name, yes).await?;
    Ok(Json(api::Removed { removed: name }))
}

/// The present instance of this name.
pub(super) fn present<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Instance, ChangeError> {
    let not_found = || ChangeError::NotFound { what: "instance", name: name.to_owned() };
    catalog.inventory.by_name(name).map(|instance| &**instance).ok_or_else(not_found)
}

fn all(catalog: &Catalog) -> api::Instances {
    let mut proxies: HashMap<Uuid, usize> = HashMap::new();
    for instance in catalog.registry.proxies().filter_map(|proxy| proxy.instance) {
        *proxies.entry(instance).or_default() += 1;
    }
    let count = |instance: &Instance| proxies.get(&instance.id).copied().unwrap_or_default();
    let instances = catalog.inventory.present().map(|instance| view(instance, count(instance))).collect();
    api::Instances { instances }
}

fn one(catalog: &Catalog, instance: &Instance) -> api::Instance {
    let belongs = |proxy: &&Arc<crate::registry::Proxy>| proxy.instance == Some(instance.id);
    view(instance, catalog.registry.proxies().filter(belongs).count())
}

fn view(instance: &Instance, proxies: usize) -> api::Instance {
    api::Instance {
        id: instance.id,
        name: instance.name.clone(),
        endpoints: instance.endpoints.iter().map(api::Node::from).collect(),
        proxies,
        created_at: time(instance.created_at),
    }
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
