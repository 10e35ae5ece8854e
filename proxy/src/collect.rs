//! Reads every node that the list in force allows, on its interval and at once when the list changes.
//!
//! On the ring: between `gate` and `report`. In: the gate, a way to read this host's sensors. Out: one [`Round`] at a
//! time, each [`NodeReading`] with its time and the position of the list that allowed it.
//! Always: the list is taken once for a round, and a round whose list changed meanwhile is thrown away; at most one
//! reading of the sensors is under way; a sensor that hangs costs readings and nothing else.
//! Never: reads what is not listed, walks a network, or knows who gets the readings.

mod plan;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulse_proto::{Node, Position};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::gate::Gate;
use crate::seams::Seams;
use crate::sensors::{Reading, Readings, SensorError};
use crate::telemetry::chain;
use crate::this_host::LocalHost;
use plan::Plan;

/// How long one reading of the sensors may take. A host with 200 disks answers in some 200 ms; a sleeping disk
/// that has to spin up first can take 10 s.
pub const READ_LIMIT: Duration = Duration::from_secs(10);

/// The reasons why nodes are not read are told again after this time, so that a server that lost them has them again.
pub const REASONS_REPEAT: Duration = Duration::from_secs(15 * 60);

/// The longest delay before the first round, so that hosts that start together do not report together.
const MAX_START_DELAY: Duration = Duration::from_secs(1);

/// What one reading of one node gave.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeReading {
    /// The node, as it is listed.
    pub node: Node,
    /// When it was read, by this host's clock.
    pub collected_at: SystemTime,
    /// The list that allowed it; zero for the static list.
    pub position: Position,
    /// The temperatures, at least one; or why there are none, for a person.
    pub result: Result<Vec<Reading>, String>,
}

/// What one walk over the list gave: every node that was read, and of the others those whose reason is to be told
/// now (the first time, when it changes, when the list changes, and each [`REASONS_REPEAT`]).
pub type Round = Vec<NodeReading>;

/// Reads the listed nodes. `read` blocks; it reads all sensors of this host.
#[derive(Debug)]
pub struct Collector<R> {
    gate: Gate,
    interval: Duration,
    read: R,
    plan: Plan,
    /// A reading that did not come back in time.
    hung: Option<JoinHandle<Result<Readings, SensorError>>>,
    /// Why this host cannot be read, while it cannot.
    failing: Option<String>,
    seams: Seams,
}

impl<R> Collector<R>
where
    R: Fn() -> Result<Readings, SensorError> + Clone + Send + 'static,
{
    /// Makes a collector of what `gate` allows.
    ///
    /// The addresses in `host` are found out anew for each round.
    pub fn new(gate: Gate, host: LocalHost, interval: Duration, read: R, seams: &Seams) -> Self {
        let (plan, seams) = (Plan::new(host), seams.clone());
        Collector { gate, interval, read, plan, hung: None, failing: None, seams }
    }

    /// Collects until `shutdown` comes, and gives each round that is not empty to `deliver`.
    ///
    /// A reading that hangs still occupies a blocking thread after that: the runtime is to be shut down with a time limit.
    pub async fn run(mut self, mut deliver: impl FnMut(Round), shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut changed_rx = self.gate.changed_rx();
        let delay = MAX_START_DELAY.min(self.interval).mul_f64(self.seams.chance.fraction());
        let mut ticks = interval_at(Instant::now() + delay, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                // The sender lives as long as the gate that stands here, so this ends with a change only.
                _ = changed_rx.changed() => {}
                _ = ticks.tick() => {}
            }
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                round = self.round() => if !round.is_empty() {
                    deliver(round);
                },
            }
        }
    }

    /// Walks over the list in force once.
    async fn round(&mut self) -> Round {
        let in_force = self.gate.in_force();
        self.plan.update(&in_force);
        let collected_at = self.seams.clock.now();
        let position = in_force.position();
        let result = match self.plan.reads_this_host() {
            true => Some(self.read().await),
            false => None,
        };
        // Taken back meanwhile: the change is announced already, and the next round goes by the new list.
        if !Arc::ptr_eq(&in_force, &self.gate.in_force()) {
            self.plan.forget();
            return Round::new();
        }
        if let Some(result) = &result {
            self.log(result.as_ref().err());
        }
        let due = self.plan.due(result);
        let reading = |(at, result): (usize, _)| NodeReading {
            node: in_force.nodes()[at].clone(),
            collected_at,
            position,
            result,
        };
        due.into_iter().map(reading).collect()
    }

    /// Reads the sensors of this host, within [`READ_LIMIT`].
    async fn read(&mut self) -> Result<Vec<Reading>, String> {
        // What comes back late is thrown away: its values are of an unknown moment.
        if self.hung.as_ref().is_some_and(|task| !task.is_finished()) {
            return Err(hanging());
        }
        let mut task = self.seams.workers.run(self.read.clone());
        match timeout(READ_LIMIT, &mut task).await {
            Ok(Ok(Ok(readings))) if readings.readings.is_empty() => Err(without_sensors(&readings)),
            Ok(Ok(Ok(readings))) => Ok(readings.readings),
            Ok(Ok(Err(error))) => Err(chain(&error)),
            Ok(Err(_)) => {
                Err("reading the sensors broke off, which is a defect: see the proxy's log".to_owned())
            }
            Err(_) => {
                self.hung = Some(task);
                Err(hanging())
            }
        }
    }

    /// Says in the log when this host becomes unreadable, and when it is readable again.
    fn log(&mut self, reason: Option<&String>) {
        if self.failing.as_ref() == reason {
            return;
        }
        match reason {
            Some(reason) => tracing::warn!(reason, "the sensors of this host cannot be read"),
            None => tracing::info!("the sensors of this host can be read again"),
        }
        self.failing = reason.cloned();
    }
}

/// The way in which a running proxy reads its sensors: those under a sysfs root.
pub fn reader(sysfs_root: &Path) -> impl Fn() -> Result<Readings, SensorError> + Clone + Send + 'static {
    let root: Arc<Path> = sysfs_root.into();
    move || crate::sensors::read_host(&root)
}

fn hanging() -> String {
    format!(
        "the sensors of this host have not answered within {} s: a driver or a disk hangs; see the kernel's log (dmesg)",
        READ_LIMIT.as_secs()
    )
}

fn without_sensors(readings: &Readings) -> String {
    match readings.dropped.as_slice() {
        [] => "this host has no temperature sensor: load the driver of its chips (sensors-detect names it)"
            .to_owned(),
        [first, ..] => format!(
            "none of this host's {} temperature inputs gave a value that can be believed (the first, {}: {}); \
             `pulse-sensor-proxy collect` shows all",
            readings.dropped.len(),
            first.sensor,
            first.why
        ),
    }
}

#[cfg(test)]
mod tests;
