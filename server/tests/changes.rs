//! Changes of the fleet on a real store: what is decided, what follows from it, and what a restart finds.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pulse::audit::Actor;
use pulse::catalog::Catalog;
use pulse::changes::{ChangeError, Changes, NewJoin, Registered, Registration};
use pulse::fleet::Fleet;
use pulse::inventory::Inventory;
use pulse::metrics::Metrics;
use pulse::publish::{Lists, Publisher};
use pulse::registry::{ProxyKind, Registry, ScopeKind, Standing, TokenStanding};
use pulse::store::{Retention, Store};
use pulse_proto::signature::SigningKey;
use pulse_proto::{Node, Scope, TokenDigest, reason};

const INTERVAL: Duration = Duration::from_secs(60);

struct World {
    changes: Changes,
    lists: Lists,
    store: Store,
    metrics: Arc<Metrics>,
}

async fn open(folder: &Path) -> World {
    let retention = Retention { max_bytes: 1 << 30, max_age: Duration::from_secs(3600) };
    let store = Store::open(folder, retention).await.expect("the store opens");
    let loaded = store.load().await.expect("the store loads");
    let (mut inventory, mut registry) = (Inventory::default(), Registry::default());
    loaded.instances.into_iter().for_each(|instance| inventory.put(Arc::new(instance)));
    loaded.proxies.into_iter().for_each(|proxy| registry.put_proxy(Arc::new(proxy)));
    loaded.tokens.into_iter().for_each(|token| registry.put_token(token));
    loaded.join_tokens.into_iter().for_each(|token| registry.put_join_token(Arc::new(token)));
    let (server_id, epoch, revision) = (loaded.server_id, loaded.epoch, loaded.revision);
    let catalog = Catalog { server_id, epoch, revision, inventory, registry };
    let metrics = Arc::new(Metrics::new());
    let key = SigningKey::from_pkcs8(&loaded.signing_key).expect("the store keeps the key");
    let publisher = Publisher::new(key, INTERVAL, Arc::clone(&metrics), loaded.lists);
    let lists = publisher.lists();
    let fleet = Fleet::new(INTERVAL, loaded.statuses);
    let changes =
        Changes::new(store.clone(), catalog, publisher, fleet, Arc::clone(&metrics), pulse_proto::MAX_NODES);
    World { changes, lists, store, metrics }
}

fn admin() -> Actor {
    Actor::admin(0)
}

fn nodes(nodes: &[(&str, &str)]) -> Vec<Node> {
    nodes.iter().map(|(name, ip)| Node::new(name, ip).expect("a valid node")).collect()
}

fn host(hostname: &str, join: Option<TokenDigest>) -> Registration {
    Registration {
        join,
        proven: None,
        hostname: hostname.to_owned(),
        kind: ProxyKind::Socket,
        proxy_url: String::new(),
        machine_id: "ab".repeat(32),
        version: "1".to_owned(),
        peer: None,
    }
}

impl World {
    async fn join(&self, uses: u32, instance: Option<&str>) -> TokenDigest {
        let instance = instance.map(str::to_owned);
        let new = NewJoin { instance, scope_kind: ScopeKind::Instance, uses, ttl: Duration::from_secs(60) };
        self.changes.create_join(&admin(), new).await.expect("the join token is made").1.digest()
    }

    async fn register(&self, registration: Registration) -> Registered {
        self.changes.register(registration).await.expect("the host registers")
    }

    fn list(&self, scope: Scope) -> Vec<String> {
        let newest = self.lists.newest(scope).expect("the scope has a list");
        newest.signed.allowlist.nodes().iter().map(Node::line).collect()
    }
}

