//! What is spoken on a connection: the floors' frames, gRPC, NATS or Redis.
//!
//! In: bytes. Out: what was said, message by message, and bytes to answer with.

use std::sync::Arc;

use super::http2::{Heard, Http2};
use super::lines::{Nats, Redis};
use super::message::Messages;

/// What the server said.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// A whole message, of which the head is shown; `None`: a word without one, which only says that all is well.
    Message(Option<&'a [u8]>),
    /// A unary call's answer: the stream, gRPC's status, and whether its message was longer than a number takes.
    Answered { stream: u32, status: u8, is_long: bool },
    /// It ends, and why.
    End(String),
    /// Bytes may be sent that might not before.
    Credit,
}

/// How a gRPC call begins.
#[derive(Debug)]
pub(super) struct GrpcCall {
    pub(super) headers: Vec<u8>,
    pub(super) message: Arc<[u8]>,
    pub(super) is_end: bool,
    pub(super) window: u32,
}

/// What is spoken on one connection, and how far it is.
pub(super) enum Speech {
    Framed(Messages<4>),
    /// One call whose answers are many.
    Watch {
        call: Option<GrpcCall>,
        http2: Option<Http2>,
        messages: Messages<5>,
    },
    /// Many calls, each with one answer.
    Unary(UnaryStreams),
    Nats {
        greeting: String,
        nats: Nats,
    },
    Redis {
        greeting: String,
        redis: Redis,
    },
}

/// The unary calls of one connection.
pub(super) struct UnaryStreams {
    pub(super) http2: Option<Http2>,
    /// The headers of a watch that is opened first, and goes on beside the calls.
    watch: Option<Vec<u8>>,
    /// Bytes of the answers that are under way, by stream.
    bodies: Vec<(u32, usize)>,
}

impl UnaryStreams {
    pub(super) fn new(watch: Option<Vec<u8>>) -> UnaryStreams {
        UnaryStreams { http2: None, watch, bodies: Vec::new() }
    }
}

/// The stream of a connection's first call (RFC 9113, 5.1.1).
const FIRST_STREAM: u32 = 1;
/// A prefix of gRPC, and a field of a number: an answer that is longer says more than that number.
const NUMBER_BYTES: usize = 5 + 11;

impl Speech {
    /// The first bytes of the client.
    pub(super) fn greet(&mut self, out: &mut Vec<u8>) {
        match self {
            Speech::Framed(_) => {}
            Speech::Watch { call, http2, .. } => {
                let Some(call) = call.take() else { return };
                let mut opened = Http2::open(call.window, FIRST_STREAM, out);
                opened.request(FIRST_STREAM, &call.headers, &call.message, call.is_end, out);
                *http2 = Some(opened);
            }
            Speech::Unary(streams) => {
                let long_stream = if streams.watch.is_some() { FIRST_STREAM } else { 0 };
                let mut opened = Http2::open(1 << 20, long_stream, out);
                if let Some(headers) = &streams.watch {
                    // Empty: it holds nothing.
                    opened.request(FIRST_STREAM, headers, &[], true, out);
                }
                streams.http2 = Some(opened);
            }
            Speech::Nats { greeting, .. } | Speech::Redis { greeting, .. } => {
                out.extend_from_slice(greeting.as_bytes());
            }
        }
    }

    /// Takes bytes of the server.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>, said: &mut impl FnMut(Said<'_>)) {
        match self {
            Speech::Framed(messages) => messages.take(bytes, &mut |head| said(Said::Message(Some(head)))),
            Speech::Watch { http2, messages, .. } => {
                let Some(http2) = http2 else { return };
                http2.take(bytes, out, &mut |heard| match heard {
                    Heard::Data { bytes, .. } => {
                        messages.take(bytes, &mut |head| said(Said::Message(Some(head))));
                    }
                    Heard::Headers { is_end, status, .. }
                        if is_end || status.is_some_and(|status| status != 0) =>
                    {
                        let status = status.map_or("no".to_owned(), |status| status.to_string());
                        said(Said::End(format!("ended with gRPC status {status}")));
                    }
                    other => end_of(other, said),
                });
            }
            Speech::Unary(UnaryStreams { http2, watch, bodies }) => {
                let Some(http2) = http2 else { return };
                let is_watch = |stream| watch.is_some() && stream == FIRST_STREAM;
                http2.take(bytes, out, &mut |heard| match heard {
                    Heard::Data { stream, .. } if is_watch(stream) => {}
                    Heard::Headers { stream, status: Some(status), .. } if is_watch(stream) => {
                        said(Said::End(format!("the watch ended with gRPC status {status}")));
                    }
                    Heard::Reset { stream, code } if is_watch(stream) => {
                        said(Said::End(format!("the watch was reset with HTTP/2 code {code}")));
                    }
                    Heard::Data { stream, bytes } => match bodies.iter_mut().find(|body| body.0 == stream) {
                        Some(body) => body.1 += bytes.len(),
                        None => bodies.push((stream, bytes.len())),
                    },
                    Heard::Headers { stream, status: Some(status), .. } => {
                        let place = bodies.iter().position(|body| body.0 == stream);
                        let length = place.map_or(0, |place| bodies.swap_remove(place).1);
                        said(Said::Answered { stream, status, is_long: length > NUMBER_BYTES });
                    }
                    Heard::Reset { stream, .. } => {
                        // gRPC: what has no status is UNKNOWN.
                        said(Said::Answered { stream, status: 2, is_long: false });
                    }
                    Heard::Credit => said(Said::Credit),
                    other => end_of(other, said),
                });
            }
            Speech::Nats { nats, .. } => nats.take(bytes, out, said),
            Speech::Redis { redis, .. } => redis.take(bytes, said),
        }
    }
}

fn end_of(heard: Heard<'_>, said: &mut impl FnMut(Said<'_>)) {
    match heard {
        Heard::Reset { code, .. } => said(Said::End(format!("reset with HTTP/2 code {code}"))),
        Heard::GoAway { code, text } => said(Said::End(format!("GOAWAY with HTTP/2 code {code} {text:?}"))),
        _ => {}
    }
}
