//! Changes of the fleet on a real store: what is decided, what follows from it, and what a restart finds.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pulse::audit::Actor;
use pulse::catalog::Catalog;
use pulse::changes::{ChangeError, Changes, NewInstance, NewJoin, Registered, Registration};
use pulse::fleet::Fleet;
use pulse::inventory::Inventory;
use pulse::metrics::Metrics;
use pulse::publish::{Lists, Publisher};
use pulse::registry::{ProxyKind, Registry, ScopeKind, Standing, TokenStanding};
use pulse::store::{Retention, Store};
use pulse_proto::signature::SigningKey;
use pulse_proto::{Clock, Node, Scope, TokenDigest, reason};

const INTERVAL: Duration = Duration::from_secs(60);

struct World {
    changes: Changes,
    lists: Lists,
    store: Store,
    metrics: Arc<Metrics>,
}

async fn open(folder: &Path) -> World {
    open_at(folder, Clock::system()).await
}

async fn open_at(folder: &Path, clock: Clock) -> World {
    let retention = Retention { max_bytes: 1 << 30, max_age: Duration::from_secs(3600) };
    let store = Store::open(folder, retention, clock.clone()).await.expect("the store opens");
    let loaded = store.load().await.expect("the store loads");
    let (mut inventory, mut registry) = (Inventory::default(), Registry::default());
    loaded.instances.into_iter().for_each(|instance| inventory.put(Arc::new(instance)));
    loaded.proxies.into_iter().for_each(|proxy| registry.put_proxy(Arc::new(proxy)));
    loaded.tokens.into_iter().for_each(|token| registry.put_token(token));
    loaded.join_tokens.into_iter().for_each(|token| registry.put_join_token(Arc::new(token)));
    loaded.join_windows.into_iter().for_each(|window| registry.put_join_window(Arc::new(window)));
    let (server_id, epoch, revision) = (loaded.server_id, loaded.epoch, loaded.revision);
    let audit_hash = loaded.audit_hash.into();
    let catalog =
        Catalog { server_id, epoch, revision, audit_hash, inventory, registry, accounts: Default::default() };
    let metrics = Arc::new(Metrics::new());
    let key = SigningKey::from_pkcs8(&loaded.signing_key).expect("the store keeps the key");
    let publisher = Publisher::new(key, INTERVAL, Arc::clone(&metrics), loaded.lists);
    let lists = publisher.lists();
    let fleet = Fleet::new(INTERVAL, loaded.statuses, clock.clone());
    let max_nodes = pulse_proto::MAX_NODES;
    let changes =
        Changes::new(store.clone(), catalog, publisher, fleet, Arc::clone(&metrics), max_nodes, clock);
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
        api: None,
        proven: None,
        older: None,
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
    world
        .changes
        .add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", ""), ("minipc", "")])))
        .await
        .unwrap();
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
        .add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", ""), ("x", "10.0.0.9")])))
        .await
        .unwrap();
    let catalog = world.changes.catalog();
    for id in [by_name.id, by_address.id] {
        assert_eq!(catalog.registry.proxy(id).unwrap().instance, Some(home.id));
    }
    // The assignment stays when the node goes.
    world.changes.set_endpoints(&admin(), "home", nodes(&[("minipc", "")]), true).await.unwrap();
    assert_eq!(world.changes.catalog().registry.proxy(by_name.id).unwrap().instance, Some(home.id));
}

#[tokio::test]
async fn moving_a_proxy_stamps_the_list_of_its_new_scope_and_wakes_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let one =
        world.changes.add_instance(&admin(), NewInstance::typed("one", nodes(&[("a", "")]))).await.unwrap();
    let two =
        world.changes.add_instance(&admin(), NewInstance::typed("two", nodes(&[("b", "")]))).await.unwrap();
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
    world.changes.add_instance(&admin(), NewInstance::typed("one", nodes(&[("a", "")]))).await.unwrap();
    assert!(world.lists.newest(Scope::All).is_none());
    let join = world.join(10, Some("one")).await;
    let proxy = world.register(host("a", Some(join))).await.proxy;
    world.changes.set_proxy(&admin(), proxy.id, None, Some(ScopeKind::All)).await.unwrap();
    assert_eq!(world.list(Scope::All), ["a|"]);
    world.changes.add_instance(&admin(), NewInstance::typed("two", nodes(&[("b", "")]))).await.unwrap();
    assert_eq!(world.list(Scope::All), ["a|", "b|"]);
}

