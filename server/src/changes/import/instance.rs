//! One instance of an import: its nodes, the addresses that were set for them, and Proxmox VE as their source.
//!
//! Always: what was typed, told or set before stands.

use std::collections::HashMap;
use std::sync::Arc;

use pulse_proto::Node;
use uuid::Uuid;

use super::merge::{WantedInstance, WantedToken};
use super::{Import, Report, is_same};
use crate::changes::instances::check_name;
use crate::changes::{ChangeError, Changes, Draft, WantedSource};
use crate::import::FoundPve;
use crate::inventory::{Facts, Instance, KnownNode, Origin, Source, Wish};

/// Adds what an instance does not have yet; the instance itself, if it is not there.
///
/// # Errors
/// [`ChangeError::Invalid`] for its name; [`ChangeError::Store`] if a secret cannot be sealed.
pub(super) fn take(
    changes: &Changes,
    draft: &mut Draft<'_>,
    wanted: &WantedInstance,
    tokens: &[WantedToken],
    import: &Import,
    report: &mut Report,
) -> Result<(), ChangeError> {
    check_name(&wanted.name)?;
    let before = draft.after.inventory.by_name(&wanted.name).cloned();
    let registry = &draft.before.registry;
    let is_new = |token: &&WantedToken| token.hostname.is_some() && registry.token(&token.digest).is_none();
    let mut own = tokens.iter().filter(|token| token.is_of(&wanted.name)).peekable();
    let has_tokens = own.peek().is_some();
    let is_empty = wanted.nodes.is_empty() && wanted.sources.is_empty() && !own.any(|token| is_new(&token));
    let instance = match &before {
        Some(before) => {
            report.there("instance", Some(&before.name), format!("instance {}", before.name));
            Arc::clone(before)
        }
        // What is said of its tokens, is all that there is to say.
        None if is_empty && has_tokens => return Ok(()),
        None if is_empty => {
            let text = format!("instance {}: nothing is known of it but its name", wanted.name);
            let way_out = format!("add it by hand: `pulse instance add {}`", wanted.name);
            report.left_out("instance", Some(&wanted.name), text, way_out);
            return Ok(());
        }
        None => {
            let (name, text) = (&wanted.name, format!("instance {}", wanted.name));
            report.add("instance", name, text);
            Arc::new(Instance::new(Uuid::now_v7(), name, Vec::new(), draft.at))
        }
    };
    let server_id = draft.before.server_id;
    let mut facts = Facts::clone(&instance);
    add_nodes(&mut facts, &wanted.nodes, &wanted.address_overrides, draft, report);
    for found in &wanted.sources {
        let Some(source) = wanted_source(&facts, found, import, report) else { continue };
        let source = changes.sealed(server_id, facts.id, &source, None)?;
        let text = format!("source {} of {}, asked as {}", shown(&source), facts.name, source.token_id);
        report.add("source", &facts.name, text);
        facts.source = Some(source);
    }
    set_addresses(&mut facts, &wanted.address_overrides, report);
    let after = Instance::from(facts);
    if before.as_deref() != Some(&after) {
        draft.put_instance(after);
    }
    Ok(())
}

fn add_nodes(
    facts: &mut Facts,
    nodes: &[Node],
    overrides: &[(String, String)],
    draft: &Draft<'_>,
    report: &mut Report,
) {
    let key = |node: &Node| node.name().to_ascii_lowercase();
    let mut known: HashMap<String, Vec<KnownNode>> = HashMap::new();
    for one in &facts.nodes {
        known.entry(key(&one.node)).or_default().push(one.clone());
    }
    let name = facts.name.clone();
    for node in nodes {
        let there = known.entry(key(node)).or_default();
        let text = format!("node {node} of {name}");
        let Some(first) = there.first() else {
            let added = KnownNode { node: node.clone(), origin: Origin::Import, confirmed_at: draft.at };
            there.push(added.clone());
            facts.nodes.push(added);
            report.add("node", &name, text);
            continue;
        };
        // Who only knows the name, says nothing of the address.
        let is_silent = node.address().to_string().is_empty();
        let is_wished = facts.wish(node.name()).and_then(|wish| wish.address.as_ref());
        let is_wished = is_wished.is_some_and(|address| *address == node.address().to_string());
        // What a person set against the cluster's word is set again.
        let is_told = there.iter().all(|known| known.origin == Origin::Cluster);
        let is_set_over = is_told && overrides.iter().any(|(of, _)| is_same(of, node.name()));
        let is_known = there.iter().any(|known| known.node.address() == node.address());
        if is_silent || is_wished || is_set_over || is_known {
            report.there("node", Some(&name), text);
            continue;
        }
        let at = first.node.address().to_string();
        let at = if at.is_empty() { "without an address".to_owned() } else { format!("at {at}") };
        let text = format!("{text}: it is there {at} ({})", first.origin.as_str());
        let address = node.address();
        let way_out = format!(
            "if it has moved: `pulse node address {name} {} {address}`; if it is another host, add it under another name",
            node.name()
        );
        report.left_out("node", Some(&name), text, way_out);
    }
    // In the order of origins; within one, as it was found.
    facts.nodes.sort_by_key(|known| known.origin);
}

