//! What a change did, for the audit log: each thing as it was and as it is.
//!
//! In: the picture before and after, and the rows that lead from one to the other. Out: what differs. Always: each kind has one
//! function that shows it. Never: a secret, a digest, or anything sealed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::Node;
use serde_json::{Value, json};

use super::sources::noted;
use crate::accounts::{Admin, Credential, CredentialKind};
use crate::api::time;
use crate::audit::difference::{Differences, Shown};
use crate::catalog::Catalog;
use crate::inventory::{Instance, Wish};
use crate::registry::{JoinToken, JoinWindow, Proxy, ScopeKind, Standing, TokenStanding};
use crate::store::Change;

/// What each of these rows became, each thing once, in the order of their names.
pub(super) fn differences(before: &Catalog, after: &Catalog, changes: &[Change]) -> Differences {
    let both = |of: &dyn Fn(&Catalog) -> Option<Shown>| (of(before), of(after));
    let mut things: BTreeMap<String, (Option<Shown>, Option<Shown>)> = BTreeMap::new();
    for change in changes {
        let (name, shown) = match change {
            Change::Instance(changed) => {
                let (was, is) = (before.inventory.instance(changed.id), after.inventory.instance(changed.id));
                let shown = |one: Option<&Arc<Instance>>, other| one.map(|one| instance(one, other));
                (format!("instance:{}", changed.name), (shown(was, is), shown(is, was)))
            }
            Change::Proxy(changed) => (format!("proxy:{}", changed.id), both(&|of| proxy(of, changed.id))),
            Change::Token(changed) => {
                (format!("proxy:{}", changed.proxy), both(&|of| proxy(of, changed.proxy)))
            }
            Change::DropToken(digest) => {
                // Whose it was, the picture before tells.
                let Some(token) = before.registry.token(digest) else { continue };
                (format!("proxy:{}", token.proxy), both(&|of| proxy(of, token.proxy)))
            }
            Change::JoinToken(changed) => (
                format!("join:{}", changed.id),
                both(&|of| of.registry.join_token_by_id(&changed.id).map(|one| join_token(of, one))),
            ),
            Change::JoinWindow(changed) => {
                // Only the newest is in the picture.
                let was = before.registry.join_window().filter(|was| was.id == changed.id);
                let shown = (was.map(|was| join_window(was)), Some(join_window(changed)));
                (format!("window:{}", changed.id), shown)
            }
            Change::Epoch(_) => {
                ("fleet".to_owned(), both(&|of| Some(Shown::of(json!({ "epoch": of.epoch })))))
            }
            Change::Admin(changed) => (
                format!("admin:{}", changed.name),
                both(&|of| of.accounts.admin(&changed.name).map(|one| admin(one))),
            ),
            Change::Credential(changed) => (
                format!("credential:{}", changed.id),
                both(&|of| of.accounts.credential_by_id(&changed.id).map(|one| credential(one))),
            ),
            // Its row says so by its action; there is nothing of a key to be shown.
            Change::SealingKey(_) => continue,
        };
        things.insert(name, shown);
    }
    let mut differences = Differences::default();
    things.into_iter().for_each(|(name, (before, after))| differences.add(&name, before, after));
    differences
}

/// An instance beside what it is compared with: of its nodes, those that the other does not have.
fn instance(instance: &Instance, other: Option<&Arc<Instance>>) -> Shown {
    let others: HashSet<&Node> = other.iter().flat_map(|other| other.endpoints()).collect();
    let nodes = instance.endpoints().iter().filter(|node| !others.contains(node));
    let of_held = |held: &crate::inventory::Held| json!({ "by": held.by, "gone": held.gone.len(), "nodes": held.nodes.len(), "is_discarded": held.is_discarded });
    let held: serde_json::Map<_, _> =
        instance.held.iter().map(|(origin, held)| (origin.as_str().to_owned(), of_held(held))).collect();
    let mut origins: BTreeMap<&str, usize> = BTreeMap::new();
    for known in &instance.nodes {
        *origins.entry(known.origin.as_str()).or_default() += 1;
    }
    let wish = |(name, wish): (&String, &Wish)| {
        format!("{name}|{}|{}", wish.address.as_deref().unwrap_or_default(), wish.standing.as_str())
    };
    Shown::of(json!({
        "name": instance.name,
        "standing": instance.standing.as_str(),
        "pve": instance.source.as_ref().map(noted),
        "known_nodes": origins,
        "held": held,
        "removed_at": at(instance.removed_at),
    }))
    .with_list("nodes", nodes.map(Node::line))
    .with_list("wishes", instance.wishes.iter().map(wish))
}

