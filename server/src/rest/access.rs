//! Who asks the admin API, and whether that caller may: before any handler runs.
//!
//! In: a request, and what its path asks of a caller ([`Access`]). Out: the request with its [`Caller`], or a refusal.
//! Always: a path of which it is not known what it asks for is refused; a caller over TCP shows a secret that is good now, and
//! one with a cookie also that the change is meant. Never: counts a good token against its address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pulse_proto::hash::sha256;
use pulse_proto::{Token, TokenKind, reason};

use super::refusal::Refusal;
use crate::Pulse;
use crate::accounts::{ApiScope, Credential, CredentialKind};
use crate::api::ROOT;
use crate::audit::{Actor, Who};
use crate::listen::Peer;
use crate::listen::admin_socket::AdminPeer;

/// The cookie of a log-in.
pub(super) const SESSION_COOKIE: &str = "__Host-pulse_session";

/// The header that shows that a change is meant.
const CSRF_HEADER: &str = "x-csrf-token";

/// Who may ask for an operation. Whoever is on the Unix socket may always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Nobody else.
    SocketOnly,
    /// A token with this scope, and an admin who logged in.
    Scope(ApiScope),
    /// Whoever has a token or is logged in.
    Known,
    /// An admin who logged in.
    Session,
    /// Anybody.
    Open,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// A local admin, on the Unix socket: may everything.
    Local {
        /// The user id.
        uid: u32,
    },
    /// An admin who logged in.
    User {
        /// The admin's name.
        name: String,
        /// The id of the log-in.
        session: String,
        /// What the log-in sends with each change.
        csrf: String,
        /// The address.
        from: Option<IpAddr>,
    },
    /// A program with an API token.
    Token {
        /// The token's id.
        id: String,
        /// Its name.
        name: String,
        /// What it is good for.
        scopes: BTreeSet<ApiScope>,
        /// The address.
        from: Option<IpAddr>,
    },
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Caller({})", self.actor())
    }
}

impl Caller {
    /// Who makes the change, for the audit log.
    pub(super) fn actor(&self) -> Actor {
        match self {
            Caller::Local { uid } => Actor::admin(*uid),
            Caller::User { name, from, .. } => Actor { who: Who::User(name.clone()), from: *from },
            Caller::Token { id, from, .. } => Actor { who: Who::Token(id.clone()), from: *from },
        }
    }

    /// Whether the caller has this scope.
    pub(super) fn may(&self, scope: ApiScope) -> bool {
        match self {
            Caller::Local { .. } | Caller::User { .. } => true,
            Caller::Token { scopes, .. } => scopes.contains(&scope),
        }
    }

    /// Notes that an API token is used now.
    pub(super) fn used(&self, pulse: &Pulse) {
        if let Caller::Token { id, from, .. } = self {
            pulse.uses.note(id, *from);
        }
    }

