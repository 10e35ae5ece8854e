//! The targets T1 to T16, and the table of how far each is met.
//!
//! In: a run's pushes and figures. Out: one [`Row`] for each target, number of clients and size of list. Always: a ratio is
//! the median of those of paired rounds. Never: a figure that was not measured in this run.

use serde::{Deserialize, Serialize};

use crate::record::{Figure, Push, Run, median};

/// One line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The target, as `T1`; empty: for information.
    pub(crate) target: String,
    /// What is measured.
    pub(crate) what: String,
    /// How many clients.
    pub(crate) clients: usize,
    /// How many nodes the list had; `None`: it does not matter, or both were meant.
    pub(crate) nodes: Option<usize>,
    /// The figure; `None`: it was not measured.
    pub(crate) value: Option<f64>,
    /// Its unit; empty: a ratio.
    pub(crate) unit: String,
    /// What it must be at the most, or at the least.
    pub(crate) must: Option<f64>,
    /// What it should be.
    pub(crate) goal: Option<f64>,
    /// How it came about, or why it is not there.
    pub(crate) note: String,
}

/// A bound on a figure.
struct Target {
    id: &'static str,
    /// Only for lists of so many nodes; 0: for all.
    nodes: usize,
    must: f64,
    goal: f64,
}

/// Every target. T12 is a floor, the others are ceilings.
const TARGETS: [Target; 18] = [
    Target { id: "T1", nodes: 0, must: 2.7, goal: 1.7 },
    Target { id: "T2", nodes: 0, must: 2.7, goal: 1.9 },
    Target { id: "T3", nodes: 0, must: 2.1, goal: 1.5 },
    Target { id: "T4", nodes: 0, must: 1.5, goal: 1.2 },
    Target { id: "T5", nodes: 0, must: 0.45, goal: 0.33 },
    Target { id: "T6", nodes: 8, must: 0.65, goal: 0.45 },
    Target { id: "T6", nodes: 200, must: 0.55, goal: 0.40 },
    Target { id: "T7", nodes: 0, must: 1.25, goal: 1.15 },
    Target { id: "T8", nodes: 0, must: 2.0, goal: 0.7 },
    Target { id: "T9", nodes: 0, must: 42.0, goal: 20.0 },
    Target { id: "T10", nodes: 0, must: 1.0, goal: 0.0 },
    Target { id: "T11", nodes: 0, must: 1.2, goal: 0.95 },
    Target { id: "T12", nodes: 0, must: 0.6, goal: 0.9 },
    Target { id: "T13", nodes: 0, must: 10.0, goal: 3.0 },
    Target { id: "T14", nodes: 0, must: 1.3, goal: 1.05 },
    Target { id: "T15", nodes: 0, must: 20.0, goal: 8.0 },
    // Stale lists of one that is stalled; the row above is its memory.
    Target { id: "T15b", nodes: 0, must: 8.0, goal: 2.0 },
    Target { id: "T16", nodes: 0, must: 10.0, goal: 2.0 },
];

/// In the name of a figure: it counts what a push brings about once it is over, too.
pub(crate) const WITH_WHAT_FOLLOWS: &str = "with what follows";

/// The one target that is to be at least so large.
const FLOOR: &str = "T12";

impl Row {
    fn new(target: &str, what: &str, clients: usize, nodes: Option<usize>) -> Row {
        let nodes_of =
            |bound: &&Target| bound.id == target && (bound.nodes == 0 || nodes == Some(bound.nodes));
        let bound = TARGETS.iter().find(nodes_of);
        Row {
            target: target.to_owned(),
            what: what.to_owned(),
            clients,
            nodes,
            value: None,
            unit: String::new(),
            must: bound.map(|bound| bound.must),
            goal: bound.map(|bound| bound.goal),
            note: String::new(),
        }
    }

