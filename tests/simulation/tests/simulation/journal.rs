//! What happened, in order: written by every host and by the one who makes the faults, read by the checks.
//!
//! Always: free of what the system's own chance decides (ids, tokens, signatures), so that one seed writes one journal. An id
//! is written as a number, in the order of first appearance.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A fault began or ended.
    Fault(String),
    /// An admin did something; with what came of it.
    Admin(String),
    /// A program began, with its host.
    Started(String),
    /// A program ended by itself.
    Ended(String),
    /// The list that is in force at a proxy from now on.
    InForce(InForce),
    /// A list that stands in a database of the server.
    Published(List),
    /// A proxy is shown in this state from now on, and for how long the server has been up.
    Shown { proxy: String, state: &'static str, up: Duration },
    /// A report arrived at the server: of each node its name and the time of collection, in Unix milliseconds.
    Received { report: Report, nodes: Vec<(String, i64)> },
    /// A report was answered: what is durable, and which of its nodes were refused.
    Answered { report: Report, durable: u64, refused: Vec<String> },
}

/// A list, by what tells it from others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct List {
    pub(crate) scope: String,
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    pub(crate) hash: String,
}

/// A report, by what tells it from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Report {
    /// Whose token came with it.
    pub(crate) proxy: usize,
    pub(crate) session: usize,
    pub(crate) sequence: u64,
}

/// What a proxy may read from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InForce {
    pub(crate) host: String,
    /// The proxy that the host is.
    pub(crate) identity: Option<usize>,
    /// `pushed`, `cache`, `static` or `none`.
    pub(crate) source: &'static str,
    pub(crate) list: Option<List>,
    /// Why nothing may be read.
    pub(crate) closed: Option<String>,
}

/// When, and what.
pub(crate) type Entry = (Duration, Event);

/// The journal of one run. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    entries: Vec<Entry>,
    ids: HashMap<String, usize>,
}

impl Journal {
    /// Writes what happened, at the time of the simulation.
    pub(crate) fn note(&self, at: Duration, event: Event) {
        self.written().entries.push((at, event));
    }

    /// The number of an id.
    pub(crate) fn number(&self, id: &str) -> usize {
        let mut written = self.written();
        let next = written.ids.len() + 1;
        *written.ids.entry(id.to_owned()).or_insert(next)
    }

    /// A scope, with its instance as a number.
    pub(crate) fn scope(&self, scope: &str) -> String {
        match scope.strip_prefix("instance:") {
            Some(id) => format!("instance:{}", self.number(id)),
            None => scope.to_owned(),
        }
    }

    /// All of it so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.written().entries.clone()
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line for each entry.
pub(crate) struct Lines<'a>(pub(crate) &'a [Entry]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event) in self.0 {
            writeln!(f, "{:>10.3} {event:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
