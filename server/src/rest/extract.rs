//! [`Json`], [`Query`], [`Path`]: what a request brings, as axum takes it apart, with this API's refusals.
//!
//! Always: what does not fit is refused with the name of the field where one is known: `endpoints[0].ip`.

use std::error::Error;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use pulse_proto::{reason, text};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::refusal::{Refusal, too_large};

/// A body of JSON: of a request, or of an answer.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// What stands behind the question mark.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

/// What stands in the path's places.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Json<T>, Refusal> {
        match extract::Json::from_request(request, state).await {
            Ok(extract::Json(value)) => Ok(Json(value)),
            Err(rejection) => Err(refused_body(&rejection)),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        extract::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Refusal> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(value)) => Ok(Query(value)),
            Err(rejection) => Err(refused_query(&rejection)),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Refusal> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(value)) => Ok(Path(value)),
            Err(rejection) => Err(refused_path(&rejection)),
        }
    }
}

fn refused_body(rejection: &JsonRejection) -> Refusal {
    let field = match rejection {
        JsonRejection::JsonDataError(error) => field::<serde_json::Error>(error),
        _ => None,
    };
    refusal(rejection.status(), field, rejection.body_text())
}

fn refused_query(rejection: &QueryRejection) -> Refusal {
    let field = match rejection {
        QueryRejection::FailedToDeserializeQueryString(error) => field::<serde::de::value::Error>(error),
        _ => None,
    };
    refusal(rejection.status(), field, rejection.body_text())
}

fn refused_path(rejection: &PathRejection) -> Refusal {
    let field = match rejection {
        PathRejection::FailedToDeserializePathParams(error) => match error.kind() {
            ErrorKind::ParseErrorAtKey { key, .. }
            | ErrorKind::InvalidUtf8InPathParam { key }
            | ErrorKind::DeserializeError { key, .. } => Some(key.clone()),
            _ => None,
        },
        _ => None,
    };
    refusal(rejection.status(), field, rejection.body_text())
}

/// Which field it is that does not fit. serde has a path where a value is wrong; where a key is, it says so in words.
fn field<E: Error + 'static>(rejection: &(dyn Error + 'static)) -> Option<String> {
    let mut chain =
        std::iter::successors(Some(rejection), |error: &&(dyn Error + 'static)| (*error).source());
    let found = chain.find_map(|error| error.downcast_ref::<serde_path_to_error::Error<E>>())?;
    let (path, text) = (found.path().to_string(), found.inner().to_string());
    let quoted = |begin: &str| text.strip_prefix(begin)?.split('`').next().map(str::to_owned);
    let key = quoted("missing field `").or_else(|| quoted("duplicate field `"));
    match (path.as_str(), key.or_else(|| quoted("unknown field `"))) {
        (".", key) => key,
        // The path of a key that is unknown or there twice has it already.
        (path, Some(key)) if text.starts_with("missing") => Some(format!("{path}.{key}")),
        (path, _) => Some(path.to_owned()),
    }
}

fn refusal(status: StatusCode, field: Option<String>, said: String) -> Refusal {
    let said = if status == StatusCode::PAYLOAD_TOO_LARGE { too_large() } else { said };
    // Both may quote a key that somebody made up.
    let refusal = Refusal::new(status, reason::INVALID_REQUEST, text::one_line(&said));
    match field {
        Some(field) => refusal.of_field(text::one_line(&field)),
        None => refusal,
    }
}
