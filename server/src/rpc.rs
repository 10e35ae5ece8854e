//! The tonic service: `pulse.control.v1.ControlPlaneService`, with reflection and health beside it.
//!
//! In: calls of proxies. Out: what [`Changes`], [`Lists`], [`Fleet`] and [`Readings`] answer.
//! Always: authentication comes first, as a layer; methods only translate. Never: keeps state of its own.

mod ahead;
mod auth;
mod edge;
mod headers;
mod limited;
mod open_streams;
mod register;
mod report;
mod status;
mod sync;
mod watch;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware;
use axum::response::IntoResponse;
use pulse_proto::encoded::Encoded;
use pulse_proto::signature::{PinsStatement, SigningKey};
use pulse_proto::v1::{self, control_plane_service_server as server};
use pulse_proto::{Chance, Clock, Pin as KeyPin};
use tokio_stream::Stream;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::{self, health_server::HealthServer};
use tower::Service;

use crate::changes::Changes;
use crate::fleet::Fleet;
use crate::limits::CallLimits;
use crate::metrics::Metrics;
use crate::publish::Lists;
use crate::readings::Readings;
use crate::refusals::Refusals;
use crate::shutdown::Drain;
use crate::store::Store;
use crate::tls::Tls;

/// The path below which the service's methods are.
const SERVICE_PATH: &str = "/pulse.control.v1.ControlPlaneService";

/// What the service works with. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// Changes of the fleet, and its present picture.
    pub changes: Changes,
    /// The newest lists.
    pub lists: Lists,
    /// What proxies hold and say.
    pub fleet: Fleet,
    /// Temperatures.
    pub readings: Readings,
    /// History of lists.
    pub store: Store,
    /// Where refused calls are told.
    pub refusals: Refusals,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Begins when the server goes down.
    pub drain: Drain,
    /// The key that signs lists, and the pins that proxies are told.
    pub signing_key: Arc<SigningKey>,
    /// The server's certificate; `None` in plain text.
    pub tls: Option<Arc<Tls>>,
    /// How long a proxy may hear nothing before it is a third of the way to stale.
    pub refresh_interval: Duration,
    /// The most nodes and readings that a report may have.
    pub max_readings_per_report: usize,
    /// Numbers the slots that streams get when the server goes down.
    pub goodbyes: Arc<AtomicU64>,
    /// How much callers may ask for.
    pub limits: Arc<CallLimits>,
    /// The time of day.
    pub clock: Clock,
    /// What spreads bookmarks.
    pub chance: Chance,
}

impl Rpc {
    /// The service behind its authentication, with health and reflection, as routes.
    ///
    /// `max_request_bytes` bounds each message that comes in.
    pub fn router<H: pb::health_server::Health>(
        self,
        max_request_bytes: usize,
        health: HealthServer<H>,
    ) -> Router {
        let service = server::ControlPlaneServiceServer::new(self.clone())
            .max_decoding_message_size(max_request_bytes)
            .max_encoding_message_size(pulse_proto::MAX_MESSAGE_BYTES);
        let service = auth::Authenticated::new(self.clone(), service);
        let bound = middleware::from_fn_with_state(self, open_streams::bound);
        let open = route(
            route(Router::new(), health),
            reflection().build_v1().expect("the build made the descriptors"),
        );
        // Python's client knows only v1alpha.
        let open = route(open, reflection().build_v1alpha().expect("the build made the descriptors"));
        route(Router::new(), service).merge(open.layer(bound))
    }

    /// What this server is, as proxies need to know it.
    fn server_info(&self) -> v1::ServerInfo {
        let server_id = self.changes.catalog().server_id.to_string();
        let key = self.signing_key.public();
        let ca_pins: Vec<String> = self.pins().iter().map(ToString::to_string).collect();
        let statement = PinsStatement { server_id: &server_id, pins: &ca_pins };
        let (ca_pins_signature, ca_pins_key_id) = match ca_pins.is_empty() {
            true => (Vec::new(), String::new()),
            false => (self.signing_key.sign_pins(&statement), key.key_id()),
        };
        v1::ServerInfo {
            server_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            refresh_interval: self.refresh_interval.try_into().ok(),
            signing_keys: vec![v1::SigningKey {
                key_id: key.key_id(),
                public_key: key.as_bytes().to_vec(),
                announcement_signature: Vec::new(),
                announced_by: String::new(),
            }],
            ca_pins,
            ca_pins_signature,
            ca_pins_key_id,
        }
    }

    /// The pins to which the server's certificate leads; none with an admin's own, or in plain text.
    fn pins(&self) -> Arc<Vec<KeyPin>> {
        self.tls.as_ref().map(|tls| tls.pins()).unwrap_or_default()
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pulse_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        // With these grpcurl shows the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Adds the methods of one gRPC service. A path beside them is the caller's own business: tonic's router would answer
/// every path of the port.
fn route<S>(router: Router, service: S) -> Router
where
    S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

type WatchStream =
    Pin<Box<dyn Stream<Item = Result<Encoded<v1::WatchAuthorizedNodesResponse>, Status>> + Send>>;

#[tonic::async_trait]
impl server::ControlPlaneService for Rpc {
    type WatchAuthorizedNodesStream = WatchStream;

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let peer = limited::peer_of(request.extensions());
        let registered = register::register(self, request).await;
        registered.map(Response::new).map_err(|status| limited::failed(self, peer, status))
    }

    async fn watch_authorized_nodes(
        &self,
        request: Request<v1::WatchAuthorizedNodesRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        watch::watch(self, request).map(Response::new)
    }

    async fn report_sync(
        &self,
        request: Request<v1::ReportSyncRequest>,
    ) -> Result<Response<v1::ReportSyncResponse>, Status> {
        sync::report_sync(self, request).map(Response::new)
    }

    async fn report_temperatures(
        &self,
        request: Request<v1::ReportTemperaturesRequest>,
    ) -> Result<Response<v1::ReportTemperaturesResponse>, Status> {
        report::report_temperatures(self, request).await.map(Response::new)
    }

    async fn rotate_token(
        &self,
        request: Request<v1::RotateTokenRequest>,
    ) -> Result<Response<v1::RotateTokenResponse>, Status> {
        register::rotate_token(self, request).await.map(Response::new)
    }

    async fn unregister(
        &self,
        request: Request<v1::UnregisterRequest>,
    ) -> Result<Response<v1::UnregisterResponse>, Status> {
        register::unregister(self, request).await.map(Response::new)
    }
}
