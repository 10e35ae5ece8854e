//! `/instances/{name}/pve` and `/pve/certificates`: Proxmox VE as the source of an instance's nodes.
//!
//! Always: a source is asked before it is taken, unless the admin says not to; a certificate that nobody trusts is refused with its
//! fingerprint. Never: gives the token's secret back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use pulse_proto::Node;

use super::access::Caller;
use super::extract::{Json, Path};
use super::refusal::Refusal;
use super::views::{self, present};
use crate::Pulse;
use crate::api;
use crate::changes::{WantedSource, place_of_secret};
use crate::inventory::Facts;
use crate::poller;
use crate::pve::address::PveUrl;
use crate::pve::certificate::Fingerprint;
use crate::pve::client::ApiToken;
use crate::pve::poll::Unheard;

/// The most hosts of one instance that are asked in turn, and the most certificates: a cluster has 32 nodes, or a few more.
const MAX_HOSTS: usize = 64;

/// Sets Proxmox VE as a source of an instance's nodes, or changes how it is asked.
///
/// Its hosts are asked first; nothing is changed if none can be believed.
#[utoipa::path(
    put,
    path = "/instances/{name}/pve",
    operation_id = "set_pve",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind.")),
    responses((status = OK, description = "The instance as it is now.", body = api::Instance)),
)]
pub(super) async fn set(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(set): Json<api::SetPve>,
) -> Result<Json<api::Instance>, Refusal> {
    let catalog = pulse.changes.catalog();
    let instance = present(&catalog, &name)?;
    let (wanted, _) = wanted(&pulse, instance, &set).await?;
    let changed = pulse.changes.set_source(&caller.actor(), &name, Some(wanted)).await?;
    Ok(Json(views::one(&pulse, &changed)))
}

/// Asks Proxmox VE for an instance no more.
#[utoipa::path(
    delete,
    path = "/instances/{name}/pve",
    operation_id = "remove_pve",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    params(("name", Path, description = "The instance's name, case-blind.")),
    responses((status = OK, description = "The instance as it is now.", body = api::Instance)),
)]
pub(super) async fn remove(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<api::Instance>, Refusal> {
    let changed = pulse.changes.set_source(&caller.actor(), &name, None).await?;
    Ok(Json(views::one(&pulse, &changed)))
}

/// Looks which certificates hosts of Proxmox VE show.
///
/// The server connects to each; nothing secret is sent.
#[utoipa::path(
    post,
    path = "/pve/certificates",
    operation_id = "look_at_certificates",
    tag = "instances",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = OK, description = "The certificates, in the order of the URLs.", body = api::CertificatesShown)),
)]
pub(super) async fn certificates(
    State(pulse): State<Arc<Pulse>>,
    Json(look): Json<api::LookAtCertificates>,
) -> Result<Json<api::CertificatesShown>, Refusal> {
    let urls = urls("urls", &look.urls)?;
    let mut certificates = Vec::new();
    for (url, (fingerprint, problem)) in pulse.poller.look(urls).await {
        certificates.push(api::CertificateShown {
            url: url.to_string(),
            fingerprint: fingerprint.map(|fingerprint| fingerprint.to_string()),
            is_trusted: problem.is_none(),
            problem: problem.map(|problem| problem.to_string()),
        });
    }
    Ok(Json(api::CertificatesShown { certificates }))
}

