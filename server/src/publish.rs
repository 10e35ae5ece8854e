//! The newest list of each scope: one [`Publisher`] writes, many [`Subscriber`]s read.
//!
//! In: lists that are committed. Out: the newest [`Published`] of a scope, and a ring of the [`Bell`] when it changes.
//! Always: a list is signed, encoded and framed once, whoever holds it; it stands in its place before anybody is woken; a
//! list of the same hash and epoch wakes nobody. Never: queues lists, or knows who reads.

mod ringing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use pulse_proto::encoded::Encoded;
use pulse_proto::signature::{PublicKey, SigningKey};
use pulse_proto::{Allowlist, Position, Scope, SignedAllowlist, v1};
use tokio::time::Instant;

use self::ringing::{Rounds, Streams};
use crate::bell::Bell;
use crate::metrics::Metrics;

/// A list as it stands at the server.
#[derive(Debug)]
pub struct Published {
    /// The list.
    pub signed: Arc<SignedAllowlist>,
    /// Its message, encoded once; all streams share the bytes.
    pub message: Message,
    /// Since when it is the newest here: its commit, or the start of the server. Never counts time in which
    /// the server was away.
    pub since: Instant,
    opening: ArcSwapOption<Opening>,
}

type Message = Encoded<v1::WatchAuthorizedNodesResponse>;

/// A list's message as the first one of a stream.
#[derive(Debug)]
struct Opening {
    addition: Arc<Message>,
    message: Message,
}

impl Published {
    /// A list that becomes the newest now: encodes it.
    pub fn new(signed: Arc<SignedAllowlist>) -> Published {
        let message = signed.to_message();
        Published { signed, message, since: Instant::now(), opening: ArcSwapOption::empty() }
    }

    /// The list's message with an addition, for streams that begin with it. They share the bytes too.
    pub fn opening(&self, addition: &Arc<Message>) -> Message {
        if let Some(made) = &*self.opening.load()
            && Arc::ptr_eq(&made.addition, addition)
        {
            return made.message.clone();
        }
        let message = self.message.merged(addition);
        let made = Opening { addition: Arc::clone(addition), message: message.clone() };
        self.opening.store(Some(Arc::new(made)));
        message
    }
}

/// The newest lists, for reading. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    topics: Arc<ArcSwap<HashMap<Scope, Arc<Topic>>>>,
    rounds: Arc<Rounds>,
}

/// One scope's newest list and the streams that follow it.
#[derive(Debug)]
struct Topic {
    newest: ArcSwap<Published>,
    streams: Arc<Streams>,
}

impl Topic {
    fn new(newest: Published) -> Arc<Topic> {
        Arc::new(Topic { newest: ArcSwap::from_pointee(newest), streams: Arc::default() })
    }
}

impl Lists {
    /// The newest list of a scope.
    pub fn newest(&self, scope: Scope) -> Option<Arc<Published>> {
        self.topics.load().get(&scope).map(|topic| topic.newest.load_full())
    }

    /// Every scope that has a list.
    pub fn scopes(&self) -> Vec<Scope> {
        self.topics.load().keys().copied().collect()
    }

    /// Follows a scope: the bell rings when the list's hash or epoch changes. `None` if the scope has no list.
    pub fn subscribe(&self, scope: Scope, bell: Arc<Bell>) -> Option<Subscriber> {
        // Topics are never taken away.
        let topic = Arc::clone(self.topics.load().get(&scope)?);
        let place = topic.streams.enter(bell);
        Some(Subscriber { topic, place })
    }

    /// Rings the bells of large scopes, a few at a time, until `stop`. Small ones are rung by the publisher.
    pub async fn keep_ringing(self, stop: impl Future<Output = ()>) {
        self.rounds.keep_ringing(stop).await;
    }
}

/// Follows one scope's list. It skips to the newest and holds nothing back.
#[derive(Debug)]
pub struct Subscriber {
    topic: Arc<Topic>,
    place: usize,
}

impl Subscriber {
    /// The newest list.
    pub fn newest(&self) -> Arc<Published> {
        self.topic.newest.load_full()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.topic.streams.leave(self.place);
    }
}

/// The one writer of the lists: signs them and puts them in their place.
#[derive(Debug)]
pub struct Publisher {
    lists: Lists,
    key: SigningKey,
    refresh_interval: Duration,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// Begins with the lists as they were stored, with today's interval, which no signature covers; they wake nobody.
    pub fn new(
        key: SigningKey,
        refresh_interval: Duration,
        metrics: Arc<Metrics>,
        stored: impl IntoIterator<Item = SignedAllowlist>,
    ) -> Publisher {
        let publisher = Publisher { lists: Lists::default(), key, refresh_interval, metrics };
        let topics =
            stored.into_iter().map(|signed| (signed.scope, Topic::new(publisher.encode_stored(signed))));
        publisher.lists.topics.store(Arc::new(topics.collect()));
        publisher
    }

    /// The lists, for reading.
    pub fn lists(&self) -> Lists {
        self.lists.clone()
    }

    /// The key with which lists are signed.
    pub fn key(&self) -> PublicKey {
        self.key.public()
    }

