//! Bounds on calls, as statuses: what a caller is told that asks for too much, and where that is counted.
//!
//! In: a call whose caller is known, or that failed to say who it is. Out: a place or a token, or the status with the
//! time to wait.

use std::net::IpAddr;
use std::time::Duration;

use pulse_proto::{Token, TokenKind, reason};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::Rpc;
use super::status::retry;
use crate::accounts::ApiScope;
use crate::changes::Registration;
use crate::limits::{OVERLOAD_RETRY, Slot};
use crate::listen::Peer;
use crate::metrics::Bucket;
pub(super) use crate::refusals::source;
use crate::registry::TokenStanding;

/// The address that a call came from.
pub(super) fn peer_of(extensions: &tonic::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(Peer::ip)
}

/// The same of a request that is no call of gRPC.
pub(super) fn peer_of_http(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(Peer::ip)
}

/// Counts a call that failed because it brought no good token. Beyond what its address may, the answer is another one.
pub(super) fn failed(rpc: &Rpc, peer: Option<IpAddr>, status: Status) -> Status {
    let reason = status.get_details_error_info().map(|info| info.reason);
    // A token that was good once is no guess.
    if !matches!(reason.as_deref(), Some(reason::MISSING_TOKEN | reason::UNKNOWN_TOKEN)) {
        return status;
    }
    match rpc.limits.failed(peer) {
        Ok(()) => status,
        Err(wait) => {
            let text = "too many calls from this address brought no good token: wait, and check the token; \
                        good tokens still pass";
            empty(rpc, Bucket::FailedCall, source(peer), text, wait)
        }
    }
}

/// Takes a proxy's token for one watch.
pub(super) fn watch(rpc: &Rpc, proxy: Uuid) -> Result<(), Status> {
    rpc.limits.watches.take(&proxy).map_err(|wait| {
        let text = "this proxy begins too many watches: wait; is it running twice with one token?";
        empty(rpc, Bucket::Watch, format!("proxy:{proxy}"), text, wait)
    })
}

/// Takes a proxy's token for one list over the paths of older proxies.
pub(super) fn pull(rpc: &Rpc, proxy: Uuid) -> Result<(), Status> {
    rpc.limits.pulls.take(&proxy).map_err(|wait| {
        let text = "this proxy asks for its list too often: wait; is it running twice with one token?";
        empty(rpc, Bucket::Pull, format!("proxy:{proxy}"), text, wait)
    })
}

/// Takes a proxy's token for one new ctrl token: each is a commit of its own, and a row of the audit log.
pub(super) fn rotation(rpc: &Rpc, proxy: Uuid) -> Result<(), Status> {
    let key = (None, String::new(), proxy.to_string());
    rpc.limits.registrations.take(&key).map_err(|wait| {
        let text = "this proxy asks for a new token too often: wait";
        empty(rpc, Bucket::Registration, format!("proxy:{proxy}"), text, wait)
    })
}

/// Takes a host's token for one registration, if the host shows that it may register.
pub(super) fn registration(rpc: &Rpc, new: &Registration) -> Result<(), Status> {
    let catalog = rpc.changes.catalog();
    let has_api = new.api.as_ref().is_some_and(|api| catalog.accounts.credential(api).is_some());
    let is_known =
        has_api || new.join.as_ref().is_some_and(|join| catalog.registry.join_token(join).is_some());
    let window = catalog.registry.join_window().filter(|window| window.is_open(rpc.clock.now()));
    let is_let_in =
        new.join.is_none() && new.api.is_none() && window.is_some_and(|window| window.admits(new.peer));
    if !is_known && !is_let_in && new.proven.is_none() {
        return Ok(());
    }
    let join = new.join.as_ref().or(new.api.as_ref()).map(|token| *token.as_bytes());
    let key = (join, new.machine_id.clone(), new.hostname.to_ascii_lowercase());
    rpc.limits.registrations.take(&key).map_err(|wait| {
        let text = "this host registers too often: wait";
        empty(rpc, Bucket::Registration, source(new.peer), text, wait)
    })
}

/// A place for a call that is not a watch.
pub(super) fn call_slot(rpc: &Rpc, proxy: Uuid) -> Result<Slot, Status> {
    rpc.limits.call(proxy).ok_or_else(|| overloaded(rpc, format!("proxy:{proxy}")))
}

/// A place for a watch, for as long as it lasts. An observer's is none of the proxy's.
pub(super) fn stream_slot(rpc: &Rpc, proxy: Uuid, is_observer: bool) -> Result<Slot, Status> {
    rpc.limits
        .stream((!is_observer).then_some(proxy))
        .ok_or_else(|| overloaded(rpc, format!("proxy:{proxy}")))
}

/// Whether an API token is good, and lets its bearer register proxies.
pub(super) fn may_register(rpc: &Rpc, api: &Token) -> bool {
    let catalog = rpc.changes.catalog();
    let api = catalog.accounts.credential(&api.digest()).filter(|api| api.is_good_at(rpc.clock.now()));
    api.is_some_and(|api| api.allows(ApiScope::ProxiesRegister))
}

/// A place for a registration: one of those for hosts that bring a token which is good on this server, or of the few for
/// strangers.
pub(super) fn registration_slot<'a>(
    rpc: &Rpc,
    shown: impl IntoIterator<Item = &'a str>,
    peer: Option<IpAddr>,
) -> Result<Slot, Status> {
    let (catalog, now) = (rpc.changes.catalog(), rpc.clock.now());
    let is_good_join =
        |join: Token| catalog.registry.join_token(&join.digest()).is_some_and(|join| join.is_good_at(now));
    let is_good_ctrl = |ctrl: Token| {
        let standing = catalog.registry.token(&ctrl.digest()).map(|token| token.standing);
        matches!(standing, Some(TokenStanding::Current | TokenStanding::Next { .. }))
    };
    let is_good = |text: &str| match TokenKind::of(text) {
        Some(TokenKind::Join) => Token::parse(TokenKind::Join, text).is_ok_and(is_good_join),
        Some(TokenKind::Api) => Token::parse(TokenKind::Api, text).is_ok_and(|api| may_register(rpc, &api)),
        _ => Token::presented(text).is_ok_and(is_good_ctrl),
    };
    let slot = match shown.into_iter().any(is_good) {
        true => rpc.limits.registration(),
        false => rpc.limits.stranger(peer),
    };
    slot.ok_or_else(|| overloaded(rpc, source(peer)))
}

fn empty(rpc: &Rpc, bucket: Bucket, source: String, text: &str, wait: Duration) -> Status {
    rpc.metrics.rate_limited(bucket);
    rpc.refusals.note(reason::RATE_LIMITED, source);
    retry(Code::ResourceExhausted, reason::RATE_LIMITED, text, wait)
}

/// As much is done as can be at one time.
pub(super) fn overloaded(rpc: &Rpc, source: String) -> Status {
    rpc.refusals.note(reason::OVERLOADED, source);
    let text = "the server has as much to do as it takes at one time: come back later";
    retry(Code::ResourceExhausted, reason::OVERLOADED, text, OVERLOAD_RETRY)
}
