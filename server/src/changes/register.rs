//! Registration: which proxy a host is, to which instance it belongs, and its token.

use std::net::IpAddr;
use std::sync::Arc;

use pulse_proto::{Token, TokenDigest, TokenKind, reason};
use serde_json::json;
use uuid::Uuid;

use super::proxies::replace_tokens;
use super::{ChangeError, Changes, Draft, Note};
use crate::audit::Actor;
use crate::inventory::Instance;
use crate::registry::{CtrlToken, JoinToken, Proxy, ProxyKind, ScopeKind, Standing, TokenStanding};

/// A host that asks for an identity. Its fields were checked at the edge.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The join token that came with it.
    pub join: Option<TokenDigest>,
    /// The proxy whose ctrl token came with it.
    pub proven: Option<Uuid>,
    /// The host's name.
    pub hostname: String,
    /// How local callers reach it.
    pub kind: ProxyKind,
    /// Where local callers reach it in HTTP mode.
    pub proxy_url: String,
    /// Its machine id keyed for Pulse; empty if it has none.
    pub machine_id: String,
    /// Its version.
    pub version: String,
    /// The address that it called from.
    pub peer: Option<IpAddr>,
}

/// What a host got.
#[derive(Debug)]
pub struct Registered {
    /// The proxy that it is.
    pub proxy: Arc<Proxy>,
    /// Its new token; `None` if it proved its identity with its token, which stays.
    pub token: Option<Token>,
    /// The instance to which it belongs, if one is present.
    pub instance: Option<Arc<Instance>>,
}

impl Changes {
    /// Registers a host, or registers it again.
    ///
    /// # Errors
    /// [`ChangeError::Join`] if neither a good join token nor its own token came with it; [`ChangeError::Store`].
    pub async fn register(&self, registration: Registration) -> Result<Registered, ChangeError> {
        let fresh = Token::generate(TokenKind::Ctrl)?;
        let digest = fresh.digest();
        let actor = self.actor(&registration);
        let (proxy, is_proven, instance) =
            self.apply(&actor, |draft| decide(draft, &registration, digest)).await?;
        Ok(Registered { proxy, token: (!is_proven).then_some(fresh), instance })
    }

    fn actor(&self, registration: &Registration) -> Actor {
        let catalog = self.catalog();
        let join = registration.join.as_ref().and_then(|digest| catalog.registry.join_token(digest));
        match (join, registration.proven) {
            (Some(join), _) => Actor::Join(join.id.clone()),
            (None, Some(id)) => Actor::Proxy(id),
            (None, None) => Actor::Server,
        }
    }
}

type Decided = (Arc<Proxy>, bool, Option<Arc<Instance>>);

fn decide(
    draft: &mut Draft<'_>,
    new: &Registration,
    token: TokenDigest,
) -> Result<(Decided, Note), ChangeError> {
    let join = new.join.map(|digest| good_join_token(draft, &digest)).transpose()?;
    let proven = new.proven.and_then(|id| draft.before.registry.proxy(id)).filter(|proxy| proxy.is_active());
    if join.is_none() && proven.is_none() {
        let text = "registration needs a join token; make one with `pulse join create`";
        return Err(ChangeError::Join { reason: reason::MISSING_TOKEN, text });
    }
    let is_proven = proven.is_some();
    let known = proven.cloned().or_else(|| proxy_of_host(draft, new, join.as_deref()));
    let is_again = known.is_some();
    let instance = instance_of(draft, new, join.as_deref(), known.as_deref());
    let scope_kind =
        join.as_ref().map(|join| join.scope_kind).or(known.as_ref().map(|known| known.scope_kind));
    let proxy = draft.put_proxy(Proxy {
        id: known.as_ref().map_or_else(Uuid::now_v7, |known| known.id),
        hostname: new.hostname.clone(),
        machine_id: new.machine_id.clone(),
        kind: new.kind,
        proxy_url: new.proxy_url.clone(),
        version: new.version.clone(),
        peer: new.peer,
        instance: instance.as_ref().map(|instance| instance.id),
        scope_kind: scope_kind.unwrap_or(ScopeKind::Instance),
        standing: Standing::Active,
        rotate_requested: false,
        created_at: known.as_ref().map_or(draft.at, |known| known.created_at),
        registered_at: draft.at,
    });
    if !is_proven {
        replace_tokens(draft, CtrlToken { digest: token, proxy: proxy.id, standing: TokenStanding::Current });
    }
    if let Some(join) = join {
        draft.put_join_token(JoinToken { used: join.used + 1, ..(*join).clone() });
    }
    let detail = json!({
        "hostname": new.hostname,
        "instance": instance.as_ref().map(|instance| &instance.name),
        "again": is_again,
        "proven": is_proven,
        "peer": new.peer,
    });
    let note = Note { action: "proxy.register", target: format!("proxy:{}", proxy.id), detail };
    Ok(((proxy, is_proven, instance), note))
}

/// The join token of this digest, if it is good for one more registration.
fn good_join_token(draft: &Draft<'_>, digest: &TokenDigest) -> Result<Arc<JoinToken>, ChangeError> {
    let refuse = |reason, text| Err(ChangeError::Join { reason, text });
    let Some(join) = draft.before.registry.join_token(digest) else {
        return refuse(
            reason::UNKNOWN_TOKEN,
            "the join token is not known to this server; make one with `pulse join create`",
        );
    };
    if join.revoked_at.is_some() {
        return refuse(
            reason::JOIN_TOKEN_REVOKED,
            "the join token was revoked; make another with `pulse join create`",
        );
    }
    if join.expires_at <= draft.at {
        return refuse(
            reason::JOIN_TOKEN_EXPIRED,
            "the join token is past its time; make another with `pulse join create`",
        );
    }
    if join.used >= join.uses {
        return refuse(
            reason::JOIN_TOKEN_USED,
            "the join token has no uses left; make another with `pulse join create`",
        );
    }
    Ok(Arc::clone(join))
}

/// The proxy that a host without its token is: the same machine id and hostname, within the instance that the join
/// token allows. Active ones first, then the newest.
fn proxy_of_host(draft: &Draft<'_>, new: &Registration, join: Option<&JoinToken>) -> Option<Arc<Proxy>> {
    let allowed = join.and_then(|join| join.instance);
    let is_allowed =
        |proxy: &&Arc<Proxy>| allowed.is_none() || proxy.instance.is_none() || proxy.instance == allowed;
    let candidates = draft.before.registry.proxy_of_host(&new.machine_id, &new.hostname).filter(is_allowed);
    candidates.max_by_key(|proxy| (proxy.is_active(), proxy.id)).cloned()
}

/// The instance of a host: the join token's; else the one that it has, while that is present; else the one that
/// matches the host.
fn instance_of(
    draft: &Draft<'_>,
    new: &Registration,
    join: Option<&JoinToken>,
    known: Option<&Proxy>,
) -> Option<Arc<Instance>> {
    let inventory = &draft.before.inventory;
    let present =
        |id: Option<Uuid>| id.and_then(|id| inventory.instance(id)).filter(|instance| instance.is_present());
    present(join.and_then(|join| join.instance))
        .or_else(|| present(known.and_then(|known| known.instance)))
        .or_else(|| inventory.instance_of_host(&new.hostname, new.peer))
        .cloned()
}
