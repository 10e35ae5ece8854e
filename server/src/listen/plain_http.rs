//! The answer to plain HTTP on the TLS port.
//!
//! Always: short, and the connection ends with it. A browser's GET is sent to `https://`; all else gets 426, because a
//! redirect would make a client send its token, which it has just shown to everybody, once more without a word.

use std::convert::Infallible;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, UPGRADE};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use super::tasks::ConnectionTasks;

const TEXT: &str = "This port speaks TLS. Use https:// in place of http://\n";

/// Answers one request. The caller bounds the time.
pub(super) async fn answer(stream: TcpStream) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(response(&request)) });
    let mut builder = auto::Builder::new(ConnectionTasks::default());
    builder.http1().keep_alive(false).header_read_timeout(None);
    builder.http2().max_concurrent_streams(1);
    // Whether the caller takes the answer is its own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn response(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(TEXT));
    let (status, location) = match location(request) {
        Some(location) => (StatusCode::PERMANENT_REDIRECT, Some(location)),
        None => (StatusCode::UPGRADE_REQUIRED, None),
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    match location {
        Some(location) => {
            headers.insert(LOCATION, location);
        }
        // HTTP/2 has no such headers (RFC 9113, 8.2.2).
        None if request.version() == Version::HTTP_11 => {
            headers.insert(UPGRADE, HeaderValue::from_static("TLS/1.2, HTTP/1.1"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
        }
        None => {}
    }
    response
}

/// Where a GET or HEAD should have gone, if it says to whom it thought to speak.
fn location(request: &Request<Incoming>) -> Option<HeaderValue> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let host: Authority = request.headers().get(HOST)?.to_str().ok()?.parse().ok()?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // `user@host` is no Host header, and would only hide where the way leads.
    let is_host = !host.as_str().contains('@') && path.starts_with('/');
    is_host.then(|| HeaderValue::try_from(format!("https://{host}{path}")).ok()).flatten()
}
