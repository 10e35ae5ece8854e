//! Who calls: a layer in front of the service that turns a token into a [`Caller`].
//!
//! Always: an unknown token is told from a revoked one; a new token's first use ends the one before it.
//! Never: lets a call through without knowing whose it is, but for `Register`, which brings a join token.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use pulse_proto::{Token, TokenDigest, TokenKind, reason};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::headers::{bearer, beside};
use super::status::{change_status, refusal, store_status};
use super::{Rpc, SERVICE_PATH, limited};
use crate::limits::Slot;
use crate::registry::{Proxy, Standing, TokenStanding};

/// The proxy that calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// It, as it was when the call began.
    pub(super) proxy: Arc<Proxy>,
    /// The digest of its token.
    pub(super) token: TokenDigest,
    /// When the token ends, if somebody only watches with it what the proxy is told: such a caller counts for nothing.
    pub(super) observes_until: Option<SystemTime>,
    /// Why it may do nothing; only a watch gets as far as this, to say so in the stream.
    pub(super) revoked: Option<String>,
    /// The address that it calls from.
    pub(super) peer: Option<IpAddr>,
}

/// The service behind its authentication: every method but `Register` needs a ctrl token.
#[derive(Clone, Debug)]
pub(super) struct Authenticated<S> {
    rpc: Arc<Rpc>,
    service: S,
}

impl<S> Authenticated<S> {
    /// Puts authentication before a service.
    pub(super) fn new(rpc: Arc<Rpc>, service: S) -> Authenticated<S> {
        Authenticated { rpc, service }
    }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    Response<B>: IntoResponse,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready is called, and its clone is for the next call.
        let clone = self.service.clone();
        let (rpc, mut service) = (Arc::clone(&self.rpc), std::mem::replace(&mut self.service, clone));
        Box::pin(async move {
            match admit(&rpc, &mut request).await {
                Ok(_place) => service.call(request).await.map(IntoResponse::into_response),
                Err(refused) => Ok(refused),
            }
        })
    }
}

/// Lets a call through, with its caller in it, or answers it. Out: its place among the calls, for as long as it lasts.
async fn admit(rpc: &Rpc, request: &mut Request<Body>) -> Result<Option<Slot>, Response<Body>> {
    if request.method() != Method::POST {
        // Without a body, which the answer to HEAD must not have.
        return Err((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response());
    }
    if !is_grpc(request.headers()) {
        let text = "this path takes gRPC: content-type application/grpc\n";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response());
    }
    let method = request.uri().path().strip_prefix(SERVICE_PATH).unwrap_or_default();
    let (is_registration, is_watch) = (method == "/Register", method == "/WatchAuthorizedNodes");
    let peer = limited::peer_of(request.extensions());
    if is_registration {
        let shown = bearer(request.headers()).into_iter().chain(beside(request.headers()));
        let place = limited::registration_slot(rpc, shown, peer);
        return place.map(Some).map_err(Status::into_http);
    }
    let caller = caller(rpc, request.headers(), peer, is_watch).await;
    let caller = caller.map_err(|status| limited::failed(rpc, peer, status).into_http())?;
    // A watch takes its place when it begins, and has it until it ends.
    let place = (!is_watch).then(|| limited::call_slot(rpc, caller.proxy.id)).transpose();
    let place = place.map_err(Status::into_http)?;
    request.extensions_mut().insert(caller);
    Ok(place)
}

/// `application/grpc`, also with a codec or a parameter behind it. Nothing else is taken, so no page of a browser can call
/// (gRPC over HTTP/2, "Requests").
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.first().is_none_or(|next| matches!(next, b'+' | b';' | b' ')))
}

