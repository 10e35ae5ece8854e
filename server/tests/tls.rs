//! The server's certificate as a client sees it: made at first start, checked, exchanged under open streams.

#[path = "support/client.rs"]
mod client;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use client::{H2, client_config, config, shown_certificate, soon, tls, tls_with, until};
use pulse::listen::{Bounds, Listener};
use pulse::metrics::{HandshakeFailure, Metrics};
use pulse::shutdown::{Hand, Signals};
use pulse::tls::Tls;
use pulse_proto::Pin;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that greets, and keeps its certificate current.
struct Server {
    address: SocketAddr,
    hand: Hand,
    tls: Arc<Tls>,
    metrics: Arc<Metrics>,
}

fn serve(data_dir: &Path, yaml: &str, look_every: Duration) -> Server {
    let config = config(data_dir, yaml);
    let tls = Arc::new(Tls::open(&config).expect("the certificate is good"));
    let listener = Listener::bind(&config.listen, Some(tls.clone())).expect("port 0 is free");
    let address = listener.local_addrs()[0];
    let (signals, hand) = Signals::by_hand();
    let (drain, reloads) = (signals.drain(), signals.reloads());
    let router = Router::new().route("/", get(async || "hello"));
    let metrics = Arc::new(Metrics::new());
    let counted = Arc::clone(&metrics);
    let current = tls.clone().keep_current(look_every, reloads, drain.clone());
    tokio::spawn(async move {
        let serve = listener.serve(router, Bounds::of(&config), Arc::clone(&counted), drain);
        signals.attend(async { tokio::join!(serve, current) }).await
    });
    Server { address, hand, tls, metrics }
}

/// An operator's own CA in `folder/own-ca.pem`, and files with a certificate for `pulse.example`.
struct Operator {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Operator {
    fn new(folder: &Path) -> Operator {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("a CA can be made");
        let ca = folder.join("own-ca.pem");
        fs::write(&ca, issuer.pem()).expect("the folder can be written");
        Operator { ca, certificate: folder.join("own.pem"), key: folder.join("own.key"), issuer }
    }

    /// Certificate and key in PEM, ending in `year`.
    fn issue(&self, year: i32) -> (String, String) {
        let mut params =
            rcgen::CertificateParams::new(["pulse.example".to_owned()]).expect("the name is one");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        (certificate.pem(), key.serialize_pem())
    }

    fn install(&self, (certificate, key): &(String, String)) {
        fs::write(&self.certificate, certificate).expect("the folder can be written");
        fs::write(&self.key, key).expect("the folder can be written");
    }

    fn yaml(&self) -> String {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        format!("tls:\n  certificate_file: {certificate}\n  key_file: {key}\n")
    }

    fn error(&self, data_dir: &Path) -> String {
        Tls::open(&config(data_dir, &self.yaml())).expect_err("the certificate is not good").to_string()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn first_start_makes_a_certificate_that_clients_can_check() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), "public_address: pulse.example:7655\n", Duration::from_secs(60));
    for (file, expected) in
        [("ca.pem", 0o644), ("server.pem", 0o644), ("ca.key", 0o600), ("server.key", 0o600)]
    {
        assert_eq!(mode(&folder.path().join(file)), expected, "{file}");
    }
    let ca = server.tls.ca_file().unwrap();
    assert_eq!(ca, folder.path().join("ca.pem"));
    for name in ["localhost", "127.0.0.1", "::1", "pulse.example"] {
        let stream = soon(tls(server.address, ca, name, &["h2", "http/1.1"])).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        // With the CA in the chain a proxy finds the key that it has pinned.
        let chain = session.peer_certificates().unwrap();
        assert_eq!(chain.len(), 2);
        let (_, sent) = x509_parser::parse_x509_certificate(&chain[1]).unwrap();
        assert_eq!(Some(Pin::of_spki(sent.public_key().raw)), server.tls.pin());
    }
    assert!(soon(tls(server.address, ca, "other.example", &[])).await.is_err());
}

#[test]
fn the_next_start_keeps_all_files_unless_the_names_change() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["ca.pem", "ca.key", "server.pem", "server.key"];
    let read = || files.map(|file| fs::read(folder.path().join(file)).unwrap());
    let first = Tls::open(&config(folder.path(), "")).unwrap();
    let before = read();
    let second = Tls::open(&config(folder.path(), "")).unwrap();
    assert_eq!(read(), before);
    let third = Tls::open(&config(folder.path(), "public_address: pulse.example\n")).unwrap();
    let after = read();
    assert!(after[..2] == before[..2] && after[2] != before[2] && after[3] != before[3]);
    assert!(first.pin().is_some() && first.pin() == second.pin() && second.pin() == third.pin());
}

