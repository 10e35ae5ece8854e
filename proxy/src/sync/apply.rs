//! What is done with one pushed list: verify, keep, put in force, and the words for the server.
//!
//! Always: in that order. Never: keeps or applies a list that fails a check.

use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::{Refusal, SignedAllowlist, v1};

use super::Sync;
use crate::gate::InForce;

/// The most bytes of a detail on the wire, and of a server's reason on the disk.
const MAX_DETAIL_BYTES: usize = 512;

impl Sync {
    /// Puts a pushed list in force, or refuses it; gives what is to be reported.
    pub(super) fn apply(
        &mut self,
        snapshot: &v1::AllowlistSnapshot,
    ) -> Result<v1::ReportSyncRequest, Refusal> {
        let list = SignedAllowlist::verify(snapshot, self.standing.keys(), self.reached)?;
        let now = SystemTime::now();
        let kept = self.standing.keep(&list, now);
        if let Err(error) = &kept {
            tracing::error!(%error, "the list is in force, but not on the disk: after a restart an older one would be");
        }
        self.reached = list.position;
        let (position, nodes) = (list.position, list.allowlist.len());
        self.gate.put(InForce::Pushed { list: Arc::new(list), since: now });
        tracing::info!(
            epoch = position.epoch,
            revision = position.revision,
            nodes,
            scope = snapshot.scope,
            "a new list is in force"
        );
        crate::telemetry::status(&format!("{nodes} nodes, revision {}", position.revision));
        Ok(v1::ReportSyncRequest {
            outcome: v1::SyncOutcome::Applied.into(),
            on_disk: kept.is_ok(),
            detail: cut(kept.err().unwrap_or_default()),
            ..about(snapshot)
        })
    }
}

/// What is reported of a refused list.
pub(super) fn refused(snapshot: &v1::AllowlistSnapshot, refusal: &Refusal) -> v1::ReportSyncRequest {
    v1::ReportSyncRequest {
        outcome: v1::SyncOutcome::Refused.into(),
        refusal_reason: refusal.reason().into(),
        detail: cut(refusal.to_string()),
        ..about(snapshot)
    }
}

fn about(snapshot: &v1::AllowlistSnapshot) -> v1::ReportSyncRequest {
    v1::ReportSyncRequest {
        epoch: snapshot.epoch,
        scope: snapshot.scope.clone(),
        revision: snapshot.revision,
        hash: snapshot.hash.clone(),
        at: Some(SystemTime::now().into()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::ReportSyncRequest::default()
    }
}

pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DETAIL_BYTES));
    text
}
