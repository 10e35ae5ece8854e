//! The buffer of readings and the way to the server.
//!
//! On the ring: behind `collect`, last before the server. In: rounds of readings. Out: `ReportTemperatures` calls.
//! Always: in order, one call at a time; a report is forgotten when the server has it on its disk, when it is refused,
//! or when it is too old; collecting never waits for the network or the disk.
//! Never: reads sensors, asks whether a node may be read, or dials.
//!
//! While running, the buffer is written to `readings.buffer` only when reports have waited for [`WRITE_AFTER`], and at
//! most that often. So a proxy that is killed while the server is away loses [`WRITE_AFTER`] of readings at most, twice
//! that if the server went away just now; one that is stopped loses none. On a host whose server answers, nothing is written.

mod buffer;
mod deliver;
mod file;
mod wire;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::bytes::Bytes;
use pulse_proto::v1::{ReportTemperaturesRequest, ReportTemperaturesResponse};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::Status;

use crate::backoff::Backoff;
use crate::collect::NodeReading;
use crate::disk;
use crate::seams::Seams;
use buffer::Buffer;

pub use buffer::{MAX_AGE, MAX_BYTES};

/// The buffer's file in the state folder of a server.
pub const FILE_NAME: &str = "readings.buffer";

/// Reports that have waited this long are written to the disk, at most this often.
pub const WRITE_AFTER: Duration = Duration::from_secs(30);

/// The end that takes readings. Cheap to clone; nothing here waits.
#[derive(Clone, Debug)]
pub struct Reports(Arc<Shared>);

/// The end that delivers them: there is one.
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Whether the file is there, as far as this process knows.
    is_on_disk: bool,
    /// Whether the last write failed.
    is_failing: bool,
    seams: Seams,
}

#[derive(Debug)]
struct Shared {
    buffer: Mutex<Buffer>,
    /// A report was added.
    pushed: Notify,
    /// The server is reachable again, or there is another token.
    back: Notify,
    /// The buffer has become empty.
    emptied: Notify,
}

/// Begins a session, with what an earlier one left in the file [`FILE_NAME`] of the folder `state`.
///
/// A file that cannot be read is set aside and said in the log; the session begins without it. Reads the disk: for the
/// start only.
pub fn reports(state: &Path, seams: &Seams) -> (Reports, Reporter) {
    let path = state.join(FILE_NAME);
    let earlier = file::read(&path).unwrap_or_else(|error| {
        set_aside(&path, &error);
        Vec::new()
    });
    if !earlier.is_empty() {
        tracing::info!(reports = earlier.len(), "reports of an earlier start wait for delivery");
    }
    let shared = Arc::new(Shared {
        buffer: Mutex::new(Buffer::new(earlier)),
        pushed: Notify::new(),
        back: Notify::new(),
        emptied: Notify::new(),
    });
    let is_on_disk = path.exists();
    let reports = Reports(Arc::clone(&shared));
    (reports, Reporter { shared, path, is_on_disk, is_failing: false, seams: seams.clone() })
}

impl Reports {
    /// Takes one round of readings.
    pub fn push(&self, round: &[NodeReading]) {
        self.0.lock().push(round);
        self.0.pushed.notify_one();
    }

    /// Says that the server is reachable again, or that there is another token: what waits is sent at once.
    pub fn stream_is_back(&self) {
        self.0.back.notify_one();
    }

    /// Forgets everything that waits, because the proxy is revoked. The file goes too, while [`Reporter::run`] runs.
    pub fn clear(&self) {
        self.0.lock().clear();
        self.0.emptied.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // A panic elsewhere leaves the buffer whole enough: each of its changes is small.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Delivers with `call` until `shutdown` comes, then writes to the disk what is left.
    ///
    /// `call` makes one `ReportTemperatures` call. Rounds that are pushed after the return are lost: stop collecting first.
    pub async fn run<C, F>(mut self, call: C, shutdown: impl Future<Output = ()>)
    where
        C: FnMut(ReportTemperaturesRequest) -> F,
        F: Future<Output = Result<ReportTemperaturesResponse, Status>>,
    {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            () = shutdown => {}
            () = deliver::deliver(&shared, Backoff::new(self.seams.chance.clone()), call) => {}
            () = self.keep() => {}
        }
        self.write().await;
    }

    /// Keeps the file as it should be: there if reports wait for long, gone if none does.
    async fn keep(&mut self) {
        let mut ticks = interval_at(Instant::now() + WRITE_AFTER, WRITE_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let shared = Arc::clone(&self.shared);
        loop {
            let is_time_to_write = tokio::select! {
                biased;
                _ = ticks.tick() => true,
                () = shared.emptied.notified() => false,
            };
            let oldest = shared.lock().oldest_age();
            if oldest.is_none_or(|age| is_time_to_write && age >= WRITE_AFTER) {
                self.write().await;
            }
        }
    }

    /// Writes what waits, or removes the file if nothing does.
    async fn write(&mut self) {
        let reports: Vec<Bytes> = self.shared.lock().waiting().map(|report| report.encoded.clone()).collect();
        if reports.is_empty() && !self.is_on_disk {
            return;
        }
        let (path, waiting) = (self.path.clone(), reports.len());
        let written = self.seams.workers.run(move || match reports.is_empty() {
            true => disk::remove(&path),
            false => file::write(&path, &reports),
        });
        // If it fails, or is broken off with the task, the file may be there or not: it is looked at again next time.
        self.is_on_disk = true;
        match written.await.map_err(io::Error::other).and_then(|result| result) {
            Ok(()) => {
                self.is_on_disk = waiting > 0;
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the readings that wait can be written again");
                }
            }
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => tracing::error!(
                path = %self.path.display(),
                %error,
                waiting,
                "the readings that wait cannot be written: a restart loses them, or sends them twice"
            ),
            Err(_) => {}
        }
    }
}

fn set_aside(path: &Path, error: &file::BufferFileError) {
    let error: &(dyn Error + 'static) = error;
    match file::set_aside(path) {
        Ok(aside) => tracing::error!(
            error,
            kept = %aside.display(),
            "the readings of an earlier start are not delivered: their file is kept under another name"
        ),
        Err(failed) => tracing::error!(
            error,
            %failed,
            "the readings of an earlier start are not delivered, and their file cannot be set aside"
        ),
    }
}

#[cfg(test)]
mod tests;
