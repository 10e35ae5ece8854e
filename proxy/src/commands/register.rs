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
use crate::args::RegisterArgs;
use crate::commands::sync::nodes_json;
use crate::config::{Config, ControlPlane, ControlPlaneBlock, ServerUrl, add_control_plane_block};
use crate::disk;
use crate::identity::{Home, Hostname, Pending};
use crate::register::{self, RegisterError, Registered, host};

/// A join string has some 200 bytes.
const MAX_JOIN_BYTES: u64 = 4096;

pub(super) async fn register(given: &RegisterArgs, config: &Config) -> Result<Answer, CommandError> {
    let join = join_string(given)?;
    let url = ServerUrl::new(&join.host, join.port)
        .ok_or_else(|| CommandError::usage("bad_join_string", "the join string's host cannot be dialled"))?;
    let pending = pending(given, join)?;
    let home = Home::new(&config.state_dir);
    // Before the join token is used: a file that cannot be written would make it wasted.
    let token_file = token_file(config);
    let block = planned_block(config, &url, &token_file)?;

    match Box::pin(register::register(&pending, &home, config.control_plane.as_ref())).await {
        Ok(done) => {
            if let Some(text) = &block {
                write_config(&config.path, text)?;
            }
            finish(&done, &home, config, &token_file)?;
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
        (Some(dash), _, _) if dash == "-" => {
            let mut text = String::new();
            let read = io::stdin().take(MAX_JOIN_BYTES).read_to_string(&mut text);
            read.map_err(|error| bad(format!("read the join string from standard input: {error}")))?;
            text
        }
        (Some(text), _, _) => text.clone(),
        (None, Some(path), _) => {
            let failed = |what: String| bad(format!("read the join string from {}: {what}", path.display()));
            let bytes = disk::read_given(path, MAX_JOIN_BYTES).map_err(|error| failed(error.to_string()))?;
            let bytes = bytes.ok_or_else(|| failed("the file does not exist".to_owned()))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        (None, None, Some(text)) => text.clone(),
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

fn pending(given: &RegisterArgs, join: JoinString) -> Result<Pending, CommandError> {
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
        machine_id: host::machine_id(&given.machine_id_file),
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

fn write_config(path: &Path, text: &str) -> Result<(), CommandError> {
    let failed = |source: io::Error| {
        let text = format!("write {}: {source}", path.display());
        CommandError { text, reason: "config_not_written".to_owned(), is_usage: true }
    };
    // A configuration holds no secret, and others may read it; what a person chose stays.
    let mode = fs::metadata(path).map_or(0o644, |about| about.mode() & 0o7777);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // A link stays a link: what it points to is written.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    disk::write_with_mode(&target, text.as_bytes(), mode).map_err(failed)
}

/// Writes the token where the configuration says, notes that it is taken up, and forgets what waited.
fn finish(done: &Registered, home: &Home, config: &Config, token_file: &Path) -> Result<(), CommandError> {
    home.forget_pending()?;
    if let Some(control) = &config.control_plane
        && home.find(&control.url).ok().flatten().is_none_or(|(folder, _)| folder != done.folder)
    {
        // The token file belongs to the configured server, which must never see another one's token.
        tracing::warn!(token_file = %token_file.display(),
            "the configuration names another server than the join string: its token file stays as it is, and `run` uses the new registration once the configuration names its server");
        return Ok(());
    }
    let text = format!("{}\n", done.token.reveal());
    let written = token_file
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| disk::write_private(token_file, text.as_bytes()));
    match written {
        Ok(()) => {
            let digest = done.token.digest();
            done.folder.update(|identity| identity.seed = Some(digest))?;
        }
        // The state folder has the token; the token file only carries it to another installation.
        Err(error) => tracing::warn!(token_file = %token_file.display(), %error,
            "the token is not written into the token file; the one in the state folder is used"),
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use pulse_proto::{Token, TokenKind};
    use uuid::Uuid;

    use super::*;
    use crate::config::ConfigSources;
    use crate::identity::Identity;

    #[test]
    fn one_servers_token_never_stands_in_the_token_file_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, token_file) = (folder.path().join("c.yaml"), folder.path().join("token"));
        let block = "pulse_control_plane:\n  url: https://one\n  token_file: ";
        fs::write(&path, format!("{block}{}\n", token_file.display())).unwrap();
        let sources = ConfigSources { path: Some(path), ..ConfigSources::default() };
        let (config, _) = Config::load(&sources).unwrap();
        let home = Home::new(folder.path());
        let registered = |url: &str| {
            let identity = Identity {
                server_id: Uuid::now_v7(),
                turn: home.next_turn().unwrap(),
                url: url.parse().unwrap(),
                pin: None,
                proxy_id: Some(Uuid::now_v7()),
                hostname: None,
                keys: Vec::new(),
                mark: None,
                revoked: None,
                seed: None,
            };
            let folder = home.folder(identity.server_id);
            folder.create(&identity).unwrap();
            let token = Token::generate(TokenKind::Ctrl).unwrap();
            Registered { identity, token, folder, instance: None, list: Ok(Vec::new()) }
        };
        let written = || fs::read_to_string(&token_file).unwrap().trim().to_owned();

        let one = registered("https://one");
        finish(&one, &home, &config, &token_file).unwrap();
        assert_eq!(written(), one.token.reveal());
        assert_eq!(one.folder.identity().unwrap().unwrap().seed, Some(one.token.digest()));
        finish(&registered("https://two"), &home, &config, &token_file).unwrap();
        assert_eq!(written(), one.token.reveal());
        // Set up anew at the same address, it is the configured server.
        let anew = registered("https://one");
        finish(&anew, &home, &config, &token_file).unwrap();
        assert_eq!(written(), anew.token.reveal());
    }
}
