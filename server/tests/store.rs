//! What the store promises: what was answered is on disk, whole, once, and is read back as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pulse::accounts::{Admin, ApiScope, Credential, CredentialKind};
use pulse::audit::{Entry, FIRST};
use pulse::config::{Database, DatabaseUrl};
use pulse::inventory::{Held, Instance, Origin, Source, Use, Wish};
use pulse::registry::{
    CtrlToken, JoinToken, JoinWindow, Proxy, ProxyKind, ScopeKind, Standing, TokenStanding,
};
use pulse::report::{NodeReport, Readings, Report, Sensor};
use pulse::store::{
    Change, Commit, KeptList, Leave, Loaded, Mark, ProxyStatus, Retention, Store, StoreError,
};
use pulse_proto::signature::SigningKey;
use pulse_proto::{Allowlist, Clock, Node, Position, Scope, SensorKind, SignedAllowlist, TokenDigest};
use pulse_test_support::postgres;
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

const KEEP_ALL: Retention = Retention { max_bytes: 1 << 40, max_age: Duration::from_hours(24 * 365 * 100) };

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder is made")
}

async fn open(folder: &TempDir) -> Store {
    open_with(folder, KEEP_ALL).await
}

async fn open_with(folder: &TempDir, retention: Retention) -> Store {
    try_open(folder, retention).await.expect("the store opens")
}

/// On SQLite, or on PostgreSQL if the run has one.
async fn try_open(folder: &TempDir, retention: Retention) -> Result<Store, StoreError> {
    let Some(url) = postgres::database_of(folder.path()) else {
        return Store::open(folder.path(), retention, Clock::system()).await;
    };
    let url = DatabaseUrl::parse(&url).expect("it is a URL");
    let database = Database { url, password_file: None, password: None, ca_file: None };
    let secret_key = folder.path().join("secret.key");
    Store::connect(folder.path(), &database, &secret_key, retention, Clock::system()).await
}

/// Whether the database is a file, which the test looks into with a program of its own.
fn is_file() -> bool {
    let is_file = std::env::var_os("PULSE_TEST_POSTGRES").is_none();
    if !is_file {
        println!("not on PostgreSQL: the test looks into the file");
    }
    is_file
}

/// Another program at the same database.
fn shell(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join("pulse.db")).expect("the database opens")
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn digest(n: u8) -> TokenDigest {
    TokenDigest::from_bytes([n; 32])
}

fn node(name: &str, address: &str) -> Node {
    Node::new(name, address).expect("the node keeps its rules")
}

fn instance(n: u128, name: &str, endpoints: Vec<Node>) -> Instance {
    Instance::new(id(n), name, endpoints, at(n as u64))
}

fn proxy(n: u128, instance: Option<Uuid>) -> Proxy {
    Proxy {
        id: id(n),
        hostname: format!("host{n}"),
        machine_id: "ab".repeat(32),
        kind: ProxyKind::Socket,
        proxy_url: String::new(),
        version: "0.1.0".into(),
        peer: None,
        instance,
        scope_kind: ScopeKind::Instance,
        standing: Standing::Active,
        is_approved: true,
        rotate_requested: false,
        created_at: at(1),
        registered_at: at(2),
    }
}

fn join_token(n: u8) -> JoinToken {
    JoinToken {
        id: format!("{n:08x}"),
        digest: digest(n),
        instance: None,
        scope_kind: ScopeKind::Instance,
        uses: 5,
        used: 0,
        created_at: at(1),
        expires_at: at(100),
        revoked_at: None,
    }
}

fn admin(name: &str) -> Admin {
    Admin {
        name: name.to_owned(),
        password_hash: Some("$argon2id$x".to_owned()),
        created_at: at(1),
        password_set_at: Some(at(2)),
        removed_at: None,
    }
}

/// One of each kind, by turns.
fn credential(n: u8) -> Credential {
    let kind = match n % 3 {
        0 => CredentialKind::SetUp { admin: "ada".to_owned() },
        1 => CredentialKind::Session { admin: "ada".to_owned() },
        _ => CredentialKind::Api { name: format!("token, {n}"), scopes: ApiScope::ALL.into() },
    };
    let (id, digest) = (format!("{n:012x}"), digest(n));
    Credential { id, digest, kind, created_at: at(1), expires_at: at(100), ended_at: None }
}

fn join_window(n: u128) -> JoinWindow {
    let sources = ["10.0.0.0/24", "2001:db8::7"].map(|text| text.parse().expect("a network"));
    JoinWindow { id: id(n), sources: sources.into(), opened_at: at(1), closes_at: at(100), closed_at: None }
}

fn list(key: &SigningKey, epoch: u64, revision: u64, scope: Scope, nodes: Vec<Node>) -> SignedAllowlist {
    let position = Position { epoch, revision };
    SignedAllowlist::sign(key, position, scope, Allowlist::new(nodes), at(revision), Duration::from_secs(60))
}

fn entry(n: u64) -> Entry {
    Entry {
        at_ms: 1_700_000_000_000 + n,
        actor: "admin:uid=0".into(),
        action: "instance.add",
        target: format!("instance:{n}"),
        detail: serde_json::json!({"count": n, "text": "a \"quoted\" ä"}),
    }
}

fn commit(expected: u64, changes: Vec<Change>) -> Commit {
    let (expected_hash, audit) = (String::new(), entry(expected));
    Commit {
        expected,
        expected_hash,
        revision: expected + 1,
        changes,
        lists: vec![],
        leave: Leave::Alone,
        audit,
    }
}

/// Commits it, decided on the history that the database has.
async fn put(store: &Store, commit: Commit) -> Result<String, StoreError> {
    let expected_hash = store.load().await?.audit_hash;
    store.commit(Commit { expected_hash, ..commit }).await
}

fn sensor(name: &str) -> Sensor {
    Sensor {
        name: name.into(),
        chip: "coretemp".into(),
        label: "Package id 0".into(),
        kind: SensorKind::CpuPackage,
        max_celsius: Some(100.0),
        critical_celsius: None,
    }
}

fn node_report(name: &str, collected_at: SystemTime, celsius: f64) -> NodeReport {
    NodeReport {
        proxy: id(7),
        instance: id(1),
        node: node(name, ""),
        collected_at,
        received_at: collected_at + Duration::from_millis(5),
        position: Position { epoch: 1_700_000_000_000, revision: 3 },
        readings: [(sensor("coretemp-isa-0000/temp1"), celsius)].into_iter().collect(),
        unreadable_reason: String::new(),
    }
}

fn report(sequence: u64, nodes: Vec<NodeReport>) -> Report {
    let nodes = nodes.into_iter().map(Arc::new).collect();
    Report { proxy: id(7), session: id(70), sequence, nodes }
}

