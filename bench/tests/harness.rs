//! The bench itself, with a handful of clients: every row is there with a figure, and what is kept can be read again.
//! The figures are no matter here; on a debug build and a busy machine they say nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Every target that has a row of its own.
const TARGETS: [&str; 17] = [
    "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13", "T14", "T15", "T15b",
    "T16",
];

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulse-bench"));
    command.current_dir(root()).args(arguments);
    command.output().expect("the bench starts")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Pulse's program: that beside the bench, else the released one.
fn pulse() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_pulse-bench"));
    let beside = own.with_file_name("pulse");
    let released =
        own.parent().and_then(Path::parent).expect("it lies in target/PROFILE").join("release/pulse");
    let found = [beside, released].into_iter().find(|path| path.is_file());
    found.expect("pulse was built: run `cargo build --workspace` first")
}

#[test]
fn a_run_of_a_few_clients_has_every_row_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder_text = folder.path().to_str().unwrap();
    let pulse = pulse();
    let peers = "pulse,floor-epoll,floor-epoll2,floor-tls,naive-tonic,naive-tonic-tls,nothing";
    let output = bench(&[
        "run",
        "--tiny",
        "--peers",
        peers,
        "--folder",
        folder_text,
        "--pulse",
        pulse.to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));

    let kept = std::fs::read(folder.path().join("tiny.json")).unwrap();
    let run: Value = serde_json::from_slice(&kept).unwrap();
    let rows = run["rows"].as_array().unwrap();
    for target in TARGETS {
        let mut own = rows.iter().filter(|row| row["target"] == target).peekable();
        assert!(own.peek().is_some(), "{target} has no row in\n{said}");
        for row in own {
            // etcd was not asked for.
            let is_there = row["value"].as_f64().is_some_and(f64::is_finite);
            assert_eq!(is_there, target != "T6", "{row}");
        }
    }
    // Seven peers, two sizes, two rounds: every push arrived at all twenty, or the run had failed.
    let pushes = run["pushes"].as_array().unwrap();
    assert_eq!(pushes.len(), 7 * 2 * 2, "{pushes:?}");
    for push in pushes {
        let time = |key: &str| push[key].as_f64().unwrap();
        assert!(time("first_ms") <= time("p50_ms") && time("p50_ms") <= time("last_ms"), "{push}");
        assert!(time("first_ms") > 0.0 && time("cpu_us") > 0.0, "{push}");
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "the run's own folder is gone, and its record is there twice");
}

#[test]
fn a_program_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        bench(&["run", "--tiny", "--folder", folder.path().to_str().unwrap(), "--pulse", "/nowhere/pulse"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/nowhere/pulse is missing"), "{said}");
}

#[test]
fn the_tables_of_the_docs_are_those_of_the_run_that_is_committed() {
    let output = bench(&["docs", "--check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
