//! The JSON of what is said of the audit log as a whole.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;
use crate::audit::verify::{Damage, Verdict};

/// `GET audit/verify`: whether the log is the one that was written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// Whether nothing is wrong.
    pub verifies: bool,
    /// How many rows were looked at, up to the first thing that is wrong.
    pub rows: u64,
    /// When the first of them was written; `null` without one.
    pub first_at: Option<Timestamp>,
    /// When the last of them was written; `null` without one.
    pub last_at: Option<Timestamp>,
    /// The row before the first one, `SEQ:HASH`: up to there, rows went by retention. 0: none did.
    pub base: String,
    /// The last row that was added, `SEQ:HASH`: what to keep elsewhere, and to ask for with `expect`.
    pub head: String,
    /// The first thing that is wrong, for programs: `AUDIT_ROW_EDITED`, `AUDIT_ROWS_REMOVED`, `AUDIT_ROWS_REORDERED`,
    /// `AUDIT_ROW_NOT_CHAINED`, `AUDIT_ROW_ADDED`, `AUDIT_CUT_OFF`, `AUDIT_SEAL_BROKEN`, `AUDIT_NOT_AS_EXPECTED`,
    /// `AUDIT_EXPECTED_PRUNED`.
    pub reason: Option<String>,
    /// The same for people.
    pub problem: Option<String>,
    /// The row at which it shows, if it does at one.
    pub row: Option<u64>,
}

impl From<&Verdict> for AuditVerdict {
    fn from(verdict: &Verdict) -> AuditVerdict {
        let at =
            |ms: u64| (verdict.rows > 0).then(|| time(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)));
        let damage = verdict.damage.as_ref();
        AuditVerdict {
            verifies: damage.is_none(),
            rows: verdict.rows,
            first_at: at(verdict.first_at_ms),
            last_at: at(verdict.last_at_ms),
            base: verdict.base.to_string(),
            head: verdict.head.to_string(),
            reason: damage.map(|damage| damage.reason().to_owned()),
            problem: damage.map(ToString::to_string),
            row: damage.and_then(Damage::row),
        }
    }
}