async fn history(store: &Store, name: &str) -> Vec<NodeReport> {
    store.history(id(1), &node(name, ""), UNIX_EPOCH, 1_000_000).await.expect("the history is read")
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn refusal(folder: &TempDir) -> String {
    chain(&Store::open(folder.path(), KEEP_ALL, Clock::system()).await.expect_err("the folder is refused"))
}

#[tokio::test]
async fn a_new_database_has_its_identity_and_keeps_it() {
    let folder = folder();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let store = open(&folder).await;
    let first = store.load().await.unwrap();
    assert_eq!(first.revision, 0);
    assert!(first.epoch >= before && first.epoch < before + 60_000);
    assert_eq!(first.server_id.get_version_num(), 4);
    let key = SigningKey::from_pkcs8(&first.signing_key).unwrap();
    assert!(store.is_writable());
    store.close().await.unwrap();

    let again = open(&folder).await.load().await.unwrap();
    assert_eq!((again.server_id, again.epoch), (first.server_id, first.epoch));
    assert_eq!(SigningKey::from_pkcs8(&again.signing_key).unwrap().public(), key.public());
}

#[tokio::test]
async fn only_the_owner_can_read_any_file_of_the_database() {
    if !is_file() {
        return;
    }
    let folder = folder();
    std::fs::File::create(folder.path().join("pulse.db")).unwrap();
    let loose = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(folder.path().join("pulse.db"), loose).unwrap();
    let store = open(&folder).await;
    put(&store, commit(0, vec![])).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()).collect();
    assert!(names.len() >= 3, "{names:?}");
    for file in names {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn every_field_of_the_catalog_is_read_back() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let empty = instance(1, "empty", vec![]);
    let home = instance(
        2,
        "Home.lab_1",
        vec![node("pve", "10.0.0.2"), node("delly", ""), node("v6", "2001:db8::5"), node("dns", "a.example")],
    );
    let gone = instance(3, "gone", vec![]).with(|facts| facts.removed_at = Some(at(50)));
    let plain = proxy(10, None);
    let full = Proxy {
        kind: ProxyKind::Http,
        proxy_url: "https://delly:8443".into(),
        peer: Some("2001:db8::7".parse().unwrap()),
        scope_kind: ScopeKind::All,
        rotate_requested: true,
        is_approved: false,
        ..proxy(11, Some(id(2)))
    };
    let revoked = Proxy {
        standing: Standing::Revoked { at: at(9), reason: "lost".into() },
        peer: Some("10.1.2.3".parse().unwrap()),
        ..proxy(12, Some(id(3)))
    };
    let removed =
        Proxy { standing: Standing::Removed { at: at(8), reason: String::new() }, ..proxy(13, Some(id(1))) };
    let tokens = [
        CtrlToken { digest: digest(1), proxy: id(11), standing: TokenStanding::Current },
        CtrlToken { digest: digest(2), proxy: id(11), standing: TokenStanding::Next { use_before: at(77) } },
        CtrlToken { digest: digest(3), proxy: id(12), standing: TokenStanding::Tombstone },
        CtrlToken { digest: digest(4), proxy: id(11), standing: TokenStanding::Debug { until: at(78) } },
    ];
    let join_tokens = [
        join_token(1),
        JoinToken {
            instance: Some(id(2)),
            scope_kind: ScopeKind::All,
            uses: u32::MAX,
            used: 3,
            revoked_at: Some(at(4)),
            ..join_token(2)
        },
    ];
    let windows = [join_window(1), JoinWindow { sources: vec![], closed_at: Some(at(5)), ..join_window(2) }];
    let admins = [admin("ada"), Admin { password_hash: None, removed_at: Some(at(6)), ..admin("eve") }];
    let credentials = [1, 2, 3].map(credential);
    // Proxies before their instances: the order within a change is free.
    let mut changes: Vec<Change> =
        [&plain, &full, &revoked, &removed].map(|proxy| Change::Proxy(Arc::new(proxy.clone()))).into();
    changes.extend(tokens.map(Change::Token));
    changes.extend(join_tokens.clone().map(|token| Change::JoinToken(Arc::new(token))));
    changes.extend(windows.clone().map(|window| Change::JoinWindow(Arc::new(window))));
    changes.extend(admins.clone().map(|admin| Change::Admin(Arc::new(admin))));
    changes.extend(credentials.clone().map(|one| Change::Credential(Arc::new(one))));
    changes.extend([&empty, &home, &gone].map(|instance| Change::Instance(Arc::new(instance.clone()))));
    put(&store, commit(0, changes)).await.unwrap();

    let check = |loaded: Loaded| {
        assert_eq!(loaded.revision, 1);
        assert_eq!(loaded.instances, [empty.clone(), home.clone(), gone.clone()]);
        assert_eq!(loaded.proxies, [plain.clone(), full.clone(), revoked.clone(), removed.clone()]);
        assert_eq!(loaded.tokens, tokens);
        assert_eq!(loaded.join_tokens, join_tokens);
        assert_eq!(loaded.join_windows, windows);
        assert_eq!(loaded.admins, admins);
        assert_eq!(loaded.credentials, credentials);
    };
    check(store.load().await.unwrap());
    drop(store);
    let store = open(&folder).await;
    check(store.load().await.unwrap());

    // Rows are replaced, and a dropped token is not known any more.
    let renamed = home.with(|facts| {
        facts.name = "attic".into();
        facts.replace(Origin::Manual, vec![node("one", "")], at(60));
    });
    let used = JoinToken { used: 4, ..join_tokens[1].clone() };
    let current = CtrlToken { standing: TokenStanding::Current, ..tokens[1] };
    let active = Proxy { standing: Standing::Active, ..revoked.clone() };
    let changes = vec![
        Change::Instance(Arc::new(renamed.clone())),
        Change::JoinToken(Arc::new(used.clone())),
        Change::Token(current),
        Change::DropToken(digest(1)),
        Change::Proxy(Arc::new(active.clone())),
    ];
    put(&store, commit(1, changes)).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.revision, 2);
    assert_eq!(loaded.instances[1], renamed);
    assert_eq!(loaded.join_tokens[1], used);
    assert_eq!(loaded.tokens, [current, tokens[2], tokens[3]]);
    assert_eq!(loaded.proxies[2], active);

    // Whoever reads what is newer than revision 1 finds exactly these rows, the dropped token among them.
    let newer = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table} WHERE revision > 1");
        shell(&folder).query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let tables = ["instances", "join_tokens", "ctrl_tokens", "proxies"];
    assert_eq!(tables.map(newer), [1, 1, 2, 1]);
}

#[tokio::test]
async fn every_list_is_kept_and_the_newest_of_each_scope_is_loaded() {
    let folder = folder();
    let store = open(&folder).await;
    let Loaded { epoch, signing_key, .. } = store.load().await.unwrap();
    let key = SigningKey::from_pkcs8(&signing_key).unwrap();
    let (all, one) = (Scope::All, Scope::Instance(id(1)));
    let nodes = vec![node("pve", "10.0.0.2"), node("delly", ""), node("v6", "2001:db8::5")];
    let lists = [
        vec![list(&key, epoch, 1, all, nodes.clone()), list(&key, epoch, 1, one, nodes.clone())],
        vec![SignedAllowlist { refresh_interval: None, ..list(&key, epoch, 2, one, vec![]) }],
        vec![],
        vec![list(&key, epoch, 4, one, nodes[..1].to_vec())],
    ];
    for (expected, lists) in (0..).zip(&lists) {
        let lists = lists.iter().cloned().map(Arc::new).collect();
        put(&store, Commit { lists, ..commit(expected, vec![]) }).await.unwrap();
    }
    drop(store);
    let store = open(&folder).await;
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.lists, [lists[0][0].clone(), lists[3][0].clone()]);
    let public = key.public();
    for list in &loaded.lists {
        let verified = SignedAllowlist::verify(&list.to_wire(), &[public], Position::default()).unwrap();
        assert_eq!(verified, *list);
    }
    let found = async |scope, revision| store.list_at(scope, revision).await.unwrap();
    assert_eq!(found(one, 0).await, None);
    assert_eq!(found(one, 1).await.as_ref(), Some(&lists[0][1]));
    assert_eq!(found(one, 3).await.as_ref(), Some(&lists[1][0]));
    assert_eq!(found(one, u64::MAX).await.as_ref(), Some(&lists[3][0]));
    assert_eq!(found(all, 4).await.as_ref(), Some(&lists[0][0]));
    assert_eq!(found(Scope::Instance(id(2)), 4).await, None);
}

