//! One connection, from its first byte to its last.
//!
//! In: an accepted socket. Out: requests to the router, each with its [`Peer`].
//! Always: the handshake, the first request, headers and signs of life are each bounded in time; the tasks of a
//! connection end with it.

use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tower::ServiceExt;

use super::http2::{End, Http2};
use super::impatient::Impatient;
use super::meter::{FLOOD, Metered};
use super::shards::Shards;
use super::sniff::{Protocol, sniff};
use super::{Bounds, Peer, STALLED, plain_http};
use crate::metrics::{ConnectionRefusal, HandshakeFailure, Metrics};
use crate::shutdown::Drain;

/// The first byte of a TLS record that holds a ClientHello (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Answers to a ClientHello that wait for a core at one time, for each core: one takes some 0.2 ms, so nobody else waits
/// longer than half a millisecond for them.
const HANDSHAKES_OF_A_CORE: usize = 2;

/// What every connection needs.
pub(super) struct Serving {
    pub(super) router: Router,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Places for answers to a ClientHello.
    pub(super) handshakes: Semaphore,
    pub(super) bounds: Bounds,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
    pub(super) shards: Shards,
}

/// What a caller began with.
enum Begun {
    Hello(Box<StartHandshake<Impatient<TcpStream>>>),
    PlainHttp(TcpStream),
}

/// What a caller turned out to speak.
enum Greeting {
    Tls(Box<TlsStream<Impatient<TcpStream>>>),
    PlainHttp(TcpStream),
}

impl Serving {
    pub(super) fn new(
        router: Router,
        tls: Option<Arc<ServerConfig>>,
        bounds: Bounds,
        metrics: Arc<Metrics>,
        drain: Drain,
        shards: Shards,
    ) -> Serving {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let handshakes = Semaphore::new(HANDSHAKES_OF_A_CORE * cores);
        Serving { router, tls, handshakes, bounds, metrics, drain, shards }
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(&self, stream: TcpStream, peer: Peer) {
        self.metrics.connections.inc();
        let _open = Open(&self.metrics);
        // Pushes and answers are small and must not wait for each other. It fails only on a socket that is dead.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http(Impatient::new(stream, STALLED), peer).await;
        };
        // What only the beginning needs is given back with its end: a connection lasts for days.
        let greeting = Box::pin(self.greet(stream, tls));
        let greeting = tokio::select! {
            // Nothing was asked yet, so nothing is lost.
            () = self.drain.started() => return,
            greeting = greeting => greeting,
        };
        let failure = match greeting {
            Ok(Greeting::Tls(stream)) => return self.http(stream, peer).await,
            Ok(Greeting::PlainHttp(stream)) => {
                // The answer is short, and who does not take it gets no more time than a handshake has.
                let _ = timeout(self.bounds.handshake, plain_http::answer(stream)).await;
                HandshakeFailure::PlainHttp
            }
            Err(failure) => failure,
        };
        self.metrics.handshake_failed(failure);
        tracing::debug!(peer = %peer.address, reason = failure.as_str(), "TLS handshake failed");
    }

