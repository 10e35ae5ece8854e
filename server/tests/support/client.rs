//! The other end, for tests of the listener: a rustls client that trusts one CA, and hyper over it.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use pulse::config::{Config, ConfigSources};

/// Longer than anything here takes, shorter than a person's patience.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for `what`, but not for ever.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(SOON, what).await.expect("it happens soon")
}

/// Asks until the answer is yes.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    soon(async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// The configuration that `yaml` and a data folder make.
pub(crate) fn config(data_dir: &Path, yaml: &str) -> Config {
    let path = data_dir.join("pulse.yaml");
    std::fs::write(&path, yaml).expect("the folder can be written");
    let sources = ConfigSources {
        path: Some(path),
        data_dir: Some(data_dir.to_owned()),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        ..ConfigSources::default()
    };
    Config::load(&sources).expect("the configuration is good").0
}

/// What a client that trusts the certificates in `ca` offers.
pub(crate) fn client_config(ca: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    let pem = std::fs::read(ca).expect("the CA can be read");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.expect("the CA is PEM")).expect("the CA is a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has safe versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Shakes hands as with `name`.
pub(crate) async fn tls_with(
    config: Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("the name is one");
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Shakes hands as with `name`, trusting the certificates in `ca`, offering `alpn`.
pub(crate) async fn tls(
    address: SocketAddr,
    ca: &Path,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_with(client_config(ca, alpn), address, name).await
}

/// The certificate that a new handshake is shown.
pub(crate) async fn shown_certificate(
    address: SocketAddr,
    ca: &Path,
    name: &str,
) -> std::io::Result<CertificateDer<'static>> {
    let stream = tls(address, ca, name, &[]).await?;
    let chain = stream.get_ref().1.peer_certificates().expect("a server shows a certificate");
    Ok(chain[0].clone().into_owned())
}

/// An HTTP/2 connection.
pub(crate) struct H2 {
    sender: http2::SendRequest<Empty<Bytes>>,
    pub(crate) connection: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl H2 {
    pub(crate) async fn over<S>(stream: S) -> H2
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("the preface can be sent");
        H2 { sender, connection: tokio::spawn(connection) }
    }

    pub(crate) async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<String>> {
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, String::from_utf8_lossy(&body).into_owned()))
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Response<String>> {
        let request = Request::get(format!("https://localhost{path}")).body(Empty::new());
        self.send(request.expect("the path is one")).await
    }
}
