//! What the admin API is, as OpenAPI: read off the routes, with what all of them share.
//!
//! In: what handlers say of themselves. Out: the description, and `/api/v1/openapi.json`, which serves it.
//! Always: open to all, on either way in: it tells what every server of this version tells. `docs/openapi.json` is the same.
//! Never: says who asks, or asks the running server anything.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use bytes::Bytes;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ContentBuilder, InfoBuilder, License, OpenApi, Ref, ResponseBuilder, Server};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::refusal::problems;
use super::routes::paths;
use crate::api::{ApiError, ROOT};

const ABOUT: &str = "Instances, nodes, proxies, join tokens, allowlists, temperatures, the audit log and the status of a Pulse server: \
    one API for its UI, its command line and other programs.\n\n\
    Times are RFC 3339 in UTC, durations end in `_seconds`, temperatures in `_celsius`; what is not known is `null`. A request with an \
    unknown key is refused; an answer may grow new keys. Errors are `application/problem+json`: `reason` is for programs, `detail` says \
    what to do, `field` names what is wrong in the request. On the server's Unix socket everything may be asked; over the network what \
    `security` says.";

/// What operations are about.
const TAGS: [(&str, &str); 11] = [
    ("instances", "Proxmox instances, the sources of their nodes, and changes that wait for an admin."),
    ("nodes", "Hosts whose temperatures can be read."),
    ("proxies", "Programs that read temperatures on hosts."),
    ("join tokens", "How further proxies come."),
    ("allowlists", "Which nodes proxies may read: now, before, and what changed."),
    ("temperatures", "What proxies read last."),
    ("accounts", "Admins, log-ins and API tokens."),
    ("audit", "Who did what."),
    ("import", "What older installs have."),
    ("server", "The server itself: its status, keys and backups."),
    ("description", "This description."),
];

/// The text that is served.
#[derive(Clone)]
struct Served(Bytes);

/// The description as it is served, on both ways in.
pub fn router() -> Router {
    Router::from(own_paths())
        .route_layer(middleware::from_fn(problems))
        .with_state(Served(Bytes::from(json())))
}

fn own_paths() -> OpenApiRouter<Served> {
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
async fn show(State(Served(description)): State<Served>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], description).into_response()
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
    components.schemas.insert(ApiError::name().into_owned(), ApiError::schema());
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
                add_errors(&method, operation);
            }
        }
    }
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

/// Adds the errors that an operation may be answered with: which follows from what it takes.
fn add_errors(method: &Method, operation: &mut Operation) {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let has_body = operation.request_body.is_some();
    let has_input = has_body || !parameters.is_empty();
    let is_open = operation.security.as_ref().is_some_and(|ways| ways == &[Default::default()]);
    let changes = *method != Method::GET;
    let errors = [
        (400, "The request cannot be read: its path, its query, or a body that is no JSON.", has_input),
        (401, "Nobody is known to have asked: log in, or send an API token.", !is_open),
        (403, "Whoever asked may not.", !is_open),
        (404, "There is no such thing.", has_input),
        (409, "Something that is there stands in the way; `reason` says what.", changes),
        (413, "The body is too large.", has_body),
        (415, "The body is not `application/json`.", has_body),
        (422, "A field breaks a rule, and `field` names it.", has_input),
        (429, "Too many requests; `Retry-After` says when to come back.", !is_open),
        (503, "The server cannot at the moment: it goes down, or its database does not answer.", !is_open),
    ];
    for (status, text, _) in errors.into_iter().filter(|(.., applies)| *applies) {
        let schema = Ref::from_schema_name(ApiError::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new().description(text).content("application/problem+json", content);
        let status = status.to_string();
        operation.responses.responses.entry(status).or_insert_with(|| response.build().into());
    }
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
            tempfile::NamedTempFile::new_in(file.parent().unwrap())
                .and_then(|mut new| {
                    std::io::Write::write_all(&mut new, json().as_bytes())?;
                    Ok(new.persist(&file)?)
                })
                .unwrap();
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
