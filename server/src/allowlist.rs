//! Who may read what: the inventory and a scope in, an [`Allowlist`] out.
//!
//! Pure: the same inventory gives the same list. Never: knows proxies, the store or the wire.

use pulse_proto::{Allowlist, Scope};

use crate::inventory::Inventory;

/// The nodes that a scope may read. A scope of a removed or unknown instance may read nothing.
pub fn compile(inventory: &Inventory, scope: Scope) -> Allowlist {
    match scope {
        Scope::All => {
            Allowlist::new(inventory.present().flat_map(|instance| instance.endpoints().iter().cloned()))
        }
        Scope::Instance(id) => {
            let instance = inventory.instance(id).filter(|instance| instance.is_present());
            Allowlist::new(instance.iter().flat_map(|instance| instance.endpoints().iter().cloned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use pulse_proto::Node;
    use uuid::Uuid;

    use super::*;
    use crate::inventory::Instance;

    #[test]
    fn a_scope_reads_its_instance_and_all_reads_everything_present() {
        let mut inventory = Inventory::default();
        let put = |inventory: &mut Inventory, n: u128, node: &str, removed_at| {
            let endpoints = vec![Node::new(node, "").unwrap()];
            let (id, created_at) = (Uuid::from_u128(n), SystemTime::UNIX_EPOCH);
            let made = Instance::new(id, &format!("i{n}"), endpoints, created_at);
            inventory.put(Arc::new(made.with(|facts| facts.removed_at = removed_at)));
        };
        put(&mut inventory, 1, "a", None);
        put(&mut inventory, 2, "b", None);
        put(&mut inventory, 3, "c", Some(SystemTime::UNIX_EPOCH));
        let names = |scope| {
            let list = compile(&inventory, scope);
            list.nodes().iter().map(|node| node.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(Scope::Instance(Uuid::from_u128(1))), ["a"]);
        assert_eq!(names(Scope::All), ["a", "b"]);
        assert!(names(Scope::Instance(Uuid::from_u128(3))).is_empty(), "a removed instance");
        assert!(names(Scope::Instance(Uuid::from_u128(9))).is_empty(), "an unknown instance");
    }
}
