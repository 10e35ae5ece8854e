//! The exchange of a key's file: beside it stands the next one, until what is sealed under it is committed.
//!
//! In: the key's file, and what tells which key opens the database. Out: the one that does, in its place.
//! Always: both keys are on the disk, whole, while it is not known which one is needed. Never: removes a key that opens what is
//! there.

use std::fs;
use std::path::{Path, PathBuf};

use super::{SealingError, SealingKey, failed};
use crate::whole_file;

/// Where the next key stands: beside the key, under its name with `.next` behind it.
#[must_use]
pub fn next_of(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

/// The next key, if there is one; as a key of the file whose place it is to take.
///
/// # Errors
/// [`SealingError::File`], [`SealingError::Unfit`].
pub fn found_next(path: &Path) -> Result<Option<SealingKey>, SealingError> {
    match SealingKey::open(&next_of(path)) {
        Ok(next) => Ok(Some(SealingKey { path: path.to_owned(), ..next })),
        Err(SealingError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The key and the next one, for whoever only reads. Not empty.
///
/// # Errors
/// [`SealingError`]; [`SealingError::Missing`] if there is neither.
pub fn all_of(path: &Path) -> Result<Vec<SealingKey>, SealingError> {
    let next = found_next(path)?;
    match (SealingKey::open(path), next) {
        (Ok(key), next) => Ok(std::iter::once(key).chain(next).collect()),
        (Err(SealingError::Missing(_)), Some(next)) => Ok(vec![next]),
        (Err(error), _) => Err(error),
    }
}

/// Ends an exchange that was cut short, if there was one: of the key and the next one that one stays, in its place, which `opens`
/// takes. If it takes neither, both stay.
///
/// # Errors
/// [`SealingError`]: of the file, or what `opens` said of the key.
pub fn settle(
    path: &Path,
    opens: impl Fn(&SealingKey) -> Result<(), SealingError>,
) -> Result<SealingKey, SealingError> {
    let next = match found_next(path) {
        // What is no key is needed by nobody.
        Err(SealingError::Unfit(_)) => None,
        found => found?,
    };
    if let Some(next) = next
        && opens(&next).is_ok()
    {
        put_in_place(path)?;
        tracing::warn!(path = %path.display(), "an exchange of the sealing key that was cut short was gone on with");
        return Ok(next);
    }
    let key = SealingKey::open(path)?;
    opens(&key)?;
    let next = next_of(path);
    let mut unfinished = next.clone().into_os_string();
    unfinished.push(".new");
    for left in [next, PathBuf::from(unfinished)] {
        // Looked for first: where nothing can be written, nothing can be removed either, though it is not there.
        if fs::symlink_metadata(&left).is_ok() {
            fs::remove_file(&left).map_err(|error| failed("remove", &left, &error))?;
            tracing::info!(path = %left.display(), "removed what an exchange of the sealing key left");
        }
    }
    Ok(key)
}

/// Gives the next key the name of the key, whose place it takes.
///
/// # Errors
/// [`SealingError::File`]: then both are there still.
pub fn put_in_place(path: &Path) -> Result<(), SealingError> {
    let next = next_of(path);
    fs::rename(&next, path).map_err(|error| failed("rename", &next, &error))?;
    whole_file::flush_folder_of(path).map_err(|error| failed("flush the folder of", path, &error))
}

impl SealingKey {
    /// Writes it beside the file whose place it is to take.
    ///
    /// # Errors
    /// [`SealingError::File`].
    pub fn write_next(&self) -> Result<(), SealingError> {
        let next = next_of(&self.path);
        match found_next(&self.path) {
            // It may be needed already.
            Ok(Some(found)) if found.is_same(self) => Ok(()),
            _ => self.write(&next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_keys_the_one_that_opens_stays_and_if_neither_does_both() {
        for is_next in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("secret.key");
            let old = SealingKey::open_or_make(&path).unwrap();
            let new = SealingKey::generate(&path).unwrap();
            new.write_next().unwrap();
            fs::write(folder.path().join("secret.key.next.new"), "half").unwrap();
            let other = SealingKey::generate(&path).unwrap();
            let opens = |sealed_by: &SealingKey| {
                let sealed = sealed_by.seal("place", b"secret").unwrap();
                move |key: &SealingKey| key.open_sealed("place", &sealed).map(drop)
            };
            assert!(matches!(settle(&path, opens(&other)), Err(SealingError::Wrong { .. })));
            assert_eq!(all_of(&path).unwrap().len(), 2, "both stay");
            let needed = if is_next { &new } else { &old };
            let settled = settle(&path, opens(needed)).unwrap();
            assert!(settled.is_same(needed) && settled.path() == path);
            assert!(SealingKey::open(&path).unwrap().is_same(needed));
            assert!(!next_of(&path).exists());
            let again = settle(&path, opens(needed)).unwrap();
            assert!(again.is_same(needed));
        }
    }

    #[test]
    fn the_next_key_alone_is_enough_and_what_is_no_key_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let key = SealingKey::generate(&path).unwrap();
        key.write_next().unwrap();
        assert!(settle(&path, |_| Ok(())).unwrap().is_same(&key));
        fs::write(next_of(&path), "no key").unwrap();
        assert!(settle(&path, |_| Ok(())).unwrap().is_same(&key));
        assert!(!next_of(&path).exists());
        fs::remove_file(&path).unwrap();
        assert_eq!(settle(&path, |_| Ok(())).unwrap_err(), SealingError::Missing(path));
    }
}