#[tokio::test]
async fn an_altered_list_is_not_loaded() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let Loaded { epoch, signing_key, .. } = store.load().await.unwrap();
    let key = SigningKey::from_pkcs8(&signing_key).unwrap();
    let lists = vec![Arc::new(list(&key, epoch, 1, Scope::All, vec![node("a", ""), node("b", "")]))];
    put(&store, Commit { lists, ..commit(0, vec![]) }).await.unwrap();
    shell(&folder).execute("UPDATE allowlists SET nodes = 'a|'", []).unwrap();
    let error = store.load().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable(_)), "{error:?}");
    assert!(chain(&error).contains("table allowlists, row all, column hash"), "{}", chain(&error));
    shell(&folder).execute("UPDATE allowlists SET nodes = '*|10.0.0.0/8'", []).unwrap();
    assert!(chain(&store.list_at(Scope::All, 1).await.unwrap_err()).contains("column nodes"));
}

#[tokio::test]
async fn a_change_decided_on_an_older_revision_is_a_conflict_and_writes_nothing() {
    let store_folder = folder();
    let store = open(&store_folder).await;
    put(&store, commit(0, vec![])).await.unwrap();
    for expected in [0, 2] {
        let late = commit(expected, vec![Change::Instance(Arc::new(instance(1, "late", vec![])))]);
        assert!(matches!(put(&store, late).await, Err(StoreError::Conflict(1))));
    }
    // The number is right, and the history another one.
    let expected_hash = "0".repeat(64);
    let other = store.commit(Commit { expected_hash, ..commit(1, vec![]) }).await;
    assert!(matches!(other, Err(StoreError::OtherHistory { revision: 1 })), "{other:?}");
    {}
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.instances.len()), (1, 0));
    assert_eq!(store.audit_tail(10).await.unwrap().len(), 1);
    assert!(store.is_writable());
}

#[tokio::test]
async fn of_many_that_commit_at_once_one_wins_each_revision() {
    let folder = folder();
    let store = open(&folder).await;
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut expected = 0;
                let instance = Arc::new(instance(n, &format!("i{n}"), vec![]));
                loop {
                    match put(&store, commit(expected, vec![Change::Instance(Arc::clone(&instance))])).await {
                        Ok(_) => return,
                        Err(StoreError::Conflict(actual)) => expected = actual,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.instances.len()), (20, 20));
}

#[tokio::test]
async fn a_failing_commit_writes_nothing() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let first = Change::Instance(Arc::new(instance(1, "first", vec![node("a", "")])));
    put(&store, commit(0, vec![first])).await.unwrap();
    let changes = || {
        vec![
            Change::Instance(Arc::new(instance(1, "renamed", vec![]))),
            Change::Instance(Arc::new(instance(2, "second", vec![]))),
        ]
    };
    // In the middle: the last statement of the transaction.
    let trigger =
        "CREATE TRIGGER refuse BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'refused here'); END";
    shell(&folder).execute_batch(trigger).unwrap();
    let error = put(&store, commit(1, changes())).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
    assert!(chain(&error).contains("commit a change") && chain(&error).contains("refused here"));
    shell(&folder).execute_batch("DROP TRIGGER refuse").unwrap();
    // At its end: a token of a proxy that there is not.
    let mut dangling = changes();
    let standing = TokenStanding::Current;
    dangling.push(Change::Token(CtrlToken { digest: digest(1), proxy: id(404), standing }));
    assert!(matches!(put(&store, commit(1, dangling)).await, Err(StoreError::Database { .. })));

    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.tokens.len()), (1, 0));
    assert_eq!(loaded.instances, [instance(1, "first", vec![node("a", "")])]);
    assert_eq!(store.audit_tail(10).await.unwrap().len(), 1);
    put(&store, commit(1, changes())).await.unwrap();
}

#[tokio::test]
async fn the_audit_log_is_one_chain_and_what_is_altered_shows() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    for expected in 0..60 {
        put(&store, commit(expected, vec![])).await.unwrap();
    }
    store.append_audit(vec![]).await.unwrap();
    drop(store);
    let store = open(&folder).await;
    store.append_audit((100..140).map(entry).collect()).await.unwrap();

    let rows = store.audit_after(0, 1_000).await.unwrap();
    assert_eq!(rows.len(), 100);
    let mut previous = FIRST;
    for (seq, row) in (1..).zip(&rows) {
        assert_eq!((row.seq, row.previous_hash.as_str()), (seq, previous));
        assert_eq!(row.hash, row.computed_hash());
        previous = &row.hash;
    }
    assert_eq!((rows[0].revision, rows[59].revision, rows[99].revision), (1, 60, 60));
    assert_eq!(rows[0].detail, entry(0).detail.to_string());

    assert_eq!(store.audit_tail(3).await.unwrap(), rows[97..]);
    assert_eq!(store.audit_after(98, 10).await.unwrap(), rows[98..]);
    assert_eq!(store.audit_after(10, 2).await.unwrap(), rows[10..12]);
    assert_eq!(store.audit_after(u64::MAX, 2).await.unwrap(), []);

    shell(&folder).execute("UPDATE audit SET actor = 'nobody' WHERE seq = 42", []).unwrap();
    let altered: Vec<_> = store.audit_after(0, 1_000).await.unwrap();
    let wrong: Vec<_> =
        altered.iter().filter(|row| row.hash != row.computed_hash()).map(|row| row.seq).collect();
    assert_eq!(wrong, [42]);
}

#[tokio::test]
async fn what_proxies_last_said_is_read_back() {
    let folder = folder();
    let store = open(&folder).await;
    let mark = |n: u64| Mark {
        position: Position { epoch: 1_700_000_000_000, revision: n },
        hash: Allowlist::new([node(&format!("n{n}"), "")]).hash(),
        at: at(n),
    };
    let silent = ProxyStatus {
        proxy: id(1),
        last_seen: None,
        last_pull: None,
        pushed: None,
        applied: None,
        on_disk: false,
        refused: None,
        last_error: String::new(),
        list_source: String::new(),
        insecure_skip_verify: false,
        kept_list: None,
        version: String::new(),
        peer: None,
    };
    let full = ProxyStatus {
        proxy: id(2),
        last_seen: Some(at(1)),
        last_pull: Some(at(2)),
        pushed: Some(mark(3)),
        applied: Some(mark(4)),
        on_disk: true,
        refused: Some(mark(5)),
        last_error: "wrong hash".into(),
        list_source: "pushed".into(),
        insecure_skip_verify: true,
        kept_list: Some(KeptList { problem: "damaged".into(), detail: "cut".into(), at: at(6) }),
        version: "0.1.0".into(),
        peer: Some("::1".parse().unwrap()),
    };
    store.save_statuses(vec![silent.clone(), full.clone()]).await.unwrap();
    assert_eq!(store.load().await.unwrap().statuses, [silent.clone(), full.clone()]);
    let swapped = [ProxyStatus { proxy: id(1), ..full.clone() }, ProxyStatus { proxy: id(2), ..silent }];
    store.save_statuses(swapped.to_vec()).await.unwrap();
    drop(store);
    assert_eq!(open(&folder).await.load().await.unwrap().statuses, swapped);
}

