//! The bytes of every message, as this version writes them, recorded in `tests/golden/VERSION/`: what a version has once
//! written, each later one must read as the same, and write the same.
//!
//! Each message is recorded empty and filled wholly, and once for each kind of a oneof; a `.hex` file has the bytes, the
//! `.txt` beside it says what they mean. The fields are taken from the descriptors, so a new one is recorded without a
//! change here: `UPDATE_GOLDEN=1 cargo test --test golden_bytes`. That writes the present version's folder only; the folders of
//! versions that were released are never written again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fs};

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use pulse_proto::{hex, reason, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Reads bytes as a message of this name and writes them again; a name that is missing here is found by a test.
macro_rules! messages {
    ($($name:ident)*) => {
        fn written_again(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
            match name {
                $(stringify!($name) => {
                    Some(v1::$name::decode(bytes).expect("recorded bytes are a message").encode_to_vec())
                })*
                _ => None,
            }
        }
    };
}

messages! {
    AllowlistSnapshot Bookmark Goodbye Instance Node NodeReport Reading RefusedNode RegisterRequest RegisterResponse
    ReportSyncRequest ReportSyncResponse ReportTemperaturesRequest ReportTemperaturesResponse Revoked RotateToken
    RotateTokenRequest RotateTokenResponse ServerInfo SigningKey Unchanged UnregisterRequest UnregisterResponse Waiting
    WatchAuthorizedNodesRequest WatchAuthorizedNodesResponse
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(pulse_proto::DESCRIPTORS).expect("the build made descriptors")
}

fn contract() -> FileDescriptorProto {
    let ours = descriptors().file.into_iter().find(|file| file.package() == "pulse.control.v1");
    ours.expect("the contract is among them")
}

/// A message of the contract or of what it imports, by its full name with the dot in front.
fn message(full_name: &str) -> DescriptorProto {
    for file in descriptors().file {
        let package = file.package().to_owned();
        for message in file.message_type {
            if format!(".{package}.{}", message.name()) == full_name {
                return message;
            }
        }
    }
    panic!("there is no message {full_name}");
}

/// A message with all its fields; of each oneof the member that `kind` names, or the first.
fn filled(message: &DescriptorProto, kind: Option<&str>) -> Vec<u8> {
    let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    let mut taken = Vec::new();
    let mut bytes = Vec::new();
    for field in fields {
        // An optional field is a oneof of its own to protobuf.
        if let Some(oneof) = field.oneof_index.filter(|_| !field.proto3_optional()) {
            let is_meant = match kind.filter(|kind| {
                message.field.iter().any(|other| other.name() == *kind && other.oneof_index == Some(oneof))
            }) {
                Some(kind) => field.name() == kind,
                None => !taken.contains(&oneof),
            };
            if !is_meant {
                continue;
            }
            taken.push(oneof);
        }
        put(field, &mut bytes);
    }
    bytes
}

/// Adds a field with a value that is no field's default and tells which field it is.
fn put(field: &FieldDescriptorProto, bytes: &mut Vec<u8>) {
    let number = field.number().cast_unsigned();
    let mut delimited = |value: &[u8]| {
        encode_key(number, WireType::LengthDelimited, bytes);
        encode_varint(value.len() as u64, bytes);
        bytes.extend_from_slice(value);
    };
    match field.r#type() {
        Type::String => {
            delimited(field.name().as_bytes());
            if field.label() == Label::Repeated {
                delimited(b"");
            }
        }
        Type::Bytes => delimited(&[0x00, 0x7f, 0x80, 0xff]),
        Type::Message => {
            match field.type_name() {
                ".google.protobuf.Timestamp" => {
                    delimited(
                        &prost_types::Timestamp { seconds: 1_763_600_000, nanos: 250_000_000 }
                            .encode_to_vec(),
                    );
                }
                ".google.protobuf.Duration" => {
                    delimited(&prost_types::Duration { seconds: 60, nanos: 500_000_000 }.encode_to_vec());
                }
                name => delimited(&filled(&message(name), None)),
            }
            if field.label() == Label::Repeated {
                delimited(&[]);
            }
        }
        Type::Double => {
            encode_key(number, WireType::SixtyFourBit, bytes);
            // What is optional may be set to its default, and is something else than unset.
            let value: f64 = if field.proto3_optional() { 0.0 } else { 42.5 };
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Type::Bool => {
            encode_key(number, WireType::Varint, bytes);
            encode_varint(1, bytes);
        }
        Type::Enum => {
            let short = field.type_name().rsplit('.').next().unwrap_or_default();
            let about =
                contract().enum_type.into_iter().find(|kind| kind.name() == short).expect("it is ours");
            let highest = about.value.iter().map(|value| value.number()).max().expect("an enum has values");
            encode_key(number, WireType::Varint, bytes);
            encode_varint(u64::from(highest.cast_unsigned()), bytes);
        }
        Type::Uint64 => {
            encode_key(number, WireType::Varint, bytes);
            // As a signed number it would be negative, were it written so.
            encode_varint((1 << 62) + u64::from(number), bytes);
        }
        Type::Uint32 | Type::Int64 | Type::Int32 => {
            encode_key(number, WireType::Varint, bytes);
            encode_varint(1_000_000 + u64::from(number), bytes);
        }
        other => panic!("a field of {other:?}: say here what it is filled with"),
    }
}

/// What bytes mean: a line for each field, by its name.
fn meaning(message_name: &str, mut bytes: &[u8], indent: usize, text: &mut String) {
    let about = message(message_name);
    while !bytes.is_empty() {
        let (number, kind) = decode_key(&mut bytes).expect("a field begins with its key");
        let field = about.field.iter().find(|field| field.number().cast_unsigned() == number);
        let field = field.unwrap_or_else(|| panic!("{message_name} has no field {number} any more"));
        write!(text, "{:indent$}{}: ", "", field.name()).expect("writing to a String does not fail");
        let line = match kind {
            WireType::Varint => {
                let value = decode_varint(&mut bytes).expect("a number follows");
                let short = field.type_name().rsplit('.').next().unwrap_or_default();
                let ours = contract().enum_type.into_iter().find(|kind| kind.name() == short);
                let named = ours.and_then(|kind| {
                    kind.value.into_iter().find(|v| i64::from(v.number()) == value.cast_signed())
                });
                named.map_or_else(|| value.to_string(), |value| value.name().to_owned())
            }
            WireType::SixtyFourBit => {
                let (value, rest) = bytes.split_first_chunk().expect("eight bytes follow");
                bytes = rest;
                format!("{:?}", f64::from_le_bytes(*value))
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).expect("a length follows"));
                let (value, rest) = bytes.split_at(length.expect("it is short"));
                bytes = rest;
                match field.r#type() {
                    Type::Message => {
                        text.push_str("{\n");
                        meaning(field.type_name(), value, indent + 2, text);
                        format!("{:indent$}}}", "")
                    }
                    Type::String => format!("{:?}", String::from_utf8_lossy(value)),
                    _ => hex::encode(value),
                }
            }
            other => panic!("the contract has no {other:?}"),
        };
        text.push_str(&line);
        text.push('\n');
    }
}

