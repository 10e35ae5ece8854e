//! What the machine is on which a run was made, and what was run.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The lock file that this program was built by: what it is linked with.
const LOCK: &str = include_str!("../../Cargo.lock");

/// A machine and a time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// When the run began, in UTC.
    pub(crate) date: String,
    /// The commit of the tree, with `+` if there were changes beside it.
    pub(crate) revision: String,
    /// Processors that the run could use.
    pub(crate) cores: usize,
    /// What the processor calls itself.
    pub(crate) cpu: String,
    /// Memory, in MiB.
    pub(crate) memory_mib: u64,
    /// How many programs wanted to run, on the mean of the minute before: more than a few tenths disturb a run.
    #[serde(default)]
    pub(crate) load: f64,
    /// The kernel.
    pub(crate) kernel: String,
    /// The compiler.
    pub(crate) rustc: String,
    /// Crates that matter here, with their versions.
    pub(crate) crates: Vec<String>,
}

impl Machine {
    /// This one, now.
    pub(crate) fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 =
            memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        let changed = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let revision = output("git", &["rev-parse", "--short=12", "HEAD"]);
        let names = ["tonic", "hyper", "h2", "tokio", "rustls", "aws-lc-rs"];
        Machine {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string(),
            revision: if changed { format!("{revision}+") } else { revision },
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: after(&read("/proc/cpuinfo"), "model name"),
            memory_mib: memory_kib / 1024,
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: output("rustc", &["--version"]),
            crates: names.iter().map(|name| format!("{name} {}", locked_version(name))).collect(),
        }
    }
}

/// The version of a crate that this program was built with; `?` if it is none of it.
pub(crate) fn locked_version(name: &str) -> String {
    let wanted = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != wanted);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
    version.and_then(|version| version.strip_suffix('"')).unwrap_or("?").to_owned()
}

/// What a program prints; nothing if it is not there.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
