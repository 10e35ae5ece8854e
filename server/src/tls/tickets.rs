//! Keys with which clients resume their sessions, also after a restart: the server holds nothing for who is away.
//!
//! In: the certificate in use, the time. Out: tickets for rustls. Always: a key makes tickets for six hours and reads them
//! for as long again; a ticket is worth nothing once the certificate under which it was given is another, so whoever comes
//! back sees the new one. The keys are in a file of the data folder (`tickets.key`, 0600) and in no backup; one that
//! cannot be read or written costs full handshakes, and nothing else.
//! They are random, not made from the server's key: with it alone nobody can read what was recorded before.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, rand};
use rustls::server::ProducesTickets;
use rustls::sign::CertifiedKey;

use super::TlsError;
use super::files::{self, Access};

/// How long a key makes tickets; it reads them for as long again. As rustls has it for the keys that it makes itself.
const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);
/// What begins the file.
const VERSION: &str = "pulse-tickets-v1";

type Secret = [u8; 32];

/// See the module.
pub(super) struct Tickets {
    path: PathBuf,
    keys: ArcSwap<Keys>,
    /// One turn at a time.
    turning: Mutex<()>,
}

struct Keys {
    /// SHA-256 of the certificate for which they are.
    certificate: Secret,
    /// When the first one began.
    since: SystemTime,
    /// The one that makes tickets, and the one before it.
    current: Key,
    previous: Option<Key>,
}

struct Key {
    secret: Secret,
    cipher: RandomizedNonceKey,
}

impl Tickets {
    /// The keys of the file, if they are of this certificate and not too old; else new ones.
    pub(super) fn open(
        path: PathBuf,
        certified: &CertifiedKey,
        now: SystemTime,
    ) -> Result<Tickets, TlsError> {
        let certificate = digest_of(certified);
        let kept = match files::read(&path) {
            Ok(kept) => kept.and_then(|text| String::from_utf8(text).ok()?.parse::<Keys>().ok()),
            Err(error) => {
                tracing::warn!(
                    error = super::chain(&error),
                    "keys of sessions cannot be read; new ones are made"
                );
                None
            }
        };
        let kept = kept.filter(|keys| keys.certificate == certificate && keys.age(now) < 2 * PERIOD);
        let is_kept = kept.is_some();
        let keys = match kept {
            Some(keys) => keys,
            None => Keys::new(certificate, now)?,
        };
        let tickets = Tickets { path, keys: ArcSwap::from_pointee(keys), turning: Mutex::default() };
        if !is_kept {
            tickets.keep();
        }
        tickets.turn(now);
        Ok(tickets)
    }

    /// Begins with a new key if it is time to. Blocks on the disk.
    pub(super) fn turn(&self, now: SystemTime) {
        let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys.load_full();
        if keys.age(now) < PERIOD {
            return;
        }
        let previous = (keys.age(now) < 2 * PERIOD).then_some(keys.current.secret);
        let next = Keys::new(keys.certificate, now).and_then(|next| {
            let previous = previous.map(Key::new).transpose()?;
            Ok(Keys { previous, ..next })
        });
        match next {
            Ok(next) => {
                self.keys.store(next.into());
                self.keep();
            }
            // The old one goes on until there are random bytes again.
            Err(error) => tracing::warn!(error = super::chain(&error), "no new key for sessions"),
        }
    }

    /// Begins anew for another certificate. Blocks on the disk.
    pub(super) fn exchange(&self, certified: &CertifiedKey, now: SystemTime) -> Result<(), TlsError> {
        let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        self.keys.store(Keys::new(digest_of(certified), now)?.into());
        self.keep();
        Ok(())
    }

    fn keep(&self) {
        let text = self.keys.load().to_string();
        if let Err(error) = files::write(&self.path, &text, Access::Secret) {
            tracing::warn!(
                error = super::chain(&error),
                "keys of sessions are not kept; after a restart clients shake hands in full"
            );
        }
    }
}

impl Keys {
    fn new(certificate: Secret, now: SystemTime) -> Result<Keys, TlsError> {
        let mut secret = Secret::default();
        rand::fill(&mut secret).map_err(|_| TlsError::Library(rustls::Error::FailedToGetRandomBytes))?;
        Ok(Keys { certificate, since: now, current: Key::new(secret)?, previous: None })
    }

    /// A clock that was set back counts as a key that is past its time.
    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.since).unwrap_or(Duration::MAX)
    }
}

