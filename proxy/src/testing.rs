//! A server for the tests of this crate: TLS with its own CA, the contract's service, and a script in the test's hands.
//!
//! Always: everything that a proxy does arrives on a channel; every wait is bounded.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use pulse_proto::encoded::Encoded;
use pulse_proto::signature::SigningKey;
use pulse_proto::v1::control_plane_service_server::{ControlPlaneService, ControlPlaneServiceServer};
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::v1::{self, WatchAuthorizedNodesResponse};
use pulse_proto::{
    Allowlist, Node, Pin as KeyPin, Position, Scope, SensorKind, SignedAllowlist, Token, TokenKind,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::config::{ControlPlane, ServerUrl};
use crate::sensors::{Celsius, Reading};

/// No step of a test takes longer on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something, and fails the test if it does not come.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it comes in time")
}

/// A reading like any other: 41.5 °C, critical at 100 °C.
pub(crate) fn package_reading() -> Reading {
    Reading {
        sensor: "coretemp-isa-0000/temp1".into(),
        chip: "coretemp".into(),
        label: "Package id 0".into(),
        kind: SensorKind::CpuPackage,
        temperature: Celsius::from_millidegrees(41_500).expect("in range"),
        max: None,
        critical: Celsius::from_millidegrees(100_000),
    }
}

/// A CA and what it signs.
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pin: KeyPin,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        Authority::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names are fine");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let pin = KeyPin::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&key));
        Authority { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), pin }
    }

    /// A certificate for a server with its key, and the key's pin.
    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(vec!["pulse.test".to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pin = KeyPin::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&key));
        Leaf { certificate: certificate.der().clone(), key: key.serialize_der(), pin }
    }
}

/// A server's certificate.
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: Vec<u8>,
    pub(crate) pin: KeyPin,
}

/// One watch that a proxy opened, held by the test.
pub(crate) struct Watch {
    pub(crate) request: v1::WatchAuthorizedNodesRequest,
    pub(crate) token: String,
    /// What goes with the first message.
    pub(crate) info: v1::ServerInfo,
    to: mpsc::UnboundedSender<Result<Encoded<WatchAuthorizedNodesResponse>, Status>>,
    is_first: bool,
}

impl Watch {
    pub(crate) fn send(&mut self, kind: Kind) {
        let server = std::mem::take(&mut self.is_first).then(|| self.info.clone());
        let message = WatchAuthorizedNodesResponse { kind: Some(kind), server };
        // A proxy that is gone is what some tests are about.
        let _ = self.to.send(Ok(Encoded::new(&message)));
    }

    /// A message of a kind that this version does not know.
    pub(crate) fn send_unknown(&mut self) {
        let server = std::mem::take(&mut self.is_first).then(|| self.info.clone());
        let _ = self.to.send(Ok(Encoded::new(&WatchAuthorizedNodesResponse { kind: None, server })));
    }

    pub(crate) fn fail(self, status: Status) {
        let _ = self.to.send(Err(status));
    }

    pub(crate) async fn closed(&self) {
        in_time(self.to.closed()).await;
    }
}

type RegisterAnswer =
    Box<dyn Fn(&Request<v1::RegisterRequest>) -> Result<v1::RegisterResponse, Status> + Send + Sync>;

struct Service {
    watches: mpsc::UnboundedSender<Watch>,
    reports: mpsc::UnboundedSender<v1::ReportSyncRequest>,
    refuse_watch: Arc<Mutex<Option<Status>>>,
    refuse_new_token: Arc<Mutex<Option<Status>>>,
    new_token: Token,
    register: Arc<Mutex<Option<RegisterAnswer>>>,
    asked_tx: watch::Sender<usize>,
    watches_refused_tx: watch::Sender<usize>,
    info: v1::ServerInfo,
}

