//! The last applied list, on disk.
//!
//! In: verified lists from `sync`. Out: once, at start, the list to begin with, verified as on the wire.
//! Always: the file is whole or refused; missing, damaged, older, foreign and unreadable are five different things.
//! Never: reads the network, or decides what is in force; that is `gate`.
//!
//! The file: lines of text, then the list as it is sent, then a line with the SHA-256 of all before it:
//! ```text
//! pulse-allowlist-cache 1
//! proxy 0192d3a8-7f3c-7d3e-8a51-0242ac120002        ("-" if the proxy was never told its id)
//! applied 1763661000000                             (Unix milliseconds)
//! snapshot 1234                                     (bytes that follow)
//! …
//! sha256 e3b0c442…                                  (over everything before this line)
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use pulse_proto::hash::sha256;
use pulse_proto::signature::PublicKey;
use pulse_proto::{MAX_MESSAGE_BYTES, Position, Refusal, SignedAllowlist, hex};
use uuid::Uuid;

use crate::disk::{self, ReadError};

const FIRST_LINE: &str = "pulse-allowlist-cache 1";
/// The text around a list has some 250 bytes.
const MAX_BYTES: u64 = MAX_MESSAGE_BYTES as u64 + 4096;
/// `sha256 `, 64 digits, a line end.
const LAST_LINE_BYTES: usize = 7 + 64 + 1;

/// The last applied list.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The list, verified.
    pub list: SignedAllowlist,
    /// When it was applied.
    pub applied_at: SystemTime,
}

/// Whose list is expected, and how far it must have come.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// This proxy; `None` if it was never told its id.
    pub proxy_id: Option<Uuid>,
    /// The keys that may sign lists.
    pub keys: &'a [PublicKey],
    /// The newest list that was applied.
    pub reached: Position,
}

/// Why there is no list to begin with. None of these is an empty list.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No list was ever kept here.
    #[error("no list was kept at {} yet", .0.display())]
    NoneYet(PathBuf),
    /// A list was applied, and its file is gone.
    #[error("the kept list {} is gone, though the one of revision {revision} was applied: was it removed? the next list from Pulse replaces it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The revision of the list that was applied last.
        revision: u64,
    },
    /// The file cannot be read, or must not be.
    #[error("the kept list is not used; the next list from Pulse replaces it")]
    Unreadable(#[source] ReadError),
    /// The file is not what was written.
    #[error("the kept list {} is damaged ({what}); the next list from Pulse replaces it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer list was applied than the one in the file.
    #[error("the kept list {} is older than one that was applied ({refusal}): was it put back from a backup? the next list from Pulse replaces it", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Which, and which.
        refusal: Refusal,
    },
    /// The file is another proxy's or another server's.
    #[error("the kept list {} is not this proxy's ({what}): was it copied from another host? the next list from Pulse replaces it", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        what: String,
    },
}

impl CacheError {
    /// The word for logs and JSON.
    pub fn reason(&self) -> &'static str {
        match self {
            CacheError::NoneYet(_) => "none_yet",
            CacheError::Missing { .. } => "missing",
            CacheError::Unreadable(_) => "unreadable",
            CacheError::Damaged { .. } => "damaged",
            CacheError::Older { .. } => "older",
            CacheError::Foreign { .. } => "foreign",
        }
    }
}

/// Writes a list, so that it is on the disk when this returns.
///
/// # Errors
/// The disk's; the file is then the one before.
pub fn store(path: &Path, proxy_id: Option<Uuid>, list: &SignedAllowlist, at: SystemTime) -> io::Result<()> {
    let snapshot = list.to_wire().encode_to_vec();
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let owner = owner_text(proxy_id);
    let mut bytes =
        format!("{FIRST_LINE}\nproxy {owner}\napplied {millis}\nsnapshot {}\n", snapshot.len()).into_bytes();
    bytes.extend_from_slice(&snapshot);
    bytes.push(b'\n');
    let digest = hex::encode(&sha256(&bytes));
    bytes.extend_from_slice(format!("sha256 {digest}\n").as_bytes());
    disk::replace_private(path, &bytes)
}

