//! What the server's stream says to a proxy, and what the proxy does with it.

use std::sync::LazyLock;
use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use pulse_proto::signature::{PublicKey, SigningKey, Statement};
use pulse_proto::v1::watch_authorized_nodes_response::Kind;
use pulse_proto::v1::{self, AllowlistSnapshot, WatchAuthorizedNodesResponse};
use pulse_proto::{Allowlist, Position, Refusal, Scope, SignedAllowlist};
use pulse_sensor_proxy::cache::{self, Expected};
use pulse_sensor_proxy::identity::trusted::{self, Offered};
use uuid::Uuid;

use crate::{assert_tells, folder, switches};

/// The hash is set right before the message is looked at: with this bit of the first byte.
pub const FIX_HASH: u8 = 1;
/// It is signed.
pub const SIGN: u8 = 2;
/// The nodes are sorted and have no doubles.
pub const SORT: u8 = 4;
/// The rest is no message: one is made of it, node by node.
pub const MAKE: u8 = 8;
/// The proxy has come further than any list.
pub const AHEAD: u8 = 16;

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate().expect("the system has random bytes").0);

/// A byte of switches, then a `WatchAuthorizedNodesResponse`: a list that is taken is the one that was signed, stays
/// it on the disk, and never leads back; one that is refused is refused for a reason that can be reported.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let Some((switches, rest)) = switches(data) else { return };
    let message = match switches & MAKE {
        0 => match WatchAuthorizedNodesResponse::decode(rest) {
            Ok(message) => message,
            Err(_) => return,
        },
        _ => made(rest),
    };
    if let Some(server) = &message.server {
        check_keys(server);
    }
    if let Some(Kind::Snapshot(mut list)) = message.kind {
        put_right(&mut list, switches);
        let reached = match switches & AHEAD {
            0 => Position::default(),
            _ => Position { epoch: u64::MAX, revision: u64::MAX },
        };
        check_list(&list, reached, switches);
    }
}

fn put_right(list: &mut AllowlistSnapshot, switches: u8) {
    let Ok(allowlist) = Allowlist::from_wire(&list.nodes) else { return };
    if switches & SORT != 0 {
        list.nodes = allowlist.to_wire();
    }
    if switches & FIX_HASH != 0 {
        list.hash = allowlist.hash().to_string();
    }
    if let (true, Ok(scope)) = (switches & SIGN != 0, list.scope.parse()) {
        let (epoch, revision, hash) = (list.epoch, list.revision, allowlist.hash());
        list.key_id = KEY.public().key_id();
        list.signature = KEY.sign(&Statement { epoch, revision, scope, hash });
    }
}

fn check_list(list: &AllowlistSnapshot, reached: Position, switches: u8) {
    let keys = [KEY.public()];
    let position = Position { epoch: list.epoch, revision: list.revision };
    let verified = match SignedAllowlist::verify(list, &keys, reached) {
        Ok(verified) => verified,
        Err(refusal) => {
            assert_ne!(refusal.reason(), v1::RefusalReason::Unspecified);
            assert_tells(&refusal.to_string(), 1_024);
            if let Refusal::Hash { said, actual } = &refusal {
                assert_ne!(*said, actual.to_string(), "the reason says nothing");
            }
            let is_put_right = switches & (SORT | FIX_HASH | SIGN) == SORT | FIX_HASH | SIGN;
            assert!(
                !is_put_right
                    || matches!(refusal, Refusal::Scope(_) | Refusal::TooLarge(_) | Refusal::Node(_))
                    || position < reached,
                "a good list is refused: {refusal}"
            );
            return;
        }
    };
    assert!(position >= reached, "a list leads back");
    assert_eq!(verified.position, position);
    let mut nodes = list.nodes.clone();
    nodes.sort_by_key(|node| format!("{}|{}", node.name, node.ip));
    assert_eq!(verified.allowlist.to_wire(), nodes);
    assert_eq!(verified.allowlist.hash().to_string(), list.hash);
    assert_eq!(verified.scope.to_string(), list.scope);
    assert_ne!(switches & SIGN, 0, "a signature was guessed");

    let again = SignedAllowlist::verify(&verified.to_wire(), &keys, position);
    assert_eq!(again.as_ref(), Ok(&verified), "the list is another one when it is sent on");
    if list.nodes.len() <= 64 {
        check_disk(&verified, &keys);
    }
}

/// A list that was kept is the one that is read.
fn check_disk(list: &SignedAllowlist, keys: &[PublicKey]) {
    let (folder, proxy_id) = (folder(), Some(Uuid::from_u128(7)));
    let path = folder.path().join("allowlist.cache");
    cache::store(&path, proxy_id, list, SystemTime::now()).expect("a temporary folder can be written");
    let cached = cache::load(&path, Expected { proxy_id, keys, reached: list.position });
    assert_eq!(&cached.expect("what was kept is read").list, list);
}

/// A known key stays known, and a new one needs the word of a known one.
fn check_keys(server: &v1::ServerInfo) {
    let known = [KEY.public()];
    let offered = server.signing_keys.iter().map(|key| Offered {
        public_key: &key.public_key,
        announcement_signature: &key.announcement_signature,
        announced_by: &key.announced_by,
    });
    assert_eq!(
        trusted::trust(&known, offered, Some(&known[0].key_id())),
        known,
        "a key is trusted that nobody announced"
    );
}

/// Makes a list of bytes: each node takes one for its name, one for its address.
fn made(bytes: &[u8]) -> WatchAuthorizedNodesResponse {
    let (head, nodes) = bytes.split_at(bytes.len().min(4));
    let at = |index: usize| head.get(index).copied().unwrap_or_default();
    let node = |pair: &[u8]| v1::Node { name: name(pair[0]), ip: address(pair[pair.len() - 1]) };
    let scope = match at(0) % 4 {
        0 => Scope::All.to_string(),
        1 => Scope::Instance(Uuid::from_u128(1)).to_string(),
        2 => "instance:ALL".to_owned(),
        _ => String::new(),
    };
    let list = AllowlistSnapshot {
        epoch: u64::from(at(1)) << (at(2) % 64),
        scope,
        revision: u64::from(at(2)),
        nodes: nodes.chunks(2).map(node).collect(),
        updated_at: Some(Timestamp { seconds: i64::from(at(3)) << 33, nanos: i32::from(at(3)) << 23 }),
        refresh_interval: Some(prost_types::Duration { seconds: i64::from(at(3)) - 8, nanos: -1 }),
        ..AllowlistSnapshot::default()
    };
    WatchAuthorizedNodesResponse { kind: Some(Kind::Snapshot(list)), server: None }
}

fn name(byte: u8) -> String {
    match byte {
        0 => String::new(),
        1 => "10.0.0.1".to_owned(),
        2 => "a".repeat(63),
        3 => "a".repeat(64),
        4 => "*".to_owned(),
        5 => "a|b".to_owned(),
        byte if byte % 2 == 0 => format!("n{}", byte / 2),
        byte => format!("N{}", byte / 2),
    }
}

fn address(byte: u8) -> String {
    match byte {
        0 => "10.0.0.0/8".to_owned(),
        1 => "::ffff:10.0.0.1".to_owned(),
        2 => "fe80::1%eth0".to_owned(),
        3 => "FD00::1".to_owned(),
        byte if byte % 4 == 0 => String::new(),
        byte if byte % 4 == 1 => format!("10.0.0.{byte}"),
        byte if byte % 4 == 2 => format!("fd00::{byte:x}"),
        byte => format!("n{byte}.example"),
    }
}
