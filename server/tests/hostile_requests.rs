//! Requests that no good proxy sends: each field of each message in every way in which it can be wrong, frames that are
//! none, and texts that would do something to whoever reads them. All on the real server, over the wire.

use std::collections::BTreeSet;

use hyper::Method;
use prost_types::Timestamp;
use prost_types::field_descriptor_proto::Type;
use pulse_test_support::raw::{Raw, RawAnswer, frame, path};
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{
    AllowlistSnapshot, Bookmark, Goodbye, Node, NodeReport, Reading, RegisterRequest, ReportSyncRequest,
    ReportTemperaturesRequest, Revoked, ServerInfo, Unchanged, Waiting, WatchAuthorizedNodesResponse,
};
use pulse_test_support::wire::{self, Wire};
use pulse_test_support::{Client, PATIENCE, Proxy, Relay, Server, eventually};
use tonic::Code;

/// What a value of a field is.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(u64),
    Double(f64),
    Message(Wire),
    /// Several entries of a repeated field.
    Messages(Vec<Wire>),
    /// The field is not there.
    Missing,
}

/// What the server does with it.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// `INVALID_ARGUMENT`, naming the field, with this in the rule.
    Refused(&'static str),
    /// It is taken, because the contract says so.
    Taken,
}

use Expect::{Refused, Taken};

type Case = (Value, Expect);

/// A row of the table: a field and all that is tried with it.
struct Row {
    message: &'static str,
    field: &'static str,
    cases: Vec<Case>,
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn long(bytes: usize) -> Value {
    text("a".repeat(bytes))
}

/// Near the largest message that is taken at all.
const FAR_TOO_LONG: usize = 900_000;

/// What no text may hold that is shown to people.
const UNSAFE: [&str; 8] = ["\0", "\n", "\r", "\u{1b}[31m", "\u{7f}", "\u{9b}", "\u{202e}", "\u{200b}"];

/// A text with a rule for its characters, and the most bytes that it may have.
fn checked_text(
    max_bytes: usize,
    too_long: &'static str,
    unsafe_rule: &'static str,
    mut more: Vec<Case>,
) -> Vec<Case> {
    more.push((long(max_bytes + 1), Refused(too_long)));
    more.push((long(FAR_TOO_LONG), Refused(too_long)));
    more.extend(UNSAFE.map(|bad| (text(format!("a{bad}b")), Refused(unsafe_rule))));
    more
}

fn free_text(max_bytes: usize, mut more: Vec<Case>) -> Vec<Case> {
    more.push((long(max_bytes), Taken));
    more.push((text("Gehäuse 温度 <b>&\"'</b>"), Taken));
    checked_text(max_bytes, "the most are", "control and invisible ones are refused", more)
}

/// A text whose characters are cleaned, not refused, because what it says matters more than how.
fn remark() -> Vec<Case> {
    let mut cases = vec![(long(512), Taken), (long(513), Refused("the most are")), (text(""), Taken)];
    cases.push((long(FAR_TOO_LONG), Refused("the most are")));
    cases.extend(UNSAFE.map(|bad| (text(format!("a{bad}b")), Taken)));
    cases
}

/// A text of one exact form.
fn exact(rule: &'static str, more: &[&str]) -> Vec<Case> {
    let bad = ["x", "\0", "\n", "\u{202e}", "\u{1b}[31m"].iter().chain(more).map(|bad| text(*bad));
    bad.chain([long(FAR_TOO_LONG)]).map(|bad| (bad, Refused(rule))).collect()
}

fn number() -> Vec<Case> {
    const MOST: u64 = i64::MAX.unsigned_abs();
    vec![
        (Value::Number(MOST), Taken),
        (Value::Number(MOST + 1), Refused("above 2^63 - 1")),
        (Value::Number(u64::MAX), Refused("above 2^63 - 1")),
    ]
}

/// An enum whose later values mean what 0 means, and 0 is taken.
fn later_values_are_taken() -> Vec<Case> {
    [0, 77, i32::MAX as u64, u64::MAX].map(|value| (Value::Number(value), Taken)).into()
}

fn celsius(more: Vec<Case>) -> Vec<Case> {
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -40.1, 150.1, f64::MAX, f64::MIN];
    let good = [-40.0, 150.0, 0.0, -0.0, f64::MIN_POSITIVE];
    let bad = bad.map(|value| (Value::Double(value), Refused("between -40 and 150")));
    bad.into_iter().chain(good.map(|value| (Value::Double(value), Taken))).chain(more).collect()
}

fn time(seconds: i64, nanos: i32) -> Value {
    Value::Message(Wire::from(&Timestamp { seconds, nanos }))
}

/// Times that are none.
fn no_times() -> Vec<Case> {
    const NO_TIME: Expect = Refused("it is no time");
    vec![
        // The last second of the year 0, the first of 10000, and what no calendar holds.
        (time(-62_135_596_801, 0), NO_TIME),
        (time(253_402_300_800, 0), NO_TIME),
        (time(i64::MIN, 0), NO_TIME),
        (time(i64::MAX, i32::MAX), NO_TIME),
        (time(1_763_600_000, 1_000_000_000), NO_TIME),
        (time(1_763_600_000, -1), NO_TIME),
    ]
}

fn node(name: &str) -> Wire {
    Wire::from(&Node { name: name.to_owned(), ip: String::new() })
}

