//! `register`: the command around a registration: where the join string comes from, and what is written beside the
//! state folder.
//!
//! Always: what a person wrote stays as it is; the token is on the disk (0600) before the command says that it is done.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pulse_proto::JoinString;
use serde_json::json;

use super::{Answer, CommandError};
use crate::args::{JoinText, RegisterArgs};
use crate::commands::sync::nodes_json;
use crate::config::{Config, ControlPlane, ControlPlaneBlock, ServerUrl, add_control_plane_block};
use crate::disk;
use crate::identity::{Home, Hostname, IdentityError, Pending};
use crate::register::{self, RegisterError, Registered, host};
use crate::seams::Seams;

/// A join string has some 200 bytes.
const MAX_JOIN_BYTES: u64 = 4096;

pub(super) async fn register(given: &RegisterArgs, config: &Config) -> Result<Answer, CommandError> {
    let join = join_string(given)?;
    let url = ServerUrl::new(&join.host, join.port)
        .ok_or_else(|| CommandError::usage("bad_join_string", "the join string's host cannot be dialled"))?;
    refuse_other_pin(config, &url, &join)?;
    let pending = pending(given, join, &config.state_dir)?;
    let home = Home::new(&config.state_dir);
    // Before the join token is used: a file that cannot be written would make it wasted.
    let token_file = token_file(config);
    let block = planned_block(config, &url, &token_file)?;
    let is_writable = |path: &Path| disk::check_writable(path).map_err(|source| (path.to_owned(), source));
    is_writable(home.path()).map_err(|(path, source)| IdentityError::Write { path, source })?;
    if block.is_some() {
        is_writable(folder_of(&config.path)).map_err(|(_, source)| not_written(&config.path, &source))?;
    }

    let control = config.control_plane.as_ref();
    match Box::pin(register::register(&pending, &home, control, &Seams::system())).await {
        Ok(done) => {
            if let Some(text) = &block {
                write_config(&config.path, text)?;
            }
            home.forget_pending()?;
            register::carry_token(&done, &home, config.control_plane.as_ref(), &token_file)?;
            Ok(answer(&done, config, &url))
        }
        Err(RegisterError::Unreachable { text, .. }) => {
            home.keep_pending(&pending)?;
            if let Some(text) = &block {
                write_config(&config.path, text)?;
            }
            let text = format!(
                "{url} was not reached ({text}); the registration is kept in {home}, and `pulse-sensor-proxy run` tries \
                 it again until the join token is used, refused or past its time"
            );
            Err(CommandError { text, reason: "unreachable".to_owned(), is_usage: false })
        }
        Err(error) => {
            let reason = match &error {
                RegisterError::Refused { reason: Some(reason), .. } => reason.to_lowercase(),
                RegisterError::Refused { .. } => "refused".to_owned(),
                RegisterError::WrongServer(_) => "wrong_server".to_owned(),
                RegisterError::Trust(_) => "nothing_to_trust".to_owned(),
                RegisterError::Identity(_) => "bad_state".to_owned(),
                RegisterError::Answer(_) | RegisterError::Unreachable { .. } => "bad_answer".to_owned(),
            };
            let is_usage = match &error {
                RegisterError::Trust(_) => true,
                RegisterError::Identity(error) => error.needs_a_person(),
                _ => false,
            };
            Err(CommandError { is_usage, ..CommandError::failed(&reason, &error) })
        }
    }
}

