//! `/allowlists`: who may read what.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Json;
use pulse_proto::Scope;
use serde::Deserialize;

use super::instances::present;
use super::refusal::Refusal;
use crate::api::{self, time};
use crate::catalog::Catalog;
use crate::publish::Published;
use crate::{Pulse, allowlist};

/// Which lists; neither: every one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    instance: Option<String>,
}

pub(super) async fn list(
    State(pulse): State<Arc<Pulse>>,
    Query(which): Query<Which>,
) -> Result<Json<api::Allowlists>, Refusal> {
    let catalog = pulse.changes.catalog();
    let scopes = scopes(&catalog, &which)?;
    let view = |scope: Scope| view(&catalog, scope, pulse.lists.newest(scope).as_deref());
    Ok(Json(api::Allowlists { allowlists: scopes.into_iter().map(view).collect() }))
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
    let instance = match scope {
        Scope::All => None,
        Scope::Instance(id) => catalog.inventory.instance(id).map(|instance| instance.name.clone()),
    };
    api::Allowlist {
        scope: scope.to_string(),
        instance,
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
            inventory.put(Arc::new(Instance {
                id: Uuid::from_u128(at as u128 + 1),
                name: (*name).to_owned(),
                endpoints: vec![Node::new(&format!("node-{name}"), "").expect("a node")],
                created_at: SystemTime::UNIX_EPOCH,
                removed_at: None,
            }));
        }
        Catalog { server_id: Uuid::nil(), epoch: 1, revision: 2, inventory, registry: Registry::default() }
    }

    fn which(scope: Option<&str>, instance: Option<&str>) -> Which {
        Which { scope: scope.map(str::to_owned), instance: instance.map(str::to_owned) }
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
