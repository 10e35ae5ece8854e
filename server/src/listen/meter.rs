//! How much of what comes over a connection of HTTP/2 asks for nothing: pings, settings, priorities, unknown frames.
//!
//! In: the bytes that a caller sends, on their way to h2. Out: the same, or an error once such frames come faster than any
//! client has a use for. h2 bounds streams that are reset and headers that go on; these it answers, for ever. A caller whose bytes
//! never end lets others have their turn.
//! Always: only the nine bytes before each frame are looked at. Never: changes or holds back a byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::through::writes_pass_through;

/// What begins a connection, before the first frame (RFC 9113, 3.4).
const PREFACE_BYTES: u32 = 24;

/// The bytes before a frame's own: its length in 24 bits, its type, its flags, its stream (RFC 9113, 4.1).
const HEADER_BYTES: usize = 9;

/// What may come in one span. A client that measures its line sends a ping for some of the data frames that it gets, one that
/// keeps it alive a ping every few seconds, and one that is sent 1.5 GB opens its windows so often.
const MOST_POINTS: u32 = 200_000;
const SPAN: Duration = Duration::from_secs(10);

/// What each frame counts. A window that is opened, a stream that is reset, and what answers the server: 20,000 a second may come.
const WINDOW_POINTS: u32 = 1;
/// A ping: 5,000 a second, as a client of Go sends one for each round trip while it is answered.
const PING_POINTS: u32 = 4;
/// Settings, priorities, unknown frames: 1,000 a second.
const POINTS: u32 = 20;

/// After so many reads in a row that found bytes others have their turn.
const READS_OF_A_TURN: u32 = 32;

/// The flag of settings and pings that are an answer (RFC 9113, 6.5 and 6.7).
const ACK: u8 = 0x1;

/// A stream whose frames are counted as they come.
#[derive(Debug)]
pub(super) struct Metered<S> {
    inner: S,
    /// The begun header of the next frame.
    header: [u8; HEADER_BYTES],
    header_len: u8,
    /// How many bytes there are before the next header.
    skip: u32,
    points: u32,
    since: Instant,
    /// How often bytes were there at once, one time after the other.
    reads: u32,
}

/// The kind of the error, as h2 keeps no more of one than its kind and its text.
pub(super) const FLOOD: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// Too many frames that ask for nothing.
#[derive(Debug, thiserror::Error)]
#[error("more frames that ask for nothing came in {} s than any client has a use for", SPAN.as_secs())]
struct Flood;

impl<S> Metered<S> {
    /// Of a stream that begins with the preface.
    pub(super) fn new(inner: S) -> Metered<S> {
        let header = [0; HEADER_BYTES];
        Metered {
            inner,
            header,
            header_len: 0,
            skip: PREFACE_BYTES,
            points: 0,
            since: Instant::now(),
            reads: 0,
        }
    }

    fn look(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= u32::try_from(skipped).expect("it is at most what was to be skipped");
            bytes = &bytes[skipped..];
            let had = usize::from(self.header_len);
            let some = bytes.len().min(HEADER_BYTES - had);
            self.header[had..had + some].copy_from_slice(&bytes[..some]);
            bytes = &bytes[some..];
            self.header_len = u8::try_from(had + some).expect("a header has nine bytes");
            if had + some == HEADER_BYTES {
                self.header_len = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                self.count(kind, flags)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: u8, flags: u8) -> Result<(), Flood> {
        self.points += match kind {
            // Data, headers and continuations belong to streams, which are bounded (RFC 9113, 6).
            0x0 | 0x1 | 0x9 => return Ok(()),
            // A stream that is over is reset for nothing.
            0x3 | 0x8 => WINDOW_POINTS,
            0x4 | 0x6 if flags & ACK != 0 => WINDOW_POINTS,
            0x6 => PING_POINTS,
            _ => POINTS,
        };
        if self.points <= MOST_POINTS {
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(self.since) < SPAN {
            return Err(Flood);
        }
        (self.points, self.since) = (0, now);
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if self.reads == READS_OF_A_TURN {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, into) else {
            self.reads = 0;
            return Poll::Pending;
        };
        self.reads += 1;
        read?;
        Poll::Ready(self.look(&into.filled()[before..]).map_err(|flood| io::Error::new(FLOOD, flood)))
    }
}

writes_pass_through!(Metered);

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut frame = u32::try_from(payload).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEADER_BYTES + payload, 0x6);
        frame
    }

    fn begun() -> Metered<()> {
        let mut metered = Metered::new(());
        metered.look(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        metered
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_told_apart_wherever_their_bytes_are_cut() {
        let frames = [frame(0x6, 8), frame(0x0, 300), frame(0x4, 0), frame(0x1, 20), frame(0xb, 1)].concat();
        for size in 1..frames.len() {
            let mut metered = begun();
            frames.chunks(size).for_each(|part| metered.look(part).unwrap());
            assert_eq!(
                (metered.points, metered.skip, metered.header_len),
                (2 * POINTS + PING_POINTS, 0, 0),
                "in parts of {size}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_asks_for_nothing_is_bounded_in_time_and_what_asks_for_something_is_not() {
        let mut metered = begun();
        let (ping, window, data) = (frame(0x6, 8), frame(0x8, 4), frame(0x0, 10));
        let mut take = |frame: &[u8], times| (0..times).try_for_each(|_| metered.look(frame));
        take(&data, 2 * MOST_POINTS).unwrap();
        take(&ping, MOST_POINTS / PING_POINTS / 2).unwrap();
        take(&window, MOST_POINTS / WINDOW_POINTS / 2).unwrap();
        tokio::time::advance(SPAN).await;
        take(&frame(0x4, 0), MOST_POINTS / POINTS).unwrap();
        take(&ping, 10).unwrap_err();
    }
}
