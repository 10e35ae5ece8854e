//! `/import`: what was read of older installs becomes part of the fleet, or is said to.
//!
//! Always: every value is checked here as if nobody had read it. Never: gives a secret back.

use std::sync::Arc;

use axum::extract::State;
use pulse_proto::{Node, TokenDigest, hex};

use super::access::Caller;
use super::extract::Json;
use super::refusal::Refusal;
use super::sources::{fingerprints, urls};
use crate::Pulse;
use crate::api;
use crate::changes::{Import, ImportOutcome, ImportStep};
use crate::import::{FoundInstance, FoundProxy, FoundPve, is_proxy_url};
use crate::poller;
use crate::pve::client::ApiToken;

/// Takes over what older installs have, in one change, or says what would be done.
#[utoipa::path(
    post,
    path = "/import",
    operation_id = "import",
    tag = "import",
    security(("api_token" = ["settings:write"]), ("session" = [])),
    responses((status = OK, description = "What becomes of each thing.", body = api::ImportPlan)),
)]
pub(super) async fn import(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(asked): Json<api::Import>,
) -> Result<Json<api::ImportPlan>, Refusal> {
    let import = checked(&asked)?;
    let steps = match asked.dry_run {
        true => pulse.changes.plan_import(&import).await?,
        false => pulse.changes.import(&caller.actor(), &import).await?,
    };
    let revision = pulse.changes.catalog().revision;
    Ok(Json(api::ImportPlan {
        is_done: !asked.dry_run,
        revision,
        steps: steps.into_iter().map(step).collect(),
    }))
}

fn step(step: ImportStep) -> api::ImportStep {
    api::ImportStep {
        outcome: match step.outcome {
            ImportOutcome::Add => api::ImportOutcome::Add,
            ImportOutcome::There => api::ImportOutcome::There,
            ImportOutcome::LeftOut { .. } => api::ImportOutcome::LeftOut,
        },
        what: step.what.to_owned(),
        instance: step.instance,
        text: step.text,
        way_out: match step.outcome {
            ImportOutcome::LeftOut { way_out } => Some(way_out),
            ImportOutcome::Add | ImportOutcome::There => None,
        },
    }
}

fn checked(asked: &api::Import) -> Result<Import, Refusal> {
    let instances = asked.instances.iter().enumerate();
    let instances = instances.map(|(at, one)| instance(&format!("instances[{at}]"), one));
    Ok(Import {
        instance: asked.instance.clone(),
        host: asked.host.clone(),
        fingerprints: fingerprints("fingerprints", &asked.fingerprints)?,
        poll_interval: poller::DEFAULT_INTERVAL,
        instances: instances.collect::<Result<_, Refusal>>()?,
    })
}

fn instance(field: &str, one: &api::ImportInstance) -> Result<FoundInstance, Refusal> {
    let node = |list: &str, at: usize, node: &api::Node| {
        let invalid = |error: pulse_proto::NodeError| {
            Refusal::invalid(format!("{field}.{list}[{at}]"), error.to_string())
        };
        Node::new(&node.name, &node.ip).map_err(invalid)
    };
    let nodes = one.nodes.iter().enumerate().map(|(at, one)| node("nodes", at, one));
    let overrides =
        one.address_overrides.iter().enumerate().map(|(at, one)| node("address_overrides", at, one));
    let overrides =
        overrides.map(|node| node.map(|node| (node.name().to_owned(), node.address().to_string())));
    let proxies =
        one.proxies.iter().enumerate().map(|(at, one)| proxy(&format!("{field}.proxies[{at}]"), one));
    Ok(FoundInstance {
        name: one.name.clone(),
        nodes: nodes.collect::<Result<_, Refusal>>()?,
        pve: one.pve.as_ref().map(|one| pve(&format!("{field}.pve"), one)).transpose()?,
        address_overrides: overrides.collect::<Result<_, Refusal>>()?,
        proxies: proxies.collect::<Result<_, Refusal>>()?,
        source: one.source.clone(),
    })
}

fn pve(field: &str, one: &api::ImportPve) -> Result<FoundPve, Refusal> {
    let token = ApiToken::new(&one.token_id, &one.token_secret);
    Ok(FoundPve {
        urls: urls(&format!("{field}.urls"), &one.urls)?,
        token: token.map_err(|rule| Refusal::invalid(format!("{field}.token_id"), rule))?,
        fingerprints: fingerprints(&format!("{field}.fingerprints"), &one.fingerprints)?,
        has_trust_from_system: one.has_trust_from_system,
    })
}

fn proxy(field: &str, one: &api::ImportProxy) -> Result<FoundProxy, Refusal> {
    let digest = |text: &String| {
        let invalid = || {
            Refusal::invalid(format!("{field}.token_digest"), "must be 64 lower-case hex digits".to_owned())
        };
        hex::decode::<32>(text).map(TokenDigest::from_bytes).ok_or_else(invalid)
    };
    if one.proxy_url.as_ref().is_some_and(|url| !is_proxy_url(url)) {
        let text = "must begin with https:// or http://, have no user or password in it, and be one that may be shown as a link";
        return Err(Refusal::invalid(format!("{field}.proxy_url"), text.to_owned()));
    }
    Ok(FoundProxy {
        hostname: one.hostname.clone(),
        proxy_url: one.proxy_url.clone(),
        token_digest: one.token_digest.as_ref().map(digest).transpose()?,
    })
}
