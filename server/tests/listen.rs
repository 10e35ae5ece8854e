//! The way in, with real sockets: what is served, what is refused, and how it ends.

#[path = "support/client.rs"]
mod client;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Extension, Router};
use client::{H2, config, soon, tls, until};
use http::{Request, StatusCode, Version};
use http_body_util::Empty;
use pulse::listen::admin_socket::{AdminPeer, AdminSocket, AdminSocketError};
use pulse::listen::{Bounds, Drained, ListenError, Listener, Peer};
use pulse::metrics::{ConnectionRefusal, HandshakeFailure, Metrics};
use pulse::shutdown::{Ended, Hand, Signals};
use pulse::tls::Tls;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A server with every route that the tests need.
struct Server {
    folder: TempDir,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    hand: Hand,
    /// A call to `/wait` has begun.
    begun: Arc<Notify>,
    /// Lets a call to `/wait` end.
    release: Arc<Notify>,
    run: JoinHandle<Ended<(Drained, Drained)>>,
}

enum Mode {
    Tls,
    Plain,
}

fn serve(mode: Mode, change: impl FnOnce(&mut Bounds)) -> Server {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let config = config(folder.path(), "");
    let tls = match mode {
        Mode::Tls => Some(Arc::new(Tls::open(&config).expect("a certificate can be made"))),
        Mode::Plain => None,
    };
    let mut bounds = Bounds::of(&config);
    change(&mut bounds);
    let listener = Listener::bind(&config.listen, tls).expect("port 0 is free");
    let address = listener.local_addrs()[0];
    let admin = AdminSocket::bind(&config.admin_socket()).expect("the folder is new");
    let (metrics, begun, release) =
        (Arc::new(Metrics::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (waits, released) = (begun.clone(), release.clone());
    let wait = async move || {
        waits.notify_one();
        released.notified().await;
        "done"
    };
    let router = Router::new()
        .route("/peer", get(async |Extension(peer): Extension<Peer>| peer.address.to_string()))
        .route("/wait", get(wait))
        .route("/", post(async || "posted"));
    let admin_router =
        Router::new().route("/uid", get(async |Extension(peer): Extension<AdminPeer>| peer.uid.to_string()));
    let (signals, hand) = Signals::by_hand();
    let drain = signals.drain();
    let counted = metrics.clone();
    let run = tokio::spawn(async move {
        let grace = bounds.drain;
        let tcp = listener.serve(router, bounds, counted.clone(), drain.clone());
        let unix = admin.serve(admin_router, grace, counted, drain);
        signals.attend(async { tokio::join!(tcp, unix) }).await
    });
    Server { folder, address, metrics, hand, begun, release, run }
}

impl Server {
    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    async fn h2(&self) -> H2 {
        H2::over(soon(tls(self.address, &self.ca(), "localhost", &["h2"])).await.expect("TLS is served"))
            .await
    }

    /// Sends bytes and reads all until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("the port is open");
        stream.write_all(bytes).await.expect("bytes can be sent");
        read_to_end(&mut stream).await
    }

    async fn admin(&self, path: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.admin_socket()).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        Ok(read_to_end(&mut stream).await)
    }
}

