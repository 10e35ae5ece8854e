//! [`Draft`]: a change as it is being decided, with all that follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::node::Address;
use pulse_proto::{Position, Scope, SignedAllowlist};
use uuid::Uuid;

use super::ChangeError;
use crate::accounts::{Admin, Credential};
use crate::allowlist;
use crate::catalog::Catalog;
use crate::inventory::{Instance, Source};
use crate::publish::{Lists, Publisher};
use crate::registry::{CtrlToken, JoinToken, JoinWindow, Proxy};
use crate::store::{Change, Leave, SealingExchange};

use super::sources::place_of_secret;

/// The next catalog, and the rows that lead to it.
pub(super) struct Draft<'a> {
    /// What the change is decided on.
    pub(super) before: &'a Catalog,
    /// What it makes of it.
    pub(super) after: Catalog,
    /// When it is made.
    pub(super) at: SystemTime,
    changes: Vec<Change>,
    /// Scopes whose nodes may have changed.
    touched: BTreeSet<Scope>,
    /// Scopes that a proxy moved to: their lists take the new revision, so that the proxy does not go back.
    stamped: BTreeSet<Scope>,
    /// Proxies whose streams shall look again.
    concerned: BTreeSet<Uuid>,
    /// Leave to make it.
    leave: Leave,
}

