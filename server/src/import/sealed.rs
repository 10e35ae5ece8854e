//! `nodes.enc` of an older server, and the key beside it.
//!
//! In: its data folder. Out: the JSON that was sealed. Always: what was changed by one bit does not open.
//! Never: shows the key or the text; makes, moves or mends a file, as the older server does.
//!
//! Form: a nonce of 12 bytes, then AES-256-GCM without associated data; the key is 32 bytes in base64.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, MAX_TAG_LEN, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Unread, file};

/// Where an older server keeps its instances.
pub(super) const NODES_FILE: &str = "nodes.enc";
/// Where it keeps the key.
pub(super) const KEY_FILE: &str = ".encryption.key";

/// Opens the folder's `nodes.enc`.
///
/// # Errors
/// One of both files is not there or no such file, or the one does not open with the other.
pub(super) fn open(folder: &Path) -> Result<Vec<u8>, Unread> {
    if folder.is_file() {
        let what = "it is a file, and not an older server's data folder";
        return Err(Unread::new(folder.display().to_string(), what, "give the folder that holds nodes.enc"));
    }
    let (nodes, key) = (folder.join(NODES_FILE), folder.join(KEY_FILE));
    if !nodes.exists() {
        let what = "there is no nodes.enc in it";
        let way_out = "give the data folder of the older server: /etc/pulse, or in its container /data";
        return Err(Unread::new(folder.display().to_string(), what, way_out));
    }
    if !key.exists() {
        let what = "there is no .encryption.key in it, and nothing else opens nodes.enc";
        let way_out = "copy the key beside it; very old servers kept it as /etc/pulse/.encryption.key";
        return Err(Unread::new(folder.display().to_string(), what, way_out));
    }
    let cipher = cipher(&file::bytes(&key)?).ok_or_else(|| {
        let what = "it holds no key: it must be 32 bytes in base64";
        Unread::new(key.display().to_string(), what, "copy it again, whole, from the older server")
    })?;
    unseal(&cipher, &file::bytes(&nodes)?).map_err(|what| {
        let way_out = "copy both files again from one server; if it is damaged there too, copy nodes.enc.backup, which that server \
                       kept, as nodes.enc into a new folder with the key, and give that";
        Unread::new(nodes.display().to_string(), what, way_out)
    })
}

fn cipher(key: &[u8]) -> Option<RandomizedNonceKey> {
    let bytes = STANDARD.decode(key.trim_ascii()).ok()?;
    RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()
}

fn unseal(cipher: &RandomizedNonceKey, sealed: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (nonce, text) = sealed
        .split_at_checked(NONCE_LEN)
        .filter(|(_, text)| text.len() >= MAX_TAG_LEN)
        .ok_or("it is cut off: it is too short to hold anything")?;
    let wrong =
        "it does not open: .encryption.key is not the key under which it was sealed, or it is damaged";
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong)?;
    let mut text = text.to_vec();
    cipher.open_in_place(nonce, Aad::empty(), &mut text).map_err(|_| wrong)?;
    text.truncate(text.len() - MAX_TAG_LEN);
    Ok(text)
}
