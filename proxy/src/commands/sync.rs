//! `sync`: fetches the list once, verifies and keeps it, and prints it: what an installer calls to prime the cache.

use std::fmt::Write;

use pulse_proto::Node;
use serde_json::json;

use super::{Answer, CommandError};
use crate::config::Config;
use crate::identity::Home;
use crate::link::Failure;
use crate::seams::Seams;
use crate::sync::once::{FetchError, Fetched, fetch};
use crate::sync::standing::Standing;

pub(super) async fn sync(config: Config) -> Result<Answer, CommandError> {
    let home = Home::new(&config.state_dir);
    let Some(control) = config.control_plane else {
        let text = format!(
            "{} has no pulse_control_plane block, so there is no server to ask: run `pulse-sensor-proxy register --join STRING`",
            config.path.display()
        );
        return Err(CommandError::usage("no_control_plane", text));
    };
    let mut standing = Standing::load(home, control);
    refuse_trouble(&standing)?;
    match Box::pin(fetch(&mut standing, &Seams::system())).await {
        Ok(Fetched::Waiting(reason)) => {
            let text = format!("the server has no list for this proxy yet: {reason}");
            Err(CommandError { text, reason: "waiting".to_owned(), is_usage: false })
        }
        Ok(Fetched::List(list, kept)) => {
            if let Err(error) = kept {
                let text = format!("the list was fetched, but cannot be kept: {error}");
                return Err(CommandError { text, reason: "not_on_disk".to_owned(), is_usage: false });
            }
            let nodes = list.allowlist.nodes();
            let mut text = format!(
                "epoch {} revision {} scope {} {}, {} nodes",
                list.position.epoch,
                list.position.revision,
                list.scope,
                list.allowlist.hash(),
                nodes.len()
            );
            for node in nodes {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n  {node}");
            }
            let json = json!({
                "epoch": list.position.epoch,
                "revision": list.position.revision,
                "scope": list.scope.to_string(),
                "hash": list.allowlist.hash().to_string(),
                "nodes": nodes_json(nodes),
                "on_disk": true,
            });
            Ok(Answer { text, json })
        }
        Err(error) => {
            let reason = match &error {
                FetchError::NoToken(_) => "not_registered",
                FetchError::Trust(_) => "nothing_to_trust",
                FetchError::Identity(_) => "bad_state",
                FetchError::Call { failure: Failure::Revoked(_), .. } => "revoked",
                FetchError::Call { failure: Failure::UnknownToken(_), .. } => "unknown_token",
                FetchError::Call { failure: Failure::Refused(_), .. } => "refused",
                FetchError::Call { failure: Failure::WrongServer(_), .. } => "wrong_server",
                FetchError::Call { .. } | FetchError::Silent(_) | FetchError::Ended { .. } => "unreachable",
                FetchError::Refused { .. } => "list_refused",
            };
            let is_usage = matches!(error, FetchError::NoToken(_) | FetchError::Trust(_));
            Err(CommandError { is_usage, ..CommandError::failed(reason, &error) })
        }
    }
}

/// A person is at hand, who shall hear what is wrong with the state folder before anything else is done with it.
pub(super) fn refuse_trouble(standing: &Standing) -> Result<(), CommandError> {
    match standing.trouble() {
        None => Ok(()),
        Some(trouble) => Err(CommandError {
            text: trouble.text.clone(),
            reason: "bad_state".to_owned(),
            is_usage: trouble.needs_a_person,
        }),
    }
}

pub(super) fn nodes_json(nodes: &[Node]) -> Vec<serde_json::Value> {
    nodes.iter().map(|node| json!({ "name": node.name(), "ip": node.address().to_string() })).collect()
}
