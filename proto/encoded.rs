//! [`Encoded`]: a message that is encoded once and sent many times.
//!
//! A list goes to every stream of its scope; encoding it for each would cost more than sending it.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

use crate::codec::RequestDecoder;

/// The bytes of a message `M`. Cloning shares them.
#[derive(Debug)]
pub struct Encoded<M> {
    bytes: Bytes,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Encoded<M> {
    /// Encodes a message.
    pub fn new(message: &M) -> Encoded<M> {
        Encoded { bytes: message.encode_to_vec().into(), message: PhantomData }
    }

    /// This message with the fields of another: the bytes of two protobuf messages in a row are the two merged.
    pub fn merged(&self, other: &Encoded<M>) -> Encoded<M> {
        Encoded { bytes: [&self.bytes[..], &other.bytes[..]].concat().into(), message: PhantomData }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<M> Clone for Encoded<M> {
    fn clone(&self) -> Self {
        Encoded { bytes: self.bytes.clone(), message: PhantomData }
    }
}

/// The server's codec for calls whose answers are [`Encoded`].
#[derive(Debug)]
pub struct EncodedCodec<Out, In>(PhantomData<fn() -> (Out, In)>);

impl<Out, In> Default for EncodedCodec<Out, In> {
    fn default() -> Self {
        EncodedCodec(PhantomData)
    }
}

impl<M, In> Codec for EncodedCodec<Encoded<M>, In>
where
    M: Message + 'static,
    In: Message + Default + 'static,
{
    type Encode = Encoded<M>;
    type Decode = In;
    type Encoder = EncodedEncoder<M>;
    type Decoder = RequestDecoder<In>;

    fn encoder(&mut self) -> Self::Encoder {
        EncodedEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder::default()
    }
}

/// Copies the bytes of [`Encoded`] messages.
#[derive(Debug)]
pub struct EncodedEncoder<M>(PhantomData<fn() -> M>);

impl<M: Message + 'static> Encoder for EncodedEncoder<M> {
    type Item = Encoded<M>;
    type Error = Status;

    fn encode(&mut self, item: Encoded<M>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item.bytes);
        Ok(())
    }
}
