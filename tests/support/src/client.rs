//! A proxy made of nothing but the contract: for tests of many streams, and of callers that misbehave.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use pulse_proto::v1::control_plane_service_client::ControlPlaneServiceClient;
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::v1::{
    AllowlistSnapshot, RegisterRequest, RegisterResponse, ReportSyncRequest, SyncOutcome,
    WatchAuthorizedNodesRequest, WatchAuthorizedNodesResponse,
};
use pulse_proto::{JoinString, MAX_MESSAGE_BYTES};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::http::tls;
use crate::server::Server;
use crate::wait::in_time;

/// Opens a connection of its own to the server: TLS, trusted by its CA, or plain text if that is what it speaks.
///
/// # Panics
/// When the server is not reached.
pub async fn connect(server: &Server) -> ControlPlaneServiceClient<Channel> {
    open(server, None).await
}

async fn open(server: &Server, window_bytes: Option<u32>) -> ControlPlaneServiceClient<Channel> {
    let address = server.address();
    if server.is_plaintext() {
        return over(address, window_bytes, move || plain(address)).await;
    }
    let tls = TlsConnector::from(Arc::new(tls(&server.ca_path(), &["h2"]).expect("the CA can be read")));
    let name = ServerName::from(address.ip());
    over(address, window_bytes, move || {
        let (tls, name) = (tls.clone(), name.clone());
        async move { tls.connect(name, plain(address).await?).await }
    })
    .await
}

async fn plain(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A client whose connection, and each after it, is made by `dial`. That does the TLS; to tonic, which has none built in,
/// the connection is plain.
async fn over<F, S>(
    address: SocketAddr,
    window_bytes: Option<u32>,
    mut dial: impl FnMut() -> F + Send + 'static,
) -> ControlPlaneServiceClient<Channel>
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL");
    let endpoint = endpoint.initial_stream_window_size(window_bytes);
    let dial = tower::service_fn(move |_| {
        let dialled = dial();
        async move { dialled.await.map(TokioIo::new) }
    });
    let channel = in_time("a connection to the server", endpoint.connect_with_connector(dial)).await;
    let channel = channel.unwrap_or_else(|error| panic!("connect to {address}: {error:?}"));
    ControlPlaneServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// A registered proxy, with a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its connection; [`Client::authorized`] adds the token to a message.
    pub grpc: ControlPlaneServiceClient<Channel>,
    /// Its ctrl token.
    pub token: String,
    /// Its identity.
    pub proxy_id: String,
    /// What the server said when it registered.
    pub registered: RegisterResponse,
}

