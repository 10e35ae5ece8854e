use super::*;
use crate::collect::NodeReading;
use pulse_proto::SensorKind;

use crate::sensors::{Celsius, Reading};
use pulse_proto::{Node, Position, v1};
use tokio::time::advance;

fn node(name: &str) -> Node {
    Node::new(name, "").expect("a node")
}

/// A reading of a node, some `bytes` large.
fn reading(name: &str, bytes: usize) -> NodeReading {
    let reading = Reading {
        sensor: "s".repeat(128),
        chip: "chip".into(),
        label: String::new(),
        kind: SensorKind::CpuCore,
        temperature: Celsius::from_millidegrees(40_000).expect("in range"),
        max: None,
        critical: None,
    };
    let size = v1::Reading::from(&reading).encoded_len() + 3;
    NodeReading {
        node: node(name),
        collected_at: SystemTime::now(),
        position: Position::default(),
        result: Ok(vec![reading; bytes.div_ceil(size).max(1)]),
    }
}

fn unreadable(name: &str) -> NodeReading {
    NodeReading { result: Err("x".repeat(512)), ..reading(name, 0) }
}

fn sequences(buffer: &Buffer) -> Vec<u64> {
    buffer.waiting().map(|report| report.key.sequence).collect()
}

fn names(buffer: &Buffer) -> Vec<Vec<String>> {
    let names = |report: &Waiting| {
        let reports = report.request().reports;
        reports.into_iter().map(|report| report.node.expect("a node").name).collect()
    };
    buffer.waiting().map(names).collect()
}

fn bytes(buffer: &Buffer) -> usize {
    buffer.waiting().map(|report| report.encoded.len()).sum()
}

fn durable(sequence: u64) -> ReportTemperaturesResponse {
    ReportTemperaturesResponse { durable_sequence: sequence, refused: Vec::new() }
}

fn three() -> Buffer {
    let mut buffer = Buffer::new(Vec::new());
    for name in ["a", "b", "c"] {
        buffer.push(&[reading(name, 1)]);
    }
    buffer
}

#[tokio::test(start_paused = true)]
async fn sequences_count_from_1_in_one_session() {
    let buffer = three();
    assert_eq!(sequences(&buffer), [1, 2, 3]);
    let session = buffer.session;
    assert_eq!(session.get_version_num(), 7);
    assert!(buffer.waiting().all(|report| report.request().session == session.to_string()));
    assert_ne!(Buffer::new(Vec::new()).session, session);
}

