//! [`Farewell`]: a stream that has one thing to say, and ends.

use std::task::Context;

use bytes::Bytes;
use http::HeaderMap;

use crate::limits::Slot;
use crate::listen::feed::{Feed, Next, Room};

/// See the module.
pub(super) struct Farewell {
    frame: Option<Bytes>,
    trailers: HeaderMap,
    _slot: Slot,
}

impl Farewell {
    pub(super) fn new(frame: Bytes, trailers: HeaderMap, slot: Slot) -> Farewell {
        Farewell { frame: Some(frame), trailers, _slot: slot }
    }
}

impl Feed for Farewell {
    fn poll_next(&mut self, _: &mut Context<'_>, room: Room) -> Next {
        match (room, self.frame.take()) {
            (Room::Free, Some(frame)) => Next::Message { frame, is_list: false },
            // Who has no room for it hears it from the trailers.
            _ => Next::End(std::mem::take(&mut self.trailers)),
        }
    }

    fn give_up(&mut self) -> HeaderMap {
        std::mem::take(&mut self.trailers)
    }
}
