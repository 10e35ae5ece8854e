//! The signature of a list: who signs, over which bytes, and who checks.
//!
//! In: the statement that names a list. Out: Ed25519 signatures (RFC 8032), and their verdict.
//! Never: keeps a key anywhere but in memory.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::hash::{ListHash, sha256};
use crate::hex;
use crate::scope::Scope;

/// What is signed of a list: with the hash it covers every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Epoch of the list.
    pub epoch: u64,
    /// Revision of the list.
    pub revision: u64,
    /// Scope of the list.
    pub scope: Scope,
    /// Hash of the list.
    pub hash: ListHash,
}

impl Statement {
    /// The exact bytes: `pulse-allowlist-v1\n{epoch}\n{revision}\n{scope}\n{hash}\n`.
    pub fn bytes(&self) -> Vec<u8> {
        format!("pulse-allowlist-v1\n{}\n{}\n{}\n{}\n", self.epoch, self.revision, self.scope, self.hash)
            .into_bytes()
    }
}

/// What is signed of the pins that a server says its certificate may lead to. Whoever took the certificate's key alone
/// cannot bring pins of his own.
#[derive(Clone, Copy, Debug)]
pub struct PinsStatement<'a> {
    /// The server, as it names itself.
    pub server_id: &'a str,
    /// The pins, as they are written.
    pub pins: &'a [String],
}

impl PinsStatement<'_> {
    /// The exact bytes: `pulse-ca-pins-v1\n{server_id}\n`, then each pin and `\n`.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("pulse-ca-pins-v1\n{}\n", self.server_id);
        for pin in self.pins {
            text.push_str(pin);
            text.push('\n');
        }
        text.into_bytes()
    }
}

/// The server's key. Its `Debug` shows the public half only.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// The public half of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// A key could not be made or read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("make a signing key: the system gave no random bytes")]
    Random,
    /// The bytes are no PKCS #8 document of an Ed25519 key.
    #[error("the signing key is damaged")]
    Damaged,
    /// A public key has 32 bytes.
    #[error("a public key has 32 bytes")]
    Length,
}

impl SigningKey {
    /// Makes a new key; returns it with its PKCS #8 document, which is to be kept secret.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<(SigningKey, Vec<u8>), KeyError> {
        let document =
            Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8()).map_err(|_| KeyError::Random)?;
        let document = document.as_ref().to_vec();
        Ok((SigningKey::from_pkcs8(&document)?, document))
    }

    /// Reads a key from its PKCS #8 document.
    ///
    /// # Errors
    /// [`KeyError::Damaged`].
    pub fn from_pkcs8(document: &[u8]) -> Result<SigningKey, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(document).map_err(|_| KeyError::Damaged)?;
        let public = PublicKey::from_bytes(pair.public_key().as_ref())?;
        Ok(SigningKey { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs a statement: 64 bytes.
    pub fn sign(&self, statement: &Statement) -> Vec<u8> {
        self.pair.sign(&statement.bytes()).as_ref().to_vec()
    }

    /// Signs the pins of the server's authority: 64 bytes.
    pub fn sign_pins(&self, statement: &PinsStatement<'_>) -> Vec<u8> {
        self.pair.sign(&statement.bytes()).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.public.key_id()).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Takes a public key of 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::Length`].
    pub fn from_bytes(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        bytes.try_into().map(PublicKey).map_err(|_| KeyError::Length)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Names the key: the first 16 hex digits of its SHA-256.
    pub fn key_id(&self) -> String {
        hex::encode(&sha256(&self.0)[..8])
    }

    /// Whether `signature` is this key's over the statement.
    pub fn verifies(&self, statement: &Statement, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&statement.bytes(), signature).is_ok()
    }

    /// Whether `signature` is this key's over the pins.
    pub fn verifies_pins(&self, statement: &PinsStatement<'_>, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&statement.bytes(), signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}
