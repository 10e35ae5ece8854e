//! `/status`: how the server is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Json;
use pulse_proto::join::authority;

use super::proxies::fleet_view;
use crate::Pulse;
use crate::api::{self, seconds, time};
use crate::fleet::SyncState;

pub(super) async fn show(State(pulse): State<Arc<Pulse>>) -> Json<api::Status> {
    let catalog = pulse.changes.catalog();
    // Every state has its place, so that a graph of one does not end when it is empty.
    let mut by_state: BTreeMap<String, usize> =
        SyncState::ALL.iter().map(|state| (state.as_str().to_owned(), 0)).collect();
    for proxy in catalog.registry.proxies() {
        *by_state.entry(fleet_view(&pulse, proxy).state.as_str().to_owned()).or_default() += 1;
    }
    let newest = pulse.readings.newest();
    let (host, port) = &pulse.public_authority;
    Json(api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        server_id: catalog.server_id,
        epoch: catalog.epoch,
        revision: catalog.revision,
        started_at: time(pulse.started_at),
        uptime_seconds: seconds(SystemTime::now().duration_since(pulse.started_at).unwrap_or_default()),
        listen: pulse.listen_addrs.iter().map(ToString::to_string).collect(),
        public_address: authority(host, *port),
        pin: pulse.pin.map(|pin| pin.to_string()),
        ca_path: pulse.ca_path.as_ref().map(|path| path.display().to_string()),
        instances: catalog.inventory.present().count(),
        proxies: catalog.registry.proxies().count(),
        proxies_by_state: by_state,
        streams: pulse.fleet.connected(),
        database: if pulse.store.is_writable() { "ok" } else { "degraded" }.to_owned(),
        nodes_with_readings: newest.len(),
        newest_reading_at: newest.iter().map(|report| report.received_at).max().map(time),
    })
}
