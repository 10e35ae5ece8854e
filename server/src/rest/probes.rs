//! What service managers, load balancers and scrapers ask: `/healthz`, `/readyz`, `/metrics`.
//!
//! In: the running server. Out: short answers.
//! Always: `/healthz` and `/readyz` are open and tell no more than a state; `/metrics` is for this machine
//! and for API tokens that may see the fleet.
//! Never: asks the database: a probe must answer when that does not.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, FORWARDED, HeaderName};

use super::access::identify;
use super::apart;
use crate::accounts::ApiScope;
use crate::listen::Peer;
use crate::listen::admin_socket::AdminPeer;
use crate::{Pulse, metrics};

/// The three paths.
pub fn router(pulse: Arc<Pulse>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(pulse)
}

async fn readyz(State(pulse): State<Arc<Pulse>>) -> Response {
    let (status, word, detail) = if pulse.drain.has_started() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining", None)
    } else if !pulse.store.is_writable() {
        let detail = "the database cannot be written: lists are served from memory, changes are refused";
        (StatusCode::OK, "degraded", Some(detail))
    } else if pulse.changes.is_deaf() {
        let detail =
            "what other servers change cannot be taken over: lists are those of before; see the server's log";
        (StatusCode::OK, "degraded", Some(detail))
    } else if !pulse.ahead().is_empty() {
        let detail =
            "the database is older than the fleet: some proxies are sent no list; see `pulse status`";
        (StatusCode::OK, "degraded", Some(detail))
    } else {
        (StatusCode::OK, "ok", None)
    };
    let mut body = serde_json::json!({ "status": word });
    if let Some(detail) = detail {
        body["detail"] = detail.into();
    }
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn scrape(State(pulse): State<Arc<Pulse>>, request: Request) -> Response {
    if !is_local(&request) {
        let caller = identify(&pulse, request.headers(), request.extensions()).await;
        let Ok(Some(caller)) = caller else {
            let text = "/metrics is for this machine (127.0.0.1, [::1]), and for API tokens with the scope monitoring:read\n";
            return (StatusCode::FORBIDDEN, text).into_response();
        };
        if !caller.may(ApiScope::MonitoringRead) {
            pulse.refusals.note_known("MISSING_SCOPE".to_owned(), &caller.actor(), "GET /metrics".to_owned());
            let text = "this API token has not the scope monitoring:read, which /metrics asks for\n";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        caller.used(&pulse);
    }
    apart(move || scraped(&pulse)).await
}

fn scraped(pulse: &Pulse) -> impl IntoResponse + use<> {
    pulse.metrics.set_proxies(pulse.proxies_by_state());
    let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
    pulse.metrics.instances_with_problems.set(count(pulse.instances_with_problems()));
    pulse.metrics.held_changes.set(count(pulse.held_changes()));
    if let Some(condition) = pulse.tls.as_ref().map(|tls| tls.condition()) {
        let ends = [("server", Some(condition.ends_at)), ("ca", condition.authority_ends_at)];
        let ends = ends.into_iter().filter_map(|(name, at)| Some((name, at?)));
        pulse.metrics.set_certificates(ends, condition.trouble.is_some());
    }
    pulse.metrics.database_older_than_fleet.set(i64::from(!pulse.ahead().is_empty()));
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], pulse.metrics.encode())
}

/// Whether the caller is on this machine. A request that a proxy on this machine passed on is not: the header that
/// says so comes with it.
fn is_local(request: &Request) -> bool {
    let passed_on =
        [FORWARDED, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-real-ip")];
    if passed_on.iter().any(|name| request.headers().contains_key(name)) {
        return false;
    }
    let extensions = request.extensions();
    extensions.get::<AdminPeer>().is_some()
        || extensions.get::<Peer>().is_some_and(|peer| peer.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Actor;
    use crate::changes::NewInstance;
    use crate::rest::tests::pulse_until;
    use crate::shutdown::{Ended, Signals};
    use axum::body::Body;
    use tower::ServiceExt;

    async fn ask(
        router: &Router,
        path: &str,
        peer: Option<&str>,
        header: Option<&str>,
    ) -> (StatusCode, String) {
        let mut request = Request::builder().uri(path);
        if let Some(name) = header {
            request = request.header(name, "192.0.2.1");
        }
        let mut request = request.body(Body::empty()).expect("the request is well-formed");
        if let Some(peer) = peer {
            let address = peer.parse().expect("the peer is an address");
            request.extensions_mut().insert(Peer { address });
        }
        let response = router.clone().oneshot(request).await.expect("a router does not fail");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("the body is short");
        (status, String::from_utf8(body.into()).expect("the body is text"))
    }

    #[tokio::test]
    async fn readyz_tells_the_life_of_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let (signals, hand) = Signals::by_hand();
        let pulse = pulse_until(folder.path(), signals.drain()).await;
        let router = router(Arc::clone(&pulse));
        let readyz = async || ask(&router, "/readyz", None, None).await;
        assert_eq!(readyz().await, (StatusCode::OK, r#"{"status":"ok"}"#.to_owned()));

        let shell = rusqlite::Connection::open(folder.path().join("pulse.db")).unwrap();
        shell.execute_batch("ALTER TABLE audit RENAME TO away").unwrap();
        pulse.changes.add_instance(&Actor::admin(0), NewInstance::typed("home", vec![])).await.unwrap_err();
        let (status, body) = readyz().await;
        assert!(status == StatusCode::OK && body.contains(r#""status":"degraded""#), "{body}");
        shell.execute_batch("ALTER TABLE away RENAME TO audit").unwrap();
        pulse.changes.add_instance(&Actor::admin(0), NewInstance::typed("home", vec![])).await.unwrap();
        assert_eq!(readyz().await, (StatusCode::OK, r#"{"status":"ok"}"#.to_owned()));

        hand.stop();
        let drain = signals.drain();
        let draining = signals.attend(async {
            drain.started().await;
            readyz().await
        });
        let Ended::Finished((status, body)) = draining.await else { panic!("nobody aborted") };
        assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"draining"}"#));
        assert_eq!(ask(&router, "/healthz", None, None).await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_for_this_machine_and_count_every_sync_state() {
        let folder = tempfile::tempdir().unwrap();
        let (signals, _hand) = Signals::by_hand();
        let router = router(pulse_until(folder.path(), signals.drain()).await);
        for peer in ["127.0.0.1:5", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
            let (status, body) = ask(&router, "/metrics", Some(peer), None).await;
            assert!(status == StatusCode::OK && body.ends_with("# EOF\n"), "{peer}");
            assert!(body.contains(r#"pulse_proxies{state="IN_SYNC"} 0"#), "{body}");
            for header in ["forwarded", "x-forwarded-for", "X-Real-IP"] {
                let (status, _) = ask(&router, "/metrics", Some(peer), Some(header)).await;
                assert_eq!(status, StatusCode::FORBIDDEN, "{header}");
            }
        }
        for peer in [Some("192.0.2.1:5"), Some("[2001:db8::1]:5"), None] {
            let (status, body) = ask(&router, "/metrics", peer, None).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(body.contains("127.0.0.1"), "{body}");
        }
    }
}
