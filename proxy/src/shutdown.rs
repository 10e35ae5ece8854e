//! How the program ends: the first signal drains, the second aborts.
//!
//! In: SIGTERM and SIGINT. Out: [`Drain`], which many can wait for, and [`Signals`] for the one who waits for all.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Ends when the program is asked to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

/// Begins the drain; dropped, it does too.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<bool>);

/// Makes both ends.
pub fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Begins the drain.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        // An error means that the trigger is gone, and that is a drain too.
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the drain begins.
    pub async fn begun(mut self) {
        // An error means that the trigger is gone, and that is a drain too.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

/// The signals that end the program.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on; without this, a signal would end the program at once.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
