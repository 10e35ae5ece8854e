//! The table of a run, as text: for a terminal, and for the docs.

use std::fmt::Write;

use crate::record::{Push, Run, median};
use crate::targets::Row;

/// Everything that a terminal is shown of a run, compared with an earlier one if there is any.
pub(crate) fn text(run: &Run, earlier: Option<&Run>) -> String {
    let machine = &run.machine;
    let mut text = String::new();
    let mut line = |parts: std::fmt::Arguments<'_>| {
        text.write_fmt(parts)
            .and_then(|()| text.write_char('\n'))
            .expect("writing to a String does not fail");
    };
    line(format_args!(
        "{} run of {} UTC at {}, {} s: {} cores ({}), {} MiB, Linux {}, {}",
        run.kind,
        machine.date,
        machine.revision,
        run.seconds,
        machine.cores,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
        machine.rustc
    ));
    if machine.load > 0.5 {
        line(format_args!(
            "the machine was busy with something else when the run began: load {}",
            machine.load
        ));
    }
    line(format_args!("{}", machine.crates.join(", ")));
    let peers: Vec<String> = run.peers.iter().map(|peer| format!("{} ({})", peer.name, peer.note)).collect();
    line(format_args!("peers: {}", peers.join(", ")));
    for absent in &run.absent {
        line(format_args!("absent: {}: {}", absent.name, absent.note));
    }
    for trouble in &run.troubles {
        line(format_args!("{trouble}"));
    }
    line(format_args!(""));
    text.push_str(&grid(&peer_cells(run)));
    text.push('\n');
    text.push_str(&grid(&row_cells(&run.rows, earlier)));
    text
}

/// What each peer did: medians of all rounds.
pub(crate) fn peer_cells(run: &Run) -> Vec<Vec<String>> {
    let head = [
        "clients",
        "nodes",
        "peer",
        "first ms",
        "p50 ms",
        "p99 ms",
        "last ms",
        "CPU µs",
        "later µs",
        "client CPU µs",
        "stale",
    ];
    let mut cells = vec![head.map(str::to_owned).to_vec()];
    let mut seen: Vec<(usize, usize, &str)> = Vec::new();
    for push in &run.pushes {
        let key = (push.clients, push.nodes, push.peer.as_str());
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    seen.sort_by_key(|(clients, nodes, _)| (*clients, *nodes));
    for (clients, nodes, peer) in seen {
        let own: Vec<&Push> = run
            .pushes
            .iter()
            .filter(|push| push.clients == clients && push.nodes == nodes && push.peer == peer)
            .collect();
        let middle = |value: fn(&Push) -> f64| {
            let median = median(own.iter().map(|push| value(push)));
            median.map_or_else(String::new, |value| format!("{value:.1}"))
        };
        let stale: u64 = own.iter().map(|push| push.stale).sum();
        cells.push(vec![
            clients.to_string(),
            nodes.to_string(),
            peer.to_owned(),
            middle(|push| push.first_ms),
            middle(|push| push.p50_ms),
            middle(|push| push.p99_ms),
            middle(|push| push.last_ms),
            middle(|push| push.cpu_us),
            middle(|push| push.later_cpu_us),
            middle(|push| push.client_cpu_us),
            stale.to_string(),
        ]);
    }
    cells
}

/// One line for each row, with the figure of the earlier run beside it.
pub(crate) fn row_cells(rows: &[Row], earlier: Option<&Run>) -> Vec<Vec<String>> {
    let mut head = vec!["target", "clients", "nodes", "figure", "value", "must", "goal", "", "note"];
    if earlier.is_some() {
        head.insert(5, "before");
    }
    let mut cells = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let mut line = vec![
            row.target.clone(),
            if row.clients == 0 { String::new() } else { row.clients.to_string() },
            row.nodes.map_or_else(String::new, |nodes| nodes.to_string()),
            row.what.clone(),
            number(row.value, &row.unit),
            number(row.must, ""),
            number(row.goal, ""),
            row.verdict(),
            row.note.clone(),
        ];
        if let Some(earlier) = earlier {
            let same = earlier.rows.iter().find(|other| other.is_same_figure(row));
            line.insert(5, same.map_or_else(String::new, |other| number(other.value, "")));
        }
        cells.push(line);
    }
    cells
}

/// A figure with three digits or so; `-` if there is none.
pub(crate) fn number(value: Option<f64>, unit: &str) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let digits = match value.abs() {
        10_000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if unit.is_empty() { digits } else { format!("{digits} {unit}") }
}

/// Columns under each other.
fn grid(cells: &[Vec<String>]) -> String {
    let columns = cells.first().map_or(0, Vec::len);
    let width =
        |column: usize| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in cells {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let room = width - cell.chars().count();
            padded.push_str(cell);
            padded.push_str(&" ".repeat(room + 2));
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

/// Columns as Markdown has them.
pub(crate) fn markdown(cells: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let Some((head, rest)) = cells.split_first() else { return String::new() };
    let mut text = line(head);
    text.push_str(&format!("|{}\n", " --- |".repeat(head.len())));
    for cells in rest {
        text.push_str(&line(cells));
    }
    text
}