/// The server.
pub(crate) struct FakePulse {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) key: SigningKey,
    /// What RotateToken gives.
    pub(crate) new_token: Token,
    pub(crate) info: v1::ServerInfo,
    /// What the configuration says, since the server says none.
    pub(crate) refresh_interval: Duration,
    /// Set: every watch fails with it.
    pub(crate) refuse_watch: Arc<Mutex<Option<Status>>>,
    /// Set: a watch with the token of a rotation fails with it.
    pub(crate) refuse_new_token: Arc<Mutex<Option<Status>>>,
    pub(crate) register: Arc<Mutex<Option<RegisterAnswer>>>,
    watches: mpsc::UnboundedReceiver<Watch>,
    reports: mpsc::UnboundedReceiver<v1::ReportSyncRequest>,
    /// How many temperature reports came; each is refused.
    asked_rx: watch::Receiver<usize>,
    /// How many watches were refused.
    watches_refused_rx: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakePulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakePulse {
    pub(crate) async fn start() -> FakePulse {
        let authority = Authority::new();
        let leaf = authority.leaf(|_| {});
        let chain = vec![leaf.certificate.clone(), authority.certificate.clone()];
        let tls = server_config(chain, leaf.key);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (key, _) = SigningKey::generate().expect("a key");
        let server_id = Uuid::now_v7();
        let info = v1::ServerInfo {
            server_id: server_id.to_string(),
            version: "test".to_owned(),
            refresh_interval: None,
            signing_keys: vec![v1::SigningKey {
                key_id: key.public().key_id(),
                public_key: key.public().as_bytes().to_vec(),
                ..v1::SigningKey::default()
            }],
            ..v1::ServerInfo::default()
        };
        let (watch_tx, watches) = mpsc::unbounded_channel();
        let (report_tx, reports) = mpsc::unbounded_channel();
        let new_token = Token::generate(TokenKind::Ctrl).expect("a token");
        let refuse_watch = Arc::new(Mutex::new(None));
        let refuse_new_token = Arc::new(Mutex::new(None));
        let register = Arc::new(Mutex::new(None));
        let (asked_tx, asked_rx) = watch::channel(0);
        let (watches_refused_tx, watches_refused_rx) = watch::channel(0);
        let service = Service {
            watches: watch_tx,
            reports: report_tx,
            refuse_watch: Arc::clone(&refuse_watch),
            refuse_new_token: Arc::clone(&refuse_new_token),
            new_token: new_token.clone(),
            register: Arc::clone(&register),
            asked_tx,
            watches_refused_tx,
            info: info.clone(),
        };
        let incoming = accept(listener, tls);
        let task = tokio::task::spawn(async move {
            let server = Server::builder().add_service(ControlPlaneServiceServer::new(service));
            server.serve_with_incoming(incoming).await.expect("the server runs");
        });
        FakePulse {
            address,
            authority,
            key,
            new_token,
            info,
            refresh_interval: Duration::from_secs(60),
            refuse_watch,
            refuse_new_token,
            register,
            watches,
            reports,
            asked_rx,
            watches_refused_rx,
            task,
        }
    }

    pub(crate) fn url(&self) -> ServerUrl {
        ServerUrl::new("127.0.0.1", self.address.port()).expect("an address")
    }

    /// The configuration of a proxy that asks this server.
    pub(crate) fn control(&self, token_file: &std::path::Path) -> ControlPlane {
        ControlPlane {
            url: self.url(),
            token_file: token_file.to_owned(),
            refresh_interval: self.refresh_interval,
            insecure_skip_verify: false,
            ca_file: None,
            pin: Some(self.authority.pin),
        }
    }

    pub(crate) async fn watch(&mut self) -> Watch {
        in_time(self.watches.recv()).await.expect("the server runs")
    }

    pub(crate) async fn report(&mut self) -> v1::ReportSyncRequest {
        in_time(self.reports.recv()).await.expect("the server runs")
    }

    pub(crate) fn temperatures_asked_so_far(&self) -> usize {
        *self.asked_rx.borrow()
    }

    pub(crate) async fn temperatures_asked(&self, times: usize) {
        self.asked_rx.clone().wait_for(|asked| *asked >= times).await.expect("the server runs");
    }

    pub(crate) async fn watch_refused(&self) {
        let refused = self.watches_refused_rx.clone();
        in_time(async move { refused.clone().wait_for(|refused| *refused > 0).await.map(|_| ()) })
            .await
            .expect("the server runs");
    }

    pub(crate) fn no_report(&mut self) -> bool {
        self.reports.try_recv().is_err()
    }

    pub(crate) fn list(&self, revision: u64, names: &[&str]) -> v1::AllowlistSnapshot {
        signed(&self.key, revision, names).to_wire()
    }
}

