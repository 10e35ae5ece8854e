//! What this host calls itself: its name, and its machine id keyed for Pulse.
//!
//! Always: read from files. Never: the machine id itself leaves the host (machine-id(5) asks for that).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use pulse_proto::hex;

use crate::config::DEFAULT_STATE_DIR;

const KEY: &[u8] = b"pulse-machine-id-v1";

/// Where systemd keeps the machine id.
pub const MACHINE_ID: &str = "/etc/machine-id";

/// HMAC-SHA256 with a key of Pulse's own: 64 hex digits; empty if the host has no machine id.
///
/// What is hashed is the machine id, and for a state folder that is not the default one a line end and its absolute path
/// without links: two proxies on one machine have two state folders, and so two ids, and a folder that was emptied, or
/// removed and made again, has the id that it had.
pub fn machine_id(path: &Path, state_dir: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let id = match text.trim() {
        // "uninitialized" stands there during the first boot.
        "" | "uninitialized" => return String::new(),
        id => id,
    };
    let mut hashed = id.as_bytes().to_vec();
    let folder = without_links(state_dir);
    if folder != without_links(Path::new(DEFAULT_STATE_DIR)) {
        hashed.push(b'\n');
        hashed.extend_from_slice(folder.as_os_str().as_bytes());
    }
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &hashed).as_ref())
}

/// The absolute path without links and dots. Of a folder that is not there, the part that is.
fn without_links(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    let mut there = absolute.as_path();
    loop {
        if let Ok(found) = there.canonicalize() {
            return missing.iter().rev().fold(found, |mut path, part: &OsString| {
                match part.as_encoded_bytes() {
                    b".." => _ = path.pop(),
                    _ => path.push(part),
                }
                path
            });
        }
        match (there.parent(), there.components().next_back()) {
            (Some(parent), Some(part)) => {
                missing.push(part.as_os_str().to_owned());
                there = parent;
            }
            _ => return absolute,
        }
    }
}

/// The host's name, as the kernel has it.
///
/// # Errors
/// `/proc` is not mounted.
pub fn hostname() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_id_is_keyed_and_none_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine-id");
        let state = Path::new(DEFAULT_STATE_DIR);
        assert_eq!(machine_id(&path, state), "");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        // Calculated with `openssl dgst -sha256 -hmac`; servers have it on their disks.
        let expected = "1249f48a2ca40c51a48184c677c0521cadd3f27f512f28216cf918111508994f";
        assert_eq!(machine_id(&path, state), expected);
        assert_eq!(machine_id(&path, Path::new("/var/../var/lib//pulse-sensor-proxy/")), expected);
        std::fs::write(&path, "uninitialized\n").unwrap();
        assert_eq!(machine_id(&path, state), "");
    }

    #[test]
    fn another_state_folder_is_another_id_and_a_wiped_one_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine-id");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let (state, link) = (folder.path().join("deep/state"), folder.path().join("link"));
        let before = machine_id(&path, &state);
        assert_ne!(before, machine_id(&path, Path::new(DEFAULT_STATE_DIR)));
        assert_ne!(before, machine_id(&path, &folder.path().join("deep/other")));
        std::fs::create_dir_all(&state).unwrap();
        std::os::unix::fs::symlink(folder.path().join("deep"), &link).unwrap();
        for same in [state.clone(), link.join("state"), state.join("..").join("state")] {
            assert_eq!(machine_id(&path, &same), before, "{}", same.display());
        }
    }
}
