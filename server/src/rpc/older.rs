//! The paths of older proxies and installers, under `/api/temperature-proxy/`: the same service, as JSON over HTTP.
//!
//! In: requests as older proxies and installers make them. Out: what the methods of the gRPC service answer, in the words and
//! codes that those know. Always: compact JSON without a space behind a colon, because installers read it with grep; a proxy's
//! own token is asked for, and no admin's log-in. Never: decides what a proxy may read, or keeps state of its own: a request
//! is turned into what gRPC would have brought.

mod answer;
mod body;
mod nodes;
mod register;
mod report;
mod unregister;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use axum::routing::any;

use self::answer::Refused;
use super::auth::{self, Caller};
use super::{Rpc, edge, limited};
use crate::limits::Slot;

/// Below which path all of it is.
const ROOT: &str = "/api/temperature-proxy";

/// What the paths are answered with.
#[derive(Clone)]
struct Older {
    rpc: Arc<Rpc>,
    /// The most bytes of a report.
    max_report_bytes: usize,
}

impl Rpc {
    /// The paths of older proxies, as routes. `max_report_bytes` bounds a report; what else comes in is smaller.
    pub fn older_router(self, max_report_bytes: usize) -> Router {
        Router::new()
            .route(&format!("{ROOT}/register"), any(register))
            .route(&format!("{ROOT}/authorized-nodes"), any(authorized_nodes))
            .route(&format!("{ROOT}/report"), any(report))
            .route(&format!("{ROOT}/unregister"), any(unregister))
            .route(ROOT, any(nothing))
            .route(&format!("{ROOT}/"), any(nothing))
            .route(&format!("{ROOT}/{{*path}}"), any(nothing))
            .with_state(Older { rpc: Arc::new(self), max_report_bytes })
    }
}

async fn register(State(Older { rpc, .. }): State<Older>, request: Request) -> Response {
    answer::of(&rpc.clock, register::register(&rpc, request).await)
}

async fn authorized_nodes(State(Older { rpc, .. }): State<Older>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    answer::of(&rpc.clock, nodes::authorized_nodes(&rpc, &head).await)
}

async fn report(State(Older { rpc, max_report_bytes }): State<Older>, request: Request) -> Response {
    answer::of(&rpc.clock, report::report(&rpc, request, max_report_bytes).await)
}

async fn unregister(State(Older { rpc, .. }): State<Older>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    answer::of(&rpc.clock, unregister::unregister(&rpc, &head).await)
}

async fn nothing(State(Older { rpc, .. }): State<Older>) -> Response {
    let text = "there is no such path: register, authorized-nodes, report and unregister are served here; what else older servers had is \
                in `pulse proxy` and `pulse join`";
    answer::of(&rpc.clock, Err(Refused::not_found(text)))
}

/// Refuses every other method, and pages of a browser, which would send what they like from an admin's machine.
fn check(head: &Parts, method: &Method, allow: &'static str) -> Result<(), Refused> {
    if head.method != method {
        return Err(Refused::method(allow));
    }
    if head.headers.contains_key(header::ORIGIN) {
        return Err(Refused::browser());
    }
    Ok(())
}

fn peer_of(head: &Parts) -> Option<IpAddr> {
    limited::peer_of_http(&head.extensions)
}

/// The proxy that calls, and its place among the calls for as long as it lasts.
async fn caller_of(rpc: &Rpc, head: &Parts) -> Result<(Caller, Slot), Refused> {
    let peer = peer_of(head);
    let caller = auth::caller(rpc, &head.headers, peer, false).await;
    let caller = caller.map_err(|status| limited::failed(rpc, peer, status))?;
    let place = limited::call_slot(rpc, caller.proxy.id)?;
    Ok((caller, place))
}

/// The value of a parameter behind the `?`; the last one, if it stands there more than once.
fn parameter(head: &Parts, name: &str) -> Result<Option<String>, Refused> {
    type Parameters = axum::extract::Query<Vec<(String, String)>>;
    let Ok(parameters) = Parameters::try_from_uri(&head.uri) else {
        return Err(
            super::status::invalid("the part behind the ?", "it is not of the form name=value").into()
        );
    };
    Ok(parameters.0.into_iter().rev().find(|(known, _)| known == name).map(|(_, value)| value))
}

/// The version that a proxy says with its `User-Agent`: older ones say none.
fn version_of(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let version = agent.and_then(|agent| agent.strip_prefix("pulse-sensor-proxy/"));
    let version = version.and_then(|version| version.split(' ').next()).unwrap_or_default();
    edge::version("user-agent", version).unwrap_or_default()
}

/// A time as JSON has it: RFC 3339, UTC.
fn time(at: std::time::SystemTime) -> jiff::Timestamp {
    crate::api::time(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_the_name_of_the_program() {
        let of = |agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            version_of(&headers)
        };
        assert_eq!(of("pulse-sensor-proxy/4.36.0 (linux)"), "4.36.0");
        for none in [
            "Go-http-client/1.1",
            "pulse-sensor-proxy",
            "",
            &format!("pulse-sensor-proxy/{}", "9".repeat(65)),
        ] {
            assert_eq!(of(none), "", "{none}");
        }
    }

    #[test]
    fn a_parameter_is_the_last_of_its_name_and_decoded() {
        let of = |query: &str| {
            let request = Request::get(format!("/x?{query}")).body(axum::body::Body::empty()).unwrap();
            parameter(&request.into_parts().0, "hostname").ok().flatten()
        };
        assert_eq!(of("a=1&hostname=x&hostname=pve%2e1").as_deref(), Some("pve.1"));
        assert_eq!((of(""), of("hostname=").as_deref()), (None, Some("")));
    }
}
