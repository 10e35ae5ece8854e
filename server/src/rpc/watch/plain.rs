//! [`WatchStream`]: a watch as the body of an ordinary answer, for whoever serves it otherwise than `listen` does.

use std::pin::Pin;
use std::task::{Context, Poll};

use pulse_proto::encoded::Encoded;
use pulse_proto::v1;
use tokio_stream::Stream;
use tonic::Status;

use crate::listen::feed::{Feed, FeedSlot, Next, Room};

/// See the module.
pub(in crate::rpc) struct WatchStream {
    slot: FeedSlot,
    /// Taken with the first look: until then a connection may take it.
    feed: Option<Box<dyn Feed>>,
}

impl WatchStream {
    pub(super) fn new(slot: FeedSlot) -> WatchStream {
        WatchStream { slot, feed: None }
    }
}

impl Stream for WatchStream {
    type Item = Result<Encoded<v1::WatchAuthorizedNodesResponse>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.feed.is_none() {
            this.feed = this.slot.take();
        }
        let Some(feed) = &mut this.feed else { return Poll::Ready(None) };
        // An ordinary body is asked only when there is room.
        match feed.poll_next(cx, Room::Free) {
            Next::Message { frame, .. } => Poll::Ready(Some(Ok(Encoded::of_frame(frame)))),
            Next::End(trailers) => {
                this.feed = None;
                let status = Status::from_header_map(&trailers);
                Poll::Ready(status.filter(|status| status.code() != tonic::Code::Ok).map(Err))
            }
            Next::Waits | Next::Nothing => Poll::Pending,
        }
    }
}