/// Every field of every request.
fn table() -> Vec<Row> {
    let row = |message, field, cases| Row { message, field, cases };
    let not_a_url = Refused("neither empty nor begins with");
    let hash = || exact("sha256:", &["sha256:", "sha256:00", "md5:0", &format!("sha256:{}", "A".repeat(64))]);
    let refused_later = || {
        vec![
            (Value::Number(0), Refused("neither applied nor refused")),
            (Value::Number(77), Refused("neither applied nor refused")),
        ]
    };
    let readings = |count: usize| Value::Messages(vec![Wire::from(&reading()); count]);
    vec![
        row(
            "RegisterRequest",
            "hostname",
            checked_text(
                253,
                "1 to 253 bytes",
                "A-Z a-z 0-9 . _ -",
                vec![
                    (long(253), Taken),
                    (text(""), Refused("1 to 253 bytes")),
                    (text("a b"), Refused("A-Z a-z 0-9 . _ -")),
                    (text("ä"), Refused("A-Z a-z 0-9 . _ -")),
                    (text("<script>"), Refused("A-Z a-z 0-9 . _ -")),
                    (text("../etc"), Refused("A-Z a-z 0-9 . _ -")),
                    (Value::Missing, Refused("1 to 253 bytes")),
                ],
            ),
        ),
        row("RegisterRequest", "kind", later_values_are_taken()),
        row(
            "RegisterRequest",
            "proxy_url",
            checked_text(
                2_048,
                "the most are",
                "",
                vec![
                    (text(""), Taken),
                    (text(format!("https://delly/{}", "a".repeat(2_034))), Taken),
                    (text("javascript:alert(1)"), not_a_url),
                    (text("delly:8443"), not_a_url),
                    (text("https://a/\"onmouseover=\"x"), Refused("no URL has")),
                    (text("https://a/<script>"), Refused("no URL has")),
                    (text("https://a/ b"), Refused("no URL has")),
                    (text("https://ä/"), Refused("no URL has")),
                ],
            ),
        ),
        row(
            "RegisterRequest",
            "machine_id",
            exact(
                "64 lower-case hex digits",
                &[&"a".repeat(63), &"a".repeat(65), &"A".repeat(64), &"g".repeat(64)],
            )
            .into_iter()
            .chain([(text(""), Taken), (text("a".repeat(64)), Taken)])
            .collect(),
        ),
        row(
            "RegisterRequest",
            "proxy_id",
            exact(
                "it is no UUID",
                &["0192d3a8-7f3c-7d3e-8a51-0242ac12000", "0192d3a8-7f3c-7d3e-8a51-0242ac1200020"],
            )
            .into_iter()
            .chain([(text(""), Taken), (text(SESSION), Taken)])
            .collect(),
        ),
        row("RegisterRequest", "version", free_text(64, vec![(text(""), Taken)])),
        row("WatchAuthorizedNodesRequest", "epoch", number()),
        row("WatchAuthorizedNodesRequest", "scope", free_text(64, vec![(text("galaxy:7"), Taken)])),
        row("WatchAuthorizedNodesRequest", "revision", number()),
        row("WatchAuthorizedNodesRequest", "hash", hash()),
        row("WatchAuthorizedNodesRequest", "version", free_text(64, vec![(text(""), Taken)])),
        row("WatchAuthorizedNodesRequest", "source", later_values_are_taken()),
        row(
            "WatchAuthorizedNodesRequest",
            "insecure_skip_verify",
            vec![(Value::Number(0), Taken), (Value::Number(2), Taken), (Value::Number(u64::MAX), Taken)],
        ),
        row("WatchAuthorizedNodesRequest", "kept_list_problem", later_values_are_taken()),
        row("WatchAuthorizedNodesRequest", "kept_list_detail", remark()),
        row("ReportSyncRequest", "epoch", number()),
        row("ReportSyncRequest", "scope", free_text(64, vec![(text(""), Taken)])),
        row("ReportSyncRequest", "revision", number()),
        row(
            "ReportSyncRequest",
            "hash",
            hash()
                .into_iter()
                .chain([(text(""), Refused("missing")), (Value::Missing, Refused("missing"))])
                .collect(),
        ),
        row("ReportSyncRequest", "outcome", refused_later()),
        row("ReportSyncRequest", "on_disk", vec![(Value::Number(2), Taken)]),
        row("ReportSyncRequest", "refusal_reason", later_values_are_taken()),
        row("ReportSyncRequest", "detail", remark()),
        // A host whose clock was never set has a list in force all the same.
        row(
            "ReportSyncRequest",
            "at",
            no_times().into_iter().chain([(time(0, 0), Taken), (Value::Missing, Taken)]).collect(),
        ),
        row("ReportSyncRequest", "version", free_text(64, vec![(text(""), Taken)])),
        row(
            "ReportTemperaturesRequest",
            "session",
            exact("it is no UUID", &[""])
                .into_iter()
                .chain([(Value::Missing, Refused("it is no UUID"))])
                .collect(),
        ),
        row(
            "ReportTemperaturesRequest",
            "sequence",
            vec![
                (Value::Number(0), Refused("from 1 to 2^63 - 1")),
                (Value::Number(1 << 63), Refused("from 1 to 2^63 - 1")),
                (Value::Number(u64::MAX), Refused("from 1 to 2^63 - 1")),
            ],
        ),
        row(
            "ReportTemperaturesRequest",
            "reports",
            vec![
                (Value::Missing, Taken),
                (Value::Messages(vec![report_of(node("nas")), report_of(node("nas"))]), Refused("twice")),
                (Value::Messages(vec![report_of(node("nas")), report_of(node("NAS"))]), Refused("twice")),
                (Value::Messages(vec![Wire::new(); 2]), Refused("missing")),
                (
                    Value::Messages((0..10_001).map(|at| report_of(node(&format!("n{at}")))).collect()),
                    Refused("the most are"),
                ),
            ],
        ),
        row(
            "NodeReport",
            "node",
            vec![(Value::Missing, Refused("missing")), (Value::Message(Wire::new()), Refused("name"))],
        ),
        row(
            "NodeReport",
            "collected_at",
            no_times()
                .into_iter()
                .chain([
                    (Value::Missing, Refused("missing")),
                    (Value::Message(Wire::new()), Refused("between the years 2000 and 2100")),
                    (time(946_684_799, 999_999_999), Refused("between the years 2000 and 2100")),
                    (time(4_102_444_800, 0), Refused("between the years 2000 and 2100")),
                ])
                .collect(),
        ),
        row("NodeReport", "epoch", number()),
        row("NodeReport", "revision", number()),
        row(
            "NodeReport",
            "readings",
            vec![
                (readings(10_001), Refused("the most are")),
                (Value::Messages(vec![Wire::new()]), Refused("missing")),
                (Value::Missing, Taken),
            ],
        ),
        row("NodeReport", "unreadable_reason", remark()),
        row(
            "Node",
            "name",
            checked_text(
                63,
                "63",
                "name",
                vec![
                    (text(""), Refused("name")),
                    (text("a b"), Refused("name")),
                    (text("-a"), Refused("name")),
                    (text("*"), Refused("name")),
                    (text("10.0.0.1"), Refused("name")),
                    (text("<b>"), Refused("name")),
                ],
            ),
        ),
        row(
            "Node",
            "ip",
            checked_text(
                253,
                "address",
                "address",
                vec![
                    (text("10.0.0.0/8"), Refused("address")),
                    (text("*"), Refused("address")),
                    (text("10.0.0.256"), Refused("address")),
                    (text("fe80::1%eth0"), Refused("address")),
                    (text("-x"), Refused("address")),
                    (text(""), Taken),
                ],
            ),
        ),
        row(
            "Reading",
            "sensor",
            free_text(192, vec![(text(""), Refused("missing")), (Value::Missing, Refused("missing"))]),
        ),
        row("Reading", "chip", free_text(256, vec![(text(""), Taken)])),
        row("Reading", "label", free_text(256, vec![(text(""), Taken)])),
        row("Reading", "kind", later_values_are_taken()),
        // Missing is 0 °C to protobuf, and 0 °C is a temperature.
        row("Reading", "temperature_celsius", celsius(vec![(Value::Missing, Taken)])),
        row("Reading", "max_celsius", celsius(vec![(Value::Missing, Taken)])),
        row("Reading", "critical_celsius", celsius(vec![(Value::Missing, Taken)])),
    ]
}

