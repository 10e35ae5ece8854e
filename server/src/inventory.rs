//! What exists: the Proxmox instances that Pulse knows, and their nodes.
//!
//! In: what admins set (and, one day, what clusters say). Out: an immutable [`Inventory`], cheap to clone.
//! Always: names of instances differ (case-blind); a removed instance stays as a tombstone with no node, so that
//! its proxies can still be told that they may read nothing.
//! Never: asks the store or anybody else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::Node;
use pulse_proto::node::Address;
use rpds::RedBlackTreeMapSync;
use uuid::Uuid;

/// A Proxmox VE instance: a standalone host or a cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct Instance {
    /// Its identity; never changes.
    pub id: Uuid,
    /// Its name: 1 to 63 of `[A-Za-z0-9._-]`, beginning alphanumeric.
    pub name: String,
    /// Its nodes, as an admin set them. Empty once it is removed.
    pub endpoints: Vec<Node>,
    /// When it was added.
    pub created_at: SystemTime,
    /// When it was removed, if it was.
    pub removed_at: Option<SystemTime>,
}

impl Instance {
    /// Whether it has not been removed.
    pub fn is_present(&self) -> bool {
        self.removed_at.is_none()
    }

    /// Whether a node of it has this name, case-blind.
    fn has_name(&self, hostname: &str) -> bool {
        self.endpoints.iter().any(|node| node.name().eq_ignore_ascii_case(hostname))
    }

    /// Whether a node of it has this address.
    fn has_address(&self, address: IpAddr) -> bool {
        self.endpoints.iter().any(|node| *node.address() == Address::Ip(address.to_canonical()))
    }

    /// Whether a node of it has this name or this address.
    pub(crate) fn has_host(&self, hostname: &str, peer: Option<IpAddr>) -> bool {
        self.has_name(hostname) || peer.is_some_and(|peer| self.has_address(peer))
    }
}

/// All instances. Cloning shares them.
#[derive(Clone, Default, Debug)]
pub struct Inventory {
    instances: RedBlackTreeMapSync<Uuid, Arc<Instance>>,
    /// Of instances that are present: lower-case name to id.
    names: RedBlackTreeMapSync<String, Uuid>,
}

impl Inventory {
    /// Adds an instance, or puts it in the place of the one with its id.
    pub fn put(&mut self, instance: Arc<Instance>) {
        if let Some(before) = self.instances.get(&instance.id) {
            self.names.remove_mut(&before.name.to_ascii_lowercase());
        }
        if instance.is_present() {
            self.names.insert_mut(instance.name.to_ascii_lowercase(), instance.id);
        }
        self.instances.insert_mut(instance.id, instance);
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
        let by_name = self.only(|instance| instance.has_name(hostname));
        by_name.or_else(|| peer.and_then(|peer| self.only(|instance| instance.has_address(peer))))
    }

    /// The one instance that is present and fits; `None` if none does, or several do.
    fn only(&self, fits: impl Fn(&Instance) -> bool) -> Option<&Arc<Instance>> {
        let mut fitting = self.present().filter(|instance| fits(instance));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    /// The present instances that have exactly this node.
    pub fn instances_with(&self, node: &Node) -> impl Iterator<Item = &Arc<Instance>> {
        self.present().filter(move |instance| instance.endpoints.contains(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(n: u128, name: &str, nodes: &[(&str, &str)]) -> Arc<Instance> {
        let endpoints = nodes.iter().map(|(name, address)| Node::new(name, address).unwrap()).collect();
        let created_at = SystemTime::UNIX_EPOCH;
        Arc::new(Instance {
            id: Uuid::from_u128(n),
            name: name.into(),
            endpoints,
            created_at,
            removed_at: None,
        })
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
        inventory.put(Arc::new(Instance { removed_at, ..(*home).clone() }));
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
}
