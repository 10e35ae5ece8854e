//! From a path to text: bounded, UTF-8, without a byte order mark's surprises.

use crate::remark::Mistakes;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The largest file that is read: 1 MiB, some ten thousand nodes with room to spare.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads a configuration file; `None` if there is no file at `path`.
///
/// # Errors
/// The file cannot be read, is larger than [`MAX_FILE_BYTES`], or is not UTF-8 (with the line of the first bad byte).
pub fn read_text(path: &Path) -> Result<Option<String>, Mistakes> {
    let name = path.display().to_string();
    let mistake = |line, text: String| Err(Mistakes::in_file(&name, line, text));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return mistake(None, format!("cannot be opened: {error}")),
    };
    let mut bytes = Vec::new();
    // One byte more than is allowed tells "too large" from "just full".
    if let Err(error) = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes) {
        return mistake(None, format!("cannot be read: {error}"));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return mistake(None, "is larger than 1 MiB; is it the right file?".to_owned());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            mistake(Some(line), "is not UTF-8 text here; save the file as UTF-8".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<String>, Mistakes> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, bytes).expect("the file is written");
        read_text(&path)
    }

    #[test]
    fn missing_file_is_none_and_a_folder_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_text(&folder.path().join("none.yaml")), Ok(None));
        assert!(read_text(folder.path()).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn text_that_is_not_utf8_names_its_line() {
        let mistake = read(b"one: 1\ntwo: \xff\n").unwrap_err().to_string();
        assert!(
            mistake.ends_with("config.yaml:2: is not UTF-8 text here; save the file as UTF-8"),
            "{mistake}"
        );
    }

    #[test]
    fn exactly_one_mebibyte_is_read_and_one_byte_more_is_not() {
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
        assert_eq!(read(&vec![b'#'; limit]).unwrap().unwrap().len(), limit);
        assert!(read(&vec![b'#'; limit + 1]).unwrap_err().to_string().contains("larger than 1 MiB"));
    }
}
