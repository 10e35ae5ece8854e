//! Connections that are pushed to, in few tasks, so that they cannot stand in front of everybody else.
//!
//! In: connections that have a watch. Out: how each ended. A push wakes ten thousand of them at once, and so do the answers to
//! it. Were each a task of its own, whoever came meanwhile, an admin, a probe, a new connection, would wait for all of them.
//! Always: of each shard a few connections have their turn, then everybody else has, and then the sockets are looked at before
//! it goes on. Within a shard those whose caller said something go first, mostly in the order in which they were woken; those
//! that have something to push stand in a queue of their own ([`pushes`]), as a proxy's reports come over the same
//! connection and are not to wait for everybody's lists. A connection that panics ends alone.
//! Never: moves a connection to another shard.

mod pushes;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, unconstrained};

pub(super) use self::pushes::PushTurn;
use self::pushes::{Pusher, Pushes};

/// Two of a core: one goes on while the other, perhaps the fuller one, waits.
const SHARDS_OF_A_CORE: usize = 2;

/// How many connections have a turn: some 0.35 ms, at 22 µs for a list of 200 nodes over TLS.
const TURN: u32 = 16;

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection on its way into a shard.
struct Joining {
    connection: Connection,
    pusher: Arc<Pusher>,
}

/// The way into the shards. They end with it, once their connections have ended.
#[derive(Debug)]
pub(super) struct Shards {
    shards: Vec<Shard>,
    next: AtomicUsize,
}

/// The way into one of them.
#[derive(Debug)]
struct Shard {
    joining: mpsc::UnboundedSender<Joining>,
    pushes: Arc<Pushes>,
}

impl Shards {
    /// Starts them, and says which tasks they are. Needs a runtime around it.
    pub(super) fn start() -> (Shards, JoinSet<()>) {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let mut tasks = JoinSet::new();
        let start = |_| {
            let (joining, joining_rx) = mpsc::unbounded_channel();
            let pushes = Arc::<Pushes>::default();
            tasks.spawn(shard(joining_rx, Arc::clone(&pushes)));
            Shard { joining, pushes }
        };
        let shards = (0..SHARDS_OF_A_CORE * cores).map(start).collect();
        (Shards { shards, next: AtomicUsize::new(0) }, tasks)
    }

    /// None of them: each connection stays where it is.
    pub(super) fn none() -> Shards {
        Shards { shards: Vec::new(), next: AtomicUsize::new(0) }
    }

    /// Serves a connection to its end, in one of the shards. It is made with its turns to push; without shards there are none,
    /// and it pushes whenever it likes. Dropping this ends it. Out: what it came to; `None`: it panicked.
    pub(super) async fn serve<F>(&self, connection: impl FnOnce(Option<PushTurn>) -> F) -> Option<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        if self.shards.is_empty() {
            return Some(connection(None).await);
        }
        let shard = &self.shards[self.next.fetch_add(1, Ordering::Relaxed) % self.shards.len()];
        let pusher = Pusher::new(&shard.pushes);
        let connection = connection(Some(PushTurn::of(&pusher)));
        let (mut ended_tx, ended_rx) = oneshot::channel();
        let served = async move {
            let ended = tokio::select! {
                biased;
                () = ended_tx.closed() => return,
                ended = connection => ended,
            };
            // Nobody may wait for it any more.
            let _ = ended_tx.send(ended);
        };
        // Its end is seen by whoever waits, and the panic itself has been told.
        let connection: Connection = Box::pin(AssertUnwindSafe(served).catch_unwind().map(drop));
        shard.joining.send(Joining { connection, pusher }).ok()?;
        ended_rx.await.ok()
    }
}

