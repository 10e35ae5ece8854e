//! The engine: one thread writes, others read, each with a connection of its own.
//!
//! In: whole transactions, reports, questions. Out: answers, from the thread that did the work.
//! Always: reads never wait for writes; the threads end when the store is closed or its last handle is dropped.
//! Never: blocks whoever asks, or knows which database it is.

pub(super) mod accounts;
pub(super) mod ahead;
pub(super) mod audit;
mod audit_log;
pub(super) mod catalog;
pub(super) mod check;
mod dictionary;
mod exchange;
pub(super) mod fault;
pub(super) mod history;
pub(super) mod instances;
mod leave;
pub(in crate::store) mod link;
pub(super) mod lists;
mod pace;
pub(super) mod polls;
mod retention;
pub(super) mod sealed;
mod sensors;
mod sessions;
pub(super) mod sql;
pub(super) mod statuses;
mod tasks;
mod writer;

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use pulse_proto::{Clock, Node, Scope, SignedAllowlist};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use self::dictionary::Dictionary;
use self::fault::Result;
use self::link::Link;
use self::pace::Pace;
use self::sessions::{Progress, Sessions};
use self::sql::Sql;
use self::writer::{Queued, Request, Writer};
use super::sealed::Sealing;
use super::{
    Ahead, Beat, Change, Commit, Copied, CredentialUse, Heard, Leave, ListChange, ListFound, Loaded, Newer,
    NodeReport, Others, PollStatus, ProxyStatus, Recorded, Report, Retention, SealingExchange, Stand,
    StoreError, postgres, sqlite,
};
use crate::audit::{Entry, Row};
use crate::config::secret_key;

/// The most reports that wait to be written.
const MAX_REPORTS: usize = 4_096;

/// With so many reports waiting, further ones are answered before they are on the disk. Fewer are there in a moment; with
/// more than these, whoever sends them is faster than the disk, and waits for it.
const ANSWERED_AT_ONCE: Range<usize> = 8..MAX_REPORTS / 2;

/// The longest that an answer waits for the disk.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The most other requests that wait; who comes then waits for a place.
const MAX_REQUESTS: usize = 256;

/// A report in the queue.
#[derive(Debug)]
pub(super) enum Taken {
    /// Its answer does not wait for the disk.
    Answered(Recorded),
    /// Its answer waits for the disk.
    Waits {
        /// What becomes of it.
        answer_rx: oneshot::Receiver<std::result::Result<Recorded, StoreError>>,
        /// Its session.
        key: sessions::Key,
        /// Whether it, or a later one, was taken before; `None`: its session is not known, the disk will tell.
        is_double: Option<bool>,
    },
}

impl Taken {
    /// Whether it is known that none like it was taken before.
    pub(super) fn is_new(&self) -> bool {
        match self {
            Taken::Answered(recorded) => !recorded.is_double,
            Taken::Waits { is_double, .. } => *is_double == Some(false),
        }
    }
}

/// A question to a thread that reads; it answers by itself.
type Question = Box<dyn FnOnce(&mut Link) + Send>;

/// How many threads read PostgreSQL: one that waits for an answer over the network holds up nobody else.
const READERS: usize = 4;

/// The handles of the threads. The fields are dropped in this order: first the queues, so that the threads end.
pub(super) struct Engine {
    /// The database, for people.
    name: Arc<str>,
    /// Where the file is, if it is one.
    file: Option<PathBuf>,
    shared: Option<Shared>,
    /// Under which secrets in the database are sealed.
    sealing: Arc<Sealing>,
    /// Whether others write to the database too.
    is_shared: bool,
    /// `None` asks one thread to end.
    questions_tx: mpsc::Sender<Option<Question>>,
    readers: usize,
    requests_tx: mpsc::Sender<Request>,
    report_slots: Arc<Semaphore>,
    sessions: Sessions,
    is_writable: Arc<AtomicBool>,
    /// How long an answer takes to arrive, in a simulation.
    pace: Option<Pace>,
    _writer: JoinOnDrop,
}

/// A database that is open.
struct Database {
    name: Arc<str>,
    file: Option<PathBuf>,
    shared: Option<Shared>,
    sealing: Sealing,
    writing: Link,
    reading: Vec<Link>,
}

