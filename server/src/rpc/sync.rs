//! `ReportSync`: what a proxy did with a list.

use pulse_proto::MAX_REASON_BYTES;
use pulse_proto::v1::{self, RefusalReason, SyncOutcome};
use tonic::{Request, Status};

use super::auth::present_caller;
use super::status::invalid;
use super::{Rpc, ahead, edge};
use crate::registry::Proxy;
use crate::store::Mark;

pub(super) async fn report_sync(
    rpc: &Rpc,
    request: Request<v1::ReportSyncRequest>,
) -> Result<v1::ReportSyncResponse, Status> {
    let proxy = present_caller(rpc, request.extensions())?.proxy;
    let message = request.into_inner();
    let hash = edge::hash("hash", &message.hash)?.ok_or_else(|| invalid("hash", "it is missing"))?;
    let position = edge::position("", message.epoch, message.revision)?;
    ahead::settle(rpc, position).await?;
    let mark = Mark { position, hash, at: rpc.clock.now() };
    edge::scope("scope", &message.scope)?;
    edge::any_time("at", message.at)?;
    edge::version("version", &message.version)?;
    let detail = edge::remark("detail", &message.detail, MAX_REASON_BYTES)?;
    match message.outcome() {
        SyncOutcome::Applied => {
            ahead::notice(rpc, &proxy, position);
            if rpc.fleet.applied(proxy.id, mark, message.on_disk, detail) {
                time_push(rpc, &proxy, &mark);
            }
        }
        SyncOutcome::Refused => {
            let reason = refusal_word(message.refusal_reason());
            rpc.metrics.list_refused(reason);
            tracing::warn!(proxy = %proxy.id, reason, detail, "a proxy refused its list");
            if matches!(message.refusal_reason(), RefusalReason::OlderRevision | RefusalReason::OlderEpoch) {
                ahead::notice_refusal(rpc, &proxy, position);
            }
            rpc.fleet.refused(proxy.id, mark, format!("{reason}: {detail}"));
        }
        SyncOutcome::Unspecified => return Err(invalid("outcome", "it is neither applied nor refused")),
    }
    Ok(v1::ReportSyncResponse {})
}

/// Times the way of a list from its commit to a proxy.
fn time_push(rpc: &Rpc, proxy: &Proxy, mark: &Mark) {
    let newest = proxy.scope().and_then(|scope| rpc.lists.newest(scope));
    if let Some(newest) = newest.filter(|newest| newest.signed.position == mark.position) {
        rpc.metrics.push_latency_seconds.observe(newest.since.elapsed().as_secs_f64());
    }
}

/// The reason in lower case, as logs and metrics have it.
fn refusal_word(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Unspecified => "unspecified",
        RefusalReason::WrongHash => "wrong_hash",
        RefusalReason::BadSignature => "bad_signature",
        RefusalReason::UnknownKey => "unknown_key",
        RefusalReason::WrongScope => "wrong_scope",
        RefusalReason::OlderRevision => "older_revision",
        RefusalReason::OlderEpoch => "older_epoch",
        RefusalReason::InvalidNode => "invalid_node",
        RefusalReason::TooLarge => "too_large",
    }
}
