//! Several servers change one fleet in one database, with rings that come, come late or are lost, and crashes at any step; time
//! and chance come from a seed. The store is the real one, on a file that they share, and so is all that decides, takes
//! over and publishes.
//!
//! `PULSE_REPLICA_SEEDS` says how many seeds are tried (200); `PULSE_REPLICA_SEED` tries one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pulse::audit::Actor;
use pulse::catalog::Catalog;
use pulse::changes::{ChangeError, Changes, NewInstance};
use pulse::fleet::Fleet;
use pulse::inventory::Inventory;
use pulse::metrics::Metrics;
use pulse::publish::{Lists, Publisher};
use pulse::registry::Registry;
use pulse::store::{Retention, Store};
use pulse_proto::signature::SigningKey;
use pulse_proto::{Chance, Clock, Node, Position, Scope};
use tokio::task::JoinSet;

const INTERVAL: Duration = Duration::from_secs(60);
const REPLICAS: usize = 3;
const STEPS: usize = 40;
const INSTANCES: [&str; 3] = ["home", "lab", "barn"];

/// One server, as far as it changes and pushes.
struct Replica {
    data_dir: PathBuf,
    changes: Changes,
    lists: Lists,
    /// The newest position of each scope that it has served.
    served: BTreeMap<Scope, Position>,
    working: JoinSet<()>,
}

impl Replica {
    async fn start(data_dir: PathBuf, database_dir: &Path, chance: &Chance) -> Replica {
        let retention = Retention { max_bytes: 1 << 30, max_age: Duration::from_secs(3600) };
        let clock = Clock::system();
        let store =
            Store::open_in_tasks_beside(&data_dir, database_dir, retention, clock.clone(), chance.clone());
        let store = store.expect("the store opens");
        let loaded = store.load().await.expect("the store loads");
        let (mut inventory, registry) = (Inventory::default(), Registry::default());
        loaded.instances.into_iter().for_each(|instance| inventory.put(Arc::new(instance)));
        let (server_id, epoch, revision) = (loaded.server_id, loaded.epoch, loaded.revision);
        let audit_hash = loaded.audit_hash.into();
        let catalog = Catalog {
            server_id,
            epoch,
            revision,
            audit_hash,
            inventory,
            registry,
            accounts: Default::default(),
        };
        let metrics = Arc::new(Metrics::new());
        let key = SigningKey::from_pkcs8(&loaded.signing_key).expect("the store keeps the key");
        let publisher = Publisher::new(key, INTERVAL, Arc::clone(&metrics), loaded.lists);
        let lists = publisher.lists();
        let fleet = Fleet::new(INTERVAL, loaded.statuses, clock.clone());
        let changes = Changes::new(store, catalog, publisher, fleet, metrics, pulse_proto::MAX_NODES, clock);
        Replica { data_dir, changes, lists, served: BTreeMap::new(), working: JoinSet::new() }
    }

    /// What it serves now must not be older than what it served before.
    fn look(&mut self, what: &str) {
        for scope in self.lists.scopes() {
            let position = self.lists.newest(scope).expect("a scope keeps its list").signed.position;
            let before = self.served.insert(scope, position);
            assert!(
                before.is_none_or(|before| before <= position),
                "{what}: {scope} went from {before:?} to {position:?}"
            );
        }
    }

    /// Begins a change of its own; whether it is made is not waited for.
    fn begin_change(&mut self, number: u64) {
        let (changes, name) = (self.changes.clone(), INSTANCES[number as usize % INSTANCES.len()]);
        self.working.spawn(async move {
            let admin = Actor::admin(0);
            let nodes = vec![Node::new(&format!("node-{number}"), "").expect("it is a name")];
            let changed = match changes.set_endpoints(&admin, name, nodes.clone(), true).await {
                Err(ChangeError::NotFound { .. }) => {
                    changes.add_instance(&admin, NewInstance::typed(name, nodes)).await
                }
                changed => changed,
            };
            match changed {
                Ok(_) | Err(ChangeError::AlreadyThere(_)) => {}
                Err(error) => panic!("a change fails without a reason: {error:?}"),
            }
        });
    }

    /// It hears the bell, or asks.
    fn begin_to_catch_up(&mut self) {
        let changes = self.changes.clone();
        self.working.spawn(async move { changes.catch_up().await.expect("the database is there") });
    }
}

fn number(chance: &Chance, below: u64) -> u64 {
    (chance.fraction() * below as f64) as u64
}

async fn run(seed: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder is made");
    let chance = Chance::seeded(seed);
    let database_dir = folder.path().join("shared");
    std::fs::create_dir(&database_dir).expect("a folder is made");
    let mut replicas = Vec::new();
    for number in 0..REPLICAS {
        let data_dir = folder.path().join(format!("own-{number}"));
        std::fs::create_dir(&data_dir).expect("a folder is made");
        replicas.push(Replica::start(data_dir, &database_dir, &chance).await);
    }
    let mut crashes = 0;
    for step in 0..STEPS {
        let at = number(&chance, REPLICAS as u64) as usize;
        match number(&chance, 10) {
            0..=3 => replicas[at].begin_change(step as u64),
            4..=7 => replicas[at].begin_to_catch_up(),
            8 => {
                // What it had in memory is gone, and what it was about to do as well; a commit that was under way may
                // be made all the same. It comes back in a folder of its own.
                crashes += 1;
                let gone = replicas.remove(at);
                let data_dir = folder.path().join(format!("own-{at}-{step}"));
                std::fs::create_dir(&data_dir).expect("a folder is made");
                let served = gone.served.clone();
                drop(gone);
                let mut back = Replica::start(data_dir, &database_dir, &chance).await;
                back.served = served;
                back.look("after a crash");
                replicas.insert(at, back);
            }
            _ => tokio::time::sleep(Duration::from_millis(number(&chance, 100))).await,
        }
        tokio::time::sleep(Duration::from_millis(number(&chance, 30))).await;
        replicas.iter_mut().for_each(|replica| replica.look(&format!("step {step}")));
    }
    for replica in &mut replicas {
        while let Some(ended) = replica.working.join_next().await {
            ended.unwrap_or_else(|error| panic!("{}: {error}", replica.data_dir.display()));
        }
        replica.look("when its work was done");
    }
    // Commits of servers that crashed may still be under way: they end within some steps of the disk.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut ends = Vec::new();
    for replica in &mut replicas {
        replica.changes.catch_up().await.expect("the database is there");
        replica.look("at the end");
        let catalog = replica.changes.catalog();
        let lists: BTreeMap<Scope, _> = replica
            .lists
            .scopes()
            .into_iter()
            .map(|scope| {
                let list = &replica.lists.newest(scope).expect("it has one").signed;
                (scope, (list.position, list.allowlist.hash(), list.signature.clone()))
            })
            .collect();
        ends.push((catalog.revision, catalog.audit_hash.clone(), lists));
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "servers end apart: {ends:?}");
    assert!(ends[0].0 > 0 || crashes > 0, "something happened");
}

#[test]
fn every_server_ends_at_the_newest_revision_and_serves_no_older_one_after_a_newer() {
    let setting =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("it is a number"));
    let seeds = match setting("PULSE_REPLICA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("PULSE_REPLICA_SEEDS").unwrap_or(200),
    };
    for seed in seeds {
        println!("seed {seed}: PULSE_REPLICA_SEED={seed} tries it again");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime is made").block_on(run(seed));
    }
}
