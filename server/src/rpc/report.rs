//! `ReportTemperatures`: readings, checked at the edge, taken once.
//!
//! A report that breaks a rule is refused whole, naming the field. A node that the proxy may not read is refused by
//! name, and the rest is taken.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use pulse_proto::v1;
use pulse_proto::{MAX_LABEL_BYTES, MAX_REASON_BYTES, MAX_SENSOR_BYTES, Position, Scope, SignedAllowlist};
use tonic::{Request, Status};
use uuid::Uuid;

use super::auth::present_caller;
use super::status::{invalid, store_status};
use super::{Rpc, ahead, edge};
use crate::metrics::ReportResult;
use crate::registry::Proxy;
use crate::report::{NodeReport, Reading, Report};

/// How far a time of collection may lie ahead of the server's clock: a later one would hide all that come after.
const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(300);
pub(super) async fn report_temperatures(
    rpc: &Rpc,
    request: Request<v1::ReportTemperaturesRequest>,
) -> Result<v1::ReportTemperaturesResponse, Status> {
    let proxy = present_caller(rpc, request.extensions())?.proxy;
    let taken = take(rpc, &proxy, request.into_inner()).await;
    if taken.is_err() {
        rpc.metrics.reported(ReportResult::Refused);
    }
    taken
}

async fn take(
    rpc: &Rpc,
    proxy: &Proxy,
    message: v1::ReportTemperaturesRequest,
) -> Result<v1::ReportTemperaturesResponse, Status> {
    let session = edge::uuid("session", &message.session)?;
    let sequence = message.sequence;
    if sequence == 0 || i64::try_from(sequence).is_err() {
        return Err(invalid("sequence", "sequences count from 1 to 2^63 - 1"));
    }
    let entries: usize = message.reports.iter().map(|report| report.readings.len().max(1)).sum();
    if entries > rpc.max_readings_per_report {
        let rule =
            format!("it has {entries} readings: the most are {}; split it", rpc.max_readings_per_report);
        return Err(invalid("reports", rule));
    }
    let received_at = rpc.clock.now();
    let mut lists = EarlierLists::new();
    let mut nodes = Vec::with_capacity(message.reports.len());
    let mut refused = Vec::new();
    let mut reported = HashSet::with_capacity(message.reports.len());
    for (at, report) in message.reports.iter().enumerate() {
        let checked = check(report, &format!("reports[{at}]."))?;
        if !reported.insert(checked.node.line().to_ascii_lowercase()) {
            let rule = format!("{} stands in this report twice: send one entry for each node", checked.node);
            return Err(invalid(&format!("reports[{at}].node"), rule));
        }
        ahead::notice(rpc, proxy, checked.position);
        match place(rpc, proxy, &checked, received_at, &mut lists).await? {
            Ok(instance) => nodes.push(NodeReport { proxy: proxy.id, instance, received_at, ..checked }),
            Err(reason) => refused.push(v1::RefusedNode { node: report.node.clone(), reason }),
        }
    }
    let values: u64 = nodes.iter().map(|node| node.readings.len() as u64).sum();
    let is_whole = refused.is_empty();
    let recorded = rpc
        .readings
        .take(Report { proxy: proxy.id, session, sequence, nodes })
        .await
        .map_err(|error| store_status(&error))?;
    rpc.fleet.seen(proxy.id);
    rpc.metrics.reported(match (recorded.is_double, is_whole) {
        (true, _) => ReportResult::Repeated,
        (false, true) => ReportResult::Stored,
        (false, false) => ReportResult::Partial,
    });
    if !recorded.is_double {
        rpc.metrics.readings.inc_by(values);
    }
    Ok(v1::ReportTemperaturesResponse { durable_sequence: recorded.durable_sequence, refused })
}

/// Checks one node's report; whose it is and where it belongs is filled in later.
fn check(report: &v1::NodeReport, prefix: &str) -> Result<NodeReport, Status> {
    let readings = report.readings.iter().enumerate();
    Ok(NodeReport {
        proxy: Uuid::nil(),
        instance: Uuid::nil(),
        node: edge::node(&format!("{prefix}node"), report.node.as_ref())?,
        collected_at: edge::time(&format!("{prefix}collected_at"), report.collected_at)?,
        received_at: SystemTime::UNIX_EPOCH,
        position: edge::position(prefix, report.epoch, report.revision)?,
        readings: readings
            .map(|(at, reading)| check_reading(reading, &format!("{prefix}readings[{at}].")))
            .collect::<Result<_, _>>()?,
        unreadable_reason: edge::remark(
            &format!("{prefix}unreadable_reason"),
            &report.unreadable_reason,
            MAX_REASON_BYTES,
        )?,
    })
}

