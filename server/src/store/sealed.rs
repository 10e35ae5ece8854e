//! The key under which the database's secrets are sealed, while a server runs; and its exchange for another.
//!
//! In: secrets with their places; the file of a new key, or none. Out: sealed bytes and secrets; an exchange, which is committed as
//! a change. Always: the new key is on the disk before anything is sealed under it, and the old one until that is committed; one
//! exchange at a time. Never: seals under a key that is not the database's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::OwnedMutexGuard;

use super::engine::catalog::Fleet;
use super::engine::fault::{Fault, Result};
use super::engine::sealed;
use crate::sealing::{self, SealingError, SealingKey};

/// The key in force.
pub(in crate::store) struct Sealing {
    key: ArcSwap<SealingKey>,
    /// Whether its file is the server's own, so that it exchanges it by itself.
    is_own: bool,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// A key of which it is not known whether it was committed.
    unheard: Mutex<Option<Arc<SealingKey>>>,
}

/// One key that takes the place of another: committed as [`Change::SealingKey`](super::Change::SealingKey).
#[derive(Clone)]
pub struct SealingExchange {
    pub(in crate::store) from: Arc<SealingKey>,
    pub(in crate::store) to: Arc<SealingKey>,
    is_own: bool,
    /// The next exchange begins when this one is over.
    _turn: Arc<OwnedMutexGuard<()>>,
}

impl SealingExchange {
    /// The file that has the new key from then on.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.to.path()
    }

    /// The file whose place that one must take before the server's next start; `None`: it has it already.
    #[must_use]
    pub fn replaces(&self) -> Option<&Path> {
        (!self.is_own).then(|| self.from.path())
    }

    /// Seals something anew that is held in memory.
    ///
    /// # Errors
    /// [`SealingError`].
    pub fn reseal(&self, place: &str, sealed: &[u8]) -> std::result::Result<Vec<u8>, SealingError> {
        self.to.seal(place, &self.from.open_sealed(place, sealed)?)
    }
}

impl fmt::Debug for SealingExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingExchange")
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl Sealing {
    /// Begins with the key that opened the database. `own` is where the server's own key would be.
    pub(in crate::store) fn new(key: SealingKey, own: &Path) -> Sealing {
        let is_own = key.path() == own;
        let (turn, unheard) = Default::default();
        Sealing { key: ArcSwap::from_pointee(key), is_own, turn, unheard }
    }

    pub(in crate::store) fn key(&self) -> Arc<SealingKey> {
        self.key.load_full()
    }

    /// The file of the key, if it is not the server's own: then it is in no backup.
    pub(in crate::store) fn elsewhere(&self) -> Option<PathBuf> {
        (!self.is_own).then(|| self.key().path().to_owned())
    }

    /// Prepares an exchange, once those before it are over. `file` has the new key, if that is not the server's own to make.
    pub(in crate::store) async fn prepare(
        &self,
        file: Option<PathBuf>,
    ) -> std::result::Result<SealingExchange, SealingError> {
        let _turn = Arc::new(Arc::clone(&self.turn).lock_owned().await);
        let (from, is_own) = (self.key(), self.is_own);
        let held = Arc::clone(&from);
        let to = tokio::task::spawn_blocking(move || new_key(&held, is_own, file.as_deref())).await;
        let to = to.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))?;
        Ok(SealingExchange { from, to: Arc::new(to), is_own, _turn })
    }

    /// Before the commit: the new key is on the disk.
    pub(in crate::store) fn write(&self, exchange: &SealingExchange) -> Result<()> {
        if exchange.is_own { exchange.to.write_next().map_err(Fault::Sealed) } else { Ok(()) }
    }

    /// After the commit, of which this is heard: the new key is in force and has its place.
    pub(in crate::store) fn end(
        &self,
        exchange: &SealingExchange,
        committed: std::result::Result<(), &Fault>,
    ) {
        match committed {
            Ok(()) => self.put_in_force(&exchange.to),
            Err(Fault::Undecided) => *self.unheard() = Some(Arc::clone(&exchange.to)),
            // The next key stays where it is: the next exchange takes it, or the next start removes it.
            Err(_) => {}
        }
    }

    fn put_in_force(&self, key: &Arc<SealingKey>) {
        *self.unheard() = None;
        self.key.store(Arc::clone(key));
        if self.is_own
            && let Err(error) = sealing::put_in_place(key.path())
        {
            // It is on the disk, under its other name, which the next start knows.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the new sealing key is in force, but not in its place: keep both files; the next start of the server goes on with it"
            );
        }
    }

    /// Whether the key is still the one that opens what the database has: another server can have exchanged it, or an exchange of
    /// this one was committed without word of it.
    pub(in crate::store) fn verify(&self, fleet: &Fleet) -> Result<()> {
        let opens =
            |key: &SealingKey| sealed::open_signing(key, fleet.server_id, &fleet.signing_key).map(drop);
        let Err(wrong) = opens(&self.key()) else { return Ok(()) };
        let unheard = self.unheard().clone();
        match unheard.filter(|key| opens(key).is_ok()) {
            Some(key) => {
                self.put_in_force(&key);
                Ok(())
            }
            None => Err(wrong),
        }
    }

    fn unheard(&self) -> MutexGuard<'_, Option<Arc<SealingKey>>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key that shall take the place of `from`.
