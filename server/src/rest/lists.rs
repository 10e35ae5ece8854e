//! `/allowlists`: who may read what, now and before; how two lists differ is in `lists/difference`.

mod difference;

use std::sync::Arc;

use axum::extract::State;
use pulse_proto::{Scope, SignedAllowlist};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{Json, Query};
use super::refusal::Refusal;
use super::views::present;
use crate::api::{self, LIST_REVISIONS, MAX_LIST_REVISIONS, time};
use crate::catalog::Catalog;
use crate::publish::Published;
use crate::store::{ListChange, ListFound};
use crate::{Pulse, allowlist};

/// Which lists; neither: every one.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// `all`: the list of all nodes.
    #[serde(default)]
    scope: Option<String>,
    /// The list of the instance of this name.
    #[serde(default)]
    instance: Option<String>,
    /// As it was made at this revision.
    #[serde(default)]
    revision: Option<u64>,
}

/// Lists the allowlists as they are, or one as it was at a revision.
#[utoipa::path(
    get,
    path = "/allowlists",
    operation_id = "list_allowlists",
    tag = "allowlists",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    params(Which),
    responses((status = OK, description = "The lists.", body = api::Allowlists)),
)]
pub(super) async fn list(
    State(pulse): State<Arc<Pulse>>,
    Query(which): Query<Which>,
) -> Result<Json<api::Allowlists>, Refusal> {
    let catalog = pulse.changes.catalog();
    if let Some(revision) = which.revision {
        let scope = one_scope(&catalog, which.scope.as_deref(), which.instance.as_deref())?;
        let list = made_at(&pulse, &catalog, scope, revision, "revision").await?;
        return Ok(Json(api::Allowlists { allowlists: vec![stored(&catalog, &list)] }));
    }
    let scopes = scopes(&catalog, &which)?;
    let view = |scope: Scope| view(&catalog, scope, pulse.lists.newest(scope).as_deref());
    Ok(Json(api::Allowlists { allowlists: scopes.into_iter().map(view).collect() }))
}

/// Of which list, and how many of its revisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Past {
    /// `all`: of the list of all nodes.
    #[serde(default)]
    scope: Option<String>,
    /// Of the list of the instance of this name.
    #[serde(default)]
    instance: Option<String>,
    /// At most so many; 20 by default.
    #[serde(default)]
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// How lists came about: of one scope, or of all.
#[utoipa::path(
    get,
    path = "/allowlists/history",
    operation_id = "show_allowlist_history",
    tag = "allowlists",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    params(Past),
    responses((status = OK, description = "The revisions, the newest first.", body = api::ListHistory)),
)]
pub(super) async fn history(
    State(pulse): State<Arc<Pulse>>,
    Query(past): Query<Past>,
) -> Result<Json<api::ListHistory>, Refusal> {
    let catalog = pulse.changes.catalog();
    let scope = match (&past.scope, &past.instance) {
        (None, None) => None,
        (scope, instance) => Some(one_scope(&catalog, scope.as_deref(), instance.as_deref())?),
    };
    let limit = past.limit.unwrap_or(LIST_REVISIONS);
    if !(1..=MAX_LIST_REVISIONS).contains(&limit) {
        let text = format!("limit is 1 to {MAX_LIST_REVISIONS}, not {limit}");
        return Err(Refusal::invalid("limit", text));
    }
    let changes = pulse.store.list_history(scope, limit).await?;
    let view = |change: ListChange| api::ListRevision {
        scope: change.scope.to_string(),
        instance: instance_name(&catalog, change.scope),
        epoch: change.position.epoch,
        revision: change.position.revision,
        at: time(change.at),
        actor: change.actor,
        action: change.action,
        hash: change.hash.to_string(),
        nodes: change.nodes,
        added: change.added,
        removed: change.removed,
    };
    Ok(Json(api::ListHistory { revisions: changes.into_iter().map(view).collect() }))
}

