//! From a path to bytes: bounded, and of files alone.
//!
//! Never: waits for what a pipe or a device may say.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::Unread;

/// The largest file that is read: a `nodes.enc` of some ten thousand nodes has 3 MB.
const MAX_BYTES: u64 = 4 << 20;

/// Reads a file; symbolic links are followed.
///
/// # Errors
/// There is none, it is a folder or a device, it is too large, or it cannot be read.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Unread> {
    let unread = |what: String, way_out: &str| Unread::new(path.display().to_string(), what, way_out);
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => {
            unread("there is no such file".to_owned(), "give the path of one that is there")
        }
        ErrorKind::PermissionDenied => {
            unread("it may not be read".to_owned(), "run this as a user that may, such as root")
        }
        _ => unread(format!("it cannot be read: {error}"), "see to that, or copy it to another disk"),
    };
    let about = std::fs::metadata(path).map_err(failed)?;
    if about.is_dir() {
        let way_out = "name a file in it; the data folder of an older server is given with --pulse-data";
        return Err(unread("it is a folder".to_owned(), way_out));
    }
    if !about.is_file() {
        return Err(unread("it is no plain file".to_owned(), "give the path of a plain file"));
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed tells "too large" from "just full".
    let opened = File::open(path).map_err(failed)?;
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unread("it is larger than 4 MiB".to_owned(), "is it the right file?"));
    }
    Ok(bytes)
}

/// Reads a file of text, without a byte order mark.
///
/// # Errors
/// Those of [`bytes`], and that it is no text.
pub(super) fn text(path: &Path) -> Result<String, Unread> {
    let text = String::from_utf8(bytes(path)?).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let place = format!("{}:{line}", path.display());
        Unread::new(place, "it is no UTF-8 text here", "save it as UTF-8, if it is the right file")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
