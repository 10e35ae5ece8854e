//! Measurements beside the pushes: what T9 to T16 are made of. Each starts the servers that it needs.

pub(crate) mod idle;
pub(crate) mod probes;
pub(crate) mod reports;
pub(crate) mod scale;
pub(crate) mod stalled;
pub(crate) mod storm;

use crate::failure::Outcome;
use crate::process::Process;
use crate::record::Figure;

/// Kibibytes for each of so many.
#[expect(clippy::cast_precision_loss, reason = "memory of a process is far below 2^53 bytes")]
pub(crate) fn kibibytes_each(bytes: i64, count: usize) -> f64 {
    bytes as f64 / 1024.0 / count.max(1) as f64
}

/// What a process holds more than it did, in bytes.
pub(crate) fn growth(process: &Process, before: u64) -> Outcome<i64> {
    let now = process.resident_bytes()?;
    Ok(now.cast_signed() - before.cast_signed())
}

/// A figure of a target; empty: for information.
pub(crate) fn figure(
    target: &str,
    what: &str,
    clients: usize,
    value: f64,
    unit: &str,
    note: String,
) -> Figure {
    Figure {
        target: target.to_owned(),
        what: what.to_owned(),
        clients,
        value: Some(value),
        unit: unit.to_owned(),
        note,
    }
}
