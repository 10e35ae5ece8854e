//! Golden vectors of the contract: what neither end may change alone.

use std::time::{Duration, SystemTime};

use pulse_proto::signature::{PublicKey, SigningKey, Statement};
use pulse_proto::{Allowlist, Node, Position, Refusal, Scope, SignedAllowlist, v1};

fn list(nodes: &[(&str, &str)]) -> Allowlist {
    Allowlist::new(nodes.iter().map(|(name, ip)| Node::new(name, ip).expect("a valid node")))
}

#[test]
fn lists_hash_to_their_golden_values() {
    for (nodes, hash) in [
        (
            &[("minipc", "192.168.0.134"), ("delly", "192.168.0.5")][..],
            "sha256:13f92edc790d73eee2b3c74da15404d3ef2ef0cfd390d89fbbb8c192b223c55b",
        ),
        (
            &[("delly", "192.168.0.5"), ("delly", "")],
            "sha256:bae4f6d8ef69e3aafa158ec94b228c32a63a16dfabb6a10839f1523cabee459f",
        ),
        (&[], "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ] {
        assert_eq!(list(nodes).hash().to_string(), hash, "{nodes:?}");
    }
}

/// RFC 8032, section 7.1, TEST 1: the key pair whose seed is this, in a PKCS #8 document (RFC 8410).
const TEST_KEY: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, 0x9d,
    0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
    0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

fn statement() -> Statement {
    let scope = "instance:0192d3a8-7f3c-7d3e-8a51-0242ac120002".parse().expect("a valid scope");
    let hash = list(&[("delly", "192.168.0.5"), ("minipc", "192.168.0.134")]).hash();
    Statement { epoch: 1_763_600_000_000, revision: 42, scope, hash }
}

#[test]
fn the_signed_bytes_and_the_signature_are_golden() {
    assert_eq!(
        String::from_utf8(statement().bytes()).unwrap(),
        "pulse-allowlist-v1\n1763600000000\n42\ninstance:0192d3a8-7f3c-7d3e-8a51-0242ac120002\n\
         sha256:13f92edc790d73eee2b3c74da15404d3ef2ef0cfd390d89fbbb8c192b223c55b\n"
    );
    let key = SigningKey::from_pkcs8(&TEST_KEY).unwrap();
    assert_eq!(key.public().key_id(), "21fe31dfa154a261");
    let signature = pulse_proto::hex::encode(&key.sign(&statement()));
    assert_eq!(signature, GOLDEN_SIGNATURE);
}

/// Ed25519 is deterministic: made once with Python's `cryptography` from the same seed and bytes.
const GOLDEN_SIGNATURE: &str = "ee97e6a946603de2e17bd7d3737340ce2ef1250ad1c5c147c8faac5aa91a9151cf914557dc3464fe3fd654a3b534ae1d09667c19514acc36e0943b93d6b7220f";

fn signed(revision: u64) -> (SignedAllowlist, Vec<PublicKey>) {
    let key = SigningKey::from_pkcs8(&TEST_KEY).expect("the key of RFC 8032");
    let list = list(&[("delly", "192.168.0.5"), ("minipc", "192.168.0.134")]);
    let position = Position { epoch: 7, revision };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let signed = SignedAllowlist::sign(&key, position, Scope::All, list, at, Duration::from_secs(60));
    (signed, vec![key.public()])
}

#[test]
fn a_list_survives_the_wire_and_is_verified() {
    let (list, keys) = signed(3);
    let reached = Position { epoch: 7, revision: 3 };
    assert_eq!(SignedAllowlist::verify(&list.to_wire(), &keys, reached), Ok(list));
}

type Alteration = fn(&mut v1::AllowlistSnapshot);

#[test]
fn whatever_is_altered_on_the_way_is_refused_for_its_own_reason() {
    use v1::RefusalReason as Reason;
    let (list, keys) = signed(3);
    let alterations: [(Reason, Alteration); 12] = [
        (Reason::WrongHash, |l| l.nodes[0].ip = "192.168.0.6".into()),
        (Reason::WrongHash, |l| l.nodes.swap_remove(1).name.clear()),
        (Reason::WrongHash, |l| l.nodes.push(l.nodes[0].clone())),
        (Reason::WrongHash, |l| l.hash = l.hash.to_uppercase()),
        (Reason::InvalidNode, |l| l.nodes[0].name = "0.0.0.0/0".into()),
        (Reason::InvalidNode, |l| l.nodes[0].ip = "::ffff:192.168.0.5".into()),
        (Reason::BadSignature, |l| l.revision += 1),
        (Reason::BadSignature, |l| l.epoch += 1),
        (Reason::BadSignature, |l| l.scope = "instance:0192d3a8-7f3c-7d3e-8a51-0242ac120002".into()),
        (Reason::BadSignature, |l| l.signature[0] ^= 1),
        (Reason::WrongScope, |l| l.scope = "ALL".into()),
        (Reason::UnknownKey, |l| l.key_id = "0".repeat(16)),
    ];
    for (at, (reason, alter)) in alterations.into_iter().enumerate() {
        let mut wire = list.to_wire();
        alter(&mut wire);
        let refusal = SignedAllowlist::verify(&wire, &keys, Position::default()).unwrap_err();
        assert_eq!(refusal.reason(), reason, "alteration {at}: {refusal}");
    }
}

#[test]
fn the_order_of_nodes_on_the_wire_does_not_count() {
    let (list, keys) = signed(3);
    let mut wire = list.to_wire();
    wire.nodes.reverse();
    assert_ne!(wire, list.to_wire());
    assert_eq!(SignedAllowlist::verify(&wire, &keys, Position::default()), Ok(list));
}

#[test]
fn a_double_is_refused_as_one_and_not_as_two_equal_hashes() {
    let (list, keys) = signed(3);
    let mut wire = list.to_wire();
    wire.nodes.push(v1::Node { name: "DELLY".into(), ip: "192.168.0.5".into() });
    let hash = Allowlist::from_wire(&wire.nodes).unwrap().hash();
    wire.hash = hash.to_string();
    let refusal = SignedAllowlist::verify(&wire, &keys, Position::default()).unwrap_err();
    assert_eq!(refusal, Refusal::Doubled { nodes: 3, different: 2 });
    assert!(refusal.to_string().contains("case-blind"), "{refusal}");
}

#[test]
fn a_list_behind_what_was_reached_is_refused() {
    let (list, keys) = signed(3);
    let verify =
        |epoch, revision| SignedAllowlist::verify(&list.to_wire(), &keys, Position { epoch, revision });
    assert_eq!(verify(7, 4), Err(Refusal::OlderRevision { list: 3, held: 4 }));
    assert_eq!(verify(8, 0), Err(Refusal::OlderEpoch { list: 7, held: 8 }));
    assert!(verify(6, 99).is_ok(), "a new epoch begins its revisions anew");
}

#[test]
fn a_list_of_too_many_nodes_is_refused_before_it_is_hashed() {
    let (list, keys) = signed(3);
    let mut wire = list.to_wire();
    wire.nodes = vec![wire.nodes[0].clone(); pulse_proto::MAX_NODES + 1];
    let refusal = SignedAllowlist::verify(&wire, &keys, Position::default()).unwrap_err();
    assert_eq!(refusal, Refusal::TooLarge(pulse_proto::MAX_NODES + 1));
}

#[test]
fn a_message_encoded_once_decodes_as_any_other() {
    use prost::Message;
    use pulse_proto::encoded::Encoded;
    let (list, _) = signed(3);
    let server = v1::ServerInfo { version: "1".into(), ..Default::default() };
    let info = Encoded::new(&v1::WatchAuthorizedNodesResponse { kind: None, server: Some(server.clone()) });
    let merged = list.to_message().merged(&info);
    let decoded = v1::WatchAuthorizedNodesResponse::decode(merged.as_bytes()).unwrap();
    assert_eq!(decoded.server, Some(server));
    assert_eq!(decoded.kind, Some(v1::watch_authorized_nodes_response::Kind::Snapshot(list.to_wire())));
}
