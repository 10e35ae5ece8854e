//! HTTP/2 as a client needs it for gRPC, and no more (RFC 9113): frames in and out, windows, answers to SETTINGS and PING.
//!
//! In: bytes of one connection. Out: what was heard, and bytes to send. Always: the dynamic table of header compression
//! is set to nothing, so a header block can be read without those before it. Never: keeps the bytes of a message.

use super::message::Prefix;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Both windows of a connection before anybody says otherwise.
pub(super) const DEFAULT_WINDOW: u32 = 65_535;
/// A header block or another frame that is kept is never larger: it would be a mistake here or there.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// What the other end said.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// Bytes of a body.
    Data { stream: u32, bytes: &'a [u8] },
    /// A header block or trailers, with gRPC's status if it stands there; `is_end`: the stream's last frame.
    Headers { stream: u32, status: Option<u8>, is_end: bool },
    /// The stream ended with an HTTP/2 error code.
    Reset { stream: u32, code: u32 },
    /// The connection ends, with a code and a text.
    GoAway { code: u32, text: String },
    /// Bytes may be sent that might not before.
    Credit,
}

/// One connection's state.
#[derive(Debug)]
pub(super) struct Http2 {
    prefix: Prefix<9>,
    frame: Option<Frame>,
    kept: Vec<u8>,
    window: u32,
    taken: u32,
    /// The stream whose window is opened again along with the connection's; 0: none.
    long_stream: u32,
    /// How many bytes of bodies may still be sent on the connection.
    pub(super) credit: i64,
    /// A header block that CONTINUATION goes on with: its stream, and whether it ends that.
    open_block: Option<(u32, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    remaining: usize,
}

impl Http2 {
    /// The state, with the connection's first bytes put into `out`. `window` is how much may come in unacknowledged;
    /// `long_stream` the stream on which many messages come.
    pub(super) fn open(window: u32, long_stream: u32, out: &mut Vec<u8>) -> Http2 {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // HEADER_TABLE_SIZE 0, ENABLE_PUSH 0, INITIAL_WINDOW_SIZE.
        let mut settings = Vec::with_capacity(18);
        for (id, value) in [(1u16, 0u32), (2, 0), (4, window)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frame(out, SETTINGS, 0, 0, &settings);
        if window > DEFAULT_WINDOW {
            frame(out, WINDOW_UPDATE, 0, 0, &(window - DEFAULT_WINDOW).to_be_bytes());
        }
        Http2 {
            prefix: Prefix::default(),
            frame: None,
            kept: Vec::new(),
            window: window.max(DEFAULT_WINDOW),
            taken: 0,
            long_stream,
            credit: i64::from(DEFAULT_WINDOW),
            open_block: None,
        }
    }

    /// Takes bytes of the connection.
    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, heard: &mut impl FnMut(Heard<'_>)) {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => {
                    let Some(prefix) = self.prefix.take(&mut bytes) else { return };
                    Frame::parse(prefix)
                }
            };
            let (own, rest) = bytes.split_at(frame.remaining.min(bytes.len()));
            bytes = rest;
            frame.remaining -= own.len();
            if frame.kind == DATA && frame.flags & PADDED == 0 {
                if !own.is_empty() {
                    heard(Heard::Data { stream: frame.stream, bytes: own });
                    self.took(own.len(), out);
                }
                if frame.remaining == 0 && frame.flags & END_STREAM != 0 {
                    heard(Heard::Headers { stream: frame.stream, status: None, is_end: true });
                }
            } else if frame.remaining == 0 && self.kept.is_empty() {
                self.whole(frame, own, out, heard);
            } else {
                let room = MAX_KEPT_BYTES.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&own[..own.len().min(room)]);
                if frame.remaining == 0 {
                    let kept = std::mem::take(&mut self.kept);
                    self.whole(frame, &kept, out, heard);
                }
            }
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return;
            }
            if bytes.is_empty() {
                return;
            }
        }
    }

    /// A frame that is whole and not plain data.
    fn whole(&mut self, frame: Frame, payload: &[u8], out: &mut Vec<u8>, heard: &mut impl FnMut(Heard<'_>)) {
        let stream = frame.stream;
        match frame.kind {
            DATA => {
                // Padded: the padding counts for the window.
                let padding = payload.first().copied().map_or(0, usize::from);
                let body = payload.get(1..payload.len().saturating_sub(padding)).unwrap_or_default();
                heard(Heard::Data { stream, bytes: body });
                self.took(payload.len(), out);
            }
            HEADERS | CONTINUATION => {
                let mut block = payload;
                if frame.kind == HEADERS {
                    if frame.flags & PADDED != 0 {
                        let padding = block.first().copied().map_or(0, usize::from);
                        block = block.get(1..block.len().saturating_sub(padding)).unwrap_or_default();
                    }
                    if frame.flags & PRIORITY != 0 {
                        block = block.get(5..).unwrap_or_default();
                    }
                    self.open_block = Some((stream, frame.flags & END_STREAM != 0));
                }
                let is_end = self.open_block.is_some_and(|(_, is_end)| is_end);
                let is_last = frame.flags & END_HEADERS != 0;
                if is_last {
                    self.open_block = None;
                }
                heard(Heard::Headers { stream, status: grpc_status(block), is_end: is_end && is_last });
            }
            RST_STREAM => heard(Heard::Reset { stream, code: number(payload) }),
            SETTINGS if frame.flags & ACK == 0 => frame_out(out, SETTINGS, ACK, &[]),
            PING if frame.flags & ACK == 0 => frame_out(out, PING, ACK, payload),
            GOAWAY => {
                let code = number(payload.get(4..).unwrap_or_default());
                let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                heard(Heard::GoAway { code, text });
            }
            WINDOW_UPDATE if stream == 0 => {
                self.credit += i64::from(number(payload));
                heard(Heard::Credit);
            }
            _ => {}
        }
    }

    /// Counts bytes of bodies, and opens the windows again when half of them is used.
    fn took(&mut self, bytes: usize, out: &mut Vec<u8>) {
        self.taken += u32::try_from(bytes).expect("a frame is shorter than 16 MiB");
        if self.taken >= self.window / 2 {
            let opened = self.taken.to_be_bytes();
            frame(out, WINDOW_UPDATE, 0, 0, &opened);
            if self.long_stream != 0 {
                frame(out, WINDOW_UPDATE, 0, self.long_stream, &opened);
            }
            self.taken = 0;
        }
    }

    /// Puts a request of one message into `out`: headers made by [`request_headers`], and the message.
    pub(super) fn request(
        &mut self,
        stream: u32,
        headers: &[u8],
        message: &[u8],
        is_end: bool,
        out: &mut Vec<u8>,
    ) {
        frame(out, HEADERS, END_HEADERS, stream, headers);
        let length = u32::try_from(message.len()).expect("a message is shorter than 4 GiB");
        self.credit -= i64::from(length) + 5;
        let flags = if is_end { END_STREAM } else { 0 };
        frame_head(out, message.len() + 5, DATA, flags, stream);
        out.push(0);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(message);
    }
}