fn new_key(
    from: &SealingKey,
    is_own: bool,
    file: Option<&Path>,
) -> std::result::Result<SealingKey, SealingError> {
    match (is_own, file) {
        (true, Some(_)) => Err(SealingError::Own(from.path().to_owned())),
        (false, None) => Err(SealingError::Elsewhere(from.path().to_owned())),
        (false, Some(file)) => {
            let key = SealingKey::open(file)?;
            if key.is_same(from) { Err(SealingError::Same(file.to_owned())) } else { Ok(key) }
        }
        (true, None) => match sealing::found_next(from.path()) {
            // It is in force and was not put in its place, for an error of the disk.
            Ok(Some(next)) if next.is_same(from) => {
                sealing::put_in_place(from.path())?;
                SealingKey::generate(from.path())
            }
            // Of an exchange whose commit failed: what the disk has of it may still be needed after a crash.
            Ok(Some(next)) => Ok(next),
            Ok(None) | Err(SealingError::Unfit(_)) => SealingKey::generate(from.path()),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn fleet(key: &SealingKey) -> Fleet {
        let server_id = Uuid::from_u128(7);
        let signing_key = sealed::seal_signing(key, server_id, b"secret").unwrap();
        Fleet { server_id, epoch: 1, revision: 1, signing_key }
    }

    #[tokio::test]
    async fn a_commit_without_word_of_it_is_in_force_once_the_database_shows_it_and_no_other_key_ever() {
        for is_made in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("secret.key");
            let sealing = Sealing::new(SealingKey::open_or_make(&path).unwrap(), &path);
            let exchange = sealing.prepare(None).await.unwrap();
            sealing.write(&exchange).unwrap();
            sealing.end(&exchange, Err(&Fault::Undecided));
            let (old, new) = (Arc::clone(&exchange.from), Arc::clone(&exchange.to));
            drop(exchange);
            assert!(sealing.key().is_same(&old), "it is not known");
            assert_eq!(sealing::all_of(&path).unwrap().len(), 2, "both are kept");
            let stranger = SealingKey::generate(&path).unwrap();
            assert!(matches!(sealing.verify(&fleet(&stranger)), Err(Fault::Sealed(_))));
            let needed = if is_made { &new } else { &old };
            sealing.verify(&fleet(needed)).unwrap();
            assert!(sealing.key().is_same(needed));
            assert!(SealingKey::open(&path).unwrap().is_same(needed));
            // What was not made may yet be on the other side's disk: the next exchange goes on with its key.
            let next = sealing.prepare(None).await.unwrap();
            assert_eq!(next.to.is_same(&new), !is_made);
        }
    }

    #[tokio::test]
    async fn a_new_key_that_could_not_be_put_in_its_place_is_put_there_by_the_next_exchange() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let sealing = Sealing::new(SealingKey::open_or_make(&path).unwrap(), &path);
        let exchange = sealing.prepare(None).await.unwrap();
        sealing.write(&exchange).unwrap();
        // A folder is in the way.
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        sealing.end(&exchange, Ok(()));
        assert!(sealing.key().is_same(&exchange.to));
        drop(exchange);
        assert!(sealing.prepare(None).await.is_err(), "the one in force is not written over");
        std::fs::remove_dir_all(&path).unwrap();
        let next = sealing.prepare(None).await.unwrap();
        assert!(SealingKey::open(&path).unwrap().is_same(&sealing.key()));
        assert!(!next.to.is_same(&sealing.key()));
    }
}
