//! The one way to change the fleet: decide, commit with its audit row, publish, one change at a time.
//!
//! In: what admins and registering hosts ask for. Out: a committed transaction, then the new [`Catalog`], the new
//! lists and a bell for each proxy that is concerned.
//! Always: what memory shows is committed; a list stands in its place before the catalog that needs it; only scopes
//! that the change touches are compiled. Never: half a change, whoever stops waiting for it.

mod accounts;
mod approval;
mod catch_up;
mod debug;
mod described;
mod draft;
mod epoch;
mod expiry;
mod import;
mod instance;
mod instances;
mod join;
mod key;
mod load;
mod members;
mod news;
mod proxies;
mod register;
mod sources;
mod wishes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use pulse_proto::token::TokenError;
use pulse_proto::{Clock, reason};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};
use uuid::Uuid;

use crate::audit::{self, Actor, Outcome};
use crate::catalog::Catalog;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::publish::{Lists, Published, Publisher};
use crate::store::{Commit, Store, StoreError};

pub use accounts::{LINK_LIFE, NewApiToken, SESSION_LIFE, SetUp};
use draft::Draft;
pub use import::{Import, ImportOutcome, ImportStep};
pub use instances::NewInstance;
pub use join::NewJoin;
pub use load::LoadError;
pub(crate) use load::catalog;
pub use members::{Taking, Told};
pub use news::{Changed, News};
pub use register::{Older, Registered, Registration};
pub use sources::{WantedSource, place_of_secret};

/// How many proxies are rung before other tasks have their turn.
const RINGS_OF_A_TURN: usize = 96;

/// How often a change is decided anew because another server was quicker. Each time one of them gets through.
const ATTEMPTS: usize = 16;

/// Why a change was not made. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such thing.
    #[error("there is no {what} {name:?}; `pulse {} list` shows what there is", .what.split(' ').next().unwrap_or_default())]
    NotFound {
        /// `instance`, `proxy`, `join token`.
        what: &'static str,
        /// What was looked for.
        name: String,
    },
    /// The name is taken.
    #[error(
        "there is an instance {0:?} already; choose another name, or change it with `pulse instance set`"
    )]
    AlreadyThere(String),
    /// A value breaks a rule.
    #[error("{field}: {rule}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// The rule, and the way out.
        rule: String,
    },
    /// The change takes something from proxies and wants to be confirmed.
    #[error(
        "instance {name:?} has proxies ({proxies}), which may then read nothing; say --yes to remove it all the same"
    )]
    NeedsYes {
        /// The instance.
        name: String,
        /// How many proxies belong to it.
        proxies: usize,
    },
    /// The change takes away more nodes than may go by themselves.
    #[error(
        "this would take {} of {before} nodes off the list of {list} ({}); say --yes to do it all the same",
        gone.len(), some(gone)
    )]
    TooManyGone {
        /// Whose list: that of an instance, or of all nodes.
        list: String,
        /// The nodes that would go.
        gone: Vec<String>,
        /// How many there are.
        before: usize,
    },
    /// No change waits for an admin.
    #[error("no change of instance {0:?} is held: `pulse allowlist held` shows those that are")]
    NothingHeld(String),
    /// What is held is not what the admin has seen.
    #[error(
        "what is held of instance {0:?} is another change by now: look at it with `pulse allowlist held`, and say again"
    )]
    HeldChanged(String),
    /// The instance has no source that this could mean.
    #[error(
        "instance {0:?} does not get its nodes from Proxmox VE, so there is no node {1:?} that its cluster could tell; \
         `pulse instance set {0} --pve URL` gives it a source"
    )]
    NoSource(String, String),
    /// The proxy is revoked or removed.
    #[error("proxy {0} is {1}; register its host again to make it active")]
    NotActive(uuid::Uuid, &'static str),
    /// The join token is not good, or no credential proves who asks.
    #[error("{text}")]
    Join {
        /// One of [`pulse_proto::reason`].
        reason: &'static str,
        /// What happened, and what to do.
        text: &'static str,
    },
    /// The proxy came without a join token, and no admin approved it yet.
    #[error(
        "proxy {0} waits for approval: `pulse proxy approve {0}`, which takes --instance and --scope too"
    )]
    NotApproved(uuid::Uuid),
    /// No window is open that could be closed.
    #[error("no window is open; `pulse join open` opens one for hosts without a join token")]
    NoWindow,
    /// There are as many as there may be.
    #[error("{text}")]
    TooMany {
        /// What a program may branch on.
        reason: &'static str,
        /// Of what, and the way out.
        text: String,
    },
    /// A token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The store could not commit it.
    #[error("the change was not made, because it could not be committed: {0}")]
    Store(#[from] StoreError),
    /// The connection to the database was lost in the middle.
    #[error(
        "it is not known whether the change was made, because the connection to the database was lost in the middle: `pulse audit` \
         shows it, once the database is there again"
    )]
    Undecided,
    /// The server stopped in the middle; whether it was committed shows after its restart.
    #[error("the server stops; ask again when it is back")]
    Stopping,
}