/// What a server has that shares its database with others. The runtime goes last.
struct Shared {
    /// Which one it is.
    replica: Uuid,
    doorbell: postgres::Doorbell,
    _runtime: postgres::OwnRuntime,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens or makes the file and starts the threads. Blocks for as long as migrations take.
    pub(super) fn open_file(
        data_dir: &Path,
        secret_key: &Path,
        retention: Retention,
        clock: Clock,
    ) -> std::result::Result<Engine, StoreError> {
        let lock = sqlite::schema::lock(data_dir)?;
        let path = data_dir.join("pulse.db");
        let (writing, key) = sqlite::schema::open_writer(&path, secret_key, &clock)?;
        let (writing, sealing) = (Link::Sqlite(writing), Sealing::new(key, &secret_key::own(data_dir)));
        let reading = Link::Sqlite(sqlite::schema::open_reader(&path)?);
        let name = path.display().to_string().into();
        let reading = vec![reading];
        Engine::start(
            Database { name, file: Some(path), shared: None, sealing, writing, reading },
            retention,
            clock,
            lock,
        )
    }

    /// Connects to PostgreSQL and starts the threads. Blocks for as long as migrations take. `data_dir` is this server's own, and
    /// `secret_key` is the file of the key that all servers are given.
    pub(super) fn open_postgres(
        data_dir: &Path,
        address: postgres::Address,
        secret_key: &Path,
        retention: Retention,
        clock: Clock,
    ) -> std::result::Result<Engine, StoreError> {
        let lock = sqlite::schema::lock(data_dir)?;
        let name = Arc::clone(&address.name);
        let own_runtime = postgres::OwnRuntime::start().map_err(|error| StoreError::Database {
            doing: "start the runtime of the database's connections".to_owned(),
            source: error.into(),
        })?;
        let runtime = own_runtime.handle();
        let replica = Uuid::now_v7();
        let address = address.of_replica(replica);
        let doorbell = postgres::Doorbell::new(address.clone(), &runtime);
        let connect =
            || Link::Postgres(Box::new(postgres::Connection::new(address.clone(), runtime.clone())));
        let (writing, key) =
            postgres::schema::open_writer(address.clone(), runtime.clone(), secret_key, &clock)?;
        let readers = (0..READERS).map(|_| connect()).collect();
        let sealing = Sealing::new(key, &secret_key::own(data_dir));
        let shared = Some(Shared { replica, doorbell, _runtime: own_runtime });
        let writing = Link::Postgres(Box::new(writing));
        Engine::start(
            Database { name, file: None, shared, sealing, writing, reading: readers },
            retention,
            clock,
            lock,
        )
    }

    fn start(
        Database { name, file, shared, sealing, mut writing, reading }: Database,
        retention: Retention,
        clock: Clock,
        lock: File,
    ) -> std::result::Result<Engine, StoreError> {
        let dictionary = writing.view(|sql| Dictionary::open(sql));
        let dictionary = dictionary.map_err(|fault| fault.while_doing("open the database", &name))?;
        let (questions_tx, questions_rx) = mpsc::channel::<Option<Question>>(MAX_REQUESTS);
        let questions_rx = Arc::new(Mutex::new(questions_rx));
        let readers = reading.len();
        let threads = reading.into_iter().map(|mut link| {
            let questions_rx = Arc::clone(&questions_rx);
            // One of them waits for a question, and the others for their turn to do so.
            let next = move || questions_rx.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            spawn("store-reader", move || {
                while let Some(Some(question)) = next() {
                    question(&mut link);
                }
            })
        });
        let threads = threads.collect::<std::result::Result<_, _>>()?;
        let is_writable = Arc::new(AtomicBool::new(true));
        let (requests_tx, requests_rx) = mpsc::channel(MAX_REPORTS + MAX_REQUESTS);
        let sessions = Sessions::default();
        let writer = Writer {
            name: Arc::clone(&name),
            link: writing,
            dictionary,
            sessions: sessions.clone(),
            retention,
            clock,
            is_writable: Arc::clone(&is_writable),
            replica: shared.as_ref().map(|shared| shared.replica),
            readers: threads,
            lock,
        };
        let _writer = JoinOnDrop(Some(spawn("store-writer", move || writer.run(requests_rx))?));
        let (report_slots, pace) = (Arc::new(Semaphore::new(MAX_REPORTS)), None);
        Ok(Engine {
            name,
            file,
            is_shared: shared.is_some(),
            shared,
            sealing: Arc::new(sealing),
            questions_tx,
            readers,
            requests_tx,
            report_slots,
            sessions,
            is_writable,
            pace,
            _writer,
        })
    }

