//! Registration: a join token becomes an identity; or, without one, the wait for an admin's approval.
//!
//! In: a join string and what this host calls itself. Out: the state folder: identity, token, pin, keys, first list.
//! Always: what proves an earlier identity goes only to the server that gave it; nothing is written before the server
//! answered. Never: shows a token.

pub mod host;

use std::path::Path;
use std::time::{Duration, SystemTime};

use pulse_proto::{Node, Pin, SignedAllowlist, Token, TokenDigest, TokenKind, v1};
use tokio::time::timeout;
use tonic::Request;
use uuid::Uuid;
use v1::register_response::List;

use crate::cache;
use crate::config::{ControlPlane, ServerUrl};
use crate::disk;
use crate::identity::trusted::trust;
use crate::identity::{Folder, Home, Identity, IdentityError, Pending, ProxyKind, read_seed};
use crate::link::{Failure, Link};
use crate::seams::Seams;
use crate::sync::pins::announced_pins;
use crate::sync::standing::{mark_of, offered};
use crate::tls::{self, Trust, TrustError};

/// From dialling to the answer.
const LIMIT: Duration = Duration::from_secs(30);

/// What a registration gave.
#[derive(Debug)]
pub struct Registered {
    /// Who this proxy is now.
    pub identity: Identity,
    /// Its token.
    pub token: Token,
    /// Where it is kept.
    pub folder: Folder,
    /// The instance it belongs to, by name; `None` while it waits for one.
    pub instance: Option<String>,
    /// The first list, or why there is none.
    pub list: Result<Vec<Node>, String>,
}

