//! Registration: which proxy a host is, to which instance it belongs, and its token.

use std::net::IpAddr;
use std::sync::Arc;

use pulse_proto::{Token, TokenDigest, TokenKind, reason};
use serde_json::json;
use uuid::Uuid;

use super::proxies::replace_tokens;
use super::{ChangeError, Changes, Draft, Note};
use crate::accounts::ApiScope;
use crate::audit::{Actor, Who};
use crate::fleet::Fleet;
use crate::inventory::Instance;
use crate::registry::{CtrlToken, JoinToken, Proxy, ProxyKind, ScopeKind, Standing, TokenStanding};

/// The most hosts that wait for approval at a time.
const MAX_UNAPPROVED: usize = 256;

/// A host that asks for an identity. Its fields were checked at the edge.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The join token that came with it.
    pub join: Option<TokenDigest>,
    /// The API token that came with it.
    pub api: Option<TokenDigest>,
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
    /// Set if it came over the paths of older installers.
    pub older: Option<Older>,
}

/// What is different for a host whose installer is an older one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Older {
    /// Whether it may be registered though no list is there for it yet.
    pub may_wait: bool,
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
    /// [`ChangeError::Join`] if neither a good join token or API token nor its own token came with it, and no window is open to
    /// it; [`ChangeError::NotFound`] if no list is there for it and it may not wait;
    /// [`ChangeError::TooMany`] if too many wait for approval; [`ChangeError::Store`].
    pub async fn register(&self, registration: Registration) -> Result<Registered, ChangeError> {
        let fresh = Token::generate(TokenKind::Ctrl)?;
        let digest = fresh.digest();
        let actor = self.actor(&registration);
        let (proxy, is_proven, instance) =
            self.apply(&actor, |draft| decide(draft, &self.fleet, &registration, digest)).await?;
        Ok(Registered { proxy, token: (!is_proven).then_some(fresh), instance })
    }

    fn actor(&self, registration: &Registration) -> Actor {
        let catalog = self.catalog();
        let join = registration.join.as_ref().and_then(|digest| catalog.registry.join_token(digest));
        let api = registration.api.as_ref().and_then(|digest| catalog.accounts.credential(digest));
        let who = match (join, api, registration.proven) {
            (Some(join), ..) => Who::Join(join.id.clone()),
            (None, Some(api), _) => Who::Token(api.id.clone()),
            (None, None, Some(id)) => Who::Proxy(id),
            (None, None, None) => Who::Host,
        };
        Actor { who, from: registration.peer }
    }
}

type Decided = (Arc<Proxy>, bool, Option<Arc<Instance>>);