    pub(super) async fn load(&self) -> std::result::Result<Loaded, StoreError> {
        let key = self.sealing.key();
        self.ask("load the database", move |sql| {
            let fleet = catalog::fleet(sql)?;
            let signing_key = sealed::open_signing(&key, fleet.server_id, &fleet.signing_key)?;
            Ok(Loaded {
                server_id: fleet.server_id,
                epoch: fleet.epoch,
                revision: fleet.revision,
                signing_key,
                audit_hash: audit::hash_at(sql, fleet.revision)?,
                instances: instances::after(sql, catalog::EVERY)?,
                proxies: catalog::proxies(sql, catalog::EVERY)?,
                tokens: catalog::tokens(sql, catalog::EVERY)?,
                join_tokens: catalog::join_tokens(sql, catalog::EVERY)?,
                join_windows: catalog::join_windows(sql, catalog::EVERY)?,
                admins: accounts::admins(sql, catalog::EVERY)?,
                credentials: accounts::credentials(sql, catalog::EVERY)?,
                lists: lists::newest(sql)?,
                statuses: statuses::all(sql)?,
                ahead: ahead::all(sql)?,
                newest: history::newest(sql)?,
                polls: polls::all(sql)?,
            })
        })
        .await
    }

    pub(super) async fn commit(&self, commit: Commit) -> std::result::Result<String, StoreError> {
        let exchange = commit.changes.iter().find_map(|change| match change {
            Change::SealingKey(exchange) => Some(exchange.clone()),
            _ => None,
        });
        if let Some(exchange) = exchange {
            return self.commit_exchange(commit, exchange).await;
        }
        let sealing = Arc::clone(&self.sealing);
        // The key is looked at by the thread that exchanges it, too.
        self.transact("commit a change", move |sql, _| catalog::commit(sql, &commit, &sealing.key())).await
    }

    pub(super) async fn leave(
        &self,
        work: &'static str,
        life: Duration,
    ) -> std::result::Result<Option<Leave>, StoreError> {
        let Some(Shared { replica, .. }) = self.shared else { return Ok(Some(Leave::Alone)) };
        self.transact("take a lease", move |sql, _| leave::take(sql, work, replica, life)).await
    }

    pub(super) async fn save_polls(&self, polls: Vec<PollStatus>) -> std::result::Result<(), StoreError> {
        self.transact("save what became of asking Proxmox VE", move |sql, _| polls::put(sql, &polls)).await
    }

    pub(super) async fn save_uses(&self, uses: Vec<CredentialUse>) -> std::result::Result<(), StoreError> {
        self.transact("save when API tokens were used", move |sql, _| accounts::put_uses(sql, &uses)).await
    }

    pub(super) async fn uses(&self) -> std::result::Result<Vec<CredentialUse>, StoreError> {
        self.ask("read when API tokens were used", |sql| accounts::uses(sql)).await
    }

    pub(super) fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    pub(super) async fn prepare_exchange(
        &self,
        file: Option<PathBuf>,
    ) -> std::result::Result<SealingExchange, StoreError> {
        if let Some(Shared { replica, .. }) = self.shared {
            self.ask("ask for other servers", move |sql| postgres::replicas::alone(sql, replica)).await?;
        }
        Ok(self.sealing.prepare(file).await?)
    }