    /// `goal`, `ok`, `short by …`, or that it was not measured; nothing for a row without a target.
    pub(crate) fn verdict(&self) -> String {
        let (Some(must), Some(goal)) = (self.must, self.goal) else { return String::new() };
        let Some(value) = self.value else { return "not measured".to_owned() };
        let is_floor = self.target == FLOOR;
        let holds = |bound: f64| if is_floor { value >= bound } else { value <= bound };
        if holds(goal) {
            return "goal".to_owned();
        }
        if holds(must) {
            return "ok".to_owned();
        }
        let short = if is_floor { 1.0 - value / must } else { value / must - 1.0 };
        format!("short by {:.0} %", short * 100.0)
    }

    /// Whether both are the same figure of two runs.
    pub(crate) fn is_same_figure(&self, other: &Row) -> bool {
        (&self.target, &self.what, self.clients, self.nodes)
            == (&other.target, &other.what, other.clients, other.nodes)
    }
}

/// The table of a run.
pub(crate) fn rows(run: &Run) -> Vec<Row> {
    let mut counts: Vec<usize> = run.pushes.iter().map(|push| push.clients).collect();
    counts.extend(run.figures.iter().map(|figure| figure.clients));
    counts.sort_unstable();
    counts.dedup();
    let mut rows: Vec<Row> = counts.iter().flat_map(|&clients| of_pushes(&Pushes { run, clients })).collect();
    rows.extend(run.figures.iter().map(of_figure));
    rows.sort_by_key(|row| (number(&row.target), row.target.clone()));
    rows
}

/// Targets in their order, and what is for information behind them.
fn number(target: &str) -> u32 {
    let digits: String = target.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(u32::MAX)
}

fn of_figure(figure: &Figure) -> Row {
    Row {
        value: figure.value,
        unit: figure.unit.clone(),
        note: figure.note.clone(),
        ..Row::new(&figure.target, &figure.what, figure.clients, None)
    }
}

/// The pushes of a run to so many clients.
struct Pushes<'a> {
    run: &'a Run,
    clients: usize,
}

impl Pushes<'_> {
    fn of(&self, peer: &str, nodes: usize) -> impl Iterator<Item = &Push> {
        let is_its =
            move |push: &&Push| push.peer == peer && push.nodes == nodes && push.clients == self.clients;
        self.run.pushes.iter().filter(is_its)
    }

    fn median(&self, peer: &str, nodes: usize, value: impl Fn(&Push) -> f64) -> Option<f64> {
        median(self.of(peer, nodes).map(value))
    }

    /// The median of the ratios of two peers, round by round.
    fn ratio(&self, peer: &str, other: &str, nodes: usize, value: impl Fn(&Push) -> f64) -> Option<f64> {
        median(self.of(peer, nodes).filter_map(|push| {
            let paired = self.of(other, nodes).find(|other| other.round == push.round)?;
            Some(value(push) / value(paired))
        }))
    }

    /// Why there is no such ratio.
    fn why_not(&self, peer: &str) -> String {
        let absent = self.run.absent.iter().find(|absent| absent.name == peer);
        absent.map_or_else(
            || format!("{peer} was not in this run"),
            |absent| format!("{peer}: {}", absent.note),
        )
    }
}

