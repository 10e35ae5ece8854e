//! The pages of the server: where an admin sets a password and logs in.
//!
//! In: requests of browsers. Out: files that are part of the program.
//! Always: a page loads nothing but what this server serves, and stands in no other page. Never: asks the server anything; the page
//! does, over the API.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;

/// What a page may load: scripts and styles of this server, no inline ones; and whom it may ask: this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages.
pub fn router() -> Router {
    let page = || get(async || file("text/html; charset=utf-8", include_str!("../ui/sign_in/page.html")));
    Router::new()
        .route("/", page())
        .route("/set-up", page())
        .route("/log-in", page())
        .route(
            "/sign-in/page.js",
            get(async || file("text/javascript; charset=utf-8", include_str!("../ui/sign_in/page.js"))),
        )
        .route(
            "/sign-in/page.css",
            get(async || file("text/css; charset=utf-8", include_str!("../ui/sign_in/page.css"))),
        )
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A newer version of the program has newer files under the same names.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
