//! The way in: one accept loop for each address, TLS or loopback plain text, HTTP/1 and HTTP/2 on one port.
//!
//! In: addresses, a certificate, a router, bounds. Out: requests with their [`Peer`], handed to the router.
//! Always: every wait for a caller is bounded; a connection that was refused is counted; each task is owned by its loop
//! and ends with it; at a drain nothing new is taken, and what runs may finish.
//! Never: knows what is asked for, or who may ask. The admin socket ([`admin_socket`]) has a loop of its own that no
//! bound here touches.

mod accept;
mod addresses;
pub mod admin_socket;
mod connection;
pub mod feed;
pub mod file_limit;
pub mod grpc_timeout;
mod http2;
mod impatient;
mod meter;
mod plain_http;
mod shards;
mod sniff;
mod tasks;
mod through;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::shutdown::Drain;
use crate::tls::Tls;
use addresses::Addresses;
use connection::Serving;
use file_limit::FileLimit;
use shards::Shards;
use tasks::report_panic;

/// Connections that the kernel holds before they are accepted; it takes `net.core.somaxconn` (4096) if that is less.
/// A whole fleet dials at once when its server comes back.
const BACKLOG: u32 = 4096;

/// How long what was sent may stay without an acknowledgement, or unsent because the caller takes nothing.
const STALLED: Duration = Duration::from_secs(30);

/// Who is at the other end of a connection: an extension of every request that came over TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its address; an IPv4-mapped one as IPv4.
    pub address: SocketAddr,
}

impl Peer {
    /// Its address without the port; an IPv4-mapped one as IPv4.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// What one connection, and all of them, may take.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The most connections at one time.
    pub connections: usize,
    /// The most connections at one time of one address (IPv6: of one /64).
    pub connections_per_address: usize,
    /// Whose connections are not counted by address.
    pub trusted_proxies: Vec<Network>,
    /// The most streams at one time of one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// The most bytes of a request's headers.
    pub header_list_bytes: u32,
    /// How long the first byte and the TLS handshake may take together.
    pub handshake: Duration,
    /// How long an HTTP/1 request's headers may take.
    pub headers: Duration,
    /// How long a connection may be there before its first request.
    pub first_request: Duration,
    /// How often an HTTP/2 connection is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long the sign of life may take.
    pub keep_alive_timeout: Duration,
    /// How long a drain waits for connections to end.
    pub drain: Duration,
}

impl Bounds {
    /// The bounds that the configuration sets, and this module's own.
    pub fn of(config: &Config) -> Bounds {
        let limits = &config.limits;
        Bounds {
            connections: usize::try_from(limits.max_connections).unwrap_or(usize::MAX),
            connections_per_address: usize::try_from(limits.max_connections_per_address)
                .unwrap_or(usize::MAX),
            trusted_proxies: config.trusted_proxies.clone(),
            streams_per_connection: u32::try_from(limits.max_streams_per_connection).unwrap_or(u32::MAX),
            header_list_bytes: u32::try_from(limits.max_header_list_bytes).unwrap_or(u32::MAX),
            handshake: limits.handshake_timeout,
            headers: limits.header_timeout,
            first_request: Duration::from_secs(15),
            // A proxy whose host lost power is noticed within 20 + 10 s.
            keep_alive_interval: Duration::from_secs(20),
            keep_alive_timeout: Duration::from_secs(10),
            drain: config.shutdown_grace,
        }
    }

    /// No more connections than the process may have files: the admin socket and the database need some too.
    #[must_use]
    pub fn within(mut self, limit: FileLimit) -> Bounds {
        self.connections = self.connections.min(usize::try_from(limit.connections).unwrap_or(usize::MAX));
        self
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has the port.
    #[error(
        "listen on {0}: the port is taken; see by whom with `ss -ltnp 'sport = :{port}'`, or choose another with \
         --listen", port = .0.port()
    )]
    Taken(SocketAddr),
    /// The address is not one of this machine.
    #[error(
        "listen on {0}: this machine has no such address; see those it has with `ip address`, or use [::]"
    )]
    NotHere(SocketAddr),
    /// A port below 1024.
    #[error("listen on {0}: ports below 1024 need CAP_NET_BIND_SERVICE; use one above, such as 7655")]
    NotAllowed(SocketAddr),
    /// Plain text beyond loopback.
    #[error("listen on {0}: plain text is for loopback addresses only; use 127.0.0.1 or [::1], or TLS")]
    Plaintext(SocketAddr),
    /// Anything else.
    #[error("listen on {address}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl ListenError {
    fn of(address: SocketAddr, source: io::Error) -> ListenError {
        match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken(address),
            io::ErrorKind::AddrNotAvailable => ListenError::NotHere(address),
            io::ErrorKind::PermissionDenied => ListenError::NotAllowed(address),
            _ => ListenError::Other { address, source },
        }
    }
}

/// Addresses that are bound, and not served yet.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    tls: Option<Arc<Tls>>,
}

/// How the connections ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// How many were still there when the time was over, and were cut.
    pub aborted: usize,
}

