//! `POST register`: a host gets its token from an installer.
//!
//! Always: a host that nobody knows yet is registered all the same and waits, unless its installer says that it will not.
//! Never: matches a host by a part of its name.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::Response;
use pulse_proto::{TokenKind, v1};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::answer::{self, Refused};
use super::nodes::{Listed, interval_seconds, listed};
use super::{ROOT, body, check, parameter, peer_of, version_of};
use crate::accounts::ApiScope;
use crate::audit::{Actor, Who};
use crate::changes::{Older, Registered};
use crate::fleet::waiting_reason;
use crate::registry::ProxyKind;
use crate::rpc::headers::{bearer, beside};
use crate::rpc::register::{Shown, Tokens, admit, checked, listener_token};
use crate::rpc::{Rpc, limited, status};

/// The most bytes of a body.
const MAX_BYTES: usize = 8 * 1024;

/// Where an installer may put the join token.
const JOIN_TOKEN: HeaderName = HeaderName::from_static("x-join-token");
/// Where it may put an API token, as with older servers.
const API_TOKEN: HeaderName = HeaderName::from_static("x-api-token");

#[derive(Deserialize)]
struct Asked {
    hostname: Option<String>,
    proxy_url: Option<String>,
    kind: Option<String>,
    /// What older installers call the kind.
    mode: Option<String>,
    /// What newer installers may send too: as over gRPC.
    proxy_id: Option<String>,
    machine_id: Option<String>,
    version: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    success: bool,
    ctrl_token: &'a str,
    control_token: &'a str,
    token: &'a str,
    instance_id: String,
    proxy_id: String,
    pve_instance: &'a str,
    allowed_nodes: Vec<Listed<'a>>,
    refresh_interval: u64,
    message: String,
}

pub(super) async fn register(rpc: &Rpc, request: Request) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    check(&head, &Method::POST, "POST")?;
    let (peer, may_wait) = (peer_of(&head), may_wait(&head)?);
    let shown = shown(&head.headers);
    let _place =
        limited::registration_slot(rpc, [shown.join, shown.api, shown.ctrl].into_iter().flatten(), peer)?;
    let asked: Asked = body::read(body, MAX_BYTES).await?;
    let message = message(asked, &head.headers)?;
    let tokens = Tokens::read(rpc, shown, peer).map_err(|status| limited::failed(rpc, peer, status))?;
    check_scope(rpc, shown, peer)?;
    let mut registration = checked(&message)?;
    registration.peer = peer;
    registration.older = Some(Older { may_wait });
    let is_http = registration.kind == ProxyKind::Http;
    if registration.machine_id.is_empty() {
        // Whether an earlier token of this host was ever used, another server may know.
        rpc.replicas.look_around().await;
    }
    let registered = admit(rpc, tokens, registration, &message.proxy_id).await;
    let registered = registered.map_err(|status| match status.code() {
        Code::NotFound => not_found(&message.hostname),
        _ => limited::failed(rpc, peer, status),
    })?;
    answer(rpc, &registered, is_http, shown.ctrl.unwrap_or_default().trim())
}

/// Whether the host may be registered though no list is there for it: unless `wait=false` says otherwise.
fn may_wait(head: &Parts) -> Result<bool, Refused> {
    match parameter(head, "wait")?.as_deref() {
        None | Some("true" | "1" | "") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(status::invalid("wait", "it is true or false").into()),
    }
}

/// The tokens that came: each in a header of its own, or the one of them that is the bearer.
fn shown(headers: &HeaderMap) -> Shown<'_> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = bearer(headers).map(str::trim).filter(|text| !text.is_empty());
    let kind = bearer.and_then(TokenKind::of);
    let of = |wanted: TokenKind| bearer.filter(|_| kind == Some(wanted));
    let (join, api) = (text(&JOIN_TOKEN).or(of(TokenKind::Join)), text(&API_TOKEN).or(of(TokenKind::Api)));
    let is_other = !matches!(kind, Some(TokenKind::Join | TokenKind::Api));
    Shown { join, api, ctrl: beside(headers).or(bearer.filter(|_| is_other)) }
}

/// An API token that is good for other things only is refused as such.
fn check_scope(rpc: &Rpc, shown: Shown<'_>, peer: Option<IpAddr>) -> Result<(), Status> {
    let Some(api) = shown.api.and_then(|api| pulse_proto::Token::parse(TokenKind::Api, api).ok()) else {
        return Ok(());
    };
    let catalog = rpc.changes.catalog();
    let known = catalog.accounts.credential(&api.digest());
    let good = known.filter(|known| known.is_good_at(rpc.clock.now()));
    // One that is not good is refused with the registration itself, which may learn of it from the database.
    let Some(good) = good.filter(|good| !good.allows(ApiScope::ProxiesRegister)) else { return Ok(()) };
    let actor = Actor { who: Who::Token(good.id.clone()), from: peer };
    rpc.refusals.note_known("MISSING_SCOPE".to_owned(), &actor, format!("POST {ROOT}/register"));
    let text = "the API token may not register proxies: make one with the scope proxies:register, or bring a join token \
                (`pulse join create`)";
    Err(status::refusal(Code::PermissionDenied, "MISSING_SCOPE", text))
}