const SESSION: &str = "0192d3a8-7f3c-7d3e-8a51-0242ac120002";

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

fn reading() -> Reading {
    Reading { sensor: "coretemp-isa-0000/temp1".to_owned(), temperature_celsius: 42.5, ..Reading::default() }
}

/// A good report of a node.
fn report_of(node: Wire) -> Wire {
    let report = NodeReport { collected_at: Some(now()), readings: vec![reading()], ..NodeReport::default() };
    Wire::from(&report).bytes(1, node.into_bytes())
}

/// A good message, of which one field is then replaced.
fn good(message: &str) -> Wire {
    match message {
        "RegisterRequest" => {
            Wire::from(&RegisterRequest { hostname: "delly".to_owned(), ..RegisterRequest::default() })
        }
        "ReportSyncRequest" => Wire::from(&ReportSyncRequest {
            hash: format!("sha256:{}", "0".repeat(64)),
            outcome: 2,
            ..ReportSyncRequest::default()
        }),
        "ReportTemperaturesRequest" => Wire::from(&ReportTemperaturesRequest {
            session: SESSION.to_owned(),
            sequence: 1,
            ..ReportTemperaturesRequest::default()
        })
        .bytes(3, report_of(node("delly")).into_bytes()),
        "NodeReport" => report_of(node("delly")),
        "Node" => node("delly"),
        "Reading" => Wire::from(&reading()),
        _ => Wire::new(),
    }
}

/// A message as it is sent: the method, its request, and the path of the message in it.
fn sent(message: &str, wire: Wire) -> (&'static str, Wire, &'static str) {
    let report = |report: Wire| good("ReportTemperaturesRequest").without(3).bytes(3, report.into_bytes());
    match message {
        "RegisterRequest" => ("Register", wire, ""),
        "WatchAuthorizedNodesRequest" => ("WatchAuthorizedNodes", wire, ""),
        "ReportSyncRequest" => ("ReportSync", wire, ""),
        "ReportTemperaturesRequest" => ("ReportTemperatures", wire, ""),
        "NodeReport" => ("ReportTemperatures", report(wire), "reports."),
        "Node" => (
            "ReportTemperatures",
            report(good("NodeReport").without(1).bytes(1, wire.into_bytes())),
            "reports.node.",
        ),
        "Reading" => (
            "ReportTemperatures",
            report(good("NodeReport").without(5).bytes(5, wire.into_bytes())),
            "reports.readings.",
        ),
        other => panic!("the test does not know how {other} is sent: add it"),
    }
}

