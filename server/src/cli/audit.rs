//! `pulse audit`, and how it follows.
//!
//! Always: waits for a server that goes away and comes back.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::failure::Failure;
use super::{Asking, show, text};
use crate::api;

/// How often `audit --follow` looks for new rows.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

impl Asking {
    pub(super) async fn audit(&self, after: Option<u64>) -> Result<Vec<Value>, Failure> {
        let path = match after {
            Some(seq) => format!("/audit?after={seq}&limit={}", api::MAX_AUDIT_ROWS),
            None => "/audit".to_owned(),
        };
        match self.client.call(Method::GET, &path, &()).await?.get_mut("rows").map(Value::take) {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Err(Failure::unreadable("it has no rows")),
        }
    }

    pub(super) fn audit_text(&self, rows: &[Value], with_header: bool) -> String {
        if self.json { rows.iter().map(text::json_line).collect() } else { show::audit(rows, with_header) }
    }

    /// Shows the newest rows, then new ones as they come; waits for a server that goes away and comes back.
    pub(super) async fn follow_audit(&self) -> Result<(), Failure> {
        let mut rows = self.audit(None).await?;
        let mut after = 0;
        let mut is_away = false;
        let mut with_header = true;
        loop {
            let text = self.audit_text(&rows, with_header);
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                let broken = error.kind() == ErrorKind::BrokenPipe;
                let failure = || Failure::local("OUTPUT", format!("write to standard output: {error}"));
                return if broken { Ok(()) } else { Err(failure()) };
            }
            drop(out);
            with_header = false;
            after = rows.last().and_then(|row| row.get("seq")?.as_u64()).unwrap_or(after);
            rows = loop {
                tokio::time::sleep(FOLLOW_INTERVAL).await;
                match self.audit(Some(after)).await {
                    Ok(rows) => break rows,
                    Err(failure) if failure.is_passing() => {
                        if !is_away {
                            eprintln!("{failure}\nwaiting for it");
                        }
                        is_away = true;
                    }
                    Err(failure) => return Err(failure),
                }
            };
            if std::mem::take(&mut is_away) {
                eprintln!("the server is back");
            }
        }
    }
}
