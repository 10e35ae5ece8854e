//! A fake Proxmox VE host: it stands in for a server that cannot be had, answers what it is told to, most of all what was captured
//! from real ones, and counts who asks.
//!
//! In: answers by path, a certificate, whether it stalls. Out: an address. Always: on loopback, over TLS, HTTP/1.1 with the
//! reason in the status line, as pveproxy does it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    reason: String,
    body: Bytes,
    stalls: bool,
}

impl Reply {
    /// 200 with this body.
    pub fn of(body: impl Into<Bytes>) -> Reply {
        Reply { status: 200, reason: "OK".to_owned(), body: body.into(), stalls: false }
    }

    /// A refusal, with its reason in the status line.
    #[must_use]
    pub fn refusal(status: u16, reason: &str) -> Reply {
        Reply {
            status,
            reason: reason.to_owned(),
            body: Bytes::from_static(b"{\"data\":null}"),
            stalls: false,
        }
    }

    /// No answer at all.
    #[must_use]
    pub fn stall() -> Reply {
        Reply { stalls: true, ..Reply::of("") }
    }

    /// As it was captured: a status line, headers, a body.
    ///
    /// # Panics
    /// When it is no answer.
    #[must_use]
    pub fn captured(text: &str) -> Reply {
        let (head, body) =
            text.split_once("\n\n").or_else(|| text.split_once("\r\n\r\n")).unwrap_or((text, ""));
        let mut words = head.lines().next().expect("it has a status line").splitn(3, ' ').skip(1);
        let status = words.next().and_then(|status| status.parse().ok()).expect("it has a status");
        let reason = words.next().unwrap_or_default().trim().to_owned();
        Reply { status, reason, body: Bytes::copy_from_slice(body.as_bytes()), stalls: false }
    }
}

#[derive(Debug, Default)]
struct State {
    answers: BTreeMap<String, Reply>,
    token: Option<String>,
    asked: Vec<String>,
    polled: Vec<Instant>,
    under_way: usize,
    most_under_way: usize,
}

/// See the module. It ends with its value.
#[derive(Debug)]
pub struct FakeProxmox {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    certificate: Mutex<CertificateDer<'static>>,
    runtime: Option<Runtime>,
}

impl FakeProxmox {
    /// A host that answers nothing yet but 501, with a certificate of its own for 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start() -> FakeProxmox {
        FakeProxmox::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same, at another address of this machine.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start_at(address: IpAddr) -> FakeProxmox {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be started");
        // Not by way of the runtime: a test may be a task of another one.
        let listener = std::net::TcpListener::bind((address, 0)).expect("a port is free");
        listener.set_nonblocking(true).expect("a socket can do that");
        let address = listener.local_addr().expect("it is bound");
        let (certificate, config) = made(&Shown::default());
        let tls = Arc::new(Mutex::new(config));
        let state = Arc::new(Mutex::new(State::default()));
        runtime.spawn(accept(listener, Arc::clone(&tls), Arc::clone(&state)));
        FakeProxmox { address, state, tls, certificate: Mutex::new(certificate), runtime: Some(runtime) }
    }

    /// A cluster of these nodes, `name=ip`, of which the first answers; without an address, `ip` is left out.
    #[must_use]
    pub fn cluster(members: &[&str]) -> FakeProxmox {
        let fake = FakeProxmox::start();
        fake.answer(
            "/version",
            Reply::of(r#"{"data":{"version":"8.4.1","release":"8.4","repoid":"2a2fa54b8503f96c"}}"#),
        );
        fake.set_members(members);
        fake
    }

    /// The members of its cluster from now on; with one alone, it is a standalone host.
    pub fn set_members(&self, members: &[&str]) {
        let mut status = Vec::new();
        if members.len() != 1 {
            status.push(json!({
                "type": "cluster", "id": "cluster", "name": "fake", "quorate": 1, "version": 7, "nodes": members.len(),
            }));
        }
        let mut nodes = Vec::new();
        for (at, member) in members.iter().enumerate() {
            let (name, ip) = member.split_once('=').unwrap_or((member, ""));
            let mut entry = json!({
                "type": "node", "id": format!("node/{name}"), "name": name, "online": 1, "level": "",
                "local": u8::from(at == 0), "nodeid": if members.len() == 1 { 0 } else { at + 1 },
            });
            if !ip.is_empty() {
                entry["ip"] = Value::from(ip);
            }
            status.push(entry);
            nodes.push(
                json!({ "type": "node", "id": format!("node/{name}"), "node": name, "status": "online" }),
            );
        }
        self.answer("/cluster/status", Reply::of(json!({ "data": status }).to_string()));
        self.answer("/nodes", Reply::of(json!({ "data": nodes }).to_string()));
        self.answer("/cluster/resources", Reply::of(json!({ "data": nodes }).to_string()));
    }

    /// A member is not there, says its cluster from now on.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn set_offline(&self, name: &str) {
        let mut state = self.state();
        let status = state.answers.get_mut("/cluster/status").expect("it has a cluster");
        let mut answer: Value = serde_json::from_slice(&status.body).expect("it is JSON");
        let members = answer["data"].as_array_mut().expect("it is a list");
        let member = members.iter_mut().find(|member| member["name"] == name && member["type"] == "node");
        member.expect("it is a member")["online"] = 0.into();
        status.body = answer.to_string().into();
    }

