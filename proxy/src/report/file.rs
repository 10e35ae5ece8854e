//! `readings.buffer`: the reports that wait, on disk, for the next start.
//!
//! In and out: reports as they are sent. Always: whole or refused; a damaged file is an error and is set aside.
//! Never: decides when to write.
//!
//! The file: the line `pulse-readings-buffer 1`, the reports as length-delimited protobuf messages, and the SHA-256 of
//! all that stands before it (32 bytes).

use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::encode_varint;
use pulse_proto::hash::sha256;
use pulse_proto::v1::ReportTemperaturesRequest;

use super::MAX_BYTES;
use crate::disk::{self, ReadError};

const MAGIC: &[u8] = b"pulse-readings-buffer ";
const HEADER: &[u8] = b"pulse-readings-buffer 1\n";
const HASH_BYTES: usize = 32;
/// The largest file that is read: a full buffer, and a quarter for lengths and for one report that is too large alone.
const MAX_FILE_BYTES: u64 = (MAX_BYTES + MAX_BYTES / 4 + (2 << 20)) as u64;

/// Why the file is not taken. Each way the proxy goes on without it.
#[derive(Debug, thiserror::Error)]
pub(super) enum BufferFileError {
    /// It cannot be read, or is not a file of ours.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its content is not what was written.
    #[error("{path} is damaged ({what}): the readings in it are lost to the server")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// Another version wrote it.
    #[error("{0} was written by another version of this program, which can still deliver it")]
    OtherVersion(PathBuf),
}

/// Reads the reports; none if there is no file.
///
/// # Errors
/// [`BufferFileError`]: nothing of it is used then.
pub(super) fn read(path: &Path) -> Result<Vec<ReportTemperaturesRequest>, BufferFileError> {
    let Some(bytes) = disk::read_private(path, MAX_FILE_BYTES)? else {
        return Ok(Vec::new());
    };
    let damaged = |what| BufferFileError::Damaged { path: path.to_owned(), what };
    let split = bytes.len().checked_sub(HASH_BYTES).ok_or(damaged("it is cut off"))?;
    let (content, hash) = bytes.split_at(split);
    if sha256(content) != hash {
        return Err(damaged("its content does not fit its hash"));
    }
    let Some(mut rest) = content.strip_prefix(HEADER) else {
        return Err(match content.starts_with(MAGIC) {
            true => BufferFileError::OtherVersion(path.to_owned()),
            false => damaged("it does not begin as such a file does"),
        });
    };
    let mut reports = Vec::new();
    while !rest.is_empty() {
        let report = ReportTemperaturesRequest::decode_length_delimited(&mut rest)
            .map_err(|_| damaged("a report in it cannot be read"))?;
        reports.push(report);
    }
    Ok(reports)
}

/// Writes the reports, each encoded. Blocks until they are on the disk.
///
/// # Errors
/// What the system said; the file is as it was before.
pub(super) fn write(path: &Path, reports: &[Bytes]) -> io::Result<()> {
    let size: usize = reports.iter().map(|report| report.len() + 5).sum();
    let mut bytes = Vec::with_capacity(HEADER.len() + size + HASH_BYTES);
    bytes.extend_from_slice(HEADER);
    for report in reports {
        encode_varint(report.len() as u64, &mut bytes);
        bytes.extend_from_slice(report);
    }
    let hash = sha256(&bytes);
    bytes.extend_from_slice(&hash);
    disk::write_private(path, &bytes)
}

/// Gives a file that is not taken another name, so that the next one has its place. Returns the new name.
///
/// # Errors
/// What the system said.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    disk::set_aside(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn reports() -> Vec<ReportTemperaturesRequest> {
        let report = |sequence| ReportTemperaturesRequest {
            session: "0192d3a8-7f3c-7d3e-8a51-0242ac120002".into(),
            sequence,
            reports: Vec::new(),
        };
        (1..=300).map(report).collect()
    }

    fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("readings.buffer");
        let encoded: Vec<Bytes> = reports().iter().map(|report| report.encode_to_vec().into()).collect();
        write(&path, &encoded).expect("written");
        (folder, path)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_folder, path) = written();
        assert_eq!(read(&path).unwrap(), reports());
        assert!(fs::read(&path).unwrap().starts_with(HEADER));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_file_is_no_reports() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("readings.buffer")).unwrap().is_empty());
    }

    #[test]
    fn a_file_cut_anywhere_or_with_any_byte_changed_is_damaged() {
        let (_folder, path) = written();
        let whole = fs::read(&path).unwrap();
        for at in
            [0, 1, 20, HEADER.len(), HEADER.len() + 1, whole.len() / 2, whole.len() - 33, whole.len() - 1]
        {
            disk::write_private(&path, &whole[..at]).unwrap();
            assert!(matches!(read(&path), Err(BufferFileError::Damaged { .. })), "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            disk::write_private(&path, &changed).unwrap();
            assert!(matches!(read(&path), Err(BufferFileError::Damaged { .. })), "changed at {at}");
        }
    }

    #[test]
    fn another_version_is_not_called_damaged() {
        let (_folder, path) = written();
        let mut bytes = b"pulse-readings-buffer 2\nwhatever".to_vec();
        bytes.extend_from_slice(&sha256(&bytes));
        disk::write_private(&path, &bytes).unwrap();
        assert!(matches!(read(&path), Err(BufferFileError::OtherVersion(_))));
    }

    #[test]
    fn a_file_that_hashes_right_and_holds_no_reports_is_damaged() {
        let (_folder, path) = written();
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(b"\xff\xff\xff\xff\x0f");
        bytes.extend_from_slice(&sha256(&bytes));
        disk::write_private(&path, &bytes).unwrap();
        assert!(matches!(read(&path), Err(BufferFileError::Damaged { .. })));
    }

    #[test]
    fn a_file_of_any_size_is_read_only_up_to_a_bound() {
        let (_folder, path) = written();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(matches!(read(&path), Err(BufferFileError::Read(ReadError::TooLarge { .. }))));
    }
}
