//! The accept loop of one address.
//!
//! Always: an error of `accept` is waited out and told once, when it begins and when it ends; at the cap a new
//! connection is closed at once, so that it does not wait for a place that may never come; nothing is read of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::addresses::Addresses;
use super::connection::Serving;
use super::tasks::{finish, report_panic};
use super::{Drained, Peer};
use crate::limits::address::AddressGroup;
use crate::metrics::ConnectionRefusal;

/// After an error such as "too many open files"; a place may be free soon.
pub(super) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// After so long without a refusal there are places again: at the cap they come and go one by one.
const FULL_ENDS: Duration = Duration::from_secs(10);

/// How often connections beyond the bound of their address are told.
const CROWDED_TOLD: Duration = Duration::from_secs(60);

/// Accepts until the drain, and then waits for the connections to end.
pub(super) async fn run(
    socket: TcpListener,
    slots: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    serving: Arc<Serving>,
) -> Drained {
    let mut connections = JoinSet::new();
    let mut intake = Intake { socket, is_failing: false, full_at: None, crowded_at: None };
    loop {
        let (stream, address) = tokio::select! {
            () = serving.drain.started() => break,
            Some(ended) = connections.join_next() => {
                report_panic(ended);
                continue;
            }
            accepted = intake.next() => accepted,
        };
        let peer = Peer { address: SocketAddr::new(address.ip().to_canonical(), address.port()) };
        let admitted = match addresses.admit(peer.address.ip()) {
            Ok(admitted) => admitted,
            Err(crowded) => {
                serving.metrics.connection_refused(ConnectionRefusal::AddressLimit);
                intake.crowded(crowded, serving.bounds.connections_per_address);
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            serving.metrics.connection_refused(ConnectionRefusal::Limit);
            intake.full(serving.bounds.connections);
            continue;
        };
        intake.not_full();
        let serving = serving.clone();
        connections.spawn(async move {
            let _places = (slot, admitted);
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
    /// When a connection was refused last for want of a place, while that state lasts.
    full_at: Option<Instant>,
    /// When it was told last that an address has too many.
    crowded_at: Option<Instant>,
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
        if self.full_at.replace(Instant::now()).is_none() {
            tracing::warn!(max_connections, "connections are refused: there are as many as allowed");
        }
    }

    /// Tells of an address that has too many, once in a while: it may come and go at its bound for ever.
    fn crowded(&mut self, address: AddressGroup, max_connections_per_address: usize) {
        let now = Instant::now();
        if self.crowded_at.is_none_or(|told| now - told >= CROWDED_TOLD) {
            self.crowded_at = Some(now);
            tracing::warn!(%address, max_connections_per_address,
                "connections of one address are refused: it has as many as allowed; see limits and trusted_proxies");
        }
    }

    fn not_full(&mut self) {
        if self.full_at.is_some_and(|at| at.elapsed() >= FULL_ENDS) {
            self.full_at = None;
            tracing::info!("connections are taken again");
        }
    }
}
