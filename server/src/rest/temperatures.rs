//! `/temperatures`: the newest report of each node that is there.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use pulse_proto::Node;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::apart;
use super::extract::{Json, Query};
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, seconds, time};
use crate::catalog::Catalog;
use crate::report::{NodeReport, Sensor};

/// Which nodes; `None`: all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// A name, case-blind, or an address.
    #[serde(default)]
    node: Option<String>,
}

/// Lists the newest temperatures of each node, or those of one.
#[utoipa::path(
    get,
    path = "/temperatures",
    operation_id = "list_temperatures",
    tag = "temperatures",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    params(Which),
    responses((status = OK, description = "The newest report of each node.", body = api::Temperatures)),
)]
pub(super) async fn list(State(pulse): State<Arc<Pulse>>, Query(which): Query<Which>) -> Response {
    apart(move || temperatures(&pulse, &which)).await
}

fn temperatures(pulse: &Pulse, which: &Which) -> Result<Json<api::Temperatures>, Refusal> {
    let catalog = pulse.changes.catalog();
    let nodes = views(&catalog, &pulse.readings.newest(), which.node.as_deref(), pulse.clock.now());
    match &which.node {
        Some(node) if nodes.is_empty() => Err(Refusal::not_found(nothing_of(&catalog, node))),
        _ => Ok(Json(api::Temperatures { nodes })),
    }
}

fn is_meant(node: &Node, meant: Option<&str>) -> bool {
    meant.is_none_or(|meant| node.name().eq_ignore_ascii_case(meant) || node.address().to_string() == meant)
}

/// What is known of nodes that are still part of an instance: a value of one that was taken off is history.
fn views(
    catalog: &Catalog,
    newest: &[Arc<NodeReport>],
    meant: Option<&str>,
    now: SystemTime,
) -> Vec<api::NodeTemperatures> {
    let present = catalog.inventory.present();
    let there: HashSet<(Uuid, &Node)> =
        present.flat_map(|instance| instance.endpoints().iter().map(|node| (instance.id, node))).collect();
    let is_shown = |report: &&Arc<NodeReport>| {
        is_meant(&report.node, meant) && there.contains(&(report.instance, &report.node))
    };
    let mut nodes: Vec<_> = newest.iter().filter(is_shown).map(|report| view(catalog, report, now)).collect();
    nodes.sort_by_cached_key(|node| (node.node.to_ascii_lowercase(), node.instance.clone(), node.ip.clone()));
    nodes
}

fn view(catalog: &Catalog, report: &NodeReport, now: SystemTime) -> api::NodeTemperatures {
    let reason = &report.unreadable_reason;
    api::NodeTemperatures {
        node: report.node.name().to_owned(),
        ip: report.node.address().to_string(),
        instance: catalog.inventory.instance(report.instance).map(|instance| instance.name.clone()),
        proxy_id: report.proxy,
        collected_at: time(report.collected_at),
        received_at: time(report.received_at),
        // A proxy's clock may be ahead.
        age_seconds: seconds(now.duration_since(report.collected_at).unwrap_or_default()),
        unreadable_reason: (!reason.is_empty()).then(|| reason.clone()),
        readings: report.readings.iter().map(|(sensor, celsius)| reading(sensor, celsius)).collect(),
    }
}

fn reading(sensor: &Sensor, temperature_celsius: f64) -> api::Reading {
    let kind = serde_json::to_value(sensor.kind).ok();
    api::Reading {
        sensor: sensor.name.clone(),
        chip: sensor.chip.clone(),
        label: sensor.label.clone(),
        kind: kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("other").to_owned(),
        temperature_celsius,
        max_celsius: sensor.max_celsius,
        critical_celsius: sensor.critical_celsius,
    }
}

/// Why there is nothing to show of a node, and what to do.
fn nothing_of(catalog: &Catalog, meant: &str) -> String {
    let short: String = meant.chars().take(80).collect();
    let mut endpoints = catalog.inventory.present().flat_map(|instance| instance.endpoints());
    if endpoints.any(|node| is_meant(node, Some(meant))) {
        format!(
            "no reading of node {short:?} has arrived yet; `pulse proxy list` shows which proxies are connected"
        )
    } else {
        format!("no instance has a node {short:?}; `pulse allowlist show` shows all nodes")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pulse_proto::Position;

    use super::*;
    use crate::inventory::{Instance, Inventory};
    use crate::registry::Registry;
    use pulse_proto::SensorKind;

    fn node(name: &str) -> Node {
        Node::new(name, "10.0.0.1").expect("a node")
    }

    fn catalog() -> Catalog {
        let mut inventory = Inventory::default();
        let created_at = SystemTime::UNIX_EPOCH;
        let endpoints = vec![node("delly"), node("minipc")];
        let id = Uuid::from_u128(1);
        inventory.put(Arc::new(Instance::new(id, "home", endpoints, created_at)));
        Catalog {
            server_id: Uuid::nil(),
            epoch: 1,
            revision: 2,
            audit_hash: "".into(),
            inventory,
            registry: Registry::default(),
            accounts: Default::default(),
        }
    }

    fn report(name: &str) -> Arc<NodeReport> {
        let collected_at = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let sensor = Sensor {
            name: "coretemp/temp1".into(),
            chip: "coretemp".into(),
            label: "Package id 0".into(),
            kind: SensorKind::CpuPackage,
            max_celsius: None,
            critical_celsius: Some(100.0),
        };
        Arc::new(NodeReport {
            proxy: Uuid::from_u128(9),
            instance: Uuid::from_u128(1),
            node: node(name),
            collected_at,
            received_at: collected_at,
            position: Position::default(),
            readings: [(sensor, 54.0)].into_iter().collect(),
            unreadable_reason: String::new(),
        })
    }

    #[test]
    fn nodes_that_were_taken_off_are_not_shown() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(103);
        let newest = [report("minipc"), report("delly"), report("gone")];
        let nodes = views(&catalog(), &newest, None, now);
        assert_eq!(nodes.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["delly", "minipc"]);
        assert_eq!((nodes[0].age_seconds, nodes[0].readings[0].kind.as_str()), (3.0, "cpu_package"));
        assert_eq!(views(&catalog(), &newest, Some("DELLY"), now).len(), 1);
        assert_eq!(views(&catalog(), &newest, Some("10.0.0.1"), now).len(), 2);
        let early = SystemTime::UNIX_EPOCH;
        assert_eq!(
            views(&catalog(), &newest, Some("delly"), early)[0].age_seconds,
            0.0,
            "a clock that is ahead"
        );
    }

    #[test]
    fn a_node_without_a_reading_is_told_apart_from_no_node() {
        assert!(nothing_of(&catalog(), "Delly").contains("has arrived yet"));
        assert!(nothing_of(&catalog(), "gone\u{1b}").contains("no instance has a node \"gone\\u{1b}\""));
    }
}