/// A proxy, and how many tokens it has of each standing.
fn proxy(catalog: &Catalog, id: uuid::Uuid) -> Option<Shown> {
    let proxy: &Proxy = catalog.registry.proxy(id)?;
    let (standing, reason) = match &proxy.standing {
        Standing::Active => ("active", ""),
        Standing::Revoked { reason, .. } => ("revoked", reason.as_str()),
        Standing::Removed { reason, .. } => ("removed", reason.as_str()),
    };
    let mut tokens: BTreeMap<&str, usize> = BTreeMap::new();
    for token in catalog.registry.tokens_of(id) {
        let word = match token.standing {
            TokenStanding::Current => "current",
            TokenStanding::Next { .. } => "next",
            TokenStanding::Tombstone => "ended",
            TokenStanding::Debug { .. } => "debug",
        };
        *tokens.entry(word).or_default() += 1;
    }
    Some(Shown::of(json!({
        "hostname": proxy.hostname,
        "kind": match proxy.kind {
            crate::registry::ProxyKind::Socket => "socket",
            crate::registry::ProxyKind::Http => "http",
        },
        "proxy_url": proxy.proxy_url,
        "version": proxy.version,
        "peer": proxy.peer,
        "instance": instance_name(catalog, proxy.instance),
        "scope": scope(proxy.scope_kind),
        "standing": standing,
        "reason": reason,
        "is_approved": proxy.is_approved,
        "rotate_requested": proxy.rotate_requested,
        "registered_at": at(Some(proxy.registered_at)),
        "tokens": tokens,
    })))
}

fn join_token(catalog: &Catalog, token: &JoinToken) -> Shown {
    Shown::of(json!({
        "instance": instance_name(catalog, token.instance),
        "scope": scope(token.scope_kind),
        "uses": token.uses,
        "used": token.used,
        "expires_at": at(Some(token.expires_at)),
        "revoked_at": at(token.revoked_at),
    }))
}

/// An admin, and when the password was set; of the password nothing.
fn admin(admin: &Admin) -> Shown {
    Shown::of(json!({
        "created_at": at(Some(admin.created_at)),
        "password_set_at": at(admin.password_set_at),
    }))
}

fn credential(credential: &Credential) -> Shown {
    let (kind, of, scopes) = match &credential.kind {
        CredentialKind::SetUp { admin } => ("set_up", admin, Vec::new()),
        CredentialKind::Session { admin } => ("session", admin, Vec::new()),
        CredentialKind::Api { name, scopes } => {
            ("api", name, scopes.iter().map(|scope| scope.as_str()).collect())
        }
    };
    Shown::of(json!({
        "kind": kind,
        "of": of,
        "scopes": scopes,
        "expires_at": at(Some(credential.expires_at)),
        "ended_at": at(credential.ended_at),
    }))
}

fn join_window(window: &JoinWindow) -> Shown {
    Shown::of(json!({
        "sources": window.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "closes_at": at(Some(window.closes_at)),
        "closed_at": at(window.closed_at),
    }))
}

fn scope(kind: ScopeKind) -> &'static str {
    match kind {
        ScopeKind::Instance => "instance",
        ScopeKind::All => "all",
    }
}

fn instance_name(catalog: &Catalog, id: Option<uuid::Uuid>) -> Option<String> {
    let id = id?;
    Some(catalog.inventory.instance(id).map_or_else(|| id.to_string(), |instance| instance.name.clone()))
}

fn at(moment: Option<SystemTime>) -> Value {
    moment.map_or(Value::Null, |moment| json!(time(moment)))
}