/// What the host says of itself, as gRPC would have brought it.
fn message(asked: Asked, headers: &HeaderMap) -> Result<v1::RegisterRequest, Refused> {
    let text = |value: Option<String>| value.map(|value| value.trim().to_owned()).unwrap_or_default();
    let hostname = text(asked.hostname);
    if hostname.is_empty() {
        return Err(Refused::bad("missing_hostname", "hostname is missing: send the host's own name"));
    }
    let url = text(asked.proxy_url);
    let kind = Some(text(asked.kind)).filter(|kind| !kind.is_empty()).unwrap_or_else(|| text(asked.mode));
    let kind = match kind.to_ascii_lowercase().as_str() {
        "http" => v1::ProxyKind::Http,
        "socket" => v1::ProxyKind::Socket,
        "" if url.is_empty() => v1::ProxyKind::Socket,
        "" => v1::ProxyKind::Http,
        _ => return Err(status::invalid("kind", "it is socket or http").into()),
    };
    let proxy_url = match kind {
        v1::ProxyKind::Http => https(&url)?,
        // As with older servers: it says nothing there.
        _ => String::new(),
    };
    let version = Some(text(asked.version)).filter(|version| !version.is_empty());
    Ok(v1::RegisterRequest {
        hostname,
        kind: kind.into(),
        proxy_url,
        machine_id: text(asked.machine_id),
        proxy_id: text(asked.proxy_id),
        version: version.unwrap_or_else(|| version_of(headers)),
    })
}

/// The URL of a proxy with an HTTPS listener.
fn https(url: &str) -> Result<String, Refused> {
    const SCHEME: &str = "https://";
    if url.is_empty() {
        let text =
            "proxy_url is missing: a proxy of the kind http is reached at one, like https://delly.lan:8443";
        return Err(Refused::bad("missing_proxy_url", text));
    }
    let rest = url.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
    let rest = rest.map(|scheme| &url[scheme.len()..]).filter(|rest| !rest.is_empty());
    let invalid = |rule: &str| Refused::bad("invalid_proxy_url", format!("proxy_url: {rule}"));
    let rest = rest.ok_or_else(|| invalid("it does not begin with https:// and a host"))?;
    let url = format!("{SCHEME}{rest}");
    crate::rpc::register::proxy_url(&url)
        .map_err(|status| Refused::bad("invalid_proxy_url", status.message()))
}

/// No instance is there for the host, and it may not wait.
fn not_found(hostname: &str) -> Status {
    let text = format!(
        "no list is there for the host {hostname:?} yet, and wait=false asks not to wait: nothing was registered; add it as an endpoint of \
         an instance (`pulse instance add` or `set`), bring a join token of an instance, or leave wait=false out"
    );
    status::refusal(Code::NotFound, "PVE_INSTANCE_NOT_FOUND", &text)
}

fn answer(rpc: &Rpc, registered: &Registered, is_http: bool, shown: &str) -> Result<Response, Refused> {
    let Registered { proxy, token, instance } = registered;
    let newest = proxy.scope().and_then(|scope| rpc.lists.newest(scope));
    let listener = listener_token(is_http)?;
    // Who proved itself keeps its token; an installer writes down what stands here.
    let ctrl_token = token.as_ref().map_or(shown, |token| token.reveal());
    let message = match (&newest, instance) {
        (None, _) => format!("registered, and waiting: {}", waiting_reason(proxy)),
        (Some(_), Some(instance)) => format!("registered for the instance {}", instance.name),
        (Some(_), None) => "registered".to_owned(),
    };
    let answer = Answer {
        success: true,
        ctrl_token,
        control_token: ctrl_token,
        token: listener.as_ref().map_or("", |token| token.reveal()),
        instance_id: proxy.id.to_string(),
        proxy_id: proxy.id.to_string(),
        pve_instance: instance.as_ref().map_or("", |instance| &instance.name),
        allowed_nodes: newest.as_ref().map(|newest| listed(&newest.signed)).unwrap_or_default(),
        refresh_interval: interval_seconds(rpc),
        message,
    };
    Ok(answer::json(StatusCode::OK, &answer))
}
