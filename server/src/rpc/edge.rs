//! The edge: fields of requests, checked and turned into types; a refusal names the field and its rule.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use pulse_proto::text::{is_unsafe, one_line};
use pulse_proto::{ListHash, Node, Position};
use tonic::Status;
use uuid::Uuid;

use super::status::invalid;

/// Text for people: bounded, and with nothing in it that a terminal, a log or a reader's eye could fall for.
pub(super) fn text(field: impl Display, value: &str, max_bytes: usize) -> Result<String, Status> {
    bounded(&field, value, max_bytes)?;
    // Mostly it is plain, which is told quickly.
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(value.to_owned());
    }
    match value.chars().find(|c| is_unsafe(*c)) {
        Some(c) => Err(invalid(
            field,
            format!("it has the character U+{:04X}: control and invisible ones are refused", u32::from(c)),
        )),
        None => Ok(value.to_owned()),
    }
}

/// Text of another program that only a person reads, such as the words of an operating system: bounded like any other;
/// characters that may not be shown become spaces, since the report matters more than its wording.
pub(super) fn remark(field: impl Display, value: &str, max_bytes: usize) -> Result<String, Status> {
    bounded(field, value, max_bytes)?;
    Ok(one_line(value))
}

fn bounded(field: impl Display, value: &str, max_bytes: usize) -> Result<(), Status> {
    if value.len() <= max_bytes {
        return Ok(());
    }
    Err(invalid(field, format!("it has {} bytes: the most are {max_bytes}", value.len())))
}

/// A host's name: 1 to 253 of `[A-Za-z0-9._-]`.
pub(super) fn hostname(field: impl Display, value: &str) -> Result<String, Status> {
    if value.is_empty() || value.len() > 253 {
        return Err(invalid(field, "a host's name has 1 to 253 bytes"));
    }
    if !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(invalid(field, "a host's name is made of A-Z a-z 0-9 . _ -"));
    }
    Ok(value.to_owned())
}

/// A UUID.
pub(super) fn uuid(field: impl Display, value: &str) -> Result<Uuid, Status> {
    Uuid::try_parse(value).map_err(|_| invalid(field, "it is no UUID"))
}

/// A list's hash; `None` if empty.
pub(super) fn hash(field: impl Display, value: &str) -> Result<Option<ListHash>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|error| invalid(field, error))
}

/// Where a list stands in time. The store keeps both numbers as signed 64 bits.
pub(super) fn position(prefix: impl Display, epoch: u64, revision: u64) -> Result<Position, Status> {
    for (name, number) in [("epoch", epoch), ("revision", revision)] {
        if i64::try_from(number).is_err() {
            return Err(invalid(format_args!("{prefix}{name}"), "it is above 2^63 - 1"));
        }
    }
    Ok(Position { epoch, revision })
}

/// A node, exactly as it would stand in a list.
pub(super) fn node(field: impl Display, value: Option<&pulse_proto::v1::Node>) -> Result<Node, Status> {
    let node = value.ok_or_else(|| invalid(&field, "it is missing"))?;
    Node::from_wire(node).map_err(|error| invalid(field, error))
}

/// A time between 2000 and 2100: others are no clock's.
pub(super) fn time(field: impl Display, value: Option<Timestamp>) -> Result<SystemTime, Status> {
    const YEAR_2000: Duration = Duration::from_secs(946_684_800);
    const YEAR_2100: Duration = Duration::from_secs(4_102_444_800);
    let at = any_time(&field, value)?.ok_or_else(|| invalid(&field, "it is missing"))?;
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if (YEAR_2000..YEAR_2100).contains(&since) => Ok(at),
        _ => Err(invalid(field, "it is not between the years 2000 and 2100")),
    }
}

/// A time of any clock, also one that was never set; `None` if unset.
pub(super) fn any_time(field: impl Display, value: Option<Timestamp>) -> Result<Option<SystemTime>, Status> {
    // Of google.protobuf.Timestamp: the years 1 to 9999, nanoseconds counted forward.
    const YEARS_1_TO_9999: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let Some(at) = value else { return Ok(None) };
    if !YEARS_1_TO_9999.contains(&at.seconds) || !(0..1_000_000_000).contains(&at.nanos) {
        return Err(invalid(field, "it is no time: seconds of the years 1 to 9999, nanoseconds below 10^9"));
    }
    at.try_into().map(Some).map_err(|_| invalid(field, "it is no time"))
}

/// A scope as a proxy names it; one of a later version is a scope too.
pub(super) fn scope(field: impl Display, value: &str) -> Result<String, Status> {
    const MAX_BYTES: usize = 64;
    text(field, value, MAX_BYTES)
}

/// A program's version.
pub(super) fn version(field: impl Display, value: &str) -> Result<String, Status> {
    const MAX_BYTES: usize = 64;
    text(field, value, MAX_BYTES)
}

/// Degrees Celsius that a sensor can have: −40 to 150.
pub(super) fn celsius(field: impl Display, value: f64) -> Result<f64, Status> {
    if (-40.0..=150.0).contains(&value) {
        Ok(value)
    } else {
        Err(invalid(field, "it is not between -40 and 150 °C"))
    }
}
