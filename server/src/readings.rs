//! Temperatures: the newest of each node in memory, the history in the store.
//!
//! In: reports that were checked. Out: the newest report of each node; history, on demand.
//! Always: what is shown as newest was taken by the store: it is on disk, or waits to be written while its proxy holds it
//! too. So a server that is killed may show an older reading for a moment afterwards, and loses none. Of two reports on one
//! node the one collected later wins, but a proxy that could not read the node does not hide one that could.
//! Never: knows who reads it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, RwLock};

use pulse_proto::Node;
use uuid::Uuid;

use crate::fresh::Fresh;
use crate::report::{NodeReport, Report};
use crate::store::{Recorded, Store, StoreError};

/// The newest report of each node, and the way to the history. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Readings {
    store: Store,
    newest: Arc<RwLock<HashMap<NodeKey, Arc<NodeReport>>>>,
    /// Nodes of which a newer report is shown.
    fresh: Fresh<NodeKey>,
}

/// A node, by its instance and its line in lower case.
pub type NodeKey = (Uuid, String);

impl Readings {
    /// Begins with the newest reports that the store has.
    pub fn new(store: Store, newest: impl IntoIterator<Item = NodeReport>) -> Readings {
        let newest =
            newest.into_iter().map(|report| (key(report.instance, &report.node), Arc::new(report))).collect();
        Readings { store, newest: Arc::new(RwLock::new(newest)), fresh: Fresh::default() }
    }

    /// Takes a report, which is shown from then on, unless it is a double, and is on disk within a moment: [`Recorded::durable_sequence`] says
    /// whether it is there already.
    ///
    /// # Errors
    /// [`StoreError`]; the report may be sent again. It may be shown already.
    pub async fn take(&self, report: Report) -> Result<Recorded, StoreError> {
        let nodes = report.nodes.clone();
        let taken = self.store.take(report).await?;
        let is_new = taken.is_new();
        if is_new {
            self.show(nodes.clone());
        }
        let recorded = self.store.stored(taken).await?;
        if !is_new && !recorded.is_double {
            self.show(nodes);
        }
        Ok(recorded)
    }

    /// Shows what other servers took, where it is newer than what is shown.
    pub fn merge(&self, newest: Vec<NodeReport>) {
        self.show(newest.into_iter().map(Arc::new).collect());
    }

    /// Shows those that are newer than what is shown.
    fn show(&self, nodes: Vec<Arc<NodeReport>>) {
        let mut newest = self.newest.write().expect("no holder of this lock panics");
        for node in nodes {
            let place = newest.entry(key(node.instance, &node.node));
            if matches!(&place, Entry::Occupied(shown) if !node.replaces(shown.get())) {
                continue;
            }
            if self.fresh.is_followed() {
                self.fresh.mark(place.key().clone());
            }
            place.insert_entry(node);
        }
    }

    /// The nodes of which a newer report is shown than before.
    pub fn fresh(&self) -> &Fresh<NodeKey> {
        &self.fresh
    }

    /// The newest report that is shown of a node.
    pub fn newest_at(&self, key: &NodeKey) -> Option<Arc<NodeReport>> {
        self.newest.read().expect("no holder of this lock panics").get(key).cloned()
    }

    /// The newest report of one node.
    pub fn newest_of(&self, instance: Uuid, node: &Node) -> Option<Arc<NodeReport>> {
        self.newest_at(&key(instance, node))
    }

    /// The newest report of each node, in no order.
    pub fn newest(&self) -> Vec<Arc<NodeReport>> {
        self.newest.read().expect("no holder of this lock panics").values().cloned().collect()
    }
}

fn key(instance: Uuid, node: &Node) -> NodeKey {
    let mut line = node.line();
    line.make_ascii_lowercase();
    (instance, line)
}
