//! What became of asking each instance: what people see of it, which host answered, and of which cluster.
//!
//! In: each answer or doubt. Out: the newest of each instance. Always: a problem is written when it begins and when it ends; what
//! goes on well is written once a minute.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pulse_proto::Node;
use uuid::Uuid;

use crate::store::{PollStatus, Store};

/// What was told before counts no more.
const RECENTLY: Duration = Duration::from_secs(3_600);

/// How old the stored time of an answer may be.
const SAVED_EVERY: Duration = Duration::from_secs(60);

/// What is known of asking. Cloning shares it.
#[derive(Clone, Default, Debug)]
pub struct Polls(Arc<Mutex<HashMap<Uuid, Entry>>>);

/// An answer that is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// When it was given.
    pub at: SystemTime,
    /// By which host.
    pub url: String,
    /// That host's version of Proxmox VE.
    pub version: String,
    /// The name of the cluster, empty for a host by itself; `None`: its members are not taken yet.
    pub cluster: Option<String>,
}

#[derive(Debug)]
struct Entry {
    status: PollStatus,
    /// The names in lower case that were told last; `None`: not by this server.
    told: Option<HashSet<String>>,
    /// The names in lower case that were told, and when last.
    recently: HashMap<String, SystemTime>,
    /// Whether what was told last waits for an admin.
    is_held: bool,
    saved: Option<PollStatus>,
}

impl Polls {
    /// With what the store has.
    #[must_use]
    pub fn new(loaded: Vec<PollStatus>) -> Polls {
        let entry = |status: PollStatus| {
            (
                status.instance,
                Entry {
                    saved: Some(status.clone()),
                    status,
                    told: None,
                    recently: HashMap::new(),
                    is_held: false,
                },
            )
        };
        Polls(Arc::new(Mutex::new(loaded.into_iter().map(entry).collect())))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of asking an instance last.
    #[must_use]
    pub fn of(&self, instance: Uuid) -> Option<PollStatus> {
        self.lock().get(&instance).map(|entry| entry.status.clone())
    }

    /// What became of asking each instance.
    #[must_use]
    pub fn all(&self) -> BTreeMap<Uuid, PollStatus> {
        self.lock().iter().map(|(id, entry)| (*id, entry.status.clone())).collect()
    }

    /// When an instance was last believed.
    #[must_use]
    pub fn heard_at(&self, instance: Uuid) -> Option<SystemTime> {
        self.lock().get(&instance).and_then(|entry| entry.status.heard_at)
    }

    /// Whether the newest answer that was believed names a node; `None`: not known here.
    #[must_use]
    pub fn names(&self, instance: Uuid, node: &str) -> Option<bool> {
        let polls = self.lock();
        let told = polls.get(&instance)?.told.as_ref()?;
        Some(told.contains(&node.to_ascii_lowercase()))
    }

    /// The names in lower case that an instance was told to have within the last hour, since an admin last said something to it.
    #[must_use]
    pub fn recently(&self, instance: Uuid, now: SystemTime) -> Vec<String> {
        let mut polls = self.lock();
        let Some(entry) = polls.get_mut(&instance) else { return Vec::new() };
        entry.recently.retain(|_, at| now.duration_since(*at).is_ok_and(|age| age < RECENTLY));
        entry.recently.keys().cloned().collect()
    }

    /// Notes an answer that is believed. Out: the problem that is over with it.
    pub fn heard(&self, instance: Uuid, heard: Heard, nodes: &[Node]) -> Option<String> {
        let Heard { at, url, version, cluster } = heard;
        let mut polls = self.lock();
        let entry = polls.entry(instance).or_insert_with(|| Entry::new(instance, at));
        let before = std::mem::take(&mut entry.status.problem);
        (entry.status.url, entry.status.version) = (url, version);
        let is_held = cluster.is_none();
        if let Some(cluster) = cluster {
            entry.status.cluster = cluster;
        }
        if std::mem::replace(&mut entry.is_held, is_held) && !is_held {
            // An admin let it out, or the cluster has come to itself.
            entry.recently.clear();
        }
        if !is_held {
            entry.recently.extend(nodes.iter().map(|node| (node.name().to_ascii_lowercase(), at)));
        }
        (entry.status.asked_at, entry.status.heard_at, entry.status.problem_since) = (at, Some(at), None);
        entry.told = Some(nodes.iter().map(|node| node.name().to_ascii_lowercase()).collect());
        Some(before).filter(|before| !before.is_empty())
    }

    /// Notes doubt. Out: whether it is new.
    pub fn doubted(&self, instance: Uuid, at: SystemTime, problem: &str) -> bool {
        let mut polls = self.lock();
        let entry = polls.entry(instance).or_insert_with(|| Entry::new(instance, at));
        entry.status.asked_at = at;
        if entry.status.problem.is_empty() {
            entry.status.problem_since = Some(at);
        }
        let is_new = entry.status.problem != problem;
        problem.clone_into(&mut entry.status.problem);
        is_new
    }

    /// Takes what another server wrote, where it is newer.
    pub fn merge(&self, others: Vec<PollStatus>) {
        let mut polls = self.lock();
        for status in others {
            let is_newer =
                polls.get(&status.instance).is_none_or(|entry| entry.status.asked_at < status.asked_at);
            if is_newer {
                let entry = Entry {
                    saved: Some(status.clone()),
                    status,
                    told: None,
                    recently: HashMap::new(),
                    is_held: false,
                };
                polls.insert(entry.status.instance, entry);
            }
        }
    }

    /// Forgets those that are asked no more.
    pub fn keep_only(&self, is_asked: impl Fn(Uuid) -> bool) {
        self.lock().retain(|id, _| is_asked(*id));
    }

    /// Writes what is new and worth it.
    pub async fn save(&self, store: &Store, now: SystemTime) {
        let is_due = |entry: &Entry| {
            let Some(saved) = &entry.saved else { return true };
            let what = |status: &PollStatus| {
                (status.url.clone(), status.version.clone(), status.cluster.clone(), status.problem.clone())
            };
            let same = what(saved) == what(&entry.status);
            !same || now.duration_since(saved.asked_at).is_ok_and(|age| age >= SAVED_EVERY)
        };
        self.save_those(store, is_due).await;
    }

    /// Writes all that is new: before the end.
    pub async fn save_all(&self, store: &Store) {
        self.save_those(store, |_| true).await;
    }

    async fn save_those(&self, store: &Store, is_due: impl Fn(&Entry) -> bool) {
        let due: Vec<PollStatus> = {
            let polls = self.lock();
            let due =
                polls.values().filter(|entry| entry.saved.as_ref() != Some(&entry.status) && is_due(entry));
            due.map(|entry| entry.status.clone()).collect()
        };
        if due.is_empty() {
            return;
        }
        match store.save_polls(due.clone()).await {
            Ok(()) => {
                let mut polls = self.lock();
                for status in due {
                    if let Some(entry) = polls.get_mut(&status.instance) {
                        entry.saved = Some(status);
                    }
                }
            }
            // It is tried again with the next look; the store itself says that it cannot be written.
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "what became of asking is not saved"
                );
            }
        }
    }
}

