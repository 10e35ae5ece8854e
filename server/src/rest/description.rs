//! What the admin API is, as OpenAPI: read off the routes, with what all of them share.
//!
//! In: what handlers say of themselves. Out: the description, and `/api/v1/openapi.json`, which serves it.
//! Always: open to all, on either way in: it tells what every server of this version tells. `docs/openapi.json` is the same.
//! Never: says who asks, or asks the running server anything.

mod answers;
mod errors;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{InfoBuilder, License, OpenApi, Server};
use utoipa_axum::router::OpenApiRouter;

use super::refusal::problems;
use super::routes::paths;
use super::viewer;
use crate::api::ROOT;

const ABOUT: &str = "Instances, nodes, proxies, join tokens, allowlists, temperatures, the audit log and the status of a Pulse server: \
    one API for its UI, its command line and other programs.\n\n\
    Times are RFC 3339 in UTC, durations end in `_seconds`, temperatures in `_celsius`; what is not known is `null`. A request with an \
    unknown key is refused; an answer may grow new keys. Errors are `application/problem+json`: `reason` is for programs, `detail` says \
    what to do, `field` names what is wrong in the request. On the server's Unix socket everything may be asked; over the network what \
    `security` says.";

/// What operations are about.
const TAGS: [(&str, &str); 12] = [
    ("instances", "Proxmox instances, the sources of their nodes, and changes that wait for an admin."),
    ("nodes", "Hosts whose temperatures can be read."),
    ("proxies", "Programs that read temperatures on hosts."),
    ("join-tokens", "How further proxies come."),
    ("allowlists", "Which nodes proxies may read: now, before, and what changed."),
    ("temperatures", "What proxies read last."),
    ("events", "The live feed."),
    ("accounts", "Admins, log-ins and API tokens."),
    ("audit", "Who did what."),
    ("import", "What older installs have."),
    ("server", "The server itself: its status, keys and backups."),
    ("description", "This description."),
];

/// The text that is served: the one that is checked in, which a test holds to the routes. Made at the start it would take memory for ever.
const SERVED: &str = include_str!("../../../docs/openapi.json");

/// What is open to all, on both ways in: the description, and its viewer.
pub fn router() -> Router {
    Router::from(own_paths()).merge(viewer::router()).route_layer(middleware::from_fn(problems))
}

fn own_paths() -> OpenApiRouter {
    OpenApiRouter::default().routes(utoipa_axum::routes!(show))
}

/// Shows this description.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "show_description",
    tag = "description",
    security(()),
    responses((status = OK, description = "OpenAPI 3.1.", body = serde_json::Value)),
)]
async fn show() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], SERVED).into_response()
}

/// The description as text, each key on a line of its own.
pub fn json() -> String {
    let mut text = description().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The description.
pub fn description() -> OpenApi {
    let mut api = OpenApiRouter::default().nest(ROOT, paths()).into_openapi();
    api.merge(own_paths().into_openapi());
    let license = License::new("MIT");
    api.info = InfoBuilder::new()
        .title("Pulse")
        .description(Some(ABOUT))
        .version(env!("CARGO_PKG_VERSION"))
        .license(Some(license))
        .build();
    api.servers = Some(vec![Server::new("/")]);
    let tag = |(name, text): (&str, &str)| TagBuilder::new().name(name).description(Some(text)).build();
    api.tags = Some(TAGS.map(tag).to_vec());
    let components = api.components.get_or_insert_default();
    errors::define(components);
    for (name, scheme) in security_schemes() {
        components.add_security_scheme(name, scheme);
    }
    for item in api.paths.paths.values_mut() {
        let by_method = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, operation) in by_method {
            if let Some(operation) = operation {
                errors::add(&method, operation);
            }
        }
    }
    answers::require_all_keys(&mut api);
    api
}

fn security_schemes() -> [(&'static str, SecurityScheme); 3] {
    let token = "An API token, `papi_…`, made with `pulse token create`; each operation names the scope that it takes.";
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(token)).build();
    let session = "An admin who logged in.";
    let session = ApiKeyValue::with_description("__Host-pulse_session", session);
    let socket = "Only on the server's Unix socket, where the kernel says who asks: root, or the server's own user. This name stands in no header.";
    let socket = ApiKeyValue::with_description("unix-socket-peer", socket);
    [
        ("api_token", SecurityScheme::Http(token)),
        ("session", SecurityScheme::ApiKey(ApiKey::Cookie(session))),
        ("socket", SecurityScheme::ApiKey(ApiKey::Header(socket))),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::routes::operations;
    use super::*;

    #[test]
    fn the_description_that_is_checked_in_is_the_one_that_is_served() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&file, json()).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            kept == json(),
            "docs/openapi.json is another description than the routes'; write it anew: UPDATE_OPENAPI=1 cargo test -p pulse --lib description"
        );
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let api = description();
        let all = api.paths.paths.values().flat_map(operations);
        let mut names: Vec<_> = all.filter_map(|(_, operation)| operation.operation_id.clone()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
