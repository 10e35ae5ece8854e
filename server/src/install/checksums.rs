//! The checksums of files, each computed once for as long as the file stays as it is.
//!
//! Always: one is computed at a time, so that whoever asks for all at once gets one core; one that is known is told meanwhile.
//! Never: more of them than files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use pulse_proto::hex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::open::{FileState, Opened};

/// How much of a file is read at once.
const PIECE: usize = 256 * 1024;

/// See the module. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Checksums {
    known: Arc<Mutex<HashMap<String, (FileState, String)>>>,
    computing: Arc<Semaphore>,
}

impl Default for Checksums {
    fn default() -> Self {
        Checksums { known: Arc::default(), computing: Arc::new(Semaphore::new(1)) }
    }
}

impl Checksums {
    /// The SHA-256 of a file, in lower-case hex.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) async fn of(&self, name: &str, opened: &Opened) -> io::Result<String> {
        if let Some(sum) = self.known(name, opened) {
            return Ok(sum);
        }
        // Nobody closes it.
        let turn = Arc::clone(&self.computing).acquire_owned().await.ok();
        // Who was before may have asked for the same.
        if let Some(sum) = self.known(name, opened) {
            return Ok(sum);
        }
        let (file, length) = (opened.file.try_clone()?, opened.length);
        let computed = spawn_blocking(move || {
            // Kept to the end, also if nobody waits for it any more.
            let _turn = turn;
            compute(&file, length)
        });
        let sum = computed.await.map_err(io::Error::other)??;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), (opened.state, sum.clone()));
        Ok(sum)
    }

    fn known(&self, name: &str, opened: &Opened) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(state, _)| *state == opened.state).map(|(_, sum)| sum.clone())
    }
}

/// By place, so that the file is still at its beginning for who sends it.
fn compute(file: &File, length: u64) -> io::Result<String> {
    let (mut context, mut piece) = (Context::new(&SHA256), vec![0; PIECE]);
    let mut at = 0;
    while at < length {
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Not more than is sent, if it grows meanwhile.
        let read = read.min(usize::try_from(length - at).unwrap_or(read));
        context.update(&piece[..read]);
        at += read as u64;
    }
    Ok(hex::encode(context.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::open::open;

    #[tokio::test]
    async fn a_checksum_that_is_known_is_told_while_another_one_is_computed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        let opened = open(folder.path(), "a").await.unwrap();
        let checksums = Checksums::default();
        let sum = checksums.of("a", &opened).await.unwrap();
        let _turn = checksums.computing.acquire().await.unwrap();
        assert_eq!(checksums.of("a", &opened).await.unwrap(), sum);
    }
}