/// Why there is no registration.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The server was not reached, or is not able to answer now: try again.
    #[error("register with the server: {text}")]
    Unreachable {
        /// Why.
        text: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// What answers is not the server that is meant, or cannot prove it: trying again is of no use.
    #[error("{0}; no token was sent to it")]
    WrongServer(String),
    /// The server refuses: used, revoked, past its time, or something in the request.
    #[error("the server refuses the registration: {text}")]
    Refused {
        /// `ErrorInfo`'s reason, if it gave one.
        reason: Option<String>,
        /// What it says.
        text: String,
    },
    /// The answer lacks something.
    #[error("the server's answer cannot be used: {0}; are server and proxy of the same version?")]
    Answer(String),
    /// What to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The state folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Registers this host and writes the state folder.
///
/// `control` is the configuration's block, if there is one: without a pin in the join string its `ca_file` and
/// `insecure_skip_verify` count. Its token file is written by [`carry_token`].
///
/// # Errors
/// [`RegisterError`]; nothing is written then, except when the disk failed half-way.
pub async fn register(
    pending: &Pending,
    home: &Home,
    control: Option<&ControlPlane>,
    seams: &Seams,
) -> Result<Registered, RegisterError> {
    let join = &pending.join;
    let url = ServerUrl::new(&join.host, join.port)
        .ok_or_else(|| RegisterError::Answer("the join string's host cannot be dialled".to_owned()))?;
    let configured = control.filter(|control| control.url == url).and_then(|control| control.pin);
    let trust = Trust::choose(
        // A join string without a pin does not undo one that a person has written down.
        join.pin.or(configured).into_iter().collect(),
        control.is_some_and(|control| control.insecure_skip_verify),
        control.and_then(|control| control.ca_file.as_deref()),
    );
    let proof = proof(home, &url, &trust)?;
    let link = Link::new(url.clone(), tls::client_config(&trust)?, seams.network.clone());
    match &join.join {
        Some(token) => link.use_token(Some(token)),
        None => link.go_without_token(),
    }
    link.prove_with(proof.as_ref().map(|(_, token)| token));
    let request = Request::new(v1::RegisterRequest {
        hostname: pending.hostname.name.clone(),
        kind: match pending.kind {
            ProxyKind::Socket => v1::ProxyKind::Socket,
            ProxyKind::Http => v1::ProxyKind::Http,
        }
        .into(),
        proxy_url: pending.proxy_url.clone(),
        machine_id: pending.machine_id.clone(),
        proxy_id: proof.as_ref().map(|(id, _)| id.to_string()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    let mut client = link.client();
    let answer = match timeout(LIMIT, client.register(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(refusal(&status, join.join.is_some())),
        Err(_) => {
            let text = format!("no answer within {} s", LIMIT.as_secs());
            return Err(RegisterError::Unreachable { text, retry_after: None });
        }
    };
    let seed = control.and_then(|control| read_seed(&control.token_file).ok().flatten());
    let (proven, seed) = (proof.map(|(_, token)| token), seed.map(|token| token.digest()));
    settle(answer, pending, url, home, proven, seed, seams.clock.now())
}

/// Carries the token of a registration into the token file, and notes that it is taken up from there.
///
/// `control` is the configuration's block, if it was there before. What cannot be written is said in the log: the state
/// folder has the token, and the token file only carries it to another installation.
///
/// # Errors
/// The note in the state folder cannot be written.
pub fn carry_token(
    done: &Registered,
    home: &Home,
    control: Option<&ControlPlane>,
    token_file: &Path,
) -> Result<(), IdentityError> {
    if let Some(control) = control
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
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| disk::write_private(token_file, text.as_bytes()));
    match written {
        Ok(()) => {
            let digest = done.token.digest();
            done.folder.update(|identity| identity.seed = Some(digest))?;
        }
        Err(error) => tracing::warn!(token_file = %token_file.display(), %error,
            "the token is not written into the token file; the one in the state folder is used"),
    }
    Ok(())
}

/// The identity and token of an earlier registration, if what is trusted makes sure that this is the server that gave them.
fn proof(home: &Home, url: &ServerUrl, trust: &Trust) -> Result<Option<(Uuid, Token)>, IdentityError> {
    // An identity that cannot be read proves nothing, and is replaced.
    let Some((folder, identity)) = home.search(url)?.place else { return Ok(None) };
    let known = identity.pins();
    let is_the_server = match trust {
        Trust::Pinned(named) if !known.is_empty() => known.iter().any(|pin| named.contains(pin)),
        // Anybody could answer, and the pin said who it must be.
        Trust::Unchecked if !known.is_empty() => false,
        // Without two pins to compare, the address is what a person vouches for.
        _ => identity.url == *url,
    };
    match (identity.proxy_id, folder.token().ok().flatten()) {
        (Some(id), Some(token)) if is_the_server && identity.revoked.is_none() => Ok(Some((id, token))),
        _ => Ok(None),
    }
}

fn refusal(status: &tonic::Status, has_secret: bool) -> RegisterError {
    let reason = crate::link::reason_of(status);
    match Failure::of(status) {
        Failure::Unreachable(text) => RegisterError::Unreachable { text, retry_after: None },
        Failure::WrongServer(text) => RegisterError::WrongServer(text),
        Failure::Unavailable { text, retry_after } => RegisterError::Unreachable { text, retry_after },
        failure if !has_secret && reason.as_deref() == Some(pulse_proto::reason::MISSING_TOKEN) => {
            let hint =
                "the join string has no `join=`; if it had, a shell cut it off at the &: put it in quotes";
            RegisterError::Refused { reason, text: format!("{} ({hint})", failure.text()) }
        }
        failure => RegisterError::Refused { reason, text: failure.text().to_owned() },
    }
}

/// Writes what the server answered. The order lets a crash leave nothing that is half: the identity comes last.
fn settle(
    answer: v1::RegisterResponse,
    pending: &Pending,
    url: ServerUrl,
    home: &Home,
    proven: Option<Token>,
    seed: Option<TokenDigest>,
    now: SystemTime,
) -> Result<Registered, RegisterError> {
    let lacks = |what: &str| RegisterError::Answer(what.to_owned());
    let proxy_id = Uuid::parse_str(&answer.proxy_id).map_err(|_| lacks("it has no proxy id"))?;
    let server = answer.server.ok_or_else(|| lacks("it does not say which server it is"))?;
    let server_id = Uuid::parse_str(&server.server_id).map_err(|_| lacks("it has no server id"))?;
    let token = match answer.ctrl_token.as_str() {
        "" => proven.ok_or_else(|| lacks("it has no token"))?,
        text => Token::parse(TokenKind::Ctrl, text).map_err(|error| lacks(&error.to_string()))?,
    };
    let folder = home.folder(server_id);
    // One that cannot be read is replaced: the person with the join string vouches for this server.
    let before = folder.identity().ok().flatten();
    let known = before.as_ref().map(|identity| identity.keys.as_slice()).unwrap_or_default();
    let mut keys = trust(known, offered(&server), None);
    let offers_known = server
        .signing_keys
        .iter()
        .any(|key| known.iter().any(|known| known.as_bytes() == key.public_key.as_slice()));
    if !offers_known {
        // A person vouches for this server with a join string: its keys were made anew, so they are learnt anew.
        keys = trust(&[], offered(&server), None);
    }
    if keys.is_empty() {
        return Err(lacks("it has no signing key"));
    }
    let pins: Vec<Pin> = pending.join.pin.into_iter().collect();
    let mut identity = Identity {
        server_id,
        turn: home.next_turn()?,
        url,
        pin: pending.join.pin,
        ca_pins: announced_pins(&server, &keys, &pins).unwrap_or_default(),
        proxy_id: Some(proxy_id),
        hostname: Some(pending.hostname.clone()),
        keys,
        // A proxy that is new to the server has reached nothing yet: the list of its scope may be an older one.
        mark: before
            .as_ref()
            .filter(|before| before.proxy_id == Some(proxy_id))
            .and_then(|before| before.mark),
        revoked: None,
        seed,
    };
    let write_failed = |path, source| RegisterError::Identity(IdentityError::Write { path, source });
    disk::make_private_folder(folder.path())
        .map_err(|source| write_failed(folder.path().to_owned(), source))?;
    if !answer.token.is_empty() {
        let path = folder.listener_token_path();
        disk::write_private(&path, format!("{}\n", answer.token).as_bytes())
            .map_err(|source| write_failed(path, source))?;
    }
    let list = match answer.list {
        Some(List::Snapshot(snapshot)) => {
            let reached = identity.mark.map(|mark| mark.position).unwrap_or_default();
            match SignedAllowlist::verify(&snapshot, &identity.keys, reached) {
                Ok(list) => {
                    identity.mark = Some(mark_of(&list));
                    Ok(list)
                }
                Err(refusal) => Err(format!("the first list is refused: {refusal}")),
            }
        }
        Some(List::Waiting(waiting)) => Err(waiting.reason),
        None => Err("the server sent no list yet".to_owned()),
    };
    folder.keep_token(&token)?;
    folder.create_with(&identity, |path| match &list {
        Ok(list) => cache::store(path, identity.proxy_id, list, now),
        Err(_) => Ok(()),
    })?;
    let list = list.map(|list| list.allowlist.nodes().to_vec());
    let instance = answer.instance.map(|instance| instance.name);
    Ok(Registered { identity, token, folder, instance, list })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_servers_token_never_stands_in_the_token_file_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("deep/token");
        let control = ControlPlane {
            url: "https://one".parse().unwrap(),
            token_file: token_file.clone(),
            refresh_interval: Duration::from_secs(60),
            insecure_skip_verify: false,
            ca_file: None,
            pin: None,
        };
        let home = Home::new(folder.path());
        let registered = |url: &str| {
            let identity = Identity {
                server_id: Uuid::now_v7(),
                turn: home.next_turn().unwrap(),
                url: url.parse().unwrap(),
                pin: None,
                ca_pins: Vec::new(),
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
        let carry = |done: &Registered| carry_token(done, &home, Some(&control), &token_file).unwrap();
        let written = || fs::read_to_string(&token_file).unwrap().trim().to_owned();

        let one = registered("https://one");
        carry(&one);
        assert_eq!(written(), one.token.reveal());
        assert_eq!(one.folder.identity().unwrap().unwrap().seed, Some(one.token.digest()));
        carry(&registered("https://two"));
        assert_eq!(written(), one.token.reveal());
        // Set up anew at the same address, it is the configured server.
        let anew = registered("https://one");
        carry(&anew);
        assert_eq!(written(), anew.token.reveal());
    }
}
