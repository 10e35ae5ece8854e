//! [`Feed`]: an answer that the connection itself sends, message by message, as its caller takes them.
//!
//! In: whoever answers puts a [`FeedSlot`] into the extensions of its response. Out: frames that many connections share,
//! each sent when there is room for it.
//! Always: the connection asks, the feed says what is newest; nothing is queued between the two. A feed that no connection
//! takes is an ordinary body still, for whoever serves the response in another way.
//! Never: knows what is in a message.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use bytes::Bytes;
use http::HeaderMap;

/// For what there is room on the way to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// For every message.
    Free,
    /// For every message but another list: the last one is not known to be read.
    ListUnread,
    /// For none: the last message is not sent to its end, and only the end of the stream may cut it.
    None,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A message.
    Message {
        /// Its bytes on the wire.
        frame: Bytes,
        /// Whether it is a list, of which only the newest is worth sending.
        is_list: bool,
    },
    /// The end, with these trailers. The feed is not asked again.
    End(HeaderMap),
    /// Something for which there is no room yet. The feed is to be asked again when there is.
    Waits,
    /// Nothing yet: the feed wakes the task when there is.
    Nothing,
}

/// See the module.
pub trait Feed: Send {
    /// The next message for which there is room.
    fn poll_next(&mut self, cx: &mut Context<'_>, room: Room) -> Next;

    /// The caller took nothing for too long. The trailers with which the stream ends; the feed is not asked again.
    fn give_up(&mut self) -> HeaderMap;
}

/// A feed on its way from whoever answers to whoever serves the connection. Cloning shares it.
#[derive(Clone)]
pub struct FeedSlot(Arc<Mutex<Option<Box<dyn Feed>>>>);

impl FeedSlot {
    /// Puts a feed in.
    pub fn new(feed: Box<dyn Feed>) -> FeedSlot {
        FeedSlot(Arc::new(Mutex::new(Some(feed))))
    }

    /// Takes it out. `None`: somebody has it already.
    pub fn take(&self) -> Option<Box<dyn Feed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for FeedSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedSlot").finish_non_exhaustive()
    }
}