impl ChangeError {
    /// What a program may branch on.
    pub fn reason(&self) -> &'static str {
        match self {
            ChangeError::NotFound { .. } => "NOT_FOUND",
            ChangeError::AlreadyThere(_) => "ALREADY_THERE",
            ChangeError::Invalid { .. } => reason::INVALID_REQUEST,
            ChangeError::NeedsYes { .. } | ChangeError::TooManyGone { .. } => "NEEDS_YES",
            ChangeError::NothingHeld(_) => "NOTHING_HELD",
            ChangeError::HeldChanged(_) => "HELD_CHANGED",
            ChangeError::NoSource(..) => "NO_SOURCE",
            ChangeError::NotActive(..) => reason::PROXY_REVOKED,
            ChangeError::Join { reason, .. } | ChangeError::TooMany { reason, .. } => reason,
            ChangeError::NotApproved(_) => "NOT_APPROVED",
            ChangeError::NoWindow => "NO_WINDOW",
            ChangeError::Token(_) => "NO_RANDOM_BYTES",
            ChangeError::Store(_) | ChangeError::Undecided => reason::STORE_UNAVAILABLE,
            ChangeError::Stopping => reason::DRAINING,
        }
    }
}

/// The first of many names, for people.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, …") } else { shown }
}

/// What an audit row says of a change, beside who, when, from where, and what was before and after.
struct Note {
    action: &'static str,
    target: String,
    detail: serde_json::Value,
}

/// Makes changes. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Changes {
    store: Store,
    catalog: Arc<ArcSwap<Catalog>>,
    /// Its lock is the one-at-a-time of all changes.
    publisher: Arc<Mutex<Publisher>>,
    lists: Lists,
    fleet: Fleet,
    metrics: Arc<Metrics>,
    max_nodes: usize,
    clock: Clock,
    /// Rung if a commit panicked: what is in memory may then be behind the database.
    broken: Arc<Notify>,
    /// Whether what other servers change cannot be taken over.
    is_deaf: Arc<AtomicBool>,
    /// Tells of each revision that is in place.
    revisions: Arc<watch::Sender<u64>>,
    news: Arc<News>,
}

impl Changes {
    /// Begins with what the store loaded. A change that would make a list of more than `max_nodes` is refused.
    pub fn new(
        store: Store,
        catalog: Catalog,
        publisher: Publisher,
        fleet: Fleet,
        metrics: Arc<Metrics>,
        max_nodes: usize,
        clock: Clock,
    ) -> Changes {
        metrics.revision.set(catalog.revision.cast_signed());
        let lists = publisher.lists();
        let publisher = Arc::new(Mutex::new(publisher));
        let revisions = Arc::new(watch::Sender::new(catalog.revision));
        let catalog = Arc::new(ArcSwap::from_pointee(catalog));
        let (broken, is_deaf, news) = Default::default();
        Changes {
            store,
            catalog,
            publisher,
            lists,
            fleet,
            metrics,
            max_nodes,
            clock,
            broken,
            is_deaf,
            revisions,
            news,
        }
    }

    /// The present picture.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Tells of each new revision, once the picture shows it.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    /// Tells what each change changed, once the picture shows it.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// Waits until a change that is under way is done.
    pub async fn settled(&self) {
        drop(self.publisher.lock().await);
    }

    /// Waits for a commit that panicked. The server must then end, and load anew.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Makes one change: `decide` drafts it from the present picture and says what to note of it. If another server
    /// was quicker, it decides again, from the picture that came of that.
    ///
    /// A draft without changes commits nothing. Once the commit has begun it goes on to the end, also when the
    /// caller is gone: otherwise the database could be ahead of what is published.
    async fn apply<T: Send + 'static>(
        &self,
        actor: &Actor,
        mut decide: impl FnMut(&mut Draft<'_>) -> Result<(T, Note), ChangeError>,
    ) -> Result<T, ChangeError> {
        let mut publisher = Arc::clone(&self.publisher).lock_owned().await;
        if self.store.is_shared() {
            // An admin who changed something at another server a moment ago finds it here.
            publisher = self.take_over(publisher).await?;
        }
        for _ in 1..ATTEMPTS {
            let (back, conflict) = match self.attempt(publisher, actor, &mut decide).await? {
                Attempt::Made(value) => return Ok(value),
                Attempt::TooLate(back, conflict) => (back, conflict),
                Attempt::Undecided { value, publisher: back, revision, entry } => {
                    let (back, is_made) = self.find_out(back, revision, &entry).await?;
                    if is_made {
                        return Ok(value);
                    }
                    publisher = back;
                    continue;
                }
            };
            if !self.store.is_shared() {
                return Err(ChangeError::Store(conflict));
            }
            publisher = self.take_over(back).await?;
        }
        match self.attempt(publisher, actor, &mut decide).await? {
            Attempt::Made(value) => Ok(value),
            Attempt::TooLate(_, conflict) => Err(ChangeError::Store(conflict)),
            Attempt::Undecided { .. } => Err(ChangeError::Undecided),
        }
    }

