//! Fuzz targets: all that comes from outside, against what must hold of it whatever it is.
//!
//! In: bytes. Out: nothing, or a panic that names what did not hold. `scripts/fuzz.sh` runs the targets under libFuzzer,
//! guided by coverage; the tests run them on all that is in `corpus/`.
//! Always: a target says more than "no panic": round trips, bounds, reasons, and that no secret is told.
//! Never: looks into the programs. Targets use what is public, and the server is a whole one, asked over its port.

pub mod admin_api;
pub mod calls;
pub mod config_files;
pub mod join_string;
pub mod nodes;
pub mod older_files;
pub mod older_rest;
pub mod pve_answers;
pub mod seeds;
pub mod server;
pub mod state_files;
pub mod sysfs;
pub mod watch_message;

use std::path::{Path, PathBuf};

/// What is fed with bytes, and panics if something does not hold.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its folder in `corpus/` too.
    pub name: &'static str,
    /// Feeds it.
    pub check: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 20] = [
    Target { name: "admin_api", check: admin_api::check },
    Target { name: "cache_file", check: state_files::check_cache },
    Target { name: "identity_file", check: state_files::check_identity },
    Target { name: "join_string", check: join_string::check },
    Target { name: "nodes", check: nodes::check },
    Target { name: "older_files", check: older_files::check },
    Target { name: "older_rest", check: older_rest::check },
    Target { name: "proxy_config", check: config_files::check_proxy },
    Target { name: "pve_answers", check: pve_answers::check },
    Target { name: "readings_buffer", check: state_files::check_buffer },
    Target { name: "register", check: calls::check_register },
    Target { name: "report_sync", check: calls::check_report_sync },
    Target { name: "report_temperatures", check: calls::check_report_temperatures },
    Target { name: "rotate_token", check: calls::check_rotate_token },
    Target { name: "server_config", check: config_files::check_server },
    Target { name: "static_list", check: config_files::check_static_list },
    Target { name: "sysfs", check: sysfs::check },
    Target { name: "unregister", check: calls::check_unregister },
    Target { name: "watch_message", check: watch_message::check },
    Target { name: "watch_request", check: calls::check_watch },
];

impl Target {
    /// The target of this name.
    pub fn by_name(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// The folder of its inputs: seeds, and all that was ever found.
    pub fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }
}

/// A secret that no text may tell: what is planted where secrets come in.
pub const PLANTED: &str = "pjoin_c2VjcmV0LXRoYXQtbm8tdGV4dC1tYXktZXZlci10ZWxsIQ";

/// The first byte, which says what is done with the others.
fn switches(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(first, rest)| (*first, rest))
}

/// What the names of folders begin with; the id of the process follows.
const FOLDER: &str = "pulse-fuzz-";

/// A folder for a target's files: in memory, where there is such a place.
fn folder() -> tempfile::TempDir {
    let prefix = format!("{FOLDER}{}-", std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(folders());
    made.expect("a temporary folder can be made")
}

fn folders() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Removes what processes left that were ended in the middle, as libFuzzer ends its own.
fn sweep() {
    let entries = std::fs::read_dir(folders()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(FOLDER)?.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another process may be sweeping too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Checks a text for people that refuses something: it is there, bounded, and on one line unless it is a list.
fn assert_tells(text: &str, max_bytes: usize) {
    assert!(!text.trim().is_empty(), "a refusal without a reason");
    assert!(text.len() <= max_bytes, "a refusal of {} bytes", text.len());
    assert!(!text.contains(PLANTED), "a refusal tells a secret");
}