impl<'a> Draft<'a> {
    pub(super) fn new(before: &'a Catalog, at: SystemTime) -> Draft<'a> {
        let after = Catalog { revision: before.revision + 1, ..before.clone() };
        let (touched, stamped, concerned) = Default::default();
        Draft { before, after, at, changes: Vec::new(), touched, stamped, concerned, leave: Leave::Alone }
    }

    /// The change is made only if this leave is good still.
    pub(super) fn under(&mut self, leave: Leave) {
        self.leave = leave;
    }

    /// Leave to make it.
    pub(super) fn leave(&self) -> Leave {
        self.leave
    }

    /// Whether nothing is changed.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Begins a new epoch: every list is signed anew, and every stream looks again.
    pub(super) fn begin_epoch(&mut self, epoch: u64) {
        self.after.epoch = epoch;
        self.concerned.extend(self.after.registry.proxies().map(|proxy| proxy.id));
        self.changes.push(Change::Epoch(epoch));
    }

    /// Seals everything anew, under another key. The store does that with its rows; what the next catalog holds of them is sealed
    /// anew here, without a change of its own.
    pub(super) fn exchange_key(&mut self, exchange: &SealingExchange) -> Result<(), ChangeError> {
        for instance in self.before.inventory.present() {
            let Some(source) = &instance.source else { continue };
            let place = place_of_secret(self.before.server_id, instance.id);
            let sealed = exchange.reseal(&place, &source.sealed_secret).map_err(|_| {
                let name = &instance.name;
                let rule = format!(
                    "the secret of {name}'s API token does not open, so it cannot be sealed anew: give it again with `pulse instance set \
                     {name} --token-secret-file FILE`, and rotate then"
                );
                ChangeError::Invalid { field: "instance", rule }
            })?;
            let sealed = Arc::from(sealed);
            let source = Source { sealed_secret: sealed, ..source.clone() };
            self.after.inventory.put(Arc::new(instance.with(|facts| facts.source = Some(source))));
        }
        self.changes.push(Change::SealingKey(exchange.clone()));
        Ok(())
    }

    /// Adds or changes an instance; hosts that wait for it are assigned to it.
    pub(super) fn put_instance(&mut self, instance: Instance) -> Arc<Instance> {
        let instance = Arc::new(instance);
        self.after.inventory.put(Arc::clone(&instance));
        self.touched.insert(Scope::Instance(instance.id));
        self.changes.push(Change::Instance(Arc::clone(&instance)));
        if instance.is_present() {
            self.assign_waiting(&instance);
        }
        instance
    }

    fn assign_waiting(&mut self, instance: &Instance) {
        let Catalog { inventory, registry, .. } = &self.after;
        // Only hosts that the instance names: how many others wait, or are known, costs nothing.
        let mut named: BTreeMap<Uuid, &Arc<Proxy>> = BTreeMap::new();
        for node in instance.endpoints() {
            named.extend(registry.proxies_named(node.name()).map(|proxy| (proxy.id, proxy)));
            if let Address::Ip(address) = node.address() {
                named.extend(registry.proxies_at(*address).map(|proxy| (proxy.id, proxy)));
            }
        }
        let waits = |proxy: &Proxy| {
            let assigned = proxy.instance.and_then(|id| inventory.instance(id));
            !assigned.is_some_and(|instance| instance.is_present())
        };
        let belongs = |proxy: &Proxy| {
            let only = inventory.instance_of_host(&proxy.hostname, proxy.peer);
            only.is_some_and(|only| only.id == instance.id)
        };
        let waiting: Vec<Arc<Proxy>> =
            named.into_values().filter(|proxy| waits(proxy) && belongs(proxy)).cloned().collect();
        for proxy in waiting {
            self.put_proxy(Proxy { instance: Some(instance.id), ..(*proxy).clone() });
        }
    }

    /// Adds or changes a proxy.
    pub(super) fn put_proxy(&mut self, proxy: Proxy) -> Arc<Proxy> {
        let proxy = Arc::new(proxy);
        if let Some(before) = self.after.registry.proxy(proxy.id)
            && before.scope() != proxy.scope()
        {
            self.stamped.extend(proxy.scope());
        }
        // A scope without a list needs one.
        self.touched.extend(proxy.scope());
        self.after.registry.put_proxy(Arc::clone(&proxy));
        self.concerned.insert(proxy.id);
        self.changes.push(Change::Proxy(Arc::clone(&proxy)));
        proxy
    }

    /// Adds a ctrl token, or gives it another standing.
    pub(super) fn put_token(&mut self, token: CtrlToken) {
        self.after.registry.put_token(token);
        self.concerned.insert(token.proxy);
        self.changes.push(Change::Token(token));
    }

    /// Forgets a ctrl token.
    pub(super) fn drop_token(&mut self, token: CtrlToken) {
        self.after.registry.drop_token(&token.digest);
        self.concerned.insert(token.proxy);
        self.changes.push(Change::DropToken(token.digest));
    }

    /// Adds or changes a join token.
    pub(super) fn put_join_token(&mut self, token: JoinToken) -> Arc<JoinToken> {
        let token = Arc::new(token);
        self.after.registry.put_join_token(Arc::clone(&token));
        self.changes.push(Change::JoinToken(Arc::clone(&token)));
        token
    }

    /// Adds or changes a join window.
    pub(super) fn put_join_window(&mut self, window: JoinWindow) -> Arc<JoinWindow> {
        let window = Arc::new(window);
        self.after.registry.put_join_window(Arc::clone(&window));
        self.changes.push(Change::JoinWindow(Arc::clone(&window)));
        window
    }

    /// Adds or changes an admin.
    pub(super) fn put_admin(&mut self, admin: Admin) -> Arc<Admin> {
        let admin = Arc::new(admin);
        self.after.accounts.put_admin(Arc::clone(&admin));
        self.changes.push(Change::Admin(Arc::clone(&admin)));
        admin
    }

    /// Adds or changes a credential.
    pub(super) fn put_credential(&mut self, credential: Credential) -> Arc<Credential> {
        let credential = Arc::new(credential);
        self.after.accounts.put_credential(Arc::clone(&credential));
        self.changes.push(Change::Credential(Arc::clone(&credential)));
        credential
    }

    /// Compiles the scopes that are touched, and signs the lists that are new.
    pub(super) fn lists(
        &self,
        publisher: &Publisher,
        lists: &Lists,
        max_nodes: usize,
    ) -> Result<Vec<Arc<SignedAllowlist>>, ChangeError> {
        let mut scopes = self.touched.clone();
        // The list of everything costs most: it is made only for those who read it.
        if self.after.registry.has_scope(Scope::All) && scopes.iter().any(|scope| *scope != Scope::All) {
            scopes.insert(Scope::All);
        }
        if self.after.epoch != self.before.epoch {
            scopes.extend(lists.scopes());
        }
        let mut new = Vec::new();
        for scope in scopes {
            let list = allowlist::compile(&self.after.inventory, scope);
            let newest = lists.newest(scope);
            let newest = newest.as_ref().map(|newest| &newest.signed);
            let is_same = newest.is_some_and(|newest| newest.allowlist.hash() == list.hash());
            if list.len() > max_nodes && !is_same {
                let rule =
                    format!("the list would have {} nodes: the most are {max_nodes}; split it", list.len());
                return Err(ChangeError::Invalid { field: "endpoints", rule });
            }
            let is_of_epoch = newest.is_some_and(|newest| newest.position.epoch == self.after.epoch);
            if is_same && is_of_epoch && !self.stamped.contains(&scope) {
                continue;
            }
            let position = Position { epoch: self.after.epoch, revision: self.after.revision };
            new.push(publisher.sign(position, scope, list, self.at));
        }
        Ok(new)
    }

    /// The next catalog, the rows, and the proxies whose streams shall look again.
    pub(super) fn finish(self) -> (Catalog, Vec<Change>, BTreeSet<Uuid>) {
        (self.after, self.changes, self.concerned)
    }
}

#[cfg(test)]
mod tests {
    use pulse_proto::Node;
    use pulse_proto::signature::SigningKey;

