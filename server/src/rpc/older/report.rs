//! `POST report`: readings as JSON, for what cannot speak gRPC.
//!
//! Always: the fields are those of `ReportTemperaturesRequest`, under the keys that the admin API shows them with; the same
//! rules, and taken once however often it comes.

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use prost_types::Timestamp as WireTime;
use pulse_proto::{Position, SensorKind, v1};
use serde::{Deserialize, Serialize};

use super::answer::{self, Refused};
use super::{body, caller_of, check};
use crate::rpc::{Rpc, auth, report};

#[derive(Deserialize)]
struct Report {
    session: String,
    sequence: u64,
    reports: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    node: Line,
    collected_at: Timestamp,
    /// Of the list under which it was read; left out: the newest.
    epoch: Option<u64>,
    revision: Option<u64>,
    #[serde(default)]
    readings: Vec<Reading>,
    unreadable_reason: Option<String>,
}

/// A node, as its line stands in the list.
#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    #[serde(default)]
    ip: String,
}

#[derive(Deserialize)]
struct Reading {
    sensor: String,
    #[serde(default)]
    chip: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    kind: String,
    temperature_celsius: f64,
    max_celsius: Option<f64>,
    critical_celsius: Option<f64>,
}

#[derive(Serialize)]
struct Taken {
    success: bool,
    durable_sequence: u64,
    refused: Vec<Refusal>,
}

#[derive(Serialize)]
struct Refusal {
    node: Line,
    reason: String,
}

pub(super) async fn report(rpc: &Rpc, request: Request, max_bytes: usize) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    check(&head, &Method::POST, "POST")?;
    let (caller, _place) = caller_of(rpc, &head).await?;
    let Report { session, sequence, reports } = body::read(body, max_bytes).await?;
    let proxy = auth::present(rpc, caller)?.proxy;
    let newest = proxy.scope().and_then(|scope| rpc.lists.newest(scope));
    let newest = newest.map(|newest| newest.signed.position).unwrap_or_default();
    let reports = reports.into_iter().map(|node| wire(node, newest)).collect();
    let message = v1::ReportTemperaturesRequest { session, sequence, reports };
    let v1::ReportTemperaturesResponse { durable_sequence, refused } =
        report::report(rpc, &proxy, message).await?;
    let refused = refused.into_iter().map(|refused| {
        let v1::Node { name, ip } = refused.node.unwrap_or_default();
        Refusal { node: Line { name, ip }, reason: refused.reason }
    });
    let taken = Taken { success: true, durable_sequence, refused: refused.collect() };
    Ok(answer::json(StatusCode::OK, &taken))
}

fn wire(node: Node, newest: Position) -> v1::NodeReport {
    let Node { node, collected_at: at, epoch, revision, readings, unreadable_reason } = node;
    v1::NodeReport {
        node: Some(v1::Node { name: node.name, ip: node.ip }),
        collected_at: Some(time(at)),
        epoch: epoch.unwrap_or(newest.epoch),
        revision: revision.unwrap_or(newest.revision),
        readings: readings.into_iter().map(reading).collect(),
        unreadable_reason: unreadable_reason.unwrap_or_default(),
    }
}

/// A time as it is on the wire: there nanoseconds count forward, also before 1970.
fn time(at: Timestamp) -> WireTime {
    const NANOS_OF_A_SECOND: i128 = 1_000_000_000;
    let nanos = at.as_nanosecond();
    let (seconds, rest) = (nanos.div_euclid(NANOS_OF_A_SECOND), nanos.rem_euclid(NANOS_OF_A_SECOND));
    // Of the years -9999 to 9999, so both fit.
    WireTime { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: i32::try_from(rest).unwrap_or(0) }
}

fn reading(reading: Reading) -> v1::Reading {
    let Reading { sensor, chip, label, kind, temperature_celsius, max_celsius, critical_celsius } = reading;
    let kind = SensorKind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or(SensorKind::Other);
    v1::Reading {
        sensor,
        chip,
        label,
        kind: v1::SensorKind::from(kind).into(),
        temperature_celsius,
        max_celsius,
        critical_celsius,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_on_the_wire() {
        let of = |text: &str| time(text.parse().unwrap());
        assert_eq!(of("2025-11-20T10:00:00.5Z"), WireTime { seconds: 1_763_632_800, nanos: 500_000_000 });
        assert_eq!(of("2025-11-20T11:00:00+01:00").seconds, 1_763_632_800);
        assert_eq!(of("1969-12-31T23:59:59.25Z"), WireTime { seconds: -1, nanos: 250_000_000 });
    }
}
