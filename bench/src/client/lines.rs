//! NATS and Redis, as a subscriber hears them.
//!
//! In: bytes. Out: each message's head. Sources: the NATS client protocol; the Redis serialization protocol, version 2.

use super::message::Incoming;
use super::speech::Said;

/// A line that is coming in.
#[derive(Debug, Default)]
struct Line(Vec<u8>);

impl Line {
    /// The line without its end, once it is whole.
    fn take(&mut self, bytes: &mut &[u8]) -> Option<String> {
        let end = memchr::memchr(b'\n', bytes);
        let (own, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        *bytes = rest;
        self.0.extend_from_slice(own);
        end?;
        let line = String::from_utf8_lossy(&self.0).trim_end().to_owned();
        self.0.clear();
        Some(line)
    }
}

/// A subscriber of NATS.
#[derive(Debug, Default)]
pub(super) struct Nats {
    line: Line,
    /// The message under way, which ends with a line end of its own.
    incoming: Option<Incoming>,
}

impl Nats {
    /// What a subscriber says first. The answer to its PING says that the subscription stands.
    pub(super) fn greeting(subject: &str) -> String {
        let options = r#"{"verbose":false,"pedantic":false,"tls_required":false,"name":"pulse-bench","lang":"rust","version":"1"}"#;
        format!("CONNECT {options}\r\nSUB {subject} 1\r\nPING\r\n")
    }

    pub(super) fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, said: &mut impl FnMut(Said<'_>)) {
        while !bytes.is_empty() {
            if let Some(incoming) = &mut self.incoming {
                incoming.take(&mut bytes, &mut |head| said(Said::Message(Some(head))));
                if incoming.remaining() == 0 {
                    self.incoming = None;
                }
                continue;
            }
            let Some(line) = self.line.take(&mut bytes) else { return };
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("MSG") => {
                    let length: usize = words.last().and_then(|word| word.parse().ok()).unwrap_or_default();
                    let mut incoming = Incoming::default();
                    incoming.begin(length + 2);
                    self.incoming = Some(incoming);
                }
                Some("PING") => out.extend_from_slice(b"PONG\r\n"),
                Some("PONG") => said(Said::Message(None)),
                Some("-ERR") => said(Said::End(line)),
                _ => {}
            }
        }
    }
}

/// A subscriber of Redis.
#[derive(Debug, Default)]
pub(super) struct Redis {
    line: Line,
    incoming: Option<Incoming>,
    /// Elements of the present array that are there.
    place: usize,
}

impl Redis {
    /// What a subscriber says first.
    pub(super) fn greeting(channel: &str) -> String {
        format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{channel}\r\n", channel.len())
    }

    pub(super) fn take(&mut self, mut bytes: &[u8], said: &mut impl FnMut(Said<'_>)) {
        while !bytes.is_empty() {
            if let Some(incoming) = &mut self.incoming {
                // Kind, channel, and then what was published.
                let is_payload = self.place == 3;
                incoming.take(&mut bytes, &mut |head| {
                    if is_payload {
                        said(Said::Message(Some(head)));
                    }
                });
                if incoming.remaining() == 0 {
                    self.incoming = None;
                }
                continue;
            }
            let Some(line) = self.line.take(&mut bytes) else { return };
            match line.split_at_checked(1) {
                Some(("*", _)) => self.place = 0,
                Some(("$", length)) => {
                    self.place += 1;
                    let mut incoming = Incoming::default();
                    incoming.begin(length.parse::<usize>().unwrap_or_default() + 2);
                    self.incoming = Some(incoming);
                }
                // The third element of the answer to SUBSCRIBE.
                Some((":", _)) => said(Said::Message(None)),
                Some(("-", _)) => said(Said::End(line)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(said: Said<'_>) -> String {
        match said {
            Said::Message(Some(head)) => format!("message {} ", head.len()),
            other => format!("{other:?} "),
        }
    }

    #[test]
    fn subscribers_hear_payloads_however_they_are_cut() {
        let payload = "x".repeat(100);
        let nats_wire = format!(
            "INFO {{}}\r\nPONG\r\nMSG list 1 100\r\n{payload}\r\nPING\r\nMSG list 1 100\r\n{payload}\r\n"
        );
        let subscribed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nlist\r\n:1\r\n";
        let message = format!("*3\r\n$7\r\nmessage\r\n$4\r\nlist\r\n$100\r\n{payload}\r\n");
        let redis_wire = format!("{subscribed}{message}{message}");
        for piece in [1, 7, 1_000] {
            let (mut told, mut out, mut nats) = (String::new(), Vec::new(), Nats::default());
            for bytes in nats_wire.as_bytes().chunks(piece) {
                nats.take(bytes, &mut out, &mut |said| told.push_str(&heard(said)));
            }
            assert_eq!(told, "Message(None) message 102 message 102 ");
            assert_eq!(out, b"PONG\r\n");
            let (mut told, mut redis) = (String::new(), Redis::default());
            for bytes in redis_wire.as_bytes().chunks(piece) {
                redis.take(bytes, &mut |said| told.push_str(&heard(said)));
            }
            assert_eq!(told, "Message(None) message 102 message 102 ");
        }
    }
}
