//! Reads a backup: every part, against its size and hash in the manifest.
//!
//! Always: the file is judged as a whole; a part that is missing, changed, doubled, cut short or not named is an error.
//! Never: trusts a name in the archive, or takes more than the manifest says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{
    BackupError, DATABASE, FORMAT, FORMAT_VERSION, Hashing, KEY_FILES, MANIFEST, Manifest, SUMS, sums,
};

/// The largest manifest.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// The largest part but the database: a chain of certificates has some KiB.
const MAX_KEY_BYTES: u64 = 1 << 20;

/// Reads a backup to its end; returns its manifest.
///
/// # Errors
/// [`BackupError::File`] if it cannot be read, [`BackupError::Unusable`] if anything is wrong with it.
pub fn verify(path: &Path) -> Result<Manifest, BackupError> {
    read(path, None)
}

/// Reads a backup to its end and writes the parts that `wanted` says into a folder, flushed, for the owner alone.
///
/// # Errors
/// As [`verify`]; [`BackupError::File`] if a part cannot be written.
pub fn unpack(path: &Path, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Manifest, BackupError> {
    read(path, Some((folder, &wanted)))
}

/// A folder, and which parts go there.
type Into<'a> = (&'a Path, &'a dyn Fn(&str) -> bool);

fn read(path: &Path, into: Option<Into<'_>>) -> Result<Manifest, BackupError> {
    let unusable = |what: String| BackupError::Unusable { path: path.to_owned(), what };
    // What the archive's reader cannot make sense of is a damage of the file; what the disk says is not.
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(_) => BackupError::file(format!("read {}", path.display()), error),
        None => unusable(format!("it is damaged or cut short ({error})")),
    };
    // Looked at before it is opened: opening a pipe waits for whoever writes it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unusable("it is no regular file".to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let mut archive = tar::Archive::new(file);
    // Raw: names here are short, and an entry that only describes the next one would be read into memory whole.
    let mut entries = archive.entries().map_err(failed)?.raw(true);
    let mut next = || match entries.next() {
        None => Ok(None),
        Some(entry) => entry.map(Some),
    };

    let no_backup = || unusable("it is no backup of Pulse: it does not begin with a manifest".to_owned());
    let first = next().map_err(|_| no_backup())?.ok_or_else(no_backup)?;
    let is_manifest = first.path_bytes() == MANIFEST.as_bytes() && first.header().entry_type().is_file();
    if !is_manifest || first.size() > MAX_MANIFEST_BYTES {
        return Err(no_backup());
    }
    let mut text = Vec::new();
    first.take(MAX_MANIFEST_BYTES).read_to_end(&mut text).map_err(failed)?;
    let manifest = manifest(&text).map_err(unusable)?;

    for part in &manifest.parts {
        let cut = || unusable(format!("it ends before {}: it is cut short", part.name));
        let mut entry = next().map_err(failed)?.ok_or_else(cut)?;
        let is_it = entry.path_bytes() == part.name.as_bytes() && entry.header().entry_type().is_file();
        if !is_it || entry.size() != part.bytes {
            return Err(unusable(format!("{} is not where its manifest says", part.name)));
        }
        let to = into.filter(|(_, wanted)| wanted(&part.name)).map(|(folder, _)| folder.join(&part.name));
        let shown = to.as_deref().unwrap_or(path).display().to_string();
        let not_written = |error| BackupError::file(format!("write {shown}"), error);
        let mut to = to.as_deref().map(make).transpose().map_err(not_written)?;
        let (mut hashing, mut bytes, mut buffer) = (Hashing::new(), 0, vec![0; 128 << 10]);
        loop {
            let read = match entry.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => &buffer[..read],
            };
            hashing.add(read);
            bytes += read.len() as u64;
            if let Some(to) = &mut to {
                to.write_all(read).map_err(not_written)?;
            }
        }
        if bytes < part.bytes {
            return Err(unusable(format!("it is cut short in {}", part.name)));
        }
        if hashing.hex() != part.sha256 {
            return Err(unusable(format!(
                "{} is damaged: it does not have the hash of its manifest",
                part.name
            )));
        }
        if let Some(to) = to {
            to.sync_all().map_err(not_written)?;
        }
    }
    let expected = sums(&text, &manifest);
    let cut = || unusable(format!("it ends before {SUMS}: it is cut short"));
    let last = next().map_err(failed)?.ok_or_else(cut)?;
    let is_it = last.path_bytes() == SUMS.as_bytes() && last.header().entry_type().is_file();
    let mut said = Vec::new();
    last.take(MAX_MANIFEST_BYTES).read_to_end(&mut said).map_err(failed)?;
    if !is_it || said != expected.as_bytes() {
        return Err(unusable(format!("it is damaged: {SUMS} does not fit its manifest")));
    }
    if next().map_err(failed)?.is_some() {
        return Err(unusable("it has parts that its manifest does not name".to_owned()));
    }
    Ok(manifest)
}

fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn manifest(text: &[u8]) -> Result<Manifest, String> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| format!("its manifest cannot be read ({error})"))?;
    if value["format"] != FORMAT {
        return Err("it is no backup of Pulse: its manifest says another format".to_owned());
    }
    // Before all else: a newer format may have other fields.
    if value["format_version"] != FORMAT_VERSION {
        let found = &value["format_version"];
        return Err(format!(
            "its format has version {found}, and this pulse knows {FORMAT_VERSION}: use a newer pulse"
        ));
    }
    let manifest: Manifest =
        serde_json::from_value(value).map_err(|error| format!("its manifest cannot be read ({error})"))?;
    let mut names: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| **name != DATABASE && !KEY_FILES.contains(name)) {
        return Err(format!("it has a part {unknown:?}, which this pulse does not know: use a newer pulse"));
    }
    if let Some(large) =
        manifest.parts.iter().find(|part| part.name != DATABASE && part.bytes > MAX_KEY_BYTES)
    {
        return Err(format!("its part {} is too large to be what it is called", large.name));
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("its manifest names a part twice".to_owned());
    }
    if !names.contains(&DATABASE) {
        return Err("it has no database".to_owned());
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests;
