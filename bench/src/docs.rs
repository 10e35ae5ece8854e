//! `pulse-bench docs`: the tables of the docs, written between markers from a run that is committed beside them.
//!
//! In: the run's JSON, and files with lines `<!-- bench:begin NAME -->` and `<!-- bench:end NAME -->`. Out: the same files
//! with what belongs between them; or, to check, whether it stands there already. Always: the table is made of the run's
//! pushes anew. Never: a figure that is typed in.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Doing, Failure, Outcome};
use crate::record::Run;
use crate::table::{markdown, number, peer_cells, row_cells};
use crate::targets::{self, Row};

/// `pulse-bench docs`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Docs {
    /// The run
    #[arg(long, value_name = "FILE", default_value = "docs/performance.json")]
    json: PathBuf,
    /// The run before it, whose figures stand beside; none if there is no such file
    #[arg(long, value_name = "FILE", default_value = "docs/performance-before.json")]
    before: PathBuf,
    /// A run of what was tried and not kept, for the table `tried`
    #[arg(long, value_name = "FILE", default_value = "docs/performance-tried.json")]
    tried: PathBuf,
    /// A run of several servers on one database, for the tables `servers` and `servers-machine`
    #[arg(long, value_name = "FILE", default_value = "docs/scale.json")]
    servers: PathBuf,
    /// A run with very many proxies, for the table `many`
    #[arg(long, value_name = "FILE", default_value = "docs/scale-many.json")]
    many: PathBuf,
    /// Files with markers
    #[arg(value_name = "FILE", default_values = ["docs/performance.md", "docs/scale.md", "README.md"])]
    files: Vec<PathBuf>,
    /// Change nothing; fail if a file differs from what the run says
    #[arg(long)]
    check: bool,
}

