//! May this node be read? The list in force, and why it is that one.
//!
//! In: verified lists and verdicts from `sync`, the static list from the configuration. Out: [`InForce`] for
//! whoever collects or answers callers, and a word whenever it changes.
//! Always: one writer ([`GateWriter`]), many readers ([`Gate`]); a value is stored whole before it is announced.
//! Never: reads a disk or the network, or verifies; what comes in here is good.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pulse_proto::{Node, Position, SignedAllowlist};
use tokio::sync::watch;

/// What may be read, and where that comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum InForce {
    /// A list that Pulse pushed since this program started.
    Pushed {
        /// The list.
        list: Arc<SignedAllowlist>,
        /// When it was put in force.
        since: SystemTime,
    },
    /// The last applied list, from this host's disk.
    Cached {
        /// The list.
        list: Arc<SignedAllowlist>,
        /// When it was applied first.
        since: SystemTime,
    },
    /// The list of the configuration.
    Static {
        /// Its names and addresses as nodes; its networks are never walked and stand not here.
        nodes: Vec<Node>,
        /// How many networks it has beside them.
        networks: usize,
    },
    /// Nothing may be read.
    Nothing(Closed),
}

/// Why nothing may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// There was never a list, and the configuration has none.
    NoListYet,
    /// Pulse revoked this proxy, and says why.
    Revoked(String),
}

/// Where the list in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Pushed by Pulse.
    Pushed,
    /// From the cache file.
    Cache,
    /// From the configuration.
    Static,
    /// There is none.
    None,
}

impl Source {
    /// The word for logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Pushed => "pushed",
            Source::Cache => "cache",
            Source::Static => "static",
            Source::None => "none",
        }
    }
}

impl InForce {
    /// The nodes that may be read, one by one.
    pub fn nodes(&self) -> &[Node] {
        match self {
            InForce::Pushed { list, .. } | InForce::Cached { list, .. } => list.allowlist.nodes(),
            InForce::Static { nodes, .. } => nodes,
            InForce::Nothing(_) => &[],
        }
    }

    /// Where the list stands in time; zero for the static list and for none.
    pub fn position(&self) -> Position {
        self.list().map(|list| list.position).unwrap_or_default()
    }

    /// Where it comes from.
    pub fn source(&self) -> Source {
        match self {
            InForce::Pushed { .. } => Source::Pushed,
            InForce::Cached { .. } => Source::Cache,
            InForce::Static { .. } => Source::Static,
            InForce::Nothing(_) => Source::None,
        }
    }

    /// The signed list, if it is one.
    pub fn list(&self) -> Option<&Arc<SignedAllowlist>> {
        match self {
            InForce::Pushed { list, .. } | InForce::Cached { list, .. } => Some(list),
            InForce::Static { .. } | InForce::Nothing(_) => None,
        }
    }

    /// Why nothing may be read; `None` while there is a list, be it empty.
    pub fn closed(&self) -> Option<String> {
        match self {
            InForce::Nothing(Closed::NoListYet) => Some("no list yet".to_owned()),
            InForce::Nothing(Closed::Revoked(reason)) => Some(format!("revoked: {reason}")),
            _ => None,
        }
    }

    /// Whether whoever reads notices no difference.
    fn is_same_as(&self, other: &InForce) -> bool {
        match (self.list(), other.list()) {
            (Some(one), Some(two)) => {
                self.source() == other.source()
                    && one.position == two.position
                    && one.allowlist.hash() == two.allowlist.hash()
            }
            _ => self == other,
        }
    }
}

/// Chooses what is in force without a pushed list: revoked, then the cached list, then the static one, then nothing.
pub fn fall_back(
    revoked: Option<&str>,
    cached: Option<(Arc<SignedAllowlist>, SystemTime)>,
    static_nodes: &[Node],
    static_networks: usize,
) -> InForce {
    match (revoked, cached) {
        (Some(reason), _) => InForce::Nothing(Closed::Revoked(reason.to_owned())),
        (None, Some((list, since))) => InForce::Cached { list, since },
        (None, None) if static_nodes.is_empty() && static_networks == 0 => {
            InForce::Nothing(Closed::NoListYet)
        }
        (None, None) => InForce::Static { nodes: static_nodes.to_vec(), networks: static_networks },
    }
}