    /// Waits until what let the caller in is good no more. For who came over the socket, for ever.
    pub(super) async fn ended(&self, pulse: &Pulse) {
        let id = match self {
            Caller::Local { .. } => return std::future::pending().await,
            Caller::User { session: id, .. } | Caller::Token { id, .. } => id,
        };
        let mut revisions = pulse.changes.revisions();
        loop {
            let catalog = pulse.changes.catalog();
            let now = pulse.clock.now();
            let good = catalog.accounts.credential_by_id(id).filter(|one| one.is_good_at(now));
            let Some(good) = good else { return };
            let left = good.expires_at.duration_since(now).unwrap_or_default();
            tokio::select! {
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Refusal> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(nobody)
    }
}

/// Lets a request through if its caller may, with the caller in it.
pub(super) async fn guard(State(pulse): State<Arc<Pulse>>, mut request: Request, next: Next) -> Response {
    let access = request.extensions().get::<Access>().copied();
    let caller = match identify(&pulse, request.headers(), request.extensions()).await {
        Ok(caller) => caller,
        // Whoever comes to get in may have an old cookie.
        Err(_) if access == Some(Access::Open) => None,
        Err(refusal) => return refusal.into_response(),
    };
    if let Err(refusal) = admit(&pulse, access, caller.as_ref(), &request) {
        return refusal.into_response();
    }
    if let Some(caller) = caller {
        caller.used(&pulse);
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

/// Whether the caller may do what is asked.
fn admit(
    pulse: &Pulse,
    access: Option<Access>,
    caller: Option<&Caller>,
    request: &Request,
) -> Result<(), Refusal> {
    let refused = |reason: &str, caller: &Caller| {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let call = format!("{} {}", request.method(), path.strip_prefix(ROOT).unwrap_or(path));
        pulse.refusals.note_known(reason.to_owned(), &caller.actor(), call);
    };
    let known = || caller.ok_or_else(|| without_credential(pulse, request));
    match access {
        Some(Access::Open) => return Ok(()),
        Some(Access::Known) => {
            known()?;
        }
        Some(Access::Session) => {
            let caller = known()?;
            if matches!(caller, Caller::Token { .. }) {
                refused("LOG_IN_ONLY", caller);
                let text = "this is for admins who logged in, not for API tokens".to_owned();
                return Err(Refusal::new(StatusCode::FORBIDDEN, "LOG_IN_ONLY", text));
            }
        }
        Some(Access::Scope(scope)) => {
            let caller = known()?;
            if !caller.may(scope) {
                refused("MISSING_SCOPE", caller);
                let text = format!(
                    "this API token has not the scope {scope}, which this asks for: make one that has it with `pulse token create`"
                );
                return Err(Refusal::new(StatusCode::FORBIDDEN, "MISSING_SCOPE", text));
            }
        }
        Some(Access::SocketOnly) | None => {
            let caller = known()?;
            if !matches!(caller, Caller::Local { .. }) {
                refused("SOCKET_ONLY", caller);
                let text = "this is done on the server itself only, over its Unix socket: run `pulse` there"
                    .to_owned();
                return Err(Refusal::new(StatusCode::FORBIDDEN, "SOCKET_ONLY", text));
            }
        }
    }
    if let Some(caller @ Caller::User { csrf, .. }) = caller
        && !is_meant(request, csrf)
    {
        refused("CSRF", caller);
        let text = format!(
            "a change with a log-in's cookie needs the header {CSRF_HEADER} with the csrf_token that `GET /api/v1/session` shows"
        );
        return Err(Refusal::new(StatusCode::FORBIDDEN, "CSRF", text));
    }
    Ok(())
}

/// Whether a request with a cookie is one that the admin's own page makes: it only reads, or brings what other sites cannot
/// know. A browser that says that another site began it is believed too.
fn is_meant(request: &Request, csrf: &str) -> bool {
    if request.method().is_safe() {
        return true;
    }
    let text = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let is_foreign = text("sec-fetch-site").is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let brought = text(CSRF_HEADER).unwrap_or_default();
    !is_foreign && aws_lc_rs::constant_time::verify_slices_are_equal(brought, csrf.as_bytes()).is_ok()
}

/// What a log-in sends with each change, so that no other site can make one: it follows from the cookie, which other sites
/// cannot read.
pub(super) fn csrf_token(session: &Token) -> String {
    URL_SAFE_NO_PAD.encode(sha256(format!("pulse-csrf-v1\n{}", session.reveal()).as_bytes()))
}

/// Who asks; `None`: the request brings nothing that says so.
///
/// # Errors
/// What it brings is not good.
pub(super) async fn identify(
    pulse: &Pulse,
    headers: &HeaderMap,
    extensions: &axum::http::Extensions,
) -> Result<Option<Caller>, Refusal> {
    if let Some(peer) = extensions.get::<AdminPeer>() {
        return Ok(Some(Caller::Local { uid: peer.uid }));
    }
    let from = peer_of(extensions);
    let bearer = headers.get(AUTHORIZATION).map(|value| bearer(value).unwrap_or_default());
    if let Some(text) = bearer {
        let token = Token::parse(TokenKind::Api, text);
        let known = match &token {
            Ok(token) => credential(pulse, token).await?,
            Err(_) => None,
        };
        let now = pulse.clock.now();
        let good = known.as_ref().filter(|one| one.is_good_at(now));
        let Some((good, CredentialKind::Api { name, scopes })) = good.map(|one| (one, &one.kind)) else {
            let text = match (token, known) {
                (Err(error), _) => error.to_string(),
                (Ok(_), None) => "the API token is not known to this server".to_owned(),
                (Ok(_), Some(known)) if known.ended_at.is_some() => "the API token was revoked".to_owned(),
                (Ok(_), Some(_)) => "the API token is past its time".to_owned(),
            };
            let text = format!("{text}: make another with `pulse token create`");
            return Err(unknown(pulse, from, text));
        };
        let (id, name, scopes) = (good.id.clone(), name.clone(), scopes.clone());
        return Ok(Some(Caller::Token { id, name, scopes, from }));
    }
    let Some(text) = cookie(headers) else { return Ok(None) };
    let over = || "the log-in is over: log in again".to_owned();
    let Ok(token) = Token::parse(TokenKind::Session, text) else { return Err(unknown(pulse, from, over())) };
    let (known, now) = (credential(pulse, &token).await?, pulse.clock.now());
    match known.filter(|one| one.is_good_at(now)).map(|one| (one.id.clone(), one.kind.clone())) {
        Some((session, CredentialKind::Session { admin })) => {
            Ok(Some(Caller::User { name: admin, session, csrf: csrf_token(&token), from }))
        }
        _ => Err(unknown(pulse, from, over())),
    }
}

/// What is known of a secret. Another server may have made it a moment ago.
async fn credential(pulse: &Pulse, token: &Token) -> Result<Option<Arc<Credential>>, Refusal> {
    let digest = token.digest();
    let known = || pulse.changes.catalog().accounts.credential(&digest).cloned();
    if known().is_none() && pulse.store.is_shared() {
        pulse.changes.catch_up().await?;
    }
    Ok(known())
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn peer_of(extensions: &axum::http::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(Peer::ip)
}

fn nobody() -> Refusal {
    let text =
        "log in, or send an API token as `authorization: Bearer papi_…` (`pulse token create` makes one)";
    Refusal::new(StatusCode::UNAUTHORIZED, reason::MISSING_TOKEN, text.to_owned())
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn without_credential(pulse: &Pulse, request: &Request) -> Refusal {
    failed(pulse, peer_of(request.extensions()), reason::MISSING_TOKEN, nobody())
}

fn unknown(pulse: &Pulse, from: Option<IpAddr>, text: String) -> Refusal {
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, reason::UNKNOWN_TOKEN, text)
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    failed(pulse, from, reason::UNKNOWN_TOKEN, refusal)
}

/// Counts it; too many of one address are told to wait.
fn failed(pulse: &Pulse, from: Option<IpAddr>, reason: &'static str, refusal: Refusal) -> Refusal {
    match pulse.failed_sign_in(reason, from, None) {
        Ok(()) => refusal,
        Err(wait) => {
            let seconds = wait.as_secs() + 1;
            let text = format!(
                "too many requests from this address brought no good credential: wait {seconds} s; good ones still pass"
            );
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason::RATE_LIMITED, text)
                .with_header(RETRY_AFTER, HeaderValue::from(seconds))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_in_has_a_csrf_token_of_its_own_that_does_not_tell_the_cookie() {
        let [one, other] = [0, 1].map(|_| Token::generate(TokenKind::Session).unwrap());
        assert_ne!(csrf_token(&one), csrf_token(&other));
        assert_eq!(csrf_token(&one), csrf_token(&one));
        assert!(!csrf_token(&one).contains(one.reveal()));
    }
}
