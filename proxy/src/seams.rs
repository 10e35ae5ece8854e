//! What the proxy has of the outside world that a test can take its place in: the time of day, chance, the way to the
//! server, and the threads for work that blocks.
//!
//! In: nothing, or what a simulation drives. Out: handles for whoever needs one of them. Always: given explicitly, from
//! `lib` down; every one is the system's in the running program. Never: global.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use pulse_proto::{Chance, Clock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::ServerUrl;

/// What a proxy has of the outside world. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Seams {
    /// The time of day.
    pub clock: Clock,
    /// What spreads load.
    pub chance: Chance,
    /// The way to the server.
    pub network: Network,
    /// Where work runs that blocks.
    pub workers: Workers,
}

impl Seams {
    /// The system's own.
    pub fn system() -> Seams {
        Seams {
            clock: Clock::system(),
            chance: Chance::system(),
            network: Network::System,
            workers: Workers::Threads,
        }
    }
}

/// A connection to the server, up to HTTP/2.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// The future of a dialled connection.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>;

/// The way to the server.
#[derive(Clone)]
pub enum Network {
    /// Names, TCP and TLS.
    System,
    /// Connections of a simulation, which has neither names nor TLS.
    Driven(Arc<dyn Fn(&ServerUrl) -> Dialled + Send + Sync>),
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Network::System) { "System" } else { "Driven" })
    }
}

/// Where work runs that blocks.
#[derive(Clone, Copy, Debug)]
pub enum Workers {
    /// On the runtime's threads for such work.
    Threads,
    /// On the runtime itself, in the order in which it is asked for: what a simulation repeats must not race.
    Inline,
}

impl Workers {
    /// Runs `work`; the handle gives what it returns.
    pub fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Workers::Threads => spawn_blocking(work),
            Workers::Inline => tokio::task::spawn(async move { work() }),
        }
    }
}
