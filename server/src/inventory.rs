//! What exists: the Proxmox instances that Pulse knows, and their nodes.
//!
//! In: what admins set and what clusters say. Out: an immutable [`Inventory`], cheap to clone.
//! Always: names of instances differ (case-blind); a removed instance stays as a tombstone with no node, so that
//! its proxies can still be told that they may read nothing.
//! Never: asks the store or anybody else.

mod conflicts;
mod instance;
mod shrink;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use pulse_proto::Node;
use pulse_proto::node::Address;
use rpds::RedBlackTreeMapSync;
use uuid::Uuid;

use crate::index::Index;
pub use conflicts::{Conflict, conflicts};
pub use instance::{Facts, Held, Instance, KnownNode, Origin, Source, Use, Wish};
pub use shrink::{gone, is_most, too_many_gone};

/// All instances. Cloning shares them.
#[derive(Clone, Default, Debug)]
pub struct Inventory {
    instances: RedBlackTreeMapSync<Uuid, Arc<Instance>>,
    /// Of instances that are present: lower-case name to id.
    names: RedBlackTreeMapSync<String, Uuid>,
    /// Of instances that are present: those that have a node of this name, in lower case.
    hosts: Index<String, Uuid>,
    /// Of instances that are present: those that have a node of this address.
    addresses: Index<IpAddr, Uuid>,
}

impl Inventory {
    /// Adds an instance, or puts it in the place of the one with its id.
    pub fn put(&mut self, instance: Arc<Instance>) {
        // Another instance may have taken its name after it was removed.
        let before = self.instances.get(&instance.id).filter(|before| before.is_present()).cloned();
        if let Some(before) = &before {
            self.names.remove_mut(&before.name.to_ascii_lowercase());
        }
        if instance.is_present() {
            self.names.insert_mut(instance.name.to_ascii_lowercase(), instance.id);
        }
        self.index(before.as_deref(), &instance);
        self.instances.insert_mut(instance.id, instance);
    }

    /// Finds an instance by the hosts that it has now, and no longer by those that it had.
    fn index(&mut self, before: Option<&Instance>, instance: &Instance) {
        let had = before.map_or(&[][..], |before| before.endpoints());
        let has = if instance.is_present() { instance.endpoints() } else { &[] };
        // Mostly one node of many is new: those that stand where they stood are not looked up.
        let stands = |at: &usize| had.get(*at) == has.get(*at);
        let moved = |nodes: &[Node]| -> HashSet<Host> {
            (0..nodes.len()).filter(|at| !stands(at)).flat_map(|at| hosts(&nodes[at])).collect()
        };
        let (mut gone, new) = (moved(had), moved(has));
        gone.retain(|host| !new.contains(host));
        if !gone.is_empty() {
            for host in has.iter().flat_map(hosts) {
                gone.remove(&host);
            }
        }
        for host in gone {
            match host {
                Host::Name(name) => self.hosts.remove(name.as_str(), instance.id),
                Host::Address(address) => self.addresses.remove(&address, instance.id),
            }
        }
        for host in new {
            match host {
                Host::Name(name) => self.hosts.add(name, instance.id),
                Host::Address(address) => self.addresses.add(address, instance.id),
            }
        }
    }

    /// The instance of this id, removed ones too.
    pub fn instance(&self, id: Uuid) -> Option<&Arc<Instance>> {
        self.instances.get(&id)
    }

    /// The instance of this name (case-blind) that is present.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Instance>> {
        self.names.get(&name.to_ascii_lowercase()).and_then(|id| self.instances.get(id))
    }

    /// The instance of this name (case-blind) that was removed last.
    pub fn removed_by_name(&self, name: &str) -> Option<&Arc<Instance>> {
        let removed = self.instances.values().filter(|instance| !instance.is_present());
        removed
            .filter(|instance| instance.name.eq_ignore_ascii_case(name))
            .max_by_key(|instance| instance.removed_at)
    }

    /// The instances that are present, by name.
    pub fn present(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.names.values().filter_map(|id| self.instances.get(id))
    }

    /// The one instance to which a host belongs: exact, case-blind equality of its name with a node of exactly
    /// one instance, or of its address with a node's. `None` if no instance matches, or several do.
    pub fn instance_of_host(&self, hostname: &str, peer: Option<IpAddr>) -> Option<&Arc<Instance>> {
        let by_name = only(self.hosts.of(hostname.to_ascii_lowercase().as_str()));
        let by_address = || peer.and_then(|peer| only(self.addresses.of(&peer.to_canonical())));
        by_name.or_else(by_address).and_then(|id| self.instances.get(&id))
    }

    /// The present instances that have exactly this node, in the order of their ids.
    pub fn instances_with(&self, node: &Node) -> impl Iterator<Item = &Arc<Instance>> {
        let named = self.hosts.of(node.name().to_ascii_lowercase().as_str());
        let named = named.filter_map(|id| self.instances.get(&id));
        named.filter(move |instance| instance.endpoints().contains(node))
    }
}

/// What a host is found by.
#[derive(PartialEq, Eq, Hash)]
enum Host {
    /// Its name in lower case.
    Name(String),
    /// Its address.
    Address(IpAddr),
}

/// What a node is found by.
fn hosts(node: &Node) -> impl Iterator<Item = Host> + use<> {
    let address = match node.address() {
        Address::Ip(address) => Some(Host::Address(*address)),
        _ => None,
    };
    [Some(Host::Name(node.name().to_ascii_lowercase())), address].into_iter().flatten()
}