#[tokio::test]
async fn a_report_is_stored_once_however_often_it_is_sent() {
    let folder = folder();
    let store = open(&folder).await;
    let first = || report(1, vec![node_report("a", at(1), 41.0)]);
    let recorded = store.record(first()).await.unwrap();
    assert_eq!((recorded.durable_sequence, recorded.is_double), (1, false));
    let recorded = store.record(first()).await.unwrap();
    assert_eq!((recorded.durable_sequence, recorded.is_double), (1, true));
    let third = || report(3, vec![node_report("a", at(3), 43.0)]);
    if store.is_shared() {
        // The second may have been lost with another server: it is asked for once.
        assert!(matches!(store.record(third()).await, Err(StoreError::BehindGap)));
    }
    store.record(third()).await.unwrap();
    let late = store.record(report(2, vec![node_report("a", at(2), 42.0)])).await.unwrap();
    assert_eq!((late.durable_sequence, late.is_double), (3, true));
    // A report of which nothing was taken counts all the same.
    assert_eq!(store.record(report(4, vec![])).await.unwrap().durable_sequence, 4);
    drop(store);

    let store = open(&folder).await;
    assert!(store.record(first()).await.unwrap().is_double);
    // Another start of the proxy, and another proxy, count for themselves.
    let session = Report { session: id(71), ..report(1, vec![node_report("a", at(4), 44.0)]) };
    assert!(!store.record(session).await.unwrap().is_double);
    let other = Report { proxy: id(8), ..report(1, vec![node_report("a", at(5), 45.0)]) };
    assert!(!store.record(other).await.unwrap().is_double);
    let values: Vec<_> =
        history(&store, "a").await.iter().map(|report| report.readings.celsius()[0]).collect();
    assert_eq!(values, [41.0, 43.0, 44.0, 45.0]);

    // No number of a proxy brings the store down.
    let last = Report { session: id(72), ..report(u64::MAX, vec![]) };
    assert!(
        matches!(store.record(last.clone()).await, Err(StoreError::BehindGap)),
        "it may have lost those before"
    );
    assert!(!store.record(last.clone()).await.unwrap().is_double);
    assert!(store.record(last).await.unwrap().is_double);
}

#[tokio::test]
async fn doubles_in_one_group_are_stored_once() {
    let folder = folder();
    let store = open(&folder).await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.record(report(1, vec![node_report("a", at(1), 41.0)])).await })
        })
        .collect();
    let mut doubles = 0;
    for task in tasks {
        doubles += u32::from(task.await.unwrap().unwrap().is_double);
    }
    assert_eq!((doubles, history(&store, "a").await.len()), (49, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_the_store_is_opened_again() {
    let folder = folder();
    let store = open(&folder).await;
    let tasks: Vec<_> = (0..200_u64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let nodes =
                    vec![node_report("shared", at(n), n as f64), node_report(&format!("n{n}"), at(n), 1.5)];
                store.record(Report { session: id(1000 + u128::from(n)), ..report(1, nodes) }).await
            })
        })
        .collect();
    for task in tasks {
        assert!(!task.await.unwrap().unwrap().is_double);
    }
    drop(store);
    let store = open(&folder).await;
    let shared = history(&store, "shared").await;
    let values: Vec<_> = shared.iter().map(|report| report.readings.celsius()[0]).collect();
    assert_eq!(values, (0..200_u8).map(f64::from).collect::<Vec<_>>());
    assert_eq!(store.load().await.unwrap().newest.len(), 201);
}

#[tokio::test]
async fn every_field_of_a_report_is_read_back() {
    let folder = folder();
    let store = open(&folder).await;
    let readings = (0_u8..).zip(SensorKind::ALL).map(|(n, kind)| {
        let sensor = Sensor {
            name: format!("chip/temp{n}"),
            chip: "chip".into(),
            label: if n % 2 == 0 { String::new() } else { format!("ä {n}") },
            kind,
            max_celsius: (n % 3 == 0).then_some(99.999),
            critical_celsius: (n % 4 == 0).then_some(-0.5),
        };
        (sensor, f64::from(i32::from(n) * 12_345 - 40_000) / 1000.0)
    });
    let read = NodeReport {
        node: node("delly", "2001:db8::5"),
        readings: readings.collect(),
        ..node_report("delly", at(1), 0.0)
    };
    let unread = NodeReport {
        node: node("other", "pve.example"),
        readings: Readings::default(),
        unreadable_reason: "no sensor here".into(),
        position: Position::default(),
        ..node_report("other", at(2), 0.0)
    };
    store.record(report(1, vec![read.clone(), unread.clone()])).await.unwrap();
    drop(store);
    let store = open(&folder).await;
    assert_eq!(store.load().await.unwrap().newest, [read.clone(), unread.clone()]);
    let history =
        async |report: &NodeReport| store.history(id(1), &report.node, UNIX_EPOCH, 10).await.unwrap();
    assert_eq!(history(&read).await, [read]);
    assert_eq!(history(&unread).await, [unread]);
}

#[tokio::test]
async fn history_keeps_the_label_and_limits_under_which_it_was_read() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let variants = [
        (sensor("s"), 1.0),
        (Sensor { label: "CPU".into(), ..sensor("s") }, 2.0),
        (Sensor { kind: SensorKind::CpuDie, ..sensor("s") }, 3.0),
        (Sensor { max_celsius: Some(95.0), ..sensor("s") }, 4.0),
        (sensor("s"), 5.0),
    ];
    for (n, variant) in (1..).zip(&variants) {
        let one =
            NodeReport { readings: [variant.clone()].into_iter().collect(), ..node_report("a", at(n), 0.0) };
        store.record(report(n, vec![one])).await.unwrap();
    }
    let history = history(&store, "a").await;
    let read = history.iter().flat_map(|report| report.readings.iter());
    assert_eq!(read.map(|(sensor, celsius)| (sensor.clone(), celsius)).collect::<Vec<_>>(), variants);
    let series: i64 = shell(&folder).query_row("SELECT count(*) FROM series", [], |row| row.get(0)).unwrap();
    assert_eq!(series, 4);
}

#[tokio::test]
async fn a_reading_of_which_a_series_is_missing_is_told_and_is_not_taken_for_another() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let names = ["a/temp1", "a/temp2"];
    let mut one = node_report("one", at(1), 40.0);
    one.readings = names.map(|name| (sensor(name), 40.0)).into_iter().collect();
    // Its first sensors are those of the other, as on most hosts of a fleet.
    let mut other = node_report("other", at(1), 40.0);
    other.readings = names.iter().chain(&["a/temp3"]).map(|name| (sensor(name), 41.0)).collect();
    store.record(report(1, vec![one, other])).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let gone = shell(&folder).execute("DELETE FROM series WHERE sensor = 'a/temp3'", []).unwrap();
    assert_eq!(gone, 1);
    let store = open(&folder).await;
    let error = store.load().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable(_)), "{}", chain(&error));
    assert!(chain(&error).contains("series has no row"), "{}", chain(&error));
}

