//! Readings as the contract has them, in reports of a bounded size.
//!
//! In: a round of `collect`. Out: [`v1::NodeReport`]s, grouped. Always: every text fits the contract's limits, cut
//! at a character; the order stays. Never: drops a node.

use prost::Message;
use pulse_proto::{MAX_LABEL_BYTES, MAX_REASON_BYTES, MAX_SENSOR_BYTES, v1};

use crate::collect::NodeReading;
use crate::sensors::{Celsius, Reading};

/// A report is split above this size, so that one call stays short, a lost one costs little, and it fits the 1 MiB that a
/// server takes by default. A node that has more goes alone: from some 3,500 readings of 300 bytes on the server finds it
/// too large, and it is dropped and said in the log.
pub(super) const MAX_REPORT_BYTES: usize = 512 << 10;

impl From<&NodeReading> for v1::NodeReport {
    fn from(reading: &NodeReading) -> Self {
        let (readings, reason) = match &reading.result {
            Ok(readings) => (readings.iter().map(v1::Reading::from).collect(), String::new()),
            Err(reason) => (Vec::new(), cut(reason, MAX_REASON_BYTES)),
        };
        v1::NodeReport {
            node: Some(v1::Node::from(&reading.node)),
            collected_at: Some(reading.collected_at.into()),
            epoch: reading.position.epoch,
            revision: reading.position.revision,
            readings,
            unreadable_reason: reason,
        }
    }
}

impl From<&Reading> for v1::Reading {
    fn from(reading: &Reading) -> Self {
        v1::Reading {
            sensor: cut(&reading.sensor, MAX_SENSOR_BYTES),
            chip: cut(&reading.chip, MAX_LABEL_BYTES),
            label: cut(&reading.label, MAX_LABEL_BYTES),
            kind: v1::SensorKind::from(reading.kind).into(),
            temperature_celsius: reading.temperature.degrees(),
            max_celsius: reading.max.map(Celsius::degrees),
            critical_celsius: reading.critical.map(Celsius::degrees),
        }
    }
}

fn cut(text: &str, max_bytes: usize) -> String {
    text[..text.floor_char_boundary(max_bytes)].to_owned()
}

/// Groups the nodes of a round into reports of at most `max_bytes`, in their order.
pub(super) fn grouped(round: &[NodeReading], max_bytes: usize) -> Vec<Vec<v1::NodeReport>> {
    let mut groups: Vec<Vec<v1::NodeReport>> = Vec::new();
    let mut bytes = 0;
    for reading in round {
        let report = v1::NodeReport::from(reading);
        // With its tag, and a length of at most 4 bytes.
        let size = report.encoded_len() + 5;
        match groups.last_mut() {
            Some(group) if bytes + size <= max_bytes => group.push(report),
            _ => {
                groups.push(vec![report]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    groups
}