/// Of which list, and between which revisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Between {
    /// The revision at which the first list was made.
    from: u64,
    /// The revision at which the second list was made.
    to: u64,
    /// `all`: of the list of all nodes.
    #[serde(default)]
    scope: Option<String>,
    /// Of the list of the instance of this name; it may be left out where there is but one.
    #[serde(default)]
    instance: Option<String>,
}

/// How two lists of one scope differ.
#[utoipa::path(
    get,
    path = "/allowlists/diff",
    operation_id = "diff_allowlists",
    tag = "allowlists",
    security(("api_token" = ["monitoring:read"]), ("session" = [])),
    params(Between),
    responses((status = OK, description = "Both lists, and what differs.", body = api::ListDiff)),
)]
pub(super) async fn diff(
    State(pulse): State<Arc<Pulse>>,
    Query(between): Query<Between>,
) -> Result<Json<api::ListDiff>, Refusal> {
    let catalog = pulse.changes.catalog();
    let scope = one_scope(&catalog, between.scope.as_deref(), between.instance.as_deref())?;
    let from = made_at(&pulse, &catalog, scope, between.from, "from").await?;
    let to = made_at(&pulse, &catalog, scope, between.to, "to").await?;
    let (added, removed, changed) = difference::of(&from.allowlist, &to.allowlist);
    let (from, to) = (stored(&catalog, &from), stored(&catalog, &to));
    Ok(Json(api::ListDiff { from, to, added, removed, changed }))
}

/// The scope that is meant: the only one there can be if none is said.
fn one_scope(catalog: &Catalog, scope: Option<&str>, instance: Option<&str>) -> Result<Scope, Refusal> {
    match (scope, instance) {
        (Some("all"), None) => Ok(Scope::All),
        (None, Some(name)) => {
            // The lists of a removed instance are still there.
            let removed = || catalog.inventory.removed_by_name(name).map(|instance| instance.id);
            match present(catalog, name) {
                Ok(instance) => Ok(Scope::Instance(instance.id)),
                Err(not_found) => removed().map(Scope::Instance).ok_or_else(|| not_found.into()),
            }
        }
        (None, None) => {
            let mut present = catalog.inventory.present();
            match (present.next(), present.next()) {
                (Some(only), None) => Ok(Scope::Instance(only.id)),
                _ => Err(Refusal::invalid(
                    "instance",
                    "say of which list: instance=NAME (--instance), or scope=all (--all)".to_owned(),
                )),
            }
        }
        _ => Err(Refusal::invalid("scope", "give scope=all, or instance=NAME".to_owned())),
    }
}

/// The list that was made at exactly this revision.
async fn made_at(
    pulse: &Pulse,
    catalog: &Catalog,
    scope: Scope,
    revision: u64,
    field: &str,
) -> Result<SignedAllowlist, Refusal> {
    let (before, after) = match pulse.store.list_of(scope, revision).await? {
        ListFound::List(list) => return Ok(*list),
        ListFound::Between { before, after } => (before, after),
    };
    let list = match instance_name(catalog, scope) {
        Some(name) => format!("the list of instance {name:?}"),
        None => "the list of all nodes".to_owned(),
    };
    let nearest = match (before, after) {
        (None, None) => "it was never made".to_owned(),
        (Some(one), None) | (None, Some(one)) => format!("the nearest is revision {one}"),
        (Some(before), Some(after)) => format!("the nearest are revisions {before} and {after}"),
    };
    let text = format!(
        "{list} was not made anew at revision {revision}: {nearest}; `pulse allowlist history` shows all (a revision is \
         the fleet's, and most change other things)"
    );
    Err(Refusal::no_such_revision(field, text))
}

fn instance_name(catalog: &Catalog, scope: Scope) -> Option<String> {
    match scope {
        Scope::All => None,
        Scope::Instance(id) => catalog.inventory.instance(id).map(|instance| instance.name.clone()),
    }
}

/// A list as it was made.
fn stored(catalog: &Catalog, list: &SignedAllowlist) -> api::Allowlist {
    api::Allowlist {
        scope: list.scope.to_string(),
        instance: instance_name(catalog, list.scope),
        epoch: list.position.epoch,
        revision: Some(list.position.revision),
        hash: list.allowlist.hash().to_string(),
        updated_at: Some(time(list.updated_at)),
        key_id: Some(list.key_id.clone()),
        nodes: list.allowlist.nodes().iter().map(api::Node::from).collect(),
    }
}

