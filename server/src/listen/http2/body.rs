//! The body of a request, as it comes in.
//!
//! Always: a caller may send more only once what it sent was read; what nobody wants any more is read to its end if that is
//! near, as a stream that is reset before it has ended costs some callers the answer (curl of Debian 12).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How much of a body is read that nobody wants, and for how long.
const UNWANTED_BYTES: usize = 64 << 10;
const UNWANTED_TIME: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct RequestBody {
    stream: Option<RecvStream>,
    is_read: bool,
    length: Option<u64>,
    unwanted: Option<oneshot::Sender<RecvStream>>,
}

/// Where a body is left that was not read to its end.
#[derive(Debug)]
pub(super) struct Unwanted(oneshot::Receiver<RecvStream>);

impl Unwanted {
    /// Reads what there is of it, within bounds.
    pub(super) async fn read(mut self) {
        let Ok(mut stream) = self.0.try_recv() else { return };
        let reading = async {
            let mut left = UNWANTED_BYTES;
            while let Some(Ok(bytes)) = stream.data().await {
                let _ = stream.flow_control().release_capacity(bytes.len());
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    return;
                }
            }
        };
        // Whoever sends so slowly may lose the answer.
        let _ = timeout(UNWANTED_TIME, reading).await;
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let stream = self.stream.take().filter(|stream| !stream.is_end_stream());
        if let Some((stream, unwanted)) = stream.zip(self.unwanted.take()) {
            // The call may have been given up.
            let _ = unwanted.send(stream);
        }
    }
}

impl RequestBody {
    pub(super) fn new(stream: RecvStream, headers: &http::HeaderMap) -> (RequestBody, Unwanted) {
        // Whether it is true, h2 checks.
        let length = headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let (unwanted_tx, unwanted) = oneshot::channel();
        let body = RequestBody { stream: Some(stream), is_read: false, length, unwanted: Some(unwanted_tx) };
        (body, Unwanted(unwanted))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        // It is there until this is dropped.
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        if !this.is_read {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // It fails only if the stream is gone, which the next look says.
                    let _ = stream.flow_control().release_capacity(bytes.len());
                    this.length = this.length.map(|length| length.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // The caller wants no answer any more, and says so in the proper way.
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.is_read = true,
            }
        }
        match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