impl Client {
    /// Connects and registers with a join string.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn register(server: &Server, join: &str, hostname: &str) -> Client {
        Client::register_over(connect(server).await, join, hostname).await
    }

    /// Registers another proxy over this one's connection, which a server cannot tell.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn register_beside(&self, join: &str, hostname: &str) -> Client {
        Client::register_over(self.grpc.clone(), join, hostname).await
    }

    async fn register_over(
        mut grpc: ControlPlaneServiceClient<Channel>,
        join: &str,
        hostname: &str,
    ) -> Client {
        let join: JoinString = join.parse().expect("the server made the join string");
        let message = RegisterRequest {
            hostname: hostname.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RegisterRequest::default()
        };
        let request = match &join.join {
            Some(token) => with_token(message, token.reveal()),
            None => Request::new(message),
        };
        let answer = in_time("registration", grpc.register(request)).await;
        let registered = answer.expect("registration is not refused").into_inner();
        let (token, proxy_id) = (registered.ctrl_token.clone(), registered.proxy_id.clone());
        Client { grpc, token, proxy_id, registered }
    }

    /// The same proxy on a new connection.
    pub async fn reconnect(&self, server: &Server) -> Client {
        Client { grpc: connect(server).await, ..self.clone() }
    }

    /// The same proxy on a new connection whose streams take so many bytes and then no more until they are read: one
    /// that is not read stands still.
    pub async fn reconnect_with_window(&self, server: &Server, window_bytes: u32) -> Client {
        Client { grpc: open(server, Some(window_bytes)).await, ..self.clone() }
    }

    /// The same proxy over a connection of the test's own making, which is not made again when it ends.
    ///
    /// # Panics
    /// When it does not speak HTTP/2.
    pub async fn over<S>(&self, server: &Server, connection: S) -> Client
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connection = Some(connection);
        let dial = move || std::future::ready(connection.take().ok_or(io::ErrorKind::NotConnected.into()));
        let grpc = over(server.address(), None, dial).await;
        Client { grpc, ..self.clone() }
    }

    /// A message with this proxy's token.
    pub fn authorized<T>(&self, message: T) -> Request<T> {
        with_token(message, &self.token)
    }

    /// Opens a watch that says what is held; the default: nothing.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn watch(&self, held: WatchAuthorizedNodesRequest) -> Watch {
        self.try_watch(held).await.expect("the watch is not refused")
    }

    /// Opens a watch.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn try_watch(&self, held: WatchAuthorizedNodesRequest) -> Result<Watch, Status> {
        let request = self.authorized(held);
        let answer = in_time("a watch", self.grpc.clone().watch_authorized_nodes(request)).await?;
        Ok(Watch { stream: answer.into_inner() })
    }

    /// Says that a list is in force and on disk.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn report_applied(&self, list: &AllowlistSnapshot) {
        let message = ReportSyncRequest {
            epoch: list.epoch,
            scope: list.scope.clone(),
            revision: list.revision,
            hash: list.hash.clone(),
            outcome: SyncOutcome::Applied.into(),
            on_disk: true,
            ..ReportSyncRequest::default()
        };
        let answer = in_time("a sync report", self.grpc.clone().report_sync(self.authorized(message))).await;
        answer.expect("the report is not refused");
    }
}

/// What a proxy says that holds this list.
pub fn holding(list: &AllowlistSnapshot) -> WatchAuthorizedNodesRequest {
    WatchAuthorizedNodesRequest {
        epoch: list.epoch,
        scope: list.scope.clone(),
        revision: list.revision,
        hash: list.hash.clone(),
        ..WatchAuthorizedNodesRequest::default()
    }
}

/// A message with a token.
pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: AsciiMetadataValue = format!("Bearer {token}").parse().expect("tokens are ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<WatchAuthorizedNodesResponse>,
}

impl Watch {
    /// The next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// How the server ended the stream.
    ///
    /// # Panics
    /// When nothing comes in [`PATIENCE`](crate::PATIENCE).
    pub async fn next(&mut self) -> Result<Option<WatchAuthorizedNodesResponse>, Status> {
        in_time("a message of the watch", self.stream.message()).await
    }

    /// The next message that is no bookmark.
    ///
    /// # Panics
    /// When the stream ends first.
    pub async fn next_kind(&mut self) -> Kind {
        loop {
            let message = self.next().await.expect("the stream lives");
            match message.expect("the stream lives").kind {
                Some(Kind::Bookmark(_)) => {}
                kind => return kind.expect("this contract knows every kind of this server"),
            }
        }
    }

    /// The next list.
    ///
    /// # Panics
    /// When another message comes first, other than a bookmark.
    pub async fn snapshot(&mut self) -> AllowlistSnapshot {
        match self.next_kind().await {
            Kind::Snapshot(list) => list,
            other => panic!("a list was awaited, and this came: {other:?}"),
        }
    }

    /// The next list that has this hash; those before it are skipped.
    pub async fn snapshot_of(&mut self, hash: &str) -> AllowlistSnapshot {
        loop {
            let list = self.snapshot().await;
            if list.hash == hash {
                return list;
            }
        }
    }

    /// Listens until two bookmarks came, so for at least half a refresh interval.
    ///
    /// # Panics
    /// When anything else comes, or the stream ends.
    pub async fn hears_only_bookmarks(&mut self) {
        for _ in 0..2 {
            let message = self.next().await.expect("the stream lives").expect("the stream lives");
            let is_bookmark = matches!(message.kind, Some(Kind::Bookmark(_)));
            assert!(is_bookmark, "nothing but bookmarks was awaited, and this came: {message:?}");
        }
    }
}
