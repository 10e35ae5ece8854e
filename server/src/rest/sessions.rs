//! `/set-up`, `/session`: how an admin gets in from a browser, and out again.
//!
//! Always: the secret of a log-in is in a cookie that no script reads and no other site sends along; a wrong name and a wrong
//! password look the same and take as long.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::header::{RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pulse_proto::{Token, TokenKind, reason};

use super::access::{Caller, SESSION_COOKIE, csrf_token};
use super::extract::Json;
use super::refusal::Refusal;
use crate::Pulse;
use crate::accounts::password::{Password, PasswordError};
use crate::accounts::{ApiScope, Credential};
use crate::api::{self, CallerKind, time};
use crate::changes::{SESSION_LIFE, SetUp};
use crate::listen::Peer;
use crate::refusals::source;

/// What a browser is told that has no good name and password.
const WRONG: &str =
    "name or password is wrong; `pulse admin reset NAME` on the server makes a link for a new password";

/// Sets a password, and logs in.
#[utoipa::path(
    post,
    path = "/set-up",
    operation_id = "set_up",
    tag = "accounts",
    security(()),
    responses((status = CREATED, description = "Logged in: the cookie is set.", body = api::Session), (status = FORBIDDEN, description = "The link is not good.", body = api::ApiError, content_type = "application/problem+json"), (status = TOO_MANY_REQUESTS, description = "Too many tries; `Retry-After` says when the next may be.", body = api::ApiError, content_type = "application/problem+json"), (status = SERVICE_UNAVAILABLE, description = "The server cannot at the moment.", body = api::ApiError, content_type = "application/problem+json")),
)]
pub(super) async fn set_up(
    State(pulse): State<Arc<Pulse>>,
    peer: Option<Extension<Peer>>,
    Json(asked): Json<api::SetUp>,
) -> Result<Response, Refusal> {
    let from = peer.map(|Extension(peer)| peer.ip());
    let invalid = |error: &dyn std::fmt::Display| Refusal::invalid("link", error.to_string());
    let link = Token::parse(TokenKind::SetUp, &asked.link).map_err(|error| invalid(&error))?;
    let is_first = pulse.is_first_link(&link);
    // Before anything is hashed, which takes a while: only who has a good link may ask for that.
    if !is_first && let Err(refusal) = pulse.changes.check_link(&link.digest()) {
        pulse.failed_sign_in(reason::UNKNOWN_TOKEN, from, None).map_err(too_many)?;
        return Err(refusal.into());
    }
    let set_up = match is_first {
        true => SetUp::First { name: asked.name.unwrap_or_else(|| "admin".to_owned()) },
        false => SetUp::Link(link.digest()),
    };
    let password = Password::chosen(asked.password).map_err(|error| refused("password", &error))?;
    let hash = password.hash().await.map_err(|error| refused("password", &error))?;
    let (session, secret) = pulse.changes.set_up(set_up, hash, from).await?;
    Ok(begun(&session, &secret))
}

/// Logs in.
#[utoipa::path(
    post,
    path = "/session",
    operation_id = "log_in",
    tag = "accounts",
    security(()),
    responses((status = CREATED, description = "Logged in: the cookie is set.", body = api::Session), (status = UNAUTHORIZED, description = "Name or password is wrong.", body = api::ApiError, content_type = "application/problem+json"), (status = FORBIDDEN, description = "The password was changed at this moment.", body = api::ApiError, content_type = "application/problem+json"), (status = TOO_MANY_REQUESTS, description = "Too many tries; `Retry-After` says when the next may be.", body = api::ApiError, content_type = "application/problem+json"), (status = SERVICE_UNAVAILABLE, description = "The server cannot at the moment.", body = api::ApiError, content_type = "application/problem+json")),
)]
pub(super) async fn log_in(
    State(pulse): State<Arc<Pulse>>,
    peer: Option<Extension<Peer>>,
    Json(asked): Json<api::LogIn>,
) -> Result<Response, Refusal> {
    let from = peer.map(|Extension(peer)| peer.ip());
    let name = asked.name.trim().to_ascii_lowercase();
    attempt(&pulse, from, &name)?;
    let catalog = pulse.changes.catalog();
    let hash = catalog.accounts.admin(&name).and_then(|admin| admin.password_hash.clone());
    let is_right = Password::typed(asked.password).is_of(hash.as_deref()).await;
    let is_right = is_right.map_err(|error| refused("password", &error))?;
    let admin = catalog.accounts.admin(&name).map(|admin| admin.name.as_str());
    let Some(hash) = hash.filter(|_| is_right) else {
        pulse.failed_sign_in("WRONG_PASSWORD", from, admin).map_err(too_many)?;
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "WRONG_PASSWORD", WRONG.to_owned()));
    };
    let (session, secret) = pulse.changes.log_in(&name, &hash, from).await?;
    Ok(begun(&session, &secret))
}

