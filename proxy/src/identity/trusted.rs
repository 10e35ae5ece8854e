//! Which keys may sign lists: those learnt first, and those that a trusted key announces.
//!
//! In: keys as the server says them. Out: the keys to pin. Always: after the first time, a key comes in only with a
//! signature by one that is known. Never: drops a key that the server offers, or the one that signs the list on the disk.

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
/// Of more than `MAX_KEYS` the oldest go that the server no longer offers; never `kept`, which signs the list on the disk.
pub fn trust<'a>(
    known: &[PublicKey],
    offered: impl Iterator<Item = Offered<'a>> + Clone,
    kept: Option<&str>,
) -> Vec<PublicKey> {
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
            if is_announced && !trusted.contains(&key) && makes_room(&mut trusted, offered.clone(), kept) {
                trusted.push(key);
            }
        }
        if trusted.len() == before {
            return trusted;
        }
    }
}

/// Takes out the oldest key that is of no use any more, if there are as many as there may be.
fn makes_room<'a>(
    trusted: &mut Vec<PublicKey>,
    offered: impl Iterator<Item = Offered<'a>> + Clone,
    kept: Option<&str>,
) -> bool {
    if trusted.len() < MAX_KEYS {
        return true;
    }
    let is_of_no_use = |key: &PublicKey| {
        let is_offered = offered.clone().any(|offer| offer.public_key == key.as_bytes());
        !is_offered && kept != Some(key.key_id().as_str())
    };
    let Some(oldest) = trusted.iter().position(is_of_no_use) else { return false };
    trusted.remove(oldest);
    true
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
        assert_eq!(trust(&[], [in_use(&first)].into_iter(), None), [first]);
        assert_eq!(trust(&[first], [in_use(&second)].into_iter(), None), [first]);
        let (signature, by) = (announcement(&first_pair, &second), first.key_id());
        let announced = Offered { announcement_signature: &signature, announced_by: &by, ..in_use(&second) };
        assert_eq!(trust(&[first], [announced].into_iter(), None), [first, second]);
        let forged = Offered { announcement_signature: &[0; 64], ..announced };
        assert_eq!(trust(&[first], [forged].into_iter(), None), [first]);
    }

    #[test]
    fn of_too_many_keys_the_oldest_goes_that_nothing_needs() {
        let pairs: Vec<_> = (0..=MAX_KEYS).map(|_| pair()).collect();
        let known: Vec<_> = pairs[..MAX_KEYS].iter().map(|(_, key)| *key).collect();
        let (newest, current) = (&pairs[MAX_KEYS].1, &pairs[MAX_KEYS - 1]);
        let (signature, by) = (announcement(&current.0, newest), current.1.key_id());
        let announced = Offered { announcement_signature: &signature, announced_by: &by, ..in_use(newest) };
        // The server still offers the first, and the second signs the list on the disk.
        let offered = [in_use(&known[0]), in_use(&current.1), announced];
        let trusted = trust(&known, offered.into_iter(), Some(&known[1].key_id()));
        assert_eq!(trusted.len(), MAX_KEYS);
        assert!(trusted.contains(newest) && !trusted.contains(&known[2]));
        assert!(known.iter().filter(|key| **key != known[2]).all(|key| trusted.contains(key)));
    }
}