#[tokio::test]
async fn nodes_between_which_somebody_took_one_away_are_all_written_anew() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let nodes = |names: &[&str]| names.iter().map(|name| node(name, "")).collect::<Vec<_>>();
    let named = |expected, names: &[&str]| {
        commit(expected, vec![Change::Instance(Arc::new(instance(1, "home", nodes(names))))])
    };
    put(&store, named(0, &["a", "b", "c"])).await.unwrap();
    assert_eq!(shell(&folder).execute("DELETE FROM instance_nodes WHERE name = 'b'", []).unwrap(), 1);
    put(&store, named(1, &["a", "c", "d"])).await.unwrap();
    assert_eq!(store.load().await.unwrap().instances[0].endpoints(), nodes(&["a", "c", "d"]));
}

#[tokio::test]
async fn history_is_oldest_first_from_a_time_on_and_at_most_so_many() {
    let folder = folder();
    let store = open(&folder).await;
    for (sequence, second) in [(1, 5), (2, 1), (3, 9), (4, 3), (5, 7)] {
        let nodes = vec![node_report("a", at(second), second as f64), node_report("b", at(second), 0.0)];
        store.record(report(sequence, nodes)).await.unwrap();
    }
    let found = async |name: &str, since: SystemTime, limit: u32| -> Vec<f64> {
        let reports = store.history(id(1), &node(name, ""), since, limit).await.unwrap();
        reports.iter().map(|report| report.readings.celsius()[0]).collect()
    };
    assert_eq!(found("a", UNIX_EPOCH, 100).await, [1.0, 3.0, 5.0, 7.0, 9.0]);
    assert_eq!(found("a", at(3), 3).await, [3.0, 5.0, 7.0]);
    assert_eq!(found("a", at(10), 3).await, [0.0; 0]);
    assert_eq!(found("A", UNIX_EPOCH, 3).await, [0.0; 0], "a node is its exact line");
    assert_eq!(store.history(id(2), &node("a", ""), UNIX_EPOCH, 3).await.unwrap(), []);
}

#[tokio::test]
async fn the_newest_of_a_node_is_the_one_collected_last() {
    let folder = folder();
    let store = open(&folder).await;
    for (sequence, second) in [(1, 5), (2, 9), (3, 7)] {
        store.record(report(sequence, vec![node_report("a", at(second), second as f64)])).await.unwrap();
    }
    store.record(report(4, vec![node_report("b", at(2), 2.0)])).await.unwrap();
    let newest = store.load().await.unwrap().newest;
    assert_eq!(newest, [node_report("a", at(9), 9.0), node_report("b", at(2), 2.0)]);
}

/// Writes until `condition` holds: upkeep is done after writes. Bounded by time.
async fn upkeep_until(store: &Store, condition: impl AsyncFn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(std::time::Instant::now() < deadline, "upkeep does not come to it");
        store.append_audit(vec![]).await.expect("the store is written");
    }
}

#[tokio::test]
async fn readings_that_are_too_old_go_and_the_newest_of_each_node_stays() {
    let folder = folder();
    let store = open(&folder).await;
    let now = SystemTime::now();
    let ago = |minutes: u64| now - Duration::from_mins(minutes);
    let mut sequence = 0;
    let mut record = async |name: &str, minutes: u64| {
        sequence += 1;
        store.record(report(sequence, vec![node_report(name, ago(minutes), 40.0)])).await.unwrap();
    };
    for minutes in 0..700 {
        record("dead", 10_000 - minutes).await;
    }
    for minutes in [300, 200, 100, 50, 5] {
        record("alive", minutes).await;
    }
    store.close().await.unwrap();

    let store = open_with(&folder, Retention { max_age: Duration::from_mins(60), ..KEEP_ALL }).await;
    store.append_audit(vec![]).await.unwrap();
    upkeep_until(&store, async || history(&store, "alive").await.len() == 2).await;
    let dead = history(&store, "dead").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].readings, [(sensor("coretemp-isa-0000/temp1"), 40.0)].into_iter().collect());
    let newest = store.load().await.unwrap().newest;
    assert_eq!(newest.len(), 2);
}

#[tokio::test]
async fn what_no_reading_needs_any_more_is_swept() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let now = SystemTime::now();
    let long_ago = now - Duration::from_hours(24 * 50);
    let nodes = vec![node_report("a", long_ago, 40.0), node_report("b", long_ago, 40.0)];
    store.record(report(1, nodes)).await.unwrap();
    drop(store);
    shell(&folder).execute("INSERT INTO report_sessions VALUES ('x', 'y', 1, 0)", []).unwrap();

    // The label changed; the one reading with the old one is too old by now, and the session even more.
    let max_age = Duration::from_hours(24 * 30);
    let store = open_with(&folder, Retention { max_age, ..KEEP_ALL }).await;
    let changed = Sensor { label: "new".into(), ..sensor("coretemp-isa-0000/temp1") };
    let readings = [(changed, 40.0)].into_iter().collect();
    let nodes = vec![NodeReport { readings, ..node_report("a", now, 40.0) }];
    store.record(report(2, nodes)).await.unwrap();
    let count = |sql: &str| -> i64 { shell(&folder).query_row(sql, [], |row| row.get(0)).unwrap() };
    upkeep_until(&store, async || count("SELECT count(*) FROM report_sessions") == 1).await;
    assert_eq!(count("SELECT count(*) FROM series"), 2);
    let newest = store.load().await.unwrap().newest;
    let labels: Vec<_> = newest.iter().map(|report| report.readings.sensors()[0].label.as_str()).collect();
    assert_eq!(labels, ["new", "Package id 0"], "the newest of b is kept, and what it means");
    // A series that was swept is made again.
    store.record(report(3, vec![node_report("a", now + Duration::from_secs(1), 40.0)])).await.unwrap();
    let labels: Vec<_> = history(&store, "a")
        .await
        .into_iter()
        .map(|report| report.readings.sensors()[0].label.clone())
        .collect();
    assert_eq!(labels, ["new", "Package id 0"]);
}

