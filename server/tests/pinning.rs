//! A wrong pin sends no token: what arrives at somebody else who stands at the server's address, byte by byte.
//!
//! The other end has the key of its own handshake, so it would read whatever the proxy says after it.

#[path = "support/authority.rs"]
mod authority;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use authority::{Authority, Leaf};
use pulse_proto::{Pin, Token, TokenKind};
use pulse_test_support::{PATIENCE, Proxy, Server, eventually};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};

/// What HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What came over one connection.
#[derive(Debug)]
struct Heard {
    /// As it came.
    raw: Vec<u8>,
    /// What was in it.
    plain: Vec<u8>,
    /// Why the handshake failed, if it did.
    handshake: Result<(), String>,
}

/// Stands where the server should be, and writes down what it hears.
struct Recorder {
    address: SocketAddr,
    heard: mpsc::Receiver<Heard>,
}

impl Recorder {
    /// Listens at `address`; a port of 0 is any.
    fn start(address: SocketAddr, config: ServerConfig) -> Recorder {
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().expect("a bound socket has a name");
        let (tx, heard) = mpsc::channel();
        let config = Arc::new(config);
        // Ends with the test's process; until then it takes whoever comes.
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if tx.send(listen(stream, Arc::clone(&config))).is_err() {
                    return;
                }
            }
        });
        Recorder { address, heard }
    }

    fn anywhere(leaf: &Leaf, rest: &[CertificateDer<'static>]) -> Recorder {
        Recorder::start(SocketAddr::from(([127, 0, 0, 1], 0)), leaf.server_config(rest))
    }

    fn next(&self) -> Heard {
        self.heard.recv_timeout(PATIENCE).expect("the proxy dials")
    }

    /// A join string for this place.
    fn join(&self, pin: Pin, token: &Token) -> String {
        format!("pulse://{}/?pin={pin}&join={}", self.address, token.reveal())
    }
}

/// Shakes hands and reads to the end, or until the other side has said nothing for two seconds.
fn listen(stream: TcpStream, config: Arc<ServerConfig>) -> Heard {
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("no zero");
    let raw = Arc::new(Mutex::new(Vec::new()));
    let mut wire = Wire { stream, raw: Arc::clone(&raw) };
    let mut connection = ServerConnection::new(config).expect("the configuration is good");
    let mut handshake = Ok(());
    while connection.is_handshaking() {
        match connection.complete_io(&mut wire) {
            Ok((0, 0)) => break,
            Ok(_) => {}
            Err(error) => {
                handshake = Err(error.to_string());
                break;
            }
        }
    }
    let mut plain = Vec::new();
    // Whatever ends it, what came before it is kept.
    let _ = rustls::Stream::new(&mut connection, &mut wire).read_to_end(&mut plain);
    // Also what came after a failed handshake, should anything.
    let _ = wire.read_to_end(&mut Vec::new());
    let raw = std::mem::take(&mut *raw.lock().expect("no holder panics"));
    Heard { raw, plain, handshake }
}

struct Wire {
    stream: TcpStream,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(into)?;
        self.raw.lock().expect("no holder panics").extend_from_slice(&into[..read]);
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Nothing but a handshake came: no byte of HTTP, and no token.
fn assert_nothing_was_said(heard: &Heard, secret: &str) {
    assert!(heard.plain.is_empty(), "{heard:?}");
    let is_in = |what: &[u8]| heard.raw.windows(what.len()).any(|bytes| bytes == what);
    assert!(!heard.raw.is_empty() && !is_in(secret.as_bytes()) && !is_in(PREFACE), "{heard:?}");
    // A client that is content ends its handshake with Finished, and the server's is then done.
    assert!(heard.handshake.is_err(), "{heard:?}");
}

fn past(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
}

fn future(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1));
}

fn for_clients(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

/// Everybody who could stand at the server's address: whom they show, which pin the proxy has, and what it says.
struct Case {
    leaf: Leaf,
    rest: Vec<CertificateDer<'static>>,
    pin: Pin,
    says: &'static [&'static str],
}

fn cases() -> Vec<Case> {
    let (ours, other) = (Authority::new(), Authority::new());
    let case = |leaf: Leaf, rest: &[&Authority], pin, says| Case {
        leaf,
        rest: rest.iter().map(|authority| authority.der()).collect(),
        pin,
        says,
    };
    let other_key = &["does not lead to the pinned key", "register again with a fresh join string"][..];
    vec![
        // Another authority, which calls itself the same.
        case(other.leaf(|_| {}), &[&other], ours.pin(), other_key),
        // Our authority's certificate, which everybody can have, beside a leaf that it did not sign.
        case(
            other.leaf(|_| {}),
            &[&ours],
            ours.pin(),
            &["did not sign the server's own", "poses as the server"],
        ),
        case(other.leaf(|_| {}), &[&other, &ours], ours.pin(), &["did not sign the server's own"]),
        // Certificates of ours that are not good, or not for this.
        case(
            ours.leaf(past),
            &[&ours],
            ours.pin(),
            &["ended at 2021-01-01 00:00:00 UTC", "this host's clock says 2"],
        ),
        case(
            ours.leaf(future),
            &[&ours],
            ours.pin(),
            &["good from 3000-01-01", "correct the clock of this host"],
        ),
        case(ours.leaf(for_clients), &[&ours], ours.pin(), &["not one for servers"]),
        // A pinned leaf is that leaf, and no other of the same authority.
        case(ours.leaf(|_| {}), &[&ours], ours.leaf(|_| {}).pin, other_key),
    ]
}

