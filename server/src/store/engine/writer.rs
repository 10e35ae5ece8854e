//! The one writer: a thread that owns the connection that writes.
//!
//! In: transactions and reports, from a bounded queue. Out: an answer to each, once it is on disk.
//! Always: reports that wait are stored in one transaction, in the order in which they came; other transactions go before
//! them, each alone. An error of the disk ends a transaction, never the thread. Reports that could not be stored stay
//! where they are and are tried again, as some of them may have been answered: nothing behind them is stored before them.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pulse_proto::Clock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::dictionary::Dictionary;
use super::fault::Result;
use super::link::Link;
use super::pace::Pace;
use super::retention::Batch;
use super::sessions::{Place, Sessions};
use super::sql::{Sql, millis};
use super::{history, leave, retention};
use crate::report::Report;
use crate::store::{Leave, Recorded, Retention, StoreError};

/// The most reports in one transaction. It bounds how long a commit waits for the transaction under way: of 30
/// values each they take some 5 ms; and a disk that flushes 100 times a second still takes 50,000 reports.
const MAX_GROUP: usize = 512;

/// With so many reports in a group more are on their way, and their senders are not waiting for the disk.
const MANY: usize = 8;

/// How long reports gather then before the next group: a transaction costs some 100 µs by itself, so a few at a time are dear.
/// Looked at in steps, as a change does not wait for them.
const GATHERING: Duration = Duration::from_millis(2);
const GATHERING_STEPS: u32 = 4;

/// How long to wait before reports that could not be stored are tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How often to look for readings that are too old or too much.
const TRIM_INTERVAL: Duration = Duration::from_mins(1);

/// How often to look for sessions and series that nothing needs any more.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// What the writer is asked for.
pub(in crate::store) enum Request {
    /// To run one transaction; it answers by itself.
    Job(Box<dyn FnOnce(&mut Writer) + Send>),
    /// To store a report.
    Report(Queued),
    /// To write what waits, and end.
    Close(oneshot::Sender<std::result::Result<(), StoreError>>),
}

/// A report that waits.
pub(in crate::store) struct Queued {
    pub(in crate::store) report: Report,
    /// `None`: it was answered already.
    pub(in crate::store) answer_tx: Option<oneshot::Sender<std::result::Result<Recorded, StoreError>>>,
    /// Its place in the queue, free again once it is stored.
    pub(in crate::store) slot: OwnedSemaphorePermit,
}

impl Queued {
    /// Gives its place back, so that whoever hears the answer finds it free, and answers.
    fn stored(self, answer: std::result::Result<Recorded, StoreError>) {
        let Queued { slot, answer_tx, .. } = self;
        drop(slot);
        if let Some(answer_tx) = answer_tx {
            // Whoever asked may be gone.
            let _ = answer_tx.send(answer);
        }
    }

    /// Says that it could not be stored yet, to whoever waits.
    fn failed(&mut self, error: StoreError) {
        if let Some(answer_tx) = self.answer_tx.take() {
            let _ = answer_tx.send(Err(error));
        }
    }
}

/// What the thread owns.
pub(in crate::store) struct Writer {
    /// The database, for people.
    pub(in crate::store) name: Arc<str>,
    pub(in crate::store) link: Link,
    pub(in crate::store) dictionary: Dictionary,
    pub(in crate::store) sessions: Sessions,
    pub(in crate::store) retention: Retention,
    pub(in crate::store) clock: Clock,
    pub(in crate::store) is_writable: Arc<AtomicBool>,
    /// Which server this is, if others work on the database too.
    pub(in crate::store) replica: Option<Uuid>,
    /// The threads that read: they end first, so that the log can be emptied and taken away.
    pub(in crate::store) readers: Vec<JoinHandle<()>>,
    /// The lock on the data folder. Last, so that it is given back when the database is closed.
    pub(in crate::store) lock: File,
}

impl Writer {
    /// Works until it is closed, or all handles are gone.
    pub(in crate::store) fn run(mut self, mut requests_rx: mpsc::Receiver<Request>) {
        let unwritable_after = UnwritableOnDrop(Arc::clone(&self.is_writable));
        let mut work = Work::new();
        while !work.is_over(&requests_rx) {
            // With something at hand the queue is only looked at.
            if work.is_idle() {
                let Some(request) = requests_rx.blocking_recv() else { break };
                work.take(&mut self, request, &mut requests_rx);
            }
            match work.turn(&mut self, &mut requests_rx) {
                Ok(stored) if stored >= MANY => work.gather(&mut self, &mut requests_rx),
                Ok(_) => {}
                Err(_) => thread::sleep(RETRY),
            }
        }
        self.end(work, unwritable_after);
    }

