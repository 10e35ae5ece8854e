//! The way of a proxy to the server: address, and what is trusted there.
//!
//! In: the server's status and what was typed. Out: [`Connection`]s, each with a TLS handshake of its own.
//! Always: the server is checked before a token is sent: that its certificate leads to the pinned key, whatever its name,
//! as a proxy with a join string does; or, with a certificate of the admin's own, by name and authority.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use pulse_proto::Pin;
use pulse_proto::join::{authority, split_authority};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Failure;
use super::connection::Connection;
use crate::api::Status;
use crate::args::Bench;

/// How long a connection may take, from the first packet to the end of the handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A name that every certificate of Pulse's own has.
const ANY_NAME: &str = "localhost";

/// The way to the server.
#[derive(Clone)]
pub(super) struct Route {
    address: SocketAddr,
    shown: String,
    origin: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Route {
    /// Finds it.
    pub(super) async fn of(status: &Status, bench: &Bench) -> Result<Route, Failure> {
        let (host, port) = match &bench.address {
            Some(given) => given.clone(),
            None => {
                let first = status.listen.first().and_then(|text| text.parse::<SocketAddr>().ok());
                let first = first.ok_or_else(|| Failure::unreadable("it listens nowhere"))?;
                (reachable(first.ip()).to_string(), first.port())
            }
        };
        let shown = authority(&host, port);
        let unknown = |why: &str| Failure::local("ADDRESS", format!("find the address of {shown}: {why}"));
        let found = timeout(DIAL_TIMEOUT, tokio::net::lookup_host((host.as_str(), port))).await;
        let mut found =
            found.map_err(|_| unknown("no answer"))?.map_err(|error| unknown(&error.to_string()))?;
        let address = found.next().ok_or_else(|| unknown("it has none"))?;
        let tls = match (&status.certificate, &status.pin) {
            (None, _) => None,
            (Some(_), pin) => Some(trusting(status, bench, pin.as_deref(), &host)?),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{shown}").parse();
        let origin = origin.map_err(|_| unknown("it makes no URL"))?;
        Ok(Route { address, shown, origin, tls })
    }

    /// Whether it is TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens a connection of its own.
    pub(super) async fn dial(&self) -> Result<Connection, String> {
        let dialled = timeout(DIAL_TIMEOUT, async {
            let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            match &self.tls {
                None => Connection::over(stream, self.origin.clone()).await,
                Some((tls, name)) => {
                    let handshake = tls.connect(name.clone(), stream).await;
                    let stream = handshake.map_err(|error| format!("TLS: {error}"))?;
                    Connection::over(stream, self.origin.clone()).await
                }
            }
        });
        dialled.await.map_err(|_| format!("no connection within {} s", DIAL_TIMEOUT.as_secs()))?
    }
}

/// What to dial for an address that is listened on: for all of them, this machine's own.
fn reachable(listening: IpAddr) -> IpAddr {
    match listening {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn trusting(
    status: &Status,
    bench: &Bench,
    pin: Option<&str>,
    host: &str,
) -> Result<(TlsConnector, ServerName<'static>), Failure> {
    let failed = |text: String| Failure::local("TRUST", text);
    let (roots, name) = match (&bench.ca_file, pin, &status.ca_path) {
        (Some(file), _, _) => {
            let public = || split_authority(&status.public_address).map(|(host, _)| host);
            let name = if bench.address.is_some() { None } else { public() };
            (roots(file, None)?, name.unwrap_or_else(|| host.to_owned()))
        }
        (None, Some(pin), Some(file)) => {
            let pin = pin.parse().map_err(|_| Failure::unreadable("its pin is none"))?;
            (roots(Path::new(file), Some(pin))?, ANY_NAME.to_owned())
        }
        _ => {
            let text = "the server has a certificate that is not of Pulse's own CA: say with --ca-file what signs it \
                        (often /etc/ssl/certs/ca-certificates.crt)";
            return Err(failed(text.to_owned()));
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| failed(format!("set up TLS: {error}")))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // As a proxy does: each connection has a whole handshake.
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(name.clone()).map_err(|_| failed(format!("{name} is no host's name")))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// The certificates in a file; with a pin those that have this key.
fn roots(file: &Path, pin: Option<Pin>) -> Result<RootCertStore, Failure> {
    let failed =
        |why: String| Failure::local("TRUST", format!("trust the certificates in {}: {why}", file.display()));
    let is_wanted = |der: &CertificateDer<'_>| {
        let Some(pin) = pin else { return true };
        X509Certificate::from_der(der).is_ok_and(|(_, parsed)| Pin::of_spki(parsed.public_key().raw) == pin)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        if is_wanted(&certificate) {
            roots.add_parsable_certificates([certificate]);
        }
    }
    match (roots.is_empty(), pin) {
        (false, _) => Ok(roots),
        (true, None) => Err(failed("there is none".to_owned())),
        (true, Some(pin)) => Err(failed(format!("none has the pinned key {pin}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_dialled_at_this_machine() {
        for (listening, dialled) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.5", "10.0.0.5")] {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), dialled);
        }
    }
}
