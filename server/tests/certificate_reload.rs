//! A certificate is exchanged under open streams: none of 200 ends, and who comes then sees the new one.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/client.rs"]
mod client;

use std::fs;

use authority::{Authority, Leaf};
use client::shown_certificate;
use pulse_test_support::{Client, PATIENCE, Running, Server, ServerBuilder, Watch, eventually, holding};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;

const STREAMS: usize = 200;
/// As many proxies share a connection of the test, which a server cannot tell.
const STREAMS_PER_CONNECTION: usize = 8;

/// Registers 200 proxies, and opens a stream for each, over 25 connections.
async fn open_streams(server: &Server) -> Vec<(Client, Watch)> {
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "one=10.0.0.1"]);
    let uses = STREAMS.to_string();
    let join = server.join_string(&["--instance", "home", "--uses", &uses, "--ttl", "1h"]);
    let mut streams: Vec<(Client, Watch)> = Vec::new();
    for number in 0..STREAMS {
        let client = match number % STREAMS_PER_CONNECTION {
            0 => Client::register(server, &join, &format!("host-{number}")).await,
            _ => {
                streams
                    .last()
                    .expect("not the first")
                    .0
                    .register_beside(&join, &format!("host-{number}"))
                    .await
            }
        };
        let mut watch = client.watch(holding(&pulse_test_support::v1::AllowlistSnapshot::default())).await;
        watch.snapshot().await;
        streams.push((client, watch));
    }
    streams
}

/// Each hears of a change on the stream that it has.
async fn all_hear(server: &Server, streams: &mut [(Client, Watch)], node: &str) {
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", &format!("{node}=10.0.0.1")]);
    let hash = server.allowlist("home")["hash"].as_str().expect("a list has one").to_owned();
    for (_, watch) in streams.iter_mut() {
        assert_eq!(watch.snapshot_of(&hash).await.nodes[0].name, node);
    }
    let metrics = server.metrics();
    assert!(
        metrics.value("pulse_watch_streams") == STREAMS as f64 && !metrics.has("pulse_watch_streams_ended")
    );
}

async fn shown(server: &Server) -> CertificateDer<'static> {
    shown_certificate(server.address(), &server.ca_path(), "127.0.0.1").await.expect("it is trusted")
}

fn wait_for_line(process: &Running, text: &str) {
    eventually(PATIENCE, text, || match process.has_said(text) {
        true => Ok(()),
        false => Err(process.log()),
    });
}

#[tokio::test]
async fn the_own_authoritys_next_certificate_drops_none_of_200_streams() {
    let server = Server::start();
    let mut streams = open_streams(&server).await;
    let first = shown(&server).await;
    // What is lost is made again: by the look at the files, and at once when asked to.
    for (round, is_asked) in [("look", false), ("hangup", true)] {
        let before = shown(&server).await;
        for file in ["server.pem", "server.key"] {
            fs::remove_file(server.data_dir().join(file)).unwrap();
        }
        if is_asked {
            server.process().signal(Signal::HUP);
        }
        eventually(PATIENCE, "a new certificate is there", || {
            server.data_dir().join("server.pem").exists().then_some(()).ok_or(())
        });
        client::until(async || shown(&server).await != before).await;
        all_hear(&server, &mut streams, round).await;
    }
    // And with a new key of the authority.
    server.pulse_ok(&["tls", "rotate"]);
    assert_ne!(shown(&server).await, first);
    all_hear(&server, &mut streams, "rotated").await;
}

