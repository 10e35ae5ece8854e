//! The engine on SQLite: one thread writes, one reads, each with its own connection.
//!
//! In: whole transactions, reports, questions. Out: answers, from the thread that did the work.
//! Always: reads never wait for writes; the threads end when the store is closed or its last handle is dropped.
//! Never: blocks whoever asks.

mod ahead;
mod audit;
mod catalog;
mod cell;
pub(super) mod check;
mod copy;
mod dictionary;
mod fault;
mod history;
mod lists;
mod pace;
mod retention;
mod schema;
mod sensors;
mod sessions;
mod statuses;
mod tasks;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use pulse_proto::{Clock, Node, Scope, SignedAllowlist};
use rusqlite::{Connection, Transaction};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use self::dictionary::Dictionary;
use self::fault::Result;
use self::pace::Pace;
use self::sessions::{Progress, Sessions};
use self::writer::{Queued, Request, Writer};
use super::{
    Ahead, Commit, Copied, ListChange, ListFound, Loaded, NodeReport, ProxyStatus, Recorded, Report,
    Retention, StoreError,
};
use crate::audit::{Entry, Row};

pub(super) use self::schema::lock;

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

/// A question to the thread that reads; it answers by itself.
type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// The handles of both threads. The fields are dropped in this order: first the queues, so that the threads end.
pub(super) struct Sqlite {
    path: PathBuf,
    /// `None` asks the thread to end.
    questions_tx: mpsc::Sender<Option<Question>>,
    requests_tx: mpsc::Sender<Request>,
    report_slots: Arc<Semaphore>,
    sessions: Sessions,
    is_writable: Arc<AtomicBool>,
    /// How long an answer takes to arrive, in a simulation.
    pace: Option<Pace>,
    _writer: JoinOnDrop,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens or makes the database and starts both threads. Blocks for as long as migrations take.
    pub(super) fn open(
        data_dir: &Path,
        retention: Retention,
        clock: Clock,
    ) -> std::result::Result<Sqlite, StoreError> {
        let lock = schema::lock(data_dir)?;
        let path = data_dir.join("pulse.db");
        let connection = schema::open_writer(&path, &clock)?;
        let dictionary = Dictionary::open(&connection);
        let dictionary = dictionary.map_err(|fault| fault.while_doing("open the database", &path))?;
        let mut reading = schema::open_reader(&path)?;

        let (questions_tx, mut questions_rx) = mpsc::channel::<Option<Question>>(MAX_REQUESTS);
        let reader = spawn("store-reader", move || {
            while let Some(Some(question)) = questions_rx.blocking_recv() {
                question(&mut reading);
            }
        })?;
        let is_writable = Arc::new(AtomicBool::new(true));
        let writable = Arc::clone(&is_writable);
        let (requests_tx, requests_rx) = mpsc::channel(MAX_REPORTS + MAX_REQUESTS);
        let sessions = Sessions::default();
        let writer = Writer {
            path: path.clone(),
            connection,
            dictionary,
            sessions: sessions.clone(),
            retention,
            clock,
            is_writable: writable,
            reader: Some(reader),
            lock,
        };
        let writer = JoinOnDrop(Some(spawn("store-writer", move || writer.run(requests_rx))?));
        let report_slots = Arc::new(Semaphore::new(MAX_REPORTS));
        Ok(Sqlite {
            path,
            questions_tx,
            requests_tx,
            report_slots,
            sessions,
            is_writable,
            pace: None,
            _writer: writer,
        })
    }

    pub(super) async fn load(&self) -> std::result::Result<Loaded, StoreError> {
        self.ask("load the database", |connection| {
            // One view of all tables.
            let view = connection.transaction()?;
            let fleet = catalog::fleet(&view)?;
            Ok(Loaded {
                server_id: fleet.server_id,
                epoch: fleet.epoch,
                revision: fleet.revision,
                signing_key: fleet.signing_key,
                instances: catalog::instances(&view)?,
                proxies: catalog::proxies(&view)?,
                tokens: catalog::tokens(&view)?,
                join_tokens: catalog::join_tokens(&view)?,
                join_windows: catalog::join_windows(&view)?,
                lists: lists::newest(&view)?,
                statuses: statuses::all(&view)?,
                ahead: ahead::all(&view)?,
                newest: history::newest(&view)?,
            })
        })
        .await
    }

    pub(super) async fn commit(&self, commit: Commit) -> std::result::Result<(), StoreError> {
        self.transact("commit a change", move |transaction, _| catalog::commit(transaction, &commit)).await
    }

