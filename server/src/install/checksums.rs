//! The checksums of files, each computed once for as long as the file stays as it is.
//!
//! Always: one is computed at a time, so that whoever asks for all at once gets one core. Never: more of them than files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use pulse_proto::hex;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::open::{FileState, Opened};

/// How much of a file is read at once.
const PIECE: usize = 256 * 1024;

/// See the module. Cloning shares it.
#[derive(Clone, Default, Debug)]
pub(super) struct Checksums(Arc<Mutex<HashMap<String, (FileState, String)>>>);

impl Checksums {
    /// The SHA-256 of a file, in lower-case hex.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) async fn of(&self, name: &str, opened: &Opened) -> io::Result<String> {
        let mut known = self.0.lock().await;
        if let Some((state, sum)) = known.get(name)
            && *state == opened.state
        {
            return Ok(sum.clone());
        }
        let file = opened.file.try_clone()?;
        let length = opened.length;
        let sum = spawn_blocking(move || compute(&file, length)).await.map_err(io::Error::other)??;
        known.insert(name.to_owned(), (opened.state, sum.clone()));
        Ok(sum)
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
