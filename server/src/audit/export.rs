//! A log in a file: one line of JSON that says what it is, then one for each row, exactly as it was hashed.
//!
//! In: rows in order; or such a file. Out: lines; or whether the file holds what was written. Always: a file that ends too early
//! does not hold. Never: needs the database, or a key.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::verify::{Verdict, Verifier};
use super::{Ends, Point, Row};

/// What the first line says of the form of the file.
pub const FORMAT: &str = "pulse-audit-v1";

/// The longest line: a row has at most some 200 KiB.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// The first line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// The fleet whose log it is.
    pub server_id: Uuid,
    /// The row before the first one of the file.
    pub base: Point,
    /// The last row of the file.
    pub head: Point,
}

impl Header {
    /// Of a part of a log: what lies behind `base`, up to `head`.
    #[must_use]
    pub fn new(server_id: Uuid, base: Point, head: Point) -> Header {
        Header { format: FORMAT.to_owned(), server_id, base, head }
    }
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is no export.
    #[error("line {line} is no {what} of an exported audit log: {why}")]
    NotOne {
        /// The line, from 1.
        line: u64,
        /// `header` or `row`.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// One line of the file.
///
/// # Errors
/// It is no JSON, which cannot be.
pub fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Verifies a file. `expected` is a row that was noted elsewhere.
///
/// # Errors
/// [`ExportError`]: it is none.
pub fn verify(mut file: impl BufRead, expected: Option<Point>) -> Result<(Header, Verdict), ExportError> {
    let not_one = |line, what, why: String| ExportError::NotOne { line, what, why };
    let first = next_line(&mut file)?.unwrap_or_default();
    let header: Header =
        serde_json::from_slice(&first).map_err(|error| not_one(1, "header", error.to_string()))?;
    if header.format != FORMAT {
        return Err(not_one(1, "header", format!("its format is {:?}, and not {FORMAT:?}", header.format)));
    }
    let ends = Ends { base: header.base.clone(), head: header.head.clone(), ..Ends::of_none() };
    let mut verifier = Verifier::new(ends, expected);
    let mut number = 1;
    while let Some(line) = next_line(&mut file)? {
        number += 1;
        let row: Row =
            serde_json::from_slice(&line).map_err(|error| not_one(number, "row", error.to_string()))?;
        verifier.row(&row, &mut |_| ());
    }
    Ok((header, verifier.end(None, true, &mut |_| ())))
}

fn next_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    Ok(Some(line).filter(|line| !line.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::audit::verify::Damage;
    use crate::audit::{Actor, Entry, Outcome};

    fn file(rows: u64) -> Vec<u8> {
        let (mut head, mut lines) = (Point::first(), Vec::new());
        for seq in 1..=rows {
            let detail = json!({ "text": "a \"quoted\" ä\n", "n": seq });
            let entry = Entry::new(
                SystemTime::UNIX_EPOCH,
                &Actor::SERVER,
                "a",
                "b".to_owned(),
                Outcome::Done,
                detail,
            );
            let row = Row::chain(&entry, seq, 0, &head.hash);
            lines.extend(line(&row).unwrap());
            head = Point { seq, hash: row.hash };
        }
        let header = Header::new(Uuid::nil(), Point::first(), head);
        [line(&header).unwrap(), lines].concat()
    }

    #[test]
    fn a_file_holds_as_it_was_written_and_not_if_it_was_altered_or_ends_early() {
        let whole = file(3);
        let of = |file: &[u8]| verify(file, None).map(|(_, verdict)| (verdict.rows, verdict.damage));
        assert_eq!(of(&whole).unwrap(), (3, None));
        assert_eq!(of(&file(0)).unwrap(), (0, None));
        let text = String::from_utf8(whole.clone()).unwrap();
        let altered = text.replacen("\\\"n\\\":2", "\\\"n\\\":5", 1);
        assert_eq!(of(altered.as_bytes()).unwrap().1, Some(Damage::Edited { seq: 2 }));
        let last = text.trim_end().rfind('\n').unwrap();
        assert_eq!(of(&whole[..=last]).unwrap().1, Some(Damage::CutOff { first: 3, last: 3 }));
        assert!(matches!(of(&whole[..last + 20]), Err(ExportError::NotOne { line: 4, what: "row", .. })));
        for other in [&b""[..], b"{}", b"text", &text.replace(FORMAT, "pulse-audit-v9").into_bytes()] {
            assert!(matches!(of(other), Err(ExportError::NotOne { line: 1, what: "header", .. })));
        }
    }
}