/// Replaces a field.
fn with(message: &str, number: u32, value: &Value) -> Wire {
    let wire = good(message).without(number);
    match value.clone() {
        Value::Text(text) => wire.bytes(number, text),
        Value::Number(value) => wire.varint(number, value),
        Value::Double(value) => wire.double(number, value),
        Value::Message(inner) => wire.bytes(number, inner.into_bytes()),
        Value::Messages(all) => {
            all.into_iter().fold(wire, |wire, inner| wire.bytes(number, inner.into_bytes()))
        }
        Value::Missing => wire,
    }
}

/// The server with a registered proxy, and a raw connection.
struct Target {
    server: Server,
    raw: Raw,
    ctrl: String,
    join: String,
}

impl Target {
    async fn start() -> Target {
        // Every case is a call, and none of them shall wait for the last.
        let server = Server::builder()
            .config("limits: {watch_burst: 1000, registration_burst: 1000, failed_calls_per_minute: 100000}")
            .start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
        let join = server.join_string(&["--instance", "home", "--uses", "1000"]);
        let ctrl = Client::register(&server, &join, "delly").await.token;
        let raw = Raw::connect(&server).await;
        let join = join.split_once("join=").expect("a join string has a token").1.to_owned();
        Target { server, raw, ctrl, join }
    }

    async fn call(&mut self, method: &str, message: Wire) -> RawAnswer {
        let token = if method == "Register" { &self.join } else { &self.ctrl };
        self.raw.call(method, token, &message.into_bytes()).await
    }

    /// Asserts that the server is as well as before.
    async fn is_well(&mut self) {
        let answer = self.call("ReportTemperatures", good("ReportTemperaturesRequest")).await;
        assert_eq!(answer.code(), Code::Ok, "{answer:?}");
        assert_eq!(self.server.get("/readyz").expect("it answers").status, 200);
        let log = self.server.process().log();
        let is_bad = |line: &&String| line.contains("panicked") || line.chars().any(char::is_control);
        assert_eq!(log.iter().find(is_bad), None);
    }
}

/// Asserts that an answer refuses a field by name and rule, in the details as in the text.
#[track_caller]
fn assert_refused(answer: &RawAnswer, field: &str, rule: &str, about: &str) {
    assert_eq!(answer.code(), Code::InvalidArgument, "{about}: {answer:?}");
    let violations = answer.violations();
    let [(named, description)] = &violations[..] else { panic!("{about}: one field is named: {answer:?}") };
    // Which of several is not what is asked here.
    let named: String =
        named.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
    assert!(
        named == field || named == field.rsplit_once('.').map_or("", |(outer, _)| outer),
        "{about}: {field}, not {violations:?}"
    );
    assert!(description.contains(rule), "{about}: {rule:?} in {violations:?}");
    let text = answer.status.as_ref().expect("it is refused").message();
    assert!(text.contains(description.as_str()) && text.len() < 1_000, "{about}: {text:?}");
    assert!(!text.chars().any(char::is_control), "{about}: {text:?}");
}

