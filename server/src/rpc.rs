//! The tonic service: `pulse.control.v1.ControlPlaneService`, with reflection and health beside it.
//!
//! In: calls of proxies. Out: what [`Changes`], [`Lists`], [`Fleet`] and [`Readings`] answer.
//! Always: authentication comes first, as a layer; methods only translate. Never: keeps state of its own.

mod ahead;
mod auth;
mod edge;
mod headers;
mod introduction;
mod limited;
mod older;
mod open_streams;
mod register;
mod report;
mod status;
mod sync;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware;
use axum::response::IntoResponse;
use pulse_proto::signature::SigningKey;
use pulse_proto::v1::{self, control_plane_service_server as server};
use pulse_proto::{Chance, Clock, Pin};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::{self, health_server::HealthServer};
use tower::Service;

use crate::accounts::uses::Uses;
use crate::changes::Changes;
use crate::fleet::Fleet;
use crate::limits::CallLimits;
use crate::metrics::Metrics;
use crate::publish::Lists;
use crate::readings::Readings;
use crate::refusals::Refusals;
use crate::replicas::Replicas;
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
    /// The other servers on the database.
    pub replicas: Replicas,
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
    /// When API tokens were used last.
    pub uses: Uses,
    /// The time of day.
    pub clock: Clock,
    /// What spreads bookmarks.
    pub chance: Chance,
    /// What streams are told of this server.
    pub introduction: Arc<introduction::Present>,
    /// The pins of a server that has none.
    pub no_pins: Arc<Vec<Pin>>,
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
        let rpc = Arc::new(self);
        let service = server::ControlPlaneServiceServer::new(Methods(Arc::clone(&rpc)))
            .max_decoding_message_size(max_request_bytes)
            .max_encoding_message_size(pulse_proto::MAX_MESSAGE_BYTES);
        let service = auth::Authenticated::new(Arc::clone(&rpc), service);
        let bound = middleware::from_fn_with_state(rpc, open_streams::bound);
        let open = route(
            route(Router::new(), health),
            reflection().build_v1().expect("the build made the descriptors"),
        );
        // Python's client knows only v1alpha.
        let open = route(open, reflection().build_v1alpha().expect("the build made the descriptors"));
        route(Router::new(), service).merge(open.layer(bound))
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

/// The methods of the service.
struct Methods(Arc<Rpc>);

#[tonic::async_trait]
impl server::ControlPlaneService for Methods {
    type WatchAuthorizedNodesStream = watch::WatchStream;

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let peer = limited::peer_of(request.extensions());
        let registered = register::register(&self.0, request).await;
        registered.map(Response::new).map_err(|status| limited::failed(&self.0, peer, status))
    }

    async fn watch_authorized_nodes(
        &self,
        request: Request<v1::WatchAuthorizedNodesRequest>,
    ) -> Result<Response<watch::WatchStream>, Status> {
        watch::watch(&self.0, request).await
    }

    async fn report_sync(
        &self,
        request: Request<v1::ReportSyncRequest>,
    ) -> Result<Response<v1::ReportSyncResponse>, Status> {
        sync::report_sync(&self.0, request).await.map(Response::new)
    }

    async fn report_temperatures(
        &self,
        request: Request<v1::ReportTemperaturesRequest>,
    ) -> Result<Response<v1::ReportTemperaturesResponse>, Status> {
        report::report_temperatures(&self.0, request).await.map(Response::new)
    }

    async fn rotate_token(
        &self,
        request: Request<v1::RotateTokenRequest>,
    ) -> Result<Response<v1::RotateTokenResponse>, Status> {
        register::rotate_token(&self.0, request).await.map(Response::new)
    }

    async fn unregister(
        &self,
        request: Request<v1::UnregisterRequest>,
    ) -> Result<Response<v1::UnregisterResponse>, Status> {
        register::unregister(&self.0, request).await.map(Response::new)
    }
}