#[tokio::test]
async fn a_removed_instance_leaves_its_proxies_a_signed_empty_list() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let home = world
        .changes
        .add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", "")])))
        .await
        .unwrap();
    let join = world.join(1, None).await;
    let proxy = world.register(host("delly", Some(join))).await.proxy;
    let refused = world.changes.remove_instance(&admin(), "home", false).await.unwrap_err();
    assert!(matches!(refused, ChangeError::NeedsYes { proxies: 1, .. }));
    world.changes.remove_instance(&admin(), "home", true).await.unwrap();
    assert!(world.list(Scope::Instance(home.id)).is_empty());

    // The same name again is another instance; its host comes over by itself.
    let new = world
        .changes
        .add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", "")])))
        .await
        .unwrap();
    assert_ne!(new.id, home.id);
    assert_eq!(world.changes.catalog().registry.proxy(proxy.id).unwrap().instance, Some(new.id));
}

#[tokio::test]
async fn equal_endpoints_and_repeated_orders_commit_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world
        .changes
        .add_instance(&admin(), NewInstance::typed("home", nodes(&[("a", ""), ("b", "")])))
        .await
        .unwrap();
    let join = world.join(1, None).await;
    let proxy = world.register(host("a", Some(join))).await.proxy;
    world.changes.request_rotation(&admin(), proxy.id).await.unwrap();
    let revision = world.changes.catalog().revision;
    world.changes.set_endpoints(&admin(), "home", nodes(&[("a", ""), ("b", "")]), true).await.unwrap();
    world.changes.request_rotation(&admin(), proxy.id).await.unwrap();
    assert_eq!(world.changes.catalog().revision, revision);

    // Another order of the same nodes is noted, but is the same list.
    let pushes = world.metrics.pushes.get();
    world.changes.set_endpoints(&admin(), "home", nodes(&[("b", ""), ("a", "")]), true).await.unwrap();
    assert_eq!(world.metrics.pushes.get(), pushes);
}

