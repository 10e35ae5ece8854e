//! One attempt to reach the server: name, TCP, TLS.
//!
//! Always: bounded in time, each address of a name gets its share; an error says which step failed and what to do.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::ServerUrl;
use crate::seams::{Connection, Network};
use crate::tls;

/// How long one attempt may take, from the name to the end of the handshake.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one of several addresses may keep the others waiting.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the handshake may take of that: as long as the server gives it, and a second for the way.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(6);

/// TCP's own probes, for networks that forget a silent connection: after 60 s, then every 20 s, 3 times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_COUNT: u32 = 3;

const NO_ANSWER: &str = "no answer (is that host up, and does a firewall let the port through?)";

/// Why the server was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("find the address of {host} (check the name, or write the address into the configuration)")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("connect to {authority}: {what}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What went wrong and what to do.
        what: String,
    },
    /// It took too long.
    #[error("connect to {authority}: {} within {} s", NO_ANSWER, DIAL_TIMEOUT.as_secs())]
    Timeout {
        /// Host and port.
        authority: String,
    },
    /// The certificate is not one that is trusted here, which trying again does not mend.
    #[error("set up TLS with {authority}: {what}")]
    Mistrusted {
        /// Host and port.
        authority: String,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// The handshake failed.
    #[error("set up TLS with {authority}: {what}")]
    Tls {
        /// Host and port.
        authority: String,
        /// What went wrong and what to do.
        what: String,
    },
}

/// One attempt under way.
type Dialling<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Connection>, DialError>> + Send + 'a>>;

/// Dials once, within [`DIAL_TIMEOUT`].
pub(super) async fn dial(
    url: &ServerUrl,
    tls: Arc<ClientConfig>,
    network: &Network,
) -> Result<Box<dyn Connection>, DialError> {
    // Boxed, so that the connector's future stays small between dials.
    let attempt: Dialling<'_> = match network {
        Network::System => Box::pin(secured(url, tls)),
        Network::Driven(dial) => Box::pin(async {
            let failed = |error| DialError::Connect { authority: url.authority(), what: explain(&error) };
            dial(url).await.map_err(failed)
        }),
    };
    match timeout(DIAL_TIMEOUT, attempt).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Timeout { authority: url.authority() }),
    }
}

/// Name, TCP and TLS.
async fn secured(url: &ServerUrl, tls: Arc<ClientConfig>) -> Result<Box<dyn Connection>, DialError> {
    let stream = connect(url).await?;
    let failed = |what| DialError::Tls { authority: url.authority(), what };
    let name = ServerName::try_from(url.host().to_owned())
        .map_err(|_| failed("the host is neither a DNS name nor an address".to_owned()))?;
    let handshake = timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(tls).connect(name, stream));
    let stream = handshake.await.map_err(|_| {
        let seconds = HANDSHAKE_TIMEOUT.as_secs();
        failed(format!(
            "something listens there and says nothing for {seconds} s (is it Pulse, and does it have the time?)"
        ))
    })?;
    let stream = stream.map_err(|error| match tls::is_mistrusted(&error) {
        true => DialError::Mistrusted { authority: url.authority(), what: tls::explain(&error) },
        false => failed(tls::explain(&error)),
    })?;
    // What ignores the question would not understand the first bytes of HTTP/2 either.
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Ok(Box::new(stream)),
        _ => Err(failed(tls::NO_HTTP2.to_owned())),
    }
}

async fn connect(url: &ServerUrl) -> Result<TcpStream, DialError> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((url.host(), url.port()))
        .await
        .map_err(|source| DialError::Resolve { host: url.host().to_owned(), source })?
        .collect();
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in &addresses {
        let limit = if addresses.len() > 1 { ADDRESS_TIMEOUT } else { DIAL_TIMEOUT };
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(ErrorKind::TimedOut),
        }
    }
    Err(DialError::Connect { authority: url.authority(), what: explain(&last) })
}

/// Says what a failed connection means.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "nothing listens there (is the server running, and is the port right?)".to_owned()
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            "there is no way to that address (is this host's network up, and the address right?)".to_owned()
        }
        ErrorKind::TimedOut => NO_ANSWER.to_owned(),
        _ => error.to_string(),
    }
}

/// A connection works without these too, so a refusal is no failure.
fn prepare(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket option was refused");
    }
}
