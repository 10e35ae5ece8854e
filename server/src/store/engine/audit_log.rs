//! The audit log as a whole: verified, and shortened to what shall be kept.
//!
//! In: a row that was noted elsewhere; how long rows are kept. Out: what is wrong; how many rows went.
//! Always: read some rows at a time, by a thread that reads, so that nobody waits for it; rows go only if they are as they were
//! written, and the row that says so comes with it. Never: takes away what another server may still ask for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::audit::{self, Removed};
use super::fault::{Fault, Result};
use super::sql::Sql;
use super::{Engine, catalog, leave};
use crate::audit::verify::{Damage, Verdict, Verifier};
use crate::audit::{Ends, Point, unix_ms};
use crate::config::AuditRetention;
use crate::sealing::SealingKey;
use crate::store::{Leave, StoreError};

/// How many rows are read at once: some 1 MiB, and a few ms.
const PAGE: u32 = 500;

/// The most rows that go in one transaction: some 10 ms of work.
const BATCH: u32 = 1_000;

/// How often verifying begins again because the log was shortened, or its key exchanged, meanwhile.
const ATTEMPTS: usize = 3;

/// So long rows stay beyond their age, so that those of a day go together.
const SLACK: Duration = Duration::from_hours(24);

/// Rows of so many revisions stay for a while, where other servers may not have heard of the newest ones: by them they know
/// that it is the same history.
const KEPT_REVISIONS: u64 = 100;
const KEPT_FOR: Duration = Duration::from_hours(1);

/// What the log is judged by, as it is at one moment.
struct Judged {
    ends: Ends,
    is_sealed: bool,
    revision: u64,
    /// A row where none can be.
    put_there: Option<Damage>,
}

impl Engine {
    /// Verifies the log. `expected` is a row that was noted elsewhere.
    pub(in crate::store) async fn audit_verify(
        &self,
        expected: Option<Point>,
    ) -> std::result::Result<Verdict, StoreError> {
        let mut judged = self.judged().await?;
        for _ in 1..ATTEMPTS {
            let verdict = self.verified(&judged, expected.clone()).await?;
            let now = self.judged().await?;
            let is_still = now.ends.base == judged.ends.base && now.is_sealed == judged.is_sealed;
            if verdict.damage.is_none() || is_still {
                return Ok(verdict);
            }
            judged = now;
        }
        self.verified(&judged, expected).await
    }

    /// Both ends, and the fleet.
    pub(in crate::store) async fn audit_ends(&self) -> std::result::Result<(Uuid, Ends), StoreError> {
        self.ask("read the ends of the audit log", |sql| {
            let sealed = audit::ends(sql)?;
            Ok((sealed.fleet, sealed.ends))
        })
        .await
    }

    async fn judged(&self) -> std::result::Result<Judged, StoreError> {
        let sealing = Arc::clone(&self.sealing);
        self.ask("read the ends of the audit log", move |sql| {
            let sealed = audit::ends(sql)?;
            let (base, head) = (sealed.ends.base.seq, sealed.ends.head.seq);
            let put_there = audit::bounds(sql)?.and_then(|(first, last)| match (first, last) {
                (first, _) if first <= base => Some(Damage::PutThere { seq: first, first: base + 1 }),
                (_, last) if last > head => Some(Damage::NotTheLast { seq: last }),
                _ => None,
            });
            let is_sealed = sealed.is_sealed_by(&sealing.key());
            Ok(Judged { ends: sealed.ends, is_sealed, revision: catalog::revision(sql)?, put_there })
        })
        .await
    }

    async fn verified(
        &self,
        judged: &Judged,
        expected: Option<Point>,
    ) -> std::result::Result<Verdict, StoreError> {
        let Judged { ends, is_sealed, revision, put_there } = judged;
        let head = ends.head.seq;
        let mut verifier = Verifier::new(ends.clone(), expected);
        while verifier.last().seq < head && verifier.damage().is_none() {
            let after = verifier.last().seq;
            let rows = self.audit_after(after, PAGE).await?;
            for row in &rows {
                // What was added since belongs to another end.
                if row.seq <= head {
                    verifier.row(row, &mut |_| ());
                }
            }
            if verifier.last().seq == after {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Of what is wrong the first counts.
        let mut verdict = verifier.end(Some(*revision), *is_sealed, &mut |_| ());
        verdict.damage = verdict.damage.or_else(|| put_there.clone());
        Ok(verdict)
    }

    /// Takes away a batch of the oldest rows that need not be kept; `began`: there was one before it. Out: whether there may be more.
    /// `leave` is that of the server whose work it is.
    pub(in crate::store) async fn prune_audit(
        &self,
        keep: AuditRetention,
        now: SystemTime,
        leave: Leave,
        began: bool,
    ) -> std::result::Result<bool, StoreError> {
        let sealing = Arc::clone(&self.sealing);
        let removed = self
            .transact("shorten the audit log", move |sql, _| {
                leave::check(leave, sql)?;
                prune(sql, &sealing.key(), keep, now, began)
            })
            .await?;
        if let Some(Removed { rows, last }) = &removed {
            tracing::info!(rows, up_to = last, "old rows of the audit log were removed");
        }
        Ok(removed.is_some_and(|removed| removed.rows == u64::from(BATCH)))
    }
}

/// Takes away a batch, if there is one.
fn prune(
    database: &dyn Sql,
    key: &SealingKey,
    keep: AuditRetention,
    now: SystemTime,
    began: bool,
) -> Result<Option<Removed>> {
    let sealed = audit::held(database)?;
    let Ends { base, head, .. } = &sealed.ends;
    let rows = head.seq.saturating_sub(base.seq);
    // Begun late, and then gone on with for a while: it is not done for every single row.
    let begins = began || rows > keep.max_rows;
    let too_many = if begins { rows.saturating_sub(keep.max_rows - keep.max_rows / 20) } else { 0 };
    let page = audit::after(database, base.seq, BATCH)?;
    let before = |age: Duration| now.checked_sub(age).map_or(0, unix_ms);
    let late = before(keep.max_age.saturating_add(SLACK));
    let are_old = began || page.first().is_some_and(|row| row.at_ms < late);
    let newest = catalog::revision(database)?;
    let is_needed = |revision: u64, at_ms: u64| {
        database.is_shared() && revision + KEPT_REVISIONS > newest && at_ms > before(KEPT_FOR)
    };
    let mut verifier = Verifier::new(sealed.ends.clone(), None);
    let mut last = None;
    for (count, row) in (0..).zip(page) {
        let is_old = are_old && row.at_ms < before(keep.max_age);
        let goes = (count < too_many || is_old) && row.seq < head.seq;
        if !goes || is_needed(row.revision, row.at_ms) {
            break;
        }
        verifier.row(&row, &mut |_| ());
        last = Some(row);
    }
    let Some(last) = last else { return Ok(None) };
    let kept = |damage: &Damage| {
        let row = damage.row().map(|row| format!("row {row}: ")).unwrap_or_default();
        Fault::Unreadable(format!(
            "nothing is removed from an audit log that is not as it was written: {row}{damage}"
        ))
    };
    if let Some(damage) = verifier.damage() {
        return Err(kept(damage));
    }
    if !sealed.is_sealed_by(key) {
        return Err(kept(&Damage::Seal));
    }
    audit::remove_up_to(database, key, &last, now).map(Some)
}
