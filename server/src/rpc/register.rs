//! `Register`, `RotateToken` and `Unregister`: an identity and its token, from the first to the last.

use std::net::IpAddr;

use pulse_proto::hex;
use pulse_proto::token::TokenError;
use pulse_proto::v1::{self, register_response::List};
use pulse_proto::{Token, TokenKind, reason};
use tonic::{Code, Request, Status};

use super::auth::{debug_token_status, present_caller};
use super::headers::{bearer, beside};
use super::status::{change_status, invalid, refusal};
use super::{Rpc, edge, limited};
use crate::changes::{ChangeError, Registered, Registration};
use crate::fleet::waiting_reason;
use crate::registry::{ProxyKind, TokenStanding};

pub(super) async fn register(
    rpc: &Rpc,
    request: Request<v1::RegisterRequest>,
) -> Result<v1::RegisterResponse, Status> {
    let (metadata, extensions, message) = request.into_parts();
    let headers = metadata.into_headers();
    let peer = limited::peer_of(&extensions);
    let (bearer, beside) = (bearer(&headers), beside(&headers));
    if [bearer, beside].into_iter().flatten().any(|token| token.starts_with(TokenKind::Debug.prefix())) {
        return Err(debug_token_status(rpc, limited::source(peer)));
    }
    let join = bearer.filter(|token| token.starts_with(TokenKind::Join.prefix()));
    let ctrl = beside.or(bearer.filter(|_| join.is_none()));
    let tokens = Tokens::read(rpc, Shown { join, api: None, ctrl }, peer)?;
    let mut registration = checked(&message)?;
    registration.peer = peer;
    let is_http = registration.kind == ProxyKind::Http;
    let registered = admit(rpc, tokens, registration, &message.proxy_id).await?;
    response(rpc, registered, is_http)
}

/// What a host shows for itself, as it came.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) join: Option<&'a str>,
    pub(super) api: Option<&'a str>,
    pub(super) ctrl: Option<&'a str>,
}

/// What a host shows for itself.
pub(super) struct Tokens {
    join: Option<Token>,
    api: Option<Token>,
    ctrl: Option<Token>,
}

impl Tokens {
    /// Reads what was shown. A damaged token is refused as such.
    pub(super) fn read(rpc: &Rpc, shown: Shown<'_>, peer: Option<IpAddr>) -> Result<Tokens, Status> {
        let damaged = |error: TokenError| {
            rpc.refusals.note(reason::UNKNOWN_TOKEN, limited::source(peer));
            refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, &error.to_string())
        };
        let of = |kind: TokenKind| move |text: &str| Token::parse(kind, text);
        Ok(Tokens {
            join: shown.join.map(of(TokenKind::Join)).transpose().map_err(damaged)?,
            api: shown.api.map(of(TokenKind::Api)).transpose().map_err(damaged)?,
            ctrl: shown.ctrl.map(Token::presented).transpose().map_err(damaged)?,
        })
    }
}

/// Registers a host whose fields were checked, however it came.
pub(super) async fn admit(
    rpc: &Rpc,
    tokens: Tokens,
    mut registration: Registration,
    proxy_id: &str,
) -> Result<Registered, Status> {
    let peer = registration.peer;
    let refused = |reason| rpc.refusals.note(reason, limited::source(peer));
    registration.join = tokens.join.map(|token| token.digest());
    registration.api = tokens.api.map(|token| token.digest());
    // A ctrl token that is not known proves nothing, and the join token decides.
    registration.proven = match tokens.ctrl {
        Some(token) => proven(rpc, &token, proxy_id, peer).await?,
        None => None,
    };
    limited::registration(rpc, &registration)?;
    let (hostname, api) = (registration.hostname.clone(), registration.api);
    let registered = rpc.changes.register(registration).await.map_err(|error| {
        if let ChangeError::Join { reason, .. } | ChangeError::TooMany { reason, .. } = error {
            refused(reason);
        }
        change_status(&error)
    })?;
    let catalog = rpc.changes.catalog();
    if let Some(api) = api.and_then(|api| catalog.accounts.credential(&api)) {
        rpc.uses.note(&api.id, peer);
    }
    tracing::info!(proxy = %registered.proxy.id, hostname, "a proxy registered");
    Ok(registered)
}

pub(super) fn checked(message: &v1::RegisterRequest) -> Result<Registration, Status> {
    let kind = match v1::ProxyKind::try_from(message.kind) {
        Ok(v1::ProxyKind::Http) => ProxyKind::Http,
        // Not said, or a kind of a later version: a host is not kept out for that.
        Ok(_) | Err(_) => ProxyKind::Socket,
    };
    if !message.proxy_id.is_empty() {
        edge::uuid("proxy_id", &message.proxy_id)?;
    }
    if !message.machine_id.is_empty() && hex::decode::<32>(&message.machine_id).is_none() {
        return Err(invalid("machine_id", "it is empty or 64 lower-case hex digits"));
    }
    Ok(Registration {
        join: None,
        api: None,
        proven: None,
        hostname: edge::hostname("hostname", &message.hostname)?,
        kind,
        proxy_url: proxy_url(&message.proxy_url)?,
        machine_id: message.machine_id.clone(),
        version: edge::version("version", &message.version)?,
        peer: None,
        older: None,
    })
}

