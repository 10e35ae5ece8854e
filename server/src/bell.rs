//! [`Bell`]: wakes one stream, and tells it why.
//!
//! In: rings of the stream's list and of its proxy. Out: what was rung since the stream looked last.
//! Always: a ring that comes while the stream looks is not lost; rings that come together wake it once. Never: says
//! what is new: the stream looks.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// What rang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Ring {
    /// The list that the stream follows has changed.
    List = 1,
    /// The proxy, its token, or the stream's own place has changed.
    Proxy = 2,
}

/// What rang since the last look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rung(u8);

impl Rung {
    /// As if everything had rung: before the first look.
    pub const ALL: Rung = Rung(Ring::List as u8 | Ring::Proxy as u8);

    /// Whether this rang.
    pub fn has(self, ring: Ring) -> bool {
        self.0 & ring as u8 != 0
    }

    /// Whether nothing rang.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What rang by both.
    #[must_use]
    pub fn and(self, other: Rung) -> Rung {
        Rung(self.0 | other.0)
    }
}

/// One stream's bell. Those who ring share it with the stream.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicU8,
    stream: AtomicWaker,
}

impl Bell {
    /// Rings: the stream will look.
    pub fn ring(&self, ring: Ring) {
        // Somebody who rang before woke it already, and it has not looked since.
        if self.rung.fetch_or(ring as u8, Ordering::AcqRel) & ring as u8 == 0 {
            self.stream.wake();
        }
    }

    /// Takes what rang; if nothing did, the next ring wakes the task.
    pub fn poll_rung(&self, cx: &Context<'_>) -> Poll<Rung> {
        let rung = self.take();
        if !rung.is_empty() {
            return Poll::Ready(rung);
        }
        self.stream.register(cx.waker());
        // It may have rung in between.
        match self.take() {
            rung if rung.is_empty() => Poll::Pending,
            rung => Poll::Ready(rung),
        }
    }

    fn take(&self) -> Rung {
        // Mostly there is nothing, and a look costs less than an exchange.
        match self.rung.load(Ordering::Acquire) {
            0 => Rung::default(),
            _ => Rung(self.rung.swap(0, Ordering::AcqRel)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn rings_that_come_together_wake_once_and_none_is_lost() {
        let bell = Arc::new(Bell::default());
        bell.ring(Ring::List);
        bell.ring(Ring::Proxy);
        bell.ring(Ring::List);
        assert_eq!(poll_fn(|cx| bell.poll_rung(cx)).await, Rung::ALL);
        let waiting = tokio::spawn({
            let bell = Arc::clone(&bell);
            async move { poll_fn(|cx| bell.poll_rung(cx)).await }
        });
        tokio::task::yield_now().await;
        bell.ring(Ring::List);
        let rung = waiting.await.unwrap();
        assert!(rung.has(Ring::List) && !rung.has(Ring::Proxy));
        assert!(poll_fn(|cx| Poll::Ready(bell.poll_rung(cx))).await.is_pending(), "it was taken");
    }
}