/// Says who asks.
#[utoipa::path(
    get,
    path = "/session",
    operation_id = "show_session",
    tag = "accounts",
    security(("api_token" = []), ("session" = [])),
    responses((status = OK, description = "The caller.", body = api::Session)),
)]
pub(super) async fn show(State(pulse): State<Arc<Pulse>>, caller: Caller) -> Json<api::Session> {
    let catalog = pulse.changes.catalog();
    let credential = |id: &str| catalog.accounts.credential_by_id(id).cloned();
    let all = || ApiScope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect();
    Json(match &caller {
        Caller::Local { uid } => api::Session {
            kind: CallerKind::Local,
            name: uid.to_string(),
            scopes: all(),
            csrf_token: None,
            expires_at: None,
        },
        Caller::User { name, session, csrf, .. } => api::Session {
            kind: CallerKind::User,
            name: name.clone(),
            scopes: all(),
            csrf_token: Some(csrf.clone()),
            expires_at: credential(session).map(|session| time(session.expires_at)),
        },
        Caller::Token { id, name, scopes, .. } => api::Session {
            kind: CallerKind::Token,
            name: name.clone(),
            scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            csrf_token: None,
            expires_at: credential(id).map(|token| time(token.expires_at)),
        },
    })
}

/// Logs out.
#[utoipa::path(
    delete,
    path = "/session",
    operation_id = "log_out",
    tag = "accounts",
    security(("session" = [])),
    responses((status = NO_CONTENT, description = "Logged out.")),
)]
pub(super) async fn log_out(State(pulse): State<Arc<Pulse>>, caller: Caller) -> Result<Response, Refusal> {
    let Caller::User { session, .. } = &caller else { return Err(no_log_in()) };
    pulse.changes.log_out(&caller.actor(), session).await?;
    let cookie = cookie("", 0);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Sets another password.
#[utoipa::path(
    put,
    path = "/session/password",
    operation_id = "set_password",
    tag = "accounts",
    security(("session" = [])),
    responses((status = NO_CONTENT, description = "It is set.")),
)]
pub(super) async fn set_password(
    State(pulse): State<Arc<Pulse>>,
    caller: Caller,
    Json(asked): Json<api::SetPassword>,
) -> Result<StatusCode, Refusal> {
    let Caller::User { name, session, from, .. } = &caller else { return Err(no_log_in()) };
    // Who found a browser that is logged in does not guess the password faster than anybody else.
    attempt(&pulse, *from, name)?;
    let new = Password::chosen(asked.new_password).map_err(|error| refused("new_password", &error))?;
    let catalog = pulse.changes.catalog();
    let hash = catalog.accounts.admin(name).and_then(|admin| admin.password_hash.clone());
    let is_right = Password::typed(asked.password).is_of(hash.as_deref()).await;
    if !is_right.map_err(|error| refused("password", &error))? {
        pulse.failed_sign_in("WRONG_PASSWORD", *from, Some(name)).map_err(too_many)?;
        return Err(Refusal::invalid("password", "it is not the password that is good now".to_owned()));
    }
    let hash = new.hash().await.map_err(|error| refused("new_password", &error))?;
    pulse.changes.set_password(&caller.actor(), name, session, hash).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a try of a name. That there were too many is noted as any refusal is.
fn attempt(pulse: &Pulse, from: Option<IpAddr>, name: &str) -> Result<(), Refusal> {
    pulse.sign_ins.attempt(from, name).map_err(|wait| {
        pulse.refusals.note(reason::RATE_LIMITED, source(from));
        too_many(wait)
    })
}

fn no_log_in() -> Refusal {
    let text =
        "this is for admins who logged in with a password, and the caller came in another way".to_owned();
    Refusal::conflict("NO_LOG_IN", text)
}

fn refused(field: &str, error: &PasswordError) -> Refusal {
    match error {
        PasswordError::Length => Refusal::invalid(field, error.to_string()),
        PasswordError::Busy => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason::OVERLOADED, error.to_string())
        }
        PasswordError::Hash(_) => {
            tracing::error!(%error, "a password could not be hashed or compared");
            let text = "the password could not be checked; the server's log says why".to_owned();
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "PASSWORD", text)
        }
    }
}

/// Too many tries: says when the next one may be.
fn too_many(wait: std::time::Duration) -> Refusal {
    let seconds = wait.as_secs() + 1;
    let text = format!(
        "too many tries to get in: wait {seconds} s; on the server itself, `pulse admin reset NAME` makes a link at once"
    );
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason::RATE_LIMITED, text)
        .with_header(RETRY_AFTER, HeaderValue::from(seconds))
}

fn begun(session: &Credential, secret: &Token) -> Response {
    let name = match &session.kind {
        crate::accounts::CredentialKind::Session { admin } => admin.clone(),
        _ => String::new(),
    };
    let answer = api::Session {
        kind: CallerKind::User,
        name,
        scopes: ApiScope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect(),
        csrf_token: Some(csrf_token(secret)),
        expires_at: Some(time(session.expires_at)),
    };
    let cookie = cookie(secret.reveal(), SESSION_LIFE.as_secs());
    (StatusCode::CREATED, [(SET_COOKIE, cookie)], Json(answer)).into_response()
}

/// `__Host-`: browsers take it only if it is `Secure`, for the whole host and for no other one (RFC 6265bis, 4.1.3.2).
fn cookie(value: &str, max_age: u64) -> HeaderValue {
    let text =
        format!("{SESSION_COOKIE}={value}; Path=/; Max-Age={max_age}; HttpOnly; Secure; SameSite=Strict");
    let mut cookie = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_out_of_reach_for_scripts_and_other_sites() {
        let cookie = cookie("psess_x", 60);
        let text = cookie.to_str().unwrap();
        for part in ["__Host-pulse_session=psess_x; ", "Path=/", "HttpOnly", "Secure", "SameSite=Strict"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!format!("{cookie:?}").contains("psess_x"));
    }
}
