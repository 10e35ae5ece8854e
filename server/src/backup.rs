//! A backup: one file with all that is needed to bring the fleet back on another machine.
//!
//! The file is a tar archive: first [`MANIFEST`], then the database, then the keys and certificates that proxies have
//! pinned, last their sums. What a person wrote, the configuration and certificates of his own, is not in it.
//! In: the data folder. Out: the file, and from the file a data folder.
//! Always: each part is named in the manifest with its size and SHA-256; what is written is read back before it is
//! called done; what is put back is checked as a whole before anything in the data folder is touched.
//! Never: destroys a file that was there.

pub mod make;
pub mod read;
pub mod restore;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::StoreError;

/// What a backup calls itself.
pub const FORMAT: &str = "pulse-backup";
/// The version of the format: another one cannot be read.
pub const FORMAT_VERSION: u32 = 1;
/// The name of the manifest in the archive.
pub const MANIFEST: &str = "manifest.json";
/// The name of the last entry of the archive: what `sha256sum -c` checks after unpacking it.
pub const SUMS: &str = "SHA256SUMS";
/// The name of the database in the data folder and in the archive.
pub const DATABASE: &str = "pulse.db";
/// The name of the key that seals secrets, in the data folder and in the archive.
pub const SECRET_KEY: &str = crate::config::secret_key::SECRET_KEY;
/// Files of the data folder that belong to a backup, if they are there: what proxies have pinned, and what seals secrets.
pub const KEY_FILES: [&str; 7] =
    ["ca.pem", "ca.key", "ca-next.key", "ca-bridge.pem", "server.pem", "server.key", SECRET_KEY];

/// What is in a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The version of the server that made it.
    pub version: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// The identity of the database.
    pub server_id: Uuid,
    /// The fleet's epoch.
    pub epoch: u64,
    /// The fleet's revision.
    pub revision: u64,
    /// The version of the database's schema.
    pub schema: u64,
    /// Where the key is, on the server, that opens what is sealed in the database; `None`: it is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_file: Option<PathBuf>,
    /// The parts, in their order.
    pub parts: Vec<Part>,
}

/// The text of [`SUMS`]: the manifest and all parts.
fn sums(manifest_text: &[u8], manifest: &Manifest) -> String {
    let mut hashing = Hashing::new();
    hashing.add(manifest_text);
    let mut text = format!("{}  {MANIFEST}\n", hashing.hex());
    for part in &manifest.parts {
        text.push_str(&format!("{}  {}\n", part.sha256, part.name));
    }
    text
}

/// One file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the data folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, 64 hex digits.
    pub sha256: String,
}

/// The part that has this content.
fn part(name: &str, content: &[u8]) -> Part {
    let mut hashing = Hashing::new();
    hashing.add(content);
    Part { name: name.to_owned(), bytes: content.len() as u64, sha256: hashing.hex() }
}

/// Why a backup was not made, read or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be used. `doing` says what was tried, on which file.
    #[error("{doing}: {source}{}", room(source))]
    File {
        /// What was tried, on which file.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is no backup, or is damaged, or of a newer version; says what is wrong with it.
    #[error("{} cannot be used as a backup: {what}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The database cannot be copied or used.
    #[error("{error}{}", source_of(error))]
    Store {
        /// What the store said.
        error: StoreError,
    },
    /// The data folder is in use.
    #[error("{0}")]
    InUse(String),
    /// Something else went wrong, as it says.
    #[error("{0}")]
    Other(String),
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> BackupError {
        match error {
            StoreError::InUse { .. } => BackupError::InUse(error.to_string()),
            error => BackupError::Store { error },
        }
    }
}

impl BackupError {
    fn file(doing: impl Into<String>, source: std::io::Error) -> BackupError {
        BackupError::File { doing: doing.into(), source }
    }
}

/// What to do when a disk is full: the doing names the file.
fn room(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; make room there, and try again"
        }
        _ => "",
    }
}

fn source_of(error: &dyn std::error::Error) -> String {
    error.source().map(|source| format!(": {source}")).unwrap_or_default()
}

/// What SHA-256 was of what was read or written so far.
struct Hashing(aws_lc_rs::digest::Context);

impl Hashing {
    fn new() -> Hashing {
        Hashing(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn hex(self) -> String {
        pulse_proto::hex::encode(self.0.finish().as_ref())
    }
}