#[tokio::test]
async fn readings_that_are_too_much_go_the_oldest_first() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let readings: Readings = (0..40).map(|n| (sensor(&format!("chip/temp{n}")), 40.0)).collect();
    store.record(report(1, vec![node_report("dead", at(0), 1.0)])).await.unwrap();
    for first in [0, 3_000, 6_000] {
        let tasks = (first..first + 3_000_u64).map(|n| {
            let one = NodeReport { readings: readings.clone(), ..node_report("a", at(n), 0.0) };
            let store = store.clone();
            tokio::spawn(async move {
                store.record(Report { session: id(n.into()), ..report(1, vec![one]) }).await
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
    }
    drop(store);
    let used = || -> i64 {
        let sql = "SELECT (page_count - freelist_count) * page_size
                   FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        shell(&folder).query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let max_bytes = 2 << 20;
    assert!(used() > max_bytes + (256 << 10), "{}", used());

    let retention = Retention { max_bytes: max_bytes.unsigned_abs(), ..KEEP_ALL };
    let store = open_with(&folder, retention).await;
    upkeep_until(&store, async || used() <= max_bytes).await;
    let left = history(&store, "a").await;
    assert!(left.len() > 450, "no more is deleted than must be: {}", left.len());
    assert_eq!(left.last().unwrap().collected_at, at(8_999));
    assert!(left.windows(2).all(|pair| pair[1].collected_at > pair[0].collected_at));
    assert_eq!(history(&store, "dead").await.len(), 1);
}

#[tokio::test]
async fn a_full_queue_refuses_reports_and_nothing_else() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    // A program that holds the database keeps the writer waiting.
    let busy = shell(&folder);
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = (0..5_000_u64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(
                async move { store.record(Report { session: id(n.into()), ..report(1, vec![]) }).await },
            )
        })
        .collect();
    let audit = tokio::spawn({
        let store = store.clone();
        async move { store.append_audit(vec![entry(1)]).await }
    });
    for _ in 0..5_000 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(store.record(report(1, vec![])).await, Err(StoreError::Full)));
    busy.execute_batch("COMMIT").unwrap();
    audit.await.unwrap().unwrap();
    let (mut stored, mut full) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => stored += 1,
            Err(StoreError::Full) => full += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(stored + full, 5_000);
    assert!(stored >= 4_096 && full > 0, "{stored} {full}");
    store.record(report(1, vec![])).await.unwrap();
}

#[tokio::test]
async fn reads_do_not_wait_for_writes() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    put(&store, commit(0, vec![])).await.unwrap();
    let busy = shell(&folder);
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = tokio::spawn({
        let store = store.clone();
        async move { put(&store, commit(1, vec![])).await }
    });
    assert_eq!(store.audit_tail(10).await.unwrap().len(), 1);
    assert_eq!(store.load().await.unwrap().revision, 1);
    tokio::select! {
        biased;
        outcome = &mut waiting => panic!("{outcome:?}"),
        () = std::future::ready(()) => {}
    }
    busy.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_of_the_database_is_told_and_outlived() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    store.record(report(1, vec![node_report("a", at(1), 41.0)])).await.unwrap();
    shell(&folder).execute_batch("ALTER TABLE report_sessions RENAME TO away").unwrap();
    // The whole group fails, and what was remembered of it is forgotten.
    let readings = || [(sensor("new"), 2.0)].into_iter().collect();
    let nodes = || vec![NodeReport { readings: readings(), ..node_report("new", at(2), 0.0) }];
    for session in 0..3 {
        let error = store.record(Report { session: id(session), ..report(1, nodes()) }).await.unwrap_err();
        assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
        assert!(chain(&error).contains("pulse.db") && chain(&error).contains("report_sessions"));
    }
    assert!(!store.is_writable());
    shell(&folder).execute_batch("ALTER TABLE away RENAME TO report_sessions").unwrap();
    store.record(report(2, nodes())).await.unwrap();
    assert!(store.is_writable());
    // Those that failed waited, and were stored before it; whoever sends one again does not have it stored twice.
    assert_eq!(history(&store, "new").await.len(), 4);
    for session in 0..3 {
        let again = store.record(Report { session: id(session), ..report(1, nodes()) }).await.unwrap();
        assert_eq!((again.durable_sequence, again.is_double), (1, true));
    }
    assert_eq!(history(&store, "new").await.len(), 4);
}

#[tokio::test]
async fn reports_are_answered_before_a_slow_disk_has_them_and_nothing_of_them_is_lost() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let of = |session: u128, sequence: u64| Report {
        session: id(session),
        ..report(sequence, vec![node_report("a", at(1000 * session as u64 + sequence), 1.0)])
    };
    for session in 0..2 {
        assert_eq!(store.record(of(session, 1)).await.unwrap().durable_sequence, 1);
    }
    // Somebody holds the database.
    let busy = shell(&folder);
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut answered = Vec::new();
    let mut waiting = tokio::task::JoinSet::new();
    for sequence in 2..100 {
        let (store, report) = (store.clone(), of(0, sequence));
        waiting.spawn(async move { (sequence, store.record(report).await.unwrap()) });
        // Those that do not wait for the disk are answered within this turn of the runtime.
        tokio::task::yield_now().await;
        while let Some(done) = waiting.try_join_next() {
            answered.push(done.unwrap());
        }
    }
    assert!(answered.len() > 50, "many wait, so further ones are answered at once: {}", answered.len());
    assert!(answered.iter().all(|(_, recorded)| recorded.durable_sequence == 1), "{answered:?}");
    let again = store.record(of(0, 50)).await.unwrap();
    assert_eq!((again.durable_sequence, again.is_double), (1, true), "it waits, and is not durable");
    // A session that nobody knows yet is answered when the store has looked at it, or after a while.
    assert_eq!(store.record(of(9, 1)).await.unwrap().durable_sequence, 0);
    busy.execute_batch("COMMIT").unwrap();
    let held = waiting.join_all().await;
    assert!(!held.is_empty(), "the first ones wait for the disk");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.record(of(0, 100)).await.unwrap().durable_sequence < 100 {
        assert!(std::time::Instant::now() < deadline, "the disk takes them again");
    }
    let again = store.record(of(9, 1)).await.unwrap();
    assert_eq!((again.durable_sequence, again.is_double), (1, true));
    assert_eq!(history(&store, "a").await.len(), 102, "each once");
}

#[tokio::test]
async fn what_was_answered_and_lost_with_the_server_comes_before_what_follows_it() {
    let folder = folder();
    let store = open(&folder).await;
    let of = |sequence: u64| report(sequence, vec![node_report("a", at(sequence), sequence as f64)]);
    store.record(of(1)).await.unwrap();
    drop(store);
    // The server was killed after it had answered 2 and 3, and before it had written them.
    let store = open(&folder).await;
    assert!(matches!(store.record(of(4)).await, Err(StoreError::BehindGap)));
    for sequence in 2..=4 {
        let recorded = store.record(of(sequence)).await.unwrap();
        assert_eq!((recorded.durable_sequence, recorded.is_double), (sequence, false));
    }
    let values: Vec<_> =
        history(&store, "a").await.iter().map(|report| report.readings.celsius()[0]).collect();
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
}

#[tokio::test]
async fn a_store_that_is_closed_writes_what_was_answered() {
    let folder = folder();
    let store = open(&folder).await;
    let of = |session: u64, sequence: u64| Report {
        session: id(session.into()),
        ..report(sequence, vec![node_report("a", at(1000 * sequence + session), 1.0)])
    };
    let each = async |sequence: u64| {
        let all = (0..400).map(|session| store.record(of(session, sequence)));
        futures_util::future::join_all(all).await
    };
    assert!(each(1).await.iter().all(Result::is_ok));
    let recorded = each(2).await;
    assert!(recorded.iter().all(Result::is_ok));
    assert!(
        recorded.iter().flatten().any(|recorded| recorded.durable_sequence == 1),
        "some were not written yet"
    );
    store.close().await.unwrap();
    drop(store);
    assert_eq!(history(&open(&folder).await, "a").await.len(), 800);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    if !is_file() {
        return;
    }
    let folder = folder();
    drop(open(&folder).await);
    shell(&folder).execute_batch("PRAGMA user_version = 1000").unwrap();
    let text = refusal(&folder).await;
    assert!(text.contains("version 1000") && text.contains("pulse.db") && text.contains("newer"), "{text}");
    shell(&folder).execute_batch("PRAGMA user_version = -1").unwrap();
    assert!(refusal(&folder).await.contains("version -1"));
}