fn scopes(catalog: &Catalog, which: &Which) -> Result<Vec<Scope>, Refusal> {
    match (which.scope.as_deref(), which.instance.as_deref()) {
        (None, Some(name)) => Ok(vec![Scope::Instance(present(catalog, name)?.id)]),
        (Some("all"), None) => Ok(vec![Scope::All]),
        (None, None) => {
            let present = catalog.inventory.present();
            let instances: Vec<Scope> = present.map(|instance| Scope::Instance(instance.id)).collect();
            // Without an instance there is nothing to show, not an empty list of everything.
            let all = (!instances.is_empty()).then_some(Scope::All);
            Ok(all.into_iter().chain(instances).collect())
        }
        _ => Err(Refusal::invalid(
            "scope",
            "give scope=all, or instance=NAME, or neither for every list".to_owned(),
        )),
    }
}

/// The list as it follows from the inventory; with the marks of its publication, if proxies are given it.
fn view(catalog: &Catalog, scope: Scope, newest: Option<&Published>) -> api::Allowlist {
    let list = allowlist::compile(&catalog.inventory, scope);
    let published =
        newest.map(|newest| &newest.signed).filter(|signed| signed.allowlist.hash() == list.hash());
    api::Allowlist {
        scope: scope.to_string(),
        instance: instance_name(catalog, scope),
        epoch: catalog.epoch,
        revision: published.map(|signed| signed.position.revision),
        hash: list.hash().to_string(),
        updated_at: published.map(|signed| time(signed.updated_at)),
        key_id: published.map(|signed| signed.key_id.clone()),
        nodes: list.nodes().iter().map(api::Node::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pulse_proto::Node;
    use uuid::Uuid;

    use super::*;
    use crate::inventory::{Instance, Inventory};
    use crate::registry::Registry;

    fn catalog(names: &[&str]) -> Catalog {
        let mut inventory = Inventory::default();
        for (at, name) in names.iter().enumerate() {
            let (id, nodes) = (
                Uuid::from_u128(at as u128 + 1),
                vec![Node::new(&format!("node-{name}"), "").expect("a node")],
            );
            inventory.put(Arc::new(Instance::new(id, name, nodes, SystemTime::UNIX_EPOCH)));
        }
        Catalog {
            server_id: Uuid::nil(),
            epoch: 1,
            revision: 2,
            audit_hash: "".into(),
            inventory,
            registry: Registry::default(),
            accounts: Default::default(),
        }
    }

    fn which(scope: Option<&str>, instance: Option<&str>) -> Which {
        Which { scope: scope.map(str::to_owned), instance: instance.map(str::to_owned), revision: None }
    }

    #[test]
    fn a_list_is_asked_for_by_instance_or_as_a_whole() {
        let catalog = catalog(&["home", "attic"]);
        let scopes = |scope, instance| scopes(&catalog, &which(scope, instance));
        let [home, attic] = [1, 2].map(|id| Scope::Instance(Uuid::from_u128(id)));
        assert_eq!(scopes(None, None).unwrap(), [Scope::All, attic, home]);
        assert_eq!(scopes(None, Some("HOME")).unwrap(), [home]);
        assert_eq!(scopes(Some("all"), None).unwrap(), [Scope::All]);
        for (scope, instance) in
            [(Some("all"), Some("home")), (Some("instance"), None), (None, Some("cellar"))]
        {
            assert!(scopes(scope, instance).is_err(), "{scope:?} {instance:?}");
        }
    }

    #[test]
    fn a_list_without_readers_is_shown_as_it_would_be() {
        let catalog = catalog(&["home"]);
        let list = view(&catalog, Scope::All, None);
        assert_eq!((list.revision, list.nodes.len(), list.scope.as_str()), (None, 1, "all"));
        let none = scopes(&super::tests::catalog(&[]), &which(None, None)).unwrap();
        assert!(none.is_empty());
    }
}
