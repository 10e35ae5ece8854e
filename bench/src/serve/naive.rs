//! tonic as anybody would use it: the generated service, a watch channel, and a message that every stream clones and
//! encodes for itself. And the plain unary server: it takes reports, and keeps nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use pulse_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::{Lists, Serve, follow, listen, ready};
use crate::failure::{Doing, Outcome};
use crate::serve::Certificate;

#[expect(unreachable_pub, reason = "generated")]
mod service {
    include!(concat!(env!("OUT_DIR"), "/pulse.control.v1.rs"));
}

use service::control_plane_service_server::{ControlPlaneService, ControlPlaneServiceServer};

type List = v1::WatchAuthorizedNodesResponse;

/// Serves until it is killed, or the bench goes.
pub(super) fn run(serve: &Serve) -> Outcome<()> {
    let tls = serve.tls.as_deref().map(Certificate::load).transpose()?;
    let tls = tls.map(|tls| tls.server_config(&[b"h2"])).transpose()?;
    let runtime = tokio::runtime::Runtime::new().doing("start the runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen(serve.listen)?).doing("listen")?;
        let lists = Lists::bind(serve)?;
        ready()?;
        let (first, stream) = lists.first().await?;
        let (lists_tx, lists_rx) = watch::channel(decode(first));
        let router = Server::builder()
            .tcp_nodelay(true)
            .add_service(ControlPlaneServiceServer::new(Naive { lists_rx }));
        tokio::spawn(async move {
            match tls {
                None => router.serve_with_incoming(TcpListenerStream::new(listener)).await,
                Some(tls) => {
                    let (accepted_tx, accepted_rx) = mpsc::channel(1024);
                    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), accepted_tx));
                    router.serve_with_incoming(ReceiverStream::new(accepted_rx)).await
                }
            }
        });
        follow(stream, lists_tx, decode).await;
        Ok(())
    })
}

fn decode(message: Bytes) -> List {
    List::decode(message).expect("the bench sends messages that it encoded itself")
}

/// Shakes hands, each connection in a task of its own.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted_tx: mpsc::Sender<std::io::Result<Secured>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, accepted_tx) = (acceptor.clone(), accepted_tx.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = accepted_tx.send(Ok(Secured(stream))).await;
            }
        });
    }
}

struct Naive {
    lists_rx: watch::Receiver<List>,
}

#[tonic::async_trait]
impl ControlPlaneService for Naive {
    type WatchAuthorizedNodesStream = Pin<Box<dyn Stream<Item = Result<List, Status>> + Send>>;

    async fn watch_authorized_nodes(
        &self,
        _request: Request<v1::WatchAuthorizedNodesRequest>,
    ) -> Result<Response<Self::WatchAuthorizedNodesStream>, Status> {
        Ok(Response::new(Box::pin(WatchStream::new(self.lists_rx.clone()).map(Ok))))
    }

    async fn report_temperatures(
        &self,
        request: Request<v1::ReportTemperaturesRequest>,
    ) -> Result<Response<v1::ReportTemperaturesResponse>, Status> {
        let durable_sequence = request.into_inner().sequence;
        Ok(Response::new(v1::ReportTemperaturesResponse { durable_sequence, refused: Vec::new() }))
    }

    async fn register(
        &self,
        _request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        Err(Status::unimplemented("a peer of the bench"))
    }

    async fn report_sync(
        &self,
        _request: Request<v1::ReportSyncRequest>,
    ) -> Result<Response<v1::ReportSyncResponse>, Status> {
        Err(Status::unimplemented("a peer of the bench"))
    }

    async fn rotate_token(
        &self,
        _request: Request<v1::RotateTokenRequest>,
    ) -> Result<Response<v1::RotateTokenResponse>, Status> {
        Err(Status::unimplemented("a peer of the bench"))
    }

    async fn unregister(
        &self,
        _request: Request<v1::UnregisterRequest>,
    ) -> Result<Response<v1::UnregisterResponse>, Status> {
        Err(Status::unimplemented("a peer of the bench"))
    }
}

/// A connection over TLS. tonic's own way to one is a feature that nothing here may turn on.
struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