    pub(super) async fn newer(&self, held: Stand) -> std::result::Result<Option<Newer>, StoreError> {
        let sealing = Arc::clone(&self.sealing);
        self.ask("read what others changed", move |sql| {
            let newer = catalog::newer(sql, &held)?;
            if newer.is_some() {
                // Nothing is to be sealed under a key that is not the database's any more.
                sealing.verify(&catalog::fleet(sql)?)?;
            }
            Ok(newer)
        })
        .await
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(super) async fn rung(&self) {
        match &self.shared {
            Some(shared) => shared.doorbell.rung().await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn others(&self, since: i64) -> std::result::Result<Others, StoreError> {
        let replica = self.shared.as_ref().map_or(Uuid::nil(), |shared| shared.replica);
        self.ask("read what other servers know", move |sql| postgres::others::others(sql, replica, since))
            .await
    }

    pub(super) async fn save_streams(
        &self,
        streams: Vec<(Uuid, Option<Duration>)>,
    ) -> std::result::Result<(), StoreError> {
        let Some(Shared { replica, .. }) = self.shared else { return Ok(()) };
        self.transact("tell which proxies are connected", move |sql, _| {
            postgres::others::put_streams(sql, replica, &streams)
        })
        .await
    }

    pub(super) async fn beat(&self, beat: Beat) -> std::result::Result<Heard, StoreError> {
        let Some(Shared { replica, .. }) = self.shared else { return Ok(Heard::default()) };
        self.transact("tell the other servers", move |sql, _| {
            let replicas = postgres::replicas::beat(sql, replica, &beat)?;
            let taken = postgres::others::taken(sql, replica)?;
            Ok(Heard { replicas, taken, revision: catalog::revision(sql)? })
        })
        .await
    }

    /// Puts a report into the queue.
    pub(super) async fn take(&self, report: Report) -> std::result::Result<Taken, StoreError> {
        let slot = Arc::clone(&self.report_slots).try_acquire_owned().map_err(|_| StoreError::Full)?;
        let waiting = MAX_REPORTS - self.report_slots.available_permits() - 1;
        let (key, sequence) = ((report.proxy, report.session), report.sequence);
        let known = self.sessions.take(&key, sequence);
        let is_double = known.map(|(_, taken)| sequence <= taken);
        let (answer_tx, taken) = match known {
            Some((durable_sequence, taken))
                if ANSWERED_AT_ONCE.contains(&waiting)
                    && self.is_writable()
                    // One before it may have been lost with another server.
                    && !(self.is_shared && sequence > durable_sequence.max(taken).saturating_add(1)) =>
            {
                let is_double = is_double.unwrap_or_default();
                (None, Taken::Answered(Recorded { durable_sequence, is_double }))
            }
            _ => {
                let (answer_tx, answer_rx) = oneshot::channel();
                (Some(answer_tx), Taken::Waits { answer_rx, key, is_double })
            }
        };
        self.send(Request::Report(Queued { report, answer_tx, slot })).await?;
        Ok(taken)
    }

    /// Waits for a report to be on the disk, but not for long, and not if many wait.
    pub(super) async fn stored(&self, taken: Taken) -> std::result::Result<Recorded, StoreError> {
        let (answer_rx, key, is_double) = match taken {
            Taken::Answered(recorded) => return Ok(recorded),
            Taken::Waits { answer_rx, key, is_double } => (answer_rx, key, is_double),
        };
        match timeout(LONGEST_WAIT, self.arrived(answer_rx)).await {
            Ok(answer) => answer?,
            // It waits still, and is stored when the disk comes to it.
            Err(_) => {
                let durable_sequence = self.sessions.of(&key).map_or(0, Progress::durable);
                Ok(Recorded { durable_sequence, is_double: is_double.unwrap_or_default() })
            }
        }
    }

    pub(super) async fn save_statuses(&self, all: Vec<ProxyStatus>) -> std::result::Result<(), StoreError> {
        self.transact("write what proxies last said", move |sql, _| statuses::put(sql, &all)).await
    }

    pub(super) async fn save_ahead(&self, all: Vec<Ahead>) -> std::result::Result<(), StoreError> {
        self.transact("write which proxies are ahead", move |sql, _| {
            ahead::put(sql, &all)?;
            // Other servers must not push to them either.
            sql.ring(catalog::revision(sql)?)
        })
        .await
    }

    pub(super) async fn ahead(&self) -> std::result::Result<Vec<Ahead>, StoreError> {
        self.ask("read which proxies are ahead", |sql| ahead::all(sql)).await
    }

    pub(super) async fn audit_of(&self, revision: u64) -> std::result::Result<Option<Row>, StoreError> {
        self.ask("read the audit log", move |sql| audit::of(sql, revision)).await
    }

    pub(super) async fn wait_for_change(&self) -> std::result::Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        self.transact("wait for a change that is under way", |sql, _| {
            // Whoever commits a change holds this row to the end of the transaction.
            sql.query("SELECT id FROM fleet FOR UPDATE", &[], &mut |_| Ok(()))
        })
        .await
    }

    pub(super) async fn append_audit(&self, entries: Vec<Entry>) -> std::result::Result<(), StoreError> {
        let sealing = Arc::clone(&self.sealing);
        self.transact("write the audit log", move |sql, _| {
            audit::append(sql, &sealing.key(), &entries, None).map(drop)
        })
        .await
    }

    pub(super) async fn note_restore(&self, mut entry: Entry) -> std::result::Result<(), StoreError> {
        let sealing = Arc::clone(&self.sealing);
        self.transact("note the restore", move |sql, _| {
            entry.detail["log_ins_ended"] = serde_json::json!(accounts::end_log_ins(sql, entry.at_ms)?);
            audit::append(sql, &sealing.key(), &[entry], None).map(drop)
        })
        .await
    }

    pub(super) async fn audit_after(
        &self,
        after: u64,
        limit: u32,
    ) -> std::result::Result<Vec<Row>, StoreError> {
        self.ask("read the audit log", move |sql| audit::after(sql, after, limit)).await
    }

    pub(super) async fn audit_tail(&self, limit: u32) -> std::result::Result<Vec<Row>, StoreError> {
        self.ask("read the audit log", move |sql| audit::tail(sql, limit)).await
    }

    pub(super) async fn history(
        &self,
        instance: Uuid,
        node: &Node,
        since: SystemTime,
        limit: u32,
    ) -> std::result::Result<Vec<NodeReport>, StoreError> {
        let node = node.clone();
        self.ask("read the history of a node", move |sql| {
            history::of_node(sql, instance, &node, since, limit)
        })
        .await
    }

    pub(super) async fn list_at(
        &self,
        scope: Scope,
        revision: u64,
    ) -> std::result::Result<Option<SignedAllowlist>, StoreError> {
        self.ask("read a list", move |sql| lists::at(sql, scope, revision)).await
    }

    pub(super) async fn list_of(
        &self,
        scope: Scope,
        revision: u64,
    ) -> std::result::Result<ListFound, StoreError> {
        self.ask("read a list", move |sql| lists::of(sql, scope, revision)).await
    }

    pub(super) async fn list_history(
        &self,
        scope: Option<Scope>,
        limit: u32,
    ) -> std::result::Result<Vec<ListChange>, StoreError> {
        self.ask("read the history of lists", move |sql| lists::history(sql, scope, limit)).await
    }

    /// Copies the database; dropping the future ends it.
    pub(super) async fn copy(&self, to: &Path) -> std::result::Result<Copied, StoreError> {
        match &self.file {
            Some(file) => sqlite::copy::copy(file.clone(), to.to_owned()).await,
            None => Err(StoreError::NoFile),
        }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) -> std::result::Result<(), StoreError> {
        if let Some(Shared { replica, .. }) = self.shared {
            // The others notice by themselves if it cannot be said.
            let leaving = self
                .transact("tell the other servers", move |sql, _| postgres::replicas::leave(sql, replica));
            if !matches!(timeout(LONGEST_WAIT, leaving).await, Ok(Ok(()))) {
                tracing::debug!("the other servers were not told that this one ends");
            }
        }
        // If the thread has ended already, so much the better.
        for _ in 0..self.readers {
            let _ = self.questions_tx.send(None).await;
        }
        let (closed_tx, closed_rx) = oneshot::channel();
        match self.send(Request::Close(closed_tx)).await {
            // It was closed before.
            Err(_) => Ok(()),
            Ok(()) => closed_rx.await.map_err(|_| StoreError::Closed)?,
        }
    }

    /// Has the writer run one transaction.
    async fn transact<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&dyn Sql, &mut Dictionary) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let (answer_tx, answer_rx) = oneshot::channel();
        // Whoever asked may be gone when the answer comes; what was asked for is done all the same.
        let job = move |writer: &mut Writer| drop(answer_tx.send(writer.transact(work)));
        self.send(Request::Job(Box::new(job))).await?;
        let outcome = self.arrived(answer_rx).await?;
        outcome.map_err(|fault| fault.while_doing(doing, &self.name))
    }

