//! [`Refusal`]: an error of the API, with its status; and the framework's own errors in the same shape: `application/problem+json`.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::any;
use pulse_proto::reason;

use crate::api::{ApiError, MAX_REQUEST_BYTES, ROOT};
use crate::backup::BackupError;
use crate::changes::ChangeError;
use crate::store::StoreError;
use crate::tls::{TlsError, chain};

/// What an error's body is: RFC 9457.
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The longest text of an error, and the most of a framework's message that is passed on.
const MAX_TEXT_BYTES: usize = 4096;

/// Why a request is not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: Box<ApiError>,
    headers: HeaderMap,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: &str, mut detail: String) -> Refusal {
        // It may quote what was asked for, which may be as long as a request.
        detail.truncate(detail.floor_char_boundary(MAX_TEXT_BYTES));
        let error = Box::new(ApiError::new(status, reason, detail));
        Refusal { status, error, headers: HeaderMap::new() }
    }

    /// The same, about a field of the request.
    pub(super) fn of_field(mut self, field: impl Into<String>) -> Refusal {
        self.error.field = Some(field.into());
        self
    }

    /// The same, with a header.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Refusal {
        self.headers.insert(name, value);
        self
    }

    /// There is no such thing.
    pub(super) fn not_found(error: String) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", error)
    }

    /// Something that is there stands in the way.
    pub(super) fn conflict(reason: &str, error: String) -> Refusal {
        Refusal::new(StatusCode::CONFLICT, reason, error)
    }

    /// A revision at which no such list was made.
    pub(super) fn no_such_revision(field: &str, error: String) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "NO_SUCH_REVISION", error).of_field(field)
    }

    /// A field of the request breaks a rule.
    pub(super) fn invalid(field: impl Into<String>, error: String) -> Refusal {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason::INVALID_REQUEST, error).of_field(field)
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Refusal {
        let status = match &error {
            ChangeError::NotFound { .. } => StatusCode::NOT_FOUND,
            ChangeError::AlreadyThere(_)
            | ChangeError::NeedsYes { .. }
            | ChangeError::TooManyGone { .. }
            | ChangeError::NothingHeld(_)
            | ChangeError::HeldChanged(_)
            | ChangeError::NoSource(..)
            | ChangeError::NotActive(..)
            | ChangeError::NotApproved(_)
            | ChangeError::NoWindow
            | ChangeError::TooMany { .. } => StatusCode::CONFLICT,
            ChangeError::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ChangeError::Join { .. } => StatusCode::FORBIDDEN,
            ChangeError::Token(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ChangeError::Store(_) | ChangeError::Undecided | ChangeError::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        if let ChangeError::Store(source) = &error {
            log(source);
        }
        let refusal = Refusal::new(status, error.reason(), told(&error));
        match error {
            ChangeError::Invalid { field, .. } => refusal.of_field(field),
            _ => refusal,
        }
    }
}

/// A change's own text, and for the admin, who is on this machine, also why the database did not take it.
fn told(error: &ChangeError) -> String {
    match error {
        ChangeError::Store(StoreError::Database { source, .. }) => {
            format!("{error}: {source}; what is in force stays; mend that and ask again")
        }
        _ => error.to_string(),
    }
}

impl From<TlsError> for Refusal {
    fn from(error: TlsError) -> Refusal {
        let reason = match &error {
            TlsError::NoAuthority => "NO_AUTHORITY",
            TlsError::ExchangeUnderWay(_) => "EXCHANGE_UNDER_WAY",
            TlsError::NoExchange => "NO_EXCHANGE",
            _ => {
                tracing::error!(error = &error as &dyn std::error::Error, "the certificate was not changed");
                let text =
                    format!("{}; the certificate in use stays; mend that and ask again", chain(&error));
                return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_DONE", text);
            }
        };
        Refusal::conflict(reason, error.to_string())
    }
}

/// For what is read from the store; changes have their own text.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        log(&error);
        let text = format!("the store cannot be read: {error}; see the server's log, and ask again");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason::STORE_UNAVAILABLE, text)
    }
}

