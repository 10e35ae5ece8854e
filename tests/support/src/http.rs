//! The smallest HTTP/1.1 client: one request, one answer, one connection; over TLS or the admin socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::capture;
use crate::wait::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, without the status line.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = headers.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A TLS configuration that trusts one CA, and offers `protocols` (ALPN).
pub(crate) fn tls(ca_path: &Path, protocols: &[&str]) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_path).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

/// Asks over TLS, or in plain text without a CA.
pub(crate) fn ask(address: SocketAddr, ca_path: Option<&Path>, request: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let Some(ca_path) = ca_path else { return exchange(stream, request) };
    let name = ServerName::from(address.ip());
    let connection =
        ClientConnection::new(Arc::new(tls(ca_path, &["http/1.1"])?), name).map_err(io::Error::other)?;
    exchange(StreamOwned::new(connection, stream), request)
}

/// Asks over a Unix socket.
pub(crate) fn ask_socket(path: &Path, request: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, request)
}

/// A request, as it goes over the wire.
pub(crate) fn request(method: &str, path: &str, body: Option<&serde_json::Value>) -> String {
    raw_request(method, path, &body.map(ToString::to_string).unwrap_or_default())
}

/// A request with any body.
pub(crate) fn raw_request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request with headers of its own and any body, as it goes over the wire.
pub(crate) fn request_with(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// Asks in plain text, as an older proxy or installer does that knows nothing else.
///
/// # Errors
/// Nobody answers.
pub fn ask_in_plain_text(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let answer = ask(address, None, &request_with(method, path, headers, body))?;
    capture::keep_answer(method, path, answer.status, &answer.head, &answer.body);
    Ok(answer)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let (mut bytes, mut part) = (Vec::new(), [0; 16 << 10]);
    // A stream of events has no end, and is told by its beginning.
    while !is_stream_of_events(&bytes) {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            // The end of the connection ends the answer, with or without TLS's own farewell.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let mut answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        answer.body = unchunked(body);
    }
    Ok(answer)
}

/// A body without the lines that say how long its parts are (RFC 9112, 7.1); where it breaks off, it ends.
fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let part =
            usize::from_str_radix(size, 16).ok().filter(|size| *size > 0).and_then(|size| rest.get(..size));
        let Some(part) = part else { break };
        whole.push_str(part);
        body = rest[part.len()..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}

/// The most bytes in which a stream of events is told from an answer that has an end: looking through all of a long one each time
/// that more of it comes would take longer than the answer.
const TOLD_BY: usize = 16 << 10;

/// Whether an answer is a stream of events, of which the first is there.
fn is_stream_of_events(bytes: &[u8]) -> bool {
    if bytes.len() > TOLD_BY {
        return false;
    }
    let find = |text: &[u8], from: usize| {
        bytes[from..].windows(text.len()).position(|window| window == text).map(|at| from + at)
    };
    let event = find(b"content-type: text/event-stream\r\n", 0).and_then(|at| find(b"\nevent: ", at));
    event.and_then(|at| find(b"\n\n", at)).is_some()
}
