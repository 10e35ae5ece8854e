//! Nodes that contradict each other: one name at two addresses, or one address under two names.
//!
//! In: the inventory. Out: each contradiction, and the way out. Never: mends one; the lists carry what they carry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pulse_proto::node::Address;

use super::{Inventory, KnownNode, Origin};

/// A contradiction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The instances that take part, by name.
    pub instances: Vec<String>,
    /// What contradicts what, and the way out.
    pub text: String,
}

struct Claim<'a> {
    instance: &'a str,
    known: &'a KnownNode,
    address: Option<IpAddr>,
}

/// All contradictions. Two instances may well have a node of one name: only within one is that a contradiction. An address is one
/// machine everywhere.
#[must_use]
pub fn conflicts(inventory: &Inventory) -> Vec<Conflict> {
    let mut found = Vec::new();
    let mut by_address: BTreeMap<IpAddr, Vec<Claim<'_>>> = BTreeMap::new();
    for instance in inventory.present() {
        let mut by_name: BTreeMap<String, Vec<&KnownNode>> = BTreeMap::new();
        for known in &instance.nodes {
            by_name.entry(known.node.name().to_ascii_lowercase()).or_default().push(known);
            let Some(listed) = instance.on_lists(known) else { continue };
            if let Address::Ip(address) = listed.address() {
                let claim = Claim { instance: &instance.name, known, address: Some(*address) };
                by_address.entry(*address).or_default().push(claim);
            }
        }
        for known in by_name.into_values().filter(|known| known.len() > 1) {
            found.extend(one_name(&instance.name, &known));
        }
    }
    found.extend(
        by_address.into_values().filter(|claims| claims.len() > 1).filter_map(|claims| one_address(&claims)),
    );
    found
}

fn one_name(instance: &str, known: &[&KnownNode]) -> Option<Conflict> {
    let first = known.first()?;
    let other = known.iter().find(|other| other.node.address() != first.node.address())?;
    let said = |known: &KnownNode| {
        let address = known.node.address().to_string();
        let address = if address.is_empty() { "at no address".to_owned() } else { format!("at {address}") };
        format!("{address} ({})", known.origin.as_str())
    };
    let name = first.node.name();
    let way_out = match other.origin {
        Origin::Cluster => format!(
            "the {} one is on the list; keep it with `pulse node address {instance} {name} {}` and give up what was typed, or only the \
             latter: `pulse instance set {instance}` with the --endpoint of the others, or --no-endpoints",
            first.origin.as_str(),
            first.node.address()
        ),
        _ => format!("keep one of them with `pulse instance set {instance}`"),
    };
    let text = format!("node {name} is {} and {}: {way_out}", said(first), said(other));
    Some(Conflict { instances: vec![instance.to_owned()], text })
}

fn one_address(claims: &[Claim<'_>]) -> Option<Conflict> {
    let first = claims.first()?;
    let is_other =
        |claim: &&Claim<'_>| !claim.known.node.name().eq_ignore_ascii_case(first.known.node.name());
    let other = claims.iter().find(is_other)?;
    let address = first.address?;
    let said = |claim: &Claim<'_>| {
        format!("{} of {} ({})", claim.known.node.name(), claim.instance, claim.known.origin.as_str())
    };
    let text = format!(
        "{address} is {} and {}: an address is one machine; mend it at its source, set another with `pulse node address`, or \
         take one off with `pulse node exclude`",
        said(first),
        said(other)
    );
    let mut instances = vec![first.instance.to_owned(), other.instance.to_owned()];
    instances.dedup();
    Some(Conflict { instances, text })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use pulse_proto::Node;
    use uuid::Uuid;

    use super::super::Instance;
    use super::*;

    fn nodes(lines: &[(&str, &str)]) -> Vec<Node> {
        lines.iter().map(|(name, address)| Node::new(name, address).unwrap()).collect()
    }

    fn put(inventory: &mut Inventory, n: u128, name: &str, typed: &[(&str, &str)], told: &[(&str, &str)]) {
        let at = SystemTime::UNIX_EPOCH;
        let instance = Instance::new(Uuid::from_u128(n), name, nodes(typed), at);
        inventory.put(Arc::new(instance.with(|facts| facts.replace(Origin::Cluster, nodes(told), at))));
    }

    #[test]
    fn one_name_at_two_addresses_and_one_address_under_two_names_are_said_with_the_way_out() {
        let mut inventory = Inventory::default();
        put(&mut inventory, 1, "home", &[("a", "192.0.2.1")], &[("a", "192.0.2.9"), ("b", "192.0.2.2")]);
        put(&mut inventory, 2, "lab", &[("c", "192.0.2.2")], &[("a", "192.0.2.7")]);
        let texts: Vec<String> = conflicts(&inventory).into_iter().map(|conflict| conflict.text).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].contains("node a is at 192.0.2.1 (manual) and at 192.0.2.9 (cluster)"), "{texts:?}");
        assert!(texts[0].contains("pulse node address home a"), "{texts:?}");
        assert!(texts[1].contains("192.0.2.2 is b of home (cluster) and c of lab (manual)"), "{texts:?}");
        assert!(texts[1].contains("pulse node exclude"), "{texts:?}");
    }

    #[test]
    fn two_instances_may_have_a_node_of_one_name() {
        let mut inventory = Inventory::default();
        put(&mut inventory, 1, "home", &[], &[("pve", "192.0.2.1")]);
        put(&mut inventory, 2, "lab", &[("pve", "192.0.2.2")], &[]);
        assert_eq!(conflicts(&inventory), []);
    }
}