fn join_reason(error: ChangeError) -> &'static str {
    match error {
        ChangeError::Join { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_that_registers_again_is_the_same_proxy_with_a_new_token() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world.changes.add_instance(&admin(), "home", nodes(&[("delly", ""), ("minipc", "")])).await.unwrap();
    let join = world.join(10, None).await;
    let first = world.register(host("delly", Some(join))).await;
    let neighbour = world.register(host("minipc", Some(join))).await;
    let again = world.register(host("DELLY", Some(join))).await;
    assert_eq!(again.proxy.id, first.proxy.id);
    assert_ne!(neighbour.proxy.id, first.proxy.id, "two hostnames on one machine are two proxies");

    let catalog = world.changes.catalog();
    let standing = |registered: &Registered| {
        let digest = registered.token.as_ref().unwrap().digest();
        catalog.registry.token(&digest).map(|token| token.standing)
    };
    assert_eq!(standing(&first), None, "the token before it has ended");
    assert_eq!(standing(&again), Some(TokenStanding::Current));
    assert_eq!(standing(&neighbour), Some(TokenStanding::Current), "another's token is not touched");
}

#[tokio::test]
async fn a_host_that_proves_its_identity_keeps_it_under_a_new_name_and_keeps_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let join = world.join(10, None).await;
    let first = world.register(host("old", Some(join))).await;
    let renamed = Registration { proven: Some(first.proxy.id), ..host("new", None) };
    let again = world.register(renamed).await;
    assert_eq!(again.proxy.id, first.proxy.id);
    assert_eq!(again.proxy.hostname, "new");
    assert!(again.token.is_none());
    let digest = first.token.unwrap().digest();
    assert_eq!(world.changes.catalog().registry.token(&digest).unwrap().standing, TokenStanding::Current);
}

#[tokio::test]
async fn a_join_token_is_refused_for_its_own_reason_and_counts_its_uses() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let once = world.join(1, None).await;
    world.register(host("a", Some(once))).await;
    let used = world.changes.register(host("b", Some(once))).await.unwrap_err();
    assert_eq!(join_reason(used), reason::JOIN_TOKEN_USED);

    let revoked = world.join(1, None).await;
    let id = world.changes.catalog().registry.join_token(&revoked).unwrap().id.clone();
    world.changes.revoke_join(&admin(), &id).await.unwrap();
    let error = world.changes.register(host("b", Some(revoked))).await.unwrap_err();
    assert_eq!(join_reason(error), reason::JOIN_TOKEN_REVOKED);

    let unknown = TokenDigest::from_bytes([7; 32]);
    let error = world.changes.register(host("b", Some(unknown))).await.unwrap_err();
    assert_eq!(join_reason(error), reason::UNKNOWN_TOKEN);
    let error = world.changes.register(host("b", None)).await.unwrap_err();
    assert_eq!(join_reason(error), reason::MISSING_TOKEN);
}

#[tokio::test]
async fn one_single_use_join_token_lets_exactly_one_of_many_racers_in() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let once = world.join(1, None).await;
    let mut racers = tokio::task::JoinSet::new();
    for n in 0..100 {
        let changes = world.changes.clone();
        racers.spawn(async move { changes.register(host(&format!("h{n}"), Some(once))).await.is_ok() });
    }
    let winners = racers.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(winners, 1);
    assert_eq!(world.changes.catalog().registry.proxies().count(), 1);
}

#[tokio::test]
async fn a_host_that_no_instance_matches_waits_until_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let join = world.join(10, None).await;
    let by_name = world.register(host("delly", Some(join))).await.proxy;
    let peer: IpAddr = "10.0.0.9".parse().unwrap();
    let by_address = Registration { peer: Some(peer), ..host("other", Some(join)) };
    let by_address = world.register(by_address).await.proxy;
    assert_eq!((by_name.scope(), by_address.scope()), (None, None));

    let home = world
        .changes
        .add_instance(&admin(), "home", nodes(&[("delly", ""), ("x", "10.0.0.9")]))
        .await
        .unwrap();
    let catalog = world.changes.catalog();
    for id in [by_name.id, by_address.id] {
        assert_eq!(catalog.registry.proxy(id).unwrap().instance, Some(home.id));
    }
    // The assignment stays when the node goes.
    world.changes.set_endpoints(&admin(), "home", nodes(&[("minipc", "")])).await.unwrap();
    assert_eq!(world.changes.catalog().registry.proxy(by_name.id).unwrap().instance, Some(home.id));
}