/// The source that an admin wants for an instance, and the nodes that it tells. Unless the admin says not to, it is asked first.
pub(super) async fn wanted(
    pulse: &Pulse,
    instance: &Facts,
    set: &api::SetPve,
) -> Result<(WantedSource, Vec<Node>), Refusal> {
    let before = instance.source.as_ref();
    let urls = match (&set.urls, before) {
        (Some(given), _) => urls("pve.urls", given)?,
        (None, Some(before)) => before.urls.clone(),
        (None, None) => return Err(missing("pve.urls", "--pve")),
    };
    let token_id = match (&set.token_id, before) {
        (Some(given), _) => given.clone(),
        (None, Some(before)) => before.token_id.clone(),
        (None, None) => return Err(missing("pve.token_id", "--token-id")),
    };
    let mut pinned = match (&set.fingerprints, before) {
        (Some(given), _) => fingerprints("pve.fingerprints", given)?,
        (None, Some(before)) => before.fingerprints.clone(),
        (None, None) => Vec::new(),
    };
    let more = fingerprints("pve.add_fingerprints", &set.add_fingerprints)?;
    pinned.extend(more.into_iter().filter(|one| !pinned.contains(one)).collect::<Vec<_>>());
    if pinned.len() > MAX_HOSTS {
        return Err(Refusal::invalid("pve.fingerprints", format!("there must be at most {MAX_HOSTS}")));
    }
    let poll_interval = match (set.poll_interval_seconds, before) {
        (Some(seconds), _) => interval(seconds)?,
        (None, Some(before)) => before.poll_interval,
        (None, None) => poller::DEFAULT_INTERVAL,
    };
    let secret = match (&set.token_secret, before) {
        (Some(given), _) => given.trim().to_owned(),
        // Else it could be had by pointing the instance at a host of one's own.
        (None, Some(before)) if set.urls.is_some() && urls.iter().any(|url| !before.urls.contains(url)) => {
            let text = "further hosts would be shown the API token: say so by giving its secret again (--token-secret-file)";
            return Err(Refusal::invalid("pve.token_secret", text.to_owned()));
        }
        (None, Some(before)) => {
            let place = place_of_secret(pulse.changes.catalog().server_id, instance.id);
            let opened = pulse.store.open_sealed(&place, &before.sealed_secret)?;
            String::from_utf8_lossy(&opened).into_owned()
        }
        (None, None) => return Err(missing("pve.token_secret", "--token-secret-file")),
    };
    let token = ApiToken::new(&token_id, &secret).map_err(|rule| Refusal::invalid("pve.token_id", rule))?;
    let wanted = WantedSource { urls, token, fingerprints: pinned, poll_interval };
    if set.is_unchecked {
        return Ok((wanted, Vec::new()));
    }
    match pulse.poller.try_source(&wanted, instance).await {
        Ok(nodes) => Ok((wanted, nodes)),
        Err(Unheard(doubts)) => {
            let text =
                format!("{}; nothing was changed (--no-check takes it all the same)", poller::said(&doubts));
            Err(Refusal::new(StatusCode::CONFLICT, "PVE_NOT_BELIEVED", text))
        }
    }
}

pub(super) fn urls(field: &str, given: &[String]) -> Result<Vec<PveUrl>, Refusal> {
    if given.is_empty() || given.len() > MAX_HOSTS {
        return Err(Refusal::invalid(field, format!("there must be 1 to {MAX_HOSTS} URLs")));
    }
    let mut urls: Vec<PveUrl> = Vec::new();
    for (at, url) in given.iter().enumerate() {
        let url = url.parse().map_err(|rule| Refusal::invalid(format!("{field}[{at}]"), rule))?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Ok(urls)
}

pub(super) fn fingerprints(field: &str, given: &[String]) -> Result<Vec<Fingerprint>, Refusal> {
    if given.len() > MAX_HOSTS {
        return Err(Refusal::invalid(field, format!("there must be at most {MAX_HOSTS}")));
    }
    let mut fingerprints: Vec<Fingerprint> = Vec::new();
    for (at, text) in given.iter().enumerate() {
        let one = text.parse().map_err(|rule| Refusal::invalid(format!("{field}[{at}]"), rule))?;
        if !fingerprints.contains(&one) {
            fingerprints.push(one);
        }
    }
    Ok(fingerprints)
}

fn interval(seconds: f64) -> Result<Duration, Refusal> {
    let (least, most) = (poller::MIN_INTERVAL, poller::MAX_INTERVAL);
    let interval =
        Duration::try_from_secs_f64(seconds).ok().filter(|interval| (least..=most).contains(interval));
    interval.ok_or_else(|| {
        let rule = format!("must be {} to {} seconds", least.as_secs(), most.as_secs());
        Refusal::invalid("pve.poll_interval_seconds", rule)
    })
}

fn missing(field: &str, flag: &str) -> Refusal {
    Refusal::invalid(field, format!("is needed: give it with {flag}"))
}
