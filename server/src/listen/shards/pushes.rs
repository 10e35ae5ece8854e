//! Who of a shard pushes next: a queue beside that of connections whose callers said something.
//!
//! In: rings of connections that have something to push. Out: turns, a few at a time, given by the shard when nobody else waits.
//! Always: a ring is followed by a turn, and rings before it are one. Never: pushes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

use super::ShardBell;

/// The connections of a shard that have something to push.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    waiting: Mutex<VecDeque<Arc<Pusher>>>,
    /// How many have their turn to push, and were not looked at yet.
    under_way: AtomicUsize,
    bell: Arc<ShardBell>,
}

impl Pushes {
    /// Gives so many their turn, unless some have it still. Says whether anybody has it now.
    pub(super) fn begin(&self, count: u32) -> bool {
        if count == 0 || self.under_way.load(Ordering::Relaxed) > 0 {
            return false;
        }
        for _ in 0..count {
            let Some(pusher) = self.lock().pop_front() else { break };
            // Read as well as written: who rang just before, and left it at that, is seen by the look that follows.
            pusher.is_waiting.swap(false, Ordering::AcqRel);
            if pusher.is_gone.load(Ordering::Relaxed) {
                continue;
            }
            if !pusher.has_turn.swap(true, Ordering::Relaxed) {
                self.under_way.fetch_add(1, Ordering::Relaxed);
            }
            pusher.connection.wake();
        }
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody waits for its turn.
    pub(super) fn has_waiting(&self) -> bool {
        !self.lock().is_empty()
    }

    /// What wakes the shard.
    pub(super) fn bell(&self) -> &Arc<ShardBell> {
        &self.bell
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Pusher>>> {
        // Each of its changes is one entry, so a panic elsewhere leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in that queue. As a waker it is what rings when there is something to push.
#[derive(Debug)]
pub(super) struct Pusher {
    pushes: Arc<Pushes>,
    connection: AtomicWaker,
    is_waiting: AtomicBool,
    /// It is given by the shard, and taken by the connection's next look.
    has_turn: AtomicBool,
    /// Whether it has its turn in the look that is under way.
    is_on: AtomicBool,
    is_gone: AtomicBool,
}

impl Pusher {
    pub(super) fn new(pushes: &Arc<Pushes>) -> Arc<Pusher> {
        Arc::new(Pusher {
            pushes: Arc::clone(pushes),
            connection: AtomicWaker::new(),
            is_waiting: AtomicBool::new(false),
            // It looks once, to wait for what comes.
            has_turn: AtomicBool::new(true),
            is_on: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        })
    }

    /// Its connection is in the shard now, with the turn that it begins with.
    pub(super) fn enter(&self) {
        self.pushes.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// Its connection is looked at, in its turn if it has one; `waker` brings it back.
    pub(super) fn begin_look(&self, waker: &Waker) {
        let is_on = self.take_turn();
        self.is_on.store(is_on, Ordering::Relaxed);
        self.connection.register(waker);
    }

    /// Its connection is gone.
    pub(super) fn leave(&self) {
        self.take_turn();
        self.is_gone.store(true, Ordering::Relaxed);
    }

    fn take_turn(&self) -> bool {
        let has_turn = self.has_turn.swap(false, Ordering::Relaxed);
        if has_turn {
            self.pushes.under_way.fetch_sub(1, Ordering::Relaxed);
        }
        has_turn
    }
}

impl Wake for Pusher {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_waiting.swap(true, Ordering::AcqRel) {
            self.pushes.lock().push_back(Arc::clone(self));
            self.pushes.bell.wake_by_ref();
        }
    }
}

/// A connection's turns to push.
#[derive(Debug)]
pub(in crate::listen) struct PushTurn {
    pusher: Arc<Pusher>,
    waker: Waker,
}

impl PushTurn {
    pub(super) fn of(pusher: &Arc<Pusher>) -> PushTurn {
        PushTurn { pusher: Arc::clone(pusher), waker: Waker::from(Arc::clone(pusher)) }
    }

    /// Whether the connection has its turn, in the look that is under way.
    pub(in crate::listen) fn is_on(&self) -> bool {
        self.pusher.is_on.load(Ordering::Relaxed)
    }

    /// Rings for the next one.
    pub(in crate::listen) fn waker(&self) -> &Waker {
        &self.waker
    }
}
