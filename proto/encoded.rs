//! [`Encoded`]: a message that is encoded once and sent many times.
//!
//! A list goes to every stream of its scope; encoding it for each would cost more than sending it.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

use crate::codec::RequestDecoder;

/// The bytes in front of a message of gRPC: one says whether it is compressed, four how long it is, big-endian.
/// Source: "gRPC over HTTP/2", Length-Prefixed-Message, <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
const PREFIX_BYTES: usize = 5;

/// The bytes of a message `M`, with the prefix that it has on the wire. Cloning shares them.
#[derive(Debug)]
pub struct Encoded<M> {
    frame: Bytes,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Encoded<M> {
    /// Encodes a message.
    pub fn new(message: &M) -> Encoded<M> {
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
        put_prefix(&mut frame, message.encoded_len());
        message.encode(&mut frame).expect("a buffer that grows takes every message");
        Encoded { frame: frame.freeze(), message: PhantomData }
    }

    /// This message with the fields of another: the bytes of two protobuf messages in a row are the two merged.
    pub fn merged(&self, other: &Encoded<M>) -> Encoded<M> {
        let (one, two) = (self.as_bytes(), other.as_bytes());
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + one.len() + two.len());
        put_prefix(&mut frame, one.len() + two.len());
        frame.put(one);
        frame.put(two);
        Encoded { frame: frame.freeze(), message: PhantomData }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.frame[PREFIX_BYTES..]
    }

    /// A message whose bytes are as they are on the wire: those of [`Encoded::into_frame`].
    pub fn of_frame(frame: Bytes) -> Encoded<M> {
        debug_assert!(frame.len() >= PREFIX_BYTES, "it has its prefix");
        Encoded { frame, message: PhantomData }
    }

    /// Its bytes as they are on the wire, with the prefix of gRPC.
    pub fn into_frame(self) -> Bytes {
        self.frame
    }
}

fn put_prefix(frame: &mut BytesMut, message_bytes: usize) {
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message_bytes).expect("a message of protobuf has less than 2 GiB"));
}

impl<M> Clone for Encoded<M> {
    fn clone(&self) -> Self {
        Encoded { frame: self.frame.clone(), message: PhantomData }
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
        // tonic writes a prefix of its own.
        buffer.put(item.as_bytes());
        Ok(())
    }
}
