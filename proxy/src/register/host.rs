//! What this host calls itself: its name, and its machine id keyed for Pulse.
//!
//! Always: read from files. Never: the machine id itself leaves the host (machine-id(5) asks for that).

use std::io;
use std::path::Path;

use aws_lc_rs::hmac;
use pulse_proto::hex;

const KEY: &[u8] = b"pulse-machine-id-v1";

/// Where systemd keeps the machine id.
pub const MACHINE_ID: &str = "/etc/machine-id";

/// HMAC-SHA256 of the machine id with a key of Pulse's own: 64 hex digits; empty if the host has none.
pub fn machine_id(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match text.trim() {
        // "uninitialized" stands there during the first boot.
        "" | "uninitialized" => String::new(),
        id => hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), id.as_bytes()).as_ref()),
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
        assert_eq!(machine_id(&path), "");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let id = machine_id(&path);
        assert!(id.len() == 64 && !id.contains("0123456789abcdef"));
        std::fs::write(&path, "uninitialized\n").unwrap();
        assert_eq!(machine_id(&path), "");
    }
}