/// A server with files of the test's own.
struct Own {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Own {
    fn new() -> Own {
        let own = Own { folder: tempfile::tempdir().expect("a folder"), authority: Authority::new() };
        own.authority.write(&own.path("ca.pem"));
        own
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn install(&self, leaf: &Leaf) {
        leaf.install(&self.path("own.pem"), &self.path("own.key"));
    }

    fn builder(&self) -> ServerBuilder {
        let (certificate, key) = (self.path("own.pem"), self.path("own.key"));
        let tls =
            format!("tls:\n  certificate_file: {}\n  key_file: {}", certificate.display(), key.display());
        Server::builder().config(&tls).trusting(&self.path("ca.pem"))
    }

    /// What `pulse serve` says when it cannot begin with these files.
    fn refused(&self) -> String {
        let (certificate, key) = (self.path("own.pem"), self.path("own.key"));
        let ran = std::process::Command::new(pulse_test_support::binary("pulse"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(self.path("data"))
            .env_clear()
            .env("PULSE_TLS_CERTIFICATE_FILE", certificate)
            .env("PULSE_TLS_KEY_FILE", key)
            .output()
            .expect("the program is there");
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        String::from_utf8_lossy(&ran.stderr).into_owned()
    }
}

#[tokio::test]
async fn files_of_the_operators_own_are_exchanged_under_200_streams() {
    let own = Own::new();
    own.install(&own.authority.leaf(|_| {}));
    let server = own.builder().start();
    assert!(server.join_string(&[]).contains("/?join="), "a certificate of one's own has no pin");
    let mut streams = open_streams(&server).await;
    for (round, is_asked) in [("look", false), ("hangup", true)] {
        let next = own.authority.leaf(|_| {});
        own.install(&next);
        if is_asked {
            server.process().signal(Signal::HUP);
        }
        client::until(async || shown(&server).await == next.der()).await;
        all_hear(&server, &mut streams, round).await;
    }
    // A broken pair: the one in use stays, which is said once, and shown as long as it lasts.
    let before = shown(&server).await;
    fs::write(own.path("own.key"), "nonsense").unwrap();
    let failed = "certificate not reloaded; the one in use stays";
    wait_for_line(server.process(), failed);
    eventually(PATIENCE, "the metric says so", || {
        (server.metrics().value("pulse_certificate_reload_failing") == 1.0).then_some(()).ok_or(())
    });
    let status = server.pulse_ok(&["status"]);
    assert!(status.contains("own.key holds no private key"), "{status}");
    all_hear(&server, &mut streams, "broken").await;
    assert_eq!(shown(&server).await, before);
    let last = own.authority.leaf(|_| {});
    own.install(&last);
    client::until(async || shown(&server).await == last.der()).await;
    let said = server.process().log().iter().filter(|line| line.contains(failed)).count();
    assert_eq!(said, 1);
    let metrics = server.metrics();
    assert_eq!(metrics.value("pulse_certificate_reload_failing"), 0.0);
    assert!(metrics.value("pulse_certificate_ends_timestamp_seconds{certificate=\"server\"}") > 1.7e9);
}

#[test]
fn a_server_does_not_begin_with_files_that_no_client_would_take_and_says_why() {
    let own = Own::new();
    assert!(own.refused().contains("own.pem: does it exist, and may the server's user read it?"));
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(3000, 1, 1);
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    for (leaf, says) in [
        (own.authority.leaf(past), "ended at 2001-01-01T00:00:00Z; put a newer one in its place"),
        (own.authority.leaf(future), "good from 3000-01-01T00:00:00Z only; correct the clock"),
        (own.authority.leaf(for_clients), "is not for servers (its extended key usage lacks serverAuth)"),
        (
            Leaf { key_pem: own.authority.leaf(|_| {}).key_pem, ..own.authority.leaf(|_| {}) },
            "does not belong to the first certificate in",
        ),
    ] {
        own.install(&leaf);
        let said = own.refused();
        assert!(said.contains(says) && !said.contains("PRIVATE KEY-----"), "{says}: {said}");
    }
    // A folder cannot be read as a file, whoever asks: root can read everything else.
    fs::remove_file(own.path("own.key")).unwrap();
    fs::create_dir(own.path("own.key")).unwrap();
    assert!(own.refused().contains("own.key: does it exist, and may the server's user read it?"));
}

#[test]
fn what_is_wrong_with_files_that_can_be_used_is_said_at_the_start() {
    let own = Own::new();
    let leaf = own.authority.leaf(|_| {});
    leaf.install(&own.path("own.pem"), &own.path("own.key"));
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode;
    fs::set_permissions(own.path("own.key"), mode(0o644)).unwrap();
    let server = own.builder().config("public_address: elsewhere.example:7655").start();
    let log = server.process().log().join("\n");
    let key = own.path("own.key");
    assert!(
        log.contains(&format!("every user of this machine can read the private key {}", key.display())),
        "{log}"
    );
    assert!(log.contains("join strings name elsewhere.example, for which the certificate in"), "{log}");
    assert!(log.contains("127.0.0.1, pulse.example"), "{log}");
}

#[test]
fn a_private_key_of_pulses_own_is_for_its_owner_alone() {
    let server = Server::start();
    server.pulse_ok(&["tls", "rotate"]);
    for (file, expected) in
        [("ca.key", 0o600), ("server.key", 0o600), ("ca.pem", 0o644), ("ca-bridge.pem", 0o644)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = server.data_dir().join(file);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, expected, "{file}");
    }
}
