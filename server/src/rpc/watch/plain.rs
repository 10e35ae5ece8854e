//! [`WatchStream`]: a watch as the body of an ordinary answer, for whoever serves it otherwise than `listen` does.

use std::pin::Pin;
use std::task::{Context, Poll};

use pulse_proto::encoded::Encoded;
use pulse_proto::v1;
use tokio_stream::Stream;
use tonic::Status;

use crate::listen::feed::{Feed, FeedSlot, Next, Room};
use crate::shutdown::Drain;

/// See the module.
pub(in crate::rpc) struct WatchStream {
    slot: FeedSlot,
    drain: Drain,
    /// Taken with the first look: until then a connection may take it.
    taken: Option<Taken>,
}

struct Taken {
    feed: Box<dyn Feed>,
    /// Nobody else asks the feed again when the server goes down.
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl WatchStream {
    pub(super) fn new(slot: FeedSlot, drain: Drain) -> WatchStream {
        WatchStream { slot, drain, taken: None }
    }
}

impl Stream for WatchStream {
    type Item = Result<Encoded<v1::WatchAuthorizedNodesResponse>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.taken.is_none() {
            let drain = this.drain.clone();
            let draining = Box::pin(async move { drain.started().await });
            this.taken = this.slot.take().map(|feed| Taken { feed, draining });
        }
        let Some(taken) = &mut this.taken else { return Poll::Ready(None) };
        if !this.drain.has_started() {
            // The feed is asked below, and looks at the drain itself.
            let _ = taken.draining.as_mut().poll(cx);
        }
        // An ordinary body is asked only when there is room.
        match taken.feed.poll_next(cx, Room::Free) {
            Next::Message { frame, .. } => Poll::Ready(Some(Ok(Encoded::of_frame(frame)))),
            Next::End(trailers) => {
                this.taken = None;
                let status = Status::from_header_map(&trailers);
                Poll::Ready(status.filter(|status| status.code() != tonic::Code::Ok).map(Err))
            }
            Next::Waits | Next::Nothing => Poll::Pending,
        }
    }
}
