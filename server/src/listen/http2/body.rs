//! The body of a request, as it comes in.
//!
//! Always: a caller may send more only once what it sent was read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};

/// See the module.
#[derive(Debug)]
pub(super) struct RequestBody {
    stream: RecvStream,
    is_read: bool,
    length: Option<u64>,
}

impl RequestBody {
    pub(super) fn new(stream: RecvStream, headers: &http::HeaderMap) -> RequestBody {
        // Whether it is true, h2 checks.
        let length = headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        RequestBody { stream, is_read: false, length }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_read {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // It fails only if the stream is gone, which the next look says.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.length = self.length.map(|length| length.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // The caller wants no answer any more, and says so in the proper way.
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.is_read = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