fn of_pushes(pushes: &Pushes<'_>) -> Vec<Row> {
    let mut sizes: Vec<usize> = pushes.run.pushes.iter().map(|push| push.nodes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if pushes.of("pulse", sizes.first().copied().unwrap_or_default()).next().is_none() {
        return Vec::new();
    }
    let cpu = |push: &Push| push.cpu_us;
    // For information: what is written down and asked for once the push is over, too.
    let all_cpu = |push: &Push| push.cpu_us + push.later_cpu_us;
    let last = |push: &Push| push.last_ms;
    let mut rows = Vec::new();
    let mut ratio = |target: &str,
                     what: &str,
                     nodes: usize,
                     (peer, other): (&str, &str),
                     value: &dyn Fn(&Push) -> f64,
                     unit: &str| {
        let mut row = Row::new(target, what, pushes.clients, Some(nodes));
        row.value = pushes.ratio(peer, other, nodes, value);
        row.note = match (row.value, pushes.median(peer, nodes, value), pushes.median(other, nodes, value)) {
            (Some(_), Some(own), Some(others)) => format!("{own:.1} / {others:.1} {unit}"),
            _ => pushes.why_not(other),
        };
        rows.push(row);
    };
    for &nodes in &sizes {
        let id = if nodes >= 100 { "T1" } else { "T2" };
        ratio(id, "server CPU / floor-epoll", nodes, ("pulse", "floor-epoll"), &cpu, "µs");
        ratio("T3", "last / floor-epoll2", nodes, ("pulse", "floor-epoll2"), &last, "ms");
        ratio("T4", "TLS last / floor-tls", nodes, ("pulse-tls", "floor-tls"), &last, "ms");
        ratio("T4", "TLS server CPU / floor-tls", nodes, ("pulse-tls", "floor-tls"), &cpu, "µs");
        if nodes >= 100 {
            ratio("T5", "last / naive-tonic", nodes, ("pulse", "naive-tonic"), &last, "ms");
        }
        ratio("T6", "last / etcd", nodes, ("pulse", "etcd"), &last, "ms");
        let what = format!("server CPU {WITH_WHAT_FOLLOWS} / floor-epoll");
        ratio("", &what, nodes, ("pulse", "floor-epoll"), &all_cpu, "µs");
        let what = format!("TLS server CPU {WITH_WHAT_FOLLOWS} / floor-tls");
        ratio("", &what, nodes, ("pulse-tls", "floor-tls"), &all_cpu, "µs");
        ratio("", "last / nats", nodes, ("pulse", "nats"), &last, "ms");
        ratio("", "last / redis", nodes, ("pulse", "redis"), &last, "ms");
        ratio("", "TLS last / naive-tonic-tls", nodes, ("pulse-tls", "naive-tonic-tls"), &last, "ms");
    }
    rows.retain(|row| !row.target.is_empty() || row.value.is_some());
    rows.extend(flatness(pushes, &sizes));
    rows.extend(firsts(pushes, &sizes));
    rows
}

/// T7: what the size of a list costs.
fn flatness(pushes: &Pushes<'_>, sizes: &[usize]) -> Option<Row> {
    let (&small, &large) = (sizes.first()?, sizes.last().filter(|_| sizes.len() > 1)?);
    let mut row = Row::new("T7", "server CPU, large list / small", pushes.clients, None);
    let own = pushes.median("pulse", large, |push| push.cpu_us)?;
    let others = pushes.median("pulse", small, |push| push.cpu_us)?;
    row.value = Some(own / others);
    row.note = format!("{own:.1} / {others:.1} µs");
    Some(row)
}

/// T8: when the first client has it. The disk's part of it is told, as no peer but etcd has one.
fn firsts(pushes: &Pushes<'_>, sizes: &[usize]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (peer, what) in [("pulse", "first client"), ("pulse-tls", "first client, TLS")] {
        for &nodes in sizes {
            let mut row = Row::new("T8", what, pushes.clients, Some(nodes));
            row.value = pushes.median(peer, nodes, |push| push.first_ms);
            row.unit = "ms".to_owned();
            let commit = median(pushes.of(peer, nodes).filter_map(|push| push.commit_ms));
            let rest =
                median(pushes.of(peer, nodes).filter_map(|push| Some(push.first_ms - push.commit_ms?)));
            let floor = pushes.median("floor-epoll", nodes, |push| push.first_ms).unwrap_or_default();
            if let Some((commit, rest)) = commit.zip(rest) {
                row.note = format!(
                    "from the admin's call; {commit:.2} ms of it commit to disk, {rest:.2} ms the rest; floor-epoll {floor:.2} ms"
                );
            }
            rows.push(row);
        }
    }
    rows
}
