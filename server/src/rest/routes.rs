//! Which paths there are below `/api/v1`, and who may ask for what, which is read off their descriptions.
//!
//! In: what each handler says of itself in `#[utoipa::path]`. Out: the routes, and [`access_of`], the table for whoever lets requests in.
//! Always: an operation has exactly one `Access`, said by its `security(…)`; one without is not served.
//! Never: judges a caller. Who asks is known to `access`.
//!
//! | `security(…)` | `Access` |
//! | --- | --- |
//! | `("api_token" = ["SCOPE"]), ("session" = [])` | `Access::Scope`: a token with this scope, or an admin who logged in |
//! | `("api_token" = []), ("session" = [])` | `Access::Known`: any token, or an admin who logged in |
//! | `("session" = [])` | `Access::Session`: an admin who logged in, and no token |
//! | `("socket" = [])` | `Access::SocketOnly` |
//! | `(())` | `Access::Open`: anybody |
//!
//! On the Unix socket everything may be asked. A layer finds the access of a request by the request's method and axum's `MatchedPath`;
//! behind `only_described` it is an extension of the request.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Access;
use super::refusal::Refusal;
use super::{
    admins, api_tokens, audit, backup, epoch, events, held, import, instances, join_tokens, key, lists,
    nodes, proxies, sessions, sources, status, temperatures, tls,
};
use crate::Pulse;

/// Every path below [`api::ROOT`], with what the handler says of it: a handler without a description has no path.
pub(super) fn paths() -> OpenApiRouter<Arc<Pulse>> {
    OpenApiRouter::default()
        .routes(routes!(instances::list, instances::add))
        .routes(routes!(instances::show, instances::set, instances::remove))
        .routes(routes!(sources::set, sources::remove))
        .routes(routes!(instances::set_use))
        .routes(routes!(nodes::set))
        .routes(routes!(held::confirm))
        .routes(routes!(held::discard))
        .routes(routes!(nodes::list))
        .routes(routes!(import::import))
        .routes(routes!(sources::certificates))
        .routes(routes!(join_tokens::list, join_tokens::create))
        .routes(routes!(join_tokens::revoke))
        .routes(routes!(join_tokens::open, join_tokens::close))
        .routes(routes!(proxies::list))
        .routes(routes!(proxies::show, proxies::set, proxies::remove))
        .routes(routes!(proxies::rotate))
        .routes(routes!(proxies::revoke))
        .routes(routes!(proxies::approve))
        .routes(routes!(proxies::debug_token))
        .routes(routes!(lists::list))
        .routes(routes!(lists::history))
        .routes(routes!(lists::diff))
        .routes(routes!(backup::make))
        .routes(routes!(epoch::begin))
        .routes(routes!(key::rotate))
        .routes(routes!(events::listen))
        .routes(routes!(temperatures::list))
        .routes(routes!(status::show))
        .routes(routes!(tls::rotate))
        .routes(routes!(tls::finish))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::export))
        .routes(routes!(admins::list, admins::add))
        .routes(routes!(admins::reset))
        .routes(routes!(admins::remove))
        .routes(routes!(api_tokens::list, api_tokens::create))
        .routes(routes!(api_tokens::revoke))
        .routes(routes!(sessions::set_up))
        .routes(routes!(sessions::show, sessions::log_in, sessions::log_out))
        .routes(routes!(sessions::set_password))
}

/// Who may ask for what, by method and path template (`/api/v1/instances/{name}`). An operation of which that is not said in exactly one
/// known way is not there, and must be refused.
pub fn access_of(api: &OpenApi) -> HashMap<(Method, String), Access> {
    let of = |path: &String, (method, operation): (Method, &Operation)| {
        Some(((method, path.clone()), access(operation)?))
    };
    api.paths
        .paths
        .iter()
        .flat_map(|(path, item)| operations(item).filter_map(move |operation| of(path, operation)))
        .collect()
}

fn access(operation: &Operation) -> Option<Access> {
    let said = serde_json::to_value(operation.security.as_ref()?).ok()?;
    let ways: Vec<HashMap<String, Vec<String>>> = serde_json::from_value(said).ok()?;
    // `None`: a way that takes more than one thing at once.
    let way = |way: &HashMap<String, Vec<String>>| match way.iter().next() {
        Some((name, scopes)) if way.len() == 1 => Some((name.clone(), scopes.clone())),
        None => Some((String::new(), Vec::new())),
        Some(_) => None,
    };
    let ways: Vec<(String, Vec<String>)> = ways.iter().map(way).collect::<Option<_>>()?;
    let ways: Vec<(&str, &[String])> =
        ways.iter().map(|(name, scopes)| (name.as_str(), scopes.as_slice())).collect();
    match ways.as_slice() {
        [("api_token", [scope]), ("session", [])] => scope.parse().ok().map(Access::Scope),
        [("api_token", []), ("session", [])] => Some(Access::Known),
        [("session", [])] => Some(Access::Session),
        [("socket", [])] => Some(Access::SocketOnly),
        [("", [])] => Some(Access::Open),
        _ => None,
    }
}

