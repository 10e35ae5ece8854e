//! Values between Rust and the columns of a row: times, numbers, ids, words.
//!
//! Always: what cannot be read back is an error that names table, column and row; nothing is guessed.

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, Params, Row};

use super::fault::{Fault, Result};

/// Reads all rows of a query, each by `read`. `table` is named in errors.
pub(super) fn rows<T>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
    mut read: impl FnMut(&Cells<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params)?;
    let mut values = Vec::new();
    while let Some(row) = found.next()? {
        values.push(read(&Cells { row, table })?);
    }
    Ok(values)
}

/// A row that is being read. Its first column names it in errors.
pub(super) struct Cells<'row> {
    row: &'row Row<'row>,
    table: &'static str,
}

impl Cells<'_> {
    /// A value as SQLite has it.
    pub(super) fn plain<T: FromSql>(&self, column: &str) -> Result<T> {
        self.row.get(column).map_err(|error| self.unreadable(column, error))
    }

    /// A number that is never negative.
    pub(super) fn number(&self, column: &str) -> Result<u64> {
        u64::try_from(self.plain::<i64>(column)?).map_err(|error| self.unreadable(column, error))
    }

    /// A text that has a meaning.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.plain::<String>(column)?.parse().map_err(|error| self.unreadable(column, error))
    }

    /// A text that has a meaning, or nothing.
    pub(super) fn parsed_if_any<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        let text = self.plain::<Option<String>>(column)?;
        text.map(|text| text.parse()).transpose().map_err(|error| self.unreadable(column, error))
    }

    /// A time.
    pub(super) fn time(&self, column: &str) -> Result<SystemTime> {
        self.time_if_any(column)?.ok_or_else(|| self.unreadable(column, "there is no time"))
    }

    /// A time, or nothing.
    pub(super) fn time_if_any(&self, column: &str) -> Result<Option<SystemTime>> {
        let millis = self.plain::<Option<i64>>(column)?;
        millis
            .map(|millis| time(millis).ok_or_else(|| self.unreadable(column, "there is no such time")))
            .transpose()
    }

    /// One of the words of an enum.
    pub(super) fn word<T: Copy>(&self, column: &str, words: &[(T, &str)]) -> Result<T> {
        let text = self.plain::<String>(column)?;
        let found = words.iter().find(|(_, word)| *word == text);
        found
            .map(|(value, _)| *value)
            .ok_or_else(|| self.unreadable(column, format!("{text:?} is no such word")))
    }

    /// The error that this row cannot be read.
    pub(super) fn unreadable(&self, column: &str, why: impl Display) -> Fault {
        // Never the key itself if it is a secret's digest: of bytes only the first four.
        let row = match self.row.get_ref(0) {
            Ok(ValueRef::Integer(key)) => key.to_string(),
            Ok(ValueRef::Text(key)) => String::from_utf8_lossy(key).into_owned(),
            Ok(ValueRef::Blob(key)) => format!("{}…", pulse_proto::hex::encode(&key[..key.len().min(4)])),
            _ => String::from("?"),
        };
        Fault::Unreadable(format!("table {}, row {row}, column {column}: {why}", self.table))
    }
}

/// The word of an enum's value.
pub(super) fn word_of<T: PartialEq>(value: &T, words: &[(T, &'static str)]) -> &'static str {
    let found = words.iter().find(|(candidate, _)| candidate == value);
    found.map(|(_, word)| *word).expect("the table of words has every value")
}

/// A number as it is stored: 64 bits with a sign, here and in PostgreSQL. Revisions, epochs and sequences
/// that are larger come about by no honest means, and stop at the largest.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A time as it is stored: Unix milliseconds, rounded down.
pub(super) fn millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_nanos().div_ceil(1_000_000)).map_or(i64::MIN, |millis| -millis)
        }
    }
}

/// A time as it was stored; `None` if the system knows no such time.
fn time(millis: i64) -> Option<SystemTime> {
    let distance = Duration::from_millis(millis.unsigned_abs());
    if millis < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_kept_to_the_millisecond_before_and_after_1970() {
        for (nanos, stored) in [(0_i64, 0), (1_999_999, 1), (1_700_000_000_123_456_789, 1_700_000_000_123)] {
            let at = UNIX_EPOCH + Duration::from_nanos(nanos.unsigned_abs());
            assert_eq!(millis(at), stored);
            assert_eq!(time(stored), Some(UNIX_EPOCH + Duration::from_millis(stored.unsigned_abs())));
        }
        let before = UNIX_EPOCH - Duration::from_micros(1_500);
        assert_eq!(millis(before), -2);
        assert_eq!(time(-2), Some(UNIX_EPOCH - Duration::from_millis(2)));
    }

    #[test]
    fn the_largest_numbers_stop_at_the_largest_stored() {
        assert_eq!(integer(u64::MAX), i64::MAX);
        assert_eq!(integer(7), 7);
    }
}
