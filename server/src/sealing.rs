//! The sealing key: what encrypts secrets that are kept where others can read them.
//!
//! In: the key's file, and secrets with the place where each belongs. Out: sealed bytes, and the secrets again.
//! Always: AES-256-GCM under a fresh nonce, bound to the place, so that a secret which was moved elsewhere does not open.
//! Never: shows the key or a secret; makes a key where one should be.

mod exchange;
mod mac;

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, MAX_TAG_LEN, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::whole_file::{self, Access};

pub use exchange::{all_of, found_next, next_of, put_in_place, settle};

/// The first byte of what is sealed: its form. Nonce, ciphertext and tag follow.
const FORM: u8 = 1;

/// The bytes of a key.
const KEY_BYTES: usize = 32;

/// Why a key or a secret cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealingError {
    /// There is no file where the key should be.
    #[error(
        "the database's keys are sealed, and the key that opens them is not there ({}): copy secret.key from the data folder of \
         a server that is on this database, or out of a backup of this one, or name its file with secret_key_file", .0.display()
    )]
    Missing(PathBuf),
    /// The file cannot be read or written.
    #[error("{doing} {}: {why}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why it failed.
        why: String,
    },
    /// The file holds no key.
    #[error("{} holds no key: it must be 32 bytes in base64, as `openssl rand -base64 32` makes them", .0.display())]
    Unfit(PathBuf),
    /// The key is another than the one that sealed this, or the sealed bytes are damaged.
    #[error(
        "{} is not the key under which {place} is sealed, or what is sealed is damaged: put back the secret.key that was there, as \
         a backup has it, or the one that the other servers on this database have", path.display()
    )]
    Wrong {
        /// The key's file.
        path: PathBuf,
        /// What does not open.
        place: String,
    },
    /// The key's file is somebody else's to write.
    #[error(
        "the key is in {}, which is not the server's own to write: make a new one (`openssl rand -base64 32`) in a file that the \
         server can read, say `pulse key rotate --new-key-file FILE`, and put FILE in the place of the old one before the server's \
         next start", .0.display()
    )]
    Elsewhere(PathBuf),
    /// A file with a new key was named, and the server makes it itself.
    #[error("the key is in {}, which is the server's own: it makes the new one itself, without --new-key-file", .0.display())]
    Own(PathBuf),
    /// The new key is the old one.
    #[error("{} holds the key that is in use: make another one, as `openssl rand -base64 32` does", .0.display())]
    Same(PathBuf),
    /// The system gives no random bytes.
    #[error("get random bytes from the system")]
    Random,
}

/// A key, and the file that it is from.
pub struct SealingKey {
    cipher: RandomizedNonceKey,
    bytes: [u8; KEY_BYTES],
    path: PathBuf,
}