    /// As [`Writer::run`], but within a task: each turn takes the time that `pace` gives.
    pub(in crate::store) async fn run_in_task(
        mut self,
        mut requests_rx: mpsc::Receiver<Request>,
        pace: Pace,
    ) {
        let unwritable_after = UnwritableOnDrop(Arc::clone(&self.is_writable));
        let mut work = Work::new();
        while !work.is_over(&requests_rx) {
            if work.is_idle() {
                let Some(request) = requests_rx.recv().await else { break };
                work.take(&mut self, request, &mut requests_rx);
            }
            pace.wait().await;
            if work.turn(&mut self, &mut requests_rx).is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
        self.end(work, unwritable_after);
    }

    fn end(self, work: Work, unwritable_after: UnwritableOnDrop) {
        let closers = work.closers;
        let closed = self.close();
        drop(unwritable_after);
        if closers.is_empty()
            && let Err(error) = &closed
        {
            tracing::warn!(error = error as &dyn Error, "the database was not closed cleanly");
        }
        let mut closed = Some(closed);
        for closer in closers {
            let _ = closer.send(closed.take().unwrap_or(Ok(())));
        }
    }

    /// Runs one transaction: all of it, or nothing.
    pub(in crate::store) fn transact<T>(
        &mut self,
        work: impl FnOnce(&dyn Sql, &mut Dictionary) -> Result<T>,
    ) -> Result<T> {
        let Writer { link, dictionary, .. } = self;
        let outcome = link.transact(|sql| work(sql, dictionary));
        match &outcome {
            // One that had nothing to write proves nothing: a full disk takes it too.
            Ok((_, false)) => {}
            Ok((_, true)) => {
                if !self.is_writable.swap(true, Ordering::Relaxed) {
                    tracing::info!(database = %self.name, "the database can be written again");
                }
            }
            Err(fault) => {
                // It may remember what was rolled back.
                self.dictionary.clear();
                if fault.is_of_the_disk() && self.is_writable.swap(false, Ordering::Relaxed) {
                    let error = fault.while_doing("write the database", &self.name);
                    tracing::error!(error = &error as &dyn Error, "the database cannot be written");
                }
            }
        }
        outcome.map(|(value, _)| value)
    }

    /// Stores the first `count` reports in one transaction, and answers them once they are on disk. They leave the queue
    /// with that; if they cannot be stored, they stay, and whoever waits hears of it.
    fn record(&mut self, reports: &mut VecDeque<Queued>, count: usize) -> Result<()> {
        let now = millis(self.clock.now());
        self.dictionary.turn();
        let sessions = self.sessions.clone();
        let recorded = self.transact(|transaction, dictionary| {
            let group = reports.iter().take(count).map(|queued| &queued.report);
            history::record(transaction, dictionary, &sessions, group, now)
        });
        match recorded {
            Ok(group) => {
                self.sessions.stored(group.sessions);
                for (queued, (place, durable_sequence)) in reports.drain(..count).zip(group.places) {
                    let is_double = place == Place::Double;
                    queued.stored(match place {
                        Place::BehindGap => Err(StoreError::BehindGap),
                        Place::New | Place::Double => Ok(Recorded { durable_sequence, is_double }),
                    });
                }
                Ok(())
            }
            Err(fault) if fault.is_for_ever() && count > 1 => {
                // One of them is at fault: the others are not to wait for it.
                (0..count).try_for_each(|_| self.record(reports, 1))
            }
            Err(fault) if fault.is_for_ever() => {
                let error = fault.while_doing("store a report", &self.name);
                tracing::error!(
                    error = &error as &dyn Error,
                    "a report cannot be stored and is dropped: a defect"
                );
                if let Some(queued) = reports.pop_front() {
                    queued.stored(Err(error));
                }
                Ok(())
            }
            Err(fault) => {
                for queued in reports.iter_mut().take(count) {
                    queued.failed(fault.while_doing("store a report", &self.name));
                }
                Err(fault)
            }
        }
    }

    /// Leave to do the upkeep. `None`: another server has it.
    fn leave(&mut self) -> Result<Option<Leave>> {
        let Some(replica) = self.replica else { return Ok(Some(Leave::Alone)) };
        self.transact(|transaction, _| leave::take(transaction, PRUNING, replica, PRUNING_LIFE))
    }

    /// Empties the log into the database and closes it.
    fn close(self) -> std::result::Result<(), StoreError> {
        let Writer { name, link, readers, lock, .. } = self;
        for reader in readers {
            // One that panicked has said so itself.
            let _ = reader.join();
        }
        let closed = link.close();
        drop(lock);
        closed.map_err(|fault| fault.while_doing("close the database", &name))
    }
}

/// Says that nothing can be written once the thread has ended, however it ended.
struct UnwritableOnDrop(Arc<AtomicBool>);

impl Drop for UnwritableOnDrop {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What is at hand.
struct Work {
    reports: VecDeque<Queued>,
    closers: Vec<oneshot::Sender<std::result::Result<(), StoreError>>>,
    upkeep: Upkeep,
}

impl Work {
    fn new() -> Work {
        Work { reports: VecDeque::new(), closers: Vec::new(), upkeep: Upkeep::new() }
    }

    /// Whether nothing is to be done, and nothing will come.
    fn is_over(&self, requests_rx: &mpsc::Receiver<Request>) -> bool {
        self.reports.is_empty() && requests_rx.is_closed() && requests_rx.is_empty()
    }

