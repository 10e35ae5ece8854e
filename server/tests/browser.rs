//! The pages in a real browser: Debian's Chromium, led by `tests/browser/*.mjs`.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use pulse_test_support::{ServerBuilder, capture};

/// Runs one of the scripts.
fn lead(script: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut node = Command::new("node");
    node.current_dir(&root).arg(Path::new("tests/browser").join(script)).args(arguments);
    let output = node.output().expect("node is there: `make test` needs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    // The arguments are a secret's own place, so they are not kept.
    capture::keep_output(&Command::new(script), &output);
}

#[test]
fn an_admin_opens_the_link_sets_a_password_logs_out_and_in_again() {
    if !Path::new("/usr/bin/chromium").exists() {
        assert!(std::env::var_os("CI").is_none(), "CI has Chromium: scripts/tools.sh installs it");
        // Not by `eprintln!`, which the test runner hides when a test passes.
        let text = "SKIPPED: Chromium is not here (on Debian: apt-get install chromium)";
        writeln!(std::io::stderr(), "{text}").expect("standard error can be written");
        return;
    }
    let server = ServerBuilder::default().start();
    let link = server.first_link();
    lead("sign_in.mjs", &[&link]);
    let admins = server.json(&["admin", "list"]);
    assert_eq!(admins["admins"][0]["name"], "ada", "{admins}");
}