    /// Waits for an answer.
    async fn arrived<T>(&self, answer_rx: oneshot::Receiver<T>) -> std::result::Result<T, StoreError> {
        let answer = answer_rx.await.map_err(|_| StoreError::Closed)?;
        if let Some(pace) = &self.pace {
            pace.wait().await;
        }
        Ok(answer)
    }

    async fn send(&self, request: Request) -> std::result::Result<(), StoreError> {
        self.requests_tx.send(request).await.map_err(|_| StoreError::Closed)
    }

    /// Asks a thread that reads.
    async fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        question: impl FnOnce(&dyn Sql) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let (answer_tx, answer_rx) = oneshot::channel();
        // On one view, so that what is read in several steps fits together.
        let question = move |link: &mut Link| drop(answer_tx.send(link.view(question)));
        let sent = self.questions_tx.send(Some(Box::new(question))).await;
        sent.map_err(|_| StoreError::Closed)?;
        let outcome = self.arrived(answer_rx).await?;
        outcome.map_err(|fault| fault.while_doing(doing, &self.name))
    }
}

fn spawn(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> std::result::Result<JoinHandle<()>, StoreError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| StoreError::Database {
        doing: format!("start the thread {name}"),
        source: error.into(),
    })
}

/// Waits for the writer to end, so that whoever dropped the store may open it again.
struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}
