//! `unregister`: takes this host off its server, and marks the state folder so.
//!
//! Always: the server first; nothing is marked that the server has not said. A proxy that runs hears it on its stream.

use std::time::Duration;

use pulse_proto::v1;
use serde_json::json;
use tokio::time::timeout;

use super::sync::refuse_trouble;
use super::{Answer, CommandError};
use crate::config::Config;
use crate::identity::Home;
use crate::link::{Failure, Link};
use crate::seams::Seams;
use crate::sync::standing::Standing;
use crate::tls;

/// From dialling to the answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Why nothing may be read, as the state folder has it.
const REASON: &str = "unregistered on this host";

pub(super) async fn unregister(config: Config) -> Result<Answer, CommandError> {
    let home = Home::new(&config.state_dir);
    let not_registered = |text: String| CommandError::usage("not_registered", text);
    let Some(control) = config.control_plane else {
        let text =
            format!("{} has no pulse_control_plane block: there is nothing to undo", config.path.display());
        return Err(not_registered(text));
    };
    let mut standing = Standing::load(home.clone(), control);
    refuse_trouble(&standing)?;
    let server = standing.control().url.to_string();
    let Some(token) = standing.token() else {
        return Err(not_registered(format!(
            "this host is not registered with {server}: there is nothing to undo"
        )));
    };
    let tls = tls::client_config(&standing.trust())
        .map_err(|error| CommandError::usage("nothing_to_trust", error.to_string()))?;
    let link = Link::new(standing.control().url.clone(), tls, Seams::system().network);
    link.use_token(Some(token));
    let mut client = link.client();
    let failed = |reason: &str, text: String| CommandError {
        text: format!("take this host off {server}: {text}; nothing is changed"),
        reason: reason.to_owned(),
        is_usage: false,
    };
    match timeout(LIMIT, client.unregister(v1::UnregisterRequest {})).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) => match Failure::of(&status) {
            // As when an earlier answer was lost on its way.
            Failure::Revoked(_) => {}
            Failure::UnknownToken(text) => return Err(failed("unknown_token", text)),
            Failure::WrongServer(text) => return Err(failed("wrong_server", text)),
            Failure::Refused(text) | Failure::Replaced(text) => return Err(failed("refused", text)),
            Failure::Unreachable(text) | Failure::Unavailable { text, .. } => {
                return Err(failed("unreachable", text));
            }
        },
        Err(_) => return Err(failed("unreachable", format!("no answer within {} s", LIMIT.as_secs()))),
    }
    // Or it would register again by itself.
    home.forget_pending()?;
    standing.revoke(REASON)?;
    let proxy_id = standing.identity().and_then(|identity| identity.proxy_id);
    let text = format!(
        "this host is off {server}: nothing may be read here until it is registered again with a fresh join string"
    );
    Ok(Answer { text, json: json!({ "server": server, "proxy_id": proxy_id, "unregistered": true }) })
}
