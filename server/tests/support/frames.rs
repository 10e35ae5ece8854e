//! A client of HTTP/2 that does by hand, frame by frame, what a library would do for it, or leaves it.
//!
//! In: a connection. Out: the frames that come, one by one. Always: nothing is sent that was not asked for, but for the
//! acknowledgement of settings and pings, which [`Frames::next`] gives while it reads. Never: opens a window by itself.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use prost::Message;
use pulse_proto::Allowlist;
use pulse_test_support::in_time;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{AllowlistSnapshot, WatchAuthorizedNodesResponse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::raw::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    call_headers, frame,
};
use crate::scene::SERVICE;

/// The flag with which settings and pings are acknowledged.
const ACK: u8 = 1;
/// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113, 6.5.2): what a stream may be sent before its window is opened further.
pub(crate) const INITIAL_WINDOW: u16 = 4;
/// The window of a connection, and of a stream that settings say nothing of (RFC 9113, 6.9.2).
pub(crate) const DEFAULT_WINDOW: usize = 65_535;
/// The error code of a client that wants no more of a stream (RFC 9113, 7).
pub(crate) const CANCEL: u32 = 8;

/// One frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn is(&self, kind: u8, stream: u32) -> bool {
        self.kind == kind && self.stream == stream
    }

    /// Whether the stream is over with this frame.
    pub(crate) fn ends(&self, stream: u32) -> bool {
        let has_end = matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0;
        self.stream == stream && (has_end || self.kind == RST_STREAM)
    }
}

