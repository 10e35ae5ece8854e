//! Which TLS keys of the server count, once the server announces others than the one that a person gave.
//!
//! In: what the server says of itself, and what is pinned. Out: the pins to take in place of those, or none.
//! Always: one that is pinned must be among them, so an announcement counts only where a pin vouched for the connection, a pin
//! of another kind (a leaf's) stays, and this proxy is never locked out; a trusted signing key must have signed them, so
//! whoever took the key of the server's certificate alone cannot bring pins of his own; and they never go back, so that whoever
//! took an earlier key cannot bring it in again with what the server said when it was good.

use pulse_proto::signature::{PinsStatement, PublicKey};
use pulse_proto::{Pin, v1};

/// The most pins that a server announces.
const MAX_PINS: usize = 4;

/// The pins that the server announces, the newest first, to take in place of those that are `known`; `None`: what is known
/// stays.
pub(crate) fn announced_pins(server: &v1::ServerInfo, keys: &[PublicKey], known: &[Pin]) -> Option<Vec<Pin>> {
    if !(1..=MAX_PINS).contains(&server.ca_pins.len()) {
        return None;
    }
    let pins: Vec<Pin> = server.ca_pins.iter().map(|pin| pin.parse().ok()).collect::<Option<_>>()?;
    // The newest known one is among them, and what stands behind it, being older, is known too.
    let newest = pins.iter().position(|pin| Some(pin) == known.first())?;
    if !pins[newest..].iter().all(|pin| known.contains(pin)) {
        return None;
    }
    let statement = PinsStatement { server_id: &server.server_id, pins: &server.ca_pins };
    let mut named = keys.iter().filter(|key| key.key_id() == server.ca_pins_key_id);
    if !named.any(|key| key.verifies_pins(&statement, &server.ca_pins_signature)) {
        tracing::warn!(
            "the server announces keys of its certificate without a trusted signature: those that are pinned stay"
        );
        return None;
    }
    Some(pins)
}

#[cfg(test)]
mod tests {
    use pulse_proto::signature::SigningKey;

    use super::*;

    fn server(key: &SigningKey, pins: &[Pin]) -> v1::ServerInfo {
        let ca_pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
        let statement = PinsStatement { server_id: "id", pins: &ca_pins };
        let ca_pins_signature = key.sign_pins(&statement);
        let ca_pins_key_id = key.public().key_id();
        v1::ServerInfo {
            server_id: "id".to_owned(),
            ca_pins,
            ca_pins_signature,
            ca_pins_key_id,
            ..v1::ServerInfo::default()
        }
    }

    #[test]
    fn pins_are_taken_if_a_trusted_key_signed_them_and_they_do_not_go_back() {
        let (key, other) = (SigningKey::generate().unwrap().0, SigningKey::generate().unwrap().0);
        let [old, new, leaf] = [&b"old"[..], b"new", b"leaf"].map(Pin::of_spki);
        let keys = [key.public()];
        let said = server(&key, &[new, old]);
        assert_eq!(announced_pins(&said, &keys, &[old]), Some(vec![new, old]));
        assert_eq!(announced_pins(&server(&key, &[new]), &keys, &[new, old]), Some(vec![new]));
        let next = Pin::of_spki(b"next");
        assert_eq!(
            announced_pins(&server(&key, &[next, new]), &keys, &[new, old]),
            Some(vec![next, new]),
            "the exchange after one whose end was not heard"
        );
        // What was said before, or during an exchange that is over: signed, and played back.
        assert_eq!(announced_pins(&server(&key, &[old]), &keys, &[new, old]), None);
        assert_eq!(announced_pins(&said, &keys, &[new]), None);
        // A connection that no pin vouched for, a leaf's pin, and a lock-out.
        for known in [&[][..], &[leaf]] {
            assert_eq!(announced_pins(&said, &keys, known), None);
        }
        assert_eq!(announced_pins(&server(&key, &[new]), &keys, &[old]), None);
        assert_eq!(announced_pins(&v1::ServerInfo::default(), &keys, &[old]), None);

        assert_eq!(announced_pins(&server(&other, &[new, old]), &keys, &[old]), None);
        let mut forged = said.clone();
        forged.ca_pins[0] = leaf.to_string();
        assert_eq!(announced_pins(&forged, &keys, &[old]), None);
        let of_another_server = v1::ServerInfo { server_id: "another".to_owned(), ..said };
        assert_eq!(announced_pins(&of_another_server, &keys, &[old]), None);
        assert_eq!(announced_pins(&server(&key, &[old; 5]), &keys, &[old]), None);
    }
}
