//! HTTP/1 or HTTP/2, told apart by the first bytes, which whoever serves them reads once more.
//!
//! A caller without ALPN, or without TLS, says in no other way what it speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::through::writes_pass_through;

/// What begins a connection of HTTP/2, and no request of HTTP/1 (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a caller speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A stream whose first bytes have been looked at.
#[derive(Debug)]
pub(super) struct Sniffed<S> {
    inner: S,
    first: [u8; PREFACE.len()],
    /// Where the bytes of `first` begin that are yet to be read again, and where they end.
    begin: u8,
    end: u8,
}

/// Reads as much as it takes to tell. The caller bounds the time.
pub(super) async fn sniff<S: AsyncRead + Unpin>(mut inner: S) -> io::Result<(Protocol, Sniffed<S>)> {
    let (mut first, mut end) = ([0; PREFACE.len()], 0);
    let protocol = loop {
        let read = inner.read(&mut first[end..]).await?;
        end += read;
        if !PREFACE.starts_with(&first[..end]) {
            break Protocol::Http1;
        }
        if end == PREFACE.len() {
            break Protocol::Http2;
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let end = u8::try_from(end).expect("the preface has 24 bytes");
    Ok((protocol, Sniffed { inner, first, begin: 0, end }))
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.begin == this.end {
            return Pin::new(&mut this.inner).poll_read(cx, into);
        }
        let again = &this.first[usize::from(this.begin)..usize::from(this.end)];
        let some = &again[..again.len().min(into.remaining())];
        into.put_slice(some);
        this.begin += u8::try_from(some.len()).expect("the preface has 24 bytes");
        Poll::Ready(Ok(()))
    }
}

writes_pass_through!(Sniffed);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    async fn said(parts: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (near, mut far) = duplex(1);
        let whole = parts.concat();
        let sending = tokio::spawn(async move { far.write_all(&whole).await.unwrap() });
        let (protocol, mut sniffed) = sniff(near).await.unwrap();
        let mut again = Vec::new();
        sniffed.read_to_end(&mut again).await.unwrap();
        sending.await.unwrap();
        (protocol, again)
    }

    #[tokio::test]
    async fn protocols_are_told_apart_byte_by_byte_and_nothing_is_lost() {
        let get = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(said(&[get]).await, (Protocol::Http1, get.to_vec()));
        // Its first letters are those of the preface.
        let odd = b"PROPFIND / HTTP/1.1\r\n\r\n";
        assert_eq!(said(&[odd]).await, (Protocol::Http1, odd.to_vec()));
        let (protocol, again) = said(&[PREFACE, b"frames"]).await;
        assert_eq!((protocol, again), (Protocol::Http2, [&PREFACE[..], b"frames"].concat()));
    }

    #[tokio::test]
    async fn who_goes_before_that_is_an_error() {
        for begun in [&b""[..], b"PRI * HT"] {
            let (near, mut far) = duplex(64);
            far.write_all(begun).await.unwrap();
            drop(far);
            assert_eq!(sniff(near).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
