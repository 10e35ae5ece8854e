//! `GET authorized-nodes`: the list of a proxy that asks for it now and then.
//!
//! Always: an answer counts as a pull, also one that only says that nothing is new; what was got counts as applied, since
//! an older proxy says nothing of that. Never: an empty list in place of none: a proxy that waits is refused, and goes on
//! with what it has.

use axum::http::header::{CACHE_CONTROL, ETAG, HeaderName, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use pulse_proto::hash::sha256;
use pulse_proto::{Node, SignedAllowlist, hex};
use serde::Serialize;

use super::answer::{self, Refused};
use super::{caller_of, check, time, version_of};
use crate::fleet::{Pull, waiting_reason};
use crate::registry::Proxy;
use crate::rpc::{Rpc, auth, limited};

/// At which revision the fleet's list stood: for people, and for programs that compare.
const REVISION: HeaderName = HeaderName::from_static("x-pulse-revision");
const EPOCH: HeaderName = HeaderName::from_static("x-pulse-epoch");

/// One node, by the keys that older proxies and installers know. Empty: only the name is known.
#[derive(Serialize)]
pub(super) struct Listed<'a> {
    name: &'a str,
    ip: String,
}

#[derive(Serialize)]
struct Nodes<'a> {
    nodes: Vec<Listed<'a>>,
    hash: String,
    refresh_interval: u64,
    updated_at: Timestamp,
    generated_at: Timestamp,
    instance: &'a str,
}

/// The nodes of a list, in the order in which they are hashed.
pub(super) fn listed(list: &SignedAllowlist) -> Vec<Listed<'_>> {
    fn of(node: &Node) -> Listed<'_> {
        Listed { name: node.name(), ip: node.address().to_string() }
    }
    list.allowlist.nodes().iter().map(of).collect()
}

/// The interval at which a proxy is to ask, in whole seconds: older ones take no fraction.
pub(super) fn interval_seconds(rpc: &Rpc) -> u64 {
    rpc.refresh_interval.as_secs().max(1)
}

pub(super) async fn authorized_nodes(rpc: &Rpc, head: &Parts) -> Result<Response, Refused> {
    check(head, &Method::GET, "GET")?;
    let (caller, _place) = caller_of(rpc, head).await?;
    limited::pull(rpc, caller.proxy.id)?;
    let peer = caller.peer;
    // What another server changed a moment ago may have come in with the token.
    let proxy = auth::present(rpc, caller)?.proxy;
    let catalog = rpc.changes.catalog();
    let pulled = |list| rpc.fleet.pulled(proxy.id, Pull { peer, version: version_of(&head.headers), list });
    if rpc.fleet.ahead_of(proxy.id, catalog.epoch).is_some() {
        pulled(None);
        let text = "the database is older than what this proxy holds: it keeps that; see `pulse status`";
        return Err(Refused::new(StatusCode::CONFLICT, "database_older_than_fleet", text));
    }
    let newest = proxy.scope().and_then(|scope| rpc.lists.newest(scope));
    let Some(newest) = newest else {
        pulled(None);
        return Err(Refused::new(StatusCode::CONFLICT, "waiting", waiting_reason(&proxy)));
    };
    let list = &newest.signed;
    pulled(Some((list.position, list.allowlist.hash())));
    let instance = proxy.instance.and_then(|id| catalog.inventory.instance(id));
    let instance = instance.map_or("", |instance| &instance.name);
    Ok(answer(rpc, &head.headers, &proxy, list, instance))
}

fn answer(rpc: &Rpc, headers: &HeaderMap, proxy: &Proxy, list: &SignedAllowlist, instance: &str) -> Response {
    let refresh_interval = interval_seconds(rpc);
    let hash = list.allowlist.hash().to_string();
    let tag = tag(&hash, list, refresh_interval, instance);
    let mut answer = match headers.get_all(IF_NONE_MATCH).iter().any(|known| has(known, &tag, &hash)) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => {
            tracing::debug!(proxy = %proxy.id, hash, "a proxy got its list");
            let body = Nodes {
                nodes: listed(list),
                hash,
                refresh_interval,
                updated_at: time(list.updated_at),
                generated_at: time(rpc.clock.now()),
                instance,
            };
            answer::json(StatusCode::OK, &body)
        }
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(REVISION, list.position.revision.into());
    headers.insert(EPOCH, list.position.epoch.into());
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    answer
}

/// What says that an answer is the same but for the time at which it was made, which is why it is a weak one (RFC 9110,
/// 8.8.1): the list's hash, and a digest of what else is in it.
fn tag(hash: &str, list: &SignedAllowlist, refresh_interval: u64, instance: &str) -> String {
    let position = list.position;
    let rest = format!("{}\n{}\n{refresh_interval}\n{instance}", position.epoch, position.revision);
    format!("W/\"{hash}-{}\"", hex::encode(&sha256(rest.as_bytes())[..4]))
}

/// Whether a caller that names these tags has this answer, or says that it has this list.
fn has(known: &HeaderValue, tag: &str, hash: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    let (tag, known) = (bare(tag), known.to_str().unwrap_or_default());
    known.split(',').map(bare).any(|known| known == tag || known == hash || known == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_in_every_way_in_which_it_may_be_written() {
        let (tag, hash) = ("W/\"sha256:ab-01\"", "sha256:ab");
        let has = |known: &str| has(&HeaderValue::from_str(known).unwrap(), tag, hash);
        for same in
            ["W/\"sha256:ab-01\"", "\"sha256:ab-01\"", "\"x\", W/\"sha256:ab-01\"", "*", "\"sha256:ab\""]
        {
            assert!(has(same), "{same}");
        }
        for other in ["", "\"sha256:ab-02\"", "\"sha256:a\"", "\"\"", ","] {
            assert!(!has(other), "{other}");
        }
    }
}