fn check_reading(reading: &v1::Reading, prefix: &str) -> Result<Reading, Status> {
    if reading.sensor.is_empty() {
        return Err(invalid(&format!("{prefix}sensor"), "it is missing"));
    }
    let limit = |name: &str, value: Option<f64>| {
        value.map(|value| edge::celsius(&format!("{prefix}{name}"), value)).transpose()
    };
    Ok(Reading {
        sensor: edge::text(&format!("{prefix}sensor"), &reading.sensor, MAX_SENSOR_BYTES)?,
        chip: edge::text(&format!("{prefix}chip"), &reading.chip, MAX_LABEL_BYTES)?,
        label: edge::text(&format!("{prefix}label"), &reading.label, MAX_LABEL_BYTES)?,
        kind: reading.kind().into(),
        temperature_celsius: edge::celsius(
            &format!("{prefix}temperature_celsius"),
            reading.temperature_celsius,
        )?,
        max_celsius: limit("max_celsius", reading.max_celsius)?,
        critical_celsius: limit("critical_celsius", reading.critical_celsius)?,
    })
}

/// Lists of the proxy's scope by epoch and revision, as the nodes of one report ask for them: each is read from the store once.
type EarlierLists = HashMap<(u64, u64), Option<SignedAllowlist>>;

/// The instance to which the reported node belongs, or why the node's readings are not taken.
async fn place(
    rpc: &Rpc,
    proxy: &Proxy,
    report: &NodeReport,
    now: SystemTime,
    lists: &mut EarlierLists,
) -> Result<Result<Uuid, String>, Status> {
    let node = &report.node;
    if report.collected_at > now + MAX_CLOCK_AHEAD {
        let reason = "it was collected more than 5 minutes ahead of the server's clock: set the host's clock";
        return Ok(Err(reason.to_owned()));
    }
    let Some(scope) = proxy.scope() else {
        return Ok(Err("this proxy has no instance yet, so it may read no node".to_owned()));
    };
    let is_on_newest = rpc.lists.newest(scope).is_some_and(|newest| newest.signed.allowlist.contains(node));
    if !is_on_newest && !was_allowed(rpc, scope, report, lists).await? {
        return Ok(Err(format!("{node} is not on the list of this proxy ({scope})")));
    }
    let catalog = rpc.changes.catalog();
    let own = proxy.instance.filter(|id| match scope {
        Scope::Instance(_) => true,
        Scope::All => {
            catalog.inventory.instance(*id).is_some_and(|instance| instance.endpoints.contains(node))
        }
    });
    if let Some(instance) = own {
        return Ok(Ok(instance));
    }
    let mut instances = catalog.inventory.instances_with(node);
    match (instances.next(), instances.next()) {
        (Some(only), None) => Ok(Ok(only.id)),
        (Some(_), Some(_)) => {
            Ok(Err(format!("{node} is a node of several instances: give it a name or address of its own")))
        }
        (None, _) => Ok(Err(format!("{node} is a node of no instance any more"))),
    }
}

/// Whether the node was on the list under which it was read, though it is on the newest no more.
async fn was_allowed(
    rpc: &Rpc,
    scope: Scope,
    report: &NodeReport,
    lists: &mut EarlierLists,
) -> Result<bool, Status> {
    let (catalog, Position { epoch, revision }) = (rpc.changes.catalog(), report.position);
    if epoch > catalog.epoch || revision > catalog.revision {
        return Ok(false);
    }
    let list = match lists.entry((epoch, revision)) {
        Entry::Occupied(read) => read.into_mut(),
        Entry::Vacant(new) => {
            let list = rpc.store.list_at(scope, revision).await.map_err(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, "an earlier list cannot be read");
                store_status(&error)
            })?;
            // One revision is in one epoch: of another epoch it is a list that this database never made.
            new.insert(list.filter(|list| list.position == report.position))
        }
    };
    Ok(list.as_ref().is_some_and(|list| list.allowlist.contains(&report.node)))
}
