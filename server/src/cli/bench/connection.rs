//! One connection of HTTP/2, on which the generated client makes its calls.
//!
//! In: a stream of bytes that is secured already. Out: calls, and watches of which only the hash of each list is read.
//! Always: ends when its last handle is dropped.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pulse_proto::MAX_MESSAGE_BYTES;
use pulse_proto::codec::RequestCodec;
use pulse_proto::v1::WatchAuthorizedNodesRequest;
use pulse_proto::v1::control_plane_service_client::ControlPlaneServiceClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Status, Streaming};

/// How long an answer may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The method that is called without the generated client.
const WATCH: &str = "/pulse.control.v1.ControlPlaneService/WatchAuthorizedNodes";
/// The largest page of metrics.
const MAX_METRICS_BYTES: usize = 4 << 20;

/// A message of a watch, of which nothing is read but the hash of its list: reading whole lists for thousands of proxies
/// takes the CPU that the server needs, and each proxy has one of its own for it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Pushed {
    /// The list.
    #[prost(message, optional, tag = "1")]
    pub(super) snapshot: Option<PushedList>,
}

/// A list that was pushed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct PushedList {
    /// Its hash.
    #[prost(string, tag = "4")]
    pub(super) hash: String,
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    sender: http2::SendRequest<Body>,
    origin: Uri,
}

impl Connection {
    /// Speaks HTTP/2 over a stream of bytes.
    pub(super) async fn over<S>(stream: S, origin: Uri) -> Result<Connection, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| format!("HTTP/2: {error}"))?;
        // It ends with the last handle; why it broke, the calls say themselves.
        tokio::spawn(connection);
        Ok(Connection { sender, origin })
    }

    /// The generated client.
    pub(super) fn client(&self) -> ControlPlaneServiceClient<Connection> {
        let client = ControlPlaneServiceClient::with_origin(self.clone(), self.origin.clone());
        client.max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Opens a watch.
    pub(super) async fn watch(&self, token: &str) -> Result<Streaming<Pushed>, Status> {
        let mut grpc = Grpc::with_origin(self.clone(), self.origin.clone());
        grpc = grpc.max_decoding_message_size(MAX_MESSAGE_BYTES);
        let failed = |error: hyper::Error| Status::unavailable(error.to_string());
        grpc.ready().await.map_err(failed)?;
        let held = WatchAuthorizedNodesRequest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..WatchAuthorizedNodesRequest::default()
        };
        let codec = RequestCodec::<WatchAuthorizedNodesRequest, Pushed>::default();
        let path = PathAndQuery::from_static(WATCH);
        let answer = grpc.server_streaming(with_token(held, token)?, path, codec);
        let answer = timeout(ANSWER_TIMEOUT, answer).await;
        Ok(answer.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner())
    }

    /// What `/metrics` says, if it is open to this address.
    pub(super) async fn metrics(&self) -> Option<String> {
        let uri = format!("{}metrics", self.origin);
        let request = Request::builder().method(Method::GET).uri(uri).body(Body::empty()).ok()?;
        let mut sender = self.sender.clone();
        let page = timeout(ANSWER_TIMEOUT, async {
            let answer = sender.send_request(request).await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            Limited::new(answer.into_body(), MAX_METRICS_BYTES).collect().await.ok()
        });
        String::from_utf8(page.await.ok()??.to_bytes().to_vec()).ok()
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// A message with a token.
pub(super) fn with_token<T>(message: T, token: &str) -> Result<tonic::Request<T>, Status> {
    let value: Result<AsciiMetadataValue, _> = format!("Bearer {token}").parse();
    let value = value.map_err(|_| Status::internal("the server's token is no header"))?;
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use pulse_proto::v1::watch_authorized_nodes_response::Kind;
    use pulse_proto::v1::{AllowlistSnapshot, Bookmark, Node, WatchAuthorizedNodesResponse};

    #[test]
    fn of_a_message_the_hash_of_its_list_is_read() {
        let read = |kind| {
            let message = WatchAuthorizedNodesResponse { kind: Some(kind), server: None }.encode_to_vec();
            Pushed::decode(&*message).unwrap().snapshot.map(|list| list.hash)
        };
        let node = Node { name: "delly".to_owned(), ip: "192.168.0.5".to_owned() };
        let hash = "sha256:00".to_owned();
        let list = AllowlistSnapshot { hash: hash.clone(), nodes: vec![node; 3], ..Default::default() };
        assert_eq!(read(Kind::Snapshot(list)), Some(hash));
        assert_eq!(read(Kind::Bookmark(Bookmark { ..Default::default() })), None);
    }
}