impl Listener {
    /// Binds every address, or none. Without `tls` the addresses must be loopback. Needs a runtime around it.
    ///
    /// # Errors
    /// [`ListenError`] for the first address that fails.
    pub fn bind(addresses: &[SocketAddr], tls: Option<Arc<Tls>>) -> Result<Listener, ListenError> {
        let open = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
        if let (None, Some(address)) = (&tls, open) {
            return Err(ListenError::Plaintext(*address));
        }
        Listener::bind_all(addresses, tls)
    }

    /// Binds an address at which plain text is spoken though others can read it: what is served there must be meant for that.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind_in_plain_text(address: SocketAddr) -> Result<Listener, ListenError> {
        Listener::bind_all(&[address], None)
    }

    fn bind_all(addresses: &[SocketAddr], tls: Option<Arc<Tls>>) -> Result<Listener, ListenError> {
        let sockets = addresses.iter().map(|address| {
            // An IPv6 socket takes IPv4 callers too, unless IPv4 has a socket of its own on that port.
            let only_v6 = addresses.iter().any(|other| other.is_ipv4() && other.port() == address.port());
            match bind(*address, only_v6) {
                Ok(socket) => Ok(Some(socket)),
                Err(error) => match without_ipv6(*address, &error) {
                    Some(instead) => {
                        tracing::warn!(%address, %instead, "this kernel has no IPv6: listening on IPv4 alone");
                        // It may stand in the list by itself.
                        if addresses.contains(&instead) {
                            return Ok(None);
                        }
                        bind(instead, false).map(Some).map_err(|source| ListenError::of(instead, source))
                    }
                    None => Err(ListenError::of(*address, error)),
                },
            }
        });
        let sockets: Result<Vec<_>, ListenError> = sockets.collect();
        Ok(Listener { sockets: sockets?.into_iter().flatten().collect(), tls })
    }

    /// Where it listens; port 0 has become a real one.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until the drain, and then at most [`Bounds::drain`] longer. Dropping the future cuts everything.
    pub async fn serve(self, router: Router, bounds: Bounds, metrics: Arc<Metrics>, drain: Drain) -> Drained {
        let slots = Arc::new(Semaphore::new(bounds.connections.min(Semaphore::MAX_PERMITS)));
        let addresses = Addresses::new(bounds.connections_per_address, bounds.trusted_proxies.clone());
        let tls = self.tls.map(|tls| tls.server_config());
        let (shards, mut shard_tasks) = Shards::start();
        let serving = Arc::new(Serving::new(router, tls, bounds, metrics, drain, shards));
        let mut loops = JoinSet::new();
        for socket in self.sockets {
            loops.spawn(accept::run(socket, slots.clone(), addresses.clone(), serving.clone()));
        }
        let mut aborted = 0;
        while let Some(ended) = loops.join_next().await {
            match ended {
                Ok(drained) => aborted += drained.aborted,
                // A loop ends at the drain only, and nobody else could cancel it: what stays is a defect in it.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        // What was cut in a shard is gone when the shard is: whoever saves what the connections left behind comes after them.
        drop(serving);
        while let Some(ended) = shard_tasks.join_next().await {
            report_panic(ended);
        }
        Drained { aborted }
    }
}

/// Serves one connection to its end, over any transport that needs no TLS of ours: the simulation's.
pub async fn serve_stream<S>(
    stream: S,
    peer: Peer,
    router: Router,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Serving::new(router, None, bounds, metrics, drain, Shards::none()).http(stream, peer).await;
}

/// What to listen on in place of every IPv6 address, if that failed because there is no IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    use rustix::io::Errno;
    let is_every = address.is_ipv6() && address.ip().is_unspecified();
    // Built or started without IPv6; or it is turned off, and there is no address of it.
    let has_none = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    (is_every && has_none).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

fn bind(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    use rustix::net::sockopt;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart takes the port at once, though old connections linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, only_v6)?;
    }
    // Accepted sockets inherit these. HTTP/2 has its own signs of life; this ends HTTP/1 callers that vanished:
    // 60 s of silence, then 3 probes of 20 s.
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(20))?;
    sockopt::set_tcp_keepcnt(&socket, 3)?;
    // And callers that take no more of their answers, though their kernel is alive (tcp(7)).
    sockopt::set_tcp_user_timeout(&socket, u32::try_from(STALLED.as_millis()).unwrap_or(u32::MAX))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn every_ipv6_address_becomes_every_ipv4_address_on_a_kernel_without_ipv6() {
        let instead = |address: &str, errno: Errno| {
            let address = address.parse().unwrap();
            without_ipv6(address, &io::Error::from_raw_os_error(errno.raw_os_error()))
                .map(|at| at.to_string())
        };
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(instead("[::]:7655", errno).as_deref(), Some("0.0.0.0:7655"));
            assert_eq!(instead("[::1]:7655", errno), None);
            assert_eq!(instead("0.0.0.0:7655", errno), None);
        }
        assert_eq!(instead("[::]:7655", Errno::ADDRINUSE), None);
    }
}
