//! The one place that touches a database.
//!
//! In: whole changes, reports, what proxies last said. Out: all of it, at start; history, on demand.
//! Always: a change, its lists and its audit row are one transaction, and it commits only if nobody committed
//! since the catalog it was decided on; a report is taken once. Never: decides anything.
//!
//! The engine works on SQLite (`sqlite`) or PostgreSQL (`postgres`). Nothing outside this module knows which.

mod checked;
mod engine;
mod files;
mod others;
mod past;
mod postgres;
mod sealed;
mod sqlite;
mod status;
mod transfer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulse_proto::{Chance, Clock, Node, Scope, SignedAllowlist, TokenDigest};
use uuid::Uuid;

use self::engine::Engine;
use crate::accounts::{Admin, Credential};
use crate::audit;
use crate::config;
use crate::inventory::Instance;
use crate::registry::{CtrlToken, JoinToken, JoinWindow, Proxy};
use crate::report::{NodeReport, Report};
use crate::sealing::SealingError;

pub use checked::{Checked, Finding};
pub use files::{Copied, DataLock, DatabaseCopy};
pub use others::{Beat, GONE, Heard, Newer, Others, OthersStream, Replica, Stand};
pub use past::{ListChange, ListFound};
pub use postgres::{check as check_shared, share_authority};
pub use sealed::SealingExchange;
pub use status::{Ahead, CredentialUse, KeptList, Mark, PollStatus, ProxyStatus};
pub use transfer::{KeyFiles, Transferred, transfer};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened, read or written. `doing` says what was tried, on which file.
    #[error("{doing}")]
    Database {
        /// What was tried, and on which file.
        doing: String,
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server or a restore works on the data folder.
    #[error(
        "another pulse server, or a restore, has the data folder {}: stop it first, or use another folder \
         ({} is locked)", data_dir.display(), lock.display()
    )]
    InUse {
        /// The data folder.
        data_dir: PathBuf,
        /// The file that is locked.
        lock: PathBuf,
    },
    /// The database holds something that this version cannot read; names the table and the row.
    #[error("the database is damaged or of a newer version: {0}")]
    Unreadable(String),
    /// Somebody committed since the catalog was read: read it again and decide anew.
    #[error("the fleet is at revision {0} by now")]
    Conflict(u64),
    /// The database is not the one that this server wrote to, or lost what was committed there last: it was put back from an
    /// older copy, or another machine took over that had not got everything.
    #[error(
        "the database is older than the fleet: it is at revision {revision}, and its history is not the one that this server \
         has served"
    )]
    OtherHistory {
        /// The revision of the database.
        revision: u64,
    },
    /// Another server does this work by now: this one was silent for too long.
    #[error("{doing}: another server does that by now")]
    LeaseLost {
        /// What was tried.
        doing: String,
    },
    /// The connection was lost in the middle of a transaction's end.
    #[error(
        "{doing}: the connection to the database was lost in the middle, so it is not known whether that was done"
    )]
    Undecided {
        /// What was tried.
        doing: String,
    },
    /// So much waits to be written that no more is taken.
    #[error("the store's queue is full")]
    Full,
    /// The report comes behind a gap in its session, and what is missing may have been answered before the server was
    /// killed: it is taken when it comes again, after those before it if they are still there.
    #[error("reports before this one are missing")]
    BehindGap,
    /// The database is no file: PostgreSQL has tools of its own for what was asked.
    #[error("the database is on PostgreSQL: use `pg_dump` and its like")]
    NoFile,
    /// The key under which secrets are sealed cannot be had, or is another one.
    #[error(transparent)]
    Sealed(#[from] SealingError),
    /// Other servers have the key that is to be exchanged.
    #[error(
        "other servers on this database have the key too ({0}): stop them, rotate it, give each the new secret.key, and start them;          one that was killed counts for {gone} s more", gone = GONE.as_secs()
    )]
    OtherServers(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// What a row of the catalog becomes.
#[derive(Clone, Debug)]
pub enum Change {
    /// This instance, new or changed.
    Instance(Arc<Instance>),
    /// This proxy, new or changed.
    Proxy(Arc<Proxy>),
    /// This ctrl token, new or of another standing.
    Token(CtrlToken),
    /// This ctrl token is forgotten.
    DropToken(TokenDigest),
    /// This join token, new or changed.
    JoinToken(Arc<JoinToken>),
    /// A new epoch of the fleet begins.
    Epoch(u64),
    /// This join window, new or changed.
    JoinWindow(Arc<JoinWindow>),
    /// This admin, new or changed.
    Admin(Arc<Admin>),
    /// This credential, new or changed.
    Credential(Arc<Credential>),
    /// Everything that is sealed, under another key.
    SealingKey(SealingExchange),
}

/// One change of the fleet: one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The revision on which it was decided.
    pub expected: u64,
    /// The hash of the audit row that made that revision; empty: none did.
    pub expected_hash: String,
    /// The revision that it makes: `expected` + 1.
    pub revision: u64,
    /// The rows.
    pub changes: Vec<Change>,
    /// The lists that are new with it.
    pub lists: Vec<Arc<SignedAllowlist>>,
    /// Leave to make it: without it, nothing is written.
    pub leave: Leave,
    /// Its audit row.
    pub audit: audit::Entry,
}