impl SealingKey {
    /// Reads the key in this file.
    ///
    /// # Errors
    /// [`SealingError::Missing`] if there is none; [`SealingError::File`], [`SealingError::Unfit`].
    pub fn open(path: &Path) -> Result<SealingKey, SealingError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(SealingError::Missing(path.to_owned()));
            }
            Err(error) => return Err(failed("read", path, &error)),
        };
        if std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o004 != 0) {
            let path = path.display();
            tracing::warn!(%path, "every user of this machine can read the key that opens the fleet's secrets: chmod o-rwx it");
        }
        SealingKey::parse(&text, path)
    }

    /// Reads the key in this file, and makes it if there is none: for a database that has nothing sealed yet.
    ///
    /// # Errors
    /// [`SealingError`], but for [`SealingError::Missing`].
    pub fn open_or_make(path: &Path) -> Result<SealingKey, SealingError> {
        match SealingKey::open(path) {
            Err(SealingError::Missing(_)) => {}
            opened => return opened,
        }
        let key = SealingKey::generate(path)?;
        key.write(path)?;
        tracing::info!(path = %path.display(), "sealing key made");
        Ok(key)
    }

    /// Reads the content of a file.
    ///
    /// # Errors
    /// [`SealingError::Unfit`].
    pub fn parse(text: &[u8], path: &Path) -> Result<SealingKey, SealingError> {
        let bytes = STANDARD.decode(text.trim_ascii()).ok().and_then(|bytes| bytes.try_into().ok());
        SealingKey::of(bytes.ok_or_else(|| SealingError::Unfit(path.to_owned()))?, path)
    }

    /// Makes a key for this file, and does not write it.
    ///
    /// # Errors
    /// [`SealingError::Random`].
    pub fn generate(path: &Path) -> Result<SealingKey, SealingError> {
        let mut bytes = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealingError::Random)?;
        SealingKey::of(bytes, path)
    }

    fn of(bytes: [u8; KEY_BYTES], path: &Path) -> Result<SealingKey, SealingError> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &bytes);
        let cipher = cipher.map_err(|_| SealingError::Unfit(path.to_owned()))?;
        Ok(SealingKey { cipher, bytes, path: path.to_owned() })
    }

    /// Writes it to a file, for its owner alone; whole or not at all.
    fn write(&self, path: &Path) -> Result<(), SealingError> {
        let text = STANDARD.encode(self.bytes) + "\n";
        let written = whole_file::write(path, text.as_bytes(), Access::Secret);
        written.map_err(|error| failed("write", path, &error))
    }

    /// The file that it is from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are the same key, from whatever file.
    #[must_use]
    pub fn is_same(&self, other: &SealingKey) -> bool {
        self.bytes == other.bytes
    }

    /// Seals a secret for one place, such as `fleet.signing_key` of a database.
    ///
    /// # Errors
    /// [`SealingError::Random`].
    pub fn seal(&self, place: &str, secret: &[u8]) -> Result<Vec<u8>, SealingError> {
        let mut text = secret.to_vec();
        let sealed = self.cipher.seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut text);
        let nonce = sealed.map_err(|_| SealingError::Random)?;
        Ok([&[FORM][..], nonce.as_ref(), &text].concat())
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`SealingError::Wrong`].
    pub fn open_sealed(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealingError> {
        let open = || {
            let sealed = sealed.strip_prefix(&[FORM])?;
            let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = text.to_vec();
            self.cipher.open_in_place(nonce, Aad::from(place.as_bytes()), &mut text).ok()?;
            text.truncate(text.len() - MAX_TAG_LEN);
            Some(text)
        };
        open().ok_or_else(|| SealingError::Wrong { path: self.path.clone(), place: place.to_owned() })
    }
}
impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("path", &self.path).finish_non_exhaustive()
    }
}

fn failed(doing: &'static str, path: &Path, error: &std::io::Error) -> SealingError {
    SealingError::File { doing, path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_in_its_place_under_its_key_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        assert_eq!(SealingKey::open(&path).unwrap_err(), SealingError::Missing(path.clone()));
        let made = SealingKey::open_or_make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = made.seal("fleet.signing_key", b"secret").unwrap();
        assert_ne!(sealed, made.seal("fleet.signing_key", b"secret").unwrap(), "the nonce is another");
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        let again = SealingKey::open_or_make(&path).unwrap();
        assert_eq!(again.open_sealed("fleet.signing_key", &sealed).unwrap(), b"secret");
        let wrong = |key: &SealingKey, place: &str, sealed: &[u8]| {
            matches!(key.open_sealed(place, sealed), Err(SealingError::Wrong { .. }))
        };
        assert!(wrong(&again, "fleet.authority_key", &sealed), "it is of another place");
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(wrong(&again, "fleet.signing_key", &damaged), "byte {at} is another");
            assert!(wrong(&again, "fleet.signing_key", &sealed[..at]), "it ends after {at} bytes");
        }
        let other = SealingKey::open_or_make(&folder.path().join("other.key")).unwrap();
        assert!(wrong(&other, "fleet.signing_key", &sealed));
    }

    #[test]
    fn a_file_that_holds_no_key_is_said_to_hold_none_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        for text in ["", "no key", "c2hvcnQ="] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(SealingKey::open_or_make(&path).unwrap_err(), SealingError::Unfit(path.clone()));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
