//! `/tls/rotate`, `/tls/finish`: the exchange of the key of Pulse's own CA.

use std::sync::Arc;

use axum::extract::State;
use serde_json::json;

use super::access::Caller;
use super::extract::Json;
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, time};
use crate::audit::{Actor, Entry, Outcome};
use crate::tls::{Condition, Exchange, Tls, TlsError};

/// The most hosts that a refusal names; the rest is a number.
const NAMED_HOSTS: usize = 5;

/// Begins the exchange of the key of Pulse's own CA. The old one stays good until it is finished.
#[utoipa::path(
    post,
    path = "/tls/rotate",
    operation_id = "begin_ca_exchange",
    tag = "server",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = OK, description = "The exchange.", body = api::KeyExchange)),
)]
pub(super) async fn rotate(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
) -> Result<Json<api::KeyExchange>, Refusal> {
    let begun = change(&pulse, &caller.actor(), "tls.rotate", Tls::rotate).await?;
    for proxy in pulse.changes.catalog().registry.proxies() {
        pulse.fleet.ring(proxy.id);
    }
    Ok(Json(exchange(&begun)))
}

/// Finishes the exchange of the CA's key: the old one is good no more.
#[utoipa::path(
    post,
    path = "/tls/finish",
    operation_id = "finish_ca_exchange",
    tag = "server",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = OK, description = "The exchange that is finished.", body = api::KeyExchange)),
)]
pub(super) async fn finish(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(asked): Json<api::FinishExchange>,
) -> Result<Json<api::KeyExchange>, Refusal> {
    let under_way = pulse.tls.as_ref().and_then(|tls| tls.condition().exchange);
    if let (false, Some(under_way)) = (asked.yes, under_way) {
        check_heard(&pulse, &under_way)?;
    }
    let finished = change(&pulse, &caller.actor(), "tls.finish", Tls::finish_rotation).await?;
    for proxy in pulse.changes.catalog().registry.proxies() {
        pulse.fleet.ring(proxy.id);
    }
    Ok(Json(exchange(&finished)))
}

/// A proxy that is connected has heard the new pin, if it had the time; of any other it is not known.
fn check_heard(pulse: &Pulse, exchange: &Exchange) -> Result<(), Refusal> {
    let age = pulse.clock.now().duration_since(exchange.began_at).unwrap_or_default();
    if age < pulse.refresh_interval {
        let wait = (pulse.refresh_interval - age).as_secs() + 1;
        let text = format!(
            "the exchange began just now, and proxies are still hearing of it; ask again in {wait} s"
        );
        return Err(Refusal::conflict("NEEDS_YES", text));
    }
    let catalog = pulse.changes.catalog();
    let proxies = catalog.registry.proxies().filter(|proxy| proxy.is_active());
    let mut away: Vec<&str> = proxies
        .filter(|proxy| !pulse.view(proxy).is_connected)
        .map(|proxy| proxy.hostname.as_str())
        .collect();
    if away.is_empty() {
        return Ok(());
    }
    away.sort_unstable();
    let more = if away.len() > NAMED_HOSTS { ", …" } else { "" };
    let text = format!(
        "{} of the proxies are not connected, and may not have heard the new pin ({}{more}): wait until they were, remove \
         those that are gone for good, or say --yes; one that has not heard it must then be registered again",
        away.len(),
        away[..away.len().min(NAMED_HOSTS)].join(", ")
    );
    Err(Refusal::conflict("NEEDS_YES", text))
}

/// Notes the change, and makes it. A file is no part of a transaction, so the row comes first, and a failure has its own.
async fn change(
    pulse: &Arc<Pulse>,
    actor: &Actor,
    action: &'static str,
    make: fn(&Tls, std::time::SystemTime) -> Result<Exchange, TlsError>,
) -> Result<Exchange, Refusal> {
    let Some(tls) = pulse.tls.clone() else {
        let text =
            "the server runs without TLS, so it has no CA; whatever ends TLS in front has its own".to_owned();
        return Err(Refusal::conflict("NO_AUTHORITY", text));
    };
    if pulse.store.is_shared() {
        let text = "several servers share this fleet and its CA, whose key cannot be exchanged while they do; a certificate of your own \
                    on each (tls.certificate_file) needs none of Pulse's, but proxies must then be registered again";
        return Err(Refusal::conflict("SHARED_AUTHORITY", text.to_owned()));
    }
    let note =
        |outcome, detail| Entry::new(pulse.clock.now(), actor, action, "ca".to_owned(), outcome, detail);
    let pin = tls.pin().map(|pin| pin.to_string());
    pulse.store.append_audit(vec![note(Outcome::Done, json!({ "pin_before": pin }))]).await?;
    let now = pulse.clock.now();
    let made = tokio::task::spawn_blocking(move || make(&tls, now)).await;
    let made = made.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()));
    if let Err(error) = &made {
        let why = json!({ "failed": error.to_string() });
        pulse.store.append_audit(vec![note(Outcome::Failed, why)]).await?;
    }
    Ok(made?)
}

/// As the API has it.
pub(super) fn certificate(condition: &Condition) -> api::Certificate {
    api::Certificate {
        ends_at: time(condition.ends_at),
        ca_ends_at: condition.authority_ends_at.map(time),
        exchange: condition.exchange.as_ref().map(exchange),
        trouble: condition.trouble.clone(),
    }
}

fn exchange(exchange: &Exchange) -> api::KeyExchange {
    api::KeyExchange { previous_pin: exchange.previous.to_string(), began_at: time(exchange.began_at) }
}
