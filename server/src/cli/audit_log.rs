//! `pulse audit verify` and `pulse audit export`: the audit log as a whole.
//!
//! Always: an exported file is whole and was read back before it has its name; what does not verify ends with exit code 1.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use http::Method;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::text::{clean, count, json, time};
use super::{Asking, client::segment, print};
use crate::api::AuditVerdict;
use crate::audit::Point;
use crate::audit::export::{self, Header};
use crate::audit::verify::Verdict;
use crate::whole_file::flush_folder_of;

impl Asking {
    /// Has the server verify its log.
    pub(super) async fn verify_audit(&self, expect: Option<&Point>) -> Result<(), Failure> {
        let path = match expect {
            Some(point) => format!("/audit/verify?expect={}", segment(&point.to_string())),
            None => "/audit/verify".to_owned(),
        };
        let answer = self.client.call(Method::GET, &path, &()).await?;
        let verdict: AuditVerdict = super::typed(answer)?;
        say(&verdict, "the audit log", self.json)
    }

    /// Writes the log to a file, or to standard output.
    pub(super) async fn export_audit(
        &self,
        file: &Path,
        after: Option<u64>,
        force: bool,
    ) -> Result<(), Failure> {
        let path = match after {
            Some(seq) => format!("/audit/export?after={seq}"),
            None => "/audit/export".to_owned(),
        };
        if file == Path::new("-") {
            let write = |piece: &[u8]| io::stdout().lock().write_all(piece);
            let failed =
                |error: io::Error| Failure::local("OUTPUT", format!("write to standard output: {error}"));
            return self.client.download(Method::GET, &path, |piece| write(piece).map_err(failed)).await;
        }
        if !force && file.symlink_metadata().is_ok() {
            let text = format!(
                "{} is there already: choose another name, or say --force to replace it",
                file.display()
            );
            return Err(Failure::local("FILE_EXISTS", text));
        }
        let failed = |error: io::Error| {
            let text = format!("write {}: {error}; nothing was exported", file.display());
            Failure::local("FILE_NOT_WRITTEN", text)
        };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut under_way = NamedTempFile::new_in(folder).map_err(failed)?;
        let download =
            self.client.download(Method::GET, &path, |piece| under_way.write_all(piece).map_err(failed));
        let cancelled =
            || Failure::local("CANCELLED", "cancelled: nothing was exported, and nothing is left".to_owned());
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            done = download => done?,
            _ = interrupt.recv() => return Err(cancelled()),
            _ = terminate.recv() => return Err(cancelled()),
        }
        under_way.as_file().sync_all().map_err(failed)?;
        let (header, verdict) = read(under_way.path(), None)?;
        // One that does not hold is kept too: it is what there is.
        let named = if force { under_way.persist(file) } else { under_way.persist_noclobber(file) };
        named.map_err(|error| failed(error.error))?;
        flush_folder_of(file).map_err(failed)?;
        let verdict = AuditVerdict::from(&verdict);
        let shown = clean(&file.display().to_string());
        if !verdict.verifies {
            return say(&verdict, &format!("{shown} was written, and what it holds"), self.json);
        }
        print(&match self.json {
            true => {
                json(&json!({ "file": file.display().to_string(), "header": header, "rows": verdict.rows }))
            }
            false => format!("wrote {shown}: {}\n{}", rows(&verdict), keep(&verdict)),
        })
    }
}

/// Verifies an exported file, without a server.
pub(super) fn verify_file(file: &Path, expect: Option<&Point>, as_json: bool) -> Result<(), Failure> {
    let (_, verdict) = read(file, expect)?;
    say(&AuditVerdict::from(&verdict), &clean(&file.display().to_string()), as_json)
}

fn read(file: &Path, expect: Option<&Point>) -> Result<(Header, Verdict), Failure> {
    let verified = File::open(file)
        .map_err(Into::into)
        .and_then(|content| export::verify(BufReader::new(content), expect.cloned()));
    verified.map_err(|error| Failure::local("NO_AUDIT_EXPORT", format!("{}: {error}", file.display())))
}

/// Shows a verdict; one that something is wrong is a failure.
fn say(verdict: &AuditVerdict, what: &str, as_json: bool) -> Result<(), Failure> {
    if let Some(reason) = &verdict.reason {
        let row = verdict.row.map(|row| format!("row {row}: ")).unwrap_or_default();
        let problem = verdict.problem.as_deref().unwrap_or("it does not say what is wrong");
        let text = format!("{what} is not as it was written: {row}{problem}");
        return Err(Failure::local(reason, text));
    }
    if as_json {
        return print(&json(&json!(verdict)));
    }
    print(&format!("{what} is as it was written: {}\n{}", rows(verdict), keep(verdict)))
}

fn rows(verdict: &AuditVerdict) -> String {
    let rows = count(usize::try_from(verdict.rows).unwrap_or(usize::MAX), "row");
    match (verdict.first_at, verdict.last_at) {
        (Some(first), Some(last)) => format!("{rows}, {} to {}", time(first), time(last)),
        _ => rows,
    }
}

fn keep(verdict: &AuditVerdict) -> String {
    let head = clean(&verdict.head);
    format!(
        "its last row is {head}\nkept elsewhere, that shows later whether it is there still: pulse audit verify --expect {head}\n"
    )
}
