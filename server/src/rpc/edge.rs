//! The edge: fields of requests, checked and turned into types; a refusal names the field and its rule.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use pulse_proto::{ListHash, Node, Position};
use tonic::Status;
use uuid::Uuid;

use super::status::invalid;

/// Text for people: bounded, without control characters.
pub(super) fn text(field: &str, value: &str, max_bytes: usize) -> Result<String, Status> {
    if value.len() > max_bytes {
        return Err(invalid(field, format!("it has {} bytes: the most are {max_bytes}", value.len())));
    }
    if value.chars().any(char::is_control) {
        return Err(invalid(field, "it has a control character"));
    }
    Ok(value.to_owned())
}

/// Text of another program that only a person reads: what does not fit is taken away, not refused.
pub(super) fn remark(value: &str, max_bytes: usize) -> String {
    let clean = value.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut bytes = 0;
    clean
        .take_while(|c| {
            bytes += c.len_utf8();
            bytes <= max_bytes
        })
        .collect()
}

/// A host's name: 1 to 253 of `[A-Za-z0-9._-]`.
pub(super) fn hostname(field: &str, value: &str) -> Result<String, Status> {
    if value.is_empty() || value.len() > 253 {
        return Err(invalid(field, "a host's name has 1 to 253 bytes"));
    }
    if !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(invalid(field, "a host's name is made of A-Z a-z 0-9 . _ -"));
    }
    Ok(value.to_owned())
}

/// A UUID.
pub(super) fn uuid(field: &str, value: &str) -> Result<Uuid, Status> {
    Uuid::try_parse(value).map_err(|_| invalid(field, "it is no UUID"))
}

/// A list's hash; `None` if empty.
pub(super) fn hash(field: &str, value: &str) -> Result<Option<ListHash>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|error| invalid(field, error))
}

/// Where a list stands in time. The store keeps both numbers as signed 64 bits.
pub(super) fn position(prefix: &str, epoch: u64, revision: u64) -> Result<Position, Status> {
    for (name, number) in [("epoch", epoch), ("revision", revision)] {
        if i64::try_from(number).is_err() {
            return Err(invalid(&format!("{prefix}{name}"), "it is above 2^63 - 1"));
        }
    }
    Ok(Position { epoch, revision })
}

/// A node, exactly as it would stand in a list.
pub(super) fn node(field: &str, value: Option<&pulse_proto::v1::Node>) -> Result<Node, Status> {
    let node = value.ok_or_else(|| invalid(field, "it is missing"))?;
    Node::from_wire(node).map_err(|error| invalid(field, error))
}

/// A time between 2000 and 2100: others are no clock's.
pub(super) fn time(field: &str, value: Option<Timestamp>) -> Result<SystemTime, Status> {
    const YEAR_2000: Duration = Duration::from_secs(946_684_800);
    const YEAR_2100: Duration = Duration::from_secs(4_102_444_800);
    let at: SystemTime =
        value.and_then(|at| at.try_into().ok()).ok_or_else(|| invalid(field, "it is missing or no time"))?;
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if (YEAR_2000..YEAR_2100).contains(&since) => Ok(at),
        _ => Err(invalid(field, "it is not between the years 2000 and 2100")),
    }
}

/// Degrees Celsius that a sensor can have: −40 to 150.
pub(super) fn celsius(field: &str, value: f64) -> Result<f64, Status> {
    if (-40.0..=150.0).contains(&value) {
        Ok(value)
    } else {
        Err(invalid(field, "it is not between -40 and 150 °C"))
    }
}
