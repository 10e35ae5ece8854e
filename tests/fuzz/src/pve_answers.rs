//! Answers of Proxmox VE, as hosts give them, and as nobody should.

use std::collections::BTreeSet;
use std::time::SystemTime;

use pulse::inventory::Instance;
use pulse::poller::nodes_of;
use pulse::pve::answers;
use uuid::Uuid;

use crate::{assert_tells, switches};

/// The longest text of a doubt, beside what a host says of itself: a refusal is bounded by HTTP, and here by the input.
const MAX_DOUBT_BYTES: usize = 4_096;

/// The first byte says which answer it is: a version; a membership, which then means nodes in one order whatever the order of its
/// members; or the nodes.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let Some((which, body)) = switches(data) else { return };
    match which % 3 {
        0 => match answers::version(body) {
            Ok(version) => assert!(version.major > 0 && !version.text.is_empty(), "{version:?}"),
            Err(doubt) => assert_tells(&doubt.to_string(), MAX_DOUBT_BYTES + body.len()),
        },
        1 => match answers::membership(body) {
            Ok(membership) => check_membership(membership),
            Err(doubt) => assert_tells(&doubt.to_string(), MAX_DOUBT_BYTES + body.len()),
        },
        _ => match answers::nodes("/nodes", body) {
            Ok(names) => assert!(names.iter().all(|name| !name.is_empty())),
            Err(doubt) => assert_tells(&doubt.to_string(), MAX_DOUBT_BYTES + body.len()),
        },
    }
}

fn check_membership(mut membership: answers::Membership) {
    let names: BTreeSet<String> =
        membership.members.iter().map(|member| member.name.to_ascii_lowercase()).collect();
    assert_eq!(names.len(), membership.members.len(), "two members of one name are doubt: {membership:?}");
    assert!(!names.is_empty(), "nobody is no cluster");
    let home = Instance::new(Uuid::nil(), "home", Vec::new(), SystemTime::UNIX_EPOCH);
    let nodes = nodes_of(&membership, "pve.lan", &home, false);
    membership.members.reverse();
    let turned = nodes_of(&membership, "pve.lan", &home, false);
    match (&nodes, &turned) {
        (Ok(nodes), Ok(turned)) => {
            assert_eq!(nodes, turned, "the order of members matters");
            assert_eq!(nodes.len(), names.len(), "a member is lost");
        }
        (Err(doubt), Err(_)) => assert_tells(&doubt.to_string(), usize::MAX),
        _ => panic!("the order of members matters: {nodes:?} {turned:?}"),
    }
}