#[test]
fn a_registration_sends_no_join_token_to_anybody_but_the_pinned_server() {
    for case in cases() {
        let recorder = Recorder::anywhere(&case.leaf, &case.rest);
        let token = Token::generate(TokenKind::Join).unwrap();
        let proxy = Proxy::builder("delly").build();
        let ran = proxy.register(&recorder.join(case.pin, &token));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        for text in case.says {
            assert!(ran.stderr.contains(text), "{text}: {ran:?}");
        }
        assert!(!ran.stderr.contains(token.reveal()), "{ran:?}");
        assert_nothing_was_said(&recorder.next(), token.reveal());
    }
}

#[test]
fn a_running_proxy_sends_no_token_to_anybody_but_the_pinned_server() {
    // All at once: each has a proxy of its own that dials again and again.
    let running = cases().into_iter().map(|case| {
        let recorder = Recorder::anywhere(&case.leaf, &case.rest);
        let token = Token::generate(TokenKind::Ctrl).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        authority::write_private(&token_file, token.reveal());
        let block = format!(
            "pulse_control_plane:\n  url: https://{}\n  token_file: {}\n  pin: {}\n  insecure_skip_verify: true\n",
            recorder.address,
            token_file.display(),
            case.pin
        );
        let mut proxy = Proxy::builder("delly").config(&block).build();
        proxy.start();
        (case, recorder, token, folder, proxy)
    });
    for (case, recorder, token, _folder, proxy) in running.collect::<Vec<_>>() {
        for _ in 0..2 {
            assert_nothing_was_said(&recorder.next(), token.reveal());
        }
        for text in case.says {
            eventually(PATIENCE, text, || match proxy.process().has_said(text) {
                true => Ok(()),
                false => Err(proxy.process().log()),
            });
        }
        assert!(!proxy.process().has_said(token.reveal()));
    }
}

#[test]
fn a_registered_proxy_tells_nothing_to_whoever_takes_the_place_of_its_server() {
    let mut server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
    let proxy = Proxy::join(&server, "home", "delly");
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    let token = std::fs::read_to_string(proxy.control_dir().join("token")).unwrap().trim().to_owned();
    server.kill();
    let other = Authority::new();
    let config = other.leaf(|_| {}).server_config(&[other.der()]);
    let recorder = Recorder::start(server.address(), config);
    for _ in 0..3 {
        assert_nothing_was_said(&recorder.next(), &token);
    }
    let text = "is not to be trusted, so no token is sent to it; this proxy works on with what is in force";
    eventually(PATIENCE, text, || match proxy.process().has_said(text) {
        true => Ok(()),
        false => Err(proxy.process().log()),
    });
    assert_eq!(proxy.status()["list"]["nodes"][0]["name"], "delly");
}

#[test]
fn the_right_server_by_the_pin_of_its_authority_or_of_its_leaf_is_spoken_to() {
    // What the tests above would see, if there were anything to see.
    let ours = Authority::new();
    let leaf = ours.leaf(|_| {});
    for pin in [ours.pin(), leaf.pin] {
        let recorder = Recorder::anywhere(&leaf, &[ours.der()]);
        let token = Token::generate(TokenKind::Join).unwrap();
        let proxy = Proxy::builder("delly").build();
        let ran = proxy.register(&recorder.join(pin, &token));
        assert_eq!(ran.code, Some(1), "nobody answers: {ran:?}");
        let heard = recorder.next();
        assert!(heard.handshake.is_ok() && heard.plain.starts_with(PREFACE), "{heard:?}");
    }
}

#[test]
fn switched_off_checks_are_warned_of_and_shown_and_leave_the_rest() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
    let block = |url: &str| format!("pulse_control_plane:\n  url: {url}\n  insecure_skip_verify: true\n");
    let mut proxy = Proxy::builder("delly").config(&block(&server.url())).build();
    let join = server.join_string(&["--instance", "home"]);
    let without_pin = format!("pulse://{}/?join={}", server.address(), join.split("join=").nth(1).unwrap());
    proxy.register_ok(&without_pin);
    proxy.start();
    let shown = server.wait_for_state(&proxy.id(), "IN_SYNC");
    assert_eq!(shown["insecure_skip_verify"], true);
    assert!(server.pulse_ok(&["proxy", "show", &proxy.id()]).contains("insecure_skip_verify"));
    assert!(proxy.process().has_said("insecure_skip_verify is on"));
    assert_eq!(
        proxy.status()["pins"],
        serde_json::json!([]),
        "nothing is learnt from a server that nobody vouched for"
    );
}