    /// Signs a list that is about to be committed.
    pub fn sign(
        &self,
        position: Position,
        scope: Scope,
        allowlist: Allowlist,
        at: SystemTime,
    ) -> Arc<SignedAllowlist> {
        Arc::new(SignedAllowlist::sign(&self.key, position, scope, allowlist, at, self.refresh_interval))
    }

    /// Puts a committed list, as it was encoded, in its place; wakes its subscribers if its hash or its epoch is another
    /// one.
    pub fn publish(&mut self, encoded: Published) {
        let published = Published { since: Instant::now(), ..encoded };
        let scope = published.signed.scope;
        let what = |list: &SignedAllowlist| (list.allowlist.hash(), list.position.epoch);
        let new = what(&published.signed);
        let topics = self.lists.topics.load_full();
        match topics.get(&scope) {
            Some(topic) => {
                let before = topic.newest.swap(Arc::new(published));
                if what(&before.signed) != new {
                    self.metrics.pushes.inc();
                    self.lists.rounds.begin(&topic.streams);
                }
            }
            None => {
                let mut topics = HashMap::clone(&topics);
                topics.insert(scope, Topic::new(published));
                self.lists.topics.store(Arc::new(topics));
            }
        }
    }

    /// Encodes a list that another server signed, with the interval of this one.
    pub fn encode_stored(&self, signed: SignedAllowlist) -> Published {
        self.encode(Arc::new(SignedAllowlist { refresh_interval: Some(self.refresh_interval), ..signed }))
    }

    /// Encodes a list, for [`Publisher::publish`].
    pub fn encode(&self, signed: Arc<SignedAllowlist>) -> Published {
        self.metrics.encodes.inc();
        Published::new(signed)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use pulse_proto::Node;
    use uuid::Uuid;

    use super::*;

    fn publisher() -> Publisher {
        let (key, _) = SigningKey::generate().unwrap();
        Publisher::new(key, Duration::from_secs(60), Arc::new(Metrics::new()), [])
    }

    fn publish(publisher: &mut Publisher, scope: Scope, revision: u64, names: &[&str]) {
        let list = Allowlist::new(names.iter().map(|name| Node::new(name, "").unwrap()));
        let signed = publisher.sign(Position { epoch: 1, revision }, scope, list, SystemTime::UNIX_EPOCH);
        publisher.publish(publisher.encode(signed));
    }

    fn has_rung(bell: &Bell) -> bool {
        bell.poll_rung(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn a_subscriber_wakes_to_the_newest_list_only() {
        let mut publisher = publisher();
        publish(&mut publisher, Scope::All, 1, &["a"]);
        let bell = Arc::new(Bell::default());
        let subscriber = publisher.lists().subscribe(Scope::All, Arc::clone(&bell)).unwrap();
        publish(&mut publisher, Scope::All, 2, &["a", "b"]);
        publish(&mut publisher, Scope::All, 3, &["a", "b", "c"]);
        assert!(has_rung(&bell));
        assert_eq!(subscriber.newest().signed.position.revision, 3);
        assert!(!has_rung(&bell), "nothing is queued");
    }

    #[tokio::test]
    async fn the_same_hash_at_a_new_revision_takes_its_place_and_wakes_nobody() {
        let mut publisher = publisher();
        publish(&mut publisher, Scope::All, 1, &["a"]);
        let bell = Arc::new(Bell::default());
        let subscriber = publisher.lists().subscribe(Scope::All, Arc::clone(&bell)).unwrap();
        publish(&mut publisher, Scope::All, 2, &["a"]);
        assert!(!has_rung(&bell));
        assert_eq!(subscriber.newest().signed.position.revision, 2);
    }

    #[tokio::test]
    async fn a_stored_list_tells_the_interval_of_today() {
        let mut before = publisher();
        publish(&mut before, Scope::All, 1, &["a"]);
        let stored = (*before.lists().newest(Scope::All).unwrap().signed).clone();
        let (key, _) = SigningKey::generate().unwrap();
        let after = Publisher::new(key, Duration::from_secs(300), Arc::new(Metrics::new()), [stored]);
        let newest = after.lists().newest(Scope::All).unwrap();
        assert_eq!(newest.signed.refresh_interval, Some(Duration::from_secs(300)));
    }

    #[tokio::test]
    async fn scopes_do_not_wake_each_other() {
        let mut publisher = publisher();
        let other = Scope::Instance(Uuid::from_u128(7));
        publish(&mut publisher, Scope::All, 1, &["a"]);
        publish(&mut publisher, other, 1, &["a"]);
        let bell = Arc::new(Bell::default());
        let _subscriber = publisher.lists().subscribe(Scope::All, Arc::clone(&bell)).unwrap();
        publish(&mut publisher, other, 2, &["b"]);
        assert!(!has_rung(&bell));
    }

    #[tokio::test]
    async fn a_list_is_encoded_once_however_many_follow_it() {
        let mut publisher = publisher();
        publish(&mut publisher, Scope::All, 1, &["a"]);
        let lists = publisher.lists();
        let subscribers: Vec<_> =
            (0..100).map(|_| lists.subscribe(Scope::All, Arc::default()).unwrap()).collect();
        publish(&mut publisher, Scope::All, 2, &["b"]);
        assert!(subscribers.iter().all(|s| s.newest().signed.position.revision == 2));
        assert_eq!(publisher.metrics.encodes.get(), 2);
    }
}
