//! How the program is told to end, and to read its certificates anew.
//!
//! In: SIGTERM, SIGINT and SIGHUP, or a test's hand. Out: [`Drain`] and [`Reloads`], for any number of waiters, and
//! whether the work ended by itself or was cut short ([`Ended`]).
//! Always: the first request drains, the second aborts, and the two are told apart.
//! Never: spawns a task or ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Where the requests to end and to reload come from. Whoever runs the program holds it.
#[derive(Debug)]
pub struct Signals {
    source: Source,
    draining: watch::Sender<bool>,
    reloads: watch::Sender<()>,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Request {
    Stop,
    Reload,
}

#[derive(Debug)]
enum Source {
    Process { terminate: Signal, interrupt: Signal, hangup: Signal },
    Hand(mpsc::UnboundedReceiver<Request>),
}

/// How the work of [`Signals::attend`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended<T> {
    /// By itself, drained or not, with this result.
    Finished(T),
    /// In the middle: a second request came while it was draining.
    Aborted,
}

impl Signals {
    /// Listens for the signals of the process: SIGTERM and SIGINT end it, SIGHUP reloads.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals::from(Source::Process {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        }))
    }

    /// Signals that a [`Hand`] gives, for running the program inside a test.
    pub fn by_hand() -> (Signals, Hand) {
        let (hand, requests) = mpsc::unbounded_channel();
        (Signals::from(Source::Hand(requests)), Hand(hand))
    }

    fn from(source: Source) -> Signals {
        Signals { source, draining: watch::Sender::new(false), reloads: watch::Sender::new(()) }
    }

    /// Hears when the end begins.
    pub fn drain(&self) -> Drain {
        Drain(self.draining.subscribe())
    }

    /// Hears each request to reload from now on.
    pub fn reloads(&self) -> Reloads {
        Reloads(self.reloads.subscribe())
    }

    /// Does `work` while it heeds the signals: the first request to end starts each [`Drain`], upon which `work` is
    /// to finish; the second drops `work` where it stands.
    pub async fn attend<T>(mut self, work: impl Future<Output = T>) -> Ended<T> {
        tokio::select! {
            biased;
            () = self.second_stop() => Ended::Aborted,
            result = work => Ended::Finished(result),
        }
    }

    /// Heeds every request; returns at the second one to end.
    async fn second_stop(&mut self) {
        loop {
            match self.source.next().await {
                Request::Reload => {
                    tracing::info!("reload requested");
                    self.reloads.send_replace(());
                }
                Request::Stop if self.draining.send_replace(true) => {
                    tracing::warn!("second request to end: ending at once");
                    return;
                }
                Request::Stop => tracing::info!("draining: a second signal ends at once"),
            }
        }
    }
}

impl Source {
    async fn next(&mut self) -> Request {
        match self {
            Source::Process { terminate, interrupt, hangup } => tokio::select! {
                Some(()) = terminate.recv() => Request::Stop,
                Some(()) = interrupt.recv() => Request::Stop,
                Some(()) = hangup.recv() => Request::Reload,
                else => std::future::pending().await,
            },
            Source::Hand(requests) => match requests.recv().await {
                Some(request) => request,
                None => std::future::pending().await,
            },
        }
    }
}

/// Gives the signals of [`Signals::by_hand`].
#[derive(Clone, Debug)]
pub struct Hand(mpsc::UnboundedSender<Request>);

impl Hand {
    /// Asks for the end, as SIGTERM does.
    pub fn stop(&self) {
        self.give(Request::Stop);
    }

    /// Asks for a reload, as SIGHUP does.
    pub fn reload(&self) {
        self.give(Request::Reload);
    }

    fn give(&self, request: Request) {
        // An error says that the program has ended already, which is what a signal would find too.
        let _ = self.0.send(request);
    }
}

/// Hears when the end begins. Cloning is cheap; each clone hears it.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Returns as soon as the end has begun, also if it began before the call.
    pub async fn started(&self) {
        // An error says that nobody is left who could begin the end: the program is past it.
        let _ = self.0.clone().wait_for(|draining| *draining).await;
    }

    /// Whether the end has begun.
    pub fn has_started(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Hears each request to reload.
#[derive(Clone, Debug)]
pub struct Reloads(watch::Receiver<()>);

impl Reloads {
    /// Returns at the next request since the last call; several at once count as one. At the program's end: never.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn first_signal_drains_and_the_work_may_finish() {
        let (signals, hand) = Signals::by_hand();
        let drain = signals.drain();
        assert!(!drain.has_started());
        hand.stop();
        let work = async {
            drain.started().await;
            drain.clone().started().await;
            drain.has_started()
        };
        assert_eq!(timeout(SOON, signals.attend(work)).await, Ok(Ended::Finished(true)));
    }

    #[tokio::test]
    async fn second_signal_aborts_the_drain() {
        let (signals, hand) = Signals::by_hand();
        let drain = signals.drain();
        hand.stop();
        let work = async {
            drain.started().await;
            hand.stop();
            std::future::pending::<()>().await;
        };
        assert_eq!(timeout(SOON, signals.attend(work)).await, Ok(Ended::Aborted));
        assert!(drain.has_started());
    }

    #[tokio::test]
    async fn reload_is_heard_and_does_not_drain() {
        let (signals, hand) = Signals::by_hand();
        let (drain, mut reloads) = (signals.drain(), signals.reloads());
        hand.reload();
        let work = async {
            reloads.next().await;
            drain.has_started()
        };
        assert_eq!(timeout(SOON, signals.attend(work)).await, Ok(Ended::Finished(false)));
    }

    #[tokio::test]
    async fn a_signal_of_the_process_is_heard() {
        let signals = Signals::listen().expect("handlers can be installed");
        let mut reloads = signals.reloads();
        let work = async {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::HUP)
                .expect("own process can be signalled");
            reloads.next().await;
        };
        assert_eq!(timeout(SOON, signals.attend(work)).await, Ok(Ended::Finished(())));
    }
}
