//! `ReportTemperatures`: readings, checked at the edge, taken once.
//!
//! A report that breaks a rule is refused whole, naming the field. A node that the proxy may not read is refused by
//! name, and the rest is taken.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulse_proto::v1;
use pulse_proto::{
    MAX_LABEL_BYTES, MAX_REASON_BYTES, MAX_SENSOR_BYTES, Node, Position, Scope, SensorKind, SignedAllowlist,
};
use tonic::{Request, Status};
use uuid::Uuid;

use super::auth::present_caller;
use super::status::{invalid, report_status};
use super::{Rpc, ahead, edge};
use crate::catalog::Catalog;
use crate::metrics::ReportResult;
use crate::registry::{Proxy, ScopeKind};
use crate::report::{NodeReport, Readings, Report, Sensor};

/// The most earlier lists that one report may name: a proxy puts the readings of a moment into one.
const MAX_EARLIER_LISTS: usize = 16;

/// How far a time of collection may lie ahead of the server's clock: a later one would hide all that come after.
const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(300);

pub(super) async fn report_temperatures(
    rpc: &Rpc,
    request: Request<v1::ReportTemperaturesRequest>,
) -> Result<v1::ReportTemperaturesResponse, Status> {
    let proxy = present_caller(rpc, request.extensions())?.proxy;
    report(rpc, &proxy, request.into_inner()).await
}