/// The number and the type of a field.
fn field(message: &str, name: &str) -> (u32, Type) {
    let about = wire::message(message).unwrap_or_else(|| panic!("the contract has no {message}"));
    let field = about.field.iter().find(|field| field.name() == name);
    let field = field.unwrap_or_else(|| panic!("{message} has no field {name}"));
    (field.number().cast_unsigned(), field.r#type())
}

#[test]
fn the_table_has_every_field_of_every_request() {
    let table = table();
    let rows: BTreeSet<_> = table.iter().map(|row| (row.message.to_owned(), row.field.to_owned())).collect();
    assert_eq!(rows.len(), table.len(), "a field stands in the table twice");
    let mut fields = BTreeSet::new();
    let mut open: Vec<String> =
        wire::methods().iter().map(|method| wire::short(method.input_type()).to_owned()).collect();
    assert!(open.len() >= 6);
    while let Some(name) = open.pop() {
        // Not ours, such as a timestamp: the field that holds it has rows of its own.
        let Some(message) = wire::message(&name) else { continue };
        for field in &message.field {
            fields.insert((name.clone(), field.name().to_owned()));
            if field.r#type() == Type::Message {
                open.push(wire::short(field.type_name()).to_owned());
            }
        }
    }
    let missing: Vec<_> = fields.difference(&rows).collect();
    assert!(missing.is_empty(), "the contract grew: say in the table what the server does with {missing:?}");
    assert_eq!(rows.difference(&fields).next(), None, "the table has a field that no request has");
    assert!(table.iter().all(|row| !row.cases.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_refused_by_name_and_rule_in_every_way_in_which_it_can_be_wrong() {
    let mut target = Target::start().await;
    for row in table() {
        let (number, kind) = field(row.message, row.field);
        for (value, expect) in &row.cases {
            let (method, message, prefix) = sent(row.message, with(row.message, number, value));
            let about = format!("{}.{} = {:.120}", row.message, row.field, format!("{value:?}"));
            let answer = target.call(method, message).await;
            match expect {
                Taken => assert_eq!(answer.code(), Code::Ok, "{about}: {answer:?}"),
                Refused(rule) => {
                    // A node is checked as a whole, and so are lists of entries.
                    let named = answer.violations().into_iter().next().unwrap_or_default().0;
                    let path = format!("{prefix}{}", row.field);
                    let path = if matches!(kind, Type::Message) { below(&named, &path) } else { path };
                    assert_refused(&answer, &path, rule, &about);
                }
            }
        }
        // What is no value of the field's type at all.
        let wrong_type = match kind {
            Type::String | Type::Bytes | Type::Message => good(row.message).varint(number, 1),
            _ => good(row.message).bytes(number, "x"),
        };
        let (method, message, prefix) = sent(row.message, wrong_type);
        let path = format!("{prefix}{}", row.field);
        let answer = target.call(method, message).await;
        assert_refused(
            &answer,
            &path,
            "wire type",
            &format!("{}.{} of a wrong type", row.message, row.field),
        );
        if kind == Type::String {
            for bytes in [&[0xc3, 0x28][..], &[0xff], &[b'a', 0xed, 0xa0, 0x80], &[0xc0, 0x80]] {
                let (method, message, _) =
                    sent(row.message, good(row.message).without(number).bytes(number, bytes));
                let answer = target.call(method, message).await;
                assert_refused(
                    &answer,
                    &path,
                    "UTF-8",
                    &format!("{}.{} = {bytes:x?}", row.message, row.field),
                );
            }
        }
    }
    target.is_well().await;
}

/// The path that is named, without indices, if it is `path` or lies in it; else `path`.
fn below(named: &str, path: &str) -> String {
    let named: String =
        named.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
    if named.starts_with(path) { named } else { path.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_version_knows_is_passed_over_however_deep_it_goes() {
    let mut target = Target::start().await;
    for message in
        ["RegisterRequest", "WatchAuthorizedNodesRequest", "ReportSyncRequest", "ReportTemperaturesRequest"]
    {
        let enriched = wire::with_unknown_fields(message, &good(message).into_bytes());
        let (method, wire, _) = sent(message, Wire::new().raw(&enriched));
        let answer = target.call(method, wire).await;
        assert_eq!(answer.code(), Code::Ok, "{message}: {answer:?}");
    }
    let groups = |depth| (0..depth).fold(Wire::new(), |inside, _| Wire::new().group(1_000, inside));
    // As deep as any message of the contract could ever be; and so deep that only an attack is.
    let answer = target.call("ReportSync", good("ReportSyncRequest").raw(&groups(20).into_bytes())).await;
    assert_eq!(answer.code(), Code::Ok, "{answer:?}");
    for depth in [200, 100_000] {
        let answer =
            target.call("ReportSync", good("ReportSyncRequest").raw(&groups(depth).into_bytes())).await;
        assert_eq!(answer.code(), Code::InvalidArgument, "{answer:?}");
    }
    // A group that never ends, an end without a beginning, a number without an end, field 0.
    for bytes in
        [&[0x0b][..], &[0x0c], &[0x08, 0xff], &[0x00, 0x00], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x0f]]
    {
        let answer = target.call("ReportSync", good("ReportSyncRequest").raw(bytes)).await;
        assert_eq!(answer.code(), Code::InvalidArgument, "{bytes:x?}: {answer:?}");
    }
    target.is_well().await;
}

/// What a terminal, a log or a reader must not meet.
fn is_bad(c: char) -> bool {
    c != '\n' && pulse_proto::text::is_unsafe(c)
}

/// A text that would forge a line of a log, clear a screen and turn what follows around.
const FORGED: &str =
    "x\n2026-01-02T03:04:05Z ERROR forged\r\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\u{200b}\0end";

/// Asserts that each line of a log is one event of the program's own, and holds nothing that could paint a terminal.
#[track_caller]
fn assert_log_is_clean(log: &[String]) {
    for line in log {
        assert!(line.starts_with("20") && line.contains("Z "), "no line of the log begins so: {line:?}");
        assert!(!line.chars().any(is_bad), "{line:?}");
        assert!(!line.starts_with("2026-01-02T03:04:05Z"), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_says_can_do_nothing_to_a_terminal_or_a_log() {
    let mut target = Target::start().await;
    let id = target.server.proxies()[0]["id"].as_str().expect("it has an id").to_owned();
    let sync = good("ReportSyncRequest").bytes(8, FORGED);
    assert_eq!(target.call("ReportSync", sync).await.code(), Code::Ok);
    let unread = good("NodeReport").without(5).bytes(6, FORGED);
    let (method, message, _) = sent("NodeReport", unread);
    assert_eq!(target.call(method, message).await.code(), Code::Ok);
    let watch = Wire::new().varint(8, 3).bytes(9, FORGED);
    assert_eq!(target.call("WatchAuthorizedNodes", watch).await.code(), Code::Ok);
    // What may not be in a text that is kept as it is, is refused before it is kept.
    for (message, number) in [
        ("RegisterRequest", 1),
        ("RegisterRequest", 3),
        ("RegisterRequest", 6),
        ("Reading", 1),
        ("Reading", 2),
        ("Reading", 3),
    ] {
        let (method, wire, _) = sent(message, good(message).without(number).bytes(number, FORGED));
        let answer = target.call(method, wire).await;
        assert_eq!(answer.code(), Code::InvalidArgument, "{message} {number}: {answer:?}");
        assert!(!format!("{:?}", answer.status).contains("forged"), "{answer:?}");
    }
    for shown in [
        &["proxy", "list"][..],
        &["proxy", "show", &id],
        &["temps"],
        &["temps", "delly"],
        &["audit"],
        &["status"],
        &["instance", "show", FORGED.trim_end_matches("\0end")],
        &["temps", FORGED.trim_end_matches("\0end")],
        &["join", "revoke", "\u{1b}[2J\nforged"],
    ] {
        for json in [&[][..], &["--json"]] {
            let ran = target.server.pulse(&[shown, json].concat());
            for text in [&ran.stdout, &ran.stderr] {
                assert!(!text.chars().any(is_bad), "{shown:?}: {text:?}");
                assert!(!text.lines().any(|line| line.starts_with("2026-01-02T03:04:05Z")), "{text}");
            }
        }
    }
    let shown = target.server.pulse_ok(&["proxy", "show", &id]);
    assert!(shown.contains("forged"), "it is shown, but as text: {shown}");
    let log = target.server.process().log();
    assert!(log.iter().any(|line| line.contains("forged")), "{log:#?}");
    assert_log_is_clean(&log);
}

#[test]
fn what_a_server_says_can_do_nothing_to_the_terminal_or_the_log_of_a_proxy() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    // Every text of every message of a watch, one after the other.
    let relay = Relay::start(&server, |passing| {
        if passing.method != "WatchAuthorizedNodes" || !passing.is_answer {
            return passing.unchanged();
        }
        let forged = || FORGED.to_owned();
        let node = Node { name: forged(), ip: forged() };
        let list = AllowlistSnapshot {
            epoch: 1,
            scope: forged(),
            revision: 1,
            hash: forged(),
            nodes: vec![node],
            key_id: forged(),
            signature: FORGED.as_bytes().to_vec(),
            ..AllowlistSnapshot::default()
        };
        let info = ServerInfo { server_id: forged(), version: forged(), ..ServerInfo::default() };
        let kinds = [
            Kind::Waiting(Waiting { reason: forged() }),
            Kind::Snapshot(list.clone()),
            Kind::Snapshot(AllowlistSnapshot {
                scope: "all".to_owned(),
                hash: format!("sha256:{}", "0".repeat(64)),
                ..list
            }),
            Kind::Unchanged(Unchanged { epoch: 1, revision: 1, hash: forged() }),
            Kind::Bookmark(Bookmark { epoch: 1, revision: 1, hash: forged() }),
            Kind::Goodbye(Goodbye { reconnect_after: None, reason: forged() }),
        ];
        let said = |kind| WatchAuthorizedNodesResponse { kind: Some(kind), server: Some(info.clone()) };
        kinds.map(|kind| Wire::from(&said(kind)).into_bytes()).into()
    });
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&relay.join(&server.join_string(&["--instance", "home"])));
    proxy.start();
    eventually(PATIENCE, "the proxy has heard it", || {
        let log = proxy.process().log();
        let all = log.join("\n");
        if all.contains("forged") && all.contains("refused") { Ok(()) } else { Err(log) }
    });
    for command in ["status", "allowed-nodes", "check"] {
        for json in [&[][..], &["--json"]] {
            let ran = proxy.proxy(command, json);
            for text in [&ran.stdout, &ran.stderr] {
                assert!(!text.chars().any(is_bad), "{command}: {text:?}");
            }
        }
    }
    assert_log_is_clean(&proxy.process().log());
    // The last word, which is kept on the disk and shown for ever after.
    drop(relay);
    let relay = Relay::start(&server, |passing| {
        if passing.method == "WatchAuthorizedNodes" && passing.is_answer {
            let kind = Some(Kind::Revoked(Revoked { reason: FORGED.to_owned() }));
            return vec![Wire::from(&WatchAuthorizedNodesResponse { kind, server: None }).into_bytes()];
        }
        passing.unchanged()
    });
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&relay.join(&server.join_string(&["--instance", "home"])));
    proxy.start();
    proxy.wait_for_status("it is revoked", |status| !status["revoked"].is_null());
    let ran = proxy.proxy("status", &[]);
    assert!(ran.stdout.contains("forged") && !ran.stdout.chars().any(is_bad), "{ran:?}");
    assert_log_is_clean(&proxy.process().log());
}

/// Requests to the admin API that no command sends: method, path, body, the status, and what the answer names.
#[test]
fn the_admin_api_refuses_what_is_wrong_with_a_reason_and_is_never_at_a_loss() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let long = "a".repeat(200_000);
    let body = |text: &str| text.replace("LONG", &long);
    let huge = format!(r#"{{"name":"{}"}}"#, "a".repeat(300_000));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, String, String)> = [
        ("POST", "/instances", ""),
        ("POST", "/instances", "null"),
        ("POST", "/instances", "[]"),
        ("POST", "/instances", "{"),
        ("POST", "/instances", "{}"),
        ("POST", "/instances", &*deep),
        ("POST", "/instances", &*huge),
        ("POST", "/instances", r#"{"name":""}"#),
        ("POST", "/instances", r#"{"name":"LONG"}"#),
        ("POST", "/instances", r#"{"name":"a\u0000b"}"#),
        ("POST", "/instances", r#"{"name":"a\u001b[31m"}"#),
        ("POST", "/instances", r#"{"name":"a\u202eb"}"#),
        ("POST", "/instances", r#"{"name":"a","name":"b"}"#),
        ("POST", "/instances", r#"{"name":1}"#),
        ("POST", "/instances", r#"{"name":"a","nodes":[]}"#),
        ("POST", "/instances", r#"{"name":"a","\u202e\u001b[31m":[]}"#),
        ("POST", "/instances", r#"{"name":"a","endpoints":{}}"#),
        ("POST", "/instances", r#"{"name":"a","endpoints":[{"name":"x","ip":"10.0.0.0/8"}]}"#),
        ("POST", "/instances", r#"{"name":"a","endpoints":[{"name":"","ip":""}]}"#),
        ("POST", "/instances", r#"{"name":"a","endpoints":[{"name":"x","port":1}]}"#),
        ("PUT", "/instances/home", r#"{"endpoints":[{"name":"*"}]}"#),
        ("PUT", "/instances/home", "{}"),
        ("PUT", "/instances/nothere", r#"{"endpoints":[]}"#),
        ("PUT", "/instances/%00", r#"{"endpoints":[]}"#),
        ("GET", "/instances/%ff%fe", ""),
        ("GET", "/instances/%1b%5b31m%0aforged", ""),
        ("GET", "/instances/..%2f..%2fetc%2fpasswd", ""),
        ("DELETE", "/instances/nothere", ""),
        ("DELETE", "/instances/home?yes=maybe", ""),
        ("DELETE", "/instances/home?no=true", ""),
        ("DELETE", "/instances/home?yes=true&yes=false", ""),
        ("POST", "/join-tokens", r#"{"uses":0}"#),
        ("POST", "/join-tokens", r#"{"uses":-1}"#),
        ("POST", "/join-tokens", r#"{"uses":4294967296}"#),
        ("POST", "/join-tokens", r#"{"uses":1.5}"#),
        ("POST", "/join-tokens", r#"{"uses":1e400}"#),
        ("POST", "/join-tokens", r#"{"ttl_seconds":0}"#),
        ("POST", "/join-tokens", r#"{"ttl_seconds":18446744073709551615}"#),
        ("POST", "/join-tokens", r#"{"ttl_seconds":9223372036854775807}"#),
        ("POST", "/join-tokens", r#"{"ttl_seconds":18446744073709551616}"#),
        ("POST", "/join-tokens", r#"{"instance":"nothere"}"#),
        ("POST", "/join-tokens", r#"{"instance":"LONG"}"#),
        ("POST", "/join-tokens", r#"{"scope":"galaxy"}"#),
        ("DELETE", "/join-tokens/nothere", ""),
        ("DELETE", "/join-tokens/%0a", ""),
        ("GET", "/proxies/nothere", ""),
        ("GET", "/proxies/0192d3a8-7f3c-7d3e-8a51-0242ac120002", ""),
        ("PATCH", "/proxies/0192d3a8-7f3c-7d3e-8a51-0242ac120002", "{}"),
        ("PATCH", "/proxies/nothere", r#"{"scope":"all"}"#),
        ("POST", "/proxies/nothere/rotate", ""),
        ("POST", "/proxies/nothere/revoke", ""),
        ("DELETE", "/proxies/nothere", ""),
        ("GET", "/allowlists?scope=galaxy", ""),
        ("GET", "/allowlists?instance=nothere", ""),
        ("GET", "/allowlists?scope=all&instance=home", ""),
        ("GET", "/allowlists?other=1", ""),
        ("GET", "/temperatures?node=nothere", ""),
        ("GET", "/temperatures?node=%00%1b%0a", ""),
        ("GET", "/temperatures?node=%ff", ""),
        ("GET", "/temperatures?nodes=a", ""),
        ("GET", "/audit?limit=0", ""),
        ("GET", "/audit?limit=1001", ""),
        ("GET", "/audit?limit=-1", ""),
        ("GET", "/audit?limit=99999999999999999999", ""),
        ("GET", "/audit?after=x", ""),
        ("GET", "/audit?rows=1", ""),
        ("GET", "/nothing", ""),
        ("POST", "/status", ""),
        ("TRACE", "/status", ""),
        ("GET", "/%2e%2e/healthz", ""),
    ]
    .map(|(method, path, text)| (method, path.to_owned(), body(text)))
    .into();
    for (method, path, body) in cases {
        let about = format!("{method} {path} {:.100}", body);
        let answer =
            server.admin_raw(method, &path, &body).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert!((400..500).contains(&answer.status), "{about}: {answer:?}");
        let said: serde_json::Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{about}: {error}: {answer:?}"));
        let (error, reason) =
            (said["detail"].as_str().unwrap_or_default(), said["reason"].as_str().unwrap_or_default());
        assert!(!error.is_empty() && !reason.is_empty(), "{about}: {answer:?}");
        assert!(error.len() < 5_000 && !answer.body.chars().any(is_bad), "{about}: {answer:?}");
        // A rule that is broken is a field's.
        if reason == "INVALID_REQUEST" && answer.status == 422 && said["field"].is_null() {
            assert!(error.contains("field") || error.contains(": "), "{about}: {answer:?}");
        }
    }
    // Beyond all rows there is none, which is no mistake.
    for path in ["/audit?after=18446744073709551615", "/audit?after=9223372036854775808"] {
        let answer = server.admin_raw("GET", path, "").expect("it answers");
        assert!(answer.status == 200 || answer.status == 422, "{path}: {answer:?}");
    }
    // Nothing of it was done.
    let instances = server.json(&["instance", "list"]);
    assert_eq!(instances["instances"].as_array().map(Vec::len), Some(1), "{instances}");
    assert_eq!(server.json(&["join", "list"])["join_tokens"].as_array().map(Vec::len), Some(0));
    assert_log_is_clean(&server.process().log());
    assert!(!server.process().log().iter().any(|line| line.contains("panicked")));
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_are_refused_and_nobody_else_is_harmed() {
    let mut target = Target::start().await;
    let bearer = format!("Bearer {}", target.ctrl);
    let headers = [GRPC, ("te", "trailers"), ("authorization", &*bearer)];
    let report = frame(&good("ReportSyncRequest").into_bytes());
    let with_head = |flag: u8, length: u32| {
        let mut bytes = report.to_vec();
        bytes[0] = flag;
        bytes[1..5].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let length = u32::try_from(report.len() - 5).unwrap();
    let large = frame(&good("ReportSyncRequest").bytes(8, vec![b'a'; 1 << 20]).into_bytes());
    let cases: [(&str, Vec<u8>, &[Code], &str); 9] = [
        ("no frame", Vec::new(), &[Code::Internal, Code::InvalidArgument], "issing request message"),
        ("half a head", report[..3].to_vec(), &[Code::Internal, Code::InvalidArgument], ""),
        ("half a message", report[..report.len() / 2].to_vec(), &[Code::Internal, Code::InvalidArgument], ""),
        ("a length above what comes", with_head(0, length + 1), &[Code::Internal, Code::InvalidArgument], ""),
        ("a length below what comes", with_head(0, length - 1), &[Code::Internal, Code::InvalidArgument], ""),
        (
            "a length of 4 GiB",
            with_head(0, u32::MAX),
            &[Code::OutOfRange, Code::ResourceExhausted],
            "1048576",
        ),
        (
            "compressed, with no method named",
            with_head(1, length),
            &[Code::Internal, Code::Unimplemented],
            "compress",
        ),
        ("a flag that is none", with_head(7, length), &[Code::Internal, Code::InvalidArgument], "flag"),
        ("more than 1 MiB", large.to_vec(), &[Code::OutOfRange, Code::ResourceExhausted], "1048576"),
    ];
    for (what, body, codes, text) in cases {
        let answer = target.raw.send(Method::POST, &path("ReportSync"), &headers, body.into()).await;
        assert!(codes.contains(&answer.code()), "{what}: {answer:?}");
        let said = answer.status.as_ref().expect("it is refused").message();
        assert!(!said.is_empty() && said.contains(text), "{what}: {answer:?}");
    }
    let zipped = [GRPC, ("te", "trailers"), ("authorization", &*bearer), ("grpc-encoding", "gzip")];
    let answer =
        target.raw.send(Method::POST, &path("ReportSync"), &zipped, with_head(1, length).into()).await;
    assert_eq!(answer.code(), Code::Unimplemented, "{answer:?}");
    target.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_no_client_sends_are_refused_and_nobody_else_is_harmed() {
    let mut target = Target::start().await;
    let bearer = format!("Bearer {}", target.ctrl);
    let body = frame(&good("ReportSyncRequest").into_bytes());
    let grpc = [GRPC, ("te", "trailers"), ("authorization", &*bearer)];

    for method in ["NoSuchMethod", "register", "Register/more", "%1b%5b31m", "..%2fRegister"] {
        let answer = target.raw.send(Method::POST, &path(method), &grpc, body.clone()).await;
        assert_eq!(answer.code(), Code::Unimplemented, "{method}: {answer:?}");
    }
    for kind in ["application/json", "text/plain", "application/grpcx", "application/x-protobuf", "\u{ff}"] {
        let headers = [("content-type", kind), ("te", "trailers"), ("authorization", &*bearer)];
        let answer = target.raw.send(Method::POST, &path("ReportSync"), &headers, body.clone()).await;
        assert_eq!(answer.http.as_u16(), 415, "{kind}: {answer:?}");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS, Method::HEAD] {
        let answer = target.raw.send(method.clone(), &path("ReportSync"), &grpc, body.clone()).await;
        assert!(answer.http.as_u16() == 405, "{method}: {answer:?}");
    }
    // Credentials that are none: refused as such, and never repeated.
    for credential in
        ["", "Bearer", "Bearer ", "Basic cm9vdDpyb290", "Bearer pctl_x", "Bearer \u{ff}\u{fe}", "pctl_x"]
    {
        let headers = [GRPC, ("te", "trailers"), ("authorization", credential)];
        let answer = target.raw.send(Method::POST, &path("ReportSync"), &headers, body.clone()).await;
        assert_eq!(answer.code(), Code::Unauthenticated, "{credential:?}: {answer:?}");
    }
    let long = format!("Bearer {}", "a".repeat(10_000));
    let headers = [GRPC, ("te", "trailers"), ("authorization", &*long)];
    let answer = target.raw.send(Method::POST, &path("ReportSync"), &headers, body.clone()).await;
    assert_eq!(answer.code(), Code::Unauthenticated, "{answer:?}");
    for timeout in ["", "1", "x", "-1S", "99999999999999999999S", "\u{ff}"] {
        let headers = [GRPC, ("te", "trailers"), ("authorization", &*bearer), ("grpc-timeout", timeout)];
        let answer = target.raw.send(Method::POST, &path("ReportSync"), &headers, body.clone()).await;
        assert!(answer.status.is_some(), "{timeout:?}: {answer:?}");
    }
    target.is_well().await;
}