/// Empty, or a URL that a person may follow: it is shown, and other schemes would do other things. RFC 3986 allows no
/// character in it that has a meaning in HTML or a shell's quotes.
pub(super) fn proxy_url(value: &str) -> Result<String, Status> {
    let url = edge::text("proxy_url", value, 2_048)?;
    let is_http = url.starts_with("https://") || url.starts_with("http://");
    if !url.is_empty() && !is_http {
        return Err(invalid("proxy_url", "it is neither empty nor begins with https:// or http://"));
    }
    let is_plain =
        |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}');
    if url.chars().all(is_plain) {
        return Ok(url);
    }
    Err(invalid("proxy_url", "it has a character that no URL has: write it as %XX"))
}

/// The proxy that a ctrl token proves, if it is good and names the same one.
async fn proven(
    rpc: &Rpc,
    token: &Token,
    proxy_id: &str,
    peer: Option<IpAddr>,
) -> Result<Option<uuid::Uuid>, Status> {
    let digest = token.digest();
    let catalog = rpc.changes.catalog();
    let Some(token) = catalog.registry.token(&digest) else { return Ok(None) };
    if !proxy_id.is_empty() && edge::uuid("proxy_id", proxy_id)? != token.proxy {
        return Err(invalid("proxy_id", "the ctrl token is another proxy's; leave it out to register anew"));
    }
    match token.standing {
        TokenStanding::Current => Ok(Some(token.proxy)),
        TokenStanding::Next { use_before } if use_before > rpc.clock.now() => {
            rpc.changes.promote_token(digest, peer).await.map_err(|error| change_status(&error))?;
            Ok(Some(token.proxy))
        }
        TokenStanding::Next { .. } | TokenStanding::Tombstone | TokenStanding::Debug { .. } => Ok(None),
    }
}

fn response(rpc: &Rpc, registered: Registered, is_http: bool) -> Result<v1::RegisterResponse, Status> {
    let Registered { proxy, token, instance } = registered;
    let newest = proxy.scope().and_then(|scope| rpc.lists.newest(scope));
    let list = match newest {
        Some(newest) => List::Snapshot(newest.signed.to_wire()),
        None => List::Waiting(v1::Waiting { reason: waiting_reason(&proxy) }),
    };
    let listener = listener_token(is_http)?;
    Ok(v1::RegisterResponse {
        proxy_id: proxy.id.to_string(),
        ctrl_token: token.map(|token| token.reveal().to_owned()).unwrap_or_default(),
        instance: instance
            .map(|instance| v1::Instance { id: instance.id.to_string(), name: instance.name.clone() }),
        server: Some(rpc.introduction().info.clone()),
        token: listener.map(|token| token.reveal().to_owned()).unwrap_or_default(),
        list: Some(list),
    })
}

/// A fresh bearer for the proxy's own listener, which is kept nowhere here; `None`: it has no listener.
pub(super) fn listener_token(is_http: bool) -> Result<Option<Token>, Status> {
    let token = is_http.then(|| Token::generate(TokenKind::Listener)).transpose();
    token.map_err(|error| change_status(&ChangeError::Token(error)))
}

pub(super) async fn rotate_token(
    rpc: &Rpc,
    request: Request<v1::RotateTokenRequest>,
) -> Result<v1::RotateTokenResponse, Status> {
    let caller = present_caller(rpc, request.extensions())?;
    limited::rotation(rpc, caller.proxy.id)?;
    let (token, use_before) =
        rpc.changes.rotate_token(caller.token, caller.peer).await.map_err(|error| change_status(&error))?;
    rpc.fleet.seen(caller.proxy.id);
    Ok(v1::RotateTokenResponse { ctrl_token: token.reveal().to_owned(), use_before: Some(use_before.into()) })
}

pub(super) async fn unregister(
    rpc: &Rpc,
    request: Request<v1::UnregisterRequest>,
) -> Result<v1::UnregisterResponse, Status> {
    let caller = present_caller(rpc, request.extensions())?;
    rpc.changes.unregister(caller.token, caller.peer).await.map_err(|error| change_status(&error))?;
    tracing::info!(proxy = %caller.proxy.id, "a proxy unregistered");
    Ok(v1::UnregisterResponse {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_url_is_one_that_may_be_shown_as_a_link() {
        for good in ["", "https://delly:8443", "http://[2001:db8::5]:8443/x"] {
            assert_eq!(proxy_url(good).unwrap(), good);
        }
        for bad in ["javascript:alert(1)", "delly:8443", "https://a\nb", "https://a/\"><script>", "https://ä"]
        {
            assert_eq!(proxy_url(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }
}