#[tokio::test]
async fn a_file_that_is_no_database_of_pulse_is_refused_and_left_alone() {
    if !is_file() {
        return;
    }
    let foreign = folder();
    shell(&foreign).execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    assert!(refusal(&foreign).await.contains("another program"));
    let count: i64 =
        shell(&foreign).query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);

    let garbage = folder();
    let path = garbage.path().join("pulse.db");
    std::fs::write(&path, "this is no database".repeat(1_000)).unwrap();
    let error = Store::open(garbage.path(), KEEP_ALL, Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable(_)), "{error:?}");
    assert!(error.to_string().contains("pulse.db"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "this is no database".repeat(1_000));
}

#[tokio::test]
async fn a_damaged_database_is_refused_by_name() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let store = open(&folder).await;
    let changes =
        (0..200).map(|n| Change::Instance(Arc::new(instance(n, &"x".repeat(60), vec![])))).collect();
    put(&store, commit(0, changes)).await.unwrap();
    let root: i64 = shell(&folder)
        .query_row("SELECT rootpage FROM sqlite_master WHERE name = 'instances'", [], |row| row.get(0))
        .unwrap();
    store.close().await.unwrap();
    let path = folder.path().join("pulse.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let start = (root as usize - 1) * 4096;
    bytes[start..start + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(folder.path(), KEEP_ALL, Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable(_)), "{error:?}");
    assert!(chain(&error).contains("pulse.db"), "{}", chain(&error));
}

#[tokio::test]
async fn a_folder_belongs_to_one_server_at_a_time() {
    let folder = folder();
    let store = open(&folder).await;
    let text = refusal(&folder).await;
    assert!(text.contains("another pulse server") && text.contains("pulse.lock"), "{text}");
    let handle = store.clone();
    drop(store);
    assert!(refusal(&folder).await.contains("another pulse server"), "one handle is left");
    drop(handle);
    open(&folder).await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let missing = folder.path().join("missing");
    let error = Store::open(&missing, KEEP_ALL, Clock::system()).await.unwrap_err();
    assert!(chain(&error).contains("missing/pulse.lock: No such file"), "{}", chain(&error));
}

#[tokio::test]
async fn a_closed_store_has_written_all_and_says_that_it_is_closed() {
    let folder = folder();
    let store = open(&folder).await;
    let queued: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.record(Report { session: id(n), ..report(1, vec![node_report("a", at(1), 1.0)]) }).await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await.unwrap();
    let mut stored = 0;
    for outcome in queued {
        match outcome.await.unwrap() {
            Ok(_) => stored += 1,
            Err(error) => assert!(matches!(error, StoreError::Closed), "{error:?}"),
        }
    }
    assert!(matches!(store.load().await, Err(StoreError::Closed)));
    assert!(matches!(put(&store, commit(0, vec![])).await, Err(StoreError::Closed)));
    assert!(matches!(store.record(report(1, vec![])).await, Err(StoreError::Closed)));
    assert!(!store.is_writable());
    store.close().await.unwrap();
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("wal")), "{left:?}");
    // The folder is free although a handle is left.
    let again = open(&folder).await;
    assert_eq!(history(&again, "a").await.len(), stored);
}

#[tokio::test]
async fn no_secret_is_shown() {
    let folder = folder();
    let store = open(&folder).await;
    let loaded = store.load().await.unwrap();
    let shown = format!("{loaded:?} {store:?}");
    assert!(!shown.contains("signing_key"), "{shown}");
    let bytes = format!("{:?}", &loaded.signing_key[16..24]);
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}

#[tokio::test]
async fn a_database_of_the_first_version_is_brought_up_to_date_and_its_proxies_are_approved() {
    if !is_file() {
        return;
    }
    let folder = folder();
    let (_, signing_key) = SigningKey::generate().unwrap();
    let first = shell(&folder);
    first.execute_batch(include_str!("../src/store/migrations/sqlite/0001_initial.sql")).unwrap();
    let server_id = Uuid::now_v7().to_string();
    first
        .execute(
            "INSERT INTO fleet (id, server_id, epoch, revision, created_at, signing_key) VALUES (1, ?1, 7, 3, 7, ?2)",
            rusqlite::params![server_id, signing_key.as_slice()],
        )
        .unwrap();
    first
        .execute(
            "INSERT INTO proxies (id, hostname, machine_id, kind, proxy_url, version, scope_kind, standing,
                 standing_reason, rotate_requested, created_at, registered_at, revision)
             VALUES (?1, 'delly', '', 'socket', '', '0.1.0', 'all', 'active', '', 0, 1, 1, 3)",
            [id(1).to_string()],
        )
        .unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    drop(first);
    let loaded = open(&folder).await.load().await.unwrap();
    assert_eq!((loaded.server_id.to_string(), loaded.epoch, loaded.revision), (server_id, 7, 3));
    assert!(loaded.proxies[0].is_approved && loaded.proxies[0].scope() == Some(Scope::All));
    assert_eq!(loaded.join_windows, []);
}

/// A small generator of numbers that are the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the store must hold, kept in the simplest way.
#[derive(Default)]
struct Model {
    revision: u64,
    instances: BTreeMap<Uuid, Instance>,
    proxies: BTreeMap<Uuid, Proxy>,
    tokens: BTreeMap<[u8; 32], CtrlToken>,
    join_tokens: BTreeMap<String, JoinToken>,
    join_windows: BTreeMap<Uuid, JoinWindow>,
    admins: BTreeMap<String, Admin>,
    credentials: BTreeMap<String, Credential>,
    lists: BTreeMap<Scope, SignedAllowlist>,
    audit: Vec<u64>,
}

impl Model {
    fn apply(&mut self, commit: &Commit) {
        self.revision = commit.revision;
        for change in &commit.changes {
            match change {
                Change::Instance(row) => drop(self.instances.insert(row.id, (**row).clone())),
                Change::Proxy(row) => drop(self.proxies.insert(row.id, (**row).clone())),
                Change::Token(row) => drop(self.tokens.insert(*row.digest.as_bytes(), *row)),
                Change::DropToken(digest) => drop(self.tokens.remove(digest.as_bytes())),
                Change::JoinToken(row) => drop(self.join_tokens.insert(row.id.clone(), (**row).clone())),
                Change::JoinWindow(row) => drop(self.join_windows.insert(row.id, (**row).clone())),
                Change::Admin(row) => drop(self.admins.insert(row.name.clone(), (**row).clone())),
                Change::Credential(row) => {
                    drop(self.credentials.insert(row.id.clone(), (**row).clone()));
                }
                Change::Epoch(epoch) => panic!("this model has one epoch, not {epoch}"),
                Change::SealingKey(exchange) => panic!("this model has one key, not {exchange:?}"),
            }
        }
        for list in &commit.lists {
            self.lists.insert(list.scope, (**list).clone());
        }
        self.audit.push(commit.revision);
    }