#[tokio::test]
async fn moving_a_proxy_stamps_the_list_of_its_new_scope_and_wakes_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let one = world.changes.add_instance(&admin(), "one", nodes(&[("a", "")])).await.unwrap();
    let two = world.changes.add_instance(&admin(), "two", nodes(&[("b", "")])).await.unwrap();
    let join = world.join(10, Some("one")).await;
    let proxy = world.register(host("a", Some(join))).await.proxy;
    assert_eq!(proxy.scope(), Some(Scope::Instance(one.id)));

    let scope = Scope::Instance(two.id);
    let before = world.lists.newest(scope).unwrap().signed.clone();
    let pushes = world.metrics.pushes.get();
    world.changes.set_proxy(&admin(), proxy.id, Some("two".into()), None).await.unwrap();
    let after = world.lists.newest(scope).unwrap().signed.clone();
    assert_eq!(after.allowlist.hash(), before.allowlist.hash());
    assert_eq!(after.position.revision, world.changes.catalog().revision);
    assert!(after.position > before.position);
    assert_eq!(world.metrics.pushes.get(), pushes);
}

#[tokio::test]
async fn the_list_of_everything_is_made_for_those_who_read_it_and_kept_up() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world.changes.add_instance(&admin(), "one", nodes(&[("a", "")])).await.unwrap();
    assert!(world.lists.newest(Scope::All).is_none());
    let join = world.join(10, Some("one")).await;
    let proxy = world.register(host("a", Some(join))).await.proxy;
    world.changes.set_proxy(&admin(), proxy.id, None, Some(ScopeKind::All)).await.unwrap();
    assert_eq!(world.list(Scope::All), ["a|"]);
    world.changes.add_instance(&admin(), "two", nodes(&[("b", "")])).await.unwrap();
    assert_eq!(world.list(Scope::All), ["a|", "b|"]);
}

#[tokio::test]
async fn a_removed_instance_leaves_its_proxies_a_signed_empty_list() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let home = world.changes.add_instance(&admin(), "home", nodes(&[("delly", "")])).await.unwrap();
    let join = world.join(1, None).await;
    let proxy = world.register(host("delly", Some(join))).await.proxy;
    let refused = world.changes.remove_instance(&admin(), "home", false).await.unwrap_err();
    assert!(matches!(refused, ChangeError::NeedsYes { proxies: 1, .. }));
    world.changes.remove_instance(&admin(), "home", true).await.unwrap();
    assert!(world.list(Scope::Instance(home.id)).is_empty());

    // The same name again is another instance; its host comes over by itself.
    let new = world.changes.add_instance(&admin(), "home", nodes(&[("delly", "")])).await.unwrap();
    assert_ne!(new.id, home.id);
    assert_eq!(world.changes.catalog().registry.proxy(proxy.id).unwrap().instance, Some(new.id));
}

#[tokio::test]
async fn equal_endpoints_and_repeated_orders_commit_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world.changes.add_instance(&admin(), "home", nodes(&[("a", ""), ("b", "")])).await.unwrap();
    let join = world.join(1, None).await;
    let proxy = world.register(host("a", Some(join))).await.proxy;
    world.changes.request_rotation(&admin(), proxy.id).await.unwrap();
    let revision = world.changes.catalog().revision;
    world.changes.set_endpoints(&admin(), "home", nodes(&[("a", ""), ("b", "")])).await.unwrap();
    world.changes.request_rotation(&admin(), proxy.id).await.unwrap();
    assert_eq!(world.changes.catalog().revision, revision);

    // Another order of the same nodes is noted, but is the same list.
    let pushes = world.metrics.pushes.get();
    world.changes.set_endpoints(&admin(), "home", nodes(&[("b", ""), ("a", "")])).await.unwrap();
    assert_eq!(world.metrics.pushes.get(), pushes);
}

#[tokio::test]
async fn a_new_token_is_good_beside_the_old_one_until_its_first_use_ends_that() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let join = world.join(1, None).await;
    let registered = world.register(host("a", Some(join))).await;
    let (id, old) = (registered.proxy.id, registered.token.unwrap().digest());
    let (unused, _) = world.changes.rotate_token(id).await.unwrap();
    let (new, _) = world.changes.rotate_token(id).await.unwrap();
    let standing =
        |digest: TokenDigest| world.changes.catalog().registry.token(&digest).map(|token| token.standing);
    assert_eq!(standing(old), Some(TokenStanding::Current));
    assert_eq!(standing(unused.digest()), None, "an earlier one that was never used has ended");
    assert!(matches!(standing(new.digest()), Some(TokenStanding::Next { .. })));
    let ended = world.changes.promote_token(unused.digest()).await.unwrap_err();
    assert_eq!(join_reason(ended), "UNKNOWN_TOKEN", "its use came too late");
    world.changes.promote_token(new.digest()).await.unwrap();
    assert_eq!(standing(old), None);
    assert_eq!(standing(new.digest()), Some(TokenStanding::Current));
}