/// The reading half. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

/// The writing half: there is one.
#[derive(Debug)]
pub struct GateWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    in_force: ArcSwap<InForce>,
    changed_tx: watch::Sender<()>,
}

/// Makes a gate with what is in force first.
pub fn gate(first: InForce) -> (GateWriter, Gate) {
    let shared =
        Arc::new(Shared { in_force: ArcSwap::from_pointee(first), changed_tx: watch::Sender::new(()) });
    (GateWriter(Arc::clone(&shared)), Gate(shared))
}

impl Gate {
    /// What is in force now. Load it once for each unit of work.
    pub fn in_force(&self) -> Arc<InForce> {
        self.0.in_force.load_full()
    }

    /// A receiver that is told of each change that comes after this call.
    pub fn changed_rx(&self) -> watch::Receiver<()> {
        self.0.changed_tx.subscribe()
    }
}

impl GateWriter {
    /// Puts something in force and tells the readers, unless it is what is in force already.
    pub fn put(&mut self, next: InForce) {
        if self.in_force().is_same_as(&next) {
            return;
        }
        self.0.in_force.store(Arc::new(next));
        self.0.changed_tx.send_replace(());
    }

    /// What is in force now.
    pub fn in_force(&self) -> Arc<InForce> {
        self.0.in_force.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse_proto::signature::SigningKey;
    use pulse_proto::{Allowlist, Scope};
    use std::time::Duration;

    fn list(revision: u64, names: &[&str]) -> Arc<SignedAllowlist> {
        let key = SigningKey::generate().unwrap().0;
        let nodes = names.iter().map(|name| Node::new(name, "").unwrap());
        let position = Position { epoch: 1, revision };
        let interval = Duration::from_secs(60);
        let list = Allowlist::new(nodes);
        Arc::new(SignedAllowlist::sign(&key, position, Scope::All, list, SystemTime::now(), interval))
    }

    #[test]
    fn revoked_goes_before_the_cache_and_the_cache_before_the_static_list() {
        let cached = Some((list(3, &["a"]), SystemTime::now()));
        let fixed = [Node::new("fixed", "").unwrap()];
        let closed = fall_back(Some("gone"), cached.clone(), &fixed, 1);
        assert_eq!((closed.nodes().len(), closed.source()), (0, Source::None));
        assert_eq!(closed.closed().unwrap(), "revoked: gone");
        let from_disk = fall_back(None, cached, &fixed, 1);
        assert_eq!((from_disk.nodes()[0].name(), from_disk.source()), ("a", Source::Cache));
        assert_eq!(fall_back(None, None, &fixed, 0).nodes(), fixed);
        assert_eq!(fall_back(None, None, &[], 1).source(), Source::Static);
        assert_eq!(fall_back(None, None, &[], 0).closed().unwrap(), "no list yet");
    }

    #[test]
    fn a_signed_empty_list_is_a_list_and_replaces_the_static_one() {
        let empty =
            fall_back(None, Some((list(4, &[]), SystemTime::now())), &[Node::new("fixed", "").unwrap()], 0);
        assert!(empty.nodes().is_empty() && empty.closed().is_none());
        assert_eq!(empty.position().revision, 4);
    }

    #[test]
    fn readers_are_told_of_a_change_and_not_of_the_same_list_again() {
        let (mut writer, gate) = gate(fall_back(None, None, &[], 0));
        let mut changed_rx = gate.changed_rx();
        let list = list(1, &["a"]);
        writer.put(InForce::Pushed { list: Arc::clone(&list), since: SystemTime::now() });
        assert!(changed_rx.has_changed().unwrap());
        changed_rx.mark_unchanged();
        assert_eq!(gate.in_force().nodes().len(), 1);
        writer.put(InForce::Pushed { list, since: SystemTime::now() });
        assert!(!changed_rx.has_changed().unwrap());
    }
}