fn decide(
    draft: &mut Draft<'_>,
    fleet: &Fleet,
    new: &Registration,
    token: TokenDigest,
) -> Result<(Decided, Note), ChangeError> {
    let join = new.join.map(|digest| good_join_token(draft, &digest)).transpose()?;
    let by_api = new.api.map(|digest| check_api_token(draft, &digest)).transpose()?.is_some();
    let proven = new.proven.and_then(|id| draft.before.registry.proxy(id)).filter(|proxy| proxy.is_active());
    let is_vouched_for = join.is_some() || by_api || proven.is_some();
    if !is_vouched_for {
        admit(draft, new)?;
    }
    let is_proven = proven.is_some();
    let known = match proven.cloned() {
        None if is_vouched_for => proxy_of_host(draft, new, join.as_deref()),
        None => unapproved_of_host(draft, new),
        proven => proven,
    };
    let known = known.or_else(|| unused_of_host(draft, fleet, new, join.as_deref(), is_vouched_for));
    let is_again = known.is_some();
    let is_approved = join.is_some() || by_api || known.as_ref().is_some_and(|known| known.is_approved);
    if !is_approved && !is_again {
        check_room(draft)?;
    }
    let instance =
        if is_approved { instance_of(draft, new, join.as_deref(), known.as_deref()) } else { None };
    let scope_kind =
        join.as_ref().map(|join| join.scope_kind).or(known.as_ref().map(|known| known.scope_kind));
    let proxy = draft.put_proxy(Proxy {
        id: known.as_ref().map_or_else(Uuid::now_v7, |known| known.id),
        hostname: new.hostname.clone(),
        machine_id: match &known {
            // An older installer says none: what is known stays.
            Some(known) if new.older.is_some() && new.machine_id.is_empty() => known.machine_id.clone(),
            _ => new.machine_id.clone(),
        },
        kind: new.kind,
        proxy_url: new.proxy_url.clone(),
        version: new.version.clone(),
        peer: new.peer,
        instance: instance.as_ref().map(|instance| instance.id),
        scope_kind: scope_kind.unwrap_or(ScopeKind::Instance),
        standing: Standing::Active,
        is_approved,
        rotate_requested: known.as_ref().is_some_and(|known| is_proven && known.rotate_requested),
        created_at: known.as_ref().map_or(draft.at, |known| known.created_at),
        registered_at: match &known {
            // A host does not lengthen its own wait for approval; only a window that an admin opened does.
            Some(known) if is_proven && !is_approved => known.registered_at,
            _ => draft.at,
        },
    });
    if proxy.scope().is_none() && new.older.is_some_and(|older| !older.may_wait) {
        return Err(ChangeError::NotFound { what: "instance", name: new.hostname.clone() });
    }
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
        "approved": is_approved,
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
    let instance = join.instance.and_then(|id| draft.before.inventory.instance(id));
    if instance.is_some_and(|instance| !instance.is_present()) {
        return refuse(
            reason::JOIN_TOKEN_REVOKED,
            "the instance of the join token was removed; make another token with `pulse join create`",
        );
    }
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

/// Whether the API token of this digest is good, and lets its bearer register proxies.
fn check_api_token(draft: &Draft<'_>, digest: &TokenDigest) -> Result<(), ChangeError> {
    let api = draft.before.accounts.credential(digest).filter(|api| api.is_good_at(draft.at));
    if api.is_some_and(|api| api.allows(ApiScope::ProxiesRegister)) {
        return Ok(());
    }
    let text = "the API token is not known to this server, has ended, or may not register proxies: make one with the scope \
                proxies:register, or bring a join token (`pulse join create`)";
    Err(ChangeError::Join { reason: reason::UNKNOWN_TOKEN, text })
}

/// Whether a host for which nobody vouches may register at all: only while a window is open to it.
fn admit(draft: &Draft<'_>, new: &Registration) -> Result<(), ChangeError> {
    let window = draft.before.registry.join_window().filter(|window| window.is_open(draft.at));
    let text = match window {
        Some(window) if window.admits(new.peer) => return Ok(()),
        Some(_) => {
            "registration needs a join token: make one with `pulse join create`; the window that is open to hosts \
             without one is not open to this address, which `pulse join open --from` would change"
        }
        None => {
            "registration needs a join token: make one with `pulse join create`; or let hosts without one register \
             for a while with `pulse join open`, and approve them"
        }
    };
    Err(ChangeError::Join { reason: reason::MISSING_TOKEN, text })
}

/// Whether one more host may wait for approval.
fn check_room(draft: &Draft<'_>) -> Result<(), ChangeError> {
    if draft.before.registry.unapproved_count() < MAX_UNAPPROVED {
        return Ok(());
    }
    let text = format!(
        "{MAX_UNAPPROVED} hosts wait for approval already: approve or remove some (`pulse proxy list`), or bring a join token"
    );
    Err(ChangeError::TooMany { reason: reason::TOO_MANY_UNAPPROVED, text })
}

/// The proxy that a host is for which nobody vouches: only one that waits for approval still, by machine id and name.
fn unapproved_of_host(draft: &Draft<'_>, new: &Registration) -> Option<Arc<Proxy>> {
    let waits = |proxy: &&Arc<Proxy>| !proxy.is_approved && proxy.is_active();
    let candidates = draft.before.registry.proxy_of_host(&new.machine_id, &new.hostname).filter(waits);
    candidates.max_by_key(|proxy| proxy.id).cloned()
}

/// The proxy that a host without its token is: the same machine id and hostname, within the instance that the join
/// token allows. Active ones first, then those that somebody vouched for, then the newest.
fn proxy_of_host(draft: &Draft<'_>, new: &Registration, join: Option<&JoinToken>) -> Option<Arc<Proxy>> {
    let allowed = join.and_then(|join| join.instance);
    let is_allowed =
        |proxy: &&Arc<Proxy>| allowed.is_none() || proxy.instance.is_none() || proxy.instance == allowed;
    let candidates = draft.before.registry.proxy_of_host(&new.machine_id, &new.hostname).filter(is_allowed);
    candidates.max_by_key(|proxy| (proxy.is_active(), proxy.is_approved, proxy.id)).cloned()
}

/// The proxy that an older installer registered before, and whose token was never used since: it runs again from the
/// beginning when one of its later steps fails, and sends neither machine id nor token. The name alone proves nothing, so only a
/// token that nobody works with is given up for it.
fn unused_of_host(
    draft: &Draft<'_>,
    fleet: &Fleet,
    new: &Registration,
    join: Option<&JoinToken>,
    is_vouched_for: bool,
) -> Option<Arc<Proxy>> {
    new.older.filter(|_| new.machine_id.is_empty())?;
    let peer = new.peer?.to_canonical();
    let allowed = join.and_then(|join| join.instance);
    let is_it = |proxy: &&Arc<Proxy>| {
        proxy.machine_id.is_empty()
            && proxy.hostname.eq_ignore_ascii_case(&new.hostname)
            && proxy.peer.map(|peer| peer.to_canonical()) == Some(peer)
            && (allowed.is_none() || proxy.instance.is_none() || proxy.instance == allowed)
            && fleet.is_unheard(proxy.id)
    };
    let registry = &draft.before.registry;
    match is_vouched_for {
        true => registry.proxies_at(peer).filter(is_it).max_by_key(|proxy| proxy.id).cloned(),
        false => registry.unapproved().filter(is_it).max_by_key(|proxy| proxy.id).cloned(),
    }
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

#[cfg(test)]
mod tests;