#[tokio::test]
async fn a_revoked_host_is_active_again_once_it_registers_and_its_old_token_stays_a_tombstone() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let join = world.join(10, None).await;
    let first = world.register(host("a", Some(join))).await;
    let old = first.token.unwrap().digest();
    world.changes.revoke_proxy(&admin(), first.proxy.id).await.unwrap();
    let catalog = world.changes.catalog();
    assert!(matches!(catalog.registry.proxy(first.proxy.id).unwrap().standing, Standing::Revoked { .. }));
    let again = world.register(host("a", Some(join))).await;
    assert_eq!(again.proxy.id, first.proxy.id);
    assert!(again.proxy.is_active());
    let catalog = world.changes.catalog();
    assert_eq!(catalog.registry.token(&old).unwrap().standing, TokenStanding::Tombstone);

    world.changes.remove_proxy(&admin(), first.proxy.id).await.unwrap();
    let new = world.register(host("a", Some(join))).await;
    assert_ne!(new.proxy.id, first.proxy.id, "a removed proxy does not come back");
}

#[tokio::test]
async fn a_list_that_would_be_too_long_is_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let many: Vec<Node> =
        (0..=pulse_proto::MAX_NODES).map(|n| Node::new(&format!("n{n}"), "").unwrap()).collect();
    let error = world.changes.add_instance(&admin(), "big", many).await.unwrap_err();
    assert!(matches!(error, ChangeError::Invalid { field: "endpoints", .. }), "{error}");
    assert!(world.changes.catalog().inventory.by_name("big").is_none());
    for name in ["0.0.0.0/0", "a b", "", "a|b"] {
        let error = world.changes.add_instance(&admin(), name, vec![]).await.unwrap_err();
        assert!(matches!(error, ChangeError::Invalid { field: "name", .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_restart_finds_what_was_committed_signed_by_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let (revision, proxy, list) = {
        let world = open(folder.path()).await;
        let home =
            world.changes.add_instance(&admin(), "home", nodes(&[("delly", "192.168.0.5")])).await.unwrap();
        let join = world.join(2, None).await;
        let proxy = world.register(host("delly", Some(join))).await.proxy;
        let list = world.lists.newest(Scope::Instance(home.id)).unwrap().signed.clone();
        world.store.close().await.unwrap();
        (world.changes.catalog().revision, proxy, list)
    };
    let world = open(folder.path()).await;
    assert_eq!(world.changes.catalog().revision, revision);
    assert_eq!(world.changes.catalog().registry.proxy(proxy.id).unwrap().hostname, "delly");
    let found = world.lists.newest(list.scope).unwrap().signed.clone();
    assert_eq!((found.position, &found.signature), (list.position, &list.signature));
}

#[tokio::test]
async fn every_change_has_its_row_in_an_unbroken_audit_chain() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world.changes.add_instance(&admin(), "home", nodes(&[("delly", "")])).await.unwrap();
    let join = world.join(1, None).await;
    let proxy = world.register(host("delly", Some(join))).await.proxy;
    world.changes.revoke_proxy(&admin(), proxy.id).await.unwrap();
    let rows = world.store.audit_after(0, 100).await.unwrap();
    let actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["instance.add", "join.create", "proxy.register", "proxy.revoke"]);
    assert!(rows[0].actor == "admin:uid=0" && rows[2].actor.starts_with("join:"));
    let mut previous = pulse::audit::FIRST.to_owned();
    for (at, row) in rows.iter().enumerate() {
        assert_eq!((row.seq, &row.previous_hash), (at as u64 + 1, &previous));
        assert_eq!(row.computed_hash(), row.hash);
        previous.clone_from(&row.hash);
    }
}
