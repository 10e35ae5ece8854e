//! Captured trees of real machines, with their links restored.
//!
//! The captures are not part of the project. `PULSE_FIXTURES` says where they are (by default `shared/fixtures` beside
//! the workspace); without them a test says that it was skipped, or fails if `PULSE_FIXTURES_REQUIRED=1`.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tempfile::TempDir;

/// The folder of the captures, or `None` after saying so.
///
/// # Panics
/// Without captures, if they are required.
pub fn fixtures() -> Option<PathBuf> {
    let folder = env::var_os("PULSE_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    if folder.join("hwmon").is_dir() {
        return Some(folder);
    }
    let required = env::var_os("PULSE_FIXTURES_REQUIRED").is_some_and(|value| value == "1");
    assert!(!required, "no captured trees in {}", folder.display());
    // Not by `eprintln!`, which the test runner hides when a test passes.
    writeln!(
        std::io::stderr(),
        "SKIPPED: no captured trees in {} (PULSE_FIXTURES says where)",
        folder.display()
    )
    .expect("standard error can be written");
    None
}

/// A copy of the captured tree `hwmon/NAME` with its links, or `None` after saying that there are no captures.
///
/// # Panics
/// When there are captures, but not this one.
pub fn tree(name: &str) -> Option<TempDir> {
    let copy = TempDir::new().expect("a temporary folder can be made");
    copy_with_links(&fixtures()?.join("hwmon").join(name), copy.path());
    Some(copy)
}

/// Copies a tree and makes its links links again: some ways of handing files around (archives without links, mounts)
/// turn each into a file that holds where it led. Links are made, never followed.
///
/// # Panics
/// When a file cannot be read or written.
pub fn copy_with_links(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the tree can be listed") {
        let entry = entry.expect("the tree can be listed");
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_symlink() {
            symlink(fs::read_link(&path).expect("a link can be read"), &copy).expect("a link can be made");
        } else if kind.is_dir() {
            copy_with_links(&path, &copy);
        } else {
            let content = fs::read(&path).expect("a file can be read");
            match String::from_utf8(content.clone()) {
                Ok(target) if was_link(&path, &target) => symlink(target, &copy).expect("a link can be made"),
                _ => fs::write(&copy, content).expect("a file can be written"),
            }
        }
    }
}

/// Whether a file is what became of a link: in sysfs these are links always, and their text ends without a newline.
fn was_link(path: &Path, content: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let in_class = path
        .parent()
        .is_some_and(|folder| folder.ends_with("class/hwmon") || folder.ends_with("class/thermal"));
    (in_class || name == "device" || name == "subsystem")
        && content.starts_with("..")
        && !content.ends_with('\n')
}