/// Who may ask for a backup is on this machine, and hears all of it.
impl From<BackupError> for Refusal {
    fn from(error: BackupError) -> Refusal {
        let (status, reason) = match &error {
            BackupError::InUse(_) => (StatusCode::CONFLICT, "BACKUP_UNDER_WAY"),
            BackupError::Store { error: StoreError::Unreadable(_) } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "DATABASE_DAMAGED")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "BACKUP_FAILED"),
        };
        tracing::warn!(%error, "no backup was made");
        Refusal::new(status, reason, format!("no backup was made: {error}"))
    }
}

/// The answer says what was tried; the log has the engine's own words too.
fn log(error: &StoreError) {
    tracing::warn!(error = error as &dyn std::error::Error, "the store did not do what the admin asked");
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, self.headers, [(CONTENT_TYPE, PROBLEM)], Json(self.error)).into_response()
    }
}

/// Makes problems of errors that the framework raises before a handler runs: no such path, a method that is not understood.
pub(super) fn with_problems(router: Router) -> Router {
    router.layer(from_fn(problems))
}

/// The same, and a problem too at every path that no router has: it is merged with others, whose own answer there is an empty one.
pub fn with_fallback(router: Router) -> Router {
    router.fallback_service(any(async || StatusCode::NOT_FOUND).layer(from_fn(problems)))
}

/// The layer of [`with_problems`].
pub(super) async fn problems(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(CONTENT_TYPE) == Some(&PROBLEM) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_TEXT_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let refusal = framework(status, &method, &path, &text);
    let body = serde_json::to_vec(&refusal.error).unwrap_or_default();
    parts.headers.insert(CONTENT_TYPE, PROBLEM);
    parts.headers.remove(CONTENT_LENGTH);
    // A HEAD request's answer has no body, whatever its status.
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(body) };
    Response::from_parts(parts, body)
}

