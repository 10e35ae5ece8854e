use std::net::SocketAddr;
use std::sync::Arc;

use pulse_proto::v1::WatchAuthorizedNodesRequest;
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::{Token, TokenKind, v1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::seams::Network;
use crate::testing::{Authority, FakePulse, in_time, server_config};
use crate::tls::{Trust, client_config};

fn link(host: &str, port: u16, pin: pulse_proto::Pin) -> Link {
    let url = ServerUrl::new(host, port).unwrap();
    let link = Link::new(url, client_config(&Trust::Pinned(vec![pin])).unwrap(), Network::System);
    link.use_token(Some(&Token::generate(TokenKind::Ctrl).unwrap()));
    link
}

async fn failure(link: &Link) -> Failure {
    let status = in_time(link.client().watch_authorized_nodes(WatchAuthorizedNodesRequest::default())).await;
    Failure::of(&status.expect_err("it fails"))
}

fn pem(authority: &Authority) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(&authority.certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// What is said of a server that does `serve` with each connection.
async fn said_of<F>(authority: &Authority, serve: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let task = tokio::task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream).await;
        }
    });
    let failure = failure(&link("127.0.0.1", address.port(), authority.pin)).await;
    task.abort();
    let Failure::Unreachable(text) = failure else { panic!("{failure:?}") };
    // No library's own words: they name no server, no cause and nothing to do.
    for foreign in ["os error", "docs.rs", "close_notify", "transport", "hyper", "h2", "tcp connect"] {
        assert!(!text.contains(foreign), "{text}");
    }
    text
}

#[tokio::test]
async fn a_port_without_a_listener_is_told_as_such() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let failure = failure(&link("127.0.0.1", port, authority.pin)).await;
    let Failure::Unreachable(text) = failure else { panic!("{failure:?}") };
    assert_eq!(
        text,
        format!(
            "connect to 127.0.0.1:{port}: nothing listens there (is the server running, and is the port right?)"
        )
    );
}

#[tokio::test]
async fn a_name_that_nobody_has_is_told_with_the_way_out() {
    // Kept free for this by RFC 6761, section 6.4.
    let failure = failure(&link("pulse.invalid", 7655, Authority::new().pin)).await;
    let text = failure.text();
    assert!(text.starts_with("find the address of pulse.invalid (check the name"), "{text}");
}

#[tokio::test]
async fn a_server_that_speaks_plain_http_hangs_up_or_has_no_http2_is_told_apart() {
    let authority = Authority::new();
    let text = said_of(&authority, |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    assert!(text.await.contains("does not speak TLS (is it the right port?)"));
    let text = said_of(&authority, |stream| async move { drop(stream) });
    assert!(text.await.contains("closed during the handshake (is it Pulse"));
    let text = said_of(&authority, |mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    assert!(text.await.contains("does not speak TLS (is it the right port?)"));
    let text = said_of(&authority, |mut stream| async move {
        while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    });
    assert!(text.await.contains("something listens there and says nothing for 6 s"));
    // What a server that knows nothing newer than TLS 1.1 answers: the alert protocol_version.
    let text = said_of(&authority, |mut stream| async move {
        let _ = stream.write_all(&[0x15, 3, 1, 0, 2, 2, 70]).await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    assert!(text.await.contains("speaks TLS 1.1 or older only"));

    let leaf = authority.leaf(|_| {});
    let mut config = server_config(vec![leaf.certificate, authority.certificate.clone()], leaf.key);
    Arc::make_mut(&mut config).alpn_protocols.clear();
    let text = said_of(&authority, move |stream| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move { drop(acceptor.accept(stream).await) }
    });
    assert!(text.await.contains("does not offer HTTP/2"));
}

#[tokio::test]
async fn another_servers_key_is_told_with_the_way_out() {
    let pulse = FakePulse::start().await;
    let failure = failure(&link("127.0.0.1", pulse.address.port(), Authority::new().pin)).await;
    let Failure::WrongServer(text) = failure else { panic!("{failure:?}") };
    assert!(text.contains("does not lead to the pinned key") && text.contains("register again"), "{text}");

    // A name that the certificate has not is no better tomorrow; dates are another matter.
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, pem(&pulse.authority)).unwrap();
    let roots = Link::new(pulse.url(), client_config(&Trust::Roots(ca_file)).unwrap(), Network::System);
    roots.use_token(Some(&Token::generate(TokenKind::Ctrl).unwrap()));
    let failed = self::failure(&roots).await;
    assert!(
        matches!(&failed, Failure::WrongServer(text) if text.contains("is not for 127.0.0.1 but for pulse.test")),
        "{failed:?}"
    );

    let authority = Authority::new();
    let leaf = authority.leaf(|params| params.not_after = params.not_before + Duration::from_secs(60));
    let config = server_config(vec![leaf.certificate, authority.certificate.clone()], leaf.key);
    let text = said_of(&authority, move |stream| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move { drop(acceptor.accept(stream).await) }
    });
    assert!(text.await.contains("certificate ended at"));
}

#[tokio::test]
async fn a_server_that_dies_under_a_stream_is_told_in_plain_words() {
    // Between the proxy and the server, so that the connection can be cut like that of a killed process.
    let mut pulse = FakePulse::start().await;
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = between.local_addr().unwrap().port();
    let behind = pulse.address;
    let wire = tokio::task::spawn(async move {
        let (mut near, _) = between.accept().await.unwrap();
        let mut far = TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let link = link("127.0.0.1", port, pulse.authority.pin);
    let mut client = link.client();
    let opened = in_time(client.watch_authorized_nodes(WatchAuthorizedNodesRequest::default()));
    let (stream, mut watch) = tokio::join!(opened, pulse.watch());
    let mut stream = stream.unwrap().into_inner();
    watch.send(Kind::Waiting(v1::Waiting { reason: "no instance".into() }));
    in_time(stream.message()).await.unwrap();
    wire.abort();
    let status = in_time(stream.message()).await.unwrap_err();
    assert_eq!(
        Failure::of(&status),
        Failure::Unreachable("the connection was cut off: the server or the network went away".to_owned())
    );
}
