//! `/api/docs/`: Swagger UI, which shows the description to people.
//!
//! In: its files, which are in the program. Out: a page that asks for `/api/v1/openapi.json` and, if told to, for what stands in it.
//! Always: open to all, since it holds nothing of the fleet; its page loads nothing from anywhere else.
//! Never: fetches anything, or lets another page frame it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa_swagger_ui::Config;

use crate::api::ROOT;

/// What the page may do: run and load what this server has, and ask this server. Its pictures stand in its style sheet.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);

/// The viewer's paths.
pub(super) fn router() -> Router {
    // Without the bar in which another description could be named, and without an outside service that judges this one.
    let config = Config::from(format!("{ROOT}/openapi.json"));
    let config = config.use_base_layout().validator_url("none").with_syntax_highlight(false);
    Router::new()
        .route("/api/docs", get(async || Redirect::permanent("/api/docs/")))
        .route("/api/docs/", get(async |state| file(state, Path("index.html".to_owned())).await))
        .route("/api/docs/{file}", get(file))
        .with_state(Arc::new(config))
}

async fn file(State(config): State<Arc<Config<'static>>>, Path(name): Path<String>) -> Response {
    match utoipa_swagger_ui::serve(&name, config) {
        Ok(Some(file)) => {
            let mut headers = HeaderMap::new();
            let content_type = HeaderValue::from_str(&file.content_type);
            headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("text/plain")));
            if file.gzpipped {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            headers.insert(CONTENT_SECURITY_POLICY, POLICY);
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
            (headers, file.bytes).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::error!(error = &*error as &dyn std::error::Error, "a file of the viewer cannot be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