/// A list of epoch 7, scope `all`.
pub(crate) fn signed(key: &SigningKey, revision: u64, names: &[&str]) -> SignedAllowlist {
    let nodes = names.iter().map(|name| Node::new(name, "").expect("a node"));
    let position = Position { epoch: 7, revision };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_661_000);
    SignedAllowlist::sign(key, position, Scope::All, Allowlist::new(nodes), at, Duration::from_secs(60))
}

pub(crate) fn server_config(chain: Vec<CertificateDer<'static>>, key: Vec<u8>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(key.into());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a key that fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Accepts one after the other; a handshake that fails is the proxy's to tell.
fn accept(listener: TcpListener, tls: Arc<ServerConfig>) -> impl Stream<Item = io::Result<Connection>> {
    let (tx, rx) = mpsc::unbounded_channel();
    tokio::task::spawn(async move {
        let acceptor = TlsAcceptor::from(tls);
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await
                && tx.send(Connection(stream)).is_err()
            {
                return;
            }
        }
    });
    UnboundedReceiverStream::new(rx).map(Ok)
}

struct Connection(tokio_rustls::server::TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tonic::async_trait]
impl ControlPlaneService for Service {
    type WatchAuthorizedNodesStream =
        UnboundedReceiverStream<Result<Encoded<WatchAuthorizedNodesResponse>, Status>>;

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        match &*self.register.lock().expect("no test panics with it") {
            Some(answer) => answer(&request).map(Response::new),
            None => Err(Status::unavailable("not now")),
        }
    }

    async fn watch_authorized_nodes(
        &self,
        request: Request<v1::WatchAuthorizedNodesRequest>,
    ) -> Result<Response<Self::WatchAuthorizedNodesStream>, Status> {
        if let Some(status) = &*self.refuse_watch.lock().expect("no test panics with it") {
            self.watches_refused_tx.send_modify(|refused| *refused += 1);
            return Err(status.clone());
        }
        let (to, from) = mpsc::unbounded_channel();
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        if token == self.new_token.reveal()
            && let Some(status) = &*self.refuse_new_token.lock().expect("no test panics with it")
        {
            return Err(status.clone());
        }
        let request = request.into_inner();
        let watch = Watch { request, token, to, info: self.info.clone(), is_first: true };
        self.watches.send(watch).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(UnboundedReceiverStream::new(from)))
    }

    async fn report_sync(
        &self,
        request: Request<v1::ReportSyncRequest>,
    ) -> Result<Response<v1::ReportSyncResponse>, Status> {
        let _ = self.reports.send(request.into_inner());
        Ok(Response::new(v1::ReportSyncResponse {}))
    }

    async fn report_temperatures(
        &self,
        _: Request<v1::ReportTemperaturesRequest>,
    ) -> Result<Response<v1::ReportTemperaturesResponse>, Status> {
        self.asked_tx.send_modify(|asked| *asked += 1);
        Err(Status::unavailable("not in these tests"))
    }

    async fn rotate_token(
        &self,
        _: Request<v1::RotateTokenRequest>,
    ) -> Result<Response<v1::RotateTokenResponse>, Status> {
        let ctrl_token = self.new_token.reveal().to_owned();
        Ok(Response::new(v1::RotateTokenResponse { ctrl_token, use_before: None }))
    }

    async fn unregister(
        &self,
        _: Request<v1::UnregisterRequest>,
    ) -> Result<Response<v1::UnregisterResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }
}
