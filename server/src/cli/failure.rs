//! [`Failure`]: what the command line says when something was not done, and with which exit code it ends.
//!
//! Always: the text says what happened, to what, and what to do next; the reason is for programs.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use http::StatusCode;
use serde_json::json;

use super::text;
use crate::api::ApiError;

/// Usage, or a configuration that a person must change.
const USAGE: u8 = 2;
/// Everything else.
const FAILED: u8 = 1;

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// With which code the program ends.
    pub(super) exit_code: u8,
    reason: String,
    text: String,
    field: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::clean_lines(&self.text))
    }
}

impl Failure {
    fn new(exit_code: u8, reason: &str, text: String) -> Failure {
        Failure { exit_code, reason: reason.to_owned(), text, field: None }
    }

    /// Something on this side failed.
    pub(super) fn local(reason: &str, text: String) -> Failure {
        Failure::new(FAILED, reason, text)
    }

    /// What was typed cannot be meant.
    pub(super) fn usage(reason: &str, text: String) -> Failure {
        Failure::new(USAGE, reason, text)
    }

    /// The configuration cannot be read, so nobody knows where the socket is.
    pub(super) fn configuration(mistakes: String) -> Failure {
        let text =
            format!("{mistakes}\nmend it, or say where the server is: --data-dir DIR or --socket PATH");
        Failure::new(USAGE, "CONFIGURATION", text)
    }

    /// The socket cannot be connected to.
    pub(super) fn connecting(socket: &Path, error: &io::Error) -> Failure {
        let path = socket.display();
        let elsewhere = "if it runs with another data folder, name it: --data-dir DIR";
        match error.kind() {
            ErrorKind::NotFound => Failure::local(
                "SERVER_NOT_RUNNING",
                format!(
                    "no server runs here: {path} does not exist; start it with `pulse serve`, or {elsewhere}"
                ),
            ),
            ErrorKind::ConnectionRefused => Failure::local(
                "SERVER_NOT_RUNNING",
                format!(
                    "no server answers on {path}: it stopped without cleaning up; start it with `pulse serve`, or \
                     {elsewhere}"
                ),
            ),
            ErrorKind::PermissionDenied => Failure::local(
                "PERMISSION_DENIED",
                format!(
                    "{path} may not be opened by this user; run the command as root (sudo) or as the server's own \
                     user, or {elsewhere}"
                ),
            ),
            _ => Failure::local(
                "SOCKET",
                format!("connect to {path}: {error}; is it the server's admin socket?"),
            ),
        }
    }

    /// The connection broke, or no answer came.
    pub(super) fn exchange(server: &dyn fmt::Display, error: &dyn fmt::Display) -> Failure {
        let text = format!("no answer from the server on {server}: {error}; see its log, and ask again");
        Failure::local("NO_ANSWER", text)
    }

    /// The server refused, and said why.
    pub(super) fn refused(status: StatusCode, body: &[u8]) -> Failure {
        match serde_json::from_slice::<ApiError>(body) {
            Ok(ApiError { detail, reason, field, .. }) => {
                Failure { field, ..Failure::new(FAILED, &reason, detail) }
            }
            // Something before the API answered, such as the gate that lets only root and the server's user in.
            Err(_) => {
                let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
                Failure::local("REFUSED", format!("the server refused ({status}): {text}"))
            }
        }
    }

    /// The server's answer makes no sense.
    pub(super) fn unreadable(why: &str) -> Failure {
        let text = format!(
            "the server's answer cannot be read: {why}; server and command may be of different versions, see \
             `pulse status --json`"
        );
        Failure::local("UNREADABLE_ANSWER", text)
    }

    /// The same, with more to say.
    pub(super) fn with(mut self, text: &str) -> Failure {
        self.text.push_str(text);
        self
    }

    /// Whether it passes once the server is back.
    pub(super) fn is_passing(&self) -> bool {
        ["SERVER_NOT_RUNNING", "NOT_REACHED", "NO_ANSWER", "DRAINING", "STORE_UNAVAILABLE"]
            .contains(&self.reason.as_str())
    }

    /// For `--json`.
    pub(super) fn to_json(&self) -> String {
        let mut value = json!({"error": self.text, "reason": self.reason});
        if let Some(field) = &self.field {
            value["field"] = json!(field);
        }
        text::json_line(&value).trim_end().to_owned()
    }
}
