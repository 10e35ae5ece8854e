//! [`ListHash`]: the hash that says which list it is; both ends compute it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

use crate::hex;

/// SHA-256 over the lines `name|ip` of a list, sorted bytewise, joined by `\n`, no newline at the end.
///
/// Written `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListHash([u8; 32]);

/// The text is not `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a list's hash is written sha256: and 64 lower-case hex digits")]
pub struct HashError;

impl ListHash {
    /// Hashes lines that are sorted already.
    pub(crate) fn of_lines<'a>(lines: impl Iterator<Item = &'a str>) -> ListHash {
        let mut context = digest::Context::new(&digest::SHA256);
        for (at, line) in lines.enumerate() {
            if at > 0 {
                context.update(b"\n");
            }
            context.update(line.as_bytes());
        }
        ListHash(sized(context.finish()))
    }
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sized(digest::digest(&digest::SHA256, bytes))
}

fn sized(digest: digest::Digest) -> [u8; 32] {
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl fmt::Display for ListHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(&self.0))
    }
}

impl fmt::Debug for ListHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ListHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<ListHash, HashError> {
        text.strip_prefix("sha256:").and_then(hex::decode).map(ListHash).ok_or(HashError)
    }
}
