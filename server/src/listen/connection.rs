//! One connection, from its first byte to its last.
//!
//! In: an accepted socket. Out: requests to the router, each with its [`Peer`].
//! Always: the handshake, the first request, headers and signs of life are each bounded in time; the tasks of a
//! connection end with it.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::impatient::Impatient;
use super::tasks::ConnectionTasks;
use super::{Bounds, Peer, STALLED, plain_http};
use crate::metrics::{ConnectionRefusal, HandshakeFailure, Metrics};
use crate::shutdown::Drain;

/// The first byte of a TLS record that holds a ClientHello (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What a request's body may bring before the router has read it: 64 KiB for a call, 256 KiB for a connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// What a slow reader may leave unsent in memory, for each call.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// What every connection needs.
pub(super) struct Serving {
    pub(super) router: Router,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) bounds: Bounds,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
}

/// What a caller turned out to speak.
enum Greeting {
    Tls(Box<TlsStream<Impatient<TcpStream>>>),
    PlainHttp(TcpStream),
}

impl Serving {
    /// Serves one connection to its end.
    pub(super) async fn serve(&self, stream: TcpStream, peer: Peer) {
        self.metrics.connections.inc();
        let _open = Open(&self.metrics);
        // Pushes and answers are small and must not wait for each other. It fails only on a socket that is dead.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = &self.acceptor else {
            return self.http(Impatient::new(stream, STALLED), peer).await;
        };
        let greeting = tokio::select! {
            // Nothing was asked yet, so nothing is lost.
            () = self.drain.started() => return,
            greeting = timeout(self.bounds.handshake, greet(stream, acceptor)) => greeting,
        };
        let failure = match greeting {
            Ok(Ok(Greeting::Tls(stream))) => return self.http(*stream, peer).await,
            Ok(Ok(Greeting::PlainHttp(stream))) => {
                // The answer is short, and who does not take it gets no more time than a handshake has.
                let _ = timeout(self.bounds.handshake, plain_http::answer(stream)).await;
                HandshakeFailure::PlainHttp
            }
            Ok(Err(failure)) => failure,
            Err(_) => HandshakeFailure::Timeout,
        };
        self.metrics.handshake_failed(failure);
        tracing::debug!(peer = %peer.address, reason = failure.as_str(), "TLS handshake failed");
    }

    /// Serves HTTP/1 or HTTP/2, told apart by the first bytes.
    pub(super) async fn http<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let was_asked = AtomicBool::new(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            was_asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            self.router.clone().oneshot(request)
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut draining = pin!(self.drain.started());
        let mut first_request = pin!(tokio::time::sleep(self.bounds.first_request));
        let (mut is_draining, mut is_new) = (false, true);
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(peer = %peer.address, error, "connection ended by an error");
                    }
                    return;
                }
                () = &mut draining, if !is_draining => {
                    is_draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut first_request, if is_new => {
                    is_new = false;
                    if !was_asked.load(Ordering::Relaxed) {
                        self.metrics.connection_refused(ConnectionRefusal::Idle);
                        return;
                    }
                }
            }
        }
    }

    fn builder(&self) -> auto::Builder<ConnectionTasks> {
        let mut builder = auto::Builder::new(ConnectionTasks::default());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.headers)
            // hyper takes no less than 8 KiB.
            .max_buf_size((self.bounds.header_list_bytes as usize).max(8 << 10));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.bounds.keep_alive_interval)
            .keep_alive_timeout(self.bounds.keep_alive_timeout)
            .max_concurrent_streams(self.bounds.streams_per_connection)
            .max_header_list_size(self.bounds.header_list_bytes)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        builder
    }
}

/// Finds out what the caller speaks, and shakes hands.
async fn greet(stream: TcpStream, acceptor: &TlsAcceptor) -> Result<Greeting, HandshakeFailure> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) | Err(_) => Err(HandshakeFailure::Closed),
        Ok(_) => match first[0] {
            TLS_HANDSHAKE => {
                let accepted = acceptor.accept(Impatient::new(stream, STALLED)).await;
                accepted.map(|stream| Greeting::Tls(Box::new(stream))).map_err(failure)
            }
            // Every method of HTTP begins so, and the preface of HTTP/2 too.
            b'A'..=b'Z' => Ok(Greeting::PlainHttp(stream)),
            _ => Err(HandshakeFailure::NotTls),
        },
    }
}

fn failure(error: io::Error) -> HandshakeFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(_)) => HandshakeFailure::RefusedByPeer,
        Some(rustls::Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOffered
            | rustls::PeerIncompatible::Tls12NotOfferedOrEnabled
            // Which TLS 1.2 has, and versions before it had not.
            | rustls::PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        )) => HandshakeFailure::Version,
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Closed,
    }
}

/// Counts a connection off when it ends, however it ends.
struct Open<'a>(&'a Metrics);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