/// From the flag, standard input, the file or the environment, in that order.
fn join_string(given: &RegisterArgs) -> Result<JoinString, CommandError> {
    let bad = |text: String| CommandError::usage("bad_join_string", text);
    let text = match (&given.join, &given.join_file, &given.join_from_environment) {
        (Some(JoinText(dash)), _, _) if dash == "-" => {
            let mut text = String::new();
            let read = io::stdin().take(MAX_JOIN_BYTES).read_to_string(&mut text);
            read.map_err(|error| bad(format!("read the join string from standard input: {error}")))?;
            text
        }
        (Some(JoinText(text)), _, _) => {
            tracing::warn!(
                "the join string stands in the process list while this runs; --join - (standard input) and --join-file \
                 keep it out"
            );
            text.clone()
        }
        (None, Some(path), _) => {
            let failed = |what: String| bad(format!("read the join string from {}: {what}", path.display()));
            let bytes = disk::read_given(path, MAX_JOIN_BYTES).map_err(|error| failed(error.to_string()))?;
            let bytes = bytes.ok_or_else(|| failed("the file does not exist".to_owned()))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        (None, None, Some(JoinText(text))) => text.clone(),
        (None, None, None) => {
            return Err(bad(
                "no join string: `pulse join create` on the server prints one; give it with --join STRING, --join - \
                 (standard input), --join-file FILE or PULSE_SENSOR_PROXY_JOIN"
                    .to_owned(),
            ));
        }
    };
    text.parse().map_err(|error: pulse_proto::join::JoinError| bad(error.to_string()))
}

/// A pin of the configuration goes before that of a registration, so with another one `run` would refuse the server.
fn refuse_other_pin(config: &Config, url: &ServerUrl, join: &JoinString) -> Result<(), CommandError> {
    let written = config.control_plane.as_ref().filter(|control| control.url == *url);
    match (written.and_then(|control| control.pin), join.pin) {
        (Some(written), Some(named)) if written != named => {
            let text = format!(
                "pulse_control_plane.pin in {} is {written}, and the join string says {named}: if the join string is right, take \
                 the pin out of the configuration (registering keeps the server's key by itself) and run this again",
                config.path.display()
            );
            Err(CommandError::usage("other_pin", text))
        }
        _ => Ok(()),
    }
}

fn pending(given: &RegisterArgs, join: JoinString, state_dir: &Path) -> Result<Pending, CommandError> {
    let name = match &given.hostname {
        Some(name) => name.trim().to_owned(),
        None => host::hostname().map_err(|error| CommandError::failed("no_hostname", &error))?,
    };
    if name.is_empty() || name.len() > 253 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let text =
            "the host's name must have 1 to 253 bytes without white space: give it with --hostname NAME";
        return Err(CommandError::usage("bad_hostname", text));
    }
    Ok(Pending {
        join,
        hostname: Hostname { name, is_given: given.hostname.is_some() },
        kind: given.kind,
        proxy_url: given.proxy_url.clone().unwrap_or_default(),
        machine_id: host::machine_id(&given.machine_id_file, state_dir),
    })
}

/// The configuration's, else the default beside the configuration file.
fn token_file(config: &Config) -> PathBuf {
    let beside = || config.path.parent().unwrap_or(Path::new("/")).join(".pulse-control-token");
    config.control_plane.as_ref().map_or_else(beside, |control| control.token_file.clone())
}

/// The configuration's text with the block behind it; `None` if the block is there.
fn planned_block(
    config: &Config,
    url: &ServerUrl,
    token_file: &Path,
) -> Result<Option<String>, CommandError> {
    if let Some(ControlPlane { url: written, .. }) = &config.control_plane {
        if written != url {
            tracing::warn!(configuration = %written, join_string = %url,
                "the configuration names another address than the join string; it stays as it is");
        }
        return Ok(None);
    }
    let text = pulse_config::read_text(&config.path)
        .map_err(|mistakes| CommandError::usage("bad_config", mistakes.to_string()))?
        .unwrap_or_default();
    let block = ControlPlaneBlock { url: url.clone(), token_file: absolute(token_file), ca_file: None };
    add_control_plane_block(&text, &block, &config.path.display().to_string())
        .map_err(|error| CommandError::usage("bad_config", error.to_string()))
}

/// Paths in the configuration are absolute, but `--config` need not be.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn not_written(path: &Path, source: &io::Error) -> CommandError {
    CommandError::usage("config_not_written", format!("write {}: {source}", path.display()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_config(path: &Path, text: &str) -> Result<(), CommandError> {
    let failed = |source: io::Error| not_written(path, &source);
    // A configuration holds no secret, and others may read it; what a person chose stays.
    let mode = fs::metadata(path).map_or(0o644, |about| about.mode() & 0o7777);
    fs::create_dir_all(folder_of(path)).map_err(failed)?;
    // A link stays a link: what it points to is written.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    disk::write_with_mode(&target, text.as_bytes(), mode).map_err(failed)
}

fn answer(done: &Registered, config: &Config, url: &ServerUrl) -> Answer {
    let identity = &done.identity;
    let proxy_id = identity.proxy_id.map(|id| id.to_string()).unwrap_or_default();
    let hostname = identity.hostname.as_ref().map(|hostname| hostname.name.as_str()).unwrap_or_default();
    let belongs = match &done.instance {
        Some(instance) => format!("instance {instance}"),
        None => "no instance yet".to_owned(),
    };
    let list = match &done.list {
        Ok(nodes) => format!("{} nodes", nodes.len()),
        Err(reason) => format!("no list yet: {reason}"),
    };
    let text = format!(
        "registered {hostname} at {url} as {proxy_id} ({belongs}, {list})\nstate {}\nnext: pulse-sensor-proxy run --config {} --state-dir {}",
        done.folder,
        config.path.display(),
        config.state_dir.display()
    );
    let json = json!({
        "proxy_id": proxy_id,
        "hostname": hostname,
        "server": url.to_string(),
        "server_id": identity.server_id.to_string(),
        "instance": done.instance,
        "waiting": done.list.as_ref().err(),
        "nodes": done.list.as_ref().ok().map(|nodes| nodes_json(nodes)),
        "state": done.folder.path().display().to_string(),
    });
    Answer { text, json }
}
