//! Sends what waits, oldest first, one call at a time.
//!
//! In: the buffer. Out: calls, and the buffer without what is durable. Always: what is not durable is sent again after
//! a failure, after a return of the server, and after [`RESEND_AFTER`]; waits as long as the server asks.
//! Never: gives up; the buffer's bounds end what never gets through.

use std::collections::BTreeMap;
use std::time::Duration;

use pulse_proto::v1::{self, ReportTemperaturesRequest, ReportTemperaturesResponse};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::Shared;
use super::buffer::{Buffer, Key};
use crate::backoff::{Backoff, Wait};
use crate::link::describe;

/// How long one call may take; a report is 512 KiB at most, or one node.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// When a report that the server answered, and did not call durable since, is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(30);

/// How long a refused token is not tried again, if nobody says that there is another: as long as the longest back-off.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Sends for as long as it is polled.
pub(super) async fn deliver<C, F>(shared: &Shared, mut backoff: Backoff, mut call: C)
where
    C: FnMut(ReportTemperaturesRequest) -> F,
    F: Future<Output = Result<ReportTemperaturesResponse, Status>>,
{
    let mut told = Told::default();
    let mut resend_at = None;
    loop {
        if resend_at.is_some_and(|at| at <= Instant::now()) {
            resend_at = None;
            shared.lock().send_again();
        }
        let next = shared.lock().next().map(|report| (report.key, report.encoded.len(), report.request()));
        let Some((key, bytes, request)) = next else {
            wait_for_work(shared, resend_at).await;
            continue;
        };
        let nodes: Vec<v1::Node> = request.reports.iter().filter_map(|report| report.node.clone()).collect();
        let answer = timeout(CALL_LIMIT, call(request)).await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("no answer within {} s", CALL_LIMIT.as_secs())))
        });
        match answer {
            Ok(answer) => {
                backoff.reset();
                told.refusals(nodes, &answer.refused);
                forget(shared, |buffer| buffer.answered(key, &answer));
                told.delivered(shared);
                // What was answered is all that can wait in front of the next to send.
                let is_settled = shared.lock().waiting().next().is_none_or(|report| !report.is_sent());
                resend_at = match is_settled {
                    true => None,
                    false => resend_at.or(Some(Instant::now() + RESEND_AFTER)),
                };
            }
            // The same bytes would be refused for ever, and all behind them would wait.
            Err(status) if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) => {
                backoff.reset();
                told.dropped(key, bytes, &status);
                forget(shared, |buffer| buffer.remove(key));
            }
            Err(status) => {
                told.failure(shared, &status);
                // What was answered before may be lost with the server that answered.
                shared.lock().send_again();
                resend_at = None;
                pause(shared, &mut backoff, &status).await;
            }
        }
    }
}

/// Changes the buffer, and says so if nothing waits any more.
fn forget(shared: &Shared, change: impl FnOnce(&mut Buffer)) {
    let mut buffer = shared.lock();
    change(&mut buffer);
    if buffer.is_empty() {
        shared.emptied.notify_one();
    }
}

/// Waits for something to send.
async fn wait_for_work(shared: &Shared, resend_at: Option<Instant>) {
    let resend = async {
        match resend_at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = shared.pushed.notified() => {}
        () = resend => {}
        () = shared.back.notified() => shared.lock().send_again(),
    }
}

/// Waits after a failure. The return of the stream ends it, but never before the time that the server asked for.
async fn pause(shared: &Shared, backoff: &mut Backoff, status: &Status) {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let wait = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            Wait { jitter: REFUSED_PAUSE, ..Wait::asked(asked.unwrap_or_default()) }
        }
        _ => backoff.next_asked(asked),
    };
    sleep(wait.least()).await;
    tokio::select! {
        biased;
        () = sleep(wait.jitter) => {}
        () = shared.back.notified() => {}
    }
}

/// What the log was told, so that it hears of a state when it begins and when it ends.
#[derive(Default)]
struct Told {
    failing: bool,
    /// Whether the last report was refused as a whole.
    dropping: bool,
    /// The nodes that the server refuses, and why.
    refused: BTreeMap<String, String>,
}

impl Told {
    fn failure(&mut self, shared: &Shared, status: &Status) {
        let error = describe(status);
        let waiting = shared.lock().len();
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(error, waiting, "readings still cannot be delivered");
        } else {
            tracing::warn!(code = ?status.code(), error, waiting, "readings cannot be delivered: they wait");
        }
    }

    fn delivered(&mut self, shared: &Shared) {
        if std::mem::take(&mut self.failing) {
            let waiting = shared.lock().len();
            tracing::info!(waiting, "readings are delivered again");
        }
        if std::mem::take(&mut self.dropping) {
            tracing::info!("reports are taken again");
        }
    }

    /// `OUT_OF_RANGE` is what a gRPC library says of a message beyond its limit, before the server sees it.
    fn dropped(&mut self, key: Key, bytes: usize, status: &Status) {
        let (session, sequence, error) = (key.session, key.sequence, describe(status));
        if std::mem::replace(&mut self.dropping, true) {
            tracing::debug!(%session, sequence, bytes, error, "a report is refused and dropped again");
            return;
        }
        if status.code() == Code::OutOfRange {
            tracing::error!(
                %session,
                sequence,
                bytes,
                error,
                "a report is larger than the server takes: it is dropped, and so are those like it; raise limits.max_request_bytes at the server"
            );
            return;
        }
        let fields: Vec<String> = status
            .get_details_bad_request()
            .map(|details| details.field_violations)
            .unwrap_or_default()
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect();
        tracing::error!(
            %session,
            sequence,
            error,
            fields = fields.join("; "),
            "the server refuses a report as invalid: it is dropped, and so are those like it"
        );
    }

    /// Says which nodes of a report the server newly refuses, and which it takes again: one line for each.
    fn refusals(&mut self, nodes: Vec<v1::Node>, refused: &[v1::RefusedNode]) {
        // As a valid node shows itself.
        let shown = |node: &v1::Node| match node.ip.as_str() {
            "" => node.name.clone(),
            ip => format!("{} ({ip})", node.name),
        };
        let (mut began, mut ended) = (Vec::new(), Vec::new());
        let reasons: BTreeMap<String, &str> = refused
            .iter()
            .filter_map(|refused| Some((shown(refused.node.as_ref()?), beginning(&refused.reason))))
            .collect();
        for node in nodes.iter().map(shown) {
            match reasons.get(&node) {
                Some(&reason) if self.refused.get(&node).is_none_or(|told| told != reason) => {
                    began.push((node.clone(), reason));
                    self.refused.insert(node, reason.to_owned());
                }
                Some(_) => {}
                None => ended.extend(self.refused.remove_entry(&node)),
            }
        }
        if let Some((node, reason)) = began.first() {
            tracing::warn!(
                nodes = began.len(),
                node,
                reason,
                "the server refuses readings of these nodes, the first"
            );
        }
        if let Some((node, _)) = ended.first() {
            tracing::info!(
                nodes = ended.len(),
                node,
                "the server takes readings of these nodes again, the first"
            );
        }
        // Nodes that are no longer listed are not reported, so nothing ends their refusal.
        if self.refused.len() > pulse_proto::MAX_NODES {
            self.refused.clear();
        }
    }
}

/// As much of a server's text as is kept.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(512)]
}
