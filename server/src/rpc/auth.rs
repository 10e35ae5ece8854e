//! Who calls: a layer in front of the service that turns a token into a [`Caller`].
//!
//! Always: an unknown token is told from a revoked one; a new token's first use ends the one before it.
//! Never: lets a call through without knowing whose it is, but for `Register`, which brings a join token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, header};
use axum::middleware::Next;
use pulse_proto::{TOKEN_METADATA, Token, TokenKind, reason};
use tonic::{Code, Status};

use super::status::{change_status, refusal};
use super::{Rpc, SERVICE_PATH};
use crate::listen::Peer;
use crate::registry::{Proxy, Standing, TokenStanding};

/// The proxy that calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// It, as it was when the call began.
    pub(super) proxy: Arc<Proxy>,
    /// Why it may do nothing; only a watch gets as far as this, to say so in the stream.
    pub(super) revoked: Option<String>,
    /// The address that it calls from.
    pub(super) peer: Option<IpAddr>,
}

/// The layer: every method but `Register` needs a ctrl token.
pub(super) async fn authenticate(
    State(rpc): State<Rpc>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let method = request.uri().path().strip_prefix(SERVICE_PATH).unwrap_or_default().to_owned();
    if method == "/Register" {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip().to_canonical());
    match caller(&rpc, request.headers(), peer, method == "/WatchAuthorizedNodes").await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(status) => status.into_http(),
    }
}

async fn caller(
    rpc: &Rpc,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    is_watch: bool,
) -> Result<Caller, Status> {
    let source = || peer.map_or_else(|| "local".to_owned(), |peer| peer.to_string());
    let unknown = |text: &str| {
        rpc.refusals.note(reason::UNKNOWN_TOKEN, source());
        refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, text)
    };
    let Some(text) =
        bearer(headers).or_else(|| headers.get(TOKEN_METADATA).and_then(|value| value.to_str().ok()))
    else {
        rpc.refusals.note(reason::MISSING_TOKEN, source());
        let text =
            "no ctrl token came with the call: send it as `authorization: Bearer pctl_…` or `x-proxy-token`";
        return Err(refusal(Code::Unauthenticated, reason::MISSING_TOKEN, text));
    };
    let token = Token::parse(TokenKind::Ctrl, text).map_err(|error| unknown(&error.to_string()))?;
    let digest = token.digest();
    let catalog = rpc.changes.catalog();
    let known = catalog
        .registry
        .token(&digest)
        .and_then(|token| Some((token.standing, catalog.registry.proxy(token.proxy)?)));
    let Some((standing, proxy)) = known else {
        return Err(unknown(
            "the ctrl token is not known to this server: register the host again with a join token",
        ));
    };
    let revoked = match (&proxy.standing, standing) {
        (_, TokenStanding::Tombstone) | (Standing::Revoked { .. } | Standing::Removed { .. }, _) => {
            Some(match &proxy.standing {
                Standing::Revoked { reason, .. } | Standing::Removed { reason, .. } => reason.clone(),
                Standing::Active => "this token was revoked; the proxy has another one".to_owned(),
            })
        }
        (Standing::Active, TokenStanding::Next { use_before }) => {
            if use_before <= SystemTime::now() {
                return Err(unknown(
                    "the new ctrl token was not used in time and has ended: use the one before it",
                ));
            }
            rpc.changes.promote_token(digest).await.map_err(|error| change_status(&error))?;
            None
        }
        (Standing::Active, TokenStanding::Current) => None,
    };
    if let Some(why) = &revoked {
        rpc.refusals.note(reason::PROXY_REVOKED, format!("proxy:{}", proxy.id));
        if !is_watch {
            return Err(revoked_status(why));
        }
    }
    Ok(Caller { proxy: Arc::clone(proxy), revoked, peer })
}

/// The status with which a revoked proxy is refused.
pub(super) fn revoked_status(why: &str) -> Status {
    let text = format!("this proxy may read nothing ({why}): register the host again with a join token");
    refusal(Code::PermissionDenied, reason::PROXY_REVOKED, &text)
}

/// The token of an `authorization: Bearer …` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
