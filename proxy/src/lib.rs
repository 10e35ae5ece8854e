//! `pulse-sensor-proxy`: reads the temperatures of the nodes that Pulse allows, and reports them.
//!
//! ```text
//! server ─▶ sync ─▶ cache (disk) ─▶ gate (memory) ─▶ collect ─▶ report ─▶ server
//!                                    sensors ────────▶ │
//! ```
//!
//! This file joins the parts and tells the program's life in order; it decides nothing.

pub mod args;
pub mod backoff;
pub mod cache;
pub mod collect;
pub mod commands;
pub mod config;
pub mod disk;
pub mod gate;
pub mod identity;
pub mod link;
mod readings;
pub mod register;
pub mod report;
pub mod seams;
pub mod sensors;
pub mod shutdown;
pub mod sync;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod this_host;
pub mod tls;

use std::time::Duration;

use pulse_proto::Node;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Config, StaticEntry, StaticList};
use crate::gate::Gate;
use crate::identity::{Home, IdentityError, RunLock};
use crate::readings::Readings;
use crate::seams::Seams;
use crate::shutdown::{Drain, Signals, drain};
use crate::sync::standing::Standing;
use crate::sync::{StaticNodes, Sync, SyncError, first_in_force};

/// How long the parts have to end after the first signal: writing the buffer is all that they do.
const GRACE: Duration = Duration::from_secs(5);

/// How a run ended that was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was put in order.
    Drained,
    /// A second signal, or the grace period, cut it short.
    Aborted,
}

/// Why a run did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// State folder or trust.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A part ended that never ends by itself.
    #[error("the {0} stopped, which is a defect: see the log above")]
    Stopped(&'static str),
}

impl From<IdentityError> for RunError {
    fn from(error: IdentityError) -> Self {
        RunError::Sync(error.into())
    }
}

impl RunError {
    /// Whether a person must change something before another start helps.
    pub fn needs_a_person(&self) -> bool {
        match self {
            RunError::Sync(SyncError::Identity(error)) => error.needs_a_person(),
            RunError::Sync(SyncError::Trust(_)) => true,
            RunError::Stopped(_) => false,
        }
    }
}

/// Runs until a signal comes.
///
/// # Errors
/// [`RunError`]: it cannot begin, or not go on.
pub async fn run(config: Config, mut signals: Signals) -> Result<Outcome, RunError> {
    let (trigger, drained) = drain();
    let mut parts = JoinSet::new();
    let fixed = static_nodes(&config.static_list);
    let _joined = match config.control_plane.clone() {
        Some(control) => {
            let seams = Seams::system();
            Some(join_control_plane(&config, control, fixed, &drained, &mut parts, &seams)?)
        }
        None => {
            tracing::info!(
                nodes = fixed.nodes.len(),
                networks = fixed.networks,
                "no server is configured: the static list alone is in force"
            );
            telemetry::status(&format!("static list alone: {} nodes", fixed.nodes.len()));
            None
        }
    };
    telemetry::ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "running");

    // While nothing runs beside it, the set is empty and only a signal ends this.
    let signal = tokio::select! {
        signal = signals.next() => signal,
        Some(ended) = parts.join_next() => return Err(RunError::Stopped(ended.unwrap_or("program's task"))),
    };
    tracing::info!(signal, "ending; a second signal ends at once");
    telemetry::stopping();
    trigger.begin();
    let all_ended = async { while parts.join_next().await.is_some() {} };
    tokio::select! {
        biased;
        ended = timeout(GRACE, all_ended) => match ended {
            Ok(()) => Ok(Outcome::Drained),
            Err(_) => {
                tracing::error!(grace_seconds = GRACE.as_secs(), "not everything ended in time");
                Ok(Outcome::Aborted)
            }
        },
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once; readings that waited may be lost");
            Ok(Outcome::Aborted)
        }
    }
}

/// A proxy that works with its server.
#[derive(Debug)]
pub struct Joined {
    /// What may be read.
    pub gate: Gate,
    /// Keeps others from the state folder; `None` if the folder cannot be written.
    _lock: Option<RunLock>,
}

/// Starts what works with the server, as tasks of `parts`: the sync loop, and the collector with its reporter.
///
/// # Errors
/// [`RunError`]: a person must mend the state folder or what is trusted.
pub fn join_control_plane(
    config: &Config,
    control: config::ControlPlane,
    fixed: StaticNodes,
    drained: &Drain,
    parts: &mut JoinSet<&'static str>,
    seams: &Seams,
) -> Result<Joined, RunError> {
    let home = Home::new(&config.state_dir);
    let lock = match home.lock() {
        Ok(lock) => Some(lock),
        Err(error @ IdentityError::InUse(_)) => return Err(error.into()),
        // A disk that cannot be written must not keep a proxy from working.
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the state folder cannot be written: nothing will be kept over a restart"
            );
            None
        }
    };
    if control.insecure_skip_verify {
        tracing::warn!(
            "insecure_skip_verify is on: the server's certificate is not checked unless its key is pinned; anybody on the way could be the server"
        );
    }
    let mut standing = Standing::load(home, control);
    let in_force = first_in_force(&mut standing, &fixed);
    tracing::info!(server = %standing.control().url, source = in_force.source().as_str(), nodes = in_force.nodes().len(),
        revision = in_force.position().revision, closed = in_force.closed(), "in force until the server is heard");
    let (writer, gate) = gate::gate(in_force);
    let (sync, link, contact_rx) = Sync::new(standing, fixed, writer, seams.clone())?;
    let until = drained.clone();
    parts.spawn(async move {
        sync.run(until).await;
        "sync loop"
    });
    let readings = Readings {
        interval: config.report_interval,
        sysfs_root: config.sysfs_root.clone(),
        this_node: config.this_node.clone(),
        gate: gate.clone(),
        link,
        seams: seams.clone(),
    };
    let until = drained.clone();
    parts.spawn(async move {
        readings.run(contact_rx, until).await;
        "collection of readings"
    });
    Ok(Joined { gate, _lock: lock })
}

/// The static list as nodes. A network is never walked, so only their number stands beside them.
pub fn static_nodes(list: &StaticList) -> StaticNodes {
    let mut fixed = StaticNodes::default();
    for entry in list.entries() {
        let node = match entry {
            StaticEntry::Name(name) => Node::new(name, ""),
            StaticEntry::Address(address) => Node::new(&address.to_string(), &address.to_string()),
            StaticEntry::Network(_) => {
                fixed.networks += 1;
                continue;
            }
        };
        match node {
            Ok(node) => fixed.nodes.push(node),
            // An IPv6 address is no name, and every node has one: whose it is only a list with both can say.
            Err(error) => tracing::warn!(
                %entry,
                %error,
                "an entry of the static list names no node that can be read: list the node by its name"
            ),
        }
    }
    fixed
}
