//! `/audit`: who did what, oldest first; whether the log is the one that was written; and all of it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use super::extract::{Json, Query};
use super::refusal::Refusal;
use crate::Pulse;
use crate::api::{self, AUDIT_ROWS, MAX_AUDIT_ROWS, time};
use crate::audit::export::{Header, line};
use crate::audit::{FROM, Point, RESULT, Row};

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

/// Which row the log must have.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Expected {
    /// `SEQ:HASH`, as it was noted elsewhere.
    #[serde(default)]
    expect: Option<String>,
}

/// Verifies the log. That something is wrong with it is an answer, and no error.
#[utoipa::path(
    get,
    path = "/audit/verify",
    operation_id = "verify_audit",
    tag = "audit",
    security(("api_token" = ["settings:read"]), ("session" = [])),
    params(Expected),
    responses((status = OK, description = "What was found.", body = api::AuditVerdict)),
)]
pub(super) async fn verify(
    State(pulse): State<Arc<Pulse>>,
    Query(expected): Query<Expected>,
) -> Result<Json<api::AuditVerdict>, Refusal> {
    let expected = expected.expect.as_deref().map(str::parse).transpose();
    let expected = expected.map_err(|rule: String| Refusal::invalid("expect", format!("expect {rule}")))?;
    Ok(Json(api::AuditVerdict::from(&pulse.store.audit_verify(expected).await?)))
}

/// Which part of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// The rows behind this one; left out: all.
    #[serde(default)]
    after: Option<u64>,
}

/// The log as lines of JSON, as it is at this moment. What goes wrong later cuts the stream short, and its first line says where it
/// would end.
#[utoipa::path(
    get,
    path = "/audit/export",
    operation_id = "export_audit",
    tag = "audit",
    security(("api_token" = ["settings:read"]), ("session" = [])),
    params(Part),
    responses((status = OK, description = "A header, then one row a line.", body = String, content_type = "application/x-ndjson")),
)]
pub(super) async fn export(
    State(pulse): State<Arc<Pulse>>,
    Query(part): Query<Part>,
) -> Result<Response, Refusal> {
    let (server_id, ends) = pulse.store.audit_ends().await?;
    let base = match part.after.filter(|after| *after > ends.base.seq) {
        None => ends.base,
        Some(after) if after > ends.head.seq => {
            let text = format!("the log ends with row {}, and {after} is behind it", ends.head.seq);
            return Err(Refusal::invalid("after", text));
        }
        Some(after) => {
            let found = pulse.store.audit_after(after - 1, 1).await?.pop().filter(|row| row.seq == after);
            let missing =
                || Refusal::not_found(format!("row {after} is missing; `pulse audit verify` tells more"));
            found.map(|row| Point { seq: row.seq, hash: row.hash }).ok_or_else(missing)?
        }
    };
    let (lines_tx, lines) = mpsc::channel(EXPORTED_AHEAD);
    let header = Header::new(server_id, base, ends.head);
    tokio::spawn(async move {
        if let Err(error) = send_lines(&pulse, header, &lines_tx).await {
            // Whoever reads may be gone.
            let _ = lines_tx.send(Err(error)).await;
        }
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(ReceiverStream::new(lines)))
        .into_response())
}

/// How many pages of an export wait for whoever reads it.
const EXPORTED_AHEAD: usize = 2;

async fn send_lines(
    pulse: &Pulse,
    header: Header,
    lines: &mpsc::Sender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    let mut page = line(&header)?;
    let (mut last, head) = (header.base.seq, header.head.seq);
    loop {
        // Whoever reads is gone: so be it.
        if lines.send(Ok(page)).await.is_err() || last >= head {
            return Ok(());
        }
        let rows = pulse.store.audit_after(last, AUDIT_ROWS).await.map_err(io::Error::other)?;
        page = Vec::new();
        let before = last;
        for row in rows.into_iter().take_while(|row| row.seq <= head) {
            page.extend(line(&row)?);
            last = row.seq;
        }
        if last == before {
            return Err(io::Error::other("rows are missing at the end"));
        }
    }
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
    // It was written as JSON; were it damaged, its text still says something.
    let detail: Value = serde_json::from_str(&row.detail).unwrap_or(Value::String(row.detail));
    let word = |key: &str| detail.get(key).and_then(Value::as_str).map(str::to_owned);
    api::AuditRow {
        from: word(FROM),
        result: word(RESULT),
        seq: row.seq,
        at: time(SystemTime::UNIX_EPOCH + Duration::from_millis(row.at_ms)),
        actor: row.actor,
        action: row.action,
        target: row.target,
        detail,
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
