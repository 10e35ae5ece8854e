//! gRPC by hand: a caller that may send any head and any bytes, where a library would send only what is right.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::http::tls;
use crate::server::Server;
use crate::wait::in_time;

/// The path of a method of the contract.
#[must_use]
pub fn path(method: &str) -> String {
    format!("/pulse.control.v1.ControlPlaneService/{method}")
}

/// A message in its frame: not compressed, four bytes of length, the message.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a message is below 4 GiB"));
    framed.put_slice(message);
    framed.freeze()
}

/// A connection to the server.
#[derive(Clone, Debug)]
pub struct Raw {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

/// What came back.
#[derive(Debug)]
pub struct RawAnswer {
    /// The HTTP status.
    pub http: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The gRPC status; `None` where there is none: of an answer that is not gRPC, or of a stream that goes on.
    pub status: Option<Status>,
}

impl RawAnswer {
    /// The gRPC code; that of a stream which goes on is `Ok`.
    #[must_use]
    pub fn code(&self) -> Code {
        self.status.as_ref().map_or(Code::Ok, Status::code)
    }

    /// The fields that the refusal names, and what it says of each.
    #[must_use]
    pub fn violations(&self) -> Vec<(String, String)> {
        let details = self.status.as_ref().and_then(StatusExt::get_details_bad_request);
        let violations = details.map(|details| details.field_violations).unwrap_or_default();
        violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When the server is not reached.
    pub async fn connect(server: &Server) -> Raw {
        let tls = TlsConnector::from(Arc::new(tls(&server.ca_path(), &["h2"]).expect("the CA can be read")));
        let stream = TcpStream::connect(server.address()).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket takes the option");
        let stream = tls.connect(ServerName::from(server.address().ip()), stream).await;
        let io = TokioIo::new(stream.expect("the server is trusted"));
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (sender, connection) = handshake.expect("the server speaks HTTP/2");
        tokio::spawn(connection);
        Raw { sender, authority: server.address().to_string() }
    }

    /// Calls a method with one message.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn call(&mut self, method: &str, token: &str, message: &[u8]) -> RawAnswer {
        let bearer = format!("Bearer {token}");
        let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", &bearer)];
        self.send(Method::POST, &path(method), &headers, frame(message)).await
    }

    /// Sends a request as it is. Of a watch only the beginning is awaited.
    ///
    /// # Panics
    /// When it is no HTTP, or no answer comes.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> RawAnswer {
        let mut request = Request::builder().method(method).uri(format!("https://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        let request = request.body(Full::new(body)).expect("it is a request");
        let answer = in_time("an answer", self.sender.send_request(request)).await.expect("it is answered");
        let (head, body) = answer.into_parts();
        let mut status = Status::from_header_map(&head.headers);
        if status.is_none() && !path.ends_with("/WatchAuthorizedNodes") {
            let body = in_time("the end of an answer", body.collect()).await.expect("it is whole");
            status = body.trailers().and_then(Status::from_header_map);
        }
        RawAnswer { http: head.status, headers: head.headers, status }
    }
}
