//! Temperatures: the newest of each node in memory, the history in the store.
//!
//! In: reports that were checked. Out: the newest report of each node; history, on demand.
//! Always: what is shown as newest is on disk; of two reports on one node the one collected later wins, but a proxy
//! that could not read the node does not hide one that could.
//! Never: knows who reads it.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use uuid::Uuid;

use crate::report::{NodeReport, Report};
use crate::store::{Recorded, Store, StoreError};

/// The newest report of each node, and the way to the history. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Readings {
    store: Store,
    newest: Arc<RwLock<HashMap<NodeKey, Arc<NodeReport>>>>,
}

/// A node, by its instance and its line in lower case.
type NodeKey = (Uuid, String);

impl Readings {
    /// Begins with the newest reports that the store has.
    pub fn new(store: Store, newest: impl IntoIterator<Item = NodeReport>) -> Readings {
        let newest = newest.into_iter().map(|report| (key(&report), Arc::new(report))).collect();
        Readings { store, newest: Arc::new(RwLock::new(newest)) }
    }

    /// Takes a report: returns once it is on disk.
    ///
    /// # Errors
    /// [`StoreError`]; the report is not taken then, and may be sent again.
    pub async fn take(&self, report: Report) -> Result<Recorded, StoreError> {
        let nodes: Vec<Arc<NodeReport>> = report.nodes.iter().cloned().map(Arc::new).collect();
        let recorded = self.store.record(report).await?;
        if !recorded.is_double {
            let mut newest = self.newest.write().expect("no holder of this lock panics");
            for node in nodes {
                let place = newest.entry(key(&node)).or_insert_with(|| Arc::clone(&node));
                if node.replaces(place) {
                    *place = node;
                }
            }
        }
        Ok(recorded)
    }

    /// The newest report of each node, in no order.
    pub fn newest(&self) -> Vec<Arc<NodeReport>> {
        self.newest.read().expect("no holder of this lock panics").values().cloned().collect()
    }
}

fn key(report: &NodeReport) -> NodeKey {
    (report.instance, report.node.line().to_ascii_lowercase())
}
