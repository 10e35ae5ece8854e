//! What is sealed in the file of a server's database, opened with its key; and where it stands in the open.

use std::path::Path;

use pulse::sealing::{SealingError, SealingKey};
use rusqlite::{Connection, OpenFlags};

/// The key that signs lists, and what it is called where it is sealed.
pub(crate) fn stored_signing_key(data_dir: &Path) -> (Vec<u8>, String) {
    let path = data_dir.join("pulse.db");
    let shell =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("the database opens");
    let found = shell.query_row("SELECT signing_key, server_id FROM fleet", [], |row| {
        Ok((row.get(0)?, format!("fleet.signing_key of {}", row.get::<_, String>(1)?)))
    });
    found.expect("the fleet has its row")
}

/// Opens the key that signs lists with the sealing key in this file.
pub(crate) fn opened_by(data_dir: &Path, secret_key: &Path) -> Result<Vec<u8>, SealingError> {
    let (sealed, place) = stored_signing_key(data_dir);
    SealingKey::open(secret_key)?.open_sealed(&place, &sealed)
}

/// The key that signs lists, opened with `secret.key` in the data folder.
pub(crate) fn signing_key(data_dir: &Path) -> Vec<u8> {
    opened_by(data_dir, &data_dir.join("secret.key")).expect("it is the key")
}

/// The files of a folder in which the secret half of a signing key stands in the open.
pub(crate) fn in_the_open(folder: &Path, signing_key: &[u8]) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let found = paths.filter(|path| path.is_file() && holds(path, signing_key));
    found.map(|path| path.display().to_string()).collect()
}

/// Whether a file has it in it.
pub(crate) fn holds(path: &Path, signing_key: &[u8]) -> bool {
    // PKCS #8 of Ed25519: the 32 secret bytes stand behind this (RFC 8410).
    let marker = [0x04, 0x22, 0x04, 0x20];
    let begin = signing_key.windows(4).position(|window| window == marker).expect("it is PKCS #8") + 4;
    let secret = &signing_key[begin..begin + 32];
    let bytes = std::fs::read(path).expect("the file can be read");
    bytes.windows(secret.len()).any(|window| window == secret)
}