/// Writes the tables, or checks them.
pub(crate) fn run(docs: &Docs) -> Outcome<()> {
    let read = |path: &Path| {
        let mut run = Run::read(path)?;
        run.rows = targets::rows(&run);
        Ok(run)
    };
    let if_any = |path: &Path| path.is_file().then(|| read(path)).transpose();
    let runs = Runs {
        newest: read(&docs.json)?,
        before: if_any(&docs.before)?,
        tried: if_any(&docs.tried)?,
        servers: if_any(&docs.servers)?,
        many: if_any(&docs.many)?,
    };
    let mut differing = Vec::new();
    for path in &docs.files {
        let before = std::fs::read_to_string(path).doing(format!("read {}", path.display()))?;
        let after = filled(&before, &runs).doing(format!("fill in {}", path.display()))?;
        if before == after {
            continue;
        }
        if docs.check {
            differing.push(path.display().to_string());
        } else {
            std::fs::write(path, after).doing(format!("write {}", path.display()))?;
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{} is not what {} says: run `pulse-bench docs`",
        differing.join(" and "),
        docs.json.display()
    );
    Err(Failure::new(text))
}

/// What the docs are made of.
#[derive(Default)]
struct Runs {
    newest: Run,
    before: Option<Run>,
    tried: Option<Run>,
    servers: Option<Run>,
    many: Option<Run>,
}

/// A text with what belongs between its markers.
fn filled(text: &str, runs: &Runs) -> Outcome<String> {
    let mut filled = String::new();
    let mut inside: Option<&str> = None;
    for line in text.lines() {
        let marker = |word: &str| line.strip_prefix(word).and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(name) = marker("<!-- bench:begin ") {
            if inside.is_some() {
                return Err(Failure::new(format!("the part {name} begins within another one")));
            }
            inside = Some(name);
            filled.push_str(&format!("{line}\n{}", part(name, runs)?));
        } else if let Some(name) = marker("<!-- bench:end ") {
            if inside != Some(name) {
                return Err(Failure::new(format!("the part {name} ends and did not begin")));
            }
            inside = None;
        }
        if inside.is_none() {
            filled.push_str(line);
            filled.push('\n');
        }
    }
    match inside {
        None => Ok(filled),
        Some(name) => Err(Failure::new(format!("the part {name} does not end"))),
    }
}

/// What belongs between the markers with this name.
fn part(name: &str, runs: &Runs) -> Outcome<String> {
    let Runs { newest: run, before: earlier, tried, servers, many } = runs;
    let earlier = earlier.as_ref();
    Ok(match name {
        "machine" => machine(run, earlier),
        "targets" => markdown(&row_cells(&run.rows, earlier)),
        "peers" => markdown(&peer_cells(run)),
        "ratios" => ratios(run),
        "tried" => match tried {
            Some(tried) => tried_beside(tried, run),
            None => return Err(Failure::new("there is no run of what was tried")),
        },
        "servers" | "servers-machine" => match servers {
            Some(servers) if name == "servers" => several(servers),
            Some(servers) => machine(servers, None),
            None => return Err(Failure::new("there is no run of several servers")),
        },
        "many" => match many {
            Some(many) => several(many),
            None => return Err(Failure::new("there is no run with very many proxies")),
        },
        _ => return Err(Failure::new(format!("there is no part {name}"))),
    })
}

fn machine(run: &Run, earlier: Option<&Run>) -> String {
    let machine = &run.machine;
    let mut text = format!(
        "A {} run of {} UTC at revision `{}`: {} cores ({}), {} MiB, Linux {}, {}; {}.\n",
        run.kind,
        machine.date,
        machine.revision,
        machine.cores,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
        machine.rustc,
        machine.crates.join(", ")
    );
    if let Some(Run { kind, machine, .. }) = earlier {
        let (date, revision, load) = (&machine.date, &machine.revision, machine.load);
        text.push_str(&format!(
            "Before it: a {kind} run of {date} UTC at revision `{revision}`, begun at load {load}.\n"
        ));
    }
    let peers: Vec<String> = run.peers.iter().map(|peer| format!("{} ({})", peer.name, peer.note)).collect();
    text.push_str(&format!("Peers: {}.\n", peers.join(", ")));
    if machine.load > 0.5 {
        text.push_str(&format!(
            "The machine was busy with something else when it began: load {}.\n",
            machine.load
        ));
    }
    for absent in &run.absent {
        text.push_str(&format!("Absent: {} ({}).\n", absent.name, absent.note));
    }
    for trouble in &run.troubles {
        text.push_str(&format!("{trouble}.\n"));
    }
    text
}

/// What was tried beside what is kept: the same figures, for as many clients.
fn tried_beside(tried: &Run, kept: &Run) -> String {
    let mut cells =
        vec![["target", "clients", "nodes", "figure", "kept", "tried"].map(str::to_owned).to_vec()];
    for row in tried.rows.iter().filter(|row| row.value.is_some()) {
        let Some(same) = kept.rows.iter().find(|other| other.is_same_figure(row)) else { continue };
        cells.push(vec![
            row.target.clone(),
            row.clients.to_string(),
            row.nodes.map_or_else(String::new, |nodes| nodes.to_string()),
            row.what.clone(),
            number(same.value, &row.unit),
            number(row.value, &row.unit),
        ]);
    }
    markdown(&cells)
}

/// Every figure of a run that has no peers.
fn several(run: &Run) -> String {
    let mut cells = vec![["figure", "clients", "value", "note"].map(str::to_owned).to_vec()];
    for row in &run.rows {
        let clients = if row.clients == 0 { String::new() } else { row.clients.to_string() };
        cells.push(vec![row.what.clone(), clients, number(row.value, &row.unit), row.note.clone()]);
    }
    markdown(&cells)
}

/// The ratios that say most, at the largest number of clients.
fn ratios(run: &Run) -> String {
    let most = run.pushes.iter().map(|push| push.clients).max().unwrap_or_default();
    let said = |row: &&Row| {
        let is_ratio = ["T1", "T3", "T4", "T5", "T6"].contains(&row.target.as_str());
        (is_ratio || row.what.contains(targets::WITH_WHAT_FOLLOWS))
            && row.clients == most
            && row.nodes == Some(200)
            && row.value.is_some()
    };
    let rows: Vec<Row> = run.rows.iter().filter(said).cloned().collect();
    markdown(&row_cells(&rows, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_markers_is_replaced_and_the_rest_stays() {
        let text = "# Title\n<!-- bench:begin ratios -->\nold\n<!-- bench:end ratios -->\nend\n";
        let filled = filled(text, &Runs::default()).unwrap();
        assert!(filled.starts_with("# Title\n<!-- bench:begin ratios -->\n| target |"), "{filled}");
        assert!(filled.ends_with("|\n<!-- bench:end ratios -->\nend\n"), "{filled}");
        assert!(!filled.contains("old"));
    }

    #[test]
    fn a_marker_that_is_wrong_is_refused() {
        for text in [
            "<!-- bench:begin nothing -->\n<!-- bench:end nothing -->\n",
            "<!-- bench:begin peers -->\n",
            "<!-- bench:end peers -->\n",
            "<!-- bench:begin tried -->\n<!-- bench:end tried -->\n",
            "<!-- bench:begin many -->\n<!-- bench:end many -->\n",
            "<!-- bench:begin servers -->\n<!-- bench:end servers -->\n",
        ] {
            assert!(filled(text, &Runs::default()).is_err(), "{text}");
        }
    }
}
