//! What stands on the wire: the numbers, names and types of every field, and the bytes of the main messages.
//!
//! Within v1 nothing of this changes; it only grows, and then `wire_compat.txt` grows with it. The bytes were made by
//! Python's protobuf from the same descriptors, not by the code that is tested.

use prost::Message;
use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, Duration, EnumDescriptorProto, FileDescriptorSet, Timestamp};
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::v1::{
    AllowlistSnapshot, Bookmark, Node, NodeReport, ProxyKind, Reading, RefusalReason, RegisterRequest,
    ReportSyncRequest, ReportTemperaturesRequest, SensorKind, SyncOutcome, WatchAuthorizedNodesResponse,
};

const EPOCH: u64 = 1_763_600_000_000;
const SCOPE: &str = "instance:0192d3a8-7f3c-7d3e-8a51-0242ac120002";
const HASH: &str = "sha256:13f92edc790d73eee2b3c74da15404d3ef2ef0cfd390d89fbbb8c192b223c55b";
const ID: &str = "0192d3a8-7f3c-7d3e-8a51-0242ac120002";

/// A host of kind HTTP that has an identity.
const REGISTER: &str = "\
    0a0564656c6c7910021a1268747470733a2f2f64656c6c793a3834343322406162616261626162616261626162616261\
    62616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261622a\
    2430313932643361382d376633632d376433652d386135312d3032343261633132303030323205302e312e30\
";

/// A list of two nodes, one of them without an address.
const SNAPSHOT: &str = "\
    0a86020880c881f6a933122d696e7374616e63653a30313932643361382d376633632d376433652d386135312d303234\
    326163313230303032182a22477368613235363a31336639326564633739306437336565653262336337346461313534\
    3034643365663265663063666433393064383966626262386331393262323233633535622a140a0564656c6c79120b31\
    39322e3136382e302e352a080a066d696e697063320b0880cdf9c8061080e59a773a02083c4210303132333435363738\
    396162636465664a40000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223242526\
    2728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f\
";

/// A sign of life.
const BOOKMARK: &str = "\
    1a520880c881f6a933102b1a477368613235363a31336639326564633739306437336565653262336337346461313534\
    303464336566326566306366643339306438396662626238633139326232323363353562\
";

/// A list that was refused.
const SYNC: &str = "\
    0880c881f6a933122d696e7374616e63653a30313932643361382d376633632d376433652d386135312d303234326163\
    313230303032182a22477368613235363a31336639326564633739306437336565653262336337346461313534303464\
    33656632656630636664333930643839666262623863313932623232336335356228023805420e343320697320696e20\
    666f7263655205302e312e30\
";

/// One node that was read, with a highest temperature of 0 °C and no critical one; and one that was not.
const REPORT: &str = "\
    0a2430313932643361382d376633632d376433652d386135312d30323432616331323030303210071a730a140a056465\
    6c6c79120b3139322e3136382e302e35120b0880cdf9c8061080e59a771880c881f6a933202a2a450a17636f72657465\
    6d702d6973612d303030302f74656d70311208636f726574656d701a0c5061636b616765206964203020012900000000\
    004045403100000000000000001a160a080a066d696e697063320a6e6f2073656e736f7273\
";

fn delly() -> Node {
    Node { name: "delly".into(), ip: "192.168.0.5".into() }
}

fn minipc() -> Node {
    Node { name: "minipc".into(), ip: String::new() }
}

fn at() -> Timestamp {
    Timestamp { seconds: 1_763_600_000, nanos: 250_000_000 }
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hex digits"))
        .collect()
}

/// Asserts that a message has these bytes, and that they are read as this message.
#[track_caller]
fn assert_golden<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, golden: &str) {
    let bytes = from_hex(golden);
    assert_eq!(message.encode_to_vec(), bytes);
    assert_eq!(&M::decode(&bytes[..]).expect("golden bytes are a message"), message);
}

fn snapshot() -> AllowlistSnapshot {
    AllowlistSnapshot {
        epoch: EPOCH,
        scope: SCOPE.into(),
        revision: 42,
        hash: HASH.into(),
        nodes: vec![delly(), minipc()],
        updated_at: Some(at()),
        refresh_interval: Some(Duration { seconds: 60, nanos: 0 }),
        key_id: "0123456789abcdef".into(),
        signature: (0..64).collect(),
    }
}