#[test]
fn a_lost_authority_is_never_replaced_in_silence() {
    let open = |folder: &Path| Tls::open(&config(folder, ""));
    for (lost, say) in [
        (&["ca.key"][..], "restore ca.key from a backup"),
        (&["ca.key", "ca.pem"], "restore both from a backup"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        lost.iter().for_each(|file| fs::remove_file(folder.path().join(file)).unwrap());
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(say) && error.contains("every proxy must then be registered again"),
            "{error}"
        );
        assert!(lost.iter().all(|file| !folder.path().join(file).exists()));
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(one.path()).unwrap();
    open(two.path()).unwrap();
    fs::copy(one.path().join("ca.key"), two.path().join("ca.key")).unwrap();
    let error = open(two.path()).unwrap_err().to_string();
    assert!(error.contains("do not belong together"), "{error}");
    fs::write(two.path().join("ca.key"), "nonsense").unwrap();
    let error = open(two.path()).unwrap_err().to_string();
    assert!(error.contains("ca.key holds no private key") && !error.contains("nonsense"), "{error}");
}

#[test]
fn what_can_be_made_again_from_the_key_is() {
    let folder = tempfile::tempdir().unwrap();
    let pin = Tls::open(&config(folder.path(), "")).unwrap().pin();
    for lost in ["ca.pem", "server.pem", "server.key"] {
        fs::remove_file(folder.path().join(lost)).unwrap();
        assert_eq!(Tls::open(&config(folder.path(), "")).unwrap().pin(), pin, "{lost}");
    }
    fs::write(folder.path().join("server.pem"), "half a fi").unwrap();
    assert_eq!(Tls::open(&config(folder.path(), "")).unwrap().pin(), pin);
}

#[test]
fn each_mistake_in_an_own_certificate_has_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::new(folder.path());
    assert!(operator.error(folder.path()).contains("own.pem: does it exist"));
    let (certificate, key) = operator.issue(4000);
    operator.install(&(certificate.clone(), operator.issue(4000).1));
    assert!(operator.error(folder.path()).contains("does not belong to the first certificate"));
    operator.install(&(certificate.clone(), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n".to_owned()));
    assert!(operator.error(folder.path()).contains("own.key holds no private key"));
    operator.install(&(key.clone(), key.clone()));
    assert!(operator.error(folder.path()).contains("own.pem holds no certificate"));
    operator.install(&operator.issue(2001));
    assert!(operator.error(folder.path()).contains("ended at 2001-01-01T00:00:00Z"));
    operator.install(&(certificate, key));
    let tls = Tls::open(&config(folder.path(), &operator.yaml())).unwrap();
    assert!(tls.pin().is_none() && tls.ca_file().is_none());
    assert!(!folder.path().join("ca.pem").exists());
}

#[tokio::test]
async fn a_reload_keeps_open_connections_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::new(folder.path());
    let (first, second) = (operator.issue(4000), operator.issue(4000));
    operator.install(&first);
    let server = serve(folder.path(), &operator.yaml(), Duration::from_secs(3600));
    let shown = async || shown_certificate(server.address, &operator.ca, "pulse.example").await.unwrap();
    let der =
        |(certificate, _): &(String, String)| CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let stream = soon(tls(server.address, &operator.ca, "pulse.example", &["h2"])).await.unwrap();
    let mut h2 = H2::over(stream).await;
    assert_eq!(soon(h2.get("/")).await.unwrap().body(), "hello");
    assert_eq!(shown().await, der(&first));

    operator.install(&(second.0.clone(), "nonsense".to_owned()));
    assert!(server.tls.reload().unwrap_err().to_string().contains("own.key"));
    server.hand.reload();
    assert_eq!(shown().await, der(&first));

    operator.install(&second);
    server.hand.reload();
    until(async || shown().await == der(&second)).await;
    assert_eq!(soon(h2.get("/")).await.unwrap().body(), "hello");
    server.hand.stop();
}

#[tokio::test]
async fn changed_files_are_noticed_without_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::new(folder.path());
    operator.install(&operator.issue(4000));
    let server = serve(folder.path(), &operator.yaml(), Duration::from_millis(20));
    let next = operator.issue(4000);
    let expected = CertificateDer::from_pem_slice(next.0.as_bytes()).unwrap();
    operator.install(&next);
    let shown = async || shown_certificate(server.address, &operator.ca, "pulse.example").await.unwrap();
    until(async || shown().await == expected).await;
}

#[tokio::test]
async fn a_client_that_comes_back_resumes_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), "", Duration::from_secs(60));
    let config = client_config(server.tls.ca_file().unwrap(), &["http/1.1"]);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = soon(tls_with(config.clone(), server.address, "localhost")).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
        kinds.extend(stream.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    // A session from before a new certificate is not resumed: whoever comes back sees the new one.
    server.tls.rotate(SystemTime::now()).unwrap();
    let stream = soon(tls_with(config, server.address, "localhost")).await;
    assert!(stream.is_ok_and(|stream| stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Full)));
}

#[tokio::test]
async fn tls_1_2_is_taken_and_anything_older_is_refused_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), "", Duration::from_secs(60));
    let ca = fs::read(server.tls.ca_file().unwrap()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = soon(tls_with(Arc::new(config), server.address, "localhost")).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let mut h2 = H2::over(stream).await;
    assert_eq!(soon(h2.get("/")).await.unwrap().body(), "hello");

    // ClientHellos of TLS 1.1 (RFC 4346, 7.4.1.2) with one cipher and no compression: as of that time, and as of a newer
    // program that is told to speak nothing newer (with signature_algorithms). Both get a fatal alert.
    let with_extension = [0, 8, 0, 13, 0, 4, 0, 2, 4, 3];
    for (count, extensions, alert) in [(1, &[][..], 40), (2, &with_extension, 70)] {
        let length = 41 + u8::try_from(extensions.len()).unwrap();
        let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length, 3, 2];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
        hello.extend(extensions);
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() == 7 && answer[0] == 0x15 && answer[5..] == [2, alert], "{answer:?}");
        until(async || server.metrics.handshakes_failed(HandshakeFailure::Version) == count).await;
    }
}

#[tokio::test]
async fn a_session_is_resumed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut kinds = Vec::new();
    let mut config = None;
    for _ in 0..2 {
        let server = serve(folder.path(), "", Duration::from_secs(60));
        let config =
            config.get_or_insert_with(|| client_config(server.tls.ca_file().unwrap(), &["http/1.1"])).clone();
        let mut stream = soon(tls_with(config, server.address, "localhost")).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        kinds.extend(stream.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}
