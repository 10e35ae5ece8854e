//! The accept loop of one address.
//!
//! Always: an error of `accept` is waited out and told once, when it begins and when it ends; at the cap a new
//! connection is closed at once, so that it does not wait for a place that may never come.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::Serving;
use super::tasks::{finish, report_panic};
use super::{Drained, Peer};
use crate::metrics::ConnectionRefusal;

/// After an error such as "too many open files"; a place may be free soon.
pub(super) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// Accepts until the drain, and then waits for the connections to end.
pub(super) async fn run(socket: TcpListener, slots: Arc<Semaphore>, serving: Arc<Serving>) -> Drained {
    let mut connections = JoinSet::new();
    let mut intake = Intake { socket, is_failing: false, is_full: false };
    loop {
        let (stream, address) = tokio::select! {
            () = serving.drain.started() => break,
            Some(ended) = connections.join_next() => {
                report_panic(ended);
                continue;
            }
            accepted = intake.next() => accepted,
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            serving.metrics.connection_refused(ConnectionRefusal::Limit);
            intake.full(serving.bounds.connections);
            continue;
        };
        intake.not_full();
        let peer = Peer { address: SocketAddr::new(address.ip().to_canonical(), address.port()) };
        let serving = serving.clone();
        connections.spawn(async move {
            let _slot = slot;
            serving.serve(stream, peer).await;
        });
    }
    // Callers that come now find nobody, and go to another server or come back later.
    drop(intake);
    finish(connections, serving.bounds.drain).await
}

/// Whether `accept` failed for the one connection, which is gone already, and not for want of something.
pub(super) fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A listening socket and the states that were logged of it.
struct Intake {
    socket: TcpListener,
    is_failing: bool,
    is_full: bool,
}

impl Intake {
    async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => {
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("accepting connections again");
                    }
                    return accepted;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::error!(%error, "cannot accept connections");
                    }
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    fn full(&mut self, max_connections: usize) {
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(max_connections, "connections are refused: there are as many as allowed");
        }
    }

    fn not_full(&mut self) {
        if std::mem::take(&mut self.is_full) {
            tracing::info!("connections are taken again");
        }
    }
}