impl Frame {
    fn parse(prefix: [u8; 9]) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = prefix;
        let remaining = u32::from_be_bytes([0, a, b, c]) as usize;
        Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, remaining }
    }
}

fn number(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = u32::try_from(length).expect("a frame is shorter than 16 MiB").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    frame_head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

fn frame_out(out: &mut Vec<u8>, kind: u8, flags: u8, payload: &[u8]) {
    frame(out, kind, flags, 0, payload);
}

/// The header block of a gRPC call, as literals (RFC 7541, 6.2.2), with a bearer token if there is one.
pub(super) fn request_headers(is_tls: bool, authority: &str, path: &str, token: Option<&str>) -> Vec<u8> {
    // Indices of the static table: POST, and the two schemes.
    let mut block = vec![0x83, if is_tls { 0x87 } else { 0x86 }];
    indexed_name(&mut block, 4, path);
    indexed_name(&mut block, 1, authority);
    indexed_name(&mut block, 31, "application/grpc");
    block.push(0);
    text(&mut block, "te");
    text(&mut block, "trailers");
    if let Some(token) = token {
        indexed_name(&mut block, 23, &format!("Bearer {token}"));
    }
    block
}

fn indexed_name(block: &mut Vec<u8>, index: usize, value: &str) {
    integer(block, 0x0f, index);
    text(block, value);
}

fn text(block: &mut Vec<u8>, text: &str) {
    integer(block, 0x7f, text.len());
    block.extend_from_slice(text.as_bytes());
}

/// An integer whose prefix has the bits of `mask` (RFC 7541, 5.1), under leading bits that are 0.
fn integer(block: &mut Vec<u8>, mask: u8, value: usize) {
    if value < usize::from(mask) {
        block.push(u8::try_from(value).expect("it is below a byte's mask"));
        return;
    }
    block.push(mask);
    let mut rest = value - usize::from(mask);
    while rest >= 0x80 {
        block.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    block.push(u8::try_from(rest).expect("it is below 128"));
}

/// `grpc-status`, Huffman-coded and padded (RFC 7541, 5.2 and appendix B).
const GRPC_STATUS_CODED: [u8; 8] = [0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];

/// gRPC's status in a header block, if the name stands there as a literal, coded or not. The value is a number of one or
/// two digits.
fn grpc_status(block: &[u8]) -> Option<u8> {
    let plain = memchr::memmem::find(block, b"grpc-status").map(|at| at + 11);
    let coded = || memchr::memmem::find(block, &GRPC_STATUS_CODED).map(|at| at + GRPC_STATUS_CODED.len());
    let value = &block[plain.or_else(coded)?..];
    let (&length, value) = value.split_first()?;
    let value = value.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    let mut bits = value.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut number = None;
    while let Some(digit) = coded_digit(&mut bits) {
        number = Some(number.unwrap_or(0u8).checked_mul(10)?.checked_add(digit)?);
    }
    number
}

/// A decimal digit: 0 to 2 have five bits, 00000 to 00010; 3 to 9 six, 011001 to 011111.
fn coded_digit(bits: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut code = 0;
    for _ in 0..5 {
        code = code << 1 | bits.next()?;
    }
    if code <= 2 {
        return Some(code);
    }
    let code = code << 1 | bits.next()?;
    (0b01_1001..=0b01_1111).contains(&code).then(|| code - 0b01_1001 + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_coded_or_plain() {
        let plain = |status: &str| {
            let mut block = vec![0x40];
            text(&mut block, "grpc-status");
            text(&mut block, status);
            block
        };
        assert_eq!(grpc_status(&plain("0")), Some(0));
        assert_eq!(grpc_status(&plain("14")), Some(14));
        let coded = |value: &[u8]| {
            let mut block = vec![0x40, 0x88];
            block.extend_from_slice(&GRPC_STATUS_CODED);
            block.push(0x80 | u8::try_from(value.len()).unwrap());
            block.extend_from_slice(value);
            block
        };
        // 00000 and padding; 011110 and padding; 00001 011010 and padding.
        assert_eq!(grpc_status(&coded(&[0b0000_0111])), Some(0));
        assert_eq!(grpc_status(&coded(&[0b0111_1011])), Some(8));
        assert_eq!(grpc_status(&coded(&[0b0000_1011, 0b0101_1111])), Some(14));
        assert_eq!(grpc_status(b"\x88content-type"), None);
    }

    #[test]
    fn the_coded_name_is_that_of_appendix_b() {
        let codes = [
            "100110", "101100", "101011", "00100", "010110", "01000", "01001", "00011", "01001", "101101",
            "01000",
        ];
        let mut bits: String = codes.concat();
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let bytes: Vec<u8> =
            (0..bits.len() / 8).map(|at| u8::from_str_radix(&bits[8 * at..8 * at + 8], 2).unwrap()).collect();
        assert_eq!(bytes, GRPC_STATUS_CODED);
    }

    #[test]
    fn frames_are_heard_however_they_are_cut_and_answered() {
        let mut wire = Vec::new();
        frame(&mut wire, SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
        frame(&mut wire, PING, 0, 0, b"12345678");
        frame(&mut wire, HEADERS, END_HEADERS, 1, &[0x88]);
        frame(&mut wire, DATA, 0, 1, b"hello");
        frame(&mut wire, RST_STREAM, 0, 1, &[0, 0, 0, 8]);
        for piece in [1, 3, wire.len()] {
            let mut out = Vec::new();
            let mut http2 = Http2::open(DEFAULT_WINDOW, 1, &mut out);
            out.clear();
            let mut told = String::new();
            for bytes in wire.chunks(piece) {
                http2.take(bytes, &mut out, &mut |heard| match heard {
                    Heard::Data { bytes, .. } => told.push_str(&String::from_utf8_lossy(bytes)),
                    other => told.push_str(&format!("[{other:?}]")),
                });
            }
            let expected =
                "[Headers { stream: 1, status: None, is_end: false }]hello[Reset { stream: 1, code: 8 }]";
            assert_eq!(told, expected, "in pieces of {piece}");
            let mut answers = Vec::new();
            frame(&mut answers, SETTINGS, ACK, 0, &[]);
            frame(&mut answers, PING, ACK, 0, b"12345678");
            assert_eq!(out, answers);
        }
    }
}