#[tokio::test]
async fn a_new_token_is_good_beside_the_old_one_until_its_first_use_ends_that() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let join = world.join(1, None).await;
    let registered = world.register(host("a", Some(join))).await;
    let old = registered.token.unwrap().digest();
    let (unused, _) = world.changes.rotate_token(old, None).await.unwrap();
    let (new, _) = world.changes.rotate_token(old, None).await.unwrap();
    let standing =
        |digest: TokenDigest| world.changes.catalog().registry.token(&digest).map(|token| token.standing);
    assert_eq!(standing(old), Some(TokenStanding::Current));
    assert_eq!(standing(unused.digest()), None, "an earlier one that was never used has ended");
    assert!(matches!(standing(new.digest()), Some(TokenStanding::Next { .. })));
    let ended = world.changes.promote_token(unused.digest(), None).await.unwrap_err();
    assert_eq!(join_reason(ended), "UNKNOWN_TOKEN", "its use came too late");
    world.changes.promote_token(new.digest(), None).await.unwrap();
    assert_eq!(standing(old), None);
    assert_eq!(standing(new.digest()), Some(TokenStanding::Current));
    // The one before it is good for nothing, though its call may have begun when it still was.
    assert_eq!(join_reason(world.changes.rotate_token(old, None).await.unwrap_err()), "UNKNOWN_TOKEN");
    assert_eq!(join_reason(world.changes.unregister(old, None).await.unwrap_err()), "UNKNOWN_TOKEN");
    world.changes.unregister(new.digest(), None).await.unwrap();
    for error in [
        world.changes.unregister(new.digest(), None).await.unwrap_err(),
        world.changes.rotate_token(new.digest(), None).await.unwrap_err(),
    ] {
        assert!(matches!(error, ChangeError::NotActive(..)), "{error}");
    }
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
    let error = world.changes.add_instance(&admin(), NewInstance::typed("big", many)).await.unwrap_err();
    assert!(matches!(error, ChangeError::Invalid { field: "endpoints", .. }), "{error}");
    assert!(world.changes.catalog().inventory.by_name("big").is_none());
    for name in ["0.0.0.0/0", "a b", "", "a|b"] {
        let error = world.changes.add_instance(&admin(), NewInstance::typed(name, vec![])).await.unwrap_err();
        assert!(matches!(error, ChangeError::Invalid { field: "name", .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_restart_finds_what_was_committed_signed_by_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let (revision, proxy, list) = {
        let world = open(folder.path()).await;
        let home = world
            .changes
            .add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", "192.168.0.5")])))
            .await
            .unwrap();
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
    world.changes.add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", "")]))).await.unwrap();
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

#[tokio::test]
async fn an_instance_is_stored_as_it_was_set_and_noted_is_what_came_and_went() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world.changes.add_instance(&admin(), NewInstance::typed("home", nodes(&[]))).await.unwrap();
    let none: [&str; 0] = [];
    type Nodes = &'static [(&'static str, &'static str)];
    const A: (&str, &str) = ("a", "10.0.0.1");
    const B: (&str, &str) = ("b", "10.0.0.2");
    const C: (&str, &str) = ("c", "");
    const MOVED: (&str, &str) = ("b", "10.0.0.3");
    let steps: [(Nodes, &[&str], &[&str]); 8] = [
        (&[A, B, C], &["a|10.0.0.1", "b|10.0.0.2", "c|"], &none),
        (&[A, MOVED, C], &["b|10.0.0.3"], &["b|10.0.0.2"]),
        (&[C, A, MOVED], &none, &none),
        (&[MOVED], &none, &["a|10.0.0.1", "c|"]),
        (&[B, C], &["b|10.0.0.2", "c|"], &["b|10.0.0.3"]),
        (&[], &none, &["b|10.0.0.2", "c|"]),
        (&[C], &["c|"], &none),
        (&[A, B, C], &["a|10.0.0.1", "b|10.0.0.2"], &none),
    ];
    let values = |lines: &[&str]| lines.iter().map(|line| serde_json::Value::from(*line)).collect::<Vec<_>>();
    for (set, added, removed) in steps {
        world.changes.set_endpoints(&admin(), "home", nodes(set), true).await.unwrap();
        let stored = world.store.load().await.unwrap().instances;
        assert_eq!(stored[0].endpoints(), nodes(set));
        let row = &world.store.audit_tail(1).await.unwrap()[0];
        let detail: serde_json::Value = serde_json::from_str(&row.detail).unwrap();
        let change = &detail["changes"][0];
        let lines = |key: &str| change["nodes"][key].as_array().cloned().unwrap_or_default();
        assert_eq!((row.action.as_str(), &change["of"]), ("instance.set", &"instance:home".into()));
        assert_eq!((lines("added"), lines("removed")), (values(added), values(removed)), "{detail}");
    }
    let revision = world.changes.catalog().revision;
    world.changes.set_endpoints(&admin(), "home", nodes(&[A, B, C]), true).await.unwrap();
    assert_eq!(world.changes.catalog().revision, revision, "the same again is no change");
}

/// A clock that a test sets forward.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn clock(&self) -> Clock {
        let hands = Arc::clone(&self.0);
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
        Clock::driven(move || start + Duration::from_secs(hands.load(Ordering::SeqCst)))
    }

    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

/// What the database has of a token, over a restart.
async fn stored(world: &World, digest: TokenDigest) -> Option<TokenStanding> {
    let loaded = world.store.load().await.expect("the store loads");
    loaded.tokens.into_iter().find(|token| token.digest == digest).map(|token| token.standing)
}

#[tokio::test]
async fn a_new_token_that_nobody_uses_in_ten_minutes_ends_and_the_old_one_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let world = open_at(folder.path(), hands.clock()).await;
    let join = world.join(1, None).await;
    let registered = world.register(host("a", Some(join))).await;
    let (id, old) = (registered.proxy.id, registered.token.unwrap().digest());
    world.changes.request_rotation(&admin(), id).await.unwrap();
    let unused = world.changes.rotate_token(old, None).await.unwrap().0.digest();
    // The answer may never have reached the proxy: until the new token is used, the request stands.
    let is_asked = || world.changes.catalog().registry.proxy(id).unwrap().rotate_requested;
    assert!(is_asked());

    hands.pass(599);
    world.changes.expire().await.unwrap();
    assert!(matches!(stored(&world, unused).await, Some(TokenStanding::Next { .. })));
    hands.pass(1);
    // Before it is taken off it is refused already.
    let refused = world.changes.promote_token(unused, None).await.unwrap_err();
    assert_eq!(join_reason(refused), reason::UNKNOWN_TOKEN);
    world.changes.expire().await.unwrap();
    assert_eq!(world.changes.catalog().registry.token(&unused), None);
    assert_eq!(stored(&world, unused).await, None, "it is gone from the database too");
    assert_eq!(stored(&world, old).await, Some(TokenStanding::Current));
    let rows = world.store.audit_tail(1).await.unwrap();
    assert_eq!((rows[0].action.as_str(), rows[0].target.as_str()), ("proxy.expire", &*format!("proxy:{id}")));
    let revision = world.changes.catalog().revision;
    world.changes.expire().await.unwrap();
    assert_eq!(world.changes.catalog().revision, revision, "with nothing to take off, nothing is changed");

    // Used in its last second, it is the proxy's token, and the old one is gone.
    let used = world.changes.rotate_token(old, None).await.unwrap().0.digest();
    hands.pass(599);
    world.changes.promote_token(used, None).await.unwrap();
    hands.pass(3600);
    world.changes.expire().await.unwrap();
    assert_eq!((stored(&world, used).await, stored(&world, old).await), (Some(TokenStanding::Current), None));
    assert!(!is_asked());
}

#[tokio::test]
async fn only_an_open_window_lets_hosts_without_a_join_token_in_and_only_from_its_networks() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let world = open_at(folder.path(), hands.clock()).await;
    let from = |address: &str| Registration {
        peer: Some(address.parse().unwrap()),
        machine_id: String::new(),
        ..host("a", None)
    };
    let refused = async |registration: Registration| {
        let error = world.changes.register(registration).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(join_reason(error), reason::MISSING_TOKEN);
        text
    };
    let text = refused(from("10.0.0.1")).await;
    assert!(text.contains("pulse join create") && text.contains("pulse join open"), "{text}");

    let networks = ["10.0.0.0/24", "2001:db8::/64"].map(|text| text.parse().unwrap());
    let minutes = |minutes| Duration::from_mins(minutes);
    world.changes.open_joining(&admin(), minutes(15), networks.to_vec()).await.unwrap();
    for inside in ["10.0.0.1", "::ffff:10.0.0.2", "2001:db8::9"] {
        let registered = world.register(from(inside)).await;
        assert!(!registered.proxy.is_approved && registered.token.is_some());
        assert_eq!((registered.proxy.scope(), registered.proxy.instance), (None, None));
    }
    for outside in ["10.0.1.1", "2001:db8:1::9", "::1"] {
        let text = refused(from(outside)).await;
        assert!(text.contains("--from"), "{text}");
    }
    refused(Registration { peer: None, ..from("10.0.0.1") }).await;

    // After its time it is closed, over a restart too; and before that by hand.
    hands.pass(15 * 60 - 1);
    world.register(from("10.0.0.1")).await;
    hands.pass(1);
    refused(from("10.0.0.1")).await;
    let again = world.changes.close_joining(&admin()).await.unwrap_err();
    assert!(matches!(again, ChangeError::NoWindow));
    world.changes.open_joining(&admin(), minutes(1), vec![]).await.unwrap();
    world.changes.open_joining(&admin(), minutes(24 * 60), vec![]).await.unwrap();
    world.register(from("192.0.2.1")).await;
    world.changes.close_joining(&admin()).await.unwrap();
    refused(from("192.0.2.1")).await;
    let windows = world.store.load().await.unwrap().join_windows;
    assert_eq!(
        windows.iter().map(|window| window.closed_at.is_some()).collect::<Vec<_>>(),
        [false, true, true]
    );
    for bad in [Duration::from_secs(59), minutes(24 * 60 + 1)] {
        let error = world.changes.open_joining(&admin(), bad, vec![]).await.unwrap_err();
        assert!(matches!(error, ChangeError::Invalid { field: "ttl_seconds", .. }), "{error}");
    }
}

#[tokio::test]
async fn a_host_for_which_nobody_vouches_never_touches_an_approved_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world.changes.add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", "")]))).await.unwrap();
    let join = world.join(10, None).await;
    let approved = world.register(host("delly", Some(join))).await;
    world.changes.open_joining(&admin(), Duration::from_mins(1), vec![]).await.unwrap();

    // The same machine id and hostname, and yet another one, until somebody vouches for it.
    let stranger = world.register(host("delly", None)).await;
    assert_ne!(stranger.proxy.id, approved.proxy.id);
    let token = approved.token.as_ref().unwrap().digest();
    let catalog = world.changes.catalog();
    assert_eq!(catalog.registry.proxy(approved.proxy.id), Some(&approved.proxy));
    assert_eq!(catalog.registry.token(&token).unwrap().standing, TokenStanding::Current);
    // Again it is the same, with a new token instead of the one before.
    let again = world.register(host("DELLY", None)).await;
    assert_eq!(again.proxy.id, stranger.proxy.id);
    let catalog = world.changes.catalog();
    assert_eq!(catalog.registry.token(&stranger.token.unwrap().digest()), None);
    assert!(catalog.registry.token(&again.token.as_ref().unwrap().digest()).is_some());

    // No instance takes it in by itself, by name or by being moved.
    world.changes.set_endpoints(&admin(), "home", nodes(&[("delly", ""), ("x", "")]), true).await.unwrap();
    world.changes.add_instance(&admin(), NewInstance::typed("lab", nodes(&[("nas", "")]))).await.unwrap();
    let refused =
        world.changes.set_proxy(&admin(), stranger.proxy.id, Some("lab".into()), Some(ScopeKind::All)).await;
    assert!(matches!(refused, Err(ChangeError::NotApproved(_))));
    // Nor its own token, with which it registers again, by then without a window.
    world.changes.close_joining(&admin()).await.unwrap();
    let proven = Registration { proven: Some(stranger.proxy.id), ..host("delly", None) };
    let proven = world.register(proven).await.proxy;
    assert_eq!((proven.id, proven.is_approved, proven.scope()), (stranger.proxy.id, false, None));

    // A good join token goes to the approved one, which it was before; without it, to the one that waits.
    let rejoined = world.register(host("delly", Some(join))).await.proxy;
    assert_eq!(rejoined.id, approved.proxy.id);
    world.changes.remove_proxy(&admin(), approved.proxy.id).await.unwrap();
    let vouched_for = world.register(host("delly", Some(join))).await.proxy;
    assert_eq!((vouched_for.id, vouched_for.is_approved), (stranger.proxy.id, true));
    assert!(vouched_for.scope().is_some());
}