    async fn check(&self, store: &Store, path: &Path) {
        let loaded = store.load().await.expect("the store is read");
        let at = format!("revision {} in {}", self.revision, path.display());
        assert_eq!(loaded.revision, self.revision, "{at}");
        assert!(loaded.instances.iter().eq(self.instances.values()), "{at}");
        assert!(loaded.proxies.iter().eq(self.proxies.values()), "{at}");
        assert!(loaded.tokens.iter().eq(self.tokens.values()), "{at}");
        assert!(loaded.join_tokens.iter().eq(self.join_tokens.values()), "{at}");
        assert!(loaded.join_windows.iter().eq(self.join_windows.values()), "{at}");
        assert!(loaded.admins.iter().eq(self.admins.values()), "{at}");
        assert!(loaded.credentials.iter().eq(self.credentials.values()), "{at}");
        let lists: BTreeMap<Scope, SignedAllowlist> =
            loaded.lists.into_iter().map(|list| (list.scope, list)).collect();
        assert_eq!(lists, self.lists, "{at}");
        let audit = store.audit_after(0, u32::MAX).await.expect("the store is read");
        assert!(audit.iter().map(|row| row.revision).eq(self.audit.iter().copied()), "{at}");
    }
}

fn random_source(dice: &mut Dice) -> Source {
    let hosts = 1 + dice.below(3);
    let urls = (0..hosts).map(|host| format!("https://pve{host}:8006").parse().expect("it is one")).collect();
    let fingerprints =
        (0..dice.below(3)).map(|_| format!("{:064x}", dice.below(9)).parse().expect("it is one")).collect();
    Source {
        urls,
        token_id: "pulse@pve!monitor".to_owned(),
        sealed_secret: Arc::from(vec![dice.below(9) as u8; 40]),
        fingerprints,
        poll_interval: Duration::from_millis(1_500 + dice.below(9)),
    }
}

fn random_change(dice: &mut Dice) -> Change {
    let nodes = |dice: &mut Dice| -> Vec<Node> {
        (0..dice.below(4)).map(|_| node(&format!("n{}", dice.below(9)), "10.0.0.1")).collect()
    };
    match dice.below(9) {
        0 => {
            let n = u128::from(dice.below(5));
            let removed_at = (dice.below(3) == 0).then(|| at(dice.below(99)));
            let endpoints = nodes(dice);
            let told = nodes(dice);
            let instance = instance(n, &format!("i{}", dice.below(9)), endpoints).with(|facts| {
                facts.removed_at = removed_at;
                facts.replace(Origin::Cluster, told, at(dice.below(99)));
                facts.standing = [Use::Active, Use::Paused, Use::Excluded][dice.below(3) as usize];
                if dice.below(2) == 0 {
                    facts.source = Some(random_source(dice));
                }
                for _ in 0..dice.below(3) {
                    let address = (dice.below(2) == 0).then(|| "192.0.2.1".to_owned());
                    let wish = Wish { address, standing: Use::Excluded };
                    facts.wishes.insert(format!("n{}", dice.below(9)), wish);
                }
                for origin in [Origin::Manual, Origin::Cluster] {
                    if dice.below(2) == 0 {
                        let held = Held {
                            nodes: nodes(dice),
                            gone: vec!["n1".to_owned(), "n2".to_owned()],
                            by: "cluster".to_owned(),
                            at: at(dice.below(99)),
                            is_discarded: dice.below(2) == 0,
                        };
                        facts.held.insert(origin, held);
                    }
                }
            });
            Change::Instance(Arc::new(instance))
        }
        1 => {
            let instance = (dice.below(2) == 0).then(|| id(0));
            let standing = match dice.below(3) {
                0 => Standing::Active,
                1 => Standing::Revoked { at: at(dice.below(99)), reason: format!("r{}", dice.below(9)) },
                _ => Standing::Removed { at: at(dice.below(99)), reason: String::new() },
            };
            let is_approved = dice.below(2) == 0;
            let proxy = proxy(u128::from(dice.below(5)), instance);
            Change::Proxy(Arc::new(Proxy { standing, is_approved, ..proxy }))
        }
        2 | 3 => {
            let standing = match dice.below(4) {
                0 => TokenStanding::Current,
                1 => TokenStanding::Next { use_before: at(dice.below(99)) },
                2 => TokenStanding::Debug { until: at(dice.below(99)) },
                _ => TokenStanding::Tombstone,
            };
            Change::Token(CtrlToken { digest: digest(dice.below(6) as u8), proxy: id(0), standing })
        }
        4 => Change::DropToken(digest(dice.below(6) as u8)),
        5 => Change::JoinWindow(Arc::new(JoinWindow {
            closed_at: (dice.below(2) == 0).then(|| at(dice.below(99))),
            ..join_window(u128::from(dice.below(3)))
        })),
        6 => Change::Admin(Arc::new(Admin {
            removed_at: (dice.below(2) == 0).then(|| at(dice.below(99))),
            ..admin(["ada", "eve"][dice.below(2) as usize])
        })),
        7 => Change::Credential(Arc::new(Credential {
            ended_at: (dice.below(2) == 0).then(|| at(dice.below(99))),
            ..credential(dice.below(5) as u8)
        })),
        _ => {
            let used = dice.below(9) as u32;
            Change::JoinToken(Arc::new(JoinToken { used, ..join_token(dice.below(5) as u8) }))
        }
    }
}

#[tokio::test]
async fn whatever_is_committed_the_store_holds_what_a_model_holds() {
    for seed in [0x9e37_79b9_7f4a_7c15, 0xdead_beef_cafe_f00d] {
        let (folder, mut dice, mut model) = (folder(), Dice(seed), Model::default());
        let mut store = open(&folder).await;
        let Loaded { epoch, signing_key, .. } = store.load().await.unwrap();
        let key = SigningKey::from_pkcs8(&signing_key).unwrap();
        // What the others refer to.
        let base = vec![
            Change::Instance(Arc::new(instance(0, "base", vec![]))),
            Change::Proxy(Arc::new(proxy(0, None))),
        ];
        let first = commit(0, base);
        put(&store, first.clone()).await.unwrap();
        model.apply(&first);
        for _ in 0..120 {
            let expected = model.revision;
            let changes = (0..dice.below(5)).map(|_| random_change(&mut dice)).collect();
            let lists = (0..3)
                .filter(|_| dice.below(3) == 0)
                .map(|n| if n == 0 { Scope::All } else { Scope::Instance(id(n)) })
                .collect::<Vec<_>>()
                .into_iter()
                .map(|scope| {
                    Arc::new(list(
                        &key,
                        epoch,
                        expected + 1,
                        scope,
                        vec![node(&format!("n{}", dice.below(9)), "")],
                    ))
                })
                .collect();
            let commit = Commit { lists, ..commit(expected, changes) };
            if dice.below(5) == 0 {
                let stale = Commit { expected: expected + 1, revision: expected + 2, ..commit.clone() };
                assert!(matches!(put(&store, stale).await, Err(StoreError::Conflict(_))));
            }
            put(&store, commit.clone()).await.unwrap();
            model.apply(&commit);
            if dice.below(20) == 0 {
                drop(store);
                store = open(&folder).await;
                model.check(&store, folder.path()).await;
            }
        }
        model.check(&store, folder.path()).await;
    }
}
