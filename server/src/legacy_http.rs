//! The port of older proxies that know no TLS: their own paths in plain text, and nothing else.
//!
//! In: the routes of older proxies and installers. Out: those, counted, and for all else where it is to be found.
//! Always: said loudly, in the log and in `pulse status`, since whoever can read the traffic has the tokens in it.
//! Never: on unless the configuration asks for it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::listen::Bounds;
use crate::metrics::Metrics;

/// Connections at one time: who asks once a minute, and closes, has none for most of the time.
const CONNECTIONS: usize = 1_024;

/// The routes of the port. `place` is where the port with TLS is found, as `HOST:PORT`.
pub(crate) fn router(older: Router, metrics: Arc<Metrics>, place: String) -> Router {
    let elsewhere = async move || {
        let text = format!(
            "this port serves /api/temperature-proxy/ and /api/install/ in plain text, for older proxies, and nothing else: all that \
             Pulse has is at https://{place}\n"
        );
        (StatusCode::NOT_FOUND, text)
    };
    Router::new().merge(older).fallback(elsewhere).layer(middleware::from_fn_with_state(metrics, count))
}

async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    metrics.legacy_http_requests.inc();
    next.run(request).await
}

/// The bounds of both ports: what this one may take is taken off the other.
pub(crate) fn share(bounds: &mut Bounds) -> Bounds {
    let connections = CONNECTIONS.min(bounds.connections / 2).max(1);
    bounds.connections -= connections.min(bounds.connections.saturating_sub(1));
    let connections_per_address = bounds.connections_per_address.min(connections);
    Bounds { connections, connections_per_address, ..bounds.clone() }
}

/// Says in the log what it means.
pub(crate) fn warn(address: SocketAddr) {
    tracing::warn!(
        %address,
        "older proxies are served in plain text (legacy_http): whoever can read the traffic has their tokens; turn it off when the \
         last of them is gone"
    );
}