    /// What it answers to a path below `/api2/json` from now on.
    pub fn answer(&self, path: &str, reply: Reply) {
        self.state().answers.insert(path.to_owned(), reply);
    }

    /// From now on only this token is let in: `USER@REALM!ID=SECRET`.
    pub fn demand(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// A certificate of another key, for handshakes from now on.
    pub fn change_certificate(&self) {
        self.show(&Shown::default());
    }

    /// Another certificate, for handshakes from now on.
    pub fn show(&self, shown: &Shown<'_>) {
        let (certificate, config) = made(shown);
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = config;
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    /// The SHA-256 fingerprint of the certificate that it shows, as openssl prints it.
    pub fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate());
        let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }

    /// The certificate that it shows.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The paths that it was asked for, in their order.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// When polls of it began.
    pub fn polled(&self) -> Vec<Instant> {
        self.state().polled.clone()
    }

    /// The most questions that were under way at one time.
    pub fn most_under_way(&self) -> usize {
        self.state().most_under_way
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for FakeProxmox {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A test may be a task of another runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What kind of certificate a host shows.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The name in it, a DNS name or an address.
    pub name: &'a str,
    /// Whether its time is over.
    pub is_expired: bool,
    /// Whether it says that it is an authority's own, as `openssl req -x509` has it.
    pub is_authority: bool,
    /// Who signs it; `None`: itself.
    pub authority: Option<&'a FakeAuthority>,
}

impl Default for Shown<'_> {
    fn default() -> Self {
        Shown { name: "127.0.0.1", is_expired: false, is_authority: false, authority: None }
    }
}

/// An authority that a system can be told to trust.
#[derive(Debug)]
pub struct FakeAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl FakeAuthority {
    /// A new one.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new() -> FakeAuthority {
        let mut params = CertificateParams::new(Vec::new()).expect("it is no name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fake authority");
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("a certificate can be made").pem();
        FakeAuthority { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl Default for FakeAuthority {
    fn default() -> Self {
        FakeAuthority::new()
    }
}

fn made(shown: &Shown<'_>) -> (CertificateDer<'static>, Arc<ServerConfig>) {
    let mut params = CertificateParams::new([shown.name.to_owned()]).expect("it is a name");
    if shown.is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    if shown.is_expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().expect("a key can be made");
    let made = match shown.authority {
        Some(authority) => params.signed_by(&key, &authority.issuer),
        None => params.self_signed(&key),
    };
    let made = made.expect("a certificate can be made");
    let pem = key.serialize_pem();
    let private = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("it was just made");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![made.der().clone()], private))
        .expect("the key fits");
    (made.der().clone(), Arc::new(config))
}

async fn accept(
    listener: std::net::TcpListener,
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    state: Arc<Mutex<State>>,
) {
    let listener = TcpListener::from_std(listener).expect("it is not blocking");
    while let Ok((stream, _)) = listener.accept().await {
        let config = Arc::clone(&tls.lock().unwrap_or_else(PoisonError::into_inner));
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // Who does not trust it goes away in the handshake.
            let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().strip_prefix("/api2/json").unwrap_or_default().to_owned();
    let reply = {
        let mut state = lock(&state);
        if path == "/version" {
            state.polled.push(Instant::now());
        }
        state.asked.push(path.clone());
        state.under_way += 1;
        state.most_under_way = state.most_under_way.max(state.under_way);
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let wanted = state.token.as_ref().map(|token| format!("PVEAPIToken={token}"));
        match wanted {
            Some(wanted) if given != Some(wanted.as_str()) => Reply::refusal(401, "invalid token value!"),
            _ => {
                let missing = || Reply::refusal(501, &format!("no such file '{path}'"));
                state.answers.get(&path).cloned().unwrap_or_else(missing)
            }
        }
    };
    // So that others who ask meanwhile are seen.
    tokio::task::yield_now().await;
    if reply.stalls {
        std::future::pending::<()>().await;
    }
    lock(&state).under_way -= 1;
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a test names a status");
    let reason = ReasonPhrase::try_from(Bytes::from(reply.reason)).expect("a test names a reason");
    response.extensions_mut().insert(reason);
    Ok(response)
}
