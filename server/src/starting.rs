//! What the port answers while the database is loaded: probes that the server is there and not ready, calls that they
//! come back.
//!
//! In: requests, and once the router for them. Out: their answers. Always: each is answered at once, so that nobody
//! hangs in the queue of a server that loads for long.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use pulse_proto::reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{ServiceExt, service_fn};

/// When to come back.
const RETRY: Duration = Duration::from_secs(1);

/// A router that answers for itself until it is given the real one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starting(Arc<OnceLock<Router>>);

impl Starting {
    /// The router to serve.
    pub(crate) fn router(&self) -> Router {
        let ready = Arc::clone(&self.0);
        Router::new().fallback_service(service_fn(move |request: Request<Body>| {
            let router = ready.get().cloned();
            async move {
                match router {
                    Some(router) => router.oneshot(request).await,
                    None => Ok::<_, Infallible>(answer(&request)),
                }
            }
        }))
    }

    /// Hands everything that comes from now on to `router`. Only the first one counts.
    pub(crate) fn ready(&self, router: Router) {
        // An error says that there was one before.
        let _ = self.0.set(router);
    }
}

fn answer(request: &Request<Body>) -> Response<Body> {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let mut details = ErrorDetails::with_error_info(reason::STARTING, reason::DOMAIN, []);
        details.set_retry_info(Some(RETRY));
        let text = "the server is starting: come back in a moment";
        return Status::with_error_details(Code::Unavailable, text, details).into_http();
    }
    if request.uri().path() == "/healthz" {
        return "ok\n".into_response();
    }
    let headers = [(CACHE_CONTROL, "no-store"), (RETRY_AFTER, "1")];
    let body = serde_json::json!({ "status": "starting" });
    (StatusCode::SERVICE_UNAVAILABLE, headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_told_to_come_back_until_there_is_somebody_to_answer_them() {
        let starting = Starting::default();
        let router = starting.router();
        let ask = async |path: &str, kind: &str| {
            let request = Request::post(path).header(CONTENT_TYPE, kind).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap()
        };
        assert_eq!(ask("/healthz", "").await.status(), StatusCode::OK);
        assert_eq!(ask("/readyz", "").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let refused = ask("/pulse.control.v1.ControlPlaneService/Register", "application/grpc").await;
        let status = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(RETRY));
        assert_eq!(status.get_details_error_info().unwrap().reason, reason::STARTING);

        starting.ready(Router::new().route("/readyz", axum::routing::post(async || "ready")));
        assert_eq!(ask("/readyz", "").await.status(), StatusCode::OK);
        assert_eq!(ask("/healthz", "").await.status(), StatusCode::NOT_FOUND);
    }
}
