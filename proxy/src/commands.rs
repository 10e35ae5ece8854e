//! The subcommands that do one thing and end: their results and errors, for people and for programs.
//!
//! Always: what was asked for goes to standard output, one JSON document with `--json`, errors too
//! (`{"error": …, "reason": …}`). Exit codes: 0 done; 2 usage, or configuration that a person must change; 1 all else.

mod check;
mod collect;
mod register;
mod status;
mod sync;
mod unregister;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use pulse_proto::text::lines;
use serde_json::{Value, json};

use crate::RunError;
use crate::args::{Args, Command, ConfigCommand};
use crate::config::{Config, ConfigError};
use crate::identity::IdentityError;
use crate::sync::SyncError;
use crate::telemetry::chain;

/// The exit code for usage, and for configuration that a person must change.
pub const BAD_USAGE: u8 = 2;
const FAILED: u8 = 1;

/// What a command has to say.
#[derive(Debug)]
pub struct Answer {
    /// For people, without the last line end.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub struct CommandError {
    /// What happened, to what, and what to do.
    pub text: String,
    /// One word for programs.
    pub reason: String,
    /// Whether a person must change usage or configuration.
    pub is_usage: bool,
}

impl CommandError {
    fn failed(reason: &str, error: &dyn Error) -> CommandError {
        CommandError { text: chain(error), reason: reason.to_owned(), is_usage: false }
    }

    fn usage(reason: &str, text: impl Into<String>) -> CommandError {
        CommandError { text: text.into(), reason: reason.to_owned(), is_usage: true }
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.is_usage { BAD_USAGE } else { FAILED })
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        CommandError::usage("bad_config", error.to_string())
    }
}

impl From<IdentityError> for CommandError {
    fn from(error: IdentityError) -> Self {
        CommandError { is_usage: error.needs_a_person(), ..CommandError::failed("bad_state", &error) }
    }
}

impl From<RunError> for CommandError {
    fn from(error: RunError) -> Self {
        let reason = match &error {
            RunError::Sync(SyncError::Identity(IdentityError::InUse(_))) => "in_use",
            RunError::Sync(SyncError::Identity(_)) => "bad_state",
            RunError::Sync(SyncError::Trust(_)) => "nothing_to_trust",
            RunError::Stopped(_) => "stopped",
        };
        CommandError { is_usage: error.needs_a_person(), ..CommandError::failed(reason, &error) }
    }
}

/// Does what `run` does not.
///
/// # Errors
/// [`CommandError`].
pub async fn execute(args: &Args) -> Result<Answer, CommandError> {
    if let Command::Config { command: ConfigCommand::Check } = &args.command {
        return check::check(&args.config_sources());
    }
    let (config, warnings) = match &args.command {
        // What it would miss, it makes.
        Command::Register(_) => Config::load_to_write(&args.config_sources())?,
        _ => Config::load(&args.config_sources())?,
    };
    for warning in warnings {
        tracing::warn!(%warning, "configuration");
    }
    match &args.command {
        Command::Register(given) => register::register(given, &config).await,
        Command::Unregister => unregister::unregister(config).await,
        Command::Sync => sync::sync(config).await,
        Command::Status => status::status(config),
        Command::Collect => collect::collect(&config),
        Command::Config { .. } | Command::Run => {
            Err(CommandError::usage("usage", "this is not a command that ends"))
        }
    }
}

/// Prints what came of a command and gives the exit code.
pub fn conclude(result: Result<Answer, CommandError>, as_json: bool) -> ExitCode {
    let (text, code) = match result {
        Ok(answer) if as_json => (answer.json.to_string(), ExitCode::SUCCESS),
        // Servers, drivers and files had a hand in it.
        Ok(answer) => (lines(&answer.text), ExitCode::SUCCESS),
        Err(error) if as_json => {
            (json!({ "error": error.text, "reason": error.reason }).to_string(), error.exit_code())
        }
        Err(error) => {
            // Nothing is left to be told if standard error is closed.
            let _ = writeln!(io::stderr(), "error: {}", lines(&error.text));
            return error.exit_code();
        }
    };
    match writeln!(io::stdout(), "{text}") {
        // A reader that has seen enough, like `head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
        _ => code,
    }
}