/// Serves no operation of which is not known who may ask for it, and tells layers behind it who may.
pub(super) async fn only_described(
    State(table): State<Arc<HashMap<(Method, String), Access>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()) else {
        return next.run(request).await;
    };
    // A handler of GET answers HEAD too.
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    if let Some(access) = table.get(&(method, path.clone())) {
        request.extensions_mut().insert(*access);
        return next.run(request).await;
    }
    let mut known: Vec<&str> =
        table.keys().filter(|(_, at)| *at == path).map(|(method, _)| method.as_str()).collect();
    known.sort_unstable();
    match HeaderValue::from_str(&known.join(",")) {
        Ok(known) if !known.is_empty() => (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, known)]).into_response(),
        _ => {
            let text =
                format!("{path} does not say who may ask for it, so nobody may: a defect of this server");
            Refusal::new(StatusCode::FORBIDDEN, "NOT_DESCRIBED", text).into_response()
        }
    }
}

/// The operations of one path.
pub(super) fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
        (Method::HEAD, &item.head),
        (Method::OPTIONS, &item.options),
        (Method::TRACE, &item.trace),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::super::description::description;
    use super::*;
    use crate::accounts::ApiScope;

    #[test]
    fn every_operation_says_in_one_known_way_who_may_ask_for_it() {
        let api = description();
        let table = access_of(&api);
        for (path, item) in &api.paths.paths {
            for (method, operation) in operations(item) {
                let access = table.get(&(method.clone(), path.clone()));
                let access =
                    access.unwrap_or_else(|| panic!("{method} {path} does not say who may ask for it"));
                let reads = [ApiScope::MonitoringRead, ApiScope::SettingsRead].map(Access::Scope);
                if method == Method::GET {
                    assert!(
                        reads.contains(access) || matches!(access, Access::Open | Access::Known),
                        "{method} {path}: {access:?}"
                    );
                } else {
                    assert!(!reads.contains(access), "{method} {path} changes something: {access:?}");
                }
                assert!(operation.operation_id.is_some() && operation.summary.is_some(), "{method} {path}");
                assert_eq!(operation.tags.as_ref().map(Vec::len), Some(1), "{method} {path}");
            }
        }
    }

    #[test]
    fn what_holds_every_key_is_for_the_socket_alone() {
        let table = access_of(&description());
        let of = |access: Access| {
            let mut paths: Vec<&str> =
                table.iter().filter(|(_, one)| **one == access).map(|((_, path), _)| path.as_str()).collect();
            paths.sort_unstable();
            paths
        };
        // Whoever may make an admin is one.
        let admins = ["/api/v1/admins", "/api/v1/admins/{name}", "/api/v1/admins/{name}/reset"];
        assert_eq!(of(Access::SocketOnly), [&admins[..], &["/api/v1/backup", "/api/v1/key/rotate"]].concat());
        let settings = [
            "/api/v1/admins",
            "/api/v1/api-tokens",
            "/api/v1/audit",
            "/api/v1/audit/export",
            "/api/v1/audit/verify",
            "/api/v1/join-tokens",
        ];
        assert_eq!(of(Access::Scope(ApiScope::SettingsRead)), settings);
        assert_eq!(of(Access::Open), ["/api/v1/openapi.json", "/api/v1/session", "/api/v1/set-up"]);
    }

    #[utoipa::path(get, path = "/none")]
    async fn none() {}

    #[utoipa::path(get, path = "/two", security(("api_token" = ["monitoring:read", "settings:read"]), ("session" = [])))]
    async fn two() {}

    #[utoipa::path(get, path = "/both", security(("api_token" = ["monitoring:read"], "session" = [])))]
    async fn both() {}

    #[utoipa::path(get, path = "/typo", security(("api_token" = ["monitoring:reed"]), ("session" = [])))]
    async fn typo() {}

    #[utoipa::path(get, path = "/good", security(("api_token" = ["monitoring:read"]), ("session" = [])))]
    async fn good() {}

    #[tokio::test]
    async fn what_does_not_say_who_may_ask_for_it_is_not_served() {
        let routes = OpenApiRouter::default()
            .routes(routes!(none))
            .routes(routes!(two))
            .routes(routes!(both))
            .routes(routes!(typo))
            .routes(routes!(good));
        let (router, api): (axum::Router, OpenApi) = routes.split_for_parts();
        let table = Arc::new(access_of(&api));
        assert_eq!(table.len(), 1);
        let router = router
            .route("/bare", get(async || "secret"))
            .layer(axum::middleware::from_fn_with_state(table, only_described));
        let ask = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap()
        };
        for path in ["/none", "/two", "/both", "/typo", "/bare"] {
            assert_eq!(ask("GET", path).await.status(), StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(ask("GET", "/good").await.status(), StatusCode::OK);
        assert_eq!(ask("HEAD", "/good").await.status(), StatusCode::OK);
        let refused = ask("POST", "/good").await;
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()["allow"], "GET");
        assert_eq!(ask("GET", "/nothing").await.status(), StatusCode::NOT_FOUND);
    }
}