/// The one that there is; `None` if there is none, or several are.
fn only(mut ids: impl Iterator<Item = Uuid>) -> Option<Uuid> {
    let first = ids.next();
    first.filter(|_| ids.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::index::dice::Dice;

    fn instance(n: u128, name: &str, nodes: &[(&str, &str)]) -> Arc<Instance> {
        let nodes = nodes.iter().map(|(name, address)| Node::new(name, address).unwrap()).collect();
        Arc::new(Instance::new(Uuid::from_u128(n), name, nodes, SystemTime::UNIX_EPOCH))
    }

    fn inventory() -> Inventory {
        let mut inventory = Inventory::default();
        inventory.put(instance(1, "home", &[("delly", "192.168.0.5"), ("pve", "192.168.0.6")]));
        inventory.put(instance(2, "lab", &[("minipc", "10.0.0.1"), ("pve", "10.0.0.2")]));
        inventory
    }

    #[test]
    fn a_host_belongs_to_the_one_instance_that_names_it_or_has_its_address() {
        let inventory = inventory();
        let name = |host: &str, peer: Option<&str>| {
            let peer = peer.map(|peer| peer.parse().unwrap());
            inventory.instance_of_host(host, peer).map(|instance| instance.name.clone())
        };
        assert_eq!(name("DELLY", None).as_deref(), Some("home"));
        assert_eq!(name("pve", None), None, "two instances have a node of that name");
        assert_eq!(name("pve", Some("10.0.0.2")).as_deref(), Some("lab"));
        assert_eq!(name("other", Some("::ffff:192.168.0.6")).as_deref(), Some("home"));
        assert_eq!(name("delly.lan", None), None, "equality is exact");
        assert_eq!(name("other", Some("127.0.0.1")), None);
    }

    #[test]
    fn a_removed_instance_gives_its_name_back_and_matches_no_host() {
        let mut inventory = inventory();
        let home = Arc::clone(inventory.by_name("HOME").unwrap());
        let removed_at = Some(SystemTime::UNIX_EPOCH);
        inventory.put(Arc::new(home.with(|facts| facts.removed_at = removed_at)));
        assert!(inventory.by_name("home").is_none());
        assert!(inventory.instance_of_host("delly", None).is_none());
        assert!(inventory.instance(home.id).is_some());
    }

    #[test]
    fn a_renamed_instance_is_found_under_its_new_name_only() {
        let mut inventory = inventory();
        inventory.put(instance(1, "attic", &[]));
        assert!(inventory.by_name("home").is_none());
        assert_eq!(inventory.present().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["attic", "lab"]);
    }

    /// The answers of the index are those of a look at every instance, after any puts.
    #[test]
    fn the_index_says_what_a_look_at_all_instances_says() {
        let mut dice = Dice::new(7);
        let mut inventory = Inventory::default();
        for step in 0..2_000_u128 {
            let id = u128::from(dice.below(12)) + 1;
            let nodes = (0..dice.below(4)).map(|_| {
                let name = ["pve", "PVE", "delly", "Minipc", "a", "b"][dice.below(6) as usize];
                let address =
                    ["", "10.0.0.1", "10.0.0.2", "2001:db8::1", "pve.example"][dice.below(5) as usize];
                Node::new(name, address).unwrap()
            });
            let endpoints: Vec<Node> = nodes.collect();
            let removed_at = (dice.below(3) == 0).then_some(SystemTime::UNIX_EPOCH);
            let made =
                Instance::new(Uuid::from_u128(id), &format!("i{id}"), endpoints, SystemTime::UNIX_EPOCH);
            inventory.put(Arc::new(made.with(|facts| facts.removed_at = removed_at)));
            let present: Vec<_> =
                inventory.instances.values().filter(|instance| instance.is_present()).collect();
            for host in ["pve", "DELLY", "minipc", "a", "none"] {
                for peer in [None, Some("::ffff:10.0.0.1"), Some("10.0.0.2"), Some("2001:db8::1")] {
                    let peer: Option<IpAddr> = peer.map(|peer| peer.parse().unwrap());
                    let is_named = |node: &Node| node.name().eq_ignore_ascii_case(host);
                    let is_at = |node: &Node| {
                        peer.is_some_and(|peer| *node.address() == Address::Ip(peer.to_canonical()))
                    };
                    let ids_with = |fits: &dyn Fn(&Node) -> bool| {
                        let fitting = present.iter().filter(|instance| instance.endpoints().iter().any(fits));
                        fitting.map(|instance| instance.id).collect::<Vec<_>>()
                    };
                    let expected = match (&ids_with(&is_named)[..], &ids_with(&is_at)[..]) {
                        ([one], _) | (_, [one]) => Some(*one),
                        _ => None,
                    };
                    let found = inventory.instance_of_host(host, peer).map(|instance| instance.id);
                    assert_eq!(found, expected, "step {step}: {host} {peer:?}");
                }
            }
            for node in present.iter().flat_map(|instance| instance.endpoints()) {
                let with = present.iter().filter(|instance| instance.endpoints().contains(node));
                let with: Vec<_> = with.map(|instance| instance.id).collect();
                let found = inventory.instances_with(node).map(|instance| instance.id);
                assert_eq!(found.collect::<Vec<_>>(), with, "step {step}: {node}");
            }
        }
    }
}
