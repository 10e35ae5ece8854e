//! Waiting for what another process does.
//!
//! Always: bounded, and the failure says what was awaited and what was seen last.
//! Never: a sleep for luck. The tests sleep nowhere else: another process's files, exit and answers cannot be
//! awaited as events, so they are looked at again every few milliseconds until they are as they should be.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long to wait for what should take milliseconds: as long as a crowded machine may need, and a proxy whose back-off
/// has grown, because it is only waited out by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks: a hundredth of what a person notices, and no load for the machine.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` gives `Ok`, and returns what is in it; an `Err` holds what is seen so far.
///
/// # Panics
/// After `within`, with `what` was awaited and what was seen last.
pub fn eventually<T, Seen: Debug>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, Seen>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => {
                panic!("not within {within:?}: {what}; seen last: {seen:#?}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Lets time pass where its passing is what is tested, such as the moment of a kill or the length of an outage; never to
/// wait for something.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Awaits a future for at most [`PATIENCE`].
///
/// # Panics
/// After that, with `what` was awaited.
pub async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    let late = || panic!("not within {PATIENCE:?}: {what}");
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| late())
}