impl Key {
    fn new(secret: Secret) -> Result<Key, TlsError> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &secret);
        let cipher =
            cipher.map_err(|_| TlsError::Library(rustls::Error::General("a key is refused".into())))?;
        Ok(Key { secret, cipher })
    }

    fn open(&self, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.cipher.open_in_place(nonce, Aad::empty(), &mut bytes).ok()?.len();
        bytes.truncate(opened);
        Some(bytes)
    }
}

fn digest_of(certified: &CertifiedKey) -> Secret {
    let mut hash = digest::Context::new(&digest::SHA256);
    certified.cert.iter().for_each(|certificate| hash.update(certificate));
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from((2 * PERIOD).as_secs()).expect("it is half a day")
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let keys = self.keys.load();
        let nonce = keys.current.cipher.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        Some([&nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.load();
        let previous = || keys.previous.as_ref()?.open(*nonce, sealed);
        keys.current.open(*nonce, sealed).or_else(previous)
    }
}

/// The file: version, certificate, Unix time, key, key before; in hexadecimal, with spaces between.
impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let previous = self.previous.as_ref().map_or_else(|| "-".to_owned(), |key| hex(&key.secret));
        let (certificate, current) = (hex(&self.certificate), hex(&self.current.secret));
        writeln!(f, "{VERSION} {certificate} {since} {current} {previous}")
    }
}

/// The file is not one of this version.
struct Unreadable;

impl FromStr for Keys {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Keys, Unreadable> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [VERSION, certificate, since, current, previous] = parts[..] else { return Err(Unreadable) };
        let key = |text| Key::new(secret(text)?).map_err(|_| Unreadable);
        let since = since.parse().map_err(|_| Unreadable)?;
        Ok(Keys {
            certificate: secret(certificate)?,
            since: UNIX_EPOCH.checked_add(Duration::from_secs(since)).ok_or(Unreadable)?,
            current: key(current)?,
            previous: if previous == "-" { None } else { Some(key(previous)?) },
        })
    }
}

fn hex(bytes: &Secret) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn secret(text: &str) -> Result<Secret, Unreadable> {
    let mut bytes = Secret::default();
    let is_hex = text.len() == 2 * bytes.len() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        return Err(Unreadable);
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| Unreadable)?;
    }
    Ok(bytes)
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;
    use crate::tls::identity::provider;

    fn certified() -> CertifiedKey {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider()).unwrap()
    }

    #[test]
    fn a_ticket_outlives_restarts_for_twelve_hours_and_no_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.key");
        let (one, other) = (certified(), certified());
        let begin = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let hours = |hours: u64| begin + Duration::from_secs(hours * 60 * 60);
        let open = |certified: &CertifiedKey, now| Tickets::open(path.clone(), certified, now).unwrap();

        let first = open(&one, begin);
        let ticket = first.encrypt(b"session").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for (at, is_read) in [(1, true), (5, true), (7, true), (11, true)] {
            let read = open(&one, hours(at)).decrypt(&ticket);
            assert_eq!(read.is_some_and(|read| read == b"session"), is_read, "after {at} hours");
        }
        // The key that followed it at 7 hours is followed by another.
        assert_eq!(open(&one, hours(14)).decrypt(&ticket), None);

        let running = open(&one, hours(14));
        let ticket = running.encrypt(b"session").unwrap();
        running.turn(hours(21));
        assert!(running.decrypt(&ticket).is_some() && running.decrypt(&ticket[1..]).is_none());
        running.exchange(&other, hours(21)).unwrap();
        assert_eq!(running.decrypt(&ticket), None);
        let ticket = running.encrypt(b"session").unwrap();
        assert!(open(&other, hours(21)).decrypt(&ticket).is_some());
        assert_eq!(open(&one, hours(21)).decrypt(&ticket), None, "it is of another certificate");
    }

    #[test]
    fn a_file_that_cannot_be_read_or_written_costs_full_handshakes_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.key");
        let (certified, now) = (Arc::new(certified()), SystemTime::now());
        for damaged in ["", "pulse-tickets-v2 a b c d", "pulse-tickets-v1 ff 1 ff -", "\u{fffd}"] {
            fs::write(&path, damaged).unwrap();
            let tickets = Tickets::open(path.clone(), &certified, now).unwrap();
            assert!(tickets.decrypt(&tickets.encrypt(b"x").unwrap()).is_some(), "{damaged}");
        }
        // A folder is no file.
        let tickets = Tickets::open(folder.path().to_owned(), &certified, now).unwrap();
        assert!(tickets.decrypt(&tickets.encrypt(b"x").unwrap()).is_some());
        assert!(!format!("{tickets:?}").contains("secret"));
    }
}