/// Takes the report of a proxy, however it came.
pub(super) async fn report(
    rpc: &Rpc,
    proxy: &Proxy,
    message: v1::ReportTemperaturesRequest,
) -> Result<v1::ReportTemperaturesResponse, Status> {
    let taken = take(rpc, proxy, message).await;
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
    let highest =
        message.reports.iter().map(|report| (report.epoch, report.revision)).max().unwrap_or_default();
    ahead::settle(rpc, Position { epoch: highest.0, revision: highest.1 }).await?;
    let received_at = rpc.clock.now();
    let catalog = rpc.changes.catalog();
    let mut lists = EarlierLists::new();
    let mut nodes = Vec::with_capacity(message.reports.len());
    let mut refused = Vec::new();
    let mut reported = HashSet::new();
    let is_of_several = message.reports.len() > 1;
    let mut values = 0;
    for (at, report) in message.reports.into_iter().enumerate() {
        let Checked { checked, owner } = check(rpc, &catalog, proxy, received_at, at, &report)?;
        if is_of_several && !reported.insert(checked.node.line().to_ascii_lowercase()) {
            let rule = format!("{} stands in this report twice: send one entry for each node", checked.node);
            return Err(invalid(format_args!("reports[{at}].node"), rule));
        }
        ahead::notice(rpc, proxy, checked.position);
        let refusal = refusal(rpc, proxy, &checked, &mut lists).await?;
        match refusal.or(owner.err()) {
            Some(reason) => refused.push(v1::RefusedNode { node: report.node, reason }),
            None => {
                values += checked.readings.len() as u64;
                nodes.push(Arc::new(checked));
            }
        }
    }
    let is_whole = refused.is_empty();
    let recorded = rpc
        .readings
        .take(Report { proxy: proxy.id, session, sequence, nodes })
        .await
        .map_err(|error| report_status(&error))?;
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

/// The report of one node whose fields keep the rules.
struct Checked {
    checked: NodeReport,
    /// Why there is no instance to which the node belongs, if there is none.
    owner: Result<(), String>,
}

/// Checks the fields of one node's report.
fn check(
    rpc: &Rpc,
    catalog: &Catalog,
    proxy: &Proxy,
    received_at: SystemTime,
    at: usize,
    report: &v1::NodeReport,
) -> Result<Checked, Status> {
    let prefix = format_args!("reports[{at}].");
    let node = edge::node(format_args!("{prefix}node"), report.node.as_ref())?;
    let collected_at = edge::time(format_args!("{prefix}collected_at"), report.collected_at)?;
    let position = edge::position(prefix, report.epoch, report.revision)?;
    let instance = instance_of(catalog, proxy, &node);
    let before = instance.as_ref().ok().and_then(|instance| rpc.readings.newest_of(*instance, &node));
    let readings = check_readings(&report.readings, before.as_deref(), prefix)?;
    let remark = format_args!("{prefix}unreadable_reason");
    let unreadable_reason = edge::remark(remark, &report.unreadable_reason, MAX_REASON_BYTES)?;
    let (instance, owner) = match instance {
        Ok(instance) => (instance, Ok(())),
        Err(why) => (Uuid::nil(), Err(why)),
    };
    let proxy = proxy.id;
    let checked = NodeReport {
        proxy,
        instance,
        node,
        collected_at,
        received_at,
        position,
        readings,
        unreadable_reason,
    };
    Ok(Checked { checked, owner })
}

/// Checks the readings of one node. If they are of the sensors of the report before, what is known of those is shared, as
/// it was checked then.
fn check_readings(
    readings: &[v1::Reading],
    before: Option<&NodeReport>,
    prefix: fmt::Arguments<'_>,
) -> Result<Readings, Status> {
    let known = before.map(|before| before.readings.sensors());
    let known = known.filter(|known| {
        known.len() == readings.len()
            && known.iter().zip(readings).all(|(sensor, reading)| is_of(reading, sensor))
    });
    let celsius = |(at, reading): (usize, &v1::Reading)| {
        let field = format_args!("{prefix}readings[{at}].temperature_celsius");
        edge::celsius(field, reading.temperature_celsius)
    };
    let each = || readings.iter().enumerate();
    if let Some(known) = known {
        return Ok(Readings::of(Arc::clone(known), each().map(celsius).collect::<Result<_, _>>()?));
    }
    let pair = |(at, reading)| {
        let sensor = check_sensor(reading, format_args!("{prefix}readings[{at}]."))?;
        Ok((sensor, celsius((at, reading))?))
    };
    each().map(pair).collect()
}

/// Whether a reading is of this sensor, and nothing of it has changed.
fn is_of(reading: &v1::Reading, sensor: &Sensor) -> bool {
    reading.sensor == sensor.name
        && reading.chip == sensor.chip
        && reading.label == sensor.label
        && SensorKind::from(reading.kind()) == sensor.kind
        && reading.max_celsius == sensor.max_celsius
        && reading.critical_celsius == sensor.critical_celsius
}

fn check_sensor(reading: &v1::Reading, prefix: fmt::Arguments<'_>) -> Result<Sensor, Status> {
    if reading.sensor.is_empty() {
        return Err(invalid(format_args!("{prefix}sensor"), "it is missing"));
    }
    let limit = |name: &str, value: Option<f64>| {
        value.map(|value| edge::celsius(format_args!("{prefix}{name}"), value)).transpose()
    };
    Ok(Sensor {
        name: edge::text(format_args!("{prefix}sensor"), &reading.sensor, MAX_SENSOR_BYTES)?,
        chip: edge::text(format_args!("{prefix}chip"), &reading.chip, MAX_LABEL_BYTES)?,
        label: edge::text(format_args!("{prefix}label"), &reading.label, MAX_LABEL_BYTES)?,
        kind: reading.kind().into(),
        max_celsius: limit("max_celsius", reading.max_celsius)?,
        critical_celsius: limit("critical_celsius", reading.critical_celsius)?,
    })
}

/// The instance to which a node belongs that this proxy reports, or why there is none.
fn instance_of(catalog: &Catalog, proxy: &Proxy, node: &Node) -> Result<Uuid, String> {
    let is_in = |id: &Uuid| {
        catalog.inventory.instance(*id).is_some_and(|instance| instance.endpoints().contains(node))
    };
    let own = proxy.instance.filter(|id| proxy.scope_kind == ScopeKind::Instance || is_in(id));
    if let Some(instance) = own {
        return Ok(instance);
    }
    let mut instances = catalog.inventory.instances_with(node);
    match (instances.next(), instances.next()) {
        (Some(only), None) => Ok(only.id),
        (Some(_), Some(_)) => {
            Err(format!("{node} is a node of several instances: give it a name or address of its own"))
        }
        (None, _) => Err(format!("{node} is a node of no instance any more")),
    }
}

/// Lists of the proxy's scope by epoch and revision, as the nodes of one report ask for them: each is read from the store once.
type EarlierLists = HashMap<(u64, u64), Option<SignedAllowlist>>;

/// Why the proxy may not report this node, or not so; `None`: it may.
async fn refusal(
    rpc: &Rpc,
    proxy: &Proxy,
    report: &NodeReport,
    lists: &mut EarlierLists,
) -> Result<Option<String>, Status> {
    let node = &report.node;
    if report.collected_at > report.received_at + MAX_CLOCK_AHEAD {
        let reason = "it was collected more than 5 minutes ahead of the server's clock: set the host's clock";
        return Ok(Some(reason.to_owned()));
    }
    let Some(scope) = proxy.scope() else {
        return Ok(Some("this proxy has no instance yet, so it may read no node".to_owned()));
    };
    let is_on_newest = rpc.lists.newest(scope).is_some_and(|newest| newest.signed.allowlist.contains(node));
    if !is_on_newest && !was_allowed(rpc, scope, report, lists).await? {
        return Ok(Some(format!("{node} is not on the list of this proxy ({scope})")));
    }
    Ok(None)
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
    if lists.len() >= MAX_EARLIER_LISTS && !lists.contains_key(&(epoch, revision)) {
        let rule = format!("they name more than {MAX_EARLIER_LISTS} lists of before: split the report");
        return Err(invalid("reports.revision", rule));
    }
    let list = match lists.entry((epoch, revision)) {
        Entry::Occupied(read) => read.into_mut(),
        Entry::Vacant(new) => {
            let list = rpc.store.list_at(scope, revision).await.map_err(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, "an earlier list cannot be read");
                report_status(&error)
            })?;
            // One revision is in one epoch: of another epoch it is a list that this database never made.
            new.insert(list.filter(|list| list.position == report.position))
        }
    };
    Ok(list.as_ref().is_some_and(|list| list.allowlist.contains(&report.node)))
}
