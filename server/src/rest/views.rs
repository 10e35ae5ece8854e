//! Instances and nodes as they are shown. Pure, but for the look at what became of asking Proxmox VE.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::Pulse;
use crate::api::{self, time};
use crate::catalog::Catalog;
use crate::changes::ChangeError;
use crate::inventory::{Conflict, Held, Instance, Origin, Source, Use, conflicts, gone};

/// The present instance of this name.
pub(super) fn present<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Arc<Instance>, ChangeError> {
    let not_found = || ChangeError::NotFound { what: "instance", name: name.to_owned() };
    catalog.inventory.by_name(name).ok_or_else(not_found)
}

/// Every instance that is present.
pub(super) fn all(pulse: &Pulse) -> api::Instances {
    let catalog = pulse.changes.catalog();
    let mut proxies: HashMap<Uuid, usize> = HashMap::new();
    for instance in catalog.registry.proxies().filter_map(|proxy| proxy.instance) {
        *proxies.entry(instance).or_default() += 1;
    }
    let conflicts = conflicts(&catalog.inventory);
    let view = |instance: &Instance| {
        let count = proxies.get(&instance.id).copied().unwrap_or_default();
        view(pulse, instance, count, &conflicts)
    };
    api::Instances { instances: catalog.inventory.present().map(|instance| view(instance)).collect() }
}

/// One instance.
pub(super) fn one(pulse: &Pulse, instance: &Instance) -> api::Instance {
    let catalog = pulse.changes.catalog();
    let proxies = catalog.registry.proxies_of(instance.id).count();
    view(pulse, instance, proxies, &conflicts(&catalog.inventory))
}

fn view(pulse: &Pulse, instance: &Instance, proxies: usize, conflicts: &[Conflict]) -> api::Instance {
    let takes_part = |conflict: &&Conflict| conflict.instances.contains(&instance.name);
    api::Instance {
        id: instance.id,
        name: instance.name.clone(),
        endpoints: instance.endpoints().iter().map(api::Node::from).collect(),
        nodes: nodes(pulse, instance),
        standing: standing(instance.standing),
        pve: instance.source.as_ref().map(|source| pve(pulse, instance, source)),
        held: held(instance),
        conflicts: conflicts.iter().filter(takes_part).map(|conflict| conflict.text.clone()).collect(),
        proxies,
        created_at: time(instance.created_at),
    }
}

/// The nodes of an instance, as its sources name them.
pub(super) fn nodes(pulse: &Pulse, instance: &Instance) -> Vec<api::KnownNode> {
    let polls = &pulse.polls;
    let heard_at = polls.heard_at(instance.id);
    let held = instance.held.get(&Origin::Cluster);
    let is_told = |name: &str| {
        let is_kept =
            || held.is_none_or(|held| !held.gone.iter().any(|gone| gone.eq_ignore_ascii_case(name)));
        polls.names(instance.id, name).unwrap_or_else(is_kept)
    };
    let shown = instance.nodes.iter().map(|known| {
        let name = known.node.name();
        let wish = instance.wish(name);
        let is_confirmed = known.origin == Origin::Cluster && is_told(name);
        let confirmed_at =
            heard_at.filter(|_| is_confirmed).unwrap_or(known.confirmed_at).max(known.confirmed_at);
        let is_in_use = instance.standing != Use::Excluded;
        api::KnownNode {
            instance: instance.name.clone(),
            name: name.to_owned(),
            ip: known.node.address().to_string(),
            set_ip: wish.and_then(|wish| wish.address.clone()),
            origin: known.origin.as_str().to_owned(),
            confirmed_at: Some(time(confirmed_at)),
            standing: standing(wish.map_or(Use::Active, |wish| wish.standing)),
            is_listed: is_in_use && instance.on_lists(known).is_some(),
        }
    });
    let is_there =
        |name: &str| instance.nodes.iter().any(|known| known.node.name().eq_ignore_ascii_case(name));
    // What is set for a node that is not there holds when it comes.
    let absent =
        instance.wishes.iter().filter(|(name, _)| !is_there(name)).map(|(name, wish)| api::KnownNode {
            instance: instance.name.clone(),
            name: name.clone(),
            ip: String::new(),
            set_ip: wish.address.clone(),
            origin: "none".to_owned(),
            confirmed_at: None,
            standing: standing(wish.standing),
            is_listed: false,
        });
    shown.chain(absent).collect()
}

fn pve(pulse: &Pulse, instance: &Instance, source: &Source) -> api::PveStatus {
    let poll = pulse.polls.of(instance.id);
    let problem = poll.as_ref().map(|poll| poll.problem.clone()).filter(|problem| !problem.is_empty());
    let state = match (instance.standing, &poll, &problem) {
        (Use::Paused | Use::Excluded, ..) => instance.standing.as_str(),
        (Use::Active, None, _) => "waiting",
        (Use::Active, Some(_), Some(_)) => "problem",
        (Use::Active, Some(_), None) => "ok",
    };
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    api::PveStatus {
        urls: source.urls.iter().map(ToString::to_string).collect(),
        token_id: source.token_id.clone(),
        fingerprints: source.fingerprints.iter().map(ToString::to_string).collect(),
        poll_interval_seconds: source.poll_interval.as_secs_f64(),
        state: state.to_owned(),
        problem,
        problem_since: poll.as_ref().and_then(|poll| poll.problem_since).map(time),
        asked_at: poll.as_ref().map(|poll| time(poll.asked_at)),
        heard_at: poll.as_ref().and_then(|poll| poll.heard_at).map(time),
        url: poll.as_ref().and_then(|poll| text(&poll.url)),
        version: poll.as_ref().and_then(|poll| text(&poll.version)),
    }
}

/// The changes of an instance that wait for an admin, or were said no to.
pub(super) fn held(instance: &Instance) -> Vec<api::Held> {
    let gone_of = |origin: Origin, held: &Held| {
        // By the list as it is now; where addresses alone are in doubt, by what was noted.
        let after = instance.with_held(origin, held.at);
        let gone = after.map(|after| gone(instance.endpoints(), after.endpoints())).unwrap_or_default();
        if gone.is_empty() { held.gone.clone() } else { gone }
    };
    let shown = instance.held.iter().map(|(origin, held)| api::Held {
        instance: instance.name.clone(),
        origin: origin.as_str().to_owned(),
        by: held.by.clone(),
        held_at: time(held.at),
        gone: gone_of(*origin, held),
        nodes: held.nodes.iter().map(api::Node::from).collect(),
        is_discarded: held.is_discarded,
    });
    shown.collect()
}

pub(super) fn standing(standing: Use) -> api::Standing {
    match standing {
        Use::Active => api::Standing::Active,
        Use::Paused => api::Standing::Paused,
        Use::Excluded => api::Standing::Excluded,
    }
}

pub(super) fn standing_of(standing: api::Standing) -> Use {
    match standing {
        api::Standing::Active => Use::Active,
        api::Standing::Paused => Use::Paused,
        api::Standing::Excluded => Use::Excluded,
    }
}