    /// Finds out what the caller speaks, and shakes hands.
    ///
    /// The dear part of a handshake is the server's answer to a whole ClientHello. As few are made at a time as there are
    /// places, first come, first served: when a fleet comes back, all others have their turn between two of them. Who
    /// waits for a place holds none, and the time is not the caller's.
    async fn greet(&self, stream: TcpStream, tls: &Arc<ServerConfig>) -> Result<Greeting, HandshakeFailure> {
        let begun = async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(0) | Err(_) => Err(HandshakeFailure::Closed),
                Ok(_) => match first[0] {
                    TLS_HANDSHAKE => {
                        let hello =
                            LazyConfigAcceptor::new(Acceptor::default(), Impatient::new(stream, STALLED));
                        hello.await.map(|hello| Begun::Hello(Box::new(hello))).map_err(failure)
                    }
                    // Every method of HTTP begins so, and the preface of HTTP/2 too.
                    b'A'..=b'Z' => Ok(Begun::PlainHttp(stream)),
                    _ => Err(HandshakeFailure::NotTls),
                },
            }
        };
        let from = Instant::now();
        let hello = match timeout(self.bounds.handshake, begun).await {
            Ok(Ok(Begun::Hello(hello))) => hello,
            Ok(Ok(Begun::PlainHttp(stream))) => return Ok(Greeting::PlainHttp(stream)),
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(HandshakeFailure::Timeout),
        };
        let left = self.bounds.handshake.saturating_sub(from.elapsed());
        let answer = {
            let _place = self.handshakes.acquire().await.expect("nobody closes it");
            // Behind all who are ready to run: so there are never more of these in front of anybody than there are places.
            tokio::task::yield_now().await;
            hello.into_stream(Arc::clone(tls))
        };
        match timeout(left, answer).await {
            Ok(stream) => stream.map(|stream| Greeting::Tls(Box::new(stream))).map_err(failure),
            Err(_) => Err(HandshakeFailure::Timeout),
        }
    }

    /// Serves HTTP/1 or HTTP/2, told apart by the first bytes.
    pub(super) async fn http<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Instant::now();
        let sniffed = tokio::select! {
            () = self.drain.started() => return,
            sniffed = timeout(self.bounds.first_request, sniff(stream)) => sniffed,
        };
        match sniffed {
            // One of the two is made, and what is larger takes no room from the other.
            Ok(Ok((Protocol::Http1, stream))) => Box::pin(self.http1(stream, peer, begun)).await,
            Ok(Ok((Protocol::Http2, stream))) => Box::pin(self.http2(stream, peer, begun)).await,
            // It went away before it said anything.
            Ok(Err(_)) => {}
            Err(_) => self.metrics.connection_refused(ConnectionRefusal::Idle),
        }
    }

    async fn http2<S>(&self, stream: S, peer: Peer, begun: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first_request = self.bounds.first_request.saturating_sub(begun.elapsed());
        // Where a connection begins is given back when it has begun.
        let mut beginning = Box::pin(self.begin_http2(stream, peer, first_request));
        let (connection, draining) = match beginning.as_mut().await {
            Ok(begun) => begun,
            Err(end) => return self.http2_ended(peer, &end),
        };
        drop(beginning);
        let served = self.shards.serve(|turn| {
            let mut connection = connection;
            connection.push_by(turn);
            serve_http2(connection, draining)
        });
        match served.await {
            Some(end) => self.http2_ended(peer, &end),
            None => tracing::error!(peer = %peer.address, "a connection ended by a defect"),
        }
    }

    /// Serves up to where the connection is pushed to.
    async fn begin_http2<S>(
        &self,
        stream: S,
        peer: Peer,
        first_request: Duration,
    ) -> Result<(Box<Http2<Metered<S>>>, Draining), End>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Metered::new(stream);
        let shaking = Http2::begin(stream, self.router.clone(), peer, &self.bounds, first_request);
        let mut connection = match timeout(first_request, shaking).await {
            Ok(connection) => Box::new(connection.map_err(End::Failed)?),
            Err(_) => return Err(End::Idle),
        };
        let mut draining = Draining::of(&self.drain);
        let begun = poll_fn(|cx| {
            draining.look(cx, &mut connection);
            match connection.poll(cx) {
                Poll::Ready(end) => Poll::Ready(Err(end)),
                Poll::Pending if connection.is_pushed_to() => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        });
        begun.await?;
        Ok((connection, draining))
    }

    fn http2_ended(&self, peer: Peer, end: &End) {
        match end {
            End::Closed => {}
            End::Failed(error) => {
                if error.get_io().is_some_and(|error| error.kind() == FLOOD) {
                    self.metrics.connection_refused(ConnectionRefusal::Flood);
                }
                ended_by(peer, error);
            }
            End::Idle => self.metrics.connection_refused(ConnectionRefusal::Idle),
            End::Silent => {
                tracing::debug!(peer = %peer.address, "connection ended: its caller gave no sign of life");
            }
        }
    }

    async fn http1<S>(&self, stream: S, peer: Peer, begun: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let was_asked = AtomicBool::new(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            was_asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            self.router.clone().oneshot(request)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.headers)
            // hyper takes no less than 8 KiB.
            .max_buf_size((self.bounds.header_list_bytes as usize).max(8 << 10));
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut draining = pin!(self.drain.started());
        let mut first_request = pin!(sleep_until(begun + self.bounds.first_request));
        let (mut is_draining, mut is_new) = (false, true);
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        ended_by(peer, &error);
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
}

fn ended_by(peer: Peer, error: &(dyn std::error::Error + 'static)) {
    tracing::debug!(peer = %peer.address, error, "connection ended by an error");
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

/// Serves a connection of HTTP/2 to its end.
async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Box<Http2<S>>,
    mut draining: Draining,
) -> End {
    poll_fn(|cx| {
        draining.look(cx, &mut connection);
        connection.poll(cx)
    })
    .await
}

/// The drain, as one connection waits for it. `None`: it has begun.
struct Draining(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Draining {
    fn of(drain: &Drain) -> Draining {
        let drain = drain.clone();
        Draining(Some(Box::pin(async move { drain.started().await })))
    }

    /// Tells the connection when it begins.
    fn look<S: AsyncRead + AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, connection: &mut Http2<S>) {
        if self.0.as_mut().is_some_and(|started| started.as_mut().poll(cx).is_ready()) {
            self.0 = None;
            connection.begin_to_drain();
        }
    }
}

/// Counts a connection off when it ends, however it ends.
struct Open<'a>(&'a Metrics);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
