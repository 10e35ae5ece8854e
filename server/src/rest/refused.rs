//! What a known caller asked for and did not get: noted in the audit log.
//!
//! In: a request and its answer. Out: a word to [`Refusals`]. Always: who, from where, what (method and path without what the
//! caller put into it) and why. Never: holds up the answer, or notes a question that merely found nothing.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use serde::Deserialize;

use super::access::Caller;
use crate::api::ROOT;
use crate::refusals::Refusals;

/// The longest body of a refusal that is looked into for its reason: a longer one is none.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The longest reason that is noted as it is.
const MAX_REASON_BYTES: usize = 64;

/// Notes what these routes refuse. Whoever asks must be known by then.
pub(super) fn noted<S: Clone + Send + Sync + 'static>(routes: Router<S>, refusals: Refusals) -> Router<S> {
    routes.layer(from_fn_with_state(refusals, note))
}

async fn note(State(refusals): State<Refusals>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &()).await.ok();
    let path = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = parts.method.clone();
    let response = next.run(Request::from_parts(parts, body)).await;
    let (Some(caller), true) = (caller, is_noted(&method, response.status())) else { return response };
    let (reason, response) = reason_of(response).await;
    let path = path.unwrap_or_default();
    let call = format!("{method} {}", path.strip_prefix(ROOT).unwrap_or(&path));
    refusals.note_known(reason, &caller.actor(), call);
    response
}

/// Whether it is a refusal that matters: of a change, or for lack of permission.
fn is_noted(method: &Method, status: StatusCode) -> bool {
    let is_question = method == Method::GET || method == Method::HEAD || method == Method::OPTIONS;
    match is_question {
        true => status == StatusCode::FORBIDDEN,
        false => status.is_client_error() || status.is_server_error(),
    }
}

/// The reason that an answer gives, and the answer.
async fn reason_of(response: Response) -> (String, Response) {
    #[derive(Deserialize)]
    struct Given {
        reason: String,
    }

    let (parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return (by_status(parts.status), Response::from_parts(parts, Body::empty()));
    };
    let given = |body: &Bytes| serde_json::from_slice::<Given>(body).ok().map(|given| given.reason);
    let fits = |reason: &String| {
        reason.len() <= MAX_REASON_BYTES
            && reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let reason = given(&body).filter(fits).unwrap_or_else(|| by_status(parts.status));
    (reason, Response::from_parts(parts, Body::from(body)))
}

/// For what the framework refused, before a handler had it.
fn by_status(status: StatusCode) -> String {
    format!("HTTP_{}", status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_are_refused_are_noted_and_questions_only_for_lack_of_permission() {
        let noted = |method: &Method, status: u16| is_noted(method, StatusCode::from_u16(status).unwrap());
        for status in [401, 403, 404, 409, 422, 503] {
            assert!(noted(&Method::POST, status) && noted(&Method::DELETE, status), "{status}");
            assert_eq!(noted(&Method::GET, status), status == 403, "{status}");
        }
        assert!(!noted(&Method::POST, 200) && !noted(&Method::PUT, 204));
    }

    #[tokio::test]
    async fn an_answer_whose_reason_was_looked_for_is_the_same() {
        let with = |body: &'static str| {
            Response::builder().status(409).header("x-a", "1").body(Body::from(body)).unwrap()
        };
        for (body, reason) in
            [(r#"{"error":"a","reason":"NEEDS_YES"}"#, "NEEDS_YES"), ("no JSON", "HTTP_409")]
        {
            let (found, response) = reason_of(with(body)).await;
            assert_eq!((found.as_str(), response.status().as_u16()), (reason, 409));
            assert_eq!(response.headers()["x-a"], "1");
            assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), body);
        }
    }
}
