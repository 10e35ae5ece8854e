//! The authority's key where several servers have one: each has it in its own data folder, and gets it by way of the database.
//!
//! In: the data folder, and the key that all have. Out: a key to offer; the same key in the folder.
//! Never: puts a key in the place of another.

use std::path::Path;

use pulse_proto::Pin;
use rcgen::{KeyPair, PublicKeyData};

use super::TlsError;
use super::authority::parse_key;
use super::files::{Access, Paths, read, write};

/// The key in the folder, in PEM; `None`: there is none.
///
/// # Errors
/// [`TlsError`].
pub fn own(folder: &Path) -> Result<Option<String>, TlsError> {
    Ok(in_folder(folder)?.map(|key| key.serialize_pem()))
}

/// The key in the folder, or a new one that is not in it yet, in PEM: what is shared if nobody has shared one before.
///
/// # Errors
/// [`TlsError`].
pub fn offer(folder: &Path) -> Result<String, TlsError> {
    match own(folder)? {
        Some(own) => Ok(own),
        None => Ok(KeyPair::generate().map_err(TlsError::Make)?.serialize_pem()),
    }
}

/// Puts the key that all have into the folder, if none is there.
///
/// # Errors
/// [`TlsError::OtherAuthority`] if the folder has another one.
pub fn adopt(folder: &Path, shared: &str) -> Result<(), TlsError> {
    let pin = |key: &KeyPair| Pin::of_spki(&key.subject_public_key_info());
    let shared_key = KeyPair::from_pem(shared).map_err(TlsError::Make)?;
    match in_folder(folder)? {
        Some(own) if pin(&own) == pin(&shared_key) => Ok(()),
        Some(_) => Err(TlsError::OtherAuthority(folder.to_owned())),
        None => {
            let path = Paths::in_folder(folder).ca_key;
            write(&path, shared, Access::Secret)?;
            tracing::info!(path = %path.display(), "the authority that all servers on this database share is in the data folder");
            Ok(())
        }
    }
}

fn in_folder(folder: &Path) -> Result<Option<KeyPair>, TlsError> {
    let path = Paths::in_folder(folder).ca_key;
    read(&path)?.map(|key| parse_key(&path, key)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_the_shared_key_once_and_never_in_place_of_its_own() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(own(first.path()).unwrap(), None);
        let offered = offer(first.path()).unwrap();
        assert_ne!(offered, offer(first.path()).unwrap(), "nothing was kept yet");
        for folder in [&first, &second] {
            adopt(folder.path(), &offered).unwrap();
            adopt(folder.path(), &offered).unwrap();
            assert_eq!(offer(folder.path()).unwrap(), offered);
        }
        let other = offer(tempfile::tempdir().unwrap().path()).unwrap();
        assert!(matches!(adopt(first.path(), &other), Err(TlsError::OtherAuthority(_))));
        assert_eq!(offer(first.path()).unwrap(), offered);
    }
}
