//! The figures of a run, and how they are shown: as a table for people, as JSON for programs.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::super::text::{Table, clean, or_dash};

/// How long several things took that were all begun at one time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Times {
    pub(super) first_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) last_ms: f64,
}

impl Times {
    /// Of these; `None`: there are none. A percentile is the nearest rank: a time that one of them had.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Times> {
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map(|time| milliseconds(*time))
        };
        Some(Times { first_ms: at(0)?, p50_ms: at(50)?, p99_ms: at(99)?, last_ms: at(100)? })
    }

    /// The median of each figure.
    pub(super) fn median(of: &[Times]) -> Option<Times> {
        let middle = |figure: fn(&Times) -> f64| median(of.iter().map(figure).collect()).map(thousandths);
        Some(Times {
            first_ms: middle(|times| times.first_ms)?,
            p50_ms: middle(|times| times.p50_ms)?,
            p99_ms: middle(|times| times.p99_ms)?,
            last_ms: middle(|times| times.last_ms)?,
        })
    }
}

/// The pushes of lists of one size.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Pushes {
    pub(super) clients: usize,
    pub(super) nodes: usize,
    /// Medians over the rounds.
    #[serde(flatten)]
    pub(super) medians: Times,
    pub(super) server_cpu_us_per_client: Option<f64>,
    pub(super) rounds: Vec<Times>,
}

/// How many a second, and how long each took.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Rate {
    pub(super) count: usize,
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) last_ms: f64,
}

impl Rate {
    /// Of calls that took so long each, and so long together; `None`: there are none.
    pub(super) fn of(calls: Vec<Duration>, together: Duration) -> Option<Rate> {
        let count = calls.len();
        let Times { p50_ms, p99_ms, last_ms, .. } = Times::of(calls)?;
        let seconds = together.as_secs_f64();
        let per_second = thousandths(count as f64 / seconds);
        Some(Rate { count, seconds: thousandths(seconds), per_second, p50_ms, p99_ms, last_ms })
    }
}

/// The reports of temperatures.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Reports {
    pub(super) in_flight: usize,
    #[serde(flatten)]
    pub(super) rate: Rate,
    /// Those that the server told to come back later.
    pub(super) held_back: usize,
}

/// All of a run. Keys end in their unit.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Figures {
    pub(super) version: String,
    pub(super) address: String,
    pub(super) is_tls: bool,
    pub(super) instance: String,
    pub(super) proxies: u32,
    pub(super) streams: usize,
    pub(super) registrations: Rate,
    pub(super) storm: Rate,
    pub(super) pushes: Vec<Pushes>,
    pub(super) reports: Reports,
    pub(super) server_resident_memory_bytes_before: Option<u64>,
    pub(super) server_resident_memory_bytes_connected: Option<u64>,
    pub(super) server_resident_memory_bytes: Option<u64>,
    /// Why the server's CPU and memory are not there.
    pub(super) server_not_known: Option<String>,
}

impl Figures {
    /// As JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// As a table.
    pub(super) fn table(&self) -> String {
        let mut pushes =
            Table::new(["clients", "nodes", "first ms", "p50 ms", "p99 ms", "last ms", "CPU µs"]);
        for push in &self.pushes {
            let Times { first_ms, p50_ms, p99_ms, last_ms } = push.medians;
            pushes.row([
                push.clients.to_string(),
                push.nodes.to_string(),
                tenths(first_ms),
                tenths(p50_ms),
                tenths(p99_ms),
                tenths(last_ms),
                or_dash(push.server_cpu_us_per_client.map(tenths)),
            ]);
        }
        let mut others = Table::new(["", "count", "seconds", "a second", "p50 ms", "p99 ms", "last ms"]);
        for (name, rate) in [
            ("registrations", &self.registrations),
            ("storm: connections with a list", &self.storm),
            ("reports of temperatures", &self.reports.rate),
        ] {
            others.row([
                name.to_owned(),
                rate.count.to_string(),
                format!("{:.2}", rate.seconds),
                format!("{:.0}", rate.per_second),
                tenths(rate.p50_ms),
                tenths(rate.p99_ms),
                tenths(rate.last_ms),
            ]);
        }
        let mut text = format!(
            "pulse {} at {}, {}; server and simulated proxies share this machine\n\n{}\
             CPU µs: the server's, for each client and push; the other columns: medians of the rounds\n\n{}",
            clean(&self.version),
            clean(&self.address),
            if self.is_tls { "TLS" } else { "plain text" },
            pushes.render(),
            others.render()
        );
        if self.reports.held_back > 0 {
            text.push_str(&format!("{} reports were told to come back later\n", self.reports.held_back));
        }
        text.push('\n');
        text.push_str(&self.memory());
        text
    }

    fn memory(&self) -> String {
        let known = (
            self.server_resident_memory_bytes_before,
            self.server_resident_memory_bytes_connected,
            self.server_resident_memory_bytes,
        );
        let (Some(before), Some(connected), Some(after)) = known else {
            let why = self.server_not_known.as_deref().unwrap_or("it ended");
            return format!("the server's CPU time and memory are not known: {why}\n");
        };
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        format!(
            "the server's memory: {} before, {} with the connections, {} after the pushes\n",
            mib(before),
            mib(connected),
            mib(after)
        )
    }
}

fn milliseconds(time: Duration) -> f64 {
    thousandths(time.as_secs_f64() * 1e3)
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values.get(middle).copied(),
        _ => Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_nearest_ranks_and_medians_are_of_each_figure() {
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect()).unwrap();
        assert_eq!(times, Times { first_ms: 1.0, p50_ms: 100.0, p99_ms: 198.0, last_ms: 200.0 });
        let one = Times::of(vec![Duration::from_micros(1_500)]).unwrap();
        assert_eq!(one, Times { first_ms: 1.5, p50_ms: 1.5, p99_ms: 1.5, last_ms: 1.5 });
        assert_eq!(Times::of(Vec::new()), None);
        assert_eq!(Times::median(&[times, one]).unwrap().last_ms, 100.75);
        assert_eq!(Times::median(&[]), None);
    }
}