    /// Puts a report into the queue.
    pub(super) async fn take(&self, report: Report) -> std::result::Result<Taken, StoreError> {
        let slot = Arc::clone(&self.report_slots).try_acquire_owned().map_err(|_| StoreError::Full)?;
        let waiting = MAX_REPORTS - self.report_slots.available_permits() - 1;
        let (key, sequence) = ((report.proxy, report.session), report.sequence);
        let known = self.sessions.take(&key, sequence);
        let is_double = known.map(|(_, taken)| sequence <= taken);
        let (answer_tx, taken) = match known {
            Some((durable_sequence, _)) if ANSWERED_AT_ONCE.contains(&waiting) && self.is_writable() => {
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
        self.transact("write what proxies last said", move |transaction, _| statuses::put(transaction, &all))
            .await
    }

    pub(super) async fn save_ahead(&self, all: Vec<Ahead>) -> std::result::Result<(), StoreError> {
        self.transact("write which proxies are ahead", move |transaction, _| ahead::put(transaction, &all))
            .await
    }

    pub(super) async fn append_audit(&self, entries: Vec<Entry>) -> std::result::Result<(), StoreError> {
        self.transact("write the audit log", move |transaction, _| {
            let revision = catalog::revision(transaction)?;
            audit::append(transaction, &entries, revision)
        })
        .await
    }

    pub(super) async fn audit_after(
        &self,
        after: u64,
        limit: u32,
    ) -> std::result::Result<Vec<Row>, StoreError> {
        self.ask("read the audit log", move |connection| audit::after(connection, after, limit)).await
    }

    pub(super) async fn audit_tail(&self, limit: u32) -> std::result::Result<Vec<Row>, StoreError> {
        self.ask("read the audit log", move |connection| audit::tail(connection, limit)).await
    }

    pub(super) async fn history(
        &self,
        instance: Uuid,
        node: &Node,
        since: SystemTime,
        limit: u32,
    ) -> std::result::Result<Vec<NodeReport>, StoreError> {
        let node = node.clone();
        self.ask("read the history of a node", move |connection| {
            // One view: no series is swept between a reading and its names.
            let view = connection.transaction()?;
            history::of_node(&view, instance, &node, since, limit)
        })
        .await
    }

    pub(super) async fn list_at(
        &self,
        scope: Scope,
        revision: u64,
    ) -> std::result::Result<Option<SignedAllowlist>, StoreError> {
        self.ask("read a list", move |connection| lists::at(connection, scope, revision)).await
    }

    pub(super) async fn list_of(
        &self,
        scope: Scope,
        revision: u64,
    ) -> std::result::Result<ListFound, StoreError> {
        self.ask("read a list", move |connection| lists::of(connection, scope, revision)).await
    }

    pub(super) async fn list_history(
        &self,
        scope: Option<Scope>,
        limit: u32,
    ) -> std::result::Result<Vec<ListChange>, StoreError> {
        self.ask("read the history of lists", move |connection| {
            let view = connection.transaction()?;
            lists::history(&view, scope, limit)
        })
        .await
    }

    /// Copies the database; dropping the future ends it.
    pub(super) async fn copy(&self, to: &Path) -> std::result::Result<Copied, StoreError> {
        copy::copy(self.path.clone(), to.to_owned()).await
    }

    pub(super) fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) -> std::result::Result<(), StoreError> {
        // If the thread has ended already, so much the better.
        let _ = self.questions_tx.send(None).await;
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
        work: impl FnOnce(&Transaction<'_>, &mut Dictionary) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let (answer_tx, answer_rx) = oneshot::channel();
        // Whoever asked may be gone when the answer comes; what was asked for is done all the same.
        let job = move |writer: &mut Writer| drop(answer_tx.send(writer.transact(work)));
        self.send(Request::Job(Box::new(job))).await?;
        let outcome = self.arrived(answer_rx).await?;
        outcome.map_err(|fault| fault.while_doing(doing, &self.path))
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

    /// Asks the thread that reads.
    async fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        question: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let (answer_tx, answer_rx) = oneshot::channel();
        let question = move |connection: &mut Connection| drop(answer_tx.send(question(connection)));
        let sent = self.questions_tx.send(Some(Box::new(question))).await;
        sent.map_err(|_| StoreError::Closed)?;
        let outcome = self.arrived(answer_rx).await?;
        outcome.map_err(|fault| fault.while_doing(doing, &self.path))
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
