//! One sysfs file: read with a limit, its text made safe to show.
//!
//! In: a path. Out: text or a number. Always: at most [`MAX_BYTES`] are read, and a pipe or device put in the
//! place of a file cannot hang the reader. Never: trusts the text; drivers and firmware write it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use pulse_proto::text::is_unsafe;
use rustix::fs::OFlags;

/// The longest file that is read: the kernel's attributes are at most one page.
const MAX_BYTES: u64 = 4096;

/// The longest name, label or raw value that is kept, in characters.
const MAX_CHARS: usize = 64;

/// Entries of one folder looked at. A chip of 512 inputs with ten files each has some 5000.
const MAX_ENTRIES: usize = 16 * 1024;

/// Reads a file's text without the white space around it. Empty is an error: no attribute is empty when it has
/// something to say.
pub(super) fn read(path: &Path) -> io::Result<String> {
    // Nonblocking, so that opening a pipe in a tree that is no sysfs returns at once.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than a sysfs attribute"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "empty"));
    }
    Ok(text.to_owned())
}

/// The names in a folder, unsorted, at most [`MAX_ENTRIES`]. What is not UTF-8 is not sysfs's and left out.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)?.take(MAX_ENTRIES) {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// The number behind `prefix` and before `suffix`: 3 for `temp3_input` between `temp` and `_input`. Only as the kernel
/// writes it: no sign, no leading zero.
pub(super) fn number_in(name: &str, prefix: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let number = digits.parse::<u32>().ok()?;
    (number.to_string() == digits).then_some(number)
}

/// Text for people: what could change a terminal or the order of letters on a screen becomes `�`.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(MAX_CHARS).map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Text for an id: letters, digits and `. _ : + -`; anything else becomes `_`.
pub(super) fn id_part(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || ".-_:+".contains(c);
    text.chars().take(MAX_CHARS).map(|c| if safe(c) { c } else { '_' }).collect()
}