    async fn attempt<T: Send + 'static>(
        &self,
        publisher: OwnedMutexGuard<Publisher>,
        actor: &Actor,
        decide: &mut impl FnMut(&mut Draft<'_>) -> Result<(T, Note), ChangeError>,
    ) -> Result<Attempt<T>, ChangeError> {
        let before = self.catalog.load_full();
        let at = self.clock.now();
        let mut draft = Draft::new(&before, at);
        let (value, note) = decide(&mut draft)?;
        if draft.is_empty() {
            return Ok(Attempt::Made(value));
        }
        let lists = draft.lists(&publisher, &self.lists, self.max_nodes)?;
        let leave = draft.leave();
        let (mut catalog, changes, concerned) = draft.finish();
        let changed = Changed::by(&changes);
        let mut detail = note.detail;
        described::differences(&before, &catalog, &changes).put(&mut detail);
        let commit = Commit {
            expected: before.revision,
            expected_hash: before.audit_hash.as_ref().to_owned(),
            revision: catalog.revision,
            changes,
            lists: lists.clone(),
            leave,
            audit: audit::Entry::new(at, actor, note.action, note.target, Outcome::Done, detail),
        };
        let (revision, entry) = (commit.revision, commit.audit.clone());
        let this = self.clone();
        let committing = tokio::spawn(async move {
            let timer = this.metrics.store_commit_seconds.clone();
            let begun = tokio::time::Instant::now();
            // While the disk is busy the lists are encoded.
            let encoding = async { lists.into_iter().map(|list| publisher.encode(list)).collect::<Vec<_>>() };
            let (committed, encoded) = tokio::join!(biased; this.store.commit(commit), encoding);
            match committed {
                Ok(audit_hash) => catalog.audit_hash = audit_hash.into(),
                Err(error @ (StoreError::Conflict(_) | StoreError::Undecided { .. })) => {
                    return Ok(Some((publisher, error)));
                }
                Err(error) => return Err(error),
            }
            timer.observe(begun.elapsed().as_secs_f64());
            this.put_in_place(publisher, encoded, catalog, concerned, changed).await;
            Ok(None)
        });
        match committing.await {
            Ok(Ok(None)) => Ok(Attempt::Made(value)),
            Ok(Ok(Some((publisher, StoreError::Undecided { .. })))) => {
                Ok(Attempt::Undecided { value, publisher, revision, entry })
            }
            Ok(Ok(Some((publisher, conflict)))) => Ok(Attempt::TooLate(publisher, conflict)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                self.broken.notify_one();
                Err(ChangeError::Stopping)
            }
        }
    }

    /// Shows what is committed: first the lists, then the catalog that needs them, then to those whom it concerns.
    async fn put_in_place(
        &self,
        mut publisher: OwnedMutexGuard<Publisher>,
        lists: Vec<Published>,
        catalog: Catalog,
        concerned: BTreeSet<Uuid>,
        mut changed: Changed,
    ) -> OwnedMutexGuard<Publisher> {
        for list in lists {
            changed.lists.insert(list.signed.scope);
            publisher.publish(list);
        }
        self.metrics.revision.set(catalog.revision.cast_signed());
        let (registry, epoch, revision) = (catalog.registry.clone(), catalog.epoch, catalog.revision);
        self.catalog.store(Arc::new(catalog));
        self.revisions.send_replace(revision);
        if self.news.is_followed() {
            let proxies = if changed.is_everything { BTreeSet::new() } else { concerned.clone() };
            self.news.tell(Changed { revision, proxies, ..changed });
        }
        for (count, proxy) in concerned.into_iter().enumerate() {
            self.fleet.ring(proxy);
            // A new epoch concerns all: the others have their turn in between.
            if count % RINGS_OF_A_TURN == RINGS_OF_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        self.fleet.tell_ahead(&registry, epoch);
        publisher
    }
}

/// How an attempt to make a change ended.
enum Attempt<T> {
    /// It is made.
    Made(T),
    /// Another server was quicker.
    TooLate(OwnedMutexGuard<Publisher>, StoreError),
    /// The connection was lost in the middle of its end.
    Undecided { value: T, publisher: OwnedMutexGuard<Publisher>, revision: u64, entry: audit::Entry },
}
