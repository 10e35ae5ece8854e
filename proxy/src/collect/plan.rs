//! What a round has to do: which listed nodes are this host, and whose reasons are due.
//!
//! In: the list in force, what this host knows of itself. Out: for each round the nodes to tell of.
//! Always: worked out anew only when the list or the host's addresses change, so that 10,000 nodes cost nothing in between.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::REASONS_REPEAT;
use crate::gate::InForce;
use crate::sensors::Reading;
use crate::this_host::{LocalHost, Verdict, verdicts};

#[derive(Debug)]
pub(super) struct Plan {
    host: LocalHost,
    list: Option<Arc<InForce>>,
    verdicts: Vec<Verdict>,
    /// Positions of the nodes whose reason is to be told in this round.
    untold: Vec<usize>,
    /// Positions of the nodes that are this host.
    here: Vec<usize>,
    /// Why this host could not be read, as it was told last.
    told: Option<String>,
    /// When all reasons were told last; `None`: they are due.
    all_told_at: Option<Instant>,
    /// Whether the last attempt to list the interfaces failed.
    blind: bool,
}

impl Plan {
    pub(super) fn new(host: LocalHost) -> Plan {
        Plan {
            host,
            list: None,
            verdicts: Vec::new(),
            untold: Vec::new(),
            here: Vec::new(),
            told: None,
            all_told_at: None,
            blind: false,
        }
    }

    /// Takes note of the list and of this host's addresses, at the beginning of a round.
    pub(super) fn update(&mut self, in_force: &Arc<InForce>) {
        let found = LocalHost::interface_addresses();
        self.update_with(in_force, found);
    }

    fn update_with(&mut self, in_force: &Arc<InForce>, found: io::Result<HashSet<IpAddr>>) {
        let is_new_list = !self.list.as_ref().is_some_and(|list| Arc::ptr_eq(list, in_force));
        let is_moved = self.note_addresses(found);
        if is_new_list {
            self.list = Some(Arc::clone(in_force));
            self.all_told_at = None;
            self.told = None;
        }
        if is_new_list || is_moved {
            let before = std::mem::replace(&mut self.verdicts, verdicts(in_force.nodes(), &self.host));
            let is_changed = |at: &usize| is_new_list || before[*at] != self.verdicts[*at];
            self.untold.extend((0..self.verdicts.len()).filter(is_changed));
            self.here =
                (0..self.verdicts.len()).filter(|&at| self.verdicts[at] == Verdict::ThisHost).collect();
            if !self.untold.is_empty() {
                self.log(in_force);
            }
        }
        if self.all_told_at.is_none_or(|at| at.elapsed() >= REASONS_REPEAT) {
            self.untold = (0..self.verdicts.len()).collect();
            self.told = None;
            self.all_told_at = Some(Instant::now());
        }
    }

