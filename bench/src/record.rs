//! A run as it is kept: every push, every other figure, the machine, and the table that was made of them. JSON.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Doing, Outcome};
use crate::machine::Machine;
use crate::targets::Row;

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// `full` or `quick`: runs are compared with those of their kind.
    pub(crate) kind: String,
    /// Where and when.
    pub(crate) machine: Machine,
    /// The peers, with their versions.
    pub(crate) peers: Vec<PeerNote>,
    /// Peers that were asked for and are not here, and why.
    pub(crate) absent: Vec<PeerNote>,
    /// What could not be measured, and why.
    #[serde(default)]
    pub(crate) troubles: Vec<String>,
    /// Every push.
    pub(crate) pushes: Vec<Push>,
    /// Every other figure.
    pub(crate) figures: Vec<Figure>,
    /// The table.
    pub(crate) rows: Vec<Row>,
    /// How long it took, in seconds.
    pub(crate) seconds: u64,
}

/// A peer, and what there is to say of it: its version, or why it is absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerNote {
    /// Its name.
    pub(crate) name: String,
    /// What there is to say.
    pub(crate) note: String,
}

/// One push to all clients of one peer. Times run from just before it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Push {
    /// The peer.
    pub(crate) peer: String,
    /// How many clients listened.
    pub(crate) clients: usize,
    /// How many nodes the list had.
    pub(crate) nodes: usize,
    /// The round: all peers had one push in it.
    pub(crate) round: u32,
    /// Milliseconds until the first client had it, the half of them, all but one in a hundred, and the last.
    pub(crate) first_ms: f64,
    #[serde(default)]
    pub(crate) p50_ms: f64,
    #[serde(default)]
    pub(crate) p99_ms: f64,
    #[serde(default)]
    pub(crate) last_ms: f64,
    /// Microseconds of the server's processor time, for each client.
    pub(crate) cpu_us: f64,
    /// The same for what it does later because of the push, until it is quiet.
    #[serde(default)]
    pub(crate) later_cpu_us: f64,
    /// Microseconds of the client process's processor time, for each client.
    pub(crate) client_cpu_us: f64,
    /// Milliseconds that the server says its disk took before it woke anybody.
    pub(crate) commit_ms: Option<f64>,
    /// Lists that came and were not the newest.
    pub(crate) stale: u64,
}

/// A figure that is no push.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The target to which it belongs, as `T9`; empty: for information.
    pub(crate) target: String,
    /// What was measured.
    pub(crate) what: String,
    /// How many clients there were.
    pub(crate) clients: usize,
    /// The figure; `None`: it could not be had, and the note says why.
    pub(crate) value: Option<f64>,
    /// Its unit; empty: a ratio.
    pub(crate) unit: String,
    /// How it came about.
    pub(crate) note: String,
}

impl Run {
    /// Reads a run.
    pub(crate) fn read(path: &Path) -> Outcome<Run> {
        let text = std::fs::read(path).doing(format!("read {}", path.display()))?;
        serde_json::from_slice(&text).doing(format!("read the run in {}", path.display()))
    }

    /// Writes it.
    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        let value = serde_json::to_value(self).doing("write the run")?;
        let keys: Vec<String> =
            value.as_object().into_iter().flatten().map(|(key, value)| key_text(key, value)).collect();
        std::fs::write(path, format!("{{\n{}\n}}\n", keys.join(",\n")))
            .doing(format!("write {}", path.display()))
    }
}

/// One key; of an array each element on a line of its own, so that two runs can be compared by eye.
fn key_text(key: &str, value: &Value) -> String {
    match value {
        Value::Array(elements) if !elements.is_empty() => {
            let lines: Vec<String> = elements.iter().map(|element| format!("  {element}")).collect();
            format!("\"{key}\": [\n{}\n]", lines.join(",\n"))
        }
        other => format!("\"{key}\": {other}"),
    }
}

/// A figure with three places behind the point: thousandths of a millisecond or of a microsecond are noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Milliseconds of nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "times of a run are far below 2^53 ns")]
pub(crate) fn milliseconds(nanoseconds: u64) -> f64 {
    rounded(nanoseconds as f64 / 1e6)
}

/// The middle one; of an even number the mean of both. `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => Some(values[middle]),
        _ => Some((values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_is_the_middle_one_or_between_both() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }
}
