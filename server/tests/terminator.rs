//! Something in front of the server ends TLS: no pin, but a certificate that is checked by name, with the system's roots or
//! a `ca_file`.

#[path = "support/authority.rs"]
mod authority;

use std::net::SocketAddr;
use std::sync::Arc;

use authority::{Authority, Leaf};
use pulse_test_support::{Proxy, ProxyBuilder, Server};
use rcgen::CertificateParams;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Ends TLS, and passes what is in it on to a server that has none.
struct Terminator {
    address: SocketAddr,
    server: Server,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Terminator {
    /// With a certificate, the protocols that it offers, and a server behind it.
    async fn start(leaf: &Leaf, protocols: &[&[u8]]) -> Terminator {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has a name");
        let server = Server::builder().plaintext().config(&format!("public_address: {address}")).start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
        let behind = server.address();
        let mut config = leaf.server_config(&[]);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            let mut passed = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                passed.spawn(async move {
                    let Ok(mut near) = acceptor.accept(stream).await else { return };
                    let Ok(mut far) = TcpStream::connect(behind).await else { return };
                    // However it ends, both ends see it.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Terminator { address, server, task }
    }

    /// The block of a configuration that names this place, with more lines in it.
    fn block(&self, lines: &str) -> String {
        format!("pulse_control_plane:\n  url: https://{}\n{lines}", self.address)
    }

    /// Registers a proxy with a join string, and returns what it said.
    fn register(&self, proxy: ProxyBuilder) -> (Proxy, pulse_test_support::Ran) {
        let join = self.server.join_string(&["--instance", "home"]);
        assert!(join.starts_with(&format!("pulse://{}/?join=", self.address)), "no pin: {join}");
        let proxy = proxy.build();
        let ran = proxy.register(&join);
        (proxy, ran)
    }
}

/// A certificate of an authority, and that authority's in a file.
fn trusted() -> (tempfile::TempDir, std::path::PathBuf, Authority) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (path, authority) = (folder.path().join("ca.pem"), Authority::new());
    authority.write(&path);
    (folder, path, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminators_certificate_is_checked_with_a_ca_file_or_the_systems_roots() {
    let (_folder, ca, authority) = trusted();
    let front = Terminator::start(&authority.leaf(|_| {}), &[b"h2"]).await;
    let with_file = Proxy::builder("delly").config(&front.block(&format!("  ca_file: {}\n", ca.display())));
    let with_system = Proxy::builder("other").env("SSL_CERT_FILE", &ca);
    for proxy in [with_file, with_system] {
        let (mut proxy, ran) = front.register(proxy);
        assert!(ran.is_success(), "{ran:?}");
        proxy.start();
        front.server.wait_for_state(&proxy.id(), "IN_SYNC");
        assert_eq!(proxy.status()["pins"], serde_json::json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminator_that_is_not_trusted_or_not_fit_is_told_with_the_way_out() {
    let (_folder, ca, authority) = trusted();
    let named = |params: &mut CertificateParams| {
        params.subject_alt_names.retain(|name| matches!(name, rcgen::SanType::DnsName(_)));
    };
    let good: &[&[u8]] = &[b"h2"];
    for (leaf, protocols, says) in [
        (
            Authority::new().leaf(|_| {}),
            good,
            "signed by nobody that is trusted here: register with a join string that has a pin",
        ),
        (
            authority.leaf(named),
            good,
            "is not for 127.0.0.1 but for pulse.example: dial the server by one of its names",
        ),
        (authority.leaf(|_| {}), &[], "a TLS terminator in front must pass gRPC on"),
        (authority.leaf(|_| {}), &[b"http/1.1"], "a TLS terminator in front must pass gRPC on"),
    ] {
        let front = Terminator::start(&leaf, protocols).await;
        let lines = format!("  ca_file: {}\n", ca.display());
        let (_, ran) = front.register(Proxy::builder("delly").config(&front.block(&lines)));
        assert!(ran.code == Some(1) && ran.stderr.contains(says), "{says}: {ran:?}");
    }
    // Nothing to check with.
    let front = Terminator::start(&authority.leaf(|_| {}), good).await;
    let missing = "  ca_file: /nowhere/ca.pem\n";
    let (_, ran) = front.register(Proxy::builder("delly").config(&front.block(missing)));
    assert!(ran.code == Some(2) && ran.stderr.contains("ca_file /nowhere/ca.pem"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_http_means_https_on_the_same_port_and_says_so() {
    let (_folder, ca, authority) = trusted();
    let front = Terminator::start(&authority.leaf(|_| {}), &[b"h2"]).await;
    let lines = format!("  ca_file: {}\n", ca.display());
    let block = front.block(&lines).replace("https://", "http://");
    let (mut proxy, ran) = front.register(Proxy::builder("delly").config(&block));
    let says =
        format!("begins with http://, but Pulse is only reached over TLS: https://{} is used", front.address);
    assert!(ran.is_success() && ran.stderr.contains(&says), "{ran:?}");
    proxy.start();
    front.server.wait_for_state(&proxy.id(), "IN_SYNC");
    assert!(proxy.process().has_said(&says));
}