    /// Takes the addresses found; whether they are others than before.
    fn note_addresses(&mut self, found: io::Result<HashSet<IpAddr>>) -> bool {
        match found {
            Ok(addresses) => {
                self.blind = false;
                let is_moved = addresses != self.host.addresses;
                self.host.addresses = addresses;
                is_moved
            }
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(%error, "the addresses of this host cannot be listed; those known before count");
                }
                false
            }
        }
    }

    /// Whether a listed node is this host.
    pub(super) fn reads_this_host(&self) -> bool {
        !self.here.is_empty()
    }

    /// Starts over with the next list: what was due was not told.
    pub(super) fn forget(&mut self) {
        self.list = None;
    }

    /// What is to be told in this round, by position in the list, readings first.
    ///
    /// `result` is this host's reading, if it was read.
    pub(super) fn due(
        &mut self,
        result: Option<Result<Vec<Reading>, String>>,
    ) -> Vec<(usize, Result<Vec<Reading>, String>)> {
        let untold = std::mem::take(&mut self.untold);
        let (Some(list), false) = (&self.list, self.verdicts.is_empty()) else {
            return Vec::new();
        };
        let mut due = Vec::new();
        if let Some(result) = result {
            let reason = result.as_ref().err().cloned();
            if reason.is_none() || reason != self.told {
                due.extend(self.here.iter().map(|&at| (at, result.clone())));
            }
            self.told = reason;
        }
        let told = untold
            .into_iter()
            .filter_map(|at| Some((at, Err(self.verdicts[at].reason(at, list.nodes(), &self.host)?))));
        due.extend(told);
        due
    }

    /// Says in the log what a new list, or new addresses, mean for this host.
    fn log(&self, in_force: &InForce) {
        let nodes = in_force.nodes();
        let named = |at: usize| nodes[at].to_string();
        if let Some(&at) = self.here.first() {
            tracing::info!(nodes = nodes.len(), this_host = named(at), "this host is listed and read");
            return;
        }
        // The most telling reason: a node that is nearly this host goes before one that has nothing to do with it.
        let nearly = self.verdicts.iter().position(|verdict| *verdict != Verdict::OtherHost);
        let reason = nearly
            .or(if nodes.is_empty() { None } else { Some(0) })
            .and_then(|at| self.verdicts[at].reason(at, nodes, &self.host));
        match reason {
            Some(reason) => {
                tracing::warn!(nodes = nodes.len(), reason, "no listed node is this host: nothing is read");
            }
            None => tracing::info!("no node may be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Closed, InForce};
    use pulse_proto::Node;

    fn list(nodes: &[(&str, &str)]) -> Arc<InForce> {
        let nodes = nodes.iter().map(|(name, address)| Node::new(name, address).expect("a node")).collect();
        Arc::new(InForce::Static { nodes, networks: 0 })
    }

    fn addresses(texts: &[&str]) -> io::Result<HashSet<IpAddr>> {
        Ok(texts.iter().map(|text| text.parse().expect("an address")).collect())
    }

    fn plan() -> Plan {
        Plan::new(LocalHost { hostname: "here".into(), ..LocalHost::default() })
    }

    fn told(plan: &mut Plan, list: &Arc<InForce>, at: &[&str]) -> Vec<usize> {
        plan.update_with(list, addresses(at));
        plan.due(None)
            .into_iter()
            .map(|(at, result)| {
                result.unwrap_err();
                at
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_told_first_then_when_it_changes_and_each_quarter_of_an_hour() {
        let mut plan = plan();
        let list = list(&[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("here", "10.0.0.3")]);
        assert_eq!(told(&mut plan, &list, &["10.0.0.9"]), [0, 1, 2]);
        assert_eq!(told(&mut plan, &list, &["10.0.0.9"]), [0; 0]);
        // The host takes two listed addresses: these two are ambiguous now.
        assert_eq!(told(&mut plan, &list, &["10.0.0.1", "10.0.0.2"]), [0, 1]);
        assert_eq!(told(&mut plan, &list, &["10.0.0.1", "10.0.0.2"]), [0; 0]);
        tokio::time::advance(REASONS_REPEAT).await;
        assert_eq!(told(&mut plan, &list, &["10.0.0.1", "10.0.0.2"]), [0, 1, 2]);
        assert_eq!(told(&mut plan, &list, &["10.0.0.1", "10.0.0.2"]), [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_list_tells_all_reasons_again() {
        let mut plan = plan();
        told(&mut plan, &list(&[("a", ""), ("b", "")]), &[]);
        assert_eq!(told(&mut plan, &list(&[("a", ""), ("c", "")]), &[]), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_becomes_this_host_when_the_host_takes_its_address() {
        let mut plan = plan();
        let list = list(&[("a", "10.0.0.1")]);
        told(&mut plan, &list, &[]);
        assert!(!plan.reads_this_host());
        plan.update_with(&list, addresses(&["10.0.0.1"]));
        assert!(plan.reads_this_host());
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_cannot_be_listed_are_those_of_before() {
        let mut plan = plan();
        let list = list(&[("a", "10.0.0.1")]);
        plan.update_with(&list, addresses(&["10.0.0.1"]));
        plan.update_with(&list, Err(io::Error::other("no more files")));
        assert!(plan.reads_this_host());
    }

    #[tokio::test(start_paused = true)]
    async fn the_reason_why_this_host_is_unreadable_is_told_once_and_again_after_a_good_reading() {
        let mut plan = plan();
        let list = list(&[("here", "")]);
        let mut due = |result: Result<Vec<Reading>, String>| {
            plan.update_with(&list, addresses(&[]));
            plan.due(Some(result)).len()
        };
        assert_eq!(due(Err("broken".into())), 1);
        assert_eq!(due(Err("broken".into())), 0);
        assert_eq!(due(Err("otherwise broken".into())), 1);
        assert_eq!(due(Ok(Vec::new())), 1);
        assert_eq!(due(Ok(Vec::new())), 1);
        assert_eq!(due(Err("otherwise broken".into())), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn with_nothing_in_force_nothing_is_told() {
        let mut plan = plan();
        told(&mut plan, &list(&[("here", "")]), &[]);
        let nothing = Arc::new(InForce::Nothing(Closed::Revoked("gone".into())));
        assert_eq!(told(&mut plan, &nothing, &[]), [0; 0]);
        assert!(!plan.reads_this_host());
    }
}