/// Leave to do work that one server at a time does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// No other server is there.
    Alone,
    /// A lease; it may have ended since.
    Lease {
        /// Which work.
        work: &'static str,
        /// The server that has it.
        replica: Uuid,
        /// Its number, which rises with each new holder.
        fence: i64,
    },
}

/// All that a server keeps in memory, as the database has it.
pub struct Loaded {
    /// The identity of the database; made with it.
    pub server_id: Uuid,
    /// Unix milliseconds at the creation of the database.
    pub epoch: u64,
    /// The fleet's revision.
    pub revision: u64,
    /// The hash of the audit row that made it. Empty: none did.
    pub audit_hash: String,
    /// PKCS #8 document of the key that signs lists; made with the database.
    pub signing_key: Vec<u8>,
    /// Every instance, removed ones too.
    pub instances: Vec<Instance>,
    /// Every proxy, removed ones too.
    pub proxies: Vec<Proxy>,
    /// Every ctrl token.
    pub tokens: Vec<CtrlToken>,
    /// Every join token.
    pub join_tokens: Vec<JoinToken>,
    /// Every join window, the newest last.
    pub join_windows: Vec<JoinWindow>,
    /// Admins.
    pub admins: Vec<Admin>,
    /// What lets admins and programs in.
    pub credentials: Vec<Credential>,
    /// The newest list of each scope.
    pub lists: Vec<SignedAllowlist>,
    /// What each proxy last said.
    pub statuses: Vec<ProxyStatus>,
    /// Proxies that hold a list which this database never made.
    pub ahead: Vec<Ahead>,
    /// The newest report of each node.
    pub newest: Vec<NodeReport>,
    /// What became of asking Proxmox VE.
    pub polls: Vec<PollStatus>,
}

/// Shows how much there is, and nothing of the signing key.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("server_id", &self.server_id)
            .field("epoch", &self.epoch)
            .field("revision", &self.revision)
            .field("instances", &self.instances.len())
            .field("proxies", &self.proxies.len())
            .field("tokens", &self.tokens.len())
            .field("join_tokens", &self.join_tokens.len())
            .field("lists", &self.lists.len())
            .field("statuses", &self.statuses.len())
            .field("newest", &self.newest.len())
            .finish_non_exhaustive()
    }
}

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The session's highest sequence that is known to be on disk; lower than the report's own if that waits still.
    pub durable_sequence: u64,
    /// Whether the report was taken before.
    pub is_double: bool,
}

/// A report that the store has taken and may not have written yet.
#[derive(Debug)]
pub struct Taken(engine::Taken);

impl Taken {
    /// Whether it is known that none like it was taken before. If it is not, [`Recorded::is_double`] tells.
    pub fn is_new(&self) -> bool {
        self.0.is_new()
    }
}

/// How much history of readings is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// The size of the whole database, in bytes, above which the oldest readings go. Lists and audit rows count too.
    pub max_bytes: u64,
    /// The longest that a reading is kept.
    pub max_age: Duration,
}

/// The store. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Arc<Engine>,
}

