//! `/status`: how the server is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use pulse_proto::join::authority;

use super::apart;
use super::extract::Json;
use crate::Pulse;
use crate::api::{self, seconds, time};
use crate::inventory::conflicts;
use crate::replicas::GONE;
use crate::report::NodeReport;
use crate::store::Ahead;
use crate::tls::Tls;

/// Shows how the server is.
#[utoipa::path(
    get,
    path = "/status",
    operation_id = "show_status",
    tag = "server",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    responses((status = OK, description = "The status.", body = api::Status)),
)]
pub(super) async fn show(State(pulse): State<Arc<Pulse>>) -> Response {
    apart(move || Json(status(&pulse))).await
}

fn status(pulse: &Pulse) -> api::Status {
    let catalog = pulse.changes.catalog();
    let by_state = pulse.proxies_by_state().into_iter();
    // Nodes that were taken off keep their last reading in the database, and are shown no more.
    let is_listed = |report: &NodeReport| {
        let instance = catalog.inventory.instance(report.instance);
        instance.is_some_and(|instance| instance.endpoints().contains(&report.node))
    };
    let mut newest = pulse.readings.newest();
    newest.retain(|report| is_listed(report));
    let (host, port) = &pulse.public_authority;
    let tls = pulse.tls.as_deref();
    api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        server_id: catalog.server_id,
        epoch: catalog.epoch,
        revision: catalog.revision,
        started_at: time(pulse.started_at),
        uptime_seconds: seconds(pulse.clock.now().duration_since(pulse.started_at).unwrap_or_default()),
        listen: pulse.listen_addrs.iter().map(ToString::to_string).collect(),
        public_address: authority(host, *port),
        pin: tls.and_then(Tls::pin).map(|pin| pin.to_string()),
        ca_path: tls.and_then(Tls::ca_file).map(|path| path.display().to_string()),
        certificate: tls.map(|tls| super::tls::certificate(&tls.condition())),
        instances: catalog.inventory.present().count(),
        instances_with_problems: pulse.instances_with_problems(),
        held_changes: pulse.held_changes(),
        conflicts: conflicts(&catalog.inventory).len(),
        proxies: catalog.registry.proxies().count(),
        proxies_by_state: by_state.map(|(state, count)| (state.to_owned(), count)).collect(),
        streams: streams(pulse),
        database: if pulse.store.is_writable() && !pulse.changes.is_deaf() { "ok" } else { "degraded" }
            .to_owned(),
        legacy_http: pulse.legacy_http.map(|address| address.to_string()),
        legacy_http_requests: pulse.metrics.legacy_http_requests.get(),
        database_older_than_fleet: older_database(&pulse.ahead()),
        replicas: replicas(pulse, pulse.replicas.newest_revision()),
        nodes_with_readings: newest.len(),
        newest_reading_at: newest.iter().map(|report| report.received_at).max().map(time),
    }
}

/// How many proxies have a stream, with this server or with another one.
fn streams(pulse: &Pulse) -> usize {
    let others = pulse.replicas.all();
    let others = others.iter().skip(1).filter(|replica| replica.silent_for < GONE);
    let elsewhere: u64 = others.map(|replica| replica.streams).sum();
    pulse.fleet.connected() + usize::try_from(elsewhere).unwrap_or(usize::MAX)
}

fn replicas(pulse: &Pulse, revision: u64) -> Vec<api::Replica> {
    let all = pulse.replicas.all();
    let shown = all.iter().map(|replica| api::Replica {
        id: replica.id,
        name: replica.name.clone(),
        version: replica.version.clone(),
        started_at: time(replica.started_at),
        is_alive: replica.silent_for < GONE,
        silent_seconds: seconds(replica.silent_for),
        revision: replica.revision,
        revisions_behind: revision.saturating_sub(replica.revision),
        streams: replica.streams,
        leases: replica.leases.clone(),
    });
    shown.collect()
}

fn older_database(ahead: &[Ahead]) -> Option<api::OlderDatabase> {
    let since = time(ahead.first()?.noticed_at);
    let detail = "proxies hold lists that this database never made, as if an old copy of it was put back; they keep those \
                  lists and are sent no other. `pulse epoch new` makes its own lists newer than all of theirs, for good; \
                  if a single proxy says so and no copy was put back, revoke that one";
    Some(api::OlderDatabase { proxies: ahead.len(), since, detail: detail.to_owned() })
}
