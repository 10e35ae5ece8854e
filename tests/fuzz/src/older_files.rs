//! Files of older installs, which `pulse import` reads.

use std::fs;

use pulse::import::{Findings, read_file, read_pulse_data};

use crate::{PLANTED, assert_tells, folder, switches};

/// The names under which forms are known.
const NAMES: [&str; 6] =
    ["config.yaml", "allowed_nodes.yaml", "corosync.conf", ".pulse-control-token", "nodes.enc", "anything"];

/// The first byte says under which name the others stand in a folder: what is found is the same each time, what is not taken says
/// why, no secret is told, and the file stays as it is.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let Some((which, content)) = switches(data) else { return };
    let folder = folder();
    let name = NAMES[usize::from(which) % NAMES.len()];
    let path = folder.path().join(name);
    fs::write(&path, content).expect("a file can be written");
    // 32 bytes of zero.
    fs::write(folder.path().join(".encryption.key"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .expect("a file can be written");
    let read = || if name == "nodes.enc" { read_pulse_data(folder.path()) } else { read_file(&path) };
    let findings = read();
    check_findings(&findings, data);
    assert_eq!(read(), findings, "it reads otherwise the second time");
    assert_eq!(fs::read(&path).expect("it is there"), content, "it is not as it was");
}

fn check_findings(findings: &Findings, data: &[u8]) {
    for unread in &findings.unread {
        assert_tells(&unread.to_string(), 4_096 + 4 * data.len());
    }
    for instance in &findings.instances {
        if let Some(name) = &instance.name {
            pulse_proto::Node::new(name, "").expect("it is a name that an instance may have");
        }
    }
    // A name that somebody gave is no secret, whatever it reads like.
    let is_named =
        findings.instances.iter().any(|instance| format!("{:?}", instance.nodes).contains(PLANTED));
    assert!(is_named || !format!("{findings:?}").contains(PLANTED), "a secret is told");
}