fn framework(status: StatusCode, method: &Method, path: &str, text: &str) -> Refusal {
    let short: String = path.chars().take(120).collect();
    let (reason, error) = match status {
        StatusCode::NOT_FOUND => {
            ("NO_SUCH_PATH", format!("there is nothing at {short:?}; the admin API is below {ROOT}"))
        }
        StatusCode::METHOD_NOT_ALLOWED => (
            "METHOD_NOT_ALLOWED",
            format!("{method} is not understood at {short:?}; the header Allow says what is"),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (reason::INVALID_REQUEST, too_large()),
        status if status.is_server_error() => ("INTERNAL", format!("the request failed: {text}")),
        _ => (reason::INVALID_REQUEST, text.to_owned()),
    };
    Refusal::new(status, reason, error)
}

/// Said of a body that is.
pub(super) fn too_large() -> String {
    let most = pulse_config::show_bytes(MAX_REQUEST_BYTES as u64);
    format!("the body of a request has at most {most}; send less at a time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::DefaultBodyLimit;
    use axum::routing::{get, post};
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::super::extract::{Json, Path, Query};
    use crate::api::{AddInstance, OpenJoin, SetProxy};

    fn router() -> Router {
        let add = |Json(_): Json<AddInstance>| async {};
        let query = |Query(_): Query<SetProxy>| async {};
        let routes = Router::new()
            .route("/x", post(add).put(query))
            .route("/open", get(async |Query(_): Query<OpenJoin>| ()))
            .route("/of/{id}", get(async |Path(_): Path<String>| ()))
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES));
        with_problems(Router::new().nest(ROOT, routes))
    }

    async fn answer(method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        let response = router().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status();
        assert!(
            status == StatusCode::OK || response.headers()[CONTENT_TYPE] == PROBLEM,
            "{:?}",
            response.headers()
        );
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn every_error_of_the_framework_is_a_problem_with_a_way_out() {
        let large = format!("{{\"name\":\"{}\"}}", "x".repeat(MAX_REQUEST_BYTES));
        for (method, path, body, status, reason, text) in [
            ("GET", "/api/v2/x", "", 404, "NO_SUCH_PATH", "/api/v1"),
            ("GET", "/", "", 404, "NO_SUCH_PATH", "/api/v1"),
            ("GET", "/api/v1/x", "", 405, "METHOD_NOT_ALLOWED", "Allow"),
            ("POST", "/api/v1/x", "{", 400, "INVALID_REQUEST", "EOF"),
            ("POST", "/api/v1/x", r#"{"name":"a","node":1}"#, 422, "INVALID_REQUEST", "unknown field `node`"),
            (
                "POST",
                "/api/v1/x",
                r#"{"name":"a","endpoints":[{"ip":1}]}"#,
                422,
                "INVALID_REQUEST",
                "endpoints[0].ip",
            ),
            ("POST", "/api/v1/x", &large, 413, "INVALID_REQUEST", "256KiB"),
            ("PUT", "/api/v1/x?instances=home", "", 400, "INVALID_REQUEST", "unknown field"),
        ] {
            let (got, answer) = answer(method, path, body.to_owned()).await;
            assert_eq!(
                (got.as_u16(), answer["reason"].as_str()),
                (status, Some(reason)),
                "{method} {path}: {answer}"
            );
            assert!(answer["detail"].as_str().unwrap().contains(text), "{method} {path}: {answer}");
        }
        assert_eq!(answer("POST", "/api/v1/x", r#"{"name":"a"}"#).await, (StatusCode::OK, Value::Null));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_named() {
        for (method, path, body, field) in [
            ("POST", "/x", r#"{"name":"a","node":1}"#, Some("node")),
            ("POST", "/x", r#"{"endpoints":[]}"#, Some("name")),
            ("POST", "/x", r#"{"name":"a","name":"b"}"#, Some("name")),
            (
                "POST",
                "/x",
                r#"{"name":"a","endpoints":[{"name":"b"},{"ip":"c"}]}"#,
                Some("endpoints[1].name"),
            ),
            ("POST", "/x", r#"{"name":"a","pve":{"urls":["a",1]}}"#, Some("pve.urls[1]")),
            ("POST", "/x", r#"{"name":"a","pve":{"url":[]}}"#, Some("pve.url")),
            ("POST", "/x", "[1]", Some("[0]")),
            ("POST", "/x", "{", None),
            ("PUT", "/x?instances=home", "", Some("instances")),
            ("PUT", "/x?scope=everything", "", Some("scope")),
            ("GET", "/open?ttl_seconds=-1", "", Some("ttl_seconds")),
            ("GET", "/of/%ff", "", Some("id")),
        ] {
            let (_, problem) = answer(method, &format!("{ROOT}{path}"), body).await;
            assert_eq!(
                problem.get("field").and_then(Value::as_str),
                field,
                "{method} {path} {body}: {problem}"
            );
        }
    }

    #[tokio::test]
    async fn a_method_that_is_not_understood_keeps_the_header_that_names_those_that_are() {
        let response =
            router().oneshot(Request::get("/api/v1/x").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["allow"], "POST,PUT");
    }

    #[tokio::test]
    async fn a_body_of_another_type_is_refused_as_a_problem() {
        let request = Request::post("/api/v1/x").body(Body::from(r#"{"name":"a"}"#)).unwrap();
        let response = router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(answer["detail"].as_str().unwrap().contains("application/json"), "{answer}");
    }

    #[test]
    fn a_change_that_is_refused_keeps_its_reason_and_field() {
        let answer = |error: ChangeError| {
            let refusal = Refusal::from(error);
            (refusal.status.as_u16(), serde_json::to_value(refusal.error).unwrap())
        };
        let invalid = ChangeError::Invalid { field: "uses", rule: "1 to 10".to_owned() };
        let body = json!({
            "type": "urn:pulse:problem:invalid-request", "title": "Invalid request", "status": 422,
            "detail": "uses: 1 to 10", "reason": "INVALID_REQUEST", "field": "uses",
        });
        assert_eq!(answer(invalid), (422, body));
        for (error, status, reason) in [
            (ChangeError::NotFound { what: "instance", name: "a".to_owned() }, 404, "NOT_FOUND"),
            (ChangeError::AlreadyThere("a".to_owned()), 409, "ALREADY_THERE"),
            (ChangeError::NeedsYes { name: "a".to_owned(), proxies: 2 }, 409, "NEEDS_YES"),
            (ChangeError::Store(StoreError::Full), 503, "STORE_UNAVAILABLE"),
            (ChangeError::Stopping, 503, "DRAINING"),
        ] {
            let text = error.to_string();
            let (got, body) = answer(error);
            let told = (body["detail"].as_str(), body["reason"].as_str(), body.get("field"));
            assert_eq!((got, told), (status, (Some(text.as_str()), Some(reason), None)), "{body}");
        }
        assert_eq!(Refusal::from(StoreError::Closed).status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