/// A connection.
pub(crate) struct Frames<S> {
    stream: S,
    /// What was read and is no whole frame yet.
    read: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Sends the preface with these settings.
    pub(crate) async fn greet(mut stream: S, settings: &[(u16, u32)]) -> Frames<S> {
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()))
            .collect();
        stream.write_all(PREFACE).await.expect("the connection is new");
        stream.write_all(&frame(SETTINGS, 0, 0, &settings)).await.expect("the connection is new");
        Frames { stream, read: BytesMut::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the connection lives");
    }

    async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Asks for a watch by one who holds nothing.
    pub(crate) async fn watch(&mut self, stream: u32, token: &str) {
        self.send(&watch_request(stream, token)).await;
    }

    /// Lets the server send so many bytes more on a stream; on stream 0: on all of them together.
    pub(crate) async fn grant(&mut self, stream: u32, bytes: u32) {
        self.send(&window_update(stream, bytes)).await;
    }

    /// Wants no more of a stream.
    pub(crate) async fn reset(&mut self, stream: u32) {
        self.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).await;
    }

    /// The next frame; `None` when the connection has ended. What was read stays, if this is given up.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.whole() {
                let answer = match frame.kind {
                    SETTINGS if frame.flags & ACK == 0 => Some(crate::raw::frame(SETTINGS, ACK, 0, &[])),
                    PING if frame.flags & ACK == 0 => Some(crate::raw::frame(PING, ACK, 0, &frame.payload)),
                    _ => None,
                };
                if let Some(answer) = answer {
                    // A server that goes away needs none.
                    let _ = self.try_send(&answer).await;
                }
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn whole(&mut self) -> Option<Frame> {
        let head = self.read.get(..9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if self.read.len() < 9 + length {
            return None;
        }
        self.read.advance(9);
        Some(Frame { kind, flags, stream, payload: self.read.split_to(length).to_vec() })
    }

    /// The next frame that this is true of; those before it are dropped.
    ///
    /// # Panics
    /// When the connection or the time ends first.
    pub(crate) async fn until(
        &mut self,
        within: Duration,
        what: &str,
        mut is_it: impl FnMut(&Frame) -> bool,
    ) -> Frame {
        let look = async {
            loop {
                let frame = self.next().await.unwrap_or_else(|| panic!("the connection ended before {what}"));
                if is_it(&frame) {
                    return frame;
                }
                assert_ne!(frame.kind, GOAWAY, "{frame:?} before {what}");
            }
        };
        let late = |_| panic!("not within {within:?}: {what}");
        tokio::time::timeout(within, look).await.unwrap_or_else(late)
    }

    /// The socket, for who wants to leave in a way of its own.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// The frames of a watch by one who holds nothing: the call is whole with them.
pub(crate) fn watch_request(stream: u32, token: &str) -> Vec<u8> {
    let headers = call_headers(&format!("{SERVICE}/WatchAuthorizedNodes"), token);
    // A message of no bytes, with its prefix: everything is as by default.
    [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

/// The messages of streams, put together from their frames.
///
/// Always: each is whole and says what was hashed, or this panics: a torn one is what these tests look for.
#[derive(Default)]
pub(crate) struct Messages(HashMap<u32, BytesMut>);

impl Messages {
    /// The messages that are whole with this frame; one of another kind brings none.
    pub(crate) fn of(&mut self, frame: &Frame) -> Vec<WatchAuthorizedNodesResponse> {
        if frame.kind != DATA {
            return Vec::new();
        }
        let bytes = self.0.entry(frame.stream).or_default();
        bytes.extend_from_slice(&frame.payload);
        let mut messages = Vec::new();
        while bytes.len() >= 5 {
            assert_eq!(bytes[0], 0, "a message begins with its flag, and none is compressed");
            let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
            assert!(length <= pulse_proto::MAX_MESSAGE_BYTES, "no message is that long: {length}");
            if bytes.len() < 5 + length {
                break;
            }
            bytes.advance(5);
            let message = WatchAuthorizedNodesResponse::decode(bytes.split_to(length));
            let message = message.expect("what came is a whole message");
            if let Some(Kind::Snapshot(list)) = &message.kind {
                let nodes = Allowlist::from_wire(&list.nodes).expect("the nodes are nodes");
                assert_eq!(nodes.hash().to_string(), list.hash, "what came is what was hashed");
            }
            messages.push(message);
        }
        messages
    }

    /// How many bytes a stream brought of a message that is not whole.
    pub(crate) fn begun(&self, stream: u32) -> usize {
        self.0.get(&stream).map_or(0, BytesMut::len)
    }
}

/// A watch that is read frame by frame. Always: the windows are opened by as much as was read, so it goes on as with a
/// library, unless its owner does otherwise.
pub(crate) struct Watcher<S> {
    pub(crate) frames: Frames<S>,
    pub(crate) stream: u32,
    messages: Messages,
    heard: VecDeque<Kind>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watcher<S> {
    /// Begins a connection with these settings, and a watch on it by one who holds nothing.
    pub(crate) async fn begin(stream: S, settings: &[(u16, u32)], token: &str) -> Watcher<S> {
        let mut frames = Frames::greet(stream, settings).await;
        frames.watch(1, token).await;
        Watcher { frames, stream: 1, messages: Messages::default(), heard: VecDeque::new() }
    }

    /// Wants no more of the stream, and begins another one on the same connection.
    pub(crate) async fn begin_again(&mut self, token: &str) {
        let stream = self.stream;
        self.frames.reset(stream).await;
        self.stream += 2;
        self.heard.clear();
        self.frames.watch(self.stream, token).await;
    }

    /// What is said next that is no bookmark; `None` when the stream ends.
    pub(crate) async fn next(&mut self) -> Option<Kind> {
        let stream = self.stream;
        let next = async {
            loop {
                if let Some(kind) = self.heard.pop_front() {
                    return Some(kind);
                }
                let frame = self.frames.next().await?;
                if frame.kind == DATA && !frame.payload.is_empty() {
                    let bytes = u32::try_from(frame.payload.len()).expect("a frame has 24 bits of length");
                    // That of an earlier stream counts for the connection all the same.
                    let mut windows = vec![0];
                    windows.extend((frame.stream == stream).then_some(stream));
                    for window in windows {
                        // A server that has said its last needs no window any more.
                        let _ = self.frames.try_send(&window_update(window, bytes)).await;
                    }
                }
                if frame.stream != stream {
                    continue;
                }
                let kinds = self.messages.of(&frame).into_iter().filter_map(|message| message.kind);
                self.heard.extend(kinds.filter(|kind| !matches!(kind, Kind::Bookmark(_))));
                if frame.ends(stream) && self.heard.is_empty() {
                    return None;
                }
            }
        };
        in_time("a message of the watch", next).await
    }

    /// The next list.
    ///
    /// # Panics
    /// When something else comes.
    pub(crate) async fn list(&mut self) -> AllowlistSnapshot {
        match self.next().await {
            Some(Kind::Snapshot(list)) => list,
            other => panic!("a list was awaited, and this came: {other:?}"),
        }
    }

    /// The lists until this one comes, itself among them.
    pub(crate) async fn lists_until(&mut self, hash: &str) -> Vec<AllowlistSnapshot> {
        let mut lists = vec![self.list().await];
        while lists.last().is_some_and(|list| list.hash != hash) {
            lists.push(self.list().await);
        }
        lists
    }

    /// Reads without opening any window until so many bytes of a message have come, and the message is not whole.
    pub(crate) async fn takes_only(&mut self, bytes: usize) {
        let stream = self.stream;
        let take = async {
            while self.messages.begun(stream) < bytes {
                let frame = self.frames.next().await.expect("the connection lives");
                assert!(!frame.ends(stream), "the stream has ended: {frame:?}");
                if frame.stream == stream {
                    let whole = self.messages.of(&frame);
                    self.heard.extend(whole.into_iter().filter_map(|message| message.kind));
                }
            }
        };
        in_time("a part of a list", take).await;
        assert_eq!(self.messages.begun(stream), bytes, "more than the window came");
    }

    /// Reads, and answers pings, without opening any window, until the server ends the stream. Returns the frame that
    /// does, and how long it took.
    pub(crate) async fn is_ended(&mut self, within: Duration) -> (Frame, Duration) {
        let (begun, stream) = (Instant::now(), self.stream);
        let end = self.frames.until(within, "the end of the stream", |frame| frame.ends(stream)).await;
        (end, begun.elapsed())
    }
}
