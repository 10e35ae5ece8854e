//! Callers that a well-behaved library would not be: bytes over TLS, frames of HTTP/2 by hand, bodies that never end.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pulse_test_support::Server;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::client_config;

/// What begins a connection of HTTP/2: the preface (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types (RFC 9113, 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// Flags.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The address of the tests, and another one of this machine.
pub(crate) const ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A TLS connection that comes from one address of this machine.
pub(crate) async fn dial_from(
    from: IpAddr,
    to: SocketAddr,
    ca: &Path,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("it is a name");
    TlsConnector::from(client_config(ca, alpn)).connect(name, stream).await
}

/// A TLS connection to the server.
pub(crate) async fn dial(server: &Server, alpn: &[&str]) -> TlsStream<TcpStream> {
    dial_from(ONE, server.address(), &server.ca_path(), alpn).await.expect("the server shakes hands")
}

/// The same for HTTP/1, by a caller that has room for a few answers only.
pub(crate) async fn dial_narrow(server: &Server) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_recv_buffer_size(4_096).expect("the option exists");
    let stream = socket.connect(server.address()).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("it is a name");
    let config = client_config(&server.ca_path(), &["http/1.1"]);
    TlsConnector::from(config).connect(name, stream).await.expect("the server shakes hands")
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a gRPC call, as HPACK literals without Huffman and without the table (RFC 7541, 6.2.2).
pub(crate) fn call_headers(path: &str, token: &str) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &bearer),
    ];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// One header field.
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        field.push(length.expect("it is short enough for one byte of length"));
        field.extend(text.as_bytes());
    }
    field
}

/// Sends the preface with these settings, and takes no notice of what comes.
pub(crate) async fn greet(stream: &mut TlsStream<TcpStream>, settings: &[u8]) {
    stream.write_all(PREFACE).await.expect("the connection is new");
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.expect("the connection is new");
}

/// Reads until the other end closes, and says how long that took and what came.
pub(crate) async fn until_closed(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    within: Duration,
) -> (Duration, Vec<u8>) {
    let begun = Instant::now();
    let mut all = Vec::new();
    // A reset is an end too.
    let ended = tokio::time::timeout(within, stream.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "the connection is still open after {within:?}");
    (begun.elapsed(), all)
}

/// Sends bytes one a second until the other end closes, and says how long that took.
pub(crate) async fn trickle<S>(stream: S, bytes: &[u8], within: Duration) -> Duration
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let begun = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        for byte in bytes {
            if writer.write_all(&[*byte]).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut sink = Vec::new();
    let closed = async {
        tokio::select! {
            _ = reader.read_to_end(&mut sink) => {}
            () = send => {}
        }
    };
    assert!(tokio::time::timeout(within, closed).await.is_ok(), "still open after {within:?}");
    begun.elapsed()
}

/// A body of the test's own making.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A connection of HTTP/2 whose bodies may do as they like.
#[derive(Clone)]
pub(crate) struct Raw(http2::SendRequest<Body>);

impl Raw {
    pub(crate) async fn over(stream: TlsStream<TcpStream>) -> Raw {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("the preface can be sent");
        tokio::spawn(connection);
        Raw(sender)
    }

    /// Makes a call. Returns the answer's headers, or its trailers if they come first.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        token: &str,
        body: Body,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        let request = http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"));
        self.0.ready().await?;
        self.0.send_request(request.body(body).expect("the request is well-formed")).await
    }
}

/// A body that begins with these bytes and never ends.
pub(crate) fn endless(beginning: &'static [u8]) -> Body {
    use futures_util::StreamExt;
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(beginning)))]);
    StreamBody::new(first.chain(futures_util::stream::pending())).boxed_unsync()
}

/// A body of one byte a second, the first five of which announce a message of 1,000 bytes.
pub(crate) fn trickling() -> Body {
    let bytes = futures_util::stream::unfold(0, |sent: usize| async move {
        if sent > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let byte = [0, 0, 0, 3, 0xe8].get(sent).copied().unwrap_or(0);
        Some((Ok(Frame::data(Bytes::copy_from_slice(&[byte]))), sent + 1))
    });
    StreamBody::new(bytes).boxed_unsync()
}

/// A body that keeps its last byte back until it is told to go on.
pub(crate) fn held(message: Bytes, go: tokio::sync::watch::Receiver<bool>) -> Body {
    let (beginning, last) = message.split_at(message.len() - 1);
    let (beginning, last) = (Bytes::copy_from_slice(beginning), Bytes::copy_from_slice(last));
    let frames = futures_util::stream::unfold(Some((beginning, Some(last))), move |state| {
        let mut go = go.clone();
        async move {
            let (now, later) = state?;
            if later.is_none() {
                // An error says that the test is over.
                let _ = go.wait_for(|go| *go).await;
            }
            Some((Ok(Frame::data(now)), later.map(|later| (later, None))))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