#[tokio::test]
async fn hosts_that_wait_for_approval_are_bounded_and_go_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let world = open_at(folder.path(), hands.clock()).await;
    let day = Duration::from_hours(24);
    world.changes.open_joining(&admin(), day, vec![]).await.unwrap();
    let first = world.register(host("h0", None)).await;
    hands.pass(60);
    for n in 1..256 {
        world.register(host(&format!("h{n}"), None)).await;
    }
    let full = world.changes.register(host("one-more", None)).await.unwrap_err();
    assert_eq!(full.reason(), reason::TOO_MANY_UNAPPROVED);
    assert!(full.to_string().contains("approve or remove"), "{full}");
    // One of them again is no more; a join token needs no place; an approval makes one.
    world.register(host("h7", None)).await;
    let join = world.join(1, None).await;
    world.register(host("with-token", Some(join))).await;
    let other = world.changes.catalog().registry.proxy_of_host(&"ab".repeat(32), "h9").next().unwrap().id;
    world.changes.approve_proxy(&admin(), other, None, None).await.unwrap();
    world.register(host("one-more", None)).await;

    hands.pass(24 * 3600 - 61);
    world.changes.expire().await.unwrap();
    let token = first.token.unwrap().digest();
    assert!(world.changes.catalog().registry.token(&token).is_some());
    hands.pass(1);
    world.changes.expire().await.unwrap();
    let catalog = world.changes.catalog();
    assert!(matches!(catalog.registry.proxy(first.proxy.id).unwrap().standing, Standing::Removed { .. }));
    // Unknown, not revoked: whoever was never let in keeps what it has of its own.
    assert_eq!((catalog.registry.token(&token), stored(&world, token).await), (None, None));
    assert_eq!(catalog.registry.proxies().count(), 257, "the others came a minute later");
    hands.pass(60);
    world.changes.expire().await.unwrap();
    let left: Vec<bool> = world.changes.catalog().registry.proxies().map(|proxy| proxy.is_approved).collect();
    assert_eq!(left, [true, true], "the approved one and the one with the join token");
}