    /// Whether there is nothing to do but wait.
    fn is_idle(&self) -> bool {
        self.reports.is_empty() && self.upkeep.trimming.is_none()
    }

    fn take(&mut self, writer: &mut Writer, request: Request, requests_rx: &mut mpsc::Receiver<Request>) {
        match request {
            Request::Job(job) => job(writer),
            Request::Report(queued) => self.reports.push_back(queued),
            Request::Close(closed_tx) => {
                requests_rx.close();
                self.closers.push(closed_tx);
            }
        }
    }

    /// Takes what has come meanwhile, but no more than that, so that the rest gets its turn.
    fn take_waiting(&mut self, writer: &mut Writer, requests_rx: &mut mpsc::Receiver<Request>) {
        for _ in 0..requests_rx.len() {
            let Ok(request) = requests_rx.try_recv() else { break };
            self.take(writer, request, requests_rx);
        }
    }

    /// Lets reports gather, and does what else comes.
    fn gather(&mut self, writer: &mut Writer, requests_rx: &mut mpsc::Receiver<Request>) {
        for _ in 0..GATHERING_STEPS {
            self.take_waiting(writer, requests_rx);
            if self.reports.len() >= MAX_GROUP || requests_rx.is_closed() {
                return;
            }
            thread::sleep(GATHERING / GATHERING_STEPS);
        }
    }

    /// Does what has come, one group of reports, and a step of upkeep. Says how many reports it stored.
    fn turn(&mut self, writer: &mut Writer, requests_rx: &mut mpsc::Receiver<Request>) -> Result<usize> {
        self.take_waiting(writer, requests_rx);
        let count = self.reports.len().min(MAX_GROUP);
        let stored = if count > 0 { writer.record(&mut self.reports, count) } else { Ok(()) };
        if stored.is_err() && requests_rx.is_closed() {
            // Their proxies hold them too, as they were not told that they are durable.
            let reports = self.reports.len();
            tracing::warn!(
                reports,
                "the server ends and cannot write these reports: their proxies send them again"
            );
            self.reports.drain(..).for_each(|queued| queued.stored(Err(StoreError::Closed)));
        }
        self.upkeep.step(writer);
        stored.map(|()| count)
    }
}

/// What old readings and sessions are deleted under, where several servers could.
const PRUNING: &str = "pruning";
/// How long the upkeep's lease lasts. The work is begun anew more often than that, and renews it.
const PRUNING_LIFE: Duration = Duration::from_secs(180);

/// The work that nobody waits for, in small steps between the others.
struct Upkeep {
    /// While there is more to delete: the leave to do so.
    trimming: Option<Leave>,
    is_too_large: bool,
    trim_at: Instant,
    sweep_at: Instant,
}

impl Upkeep {
    fn new() -> Upkeep {
        let now = Instant::now();
        Upkeep { trimming: None, is_too_large: false, trim_at: now, sweep_at: now }
    }

    /// Deletes a batch if it is time to; sweeps once all batches are done.
    fn step(&mut self, writer: &mut Writer) {
        let (retention, now) = (writer.retention, writer.clock.now());
        if self.trimming.is_none() && Instant::now() < self.trim_at {
            return;
        }
        let leave = match self.trimming.take() {
            Some(leave) => Ok(Some(leave)),
            None => writer.leave(),
        };
        let leave = match leave {
            Ok(Some(leave)) => leave,
            // Another server does it; or the database says so itself.
            Ok(None) | Err(_) => {
                self.trim_at = Instant::now() + TRIM_INTERVAL;
                return;
            }
        };
        let batch = writer.transact(|transaction, _| {
            leave::check(leave, transaction)?;
            retention::trim(transaction, retention, now)
        });
        if matches!(batch, Ok(Batch::More)) {
            self.trimming = Some(leave);
            return;
        }
        self.trim_at = Instant::now() + TRIM_INTERVAL;
        self.note(writer, &batch);
        if batch.is_ok() && Instant::now() >= self.sweep_at {
            self.sweep_at = Instant::now() + SWEEP_INTERVAL;
            let swept = writer.transact(|transaction, dictionary| {
                leave::check(leave, transaction)?;
                retention::sweep(transaction, dictionary, retention, now)
            });
            if let Err(fault) = swept {
                let error = fault.while_doing("sweep sessions and series", &writer.name);
                tracing::warn!(
                    error = &error as &dyn Error,
                    "what nothing needs any more could not be deleted"
                );
            }
        }
    }

    fn note(&mut self, writer: &Writer, batch: &Result<Batch>) {
        let max_bytes = writer.retention.max_bytes;
        match batch {
            Ok(Batch::TooLarge { used_bytes }) if !self.is_too_large => {
                tracing::warn!(
                    used_bytes,
                    max_bytes,
                    "the database is too large, with no history left to delete"
                );
            }
            Err(fault) => {
                let error = fault.while_doing("delete old readings", &writer.name);
                tracing::warn!(error = &error as &dyn Error, "old readings could not be deleted");
            }
            Ok(_) => {}
        }
        self.is_too_large = matches!(batch, Ok(Batch::TooLarge { .. }));
    }
}