/// What comes until the end; a reset is an end too.
async fn read_to_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let _ = soon(stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn requests_carry_their_peer_over_both_versions_of_http() {
    let server = serve(Mode::Tls, |_| {});
    let stream = soon(tls(server.address, &server.ca(), "localhost", &["h2"])).await.unwrap();
    let own = stream.get_ref().0.local_addr().unwrap().to_string();
    let answer = soon(H2::over(stream).await.get("/peer")).await.unwrap();
    assert_eq!((answer.version(), answer.body()), (Version::HTTP_2, &own));

    let mut stream = soon(tls(server.address, &server.ca(), "localhost", &["http/1.1"])).await.unwrap();
    let own = stream.get_ref().0.local_addr().unwrap().to_string();
    stream.write_all(b"GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&own), "{answer}");
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_to_use_tls() {
    let server = serve(Mode::Tls, |_| {});
    let answer = server.raw(b"GET /a?b=c HTTP/1.1\r\nHost: pulse.lan:7655\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(answer.contains("location: https://pulse.lan:7655/a?b=c\r\n"), "{answer}");
    for request in [
        &b"POST / HTTP/1.1\r\nHost: pulse.lan\r\nContent-Length: 0\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@pulse.lan\r\n\r\n",
    ] {
        let answer = server.raw(request).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 426 "), "{answer}");
        assert!(answer.contains("https://"), "{answer}");
    }
    // What a gRPC client without TLS sends.
    let mut h2 = H2::over(TcpStream::connect(server.address).await.unwrap()).await;
    let request = Request::post("http://pulse.lan/pulse.control.v1.ControlPlaneService/Register");
    let answer = soon(h2.send(request.body(Empty::new()).unwrap())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
    drop(h2);
    until(async || server.metrics.handshakes_failed(HandshakeFailure::PlainHttp) == 5).await;
}

#[tokio::test]
async fn a_wrong_first_byte_ends_the_connection() {
    let server = serve(Mode::Tls, |_| {});
    assert_eq!(server.raw(b"\x00\x01\x02").await, "");
    assert_eq!(server.metrics.handshakes_failed(HandshakeFailure::NotTls), 1);
    server.raw(b"\x16\x03\x01\x00\x04nope").await;
    assert_eq!(server.metrics.handshakes_failed(HandshakeFailure::Protocol), 1);
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_counted_so() {
    let (server, other) = (serve(Mode::Tls, |_| {}), serve(Mode::Tls, |_| {}));
    assert!(soon(tls(server.address, &other.ca(), "localhost", &[])).await.is_err());
    until(async || server.metrics.handshakes_failed(HandshakeFailure::RefusedByPeer) == 1).await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut() {
    let server = serve(Mode::Tls, |bounds| bounds.handshake = Duration::from_millis(100));
    // Nothing at all, half a hello, and plain HTTP without an end.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET / HT"] {
        assert_eq!(server.raw(bytes).await, "");
    }
    until(async || server.metrics.handshakes_failed(HandshakeFailure::Timeout) == 2).await;
    until(async || server.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let server = serve(Mode::Tls, |bounds| bounds.first_request = Duration::from_millis(100));
    for alpn in [&["h2"][..], &["http/1.1"], &[]] {
        let mut stream = soon(tls(server.address, &server.ca(), "localhost", alpn)).await.unwrap();
        read_to_end(&mut stream).await;
    }
    assert_eq!(server.metrics.connections_refused(ConnectionRefusal::Idle), 3);
    // One that has asked stays, though it asks nothing more.
    let mut h2 = server.h2().await;
    soon(h2.get("/peer")).await.unwrap();
    let idle = tokio::time::timeout(Duration::from_millis(300), &mut h2.connection).await;
    assert!(idle.is_err(), "{idle:?}");
    soon(h2.get("/peer")).await.unwrap();
}

#[tokio::test]
async fn slow_headers_are_cut() {
    let server = serve(Mode::Plain, |bounds| bounds.headers = Duration::from_millis(100));
    let answer = server.raw(b"GET /peer HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    assert!(!answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn headers_beyond_the_bound_are_refused() {
    let server = serve(Mode::Tls, |_| {});
    let mut h2 = server.h2().await;
    let request = Request::get("https://localhost/peer").header("x-long", "y".repeat(20 << 10));
    let answer = soon(h2.send(request.body(Empty::new()).unwrap())).await;
    assert!(
        answer.is_err() || answer.is_ok_and(|a| a.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    );

    let server = serve(Mode::Plain, |_| {});
    let long = "y".repeat(40 << 10);
    let answer = server.raw(format!("GET /peer HTTP/1.1\r\nx-long: {long}\r\n\r\n").as_bytes()).await;
    assert!(!answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_noticed() {
    let server = serve(Mode::Plain, |bounds| {
        bounds.keep_alive_interval = Duration::from_millis(50);
        bounds.keep_alive_timeout = Duration::from_millis(50);
    });
    let begin = std::time::Instant::now();
    // The preface and empty settings of HTTP/2, and then silence: no ping is answered.
    let ended = server.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00");
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("well before the first request is due");
    assert!(begin.elapsed() >= Duration::from_millis(100), "ended for another reason");
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_the_admin_still_gets_in() {
    let server = serve(Mode::Tls, |bounds| bounds.connections = 1);
    let mut first = server.h2().await;
    soon(first.get("/peer")).await.unwrap();
    assert!(soon(tls(server.address, &server.ca(), "localhost", &["h2"])).await.is_err());
    assert_eq!(server.metrics.connections_refused(ConnectionRefusal::Limit), 1);
    assert!(server.admin("/uid").await.unwrap().starts_with("HTTP/1.1 200 "));
    soon(first.get("/peer")).await.unwrap();
    first.connection.abort();
    until(async || tls(server.address, &server.ca(), "localhost", &["h2"]).await.is_ok()).await;
}

#[tokio::test]
async fn a_drain_lets_calls_finish_and_ends_what_is_idle() {
    let server = serve(Mode::Tls, |_| {});
    let (mut idle, mut busy) = (server.h2().await, server.h2().await);
    soon(idle.get("/peer")).await.unwrap();
    // Half a handshake has nothing to lose.
    let mut half = TcpStream::connect(server.address).await.unwrap();
    let call = tokio::spawn(async move { busy.get("/wait").await });
    soon(server.begun.notified()).await;
    server.hand.stop();
    soon(idle.connection).await.unwrap().unwrap();
    assert_eq!(read_to_end(&mut half).await, "");
    until(async || TcpStream::connect(server.address).await.is_err()).await;
    server.release.notify_one();
    assert_eq!(soon(call).await.unwrap().unwrap().body(), "done");
    let none = Drained { aborted: 0 };
    assert_eq!(soon(server.run).await.unwrap(), Ended::Finished((none, none)));
    assert_eq!(server.metrics.connections.get(), 0);
}

#[tokio::test]
async fn a_drain_ends_though_a_call_does_not() {
    let server = serve(Mode::Tls, |bounds| bounds.drain = Duration::from_millis(100));
    let mut busy = server.h2().await;
    let call = tokio::spawn(async move { busy.get("/wait").await });
    soon(server.begun.notified()).await;
    server.hand.stop();
    let Ended::Finished((tcp, _)) = soon(server.run).await.unwrap() else { panic!("nobody aborted") };
    assert_eq!(tcp.aborted, 1);
    assert!(soon(call).await.unwrap().is_err());
}

#[tokio::test]
async fn a_second_signal_cuts_everything() {
    let server = serve(Mode::Tls, |bounds| bounds.drain = Duration::from_secs(3600));
    let mut busy = server.h2().await;
    let call = tokio::spawn(async move { busy.get("/wait").await });
    soon(server.begun.notified()).await;
    server.hand.stop();
    server.hand.stop();
    assert_eq!(soon(server.run).await.unwrap(), Ended::Aborted);
    assert!(soon(call).await.unwrap().is_err());
}

#[tokio::test]
async fn a_taken_port_and_plain_text_beyond_loopback_are_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Listener::bind(&[address], None).unwrap_err();
    assert!(
        matches!(error, ListenError::Taken(_)) && error.to_string().contains(&address.to_string()),
        "{error}"
    );
    for open in ["0.0.0.0:0", "[::]:0", "[::ffff:10.0.0.1]:0"] {
        let error = Listener::bind(&[open.parse().unwrap()], None).unwrap_err();
        assert!(matches!(error, ListenError::Plaintext(_)), "{error}");
    }
    let error = Listener::bind(&["127.0.0.1:0".parse().unwrap(), address], None).unwrap_err();
    assert!(matches!(error, ListenError::Taken(_)), "{error}");
}

#[tokio::test]
async fn both_families_may_share_a_port() {
    // A port that was free a moment ago may be another test's by now, so this asks for some.
    for _ in 0..20 {
        let four = Listener::bind(&["127.0.0.1:0".parse().unwrap()], None).unwrap();
        let port = four.local_addrs()[0].port();
        drop(four);
        let both = [SocketAddr::from(([127, 0, 0, 1], port)), format!("[::1]:{port}").parse().unwrap()];
        match Listener::bind(&both, None) {
            Ok(listener) => return assert_eq!(listener.local_addrs(), both),
            Err(ListenError::Taken(_)) => {}
            // A machine without IPv6.
            Err(error) => return assert!(!error.to_string().is_empty(), "{error}"),
        }
    }
    panic!("no port is free for both");
}

#[tokio::test]
async fn the_admin_socket_knows_who_calls_and_goes_with_the_server() {
    let server = serve(Mode::Plain, |_| {});
    let path = server.admin_socket();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let uid = rustix::process::geteuid().as_raw().to_string();
    let answer = server.admin("/uid").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&uid), "{answer}");
    let error = AdminSocket::bind(&path).unwrap_err();
    assert!(matches!(error, AdminSocketError::InUse(_)), "{error}");
    assert!(server.admin("/uid").await.is_ok());
    server.hand.stop();
    soon(server.run).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_admin_socket_is_replaced_and_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    // std leaves the file behind, as a crash does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = AdminSocket::bind(&path).unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
    drop(socket);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let error = AdminSocket::bind(&path).unwrap_err();
    assert!(matches!(error, AdminSocketError::NoSocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let long = folder.path().join("x".repeat(100));
    assert!(matches!(AdminSocket::bind(&long), Err(AdminSocketError::TooLong(_))));
}
