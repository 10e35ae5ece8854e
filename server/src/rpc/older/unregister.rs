//! `DELETE unregister`: a proxy's goodbye for good, with its own token.

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::answer::{self, Refused};
use super::{caller_of, check, parameter};
use crate::rpc::Rpc;
use crate::rpc::status::change_status;

#[derive(Serialize)]
struct Gone {
    success: bool,
    proxy_id: String,
    message: String,
}

pub(super) async fn unregister(rpc: &Rpc, head: &Parts) -> Result<Response, Refused> {
    check(head, &Method::DELETE, "DELETE")?;
    let (caller, _place) = caller_of(rpc, head).await?;
    let (id, hostname) = (caller.proxy.id, &caller.proxy.hostname);
    let named = parameter(head, "hostname")?.filter(|named| !named.trim().is_empty());
    if named.is_some_and(|named| !named.trim().eq_ignore_ascii_case(hostname)) {
        let text = format!(
            "the token is that of the proxy on {hostname}, not of the host that hostname= names: nothing was done; leave hostname \
             out, or send that host's own token"
        );
        return Err(Refused::new(StatusCode::CONFLICT, "hostname_mismatch", text));
    }
    rpc.changes.unregister(caller.token, caller.peer).await.map_err(|error| change_status(&error))?;
    tracing::info!(proxy = %id, "a proxy unregistered");
    let message = format!("the proxy on {hostname} is forgotten, and its token is good no more");
    Ok(answer::json(StatusCode::OK, &Gone { success: true, proxy_id: id.to_string(), message }))
}