#[tokio::test(start_paused = true)]
async fn what_waited_longer_than_a_quarter_of_an_hour_is_dropped() {
    let mut buffer = three();
    advance(MAX_AGE - Duration::from_secs(1)).await;
    buffer.push(&[reading("d", 1)]);
    assert_eq!(sequences(&buffer), [1, 2, 3, 4]);
    advance(Duration::from_secs(2)).await;
    buffer.push(&[reading("e", 1)]);
    assert_eq!(sequences(&buffer), [4, 5]);
    assert_eq!((buffer.dropped, buffer.bytes), (3, bytes(&buffer)));
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_4_mib_drops_the_oldest() {
    let mut buffer = Buffer::new(Vec::new());
    for _ in 0..12 {
        buffer.push(&[reading("a", 400 << 10)]);
        assert!(buffer.bytes <= MAX_BYTES && buffer.bytes == bytes(&buffer));
    }
    assert_eq!(sequences(&buffer), (3..=12).collect::<Vec<_>>());
    assert_eq!(buffer.dropped, 2);
}

#[tokio::test(start_paused = true)]
async fn the_reasons_of_a_long_list_do_not_push_readings_out() {
    let mut buffer = Buffer::new(Vec::new());
    buffer.push(&[reading("first", 1)]);
    let many: Vec<_> = (0..5_000).map(|n| unreadable(&format!("n{n}"))).collect();
    buffer.push(&many);
    buffer.push(&[reading("second", 1)]);
    buffer.push(&many);
    buffer.push(&[reading("third", 1)]);
    let names = names(&buffer);
    for name in ["first", "second", "third"] {
        assert!(names.iter().any(|report| report == &[name]), "{name}");
    }
    assert!(buffer.bytes <= MAX_BYTES);
    assert!(sequences(&buffer).is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_large_round_is_split_by_nodes_in_their_order() {
    let mut buffer = Buffer::new(Vec::new());
    let round: Vec<_> = (0..10).map(|n| reading(&format!("n{n}"), 120 << 10)).collect();
    buffer.push(&round);
    assert!(buffer.waiting().all(|report| report.encoded.len() <= wire::MAX_REPORT_BYTES + 64));
    let sizes: Vec<usize> = names(&buffer).iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 4, 2]);
    assert_eq!(names(&buffer).concat(), (0..10).map(|n| format!("n{n}")).collect::<Vec<_>>());
    assert_eq!(sequences(&buffer), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn one_node_larger_than_a_report_goes_alone() {
    let mut buffer = Buffer::new(Vec::new());
    buffer.push(&[reading("small", 1), reading("large", 1 << 20), reading("other", 1)]);
    assert_eq!(names(&buffer), [["small"], ["large"], ["other"]]);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_durable_is_forgotten() {
    let mut buffer = three();
    let key = buffer.next().unwrap().key;
    buffer.answered(key, &durable(0));
    assert_eq!(sequences(&buffer), [1, 2, 3]);
    assert_eq!(buffer.next().unwrap().key.sequence, 2);
    let key = buffer.next().unwrap().key;
    buffer.answered(key, &durable(1));
    assert_eq!(sequences(&buffer), [2, 3]);
    buffer.send_again();
    assert_eq!(buffer.next().unwrap().key.sequence, 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_calls_durable_what_was_not_sent_is_not_believed() {
    let mut buffer = three();
    let key = buffer.next().unwrap().key;
    buffer.answered(key, &durable(u64::MAX));
    assert_eq!(sequences(&buffer), [2, 3]);
    assert_eq!(buffer.bytes, bytes(&buffer));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_by_name_is_not_sent_again_and_the_rest_is() {
    let refused = |name: &str| v1::RefusedNode { node: Some((&node(name)).into()), reason: "no".into() };
    let mut buffer = Buffer::new(Vec::new());
    buffer.push(&[reading("a", 1), reading("b", 1)]);
    let key = buffer.next().unwrap().key;
    buffer.answered(key, &ReportTemperaturesResponse { durable_sequence: 0, refused: vec![refused("a")] });
    assert_eq!(names(&buffer), [["b"]]);
    assert_eq!((buffer.waiting().next().unwrap().key, buffer.bytes), (key, bytes(&buffer)));
    buffer.answered(key, &ReportTemperaturesResponse { durable_sequence: 0, refused: vec![refused("b")] });
    assert!(buffer.is_empty());
    assert_eq!(buffer.bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn earlier_reports_keep_session_and_sequence_and_go_first() {
    let old = three();
    let earlier: Vec<_> = old.waiting().map(Waiting::request).collect();
    let mut buffer = Buffer::new(earlier.clone());
    buffer.push(&[reading("d", 1)]);
    let all: Vec<_> = buffer.waiting().map(Waiting::request).collect();
    assert_eq!(all[..3], earlier);
    assert_eq!(all[3].sequence, 1);
    assert_ne!(all[3].session, earlier[0].session);
    // An answer speaks of its own session only.
    let key = buffer.next().unwrap().key;
    buffer.answered(key, &durable(2));
    assert_eq!(sequences(&buffer), [2, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn time_in_which_no_proxy_ran_makes_no_report_older() {
    let at = |minutes: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 60 * minutes);
    let request = |sequence, minutes| ReportTemperaturesRequest {
        session: Uuid::now_v7().to_string(),
        sequence,
        reports: vec![v1::NodeReport { collected_at: Some(at(minutes).into()), ..v1::NodeReport::default() }],
    };
    // Years ago, and twenty minutes apart: the first was too old when the second was made.
    let mut buffer = Buffer::new(vec![request(1, 0), request(2, 10), request(3, 20)]);
    assert_eq!(sequences(&buffer), [2, 3]);
    advance(Duration::from_secs(6 * 60)).await;
    buffer.push(&[reading("a", 1)]);
    assert_eq!(sequences(&buffer), [3, 1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_after_clear() {
    let mut buffer = three();
    buffer.clear();
    assert!(buffer.is_empty() && buffer.bytes == 0 && buffer.next().is_none());
    buffer.push(&[reading("d", 1)]);
    assert_eq!(sequences(&buffer), [4]);
}
