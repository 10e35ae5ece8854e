//! Messages as bytes, below any contract: for tests that send what no generated code can write.
//!
//! In: field numbers, types and values; the descriptors of the contract. Out: bytes. Always: what is asked for is
//! written, valid or not. Never: knows what a field means.

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet, MethodDescriptorProto};

/// A message under construction: its fields in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Wire(Vec<u8>);

impl Wire {
    /// A message without fields.
    #[must_use]
    pub fn new() -> Wire {
        Wire::default()
    }

    /// A message that begins as this one.
    #[must_use]
    pub fn from(message: &impl Message) -> Wire {
        Wire(message.encode_to_vec())
    }

    /// Adds a number.
    #[must_use]
    pub fn varint(mut self, field: u32, value: u64) -> Wire {
        encode_key(field, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
        self
    }

    /// Adds a text, bytes or a message.
    #[must_use]
    pub fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Wire {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(value.as_ref().len() as u64, &mut self.0);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    /// Adds a double, or another eight bytes.
    #[must_use]
    pub fn double(mut self, field: u32, value: f64) -> Wire {
        encode_key(field, WireType::SixtyFourBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds four bytes.
    #[must_use]
    pub fn fixed32(mut self, field: u32, value: u32) -> Wire {
        encode_key(field, WireType::ThirtyTwoBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a group, which no proto3 file can declare, with these fields in it.
    #[must_use]
    pub fn group(mut self, field: u32, inside: Wire) -> Wire {
        encode_key(field, WireType::StartGroup, &mut self.0);
        self.0.extend(inside.0);
        encode_key(field, WireType::EndGroup, &mut self.0);
        self
    }

    /// Adds bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Wire {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a field of each wire type that no version of the contract has.
    #[must_use]
    pub fn unknown_fields(self) -> Wire {
        let inside = Wire::new().varint(1, 1).bytes(2, "inside");
        self.varint(1_000, u64::MAX)
            .double(2_000_000, f64::NAN)
            .bytes(150_000_000, "of a later version \u{1b}[31m")
            .group(500_000_000, inside)
            .fixed32((1 << 29) - 1, u32::MAX)
    }

    /// The same without one field.
    ///
    /// # Panics
    /// When what was added is no message.
    #[must_use]
    pub fn without(self, field: u32) -> Wire {
        let kept = fields(&self.0).into_iter().filter(|(number, ..)| *number != field);
        Wire(kept.flat_map(|(.., whole)| whole.to_vec()).collect())
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The descriptors of the contract's own file.
///
/// # Panics
/// When the build made none.
#[must_use]
pub fn contract() -> prost_types::FileDescriptorProto {
    let all = FileDescriptorSet::decode(pulse_proto::DESCRIPTORS).expect("the build made descriptors");
    let ours = all.file.into_iter().find(|file| file.package() == "pulse.control.v1");
    ours.expect("the contract is among them")
}

/// The methods of the contract.
///
/// # Panics
/// When the build made none.
#[must_use]
pub fn methods() -> Vec<MethodDescriptorProto> {
    contract().service.into_iter().flat_map(|service| service.method).collect()
}

/// A message's descriptor, by its short name; `None`: it is not of the contract (a timestamp, for one).
#[must_use]
pub fn message(name: &str) -> Option<DescriptorProto> {
    contract().message_type.into_iter().find(|message| message.name() == name)
}

/// The last part of a type's full name.
#[must_use]
pub fn short(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

/// The fields of a message, each with its number, its type, and all of its bytes.
fn fields(mut rest: &[u8]) -> Vec<(u32, WireType, &[u8])> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let whole = rest;
        let (number, kind) = decode_key(&mut rest).expect("a field begins with its key");
        match kind {
            WireType::Varint => drop(decode_varint(&mut rest).expect("a number follows")),
            WireType::SixtyFourBit => rest = &rest[8..],
            WireType::ThirtyTwoBit => rest = &rest[4..],
            WireType::LengthDelimited => {
                let length = decode_varint(&mut rest).expect("a length follows") as usize;
                rest = &rest[length..];
            }
            other => panic!("the contract has no {other:?}"),
        }
        fields.push((number, kind, &whole[..whole.len() - rest.len()]));
    }
    fields
}

/// The same message with unknown fields in it and in every message of the contract inside it.
///
/// # Panics
/// When the bytes are no message.
#[must_use]
pub fn with_unknown_fields(type_name: &str, bytes: &[u8]) -> Vec<u8> {
    let about = message(type_name);
    let inner = |number: u32| {
        let field = about.as_ref()?.field.iter().find(|field| field.number().cast_unsigned() == number)?;
        (field.r#type() == Type::Message).then(|| short(field.type_name()).to_owned())
    };
    let mut wire = Wire::new();
    for (number, kind, mut whole) in fields(bytes) {
        match inner(number).filter(|_| kind == WireType::LengthDelimited) {
            Some(inner) => {
                decode_key(&mut whole).expect("it was read before");
                decode_varint(&mut whole).expect("it was read before");
                wire = wire.bytes(number, with_unknown_fields(&inner, whole));
            }
            None => wire = wire.raw(whole),
        }
    }
    wire.unknown_fields().into_bytes()
}