#[tokio::test]
async fn an_approval_assigns_as_a_join_token_would_and_happens_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    let home = world
        .changes
        .add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", "")])))
        .await
        .unwrap();
    let lab =
        world.changes.add_instance(&admin(), NewInstance::typed("lab", nodes(&[("nas", "")]))).await.unwrap();
    world.changes.open_joining(&admin(), Duration::from_mins(1), vec![]).await.unwrap();
    let approve = async |hostname: &str, instance: Option<&str>, scope| {
        let id = world.register(host(hostname, None)).await.proxy.id;
        let instance = instance.map(str::to_owned);
        world.changes.approve_proxy(&admin(), id, instance, scope).await.unwrap().scope()
    };
    assert_eq!(approve("delly", None, None).await, Some(Scope::Instance(home.id)));
    assert_eq!(approve("minipc", Some("lab"), None).await, Some(Scope::Instance(lab.id)));
    assert_eq!(approve("watcher", None, Some(ScopeKind::All)).await, Some(Scope::All));
    assert_eq!(world.list(Scope::All), ["delly|", "nas|"]);
    assert_eq!(approve("attic", None, None).await, None, "no instance has it: it waits for one");
    world.changes.add_instance(&admin(), NewInstance::typed("up", nodes(&[("attic", "")]))).await.unwrap();
    let registry = &world.changes.catalog().registry;
    let attic = registry.proxies().find(|proxy| proxy.hostname == "attic").unwrap().clone();
    assert!(attic.scope().is_some());

    let revision = world.changes.catalog().revision;
    world.changes.approve_proxy(&admin(), attic.id, None, None).await.unwrap();
    assert_eq!(world.changes.catalog().revision, revision);
    let moved = world.changes.approve_proxy(&admin(), attic.id, Some("lab".into()), None).await.unwrap_err();
    assert!(moved.to_string().contains("pulse proxy set"), "{moved}");
}

