//! What a person sees of instances and nodes: where they come from, what is wrong, what waits. Pure: an answer in, text out.

use std::time::SystemTime;

use super::text::{Table, ago, clean, count, or_dash, span, time};
use crate::api::{Held, Instance, Instances, KnownNode, Nodes, PveStatus, Standing};

/// How many names of nodes a line has room for.
const SHOWN_NAMES: usize = 8;

pub(super) fn instance(one: &Instance, now: SystemTime) -> String {
    let mut facts = Table::plain();
    facts.row(["name".into(), one.name.clone()]);
    facts.row(["id".into(), one.id.to_string()]);
    facts.row(["added".into(), time(one.created_at)]);
    facts.row(["proxies".into(), one.proxies.to_string()]);
    if one.standing != Standing::Active {
        facts.row(["standing".into(), one.standing.as_str().to_owned()]);
    }
    if let Some(pve) = &one.pve {
        source(&mut facts, pve, now);
    }
    for conflict in &one.conflicts {
        facts.row(["conflict".into(), conflict.clone()]);
    }
    for held in &one.held {
        facts.row(["held".into(), told(held, now)]);
    }
    format!("{}\n{}", facts.render(), table(&one.nodes, now, false))
}

fn source(facts: &mut Table, pve: &PveStatus, now: SystemTime) {
    let every = span(super::text::seconds(pve.poll_interval_seconds));
    facts.row(["source".into(), format!("Proxmox VE, asked every {every} as {}", pve.token_id)]);
    for url in &pve.urls {
        facts.row([String::new(), url.clone()]);
    }
    for fingerprint in &pve.fingerprints {
        facts.row(["pinned".into(), fingerprint.clone()]);
    }
    if pve.fingerprints.is_empty() {
        facts.row(["trusted".into(), "certificates that the system trusts".to_owned()]);
    }
    let heard = match (pve.heard_at, &pve.url, &pve.version) {
        (Some(at), Some(url), Some(version)) => {
            format!("{}: {url}, version {version}", ago(at, now))
        }
        _ => "never".to_owned(),
    };
    facts.row(["heard".into(), heard]);
    facts.row(["state".into(), pve.state.clone()]);
    if let Some(problem) = &pve.problem {
        let since = pve.problem_since.map(|at| format!(" (since {})", time(at))).unwrap_or_default();
        facts.row(["problem".into(), format!("{problem}{since}")]);
        facts.row([String::new(), "the list stays as it is meanwhile".to_owned()]);
    }
}

pub(super) fn nodes(all: &Nodes, now: SystemTime) -> String {
    let conflicts: String = all.conflicts.iter().map(|text| format!("conflict: {}\n", clean(text))).collect();
    conflicts + &table(&all.nodes, now, true)
}

fn table(nodes: &[KnownNode], now: SystemTime, with_instance: bool) -> String {
    if nodes.is_empty() {
        return "no node\n".to_owned();
    }
    let address = |node: &KnownNode| match &node.set_ip {
        Some(set) => format!("{set} (set)"),
        None => or_dash(Some(&node.ip)),
    };
    let state = |node: &KnownNode| match (node.standing, node.is_listed) {
        (Standing::Active, true) => "listed",
        (Standing::Active, false) => "not listed",
        (standing, _) => standing.as_str(),
    };
    let cells = |node: &KnownNode| {
        let confirmed = node.confirmed_at.map_or_else(|| "-".to_owned(), |at| ago(at, now));
        [node.name.clone(), address(node), node.origin.clone(), confirmed, state(node).to_owned()]
    };
    if !with_instance {
        let mut table = Table::new(["NODE", "ADDRESS", "FROM", "CONFIRMED", "STATE"]);
        nodes.iter().for_each(|node| table.row(cells(node)));
        return table.render();
    }
    let mut table = Table::new(["INSTANCE", "NODE", "ADDRESS", "FROM", "CONFIRMED", "STATE"]);
    for node in nodes {
        let [name, address, origin, confirmed, state] = cells(node);
        table.row([node.instance.clone(), name, address, origin, confirmed, state]);
    }
    table.render()
}

pub(super) fn held(all: &Instances, now: SystemTime) -> String {
    let mut table = Table::new(["INSTANCE", "FROM", "BY", "SINCE", "WOULD LEAVE", "WOULD GO", "STATE"]);
    let mut is_empty = true;
    for held in all.instances.iter().flat_map(|one| &one.held) {
        is_empty = false;
        table.row([
            held.instance.clone(),
            held.origin.clone(),
            held.by.clone(),
            ago(held.held_at, now),
            count(held.nodes.len(), "node"),
            names(&held.gone),
            if held.is_discarded { "discarded" } else { "waits" }.to_owned(),
        ]);
    }
    if is_empty { "no change is held\n".to_owned() } else { table.render() }
}

/// What an admin should hear at once of a change that was made a moment ago.
pub(super) fn remarks(one: &Instance, with_discarded: bool) -> String {
    let now = super::now();
    let held = one.held.iter().filter(|held| with_discarded || !held.is_discarded);
    let held = held.map(|held| format!("held: {}\n", clean(&told(held, now))));
    let conflicts = one.conflicts.iter().map(|text| format!("conflict: {}\n", clean(text)));
    held.chain(conflicts).collect()
}

fn told(held: &Held, now: SystemTime) -> String {
    let (gone, since, name) = (names(&held.gone), ago(held.held_at, now), &held.instance);
    if held.is_discarded {
        return format!(
            "{} would take off {gone}; that was discarded, and `pulse allowlist confirm {name}` does it all the same",
            held.by
        );
    }
    format!(
        "{} would take off {gone} ({since}); it goes out with `pulse allowlist confirm {name}`, or not with `pulse allowlist discard \
         {name}`",
        held.by
    )
}

fn names(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN_NAMES).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN_NAMES) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}
