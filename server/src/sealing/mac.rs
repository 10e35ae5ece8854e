//! Marks that only who has the key can make: for what may be read, and must not be set by others.
//!
//! Always: each purpose has a key of its own, made of the sealing key.

use aws_lc_rs::hmac::{self, HMAC_SHA256};

use super::SealingKey;

impl SealingKey {
    /// The mark of a message for one purpose: HMAC-SHA256, 32 bytes.
    #[must_use]
    pub fn mark(&self, purpose: &str, message: &[u8]) -> Vec<u8> {
        hmac::sign(&self.key_for(purpose), message).as_ref().to_vec()
    }

    /// Whether a mark is that of this message.
    #[must_use]
    pub fn is_marked(&self, purpose: &str, message: &[u8], mark: &[u8]) -> bool {
        hmac::verify(&self.key_for(purpose), message, mark).is_ok()
    }

    fn key_for(&self, purpose: &str) -> hmac::Key {
        let own = hmac::sign(&hmac::Key::new(HMAC_SHA256, &self.bytes), purpose.as_bytes());
        hmac::Key::new(HMAC_SHA256, own.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_mark_is_of_its_message_its_purpose_and_its_key() {
        let (key, other) =
            (SealingKey::generate(Path::new("a")).unwrap(), SealingKey::generate(Path::new("b")).unwrap());
        let mark = key.mark("one", b"message");
        assert!(key.is_marked("one", b"message", &mark));
        assert!(!key.is_marked("two", b"message", &mark) && !key.is_marked("one", b"massage", &mark));
        assert!(!other.is_marked("one", b"message", &mark) && !key.is_marked("one", b"message", &mark[1..]));
    }
}
