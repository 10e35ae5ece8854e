//! What a proxy says when it opens a watch, checked: the list that it holds, and how it began.

use pulse_proto::{ListHash, MAX_REASON_BYTES, Position, v1};
use tonic::Status;

use crate::fleet::Opened;
use crate::rpc::auth::Caller;
use crate::rpc::{Rpc, ahead, edge};

/// What the proxy said it holds.
pub(super) struct Held {
    pub(super) scope: String,
    pub(super) position: Position,
    pub(super) hash: ListHash,
    pub(super) is_in_force: bool,
}

/// Checks a request, and notes what it tells of a database that is older than the fleet.
pub(super) fn read(
    rpc: &Rpc,
    caller: &Caller,
    message: &v1::WatchAuthorizedNodesRequest,
) -> Result<(Option<Box<Held>>, Opened), Status> {
    let hash = edge::hash("hash", &message.hash)?;
    let position = edge::position("", message.epoch, message.revision)?;
    let scope = edge::scope("scope", &message.scope)?;
    let version = edge::version("version", &message.version)?;
    // Who names a list holds it in force, unless it says that another one is.
    let is_in_force = !matches!(message.source(), v1::ListSource::Static | v1::ListSource::None);
    let held = hash.map(|hash| Box::new(Held { scope, position, hash, is_in_force }));
    if held.is_some() && caller.observes_until.is_none() {
        ahead::notice(rpc, &caller.proxy, position);
    }
    let detail = edge::remark("kept_list_detail", &message.kept_list_detail, MAX_REASON_BYTES)?;
    let kept_list = kept_list_word(message.kept_list_problem()).map(|problem| (problem.to_owned(), detail));
    if let Some((problem, detail)) = kept_list.as_ref().filter(|_| message.source() != v1::ListSource::Pushed)
    {
        tracing::warn!(proxy = %caller.proxy.id, problem, detail, "a proxy could not begin with its kept list");
    }
    let opened = Opened {
        peer: caller.peer,
        version,
        list_source: source_word(message.source()).to_owned(),
        insecure_skip_verify: message.insecure_skip_verify,
        kept_list,
    };
    Ok((held, opened))
}

/// The problem in lower case; `None`: there is none, or a later version's.
fn kept_list_word(problem: v1::KeptListProblem) -> Option<&'static str> {
    match problem {
        v1::KeptListProblem::Unspecified => None,
        v1::KeptListProblem::Missing => Some("missing"),
        v1::KeptListProblem::Damaged => Some("damaged"),
        v1::KeptListProblem::Older => Some("older"),
        v1::KeptListProblem::Foreign => Some("foreign"),
        v1::KeptListProblem::Unreadable => Some("unreadable"),
    }
}

fn source_word(source: v1::ListSource) -> &'static str {
    match source {
        v1::ListSource::Unspecified => "",
        v1::ListSource::Pushed => "pushed",
        v1::ListSource::Cache => "cache",
        v1::ListSource::Static => "static",
        v1::ListSource::None => "none",
    }
}