impl Store {
    /// Opens the database `pulse.db` in the data folder, makes it if it is not there, and brings it up to date. Its secrets are
    /// sealed under `secret.key` there.
    ///
    /// The folder is there already; a new database gets its identity and its signing key here.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it cannot be opened or written; [`StoreError::InUse`] if another server has it;
    /// [`StoreError::Unreadable`] if it is of a newer version; [`StoreError::Sealed`] if its key is not there, or another one.
    pub async fn open(data_dir: &Path, retention: Retention, clock: Clock) -> Result<Store, StoreError> {
        Store::open_with(data_dir, &config::secret_key::own(data_dir), retention, clock).await
    }

    /// As [`Store::open`], with the key in this file.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(
        data_dir: &Path,
        secret_key: &Path,
        retention: Retention,
        clock: Clock,
    ) -> Result<Store, StoreError> {
        let (data_dir, secret_key) = (data_dir.to_owned(), secret_key.to_owned());
        let opened =
            tokio::task::spawn_blocking(move || Engine::open_file(&data_dir, &secret_key, retention, clock));
        let engine = opened.await.map_err(|_| StoreError::Closed)??;
        Ok(Store { engine: Arc::new(engine) })
    }

    /// Connects to the database on PostgreSQL, makes its tables if they are not there, and brings them up to date. The data
    /// folder is this server's own still. Its secrets are sealed under the key in this file, which every server on it has.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn connect(
        data_dir: &Path,
        database: &config::Database,
        secret_key: &Path,
        retention: Retention,
        clock: Clock,
    ) -> Result<Store, StoreError> {
        let address = postgres::Address::of(database)?;
        let (data_dir, secret_key) = (data_dir.to_owned(), secret_key.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            Engine::open_postgres(&data_dir, address, &secret_key, retention, clock)
        });
        let opened = opened.await;
        let engine = opened.map_err(|_| StoreError::Closed)??;
        Ok(Store { engine: Arc::new(engine) })
    }

    /// As [`Store::open`], for simulations: the work is done by tasks of the runtime around it, in the order in which it is
    /// asked for, `chance` says how long it takes, and nothing is flushed to the disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in_tasks(
        data_dir: &Path,
        retention: Retention,
        clock: Clock,
        chance: Chance,
    ) -> Result<Store, StoreError> {
        let engine = Engine::open_in_tasks(data_dir, data_dir, retention, clock, chance)?;
        Ok(Store { engine: Arc::new(engine) })
    }

    /// As [`Store::open_in_tasks`], of one of several servers: the database is in a folder that they share, and each has one of
    /// its own. No bell rings.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in_tasks_beside(
        data_dir: &Path,
        database_dir: &Path,
        retention: Retention,
        clock: Clock,
        chance: Chance,
    ) -> Result<Store, StoreError> {
        let engine = Engine::open_in_tasks(data_dir, database_dir, retention, clock, chance)?;
        Ok(Store { engine: Arc::new(engine) })
    }

    /// Everything that a server keeps in memory.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        self.engine.load().await
    }

    /// Commits one change: rows, lists, revision and audit row in one transaction. Out: the hash of its audit row.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the revision is not `expected`; then nothing is written.
    pub async fn commit(&self, commit: Commit) -> Result<String, StoreError> {
        self.engine.commit(commit).await
    }

    /// Leave to do some work, for so long: taken, or renewed. `None`: another server does it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn leave(&self, work: &'static str, life: Duration) -> Result<Option<Leave>, StoreError> {
        self.engine.leave(work, life).await
    }

    /// Writes what became of asking Proxmox VE.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn save_polls(&self, polls: Vec<PollStatus>) -> Result<(), StoreError> {
        self.engine.save_polls(polls).await
    }

    /// Writes when credentials were used last, and from where.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn save_uses(&self, uses: Vec<CredentialUse>) -> Result<(), StoreError> {
        self.engine.save_uses(uses).await
    }

    /// When credentials were used last, as far as it is written.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn uses(&self) -> Result<Vec<CredentialUse>, StoreError> {
        self.engine.uses().await
    }

    /// Seals a secret for its place, which [`Store::place_of`] gives. Asked where a change is decided, so that no exchange of the key
    /// comes between that and its commit.
    ///
    /// # Errors
    /// [`StoreError::Sealed`].
    pub fn seal(&self, place: &str, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.engine.sealing().key().seal(place, secret)?)
    }

    /// Opens what was sealed for a place.
    ///
    /// # Errors
    /// [`StoreError::Sealed`].
    pub fn open_sealed(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.engine.sealing().key().open_sealed(place, sealed)?)
    }

    /// Where a secret belongs: a column of a row, by the row's key, of a table of this fleet.
    #[must_use]
    pub fn place_of(table: &str, column: &str, fleet: Uuid, key: impl fmt::Display) -> String {
        engine::sealed::place_in(table, column, fleet, key)
    }

    /// Prepares an exchange of the sealing key, once those before it are over. The change that commits it is
    /// [`Change::SealingKey`]. `new_key_file` has the new key, where that is not the server's own to make.
    ///
    /// # Errors
    /// [`StoreError::Sealed`], [`StoreError::OtherServers`].
    pub async fn exchange_key(&self, new_key_file: Option<PathBuf>) -> Result<SealingExchange, StoreError> {
        self.engine.prepare_exchange(new_key_file).await
    }

    /// Whether the new key of an exchange is the one in force.
    #[must_use]
    pub fn is_in_force(&self, exchange: &SealingExchange) -> bool {
        self.engine.sealing().key().is_same(&exchange.to)
    }

    /// The file of the sealing key, if it is elsewhere than in the data folder: then no backup has it.
    #[must_use]
    pub fn key_elsewhere(&self) -> Option<PathBuf> {
        self.engine.sealing().elsewhere()
    }

    /// What others changed since somebody read the database, as it is at one moment. `None`: nothing.
    ///
    /// # Errors
    /// [`StoreError::OtherHistory`] if the database does not go on from there.
    pub async fn newer(&self, held: Stand) -> Result<Option<Newer>, StoreError> {
        self.engine.newer(held).await
    }

    /// Waits for the end of a change that is being committed, where others can see the database.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn wait_for_change(&self) -> Result<(), StoreError> {
        self.engine.wait_for_change().await
    }

    /// Whether other servers work on the database too.
    pub fn is_shared(&self) -> bool {
        self.engine.is_shared()
    }

    /// Waits until another server may have changed something. Rings can be lost, and there may be nothing new.
    pub async fn rung(&self) {
        self.engine.rung().await;
    }

    /// What other servers wrote of proxies and temperatures. `since` is where the look before ended; 0: everything.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn others(&self, since: i64) -> Result<Others, StoreError> {
        self.engine.others(since).await
    }

    /// Tells other servers which proxies have a stream with this one and for how long, and which have none any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn save_streams(&self, streams: Vec<(Uuid, Option<Duration>)>) -> Result<(), StoreError> {
        self.engine.save_streams(streams).await
    }

    /// The proxies that are ahead, as any server noticed.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn ahead(&self) -> Result<Vec<Ahead>, StoreError> {
        self.engine.ahead().await
    }

    /// The audit row of the change that made this revision.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn audit_of(&self, revision: u64) -> Result<Option<audit::Row>, StoreError> {
        self.engine.audit_of(revision).await
    }

    /// Says to the other servers on the database that this one is there. Out: all of them, this one first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn beat(&self, beat: Beat) -> Result<Heard, StoreError> {
        self.engine.beat(beat).await
    }

    /// Takes a report, which is then stored in one transaction with others that wait. It stays in the queue until it is
    /// stored, also when the disk fails meanwhile; only the end of the process loses it.
    ///
    /// # Errors
    /// [`StoreError::Full`] if too many wait already.
    pub async fn take(&self, report: Report) -> Result<Taken, StoreError> {
        self.engine.take(report).await.map(Taken)
    }

    /// Waits until a report is on disk; less if that takes long or many wait: what is on disk is what
    /// [`Recorded::durable_sequence`] says.
    ///
    /// # Errors
    /// [`StoreError::BehindGap`]; [`StoreError::Database`] if it could not be written yet.
    pub async fn stored(&self, taken: Taken) -> Result<Recorded, StoreError> {
        self.engine.stored(taken.0).await
    }

    /// [`Store::take`] and [`Store::stored`].
    ///
    /// # Errors
    /// As those.
    pub async fn record(&self, report: Report) -> Result<Recorded, StoreError> {
        let taken = self.take(report).await?;
        self.stored(taken).await
    }

    /// Writes what proxies last said.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn save_statuses(&self, statuses: Vec<ProxyStatus>) -> Result<(), StoreError> {
        self.engine.save_statuses(statuses).await
    }

    /// Writes which proxies hold a list that this database never made.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn save_ahead(&self, ahead: Vec<Ahead>) -> Result<(), StoreError> {
        self.engine.save_ahead(ahead).await
    }

    /// Appends audit rows that belong to no change: refusals.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn append_audit(&self, entries: Vec<audit::Entry>) -> Result<(), StoreError> {
        self.engine.append_audit(entries).await
    }

    /// Notes that a backup was put back, and ends the log-ins and one-time links that are in it: some were ended or used since.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn note_restore(&self, entry: audit::Entry) -> Result<(), StoreError> {
        self.engine.note_restore(entry).await
    }

    /// Audit rows behind `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn audit_after(&self, after: u64, limit: u32) -> Result<Vec<audit::Row>, StoreError> {
        self.engine.audit_after(after, limit).await
    }

    /// The newest `limit` audit rows, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn audit_tail(&self, limit: u32) -> Result<Vec<audit::Row>, StoreError> {
        self.engine.audit_tail(limit).await
    }

    /// Verifies the audit log: its chain from its first row to its end, and the seal of both. `expected` is a row that was noted
    /// elsewhere, which the log must have still. Nobody waits for it meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`]: it cannot be read.
    pub async fn audit_verify(
        &self,
        expected: Option<audit::Point>,
    ) -> Result<audit::verify::Verdict, StoreError> {
        self.engine.audit_verify(expected).await
    }

    /// Where the audit log begins and ends, and of which fleet it is.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn audit_ends(&self) -> Result<(Uuid, audit::Ends), StoreError> {
        self.engine.audit_ends().await
    }

    /// Takes away a batch of the oldest audit rows that need not be kept, if they are as they were written. `leave` is leave to do
    /// so; `began`: a batch was taken away before this one. Out: whether there may be more.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] if they are not as they were written; [`StoreError::Database`], [`StoreError::LeaseLost`].
    pub async fn prune_audit(
        &self,
        keep: config::AuditRetention,
        now: SystemTime,
        leave: Leave,
        began: bool,
    ) -> Result<bool, StoreError> {
        self.engine.prune_audit(keep, now, leave, began).await
    }

    /// The history of one node from `since` on, oldest first, at most `limit` reports.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn history(
        &self,
        instance: Uuid,
        node: &Node,
        since: SystemTime,
        limit: u32,
    ) -> Result<Vec<NodeReport>, StoreError> {
        self.engine.history(instance, node, since, limit).await
    }

    /// The list of a scope at a revision: the newest that is not newer.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn list_at(&self, scope: Scope, revision: u64) -> Result<Option<SignedAllowlist>, StoreError> {
        self.engine.list_at(scope, revision).await
    }

    /// The list of a scope that was made at exactly this revision, or the revisions of the lists around it.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn list_of(&self, scope: Scope, revision: u64) -> Result<ListFound, StoreError> {
        self.engine.list_of(scope, revision).await
    }

    /// How the lists of a scope, or of all, came about: the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn list_history(
        &self,
        scope: Option<Scope>,
        limit: u32,
    ) -> Result<Vec<ListChange>, StoreError> {
        self.engine.list_history(scope, limit).await
    }

    /// Copies the database, as it is at one moment, to a file that is not there yet, and checks the copy. Neither reads nor
    /// writes wait for it. Dropping the future ends the work and removes the file.
    ///
    /// # Errors
    /// [`StoreError::Database`] if there is no room or a file cannot be written, [`StoreError::Unreadable`] if the
    /// database is damaged.
    pub async fn copy(&self, to: &Path) -> Result<Copied, StoreError> {
        self.engine.copy(to).await
    }

    /// Whether the last write succeeded.
    pub fn is_writable(&self) -> bool {
        self.engine.is_writable()
    }

    /// Writes what waits, and closes the database.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.engine.close().await
    }
}

/// Checks a database: the file's integrity, references, the audit chain, every list's hash and signature, and whether
/// all that a server loads can be read. `secret_key` is the file of the key under which its secrets are sealed. Only reads, so
/// that a server may run meanwhile. Blocks for as long as it takes to read the file.
///
/// # Errors
/// [`StoreError`] if the file cannot be opened, or is no database of Pulse, or of a newer version, or its key is not there.
pub fn check(path: &Path, secret_key: &Path) -> Result<Checked, StoreError> {
    sqlite::check::check(path, secret_key)
}
