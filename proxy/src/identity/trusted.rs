//! Which keys may sign lists: those learnt first, and those that a trusted key announces.
//!
//! In: keys as the server says them. Out: the keys to pin. Always: after the first time, a key comes in only with a
//! signature by one that is known. Never: drops a key, since the list on the disk may be signed with it.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use pulse_proto::hex;
use pulse_proto::signature::PublicKey;

/// More keys than a server can have in use and announced, over some rotations.
const MAX_KEYS: usize = 16;

/// A key as the server says it, with the signature that announces it if it is not in use yet.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// The key's 32 bytes.
    pub public_key: &'a [u8],
    /// The announcement's signature; empty on a key in use.
    pub announcement_signature: &'a [u8],
    /// The key that announces; empty on a key in use.
    pub announced_by: &'a str,
}

/// The keys to trust when `offered` is heard on an authenticated connection.
///
/// Without known keys those in use are learnt; with them, only announced ones are added.
pub fn trust<'a>(known: &[PublicKey], offered: impl Iterator<Item = Offered<'a>> + Clone) -> Vec<PublicKey> {
    let mut trusted = known.to_vec();
    if trusted.is_empty() {
        let in_use = offered.clone().filter(|key| key.announced_by.is_empty());
        trusted.extend(in_use.filter_map(|key| PublicKey::from_bytes(key.public_key).ok()).take(MAX_KEYS));
    }
    // A key may be announced by one that is announced itself: go round until nothing is added.
    loop {
        let before = trusted.len();
        for offer in offered.clone().filter(|key| !key.announced_by.is_empty()) {
            let Ok(key) = PublicKey::from_bytes(offer.public_key) else { continue };
            let by = trusted.iter().find(|known| known.key_id() == offer.announced_by);
            let is_announced = by.is_some_and(|by| announces(by, &key, offer.announcement_signature));
            if is_announced && !trusted.contains(&key) && trusted.len() < MAX_KEYS {
                trusted.push(key);
            }
        }
        if trusted.len() == before {
            return trusted;
        }
    }
}

fn announces(by: &PublicKey, key: &PublicKey, signature: &[u8]) -> bool {
    let statement = format!("pulse-signing-key-v1\n{}\n{}\n", key.key_id(), hex::encode(key.as_bytes()));
    UnparsedPublicKey::new(&ED25519, by.as_bytes()).verify(statement.as_bytes(), signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    fn pair() -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = PublicKey::from_bytes(pair.public_key().as_ref()).unwrap();
        (pair, public)
    }

    fn announcement(by: &Ed25519KeyPair, key: &PublicKey) -> Vec<u8> {
        let text = format!("pulse-signing-key-v1\n{}\n{}\n", key.key_id(), hex::encode(key.as_bytes()));
        by.sign(text.as_bytes()).as_ref().to_vec()
    }

    fn in_use(key: &PublicKey) -> Offered<'_> {
        Offered { public_key: key.as_bytes(), announcement_signature: &[], announced_by: "" }
    }

    #[test]
    fn the_first_keys_are_learnt_and_later_ones_need_an_announcement() {
        let ((first_pair, first), (_, second)) = (pair(), pair());
        assert_eq!(trust(&[], [in_use(&first)].into_iter()), [first]);
        assert_eq!(trust(&[first], [in_use(&second)].into_iter()), [first]);
        let (signature, by) = (announcement(&first_pair, &second), first.key_id());
        let announced = Offered { announcement_signature: &signature, announced_by: &by, ..in_use(&second) };
        assert_eq!(trust(&[first], [announced].into_iter()), [first, second]);
        let forged = Offered { announcement_signature: &[0; 64], ..announced };
        assert_eq!(trust(&[first], [forged].into_iter()), [first]);
    }
}
