//! Answers of the older paths: the one place that turns a gRPC status into an HTTP status and a code.
//!
//! Always: an error says what happened and what to do, in the four keys that older proxies and installers know:
//! `error`, `code`, `status_code`, `timestamp`; `details` beside them where a field is wrong.

use std::time::Duration;

use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pulse_proto::{Clock, reason};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::time;

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    code: String,
    error: String,
    field: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &str, error: impl Into<String>) -> Refused {
        let (code, error) = (code.to_owned(), error.into());
        Refused { status, code, error, field: None, retry_after: None, allow: None }
    }

    /// Something that the caller wrote is wrong.
    pub(super) fn bad(code: &str, error: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, code, error)
    }

    pub(super) fn not_found(error: &str) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, "not_found", error)
    }

    /// The path takes another method.
    pub(super) fn method(allow: &'static str) -> Refused {
        let refused = Refused::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("this path takes {allow} only"),
        );
        Refused { allow: Some(allow), ..refused }
    }

    /// The request is that of a page.
    pub(super) fn browser() -> Refused {
        let text = "this path is for proxies and installers, and answers no page of a browser";
        Refused::new(StatusCode::FORBIDDEN, "browser_refused", text)
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        let details = status.get_error_details();
        let said = details.error_info().map(|info| info.reason.as_str());
        let (http, otherwise) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "invalid_request"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "invalid_token"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "forbidden"),
            Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => {
                (StatusCode::CONFLICT, "conflict")
            }
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        };
        let code = match said {
            Some(reason::UNKNOWN_TOKEN) => "invalid_token".to_owned(),
            Some(reason) => reason.to_ascii_lowercase(),
            None => otherwise.to_owned(),
        };
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice());
        let field = violations.and_then(|all| all.first()).map(|violation| violation.field.clone());
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let error = status.message().to_owned();
        Refused { status: http, code, error, field, retry_after, allow: None }
    }
}

/// The body of an error, as older clients know it.
#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: &'a str,
    status_code: u16,
    timestamp: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
}

#[derive(Serialize)]
struct Details<'a> {
    field: &'a str,
}

/// An answer, or the error that takes its place.
pub(super) fn of(clock: &Clock, answer: Result<Response, Refused>) -> Response {
    let refused = match answer {
        Ok(answer) => return answer,
        Err(refused) => refused,
    };
    let mut response = json(
        refused.status,
        &Body {
            error: &refused.error,
            code: &refused.code,
            status_code: refused.status.as_u16(),
            timestamp: time(clock.now()),
            details: refused.field.as_deref().map(|field| Details { field }),
        },
    );
    let headers = response.headers_mut();
    if let Some(wait) = refused.retry_after {
        // Whole seconds, and never too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, seconds.max(1).into());
    }
    if let Some(allow) = refused.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if refused.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Compact JSON, which nobody keeps a copy of on its way.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    match serde_json::to_string(body) {
        Ok(text) => (status, headers, text).into_response(),
        // Nothing that is answered here has a key that is no text.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::rpc::status::{invalid, refusal, retry};

    async fn shown(refused: Refused) -> (u16, String, Response) {
        let clock = Clock::driven(|| SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_632_800_500));
        let (head, body) = of(&clock, Err(refused)).into_parts();
        let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        let response = Response::from_parts(head, axum::body::Body::empty());
        (response.status().as_u16(), String::from_utf8(body.to_vec()).unwrap(), response)
    }

    #[tokio::test]
    async fn a_status_becomes_a_code_that_older_clients_know() {
        for (status, http, code) in [
            (refusal(Code::Unauthenticated, reason::MISSING_TOKEN, "x"), 401, "missing_token"),
            (refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, "x"), 401, "invalid_token"),
            (refusal(Code::Unauthenticated, reason::JOIN_TOKEN_EXPIRED, "x"), 401, "join_token_expired"),
            (refusal(Code::PermissionDenied, reason::PROXY_REVOKED, "x"), 403, "proxy_revoked"),
            (
                retry(Code::Unavailable, reason::STORE_UNAVAILABLE, "x", Duration::ZERO),
                503,
                "store_unavailable",
            ),
            (Status::internal("x"), 500, "internal_error"),
        ] {
            let (got, body, _) = shown(status.into()).await;
            let expected = format!(
                r#"{{"error":"x","code":"{code}","status_code":{http},"timestamp":"2025-11-20T10:00:00.5Z"}}"#
            );
            assert_eq!((got, body), (http, expected));
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_and_when_to_come_back_too() {
        let (status, body, _) = shown(invalid("hostname", "it is too long").into()).await;
        assert_eq!(status, 400);
        assert!(body.ends_with(r#""details":{"field":"hostname"}}"#), "{body}");
        assert!(!body.contains("\": "), "{body}");
        let wait = Duration::from_millis(4_001);
        let limited = retry(Code::ResourceExhausted, reason::RATE_LIMITED, "x", wait);
        let (status, _, response) = shown(limited.into()).await;
        assert_eq!((status, &response.headers()[RETRY_AFTER]), (429, &HeaderValue::from_static("5")));
        let (status, _, response) = shown(Refused::method("GET")).await;
        assert_eq!((status, &response.headers()[ALLOW]), (405, &HeaderValue::from_static("GET")));
    }
}