#[test]
fn main_messages_have_their_golden_bytes() {
    assert_golden(
        &RegisterRequest {
            hostname: "delly".into(),
            kind: ProxyKind::Http.into(),
            proxy_url: "https://delly:8443".into(),
            machine_id: "ab".repeat(32),
            proxy_id: ID.into(),
            version: "0.1.0".into(),
        },
        REGISTER,
    );
    let response = |kind| WatchAuthorizedNodesResponse { kind: Some(kind), server: None };
    assert_golden(&response(Kind::Snapshot(snapshot())), SNAPSHOT);
    let bookmark = Bookmark { epoch: EPOCH, revision: 43, hash: HASH.into() };
    assert_golden(&response(Kind::Bookmark(bookmark)), BOOKMARK);
    assert_golden(
        &ReportSyncRequest {
            epoch: EPOCH,
            scope: SCOPE.into(),
            revision: 42,
            hash: HASH.into(),
            outcome: SyncOutcome::Refused.into(),
            refusal_reason: RefusalReason::OlderRevision.into(),
            detail: "43 is in force".into(),
            version: "0.1.0".into(),
            ..ReportSyncRequest::default()
        },
        SYNC,
    );
    let reading = Reading {
        sensor: "coretemp-isa-0000/temp1".into(),
        chip: "coretemp".into(),
        label: "Package id 0".into(),
        kind: SensorKind::CpuPackage.into(),
        temperature_celsius: 42.5,
        max_celsius: Some(0.0),
        critical_celsius: None,
    };
    let read = NodeReport {
        node: Some(delly()),
        collected_at: Some(at()),
        epoch: EPOCH,
        revision: 42,
        readings: vec![reading],
        unreadable_reason: String::new(),
    };
    let not_read =
        NodeReport { node: Some(minipc()), unreadable_reason: "no sensors".into(), ..NodeReport::default() };
    let reports = vec![read, not_read];
    assert_golden(&ReportTemperaturesRequest { session: ID.into(), sequence: 7, reports }, REPORT);
}

/// A later version may say more: an older one reads what it knows.
#[test]
fn fields_and_kinds_of_a_later_version_are_skipped() {
    // Field 100, a varint, behind what is known.
    let mut bytes = snapshot().encode_to_vec();
    bytes.extend([0xa0, 0x06, 0x01]);
    assert_eq!(AllowlistSnapshot::decode(&bytes[..]).unwrap(), snapshot());
    // A kind with the number 14: a sign of life and nothing more.
    let later = WatchAuthorizedNodesResponse::decode(&[0x72, 0x00][..]).unwrap();
    assert_eq!(later, WatchAuthorizedNodesResponse::default());
    // An enum's value is kept as its number.
    let reading = Reading::decode(&[0x20, 0x63][..]).unwrap();
    assert_eq!((reading.kind, reading.kind()), (0x63, SensorKind::Unspecified));
}

#[test]
fn no_field_value_or_method_has_changed() {
    let descriptors = FileDescriptorSet::decode(pulse_proto::DESCRIPTORS).unwrap();
    let ours = descriptors.file.iter().find(|file| file.package() == "pulse.control.v1").unwrap();
    let mut lines = Vec::new();
    for service in &ours.service {
        for method in &service.method {
            let streams = if method.server_streaming() { "stream " } else { "" };
            assert!(!method.client_streaming());
            lines.push(format!(
                "rpc {}/{} {} -> {streams}{}",
                service.name(),
                method.name(),
                short(method.input_type()),
                short(method.output_type())
            ));
        }
    }
    ours.message_type.iter().for_each(|message| describe_message(message, &mut lines));
    ours.enum_type.iter().for_each(|kind| describe_enum(kind, &mut lines));
    lines.sort();

    let golden: Vec<&str> = include_str!("wire_compat.txt").lines().collect();
    let gone: Vec<_> = golden.iter().filter(|line| !lines.iter().any(|now| now == *line)).collect();
    assert!(gone.is_empty(), "what older programs rely on is gone or changed: {gone:#?}");
    let new: Vec<_> = lines.iter().filter(|line| !golden.contains(&line.as_str())).collect();
    assert!(new.is_empty(), "the contract grew: put these lines into tests/wire_compat.txt: {new:#?}");
}

fn describe_message(message: &DescriptorProto, lines: &mut Vec<String>) {
    assert!(
        message.nested_type.is_empty() && message.enum_type.is_empty(),
        "this test sees the top level only"
    );
    for field in &message.field {
        let scalar = format!("{:?}", field.r#type()).to_lowercase();
        let kind = if field.type_name().is_empty() { &scalar } else { short(field.type_name()) };
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        // A field's presence, or membership in a oneof, is part of what it means.
        let oneof = match (field.oneof_index, field.proto3_optional()) {
            (Some(_), true) => ", with presence".to_owned(),
            (Some(index), false) => {
                format!(
                    ", one of {}",
                    message.oneof_decl[usize::try_from(index).expect("an index is not negative")].name()
                )
            }
            (None, _) => String::new(),
        };
        let (name, number) = (field.name(), field.number());
        lines.push(format!("field {}.{name} = {number}: {repeated}{kind}{oneof}", message.name()));
    }
}

/// A type's name without the package, if it is ours.
fn short(name: &str) -> &str {
    name.strip_prefix(".pulse.control.v1.").unwrap_or(name)
}

fn describe_enum(kind: &EnumDescriptorProto, lines: &mut Vec<String>) {
    for value in &kind.value {
        lines.push(format!("value {} = {}", value.name(), value.number()));
    }
}
