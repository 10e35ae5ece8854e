//! `/audit`: who did what, oldest first.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::extract::{Json, Query};
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, AUDIT_ROWS, MAX_AUDIT_ROWS, time};
use crate::audit::Row;

/// Which rows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Those behind this one; left out: the newest.
    #[serde(default)]
    after: Option<u64>,
    /// At most so many; 100 by default.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists who did what, the oldest first.
#[utoipa::path(
    get,
    path = "/audit",
    operation_id = "list_audit",
    tag = "audit",
    security(("api_token" = ["settings:read"]), ("session" = [])),
    params(Which),
    responses((status = OK, description = "The rows.", body = api::AuditRows)),
)]
pub(super) async fn list(
    State(pulse): State<Arc<Pulse>>,
    Query(which): Query<Which>,
) -> Result<Json<api::AuditRows>, Refusal> {
    let limit = limit(which.limit)?;
    let rows = match which.after {
        Some(seq) => pulse.store.audit_after(seq, limit).await?,
        None => pulse.store.audit_tail(limit).await?,
    };
    Ok(Json(api::AuditRows { rows: rows.into_iter().map(view).collect() }))
}

fn limit(asked: Option<u32>) -> Result<u32, Refusal> {
    match asked.unwrap_or(AUDIT_ROWS) {
        limit @ 1..=MAX_AUDIT_ROWS => Ok(limit),
        limit => {
            let text =
                format!("limit is 1 to {MAX_AUDIT_ROWS}, not {limit}; ask for the rest with after=SEQ");
            Err(Refusal::invalid("limit", text))
        }
    }
}

fn view(row: Row) -> api::AuditRow {
    api::AuditRow {
        seq: row.seq,
        at: time(SystemTime::UNIX_EPOCH + Duration::from_millis(row.at_ms)),
        actor: row.actor,
        action: row.action,
        target: row.target,
        // It was written as JSON; were it damaged, its text still says something.
        detail: serde_json::from_str(&row.detail).unwrap_or(Value::String(row.detail)),
        revision: row.revision,
        previous_hash: row.previous_hash,
        hash: row.hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Entry, FIRST};
    use serde_json::json;

    #[test]
    fn the_limit_has_bounds_that_are_named() {
        assert_eq!(limit(None).unwrap(), AUDIT_ROWS);
        assert_eq!(limit(Some(MAX_AUDIT_ROWS)).unwrap(), MAX_AUDIT_ROWS);
        assert!(limit(Some(0)).is_err() && limit(Some(MAX_AUDIT_ROWS + 1)).is_err());
    }

    #[test]
    fn the_chain_can_be_checked_from_the_answer() {
        let detail = json!({"b": [1, "ü"], "a": null});
        let entry = Entry {
            at_ms: 1_767_323_045_006,
            actor: "server".to_owned(),
            action: "instance.add",
            target: "instance:home".to_owned(),
            detail,
        };
        let row = Row::chain(&entry, 1, 2, FIRST);
        let shown = view(row.clone());
        let again = Row {
            seq: shown.seq,
            at_ms: shown.at.as_millisecond().cast_unsigned(),
            actor: shown.actor,
            action: shown.action,
            target: shown.target,
            detail: shown.detail.to_string(),
            revision: shown.revision,
            previous_hash: shown.previous_hash,
            hash: shown.hash,
        };
        assert_eq!(again.computed_hash(), row.hash);
    }
}
