//! Asks the server: one HTTP/1.1 request over its admin socket, or from afar over TLS.
//!
//! Always: bounded in time and size. Never: knows what the answer means.

mod afar;
mod trust;
pub(super) mod way;

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use self::afar::Stream;
use self::way::Way;
use super::failure::Failure;
use crate::api::ROOT;

/// How long an answer may take: a change waits for its commit, which waits for a busy disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer: 100,000 proxies of some 1 KiB.
const MAX_ANSWER_BYTES: usize = 128 << 20;

type Sender = http1::SendRequest<Full<Bytes>>;
type Connection = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

/// The way to one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    way: Way,
}

impl Client {
    /// A client of the server that is found this way.
    pub(super) fn new(way: Way) -> Client {
        Client { way }
    }

    /// Whether the server is asked from afar.
    pub(super) fn is_afar(&self) -> bool {
        matches!(self.way, Way::Afar(_))
    }

    async fn connect(&self) -> Result<(Sender, Connection), Failure> {
        let stream = self.way.dial().await?;
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::exchange(&self.way, error)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{ROOT}{path}"))
            .header(HOST, self.way.host())
            .header(CONTENT_TYPE, "application/json");
        if let Way::Afar(afar) = &self.way {
            request = request.header(AUTHORIZATION, afar.authorization());
        }
        request.body(Full::new(body)).map_err(|error| Failure::local("REQUEST", error.to_string()))
    }

    /// Sends one request to a path below [`ROOT`]; `()` is no body. Returns the answer's JSON.
    ///
    /// # Errors
    /// [`Failure`]: no server, no answer, or its refusal.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::local("REQUEST", error.to_string()))?;
        let body = if body == b"null" { Bytes::new() } else { Bytes::from(body) };
        let request = self.request(method, path, body)?;
        match timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(answer) => {
                let (status, body) = answer?;
                if !status.is_success() {
                    return Err(Failure::refused(status, &body));
                }
                serde_json::from_slice(&body).map_err(|error| Failure::unreadable(&error.to_string()))
            }
            Err(_) => {
                let seconds = ANSWER_TIMEOUT.as_secs();
                Err(self.broken(&format!("none came within {seconds} s")))
            }
        }
    }

    /// Sends a request whose answer is a stream, and gives its pieces to `take`. However long the server prepares the
    /// answer, it is waited for; between two pieces no longer than for any answer.
    ///
    /// # Errors
    /// [`Failure`]: no server, its refusal, a stream that was cut short, or what `take` says.
    pub(super) async fn download(
        &self,
        method: Method,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let request = self.request(method, path, Bytes::new())?;
        let (mut sender, connection) = self.connect().await?;
        let broken = |error: &dyn std::fmt::Display| self.broken(error);
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
                return Err(Failure::refused(status, &body.map_err(|error| broken(&error))?.to_bytes()));
            }
            loop {
                let late = |_| broken(&format!("it stopped for {} s", ANSWER_TIMEOUT.as_secs()));
                match timeout(ANSWER_TIMEOUT, body.frame()).await.map_err(late)? {
                    None => return Ok(()),
                    Some(Err(error)) => return Err(broken(&format!("it was cut short ({error})"))),
                    Some(Ok(frame)) => frame.data_ref().map_or(Ok(()), |piece| take(piece))?,
                }
            }
        };
        let connection = async {
            // Why it broke, the exchange says itself.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            done = exchange => done,
            () = connection => Ok(()),
        }
    }

    /// The process id of the server, by the kernel's word; `None`: it does not say.
    pub(super) async fn server_process(&self) -> Option<i32> {
        let Way::Socket(socket) = &self.way else { return None };
        let stream = timeout(ANSWER_TIMEOUT, UnixStream::connect(socket)).await.ok()?;
        stream.ok()?.peer_cred().ok()?.pid()
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
        let (mut sender, connection) = self.connect().await?;
        let broken = |error: &dyn std::fmt::Display| self.broken(error);
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(|error| broken(&error))?.to_bytes()))
        };
        // The exchange owns the sender, so the connection ends with it; why it broke, the exchange says itself.
        tokio::join!(exchange, connection).0
    }
}

/// One segment of a path, or one value of a query, percent-encoded (RFC 3986, all but unreserved characters).
pub(super) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_stays_one_segment() {
        assert_eq!(segment("pve-01.lab_x~"), "pve-01.lab_x~");
        assert_eq!(segment("a/b?c=d&e f%ä"), "a%2Fb%3Fc%3Dd%26e%20f%25%C3%A4");
    }
}