    use super::*;
    use crate::inventory::Inventory;
    use crate::metrics::Metrics;
    use crate::registry::{ProxyKind, Registry, ScopeKind, Standing};

    const INSTANCES: u128 = 200;
    const HOSTS: u128 = 2_000;

    fn instance(n: u128, nodes: &[&str]) -> Instance {
        let nodes = nodes.iter().map(|node| Node::new(node, "").expect("it is a name")).collect();
        Instance::new(Uuid::from_u128(n), &format!("i{n}"), nodes, SystemTime::UNIX_EPOCH)
    }

    fn proxy(n: u128, hostname: &str, instance: Option<u128>) -> Proxy {
        let (created_at, registered_at) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        Proxy {
            id: Uuid::from_u128(n),
            hostname: hostname.to_owned(),
            machine_id: String::new(),
            kind: ProxyKind::Socket,
            proxy_url: String::new(),
            version: String::new(),
            peer: None,
            instance: instance.map(Uuid::from_u128),
            scope_kind: ScopeKind::Instance,
            standing: Standing::Active,
            is_approved: true,
            rotate_requested: false,
            created_at,
            registered_at,
        }
    }

    /// Every host has a proxy; those of the last instance wait for it, as it does not name them yet.
    fn catalog() -> Catalog {
        let (mut inventory, mut registry) = (Inventory::default(), Registry::default());
        for n in 0..INSTANCES {
            inventory.put(Arc::new(instance(n, &[&format!("node-{n}")])));
        }
        for n in 0..HOSTS {
            let of = n % INSTANCES;
            let known = (of != INSTANCES - 1).then_some(of);
            registry.put_proxy(Arc::new(proxy(n, &format!("host-{n}"), known)));
        }
        Catalog {
            server_id: Uuid::nil(),
            epoch: 1,
            revision: 1,
            audit_hash: "".into(),
            inventory,
            registry,
            accounts: Default::default(),
        }
    }

    #[test]
    fn a_change_of_one_instance_touches_its_own_list_and_the_hosts_that_it_newly_names() {
        let before = catalog();
        let mut draft = Draft::new(&before, SystemTime::UNIX_EPOCH);
        // It waits for an instance, one belongs to another already, and one is no host.
        let waiting = INSTANCES - 1;
        draft.put_instance(instance(waiting, &[&format!("HOST-{waiting}"), "host-3", "nobody"]));
        assert_eq!(draft.touched, [Scope::Instance(Uuid::from_u128(waiting))].into());
        assert_eq!(draft.concerned, [Uuid::from_u128(waiting)].into());
        assert_eq!(draft.changes.len(), 2, "the instance and its new proxy");
        let (key, _) = SigningKey::generate().expect("a key can be made");
        let (interval, metrics) = (std::time::Duration::from_secs(60), Arc::new(Metrics::new()));
        let publisher = Publisher::new(key, interval, metrics, []);
        let made = draft.lists(&publisher, &publisher.lists(), 100).expect("it is short");
        let scopes: Vec<Scope> = made.iter().map(|list| list.scope).collect();
        assert_eq!(scopes, [Scope::Instance(Uuid::from_u128(waiting))], "no other list is compiled");
    }
}