#[tokio::test]
async fn debug_tokens_are_few_end_in_time_and_end_with_their_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    let world = open_at(folder.path(), hands.clock()).await;
    let join = world.join(1, None).await;
    let registered = world.register(host("a", Some(join))).await;
    let (id, token) = (registered.proxy.id, registered.token.unwrap().digest());
    let debug = async |seconds| {
        let made = world.changes.debug_token(&admin(), id, Duration::from_secs(seconds)).await?;
        Ok::<TokenDigest, ChangeError>(made.0.digest())
    };
    let first = debug(60).await.unwrap();
    for _ in 1..8 {
        debug(3600).await.unwrap();
    }
    let full = debug(3600).await.unwrap_err();
    assert_eq!(full.reason(), "TOO_MANY_DEBUG_TOKENS");
    hands.pass(60);
    let second = debug(3600).await.unwrap();
    world.changes.expire().await.unwrap();
    assert_eq!(stored(&world, first).await, None);
    for bad in [0, 24 * 3600 + 1] {
        assert!(matches!(debug(bad).await, Err(ChangeError::Invalid { field: "ttl_seconds", .. })));
    }
    // A rotation and another registration of the host leave them; its end does not.
    let new = world.changes.rotate_token(token, None).await.unwrap().0.digest();
    world.changes.promote_token(new, None).await.unwrap();
    let join = world.join(1, None).await;
    world.register(host("a", Some(join))).await;
    assert!(matches!(stored(&world, second).await, Some(TokenStanding::Debug { .. })));
    world.changes.revoke_proxy(&admin(), id).await.unwrap();
    assert_eq!(stored(&world, second).await, Some(TokenStanding::Tombstone));
}

#[tokio::test]
async fn the_join_token_of_a_removed_instance_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    world.changes.add_instance(&admin(), NewInstance::typed("home", nodes(&[("delly", "")]))).await.unwrap();
    let join = world.join(2, Some("home")).await;
    world.changes.remove_instance(&admin(), "home", true).await.unwrap();
    world.changes.add_instance(&admin(), NewInstance::typed("other", nodes(&[("delly", "")]))).await.unwrap();
    let error = world.changes.register(host("delly", Some(join))).await.unwrap_err();
    assert!(error.to_string().contains("instance of the join token was removed"), "{error}");
    assert_eq!(join_reason(error), reason::JOIN_TOKEN_REVOKED);
}
