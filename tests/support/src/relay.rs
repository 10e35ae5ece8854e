//! A relay between a real proxy and a real server, which may change every message on its way.
//!
//! In: gRPC over TLS, with a certificate of the relay's own; [`Relay::join`] turns the server's join string into one
//! that leads here. Out: the same calls to the server, with headers, statuses and trailers as they were.
//! Always: one connection behind for one in front; what one end closes, the other sees closed.
//! Never: decides what is changed; that is the test's own closure, which sees the bytes of each message.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::header::CONTENT_LENGTH;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use pulse_proto::{JoinString, Pin};
use rcgen::PublicKeyData;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::http::tls;
use crate::server::Server;

/// The bytes of a message between its 5 bytes of framing and the next.
type Rewrite = Arc<dyn Fn(Passing<'_>) -> Vec<Vec<u8>> + Send + Sync>;

/// A message on its way.
#[derive(Debug)]
pub struct Passing<'a> {
    /// The method, such as `WatchAuthorizedNodes`.
    pub method: &'a str,
    /// Whether it is the server's answer; otherwise the proxy's request.
    pub is_answer: bool,
    /// The message, encoded.
    pub message: Vec<u8>,
}

impl Passing<'_> {
    /// As it is.
    #[must_use]
    pub fn unchanged(self) -> Vec<Vec<u8>> {
        vec![self.message]
    }

    /// As `change` leaves it.
    ///
    /// # Panics
    /// When it is no message of this type.
    #[must_use]
    pub fn edited<M: Message + Default>(self, change: impl FnOnce(&mut M)) -> Vec<Vec<u8>> {
        let mut message = M::decode(&self.message[..]).expect("it is of the type that the method has");
        change(&mut message);
        vec![message.encode_to_vec()]
    }
}

/// A relay on a port of 127.0.0.1. Ends, with all its connections, when dropped.
pub struct Relay {
    address: SocketAddr,
    pin: Pin,
    // Its end is the end of all that it runs.
    runtime: Option<tokio::runtime::Runtime>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("address", &self.address)
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts a relay to a server. `rewrite` is asked for each message, and returns what goes on instead: the message
    /// itself, a changed one, none, or several.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(
        server: &Server,
        rewrite: impl Fn(Passing<'_>) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Relay {
        Relay::begin(server, false, Arc::new(rewrite))
    }

    /// The same; and of a failed call only the status and its text go on, without details, as a server sends that
    /// knows none.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn without_details(
        server: &Server,
        rewrite: impl Fn(Passing<'_>) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Relay {
        Relay::begin(server, true, Arc::new(rewrite))
    }

    fn begin(server: &Server, drops_details: bool, rewrite: Rewrite) -> Relay {
        let (acceptor, pin) = certificate();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let behind = Behind::of(server.address(), &server.ca_path());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind, rewrite) = (acceptor.clone(), behind.clone(), Arc::clone(&rewrite));
                tokio::spawn(async move {
                    // A connection that fails is closed, which both ends see.
                    let _ = pass(stream, acceptor, behind, rewrite, drops_details).await;
                });
            }
        });
        Relay { address, pin, runtime: Some(runtime) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The pin of its certificate.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// The server's join string, leading to this relay.
    ///
    /// # Panics
    /// When it is no join string.
    #[must_use]
    pub fn join(&self, join: &str) -> String {
        let join: JoinString = join.parse().expect("the server made the join string");
        let host = self.address.ip().to_string();
        JoinString { host, port: self.address.port(), pin: Some(self.pin), ..join }.reveal()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A certificate of the relay's own, ready to accept with.
fn certificate() -> (TlsAcceptor, Pin) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate is made");
    let pin = Pin::of_spki(&made.signing_key.subject_public_key_info());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("rcgen writes PKCS#8");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for them")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the key belongs to the certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), pin)
}

/// The server behind the relay.
#[derive(Clone)]
struct Behind {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Behind {
    fn of(address: SocketAddr, ca_path: &Path) -> Behind {
        Behind { address, tls: Arc::new(tls(ca_path, &["h2"]).expect("the CA can be read")) }
    }

    async fn connect(&self) -> io::Result<SendRequest<Messages>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Serves one connection with one connection to the server.
async fn pass(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    behind: Behind,
    rewrite: Rewrite,
    drops_details: bool,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let sender = behind.connect().await?;
    let authority = behind.address;
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut sender, rewrite) = (sender.clone(), Arc::clone(&rewrite));
        async move {
            let (mut head, body) = request.into_parts();
            let method = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            // A rewritten message may have another length.
            head.headers.remove(CONTENT_LENGTH);
            head.uri = format!("https://{authority}{}", head.uri.path()).parse().map_err(io::Error::other)?;
            let body = Messages::new(body, Arc::clone(&rewrite), &method, false, drops_details);
            let answer =
                sender.send_request(Request::from_parts(head, body)).await.map_err(io::Error::other)?;
            let (mut head, body) = answer.into_parts();
            head.headers.remove(CONTENT_LENGTH);
            if drops_details {
                // A call that fails at once has its status here, and no trailers.
                head.headers.remove(DETAILS);
            }
            let body = Messages::new(body, rewrite, &method, true, drops_details);
            Ok::<_, io::Error>(Response::from_parts(head, body))
        }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// The header of a status's details.
const DETAILS: &str = "grpc-status-details-bin";

/// A body whose messages are rewritten one by one.
struct Messages {
    inner: Incoming,
    rewrite: Rewrite,
    method: String,
    is_answer: bool,
    drops_details: bool,
    heard: BytesMut,
    ready: VecDeque<Bytes>,
}

impl Messages {
    fn new(
        inner: Incoming,
        rewrite: Rewrite,
        method: &str,
        is_answer: bool,
        drops_details: bool,
    ) -> Messages {
        let method = method.to_owned();
        Messages {
            inner,
            rewrite,
            method,
            is_answer,
            drops_details,
            heard: BytesMut::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes apart what was heard, as far as whole messages came: a byte for compression, four of length, the message.
    fn take_messages(&mut self) {
        while self.heard.len() >= 5 {
            let length =
                u32::from_be_bytes([self.heard[1], self.heard[2], self.heard[3], self.heard[4]]) as usize;
            if self.heard.len() < 5 + length {
                return;
            }
            self.heard.advance(5);
            let message = self.heard.split_to(length).to_vec();
            let passing = Passing { method: &self.method, is_answer: self.is_answer, message };
            for message in (self.rewrite)(passing) {
                let mut framed = BytesMut::with_capacity(5 + message.len());
                framed.put_u8(0);
                framed.put_u32(u32::try_from(message.len()).expect("a message is below 4 GiB"));
                framed.put_slice(&message);
                self.ready.push_back(framed.freeze());
            }
        }
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pinned<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = self.get_mut();
        loop {
            if let Some(message) = body.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            let Some(frame) = ready!(Pinned::new(&mut body.inner).poll_frame(context)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(bytes) => {
                    body.heard.extend_from_slice(&bytes);
                    body.take_messages();
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    if body.drops_details {
                        trailers.remove(DETAILS);
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.inner.is_end_stream()
    }
}