/// Everything that this version records: bytes by name, which is `MESSAGE.WHAT`.
fn recordings() -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for message in &contract().message_type {
        all.insert(format!("{}.empty", message.name()), Vec::new());
        all.insert(format!("{}.full", message.name()), filled(message, None));
        let members =
            message.field.iter().filter(|field| field.oneof_index.is_some() && !field.proto3_optional());
        for member in members {
            all.insert(format!("{}.{}", message.name(), member.name()), filled(message, Some(member.name())));
        }
    }
    all
}

/// The details of an error, as they stand in `grpc-status-details-bin`: every kind that Pulse sends.
fn details() -> Vec<u8> {
    let mut details = ErrorDetails::with_error_info(reason::INVALID_REQUEST, reason::DOMAIN, []);
    details.set_retry_info(Some(Duration::from_millis(7_500)));
    details.add_bad_request_violation("reports[0].node", "it is missing");
    Status::with_error_details(Code::InvalidArgument, "reports[0].node: it is missing", details)
        .details()
        .to_vec()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// In lines of 48 bytes.
fn hex_lines(bytes: &[u8]) -> String {
    bytes.chunks(48).map(|line| hex::encode(line) + "\n").collect()
}

fn from_hex(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("it is ASCII"), 16);
    digits.chunks(2).map(|digits| pair(digits).expect("two hex digits")).collect()
}

fn described(name: &str, bytes: &[u8]) -> String {
    let short = name.split('.').next().unwrap_or(name);
    let mut text = String::new();
    meaning(&format!(".pulse.control.v1.{short}"), bytes, 0, &mut text);
    text
}

