//! Passwords: the rule for them, and their Argon2id hashes.
//!
//! Always: few are hashed at one time, each in some 20 MiB. Never: keeps a password, or shows one in an error.

use std::time::Duration;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The fewest and the most characters of a password.
pub const CHARACTERS: std::ops::RangeInclusive<usize> = 12..=256;

/// 19 MiB, two passes, one lane: the least that OWASP's Password Storage Cheat Sheet asks of Argon2id. Some 40 ms.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// So many are hashed at one time; the others wait.
static HASHING: Semaphore = Semaphore::const_new(2);
/// How long a password waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// Why a password was not hashed or compared.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PasswordError {
    /// It is too short or too long.
    #[error("a password has {} to {} characters; a few words with spaces between them are a good one", CHARACTERS.start(), CHARACTERS.end())]
    Length,
    /// Too many passwords wait to be compared.
    #[error("more passwords are being checked than the server does at one time: try again in a moment")]
    Busy,
    /// The hash cannot be made or read.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// A password, checked for its length.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password that somebody chose.
    ///
    /// # Errors
    /// [`PasswordError::Length`].
    pub fn chosen(text: String) -> Result<Password, PasswordError> {
        let password = Password(Zeroizing::new(text));
        match CHARACTERS.contains(&password.0.chars().count()) {
            true => Ok(password),
            false => Err(PasswordError::Length),
        }
    }

    /// Takes what somebody typed to log in.
    pub fn typed(text: String) -> Password {
        Password(Zeroizing::new(text))
    }

    /// Its Argon2id hash, in PHC form.
    ///
    /// # Errors
    /// [`PasswordError::Busy`], [`PasswordError::Hash`].
    pub async fn hash(self) -> Result<String, PasswordError> {
        apart(move || {
            let mut salt = [0; 16];
            let failed = |error: &dyn std::fmt::Display| PasswordError::Hash(error.to_string());
            aws_lc_rs::rand::fill(&mut salt).map_err(|_| failed(&"the system gave no random bytes"))?;
            let hash = argon2()?.hash_password_with_salt(self.0.as_bytes(), &salt);
            hash.map(|hash| hash.to_string()).map_err(|error| failed(&error))
        })
        .await?
    }

    /// Whether this is the password of a hash. `None`: there is none, which takes as long to find out.
    ///
    /// # Errors
    /// [`PasswordError::Busy`], [`PasswordError::Hash`].
    pub async fn is_of(self, hash: Option<&str>) -> Result<bool, PasswordError> {
        let hash = hash.map(str::to_owned);
        apart(move || {
            if self.0.chars().count() > *CHARACTERS.end() {
                return Ok(false);
            }
            let Some(hash) = hash else {
                let mut out = [0; 32];
                let hashed =
                    argon2()?.hash_password_into(self.0.as_bytes(), b"nobody is called so", &mut out);
                return hashed.map(|()| false).map_err(|error| PasswordError::Hash(error.to_string()));
            };
            let read = PasswordHash::new(&hash).map_err(|error| PasswordError::Hash(error.to_string()))?;
            Ok(argon2()?.verify_password(self.0.as_bytes(), &read).is_ok())
        })
        .await?
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// On a thread of its own, when its turn comes.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
    let turn = timeout(TURN, HASHING.acquire()).await.map_err(|_| PasswordError::Busy)?;
    // Nobody closes it.
    let turn = turn.ok();
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.map_err(|_| PasswordError::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_no_other_is() {
        let hash = Password::chosen("correct horse battery".to_owned()).unwrap().hash().await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let is_of = |text: &str| Password::typed(text.to_owned()).is_of(Some(&hash));
        assert!(is_of("correct horse battery").await.unwrap());
        assert!(!is_of("correct horse batterz").await.unwrap());
        assert!(!is_of("").await.unwrap());
        assert!(!Password::typed("anything".to_owned()).is_of(None).await.unwrap());
        let other = Password::chosen("correct horse battery".to_owned()).unwrap().hash().await.unwrap();
        assert_ne!(hash, other, "each has a salt of its own");
    }

    #[tokio::test]
    async fn a_password_has_12_to_256_characters() {
        for (text, is_good) in [("x".repeat(11), false), ("ä".repeat(12), true), ("x".repeat(257), false)] {
            assert_eq!(Password::chosen(text).is_ok(), is_good);
        }
    }
}