/// Sets the addresses that a person had set; after the source is known, as only then a node may be told later.
fn set_addresses(facts: &mut Facts, overrides: &[(String, String)], report: &mut Report) {
    let instance = facts.name.clone();
    for (name, address) in overrides {
        let text = format!("address {address} set for {name} of {instance}");
        let of_name = || facts.nodes.iter().filter(|known| is_same(known.node.name(), name));
        let is_against = of_name()
            .any(|known| known.origin != Origin::Cluster && known.node.address().to_string() != *address);
        let before = facts.wish(name).and_then(|wish| wish.address.clone());
        match before {
            Some(before) if before == *address => report.there("address", Some(&instance), text),
            None if !is_against => {
                let wish = facts.wishes.entry(name.to_ascii_lowercase()).or_default();
                *wish = Wish { address: Some(address.clone()), ..wish.clone() };
                report.add("address", &instance, text);
            }
            before => {
                let why = match before {
                    Some(before) => format!("{before} is set for it here"),
                    None => "the node is there with another one".to_owned(),
                };
                let way_out =
                    format!("if this one is right: `pulse node address {instance} {name} {address}`");
                report.left_out("address", Some(&instance), format!("{text}: {why}"), way_out);
            }
        }
    }
}

/// The source that an instance gets, unless it has one or nobody knows whom to trust.
fn wanted_source(
    facts: &Facts,
    found: &FoundPve,
    import: &Import,
    report: &mut Report,
) -> Option<WantedSource> {
    let name = &facts.name;
    let urls = found.urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("source {urls} of {name}, asked as {}", found.token.id());
    if let Some(source) = &facts.source {
        let is_asked =
            source.token_id == found.token.id() && found.urls.iter().all(|url| source.urls.contains(url));
        if is_asked {
            report.there("source", Some(name), text);
        } else {
            let why = format!("it is {} asked as {} here, and stays so", shown(source), source.token_id);
            let way_out = format!(
                "if the other is wanted: `pulse instance set {name} --pve URL --token-id ID --token-secret-file FILE`"
            );
            report.left_out("source", Some(name), format!("{text}: {why}"), way_out);
        }
        return None;
    }
    let pinned = match (found.fingerprints.is_empty(), found.has_trust_from_system) {
        (true, false) if import.fingerprints.is_empty() => {
            let why =
                "the older server did not look whose certificate it was shown, so there is none to trust";
            let way_out = format!(
                "import again with --fingerprint SHA256, which `openssl x509 -noout -fingerprint -sha256 -in \
                 /etc/pve/local/pve-ssl.pem` prints on the host; or `pulse instance set {name} --pve {} --token-id '{}' \
                 --token-secret-file FILE --fingerprint SHA256`",
                found.urls.first().map(ToString::to_string).unwrap_or_default(),
                found.token.id()
            );
            report.left_out("source", Some(name), format!("{text}: {why}"), way_out);
            return None;
        }
        (true, false) => import.fingerprints.clone(),
        (true, true) | (false, _) => found.fingerprints.clone(),
    };
    Some(WantedSource {
        urls: found.urls.clone(),
        token: found.token.clone(),
        fingerprints: pinned,
        poll_interval: import.poll_interval,
    })
}

fn shown(source: &Source) -> String {
    source.urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