fn present() -> PathBuf {
    folder().join(env!("CARGO_PKG_VERSION"))
}

/// The present version's files by name.
fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (name, bytes) in recordings() {
        files.insert(format!("{name}.hex"), hex_lines(&bytes));
        files.insert(format!("{name}.txt"), described(&name, &bytes));
    }
    files.insert("error_details.hex".to_owned(), hex_lines(&details()));
    files
}

/// Records anew, if that is asked for; before anything is read.
static UPDATED: LazyLock<()> = LazyLock::new(|| {
    if env::var_os("UPDATE_GOLDEN").is_none() {
        return;
    }
    // An error means that there is none yet.
    let _ = fs::remove_dir_all(present());
    fs::create_dir_all(present()).expect("the folder can be made");
    for (name, text) in files() {
        fs::write(present().join(name), text).expect("the folder can be written");
    }
});

#[test]
fn this_version_writes_what_is_recorded() {
    let (ours, files) = (present(), files());
    LazyLock::force(&UPDATED);
    let entries = fs::read_dir(&ours).unwrap_or_else(|error| panic!("{}: {error}", ours.display()));
    let there = entries.map(|entry| entry.expect("the folder can be listed").path());
    let there: BTreeMap<String, String> = there
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a recording is text");
            (path.file_name().expect("a file has a name").to_string_lossy().into_owned(), text)
        })
        .collect();
    let differing: Vec<_> =
        files.iter().filter(|(name, text)| there.get(*name) != Some(text)).map(|(name, _)| name).collect();
    let unknown: Vec<_> = there.keys().filter(|name| !files.contains_key(*name)).collect();
    assert!(
        differing.is_empty() && unknown.is_empty(),
        "not as recorded: {differing:?}, no longer written: {unknown:?}; if the contract only grew: UPDATE_GOLDEN=1 cargo test --test golden_bytes"
    );
}

#[test]
fn what_any_version_recorded_is_read_as_the_same_and_written_the_same() {
    LazyLock::force(&UPDATED);
    let mut read = 0;
    for version in fs::read_dir(folder()).expect("there are recordings") {
        let version = version.expect("the folder can be listed").path();
        for file in fs::read_dir(&version).expect("a version's folder can be listed") {
            let path = file.expect("the folder can be listed").path();
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            if path.extension().is_none_or(|extension| extension != "hex") || !name.contains('.') {
                continue;
            }
            let bytes = from_hex(&path);
            let message = name.split('.').next().unwrap_or_default();
            let again = written_again(message, &bytes);
            let again =
                again.unwrap_or_else(|| panic!("{message} is missing in this test's list of messages"));
            assert_eq!(again, bytes, "{}", path.display());
            let text = fs::read_to_string(path.with_extension("txt")).expect("a text stands beside it");
            assert_eq!(described(&name, &bytes), text, "{}", path.display());
            read += 1;
        }
        // Error details are google.rpc's messages, which tonic-types reads.
        let bytes = from_hex(&version.join("error_details.hex"));
        let status = Status::with_details(Code::InvalidArgument, "", bytes.into());
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some(reason::INVALID_REQUEST));
        assert_eq!(
            details.retry_info().and_then(|info| info.retry_delay),
            Some(Duration::from_millis(7_500))
        );
        assert_eq!(
            details.bad_request().map(|bad| bad.field_violations[0].field.as_str()),
            Some("reports[0].node")
        );
    }
    assert!(read > 50, "only {read} recordings were read");
}

/// The recordings' values are no defaults, so a field that is lost is noticed.
#[test]
fn every_field_of_every_message_is_in_its_full_recording() {
    for message in contract().message_type {
        let mut numbers: Vec<u32> = Vec::new();
        for (name, bytes) in
            recordings().iter().filter(|(name, _)| name.split('.').next() == Some(message.name()))
        {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (number, kind) = decode_key(&mut rest).expect("a field begins with its key");
                match kind {
                    WireType::Varint => assert_ne!(decode_varint(&mut rest), Ok(0), "{name}"),
                    WireType::SixtyFourBit => rest = &rest[8..],
                    _ => {
                        let length = decode_varint(&mut rest).unwrap();
                        rest = &rest[usize::try_from(length).unwrap()..];
                    }
                }
                numbers.push(number);
            }
        }
        for field in &message.field {
            assert!(numbers.contains(&field.number().cast_unsigned()), "{}.{}", message.name(), field.name());
        }
    }
}