/// Reads the list and verifies it as if it came from the server.
///
/// # Errors
/// [`CacheError`]; nothing of the file is used then.
pub fn load(path: &Path, expected: Expected<'_>) -> Result<Cached, CacheError> {
    let bytes = disk::read_private(path, MAX_BYTES).map_err(CacheError::Unreadable)?;
    let bytes = bytes.ok_or_else(|| match expected.reached {
        Position { epoch: 0, revision: 0 } => CacheError::NoneYet(path.to_owned()),
        Position { revision, .. } => CacheError::Missing { path: path.to_owned(), revision },
    })?;
    let damaged = |what: &str| CacheError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let foreign = |what: String| CacheError::Foreign { path: path.to_owned(), what };

    let parts = take_apart(&bytes).map_err(damaged)?;
    if parts.owner != owner_text(expected.proxy_id) {
        return Err(foreign(format!("it is of proxy {}", parts.owner)));
    }
    let snapshot = Message::decode(parts.snapshot).map_err(|_| damaged("its list cannot be decoded"))?;
    let list = SignedAllowlist::verify(&snapshot, expected.keys, expected.reached).map_err(|refusal| {
        let path = path.to_owned();
        match refusal {
            Refusal::OlderEpoch { .. } | Refusal::OlderRevision { .. } => CacheError::Older { path, refusal },
            Refusal::UnknownKey(..) => CacheError::Foreign { path, what: refusal.to_string() },
            other => CacheError::Damaged { path, what: other.to_string() },
        }
    })?;
    Ok(Cached { list, applied_at: parts.applied_at })
}

/// Reads the list whosever it is and however old, with its proxy's id: for a proxy that has lost its identity. `None`: it
/// cannot be taken.
pub fn recover(path: &Path, keys: &[PublicKey]) -> Option<(Option<Uuid>, SignedAllowlist)> {
    let bytes = disk::read_private(path, MAX_BYTES).ok().flatten()?;
    let parts = take_apart(&bytes).ok()?;
    let snapshot = Message::decode(parts.snapshot).ok()?;
    let list = SignedAllowlist::verify(&snapshot, keys, Position::default()).ok()?;
    Some((parts.owner.parse().ok(), list))
}

struct Parts<'a> {
    owner: &'a str,
    applied_at: SystemTime,
    snapshot: &'a [u8],
}

/// Checks the digest first, so that everything after it reads what was written.
fn take_apart(bytes: &[u8]) -> Result<Parts<'_>, &'static str> {
    let at = bytes.len().checked_sub(LAST_LINE_BYTES).ok_or("it is too short")?;
    let (body, last) = bytes.split_at(at);
    let digest = last.strip_prefix(b"sha256 ").and_then(|rest| rest.strip_suffix(b"\n"));
    let digest = digest.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(hex::decode::<32>);
    if digest.ok_or("its last line, the checksum, is missing")? != sha256(body) {
        return Err("its checksum does not fit");
    }
    let (first, rest) = line(body)?;
    if first != FIRST_LINE {
        return Err("another version wrote it");
    }
    let (owner, rest) = line(rest)?;
    let (applied, rest) = line(rest)?;
    let (length, rest) = line(rest)?;
    let bad = "its head cannot be read";
    let millis = applied.strip_prefix("applied ").and_then(|text| text.parse().ok()).ok_or(bad)?;
    let length: usize = length.strip_prefix("snapshot ").and_then(|text| text.parse().ok()).ok_or(bad)?;
    let snapshot = rest.strip_suffix(b"\n").filter(|snapshot| snapshot.len() == length);
    Ok(Parts {
        owner: owner.strip_prefix("proxy ").ok_or(bad)?,
        applied_at: UNIX_EPOCH.checked_add(Duration::from_millis(millis)).ok_or(bad)?,
        snapshot: snapshot.ok_or(bad)?,
    })
}

fn line(bytes: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let bad = "its head cannot be read";
    let at = bytes.iter().position(|byte| *byte == b'\n').ok_or(bad)?;
    Ok((std::str::from_utf8(&bytes[..at]).map_err(|_| bad)?, &bytes[at + 1..]))
}

fn owner_text(proxy_id: Option<Uuid>) -> String {
    proxy_id.map_or_else(|| "-".to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests;