impl Entry {
    fn new(instance: Uuid, at: SystemTime) -> Entry {
        let status = PollStatus {
            instance,
            asked_at: at,
            heard_at: None,
            url: String::new(),
            version: String::new(),
            cluster: String::new(),
            problem: String::new(),
            problem_since: None,
        };
        Entry { status, told: None, recently: HashMap::new(), is_held: false, saved: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_problem_begins_once_and_ends_with_the_next_answer() {
        let (polls, id) = (Polls::default(), Uuid::from_u128(1));
        let heard = |at| Heard {
            at,
            url: "https://pve:8006".to_owned(),
            version: "8.4.1".to_owned(),
            cluster: Some("home".to_owned()),
        };
        assert!(polls.doubted(id, at(1), "no quorum"));
        assert!(!polls.doubted(id, at(11), "no quorum"));
        assert!(polls.doubted(id, at(21), "401"), "another problem is said");
        assert_eq!(polls.of(id).unwrap().problem_since, Some(at(1)));
        let nodes = [Node::new("PVE1", "").unwrap()];
        assert_eq!(polls.heard(id, heard(at(31)), &nodes).as_deref(), Some("401"));
        assert_eq!(polls.heard(id, heard(at(41)), &nodes), None);
        assert_eq!((polls.names(id, "pve1"), polls.names(id, "pve2")), (Some(true), Some(false)));
        let status = polls.of(id).unwrap();
        assert_eq!((status.heard_at, status.problem_since), (Some(at(41)), None));
        polls.doubted(id, at(51), "again");
        assert_eq!(polls.heard_at(id), Some(at(41)), "what was heard was heard");
    }

    #[test]
    fn what_another_server_wrote_counts_if_it_is_newer() {
        let (polls, other, id) = (Polls::default(), Polls::default(), Uuid::from_u128(1));
        polls.doubted(id, at(5), "here");
        other.doubted(id, at(3), "there");
        polls.merge(other.all().into_values().collect());
        assert_eq!(polls.of(id).unwrap().problem, "here");
        other.doubted(id, at(7), "there");
        polls.merge(other.all().into_values().collect());
        assert_eq!(polls.of(id).unwrap().problem, "there");
    }
}