async fn shard(mut joining_rx: mpsc::UnboundedReceiver<Joining>, pushes: Arc<Pushes>) {
    let (bell, turn) = (pushes.bell(), Arc::new(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(bell));
    let (mut connections, mut new) = (FuturesUnordered::new(), Vec::new());
    // Whether others took the whole turn while some waited to push.
    let (mut is_open, mut is_owed) = (true, false);
    while is_open || !connections.is_empty() {
        std::future::poll_fn(|cx| {
            bell.shard.register(cx.waker());
            let was_open = is_open;
            while is_open {
                match joining_rx.poll_recv(cx) {
                    Poll::Ready(Some(connection)) => new.push(connection),
                    Poll::Ready(None) => is_open = false,
                    Poll::Pending => break,
                }
            }
            let has_to_do =
                bell.is_rung.swap(false, Ordering::SeqCst) || !new.is_empty() || is_open != was_open;
            if has_to_do { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        connections.extend(new.drain(..).map(|Joining { connection, pusher }| {
            pusher.enter();
            Member { connection, pusher, turn: Arc::clone(&turn) }
        }));
        turn.store(TURN, Ordering::Relaxed);
        if is_owed {
            pushes.begin(TURN / 2);
        }
        is_owed = true;
        bell.is_heard.store(true, Ordering::SeqCst);
        // A turn is bounded by its connections, and each of them by itself. tokio's own bound on a task would cut the turn
        // short, in the middle of a connection's work.
        unconstrained(std::future::poll_fn(|_| {
            let mut cx = Context::from_waker(&waker);
            loop {
                bell.is_rung.store(false, Ordering::SeqCst);
                match connections.poll_next_unpin(&mut cx) {
                    Poll::Ready(Some(())) => {}
                    // It gives way when two have woken themselves, as each does that sends something.
                    Poll::Pending
                        if turn.load(Ordering::Relaxed) > 0 && bell.is_rung.load(Ordering::SeqCst) => {}
                    // Nobody else waits: now some may push, as many as there is room for in the turn.
                    Poll::Pending if pushes.begin(turn.load(Ordering::Relaxed)) => is_owed = false,
                    Poll::Pending | Poll::Ready(None) => return Poll::Ready(()),
                }
            }
        }))
        .await;
        bell.is_heard.store(false, Ordering::SeqCst);
        if pushes.has_waiting() {
            // The turn was over before theirs came.
            bell.is_rung.store(true, Ordering::SeqCst);
        }
        if bell.is_rung.load(Ordering::SeqCst) {
            // Behind all who are ready, and behind those whose sockets are.
            tokio::task::yield_now().await;
        }
    }
}

/// Rung when a connection of the shard is woken.
#[derive(Debug, Default)]
struct ShardBell {
    is_rung: AtomicBool,
    /// Whether the shard has its turn, and looks at the bell after it: then waking it would bring it back too early.
    is_heard: AtomicBool,
    shard: AtomicWaker,
}

impl Wake for ShardBell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In one order for all: either the shard sees that it was rung, or this sees that nobody looks.
        self.is_rung.store(true, Ordering::SeqCst);
        if !self.is_heard.load(Ordering::SeqCst) {
            self.shard.wake();
        }
    }
}

/// A connection that waits if its shard has had its turn.
struct Member {
    connection: Connection,
    pusher: Arc<Pusher>,
    /// How many connections may still have theirs.
    turn: Arc<AtomicU32>,
}

impl Future for Member {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.turn.load(Ordering::Relaxed);
        if left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn.store(left - 1, Ordering::Relaxed);
        self.pusher.begin_look(cx.waker());
        self.connection.as_mut().poll(cx)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.pusher.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::watch;

    use super::*;

    /// Woken all at once, again and again, as by a push and its answers; and once more by itself, as one that sends is.
    #[tokio::test]
    async fn others_have_their_turn_between_a_few_of_very_many() {
        const CONNECTIONS: usize = 1_000;
        const PUSHES: usize = 3;
        let (shards, mut tasks) = Shards::start();
        let shards = Arc::new(shards);
        let (push_tx, push_rx) = watch::channel(0);
        let (served, looks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let waiting: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (shards, mut push_rx) = (shards.clone(), push_rx.clone());
                let (served, looks) = (served.clone(), looks.clone());
                tokio::spawn(async move {
                    let pushes = async move {
                        while push_rx.changed().await.is_ok() {
                            served.fetch_add(1, Ordering::Relaxed);
                            let mut is_sent = false;
                            std::future::poll_fn(|cx| {
                                if std::mem::replace(&mut is_sent, true) {
                                    return Poll::Ready(());
                                }
                                cx.waker().wake_by_ref();
                                Poll::Pending
                            })
                            .await;
                        }
                    };
                    let mut pushes = Box::pin(pushes);
                    shards
                        .serve(|_| {
                            std::future::poll_fn(move |cx| {
                                looks.fetch_add(1, Ordering::Relaxed);
                                pushes.as_mut().poll(cx)
                            })
                        })
                        .await
                })
            })
            .collect();
        let longest = {
            let served = served.clone();
            tokio::spawn(async move {
                let (mut before, mut longest) = (0, 0);
                while before < PUSHES * CONNECTIONS {
                    let now = served.load(Ordering::Relaxed);
                    longest = longest.max(now - before);
                    before = now;
                    tokio::task::yield_now().await;
                }
                longest
            })
        };
        for push in 1..=PUSHES {
            push_tx.send(push).unwrap();
            while served.load(Ordering::Relaxed) < push * CONNECTIONS {
                tokio::task::yield_now().await;
            }
        }
        // It gives its own turn away as the shards do, so that each may have two before it has one again.
        let most = 2 * shards.shards.len() * TURN as usize;
        let longest = longest.await.unwrap();
        assert!((TURN as usize..=most).contains(&longest), "{longest} at a time, of {most} at the most");
        drop(push_tx);
        for ended in waiting {
            assert_eq!(ended.await.unwrap(), Some(()));
        }
        // Once at the beginning, twice for each push, once at the end.
        let (looks, least) = (looks.load(Ordering::Relaxed), (2 + 2 * PUSHES) * CONNECTIONS);
        assert!(looks <= least + least / 10, "{looks} looks at {CONNECTIONS} connections");
        drop(shards);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// All have something to push; the last of them hears from its caller in the midst of it.
    #[tokio::test]
    async fn who_hears_from_its_caller_goes_before_those_that_push_and_each_of_these_has_its_turn() {
        const CONNECTIONS: usize = 1_000;
        let (mut shards, _tasks) = Shards::start();
        shards.shards.truncate(1);
        let shards = Arc::new(shards);
        let (pushed, heard_at) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (said_tx, said_rx) = oneshot::channel::<()>();
        let mut said_rx = Some(said_rx);
        let bells: Arc<Mutex<Vec<Waker>>> = Arc::default();
        let mut waiting = JoinSet::new();
        for number in 0..CONNECTIONS {
            let (shards, bells) = (Arc::clone(&shards), Arc::clone(&bells));
            let (pushed, heard_at) = (Arc::clone(&pushed), Arc::clone(&heard_at));
            let mut said_rx = if number == 0 { said_rx.take() } else { None };
            waiting.spawn(async move {
                let connection = |turn: Option<PushTurn>| {
                    let turn = turn.expect("it is in a shard");
                    let mut is_new = true;
                    std::future::poll_fn(move |cx| {
                        if let Some(said) = &mut said_rx
                            && Pin::new(said).poll(cx).is_ready()
                        {
                            said_rx = None;
                            heard_at.store(pushed.load(Ordering::Relaxed), Ordering::Relaxed);
                        }
                        match (turn.is_on(), std::mem::take(&mut is_new)) {
                            (true, true) => bells.lock().unwrap().push(turn.waker().clone()),
                            (true, false) => {
                                pushed.fetch_add(1, Ordering::Relaxed);
                                return Poll::Ready(());
                            }
                            (false, _) => {}
                        }
                        Poll::Pending
                    })
                };
                shards.serve(connection).await
            });
        }
        while bells.lock().unwrap().len() < CONNECTIONS {
            tokio::task::yield_now().await;
        }
        // The one whose caller says something rings last.
        let bells = std::mem::take(&mut *bells.lock().unwrap());
        bells.iter().rev().for_each(Waker::wake_by_ref);
        while pushed.load(Ordering::Relaxed) < 2 * TURN as usize {
            tokio::task::yield_now().await;
        }
        let before = pushed.load(Ordering::Relaxed);
        said_tx.send(()).unwrap();
        while let Some(ended) = waiting.join_next().await {
            assert_eq!(ended.unwrap(), Some(()));
        }
        assert_eq!(pushed.load(Ordering::Relaxed), CONNECTIONS);
        let between = heard_at.load(Ordering::Relaxed) - before;
        assert!(between <= 2 * TURN as usize, "{between} pushed before it was heard, of {CONNECTIONS}");
    }

    #[tokio::test]
    async fn a_connection_that_panics_or_is_dropped_ends_alone() {
        let (mut shards, _tasks) = Shards::start();
        shards.shards.truncate(1);
        let (go_tx, go_rx) = oneshot::channel::<u8>();
        let living = shards.serve(|_| async { go_rx.await.unwrap() });
        let panicking = shards.serve(|_| async { panic!("as the test wants it") });
        let is_gone = Arc::new(Mutex::new(()));
        let held = Arc::clone(&is_gone);
        let dropped = shards.serve(|_| async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        let mut living = std::pin::pin!(living);
        {
            let mut dropped = std::pin::pin!(dropped);
            tokio::select! {
                biased;
                _ = &mut living => panic!("it was not told to end"),
                _ = &mut dropped => panic!("it never ends"),
                ended = panicking => assert_eq!(ended, None),
            }
        }
        while Arc::strong_count(&is_gone) > 1 {
            tokio::task::yield_now().await;
        }
        go_tx.send(7).unwrap();
        assert_eq!(living.await, Some(7));
    }
}
