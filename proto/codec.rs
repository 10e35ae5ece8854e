//! The server's codec: what comes in and is no message is the caller's mistake, and named so.
//!
//! Always: bytes that are no message are `INVALID_ARGUMENT` with the field in `BadRequest`; tonic's own codec calls them
//! an internal error of the server. Never: repeats what stands in the bytes.

use std::collections::HashMap;
use std::marker::PhantomData;

use prost::{DecodeError, Message};
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::ProstEncoder;
use tonic_types::{ErrorDetails, StatusExt};

use crate::reason;

/// Encodes answers, decodes requests.
#[derive(Debug)]
pub struct RequestCodec<Out, In>(PhantomData<fn() -> (Out, In)>);

impl<Out, In> Default for RequestCodec<Out, In> {
    fn default() -> Self {
        RequestCodec(PhantomData)
    }
}

impl<Out: Message + 'static, In: Message + Default + 'static> Codec for RequestCodec<Out, In> {
    type Encode = Out;
    type Decode = In;
    type Encoder = ProstEncoder<Out>;
    type Decoder = RequestDecoder<In>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder::default()
    }
}

/// Reads one request.
#[derive(Debug)]
pub struct RequestDecoder<In>(PhantomData<fn() -> In>);

impl<In> Default for RequestDecoder<In> {
    fn default() -> Self {
        RequestDecoder(PhantomData)
    }
}

impl<In: Message + Default> Decoder for RequestDecoder<In> {
    type Item = In;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<In>, Status> {
        In::decode(buffer).map(Some).map_err(|error| refusal(&error))
    }
}

/// The status of bytes that are no message.
fn refusal(error: &DecodeError) -> Status {
    let (field, rule) = place(&error.to_string());
    let mut details = ErrorDetails::with_error_info(reason::INVALID_REQUEST, reason::DOMAIN, HashMap::new());
    let text = if field.is_empty() {
        format!("the request is no message of its type: {rule}")
    } else {
        details.add_bad_request_violation(field.clone(), rule.clone());
        format!("{field}: {rule}")
    };
    Status::with_error_details(Code::InvalidArgument, text, details)
}

/// The field and the rule in what prost says: `failed to decode Protobuf message: Inner.field: Outer.field: rule`.
fn place(said: &str) -> (String, String) {
    let mut rule = said.strip_prefix("failed to decode Protobuf message: ").unwrap_or(said);
    let mut path = Vec::new();
    while let Some((head, rest)) = rule.split_once(": ")
        && let Some((_, field)) = head.split_once('.')
        && head.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
    {
        path.push(field);
        rule = rest;
    }
    path.reverse();
    (path.join("."), rule.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    /// The field that a refusal of these bytes names, and its text.
    fn refused<M: Message + Default + std::fmt::Debug>(bytes: &[u8]) -> (Option<String>, String) {
        let status = refusal(&M::decode(bytes).unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        let named = status.get_details_bad_request().map(|bad| bad.field_violations[0].field.clone());
        (named, status.message().to_owned())
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_by_field() {
        // `hostname` is two bytes that are no UTF-8.
        let (field, text) = refused::<v1::RegisterRequest>(&[0x0a, 2, 0xc3, 0x28]);
        assert_eq!(field.as_deref(), Some("hostname"));
        assert!(text.contains("UTF-8"), "{text}");
        // The name of the node of a report, in the third message down.
        let (field, _) = refused::<v1::ReportTemperaturesRequest>(&[0x1a, 6, 0x0a, 4, 0x0a, 2, 0xc3, 0x28]);
        assert_eq!(field.as_deref(), Some("reports.node.name"));
        // A text where a number belongs.
        let (field, text) = refused::<v1::ReportSyncRequest>(&[0x0a, 1, b'x']);
        assert_eq!(field.as_deref(), Some("epoch"));
        assert!(text.contains("wire type"), "{text}");
        // No field at all.
        let (field, text) = refused::<v1::RegisterRequest>(&[0x07]);
        assert_eq!(field, None);
        assert!(text.starts_with("the request is no message of its type: "), "{text}");
    }
}
