//! What is done with one pushed list: verify, keep, put in force, and the words for the server.
//!
//! Always: in that order. Never: keeps or applies a list that fails a check.

use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::{Allowlist, ListHash, Refusal, Scope, SignedAllowlist, v1};

use super::Sync;
use crate::gate::InForce;

/// The most bytes of a detail on the wire, and of a server's reason on the disk.
const MAX_DETAIL_BYTES: usize = 512;

/// The highest epoch and revision that a server keeps.
const MAX_NUMBER: u64 = i64::MAX.unsigned_abs();

impl Sync {
    /// Puts a pushed list in force, or refuses it; gives what is to be reported.
    pub(super) fn apply(
        &mut self,
        snapshot: &v1::AllowlistSnapshot,
    ) -> Result<v1::ReportSyncRequest, Refusal> {
        let list = SignedAllowlist::verify(snapshot, self.standing.keys(), self.reached)?;
        let now = self.seams.clock.now();
        let kept = self.standing.keep(&list, now);
        self.note_kept(kept.as_ref().err());
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
            ..about(snapshot, now)
        })
    }

    /// Writes what could not be written when it came: the identity, the list in force. A sign of life is a good time to
    /// try again; on a disk that was never in the way it costs nothing.
    pub(super) fn keep_unkept(&mut self) {
        if let Err(error) = self.standing.save() {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the identity is still not on the disk"
            );
        }
        // One report at a time: what is not told yet is told first.
        if !self.is_unkept || self.unreported.is_some() {
            return;
        }
        let InForce::Pushed { list, since } = &*self.gate.in_force() else { return };
        match self.standing.keep(list, *since) {
            Ok(()) => {
                self.note_kept(None);
                self.unreported = Some(v1::ReportSyncRequest {
                    outcome: v1::SyncOutcome::Applied.into(),
                    on_disk: true,
                    ..about(&list.to_wire(), self.seams.clock.now())
                });
            }
            Err(error) => tracing::debug!(error, "the list in force is still not on the disk"),
        }
    }

    /// Says once that the list in force is not on the disk, and once that it is again.
    fn note_kept(&mut self, error: Option<&String>) {
        match (std::mem::replace(&mut self.is_unkept, error.is_some()), error) {
            (false, Some(error)) => {
                tracing::error!(
                    error,
                    "the list is in force, but not on the disk: after a restart an older one would be"
                );
            }
            (true, Some(error)) => tracing::debug!(error, "this list is not on the disk either"),
            (true, None) => tracing::info!("the list in force is on the disk again"),
            (false, None) => {}
        }
    }
}

/// What is reported of a refused list. Of one that is garbage the server is told what it takes as the name of a list, so
/// that it hears of the refusal.
pub(super) fn refused(
    snapshot: &v1::AllowlistSnapshot,
    refusal: &Refusal,
    now: SystemTime,
) -> v1::ReportSyncRequest {
    let mut about = about(snapshot, now);
    about.epoch = about.epoch.min(MAX_NUMBER);
    about.revision = about.revision.min(MAX_NUMBER);
    if about.scope.parse::<Scope>().is_err() {
        about.scope.clear();
    }
    if about.hash.parse::<ListHash>().is_err() {
        let nodes = Allowlist::from_wire(&snapshot.nodes).unwrap_or_else(|_| Allowlist::new([]));
        about.hash = nodes.hash().to_string();
    }
    v1::ReportSyncRequest {
        outcome: v1::SyncOutcome::Refused.into(),
        refusal_reason: refusal.reason().into(),
        detail: cut(refusal.to_string()),
        ..about
    }
}

fn about(snapshot: &v1::AllowlistSnapshot, now: SystemTime) -> v1::ReportSyncRequest {
    v1::ReportSyncRequest {
        epoch: snapshot.epoch,
        scope: snapshot.scope.clone(),
        revision: snapshot.revision,
        hash: snapshot.hash.clone(),
        at: Some(now.into()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::ReportSyncRequest::default()
    }
}

pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_DETAIL_BYTES));
    text
}
