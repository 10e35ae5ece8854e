//! A report of temperatures as it goes over the wire: 1.2 KB, of one node.
//!
//! Always: what changes from report to report, its time and its sequence, is written into bytes that were made once, so
//! that making a report costs a client next to nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use pulse_proto::v1::{Node, NodeReport, Reading, ReportTemperaturesRequest, SensorKind};

/// No report is longer.
pub(crate) const MAX_BYTES: i64 = 2_048;
/// Sensors of one node: a socket, its cores and a few others. They make some 1.2 KB.
const SENSORS: u32 = 15;
/// Varints of five bytes hold the seconds of a time from 1978 to 3058.
const SECONDS_BYTES: usize = 5;
/// Field 2, `sequence`, as a varint.
const SEQUENCE_TAG: u8 = 2 << 3;

/// The reports of one proxy.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    seconds_at: usize,
    fixed: usize,
}

impl Template {
    /// The reports of one session on one node, by name and address.
    pub(crate) fn new(session: &str, node: &(String, String)) -> Template {
        let seconds = unix_seconds();
        let time = prost_time(seconds);
        let report = NodeReport {
            node: Some(Node { name: node.0.clone(), ip: node.1.clone() }),
            collected_at: Some(time),
            readings: (0..SENSORS).map(reading).collect(),
            ..NodeReport::default()
        };
        let request =
            ReportTemperaturesRequest { session: session.to_owned(), sequence: 0, reports: vec![report] };
        let bytes = request.encode_to_vec();
        let mut field = vec![1 << 3];
        field.extend_from_slice(&varint(seconds));
        let seconds_at = memchr::memmem::find(&bytes, &field).expect("the time stands in the report") + 1;
        Template { fixed: bytes.len(), bytes, seconds_at }
    }

    /// The report with this sequence, of now.
    pub(crate) fn message(&mut self, sequence: u64) -> &[u8] {
        self.bytes.truncate(self.fixed);
        self.bytes[self.seconds_at..self.seconds_at + SECONDS_BYTES].copy_from_slice(&varint(unix_seconds()));
        // The last of a field that comes twice is the one that counts.
        self.bytes.push(SEQUENCE_TAG);
        self.bytes.extend_from_slice(&varint(sequence));
        &self.bytes
    }
}

fn prost_time(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: seconds.cast_signed(), nanos: 0 }
}

fn reading(number: u32) -> Reading {
    let kind = if number == 0 { SensorKind::CpuPackage } else { SensorKind::CpuCore };
    Reading {
        sensor: format!("coretemp-isa-0000/temp{}", number + 1),
        chip: "coretemp".to_owned(),
        label: if number == 0 { "Package id 0".to_owned() } else { format!("Core {}", number - 1) },
        kind: kind.into(),
        temperature_celsius: 40.0 + f64::from(number),
        max_celsius: Some(80.0),
        critical_celsius: Some(100.0),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A varint that is made five bytes long, whatever the number (below 2^35).
fn varint(number: u64) -> [u8; SECONDS_BYTES] {
    let mut bytes = [0; SECONDS_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let more = if at + 1 < SECONDS_BYTES { 0x80 } else { 0 };
        *byte = u8::try_from(number >> (7 * at) & 0x7f).expect("seven bits") | more;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_whole_and_of_now_and_some_1_2_kilobytes() {
        let node = ("pve-1".to_owned(), "10.0.0.1".to_owned());
        let mut template = Template::new("f1b7c3a0-0000-4000-8000-000000000001", &node);
        for sequence in [1, 300, 1 << 30] {
            let message = template.message(sequence);
            assert!((1_000..=1_400).contains(&message.len()), "{}", message.len());
            let report = ReportTemperaturesRequest::decode(message).unwrap();
            assert_eq!(report.sequence, sequence);
            let taken = report.reports[0].collected_at.unwrap().seconds;
            assert!(unix_seconds().abs_diff(taken.cast_unsigned()) <= 1);
            assert_eq!(report.reports[0].readings.len(), SENSORS as usize);
        }
    }
}