/// The proxy whose token came in the headers.
pub(super) async fn caller(
    rpc: &Rpc,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    is_watch: bool,
) -> Result<Caller, Status> {
    let source = || limited::source(peer);
    let unknown = |text: &str| {
        rpc.refusals.note(reason::UNKNOWN_TOKEN, source());
        refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, text)
    };
    let Some(text) = bearer(headers).or_else(|| beside(headers)) else {
        rpc.refusals.note(reason::MISSING_TOKEN, source());
        let text =
            "no ctrl token came with the call: send it as `authorization: Bearer pctl_…` or `x-proxy-token`";
        return Err(refusal(Code::Unauthenticated, reason::MISSING_TOKEN, text));
    };
    let is_debug = text.trim().starts_with(TokenKind::Debug.prefix());
    if is_debug && !is_watch {
        return Err(debug_token_status(rpc, source()));
    }
    let token = match is_debug {
        true => Token::parse(TokenKind::Debug, text),
        false => Token::presented(text),
    };
    let token = token.map_err(|error| unknown(&error.to_string()))?;
    let digest = token.digest();
    let mut catalog = rpc.changes.catalog();
    if catalog.registry.token(&digest).is_none() && rpc.changes.is_shared() {
        // Another server may have made it a moment ago.
        rpc.changes.catch_up().await.map_err(|error| store_status(&error))?;
        catalog = rpc.changes.catalog();
    }
    let known = catalog
        .registry
        .token(&digest)
        .and_then(|token| Some((token.standing, catalog.registry.proxy(token.proxy)?)));
    let Some((standing, proxy)) = known else {
        return Err(unknown(match is_debug {
            true => DEBUG_TOKEN_ENDED,
            false => "the ctrl token is not known to this server: register the host again with a join token",
        }));
    };
    let mut observes_until = None;
    let revoked = revoked(proxy, standing);
    match standing {
        _ if revoked.is_some() => {}
        TokenStanding::Next { use_before } => {
            if use_before <= rpc.clock.now() {
                return Err(unknown(
                    "the new ctrl token was not used in time and has ended: use the one before it",
                ));
            }
            rpc.changes.promote_token(digest, peer).await.map_err(|error| change_status(&error))?;
        }
        TokenStanding::Current | TokenStanding::Tombstone => {}
        TokenStanding::Debug { until } => {
            if until <= rpc.clock.now() {
                return Err(unknown(DEBUG_TOKEN_ENDED));
            }
            observes_until = Some(until);
        }
    }
    if let Some(why) = &revoked {
        rpc.refusals.note(reason::PROXY_REVOKED, format!("proxy:{}", proxy.id));
        if !is_watch {
            return Err(revoked_status(why));
        }
    }
    Ok(Caller { proxy: Arc::clone(proxy), token: digest, observes_until, revoked, peer })
}

/// Why a token's bearer may do nothing, though the token is known.
pub(super) fn revoked(proxy: &Proxy, standing: TokenStanding) -> Option<String> {
    match &proxy.standing {
        Standing::Revoked { reason, .. } | Standing::Removed { reason, .. } => Some(reason.clone()),
        Standing::Active if standing == TokenStanding::Tombstone => {
            Some("this token was revoked; the proxy has another one".to_owned())
        }
        Standing::Active => None,
    }
}

/// The caller that the layer put into the request.
pub(super) fn caller_of(extensions: &tonic::Extensions) -> Result<Caller, Status> {
    extensions.get::<Caller>().cloned().ok_or_else(|| Status::internal("the call was not authenticated"))
}

/// The caller as it stands now that its message is there: that may have taken a while, and a token which ended meanwhile
/// is good for nothing.
pub(super) fn present_caller(rpc: &Rpc, extensions: &tonic::Extensions) -> Result<Caller, Status> {
    present(rpc, caller_of(extensions)?)
}

/// See [`present_caller`].
pub(super) fn present(rpc: &Rpc, caller: Caller) -> Result<Caller, Status> {
    let registry = &rpc.changes.catalog().registry;
    let token = registry.token(&caller.token);
    let Some((token, proxy)) = token.and_then(|token| Some((token, registry.proxy(token.proxy)?))) else {
        rpc.refusals.note(reason::UNKNOWN_TOKEN, limited::source(caller.peer));
        let text =
            "the ctrl token ended while the call was under way, as a newer one took its place: use that";
        return Err(refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, text));
    };
    if let Some(why) = revoked(proxy, token.standing) {
        rpc.refusals.note(reason::PROXY_REVOKED, format!("proxy:{}", proxy.id));
        return Err(revoked_status(&why));
    }
    Ok(Caller { proxy: Arc::clone(proxy), ..caller })
}

/// What a person is told whose debug token is over.
pub(super) const DEBUG_TOKEN_ENDED: &str =
    "the debug token has ended, or is not known to this server: make another with `pulse proxy debug-token`";

/// The status with which a debug token is refused that shall do more than watch.
pub(super) fn debug_token_status(rpc: &Rpc, source: String) -> Status {
    rpc.refusals.note(reason::DEBUG_TOKEN, source);
    let text = "a debug token watches what a proxy is pushed (WatchAuthorizedNodes), and nothing else";
    refusal(Code::PermissionDenied, reason::DEBUG_TOKEN, text)
}

/// The status with which a revoked proxy is refused.
pub(super) fn revoked_status(why: &str) -> Status {
    let text = format!("this proxy may read nothing ({why}): register the host again with a join token");
    refusal(Code::PermissionDenied, reason::PROXY_REVOKED, &text)
}
