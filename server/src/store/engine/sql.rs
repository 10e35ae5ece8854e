//! What both databases understand: statements with numbered parameters, and rows of a few kinds of values.
//!
//! In: statements in the SQL that SQLite and PostgreSQL share, with parameters `$1`, `$2` and so on, first met in that
//! order. Out: rows. Always: what cannot be read back is an error that names table, column and row; nothing is guessed.
//! Never: knows what a table means.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::fault::{Fault, Result};

/// A value of a column or a parameter.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::store) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

/// A view of the database, or a transaction.
pub(in crate::store) trait Sql {
    /// Executes a statement. Out: how many rows it changed.
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64>;

    /// Executes a statement once for each row of values, in order.
    fn execute_each<'a>(&self, sql: &str, values: &mut dyn Iterator<Item = Vec<Value<'a>>>) -> Result<()>;

    /// Reads the rows of a query, each by `read`, which may ask further.
    fn query(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: &mut dyn FnMut(&dyn Columns) -> Result<()>,
    ) -> Result<()>;

    /// Queries once for each row of values, in order. `read` gets the number of the query, from 0, with each row.
    fn query_each(
        &self,
        sql: &str,
        values: &[Vec<Value<'_>>],
        read: &mut dyn FnMut(usize, &dyn Columns) -> Result<()>,
    ) -> Result<()>;

    /// Ids for readings that nobody else gives out: higher than all that were given out before.
    fn reading_ids(&self) -> Result<Range<i64>>;

    /// A generation of series that is not before any of which something was written. `last` is the newest of these.
    fn generation(&self, last: i64) -> Result<i64>;

    /// How many bytes the database takes, without what is free in it.
    fn used_bytes(&self) -> Result<u64>;

    /// Whether others write to the database too, so that what is remembered of it may be out of date.
    fn is_shared(&self) -> bool;

    /// Tells others of a new revision, once the transaction is committed.
    fn ring(&self, revision: u64) -> Result<()>;
}

/// A row as an engine has it.
pub(in crate::store) trait Columns {
    /// The value of a column, by its name.
    fn value(&self, column: &str)
    -> std::result::Result<Value<'_>, Box<dyn std::error::Error + Send + Sync>>;

    /// The value of the first column.
    fn first(&self) -> Option<Value<'_>>;
}

/// Values of several types as parameters.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::store::engine::sql::Value::from($value)),*] };
}
pub(in crate::store) use values;

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Value::Integer(i64::from(number))
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Value::Integer(i64::from(number))
    }
}

/// Truth values are stored as 0 and 1.
impl From<bool> for Value<'_> {
    fn from(is_true: bool) -> Self {
        Value::Integer(i64::from(is_true))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

/// Ids are stored as hyphenated text.
impl From<Uuid> for Value<'_> {
    fn from(id: Uuid) -> Self {
        Value::Text(Cow::Owned(id.to_string()))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(Cow::Borrowed(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Value::Bytes(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Bytes(Cow::Owned(bytes))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// What a column's value is read as.
pub(in crate::store) trait FromValue: Sized {
    /// `None` if the value is of another type.
    fn from_value(value: Value<'_>) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: Value<'_>) -> Option<i64> {
        if let Value::Integer(number) = value { Some(number) } else { None }
    }
}

impl FromValue for i32 {
    fn from_value(value: Value<'_>) -> Option<i32> {
        i64::from_value(value).and_then(|number| number.try_into().ok())
    }
}

impl FromValue for u32 {
    fn from_value(value: Value<'_>) -> Option<u32> {
        i64::from_value(value).and_then(|number| number.try_into().ok())
    }
}

impl FromValue for bool {
    fn from_value(value: Value<'_>) -> Option<bool> {
        i64::from_value(value).map(|number| number != 0)
    }
}

impl FromValue for String {
    fn from_value(value: Value<'_>) -> Option<String> {
        if let Value::Text(text) = value { Some(text.into_owned()) } else { None }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value<'_>) -> Option<Vec<u8>> {
        if let Value::Bytes(bytes) = value { Some(bytes.into_owned()) } else { None }
    }
}

impl<const N: usize> FromValue for [u8; N] {
    fn from_value(value: Value<'_>) -> Option<[u8; N]> {
        if let Value::Bytes(bytes) = value { bytes.as_ref().try_into().ok() } else { None }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value<'_>) -> Option<Option<T>> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// Reads all rows of a query, each by `read`. `table` is named in errors.
pub(in crate::store) fn rows<T>(
    sql: &dyn Sql,
    table: &'static str,
    statement: &str,
    values: &[Value<'_>],
    mut read: impl FnMut(&Cells<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut found = Vec::new();
    sql.query(statement, values, &mut |row| {
        found.push(read(&Cells { row, table })?);
        Ok(())
    })?;
    Ok(found)
}

/// The first row of a query, read by `read`; `None` if there is none.
pub(in crate::store) fn row<T>(
    sql: &dyn Sql,
    table: &'static str,
    statement: &str,
    values: &[Value<'_>],
    read: impl FnMut(&Cells<'_>) -> Result<T>,
) -> Result<Option<T>> {
    Ok(rows(sql, table, statement, values, read)?.into_iter().next())
}

/// A row that is being read. Its first column names it in errors.
pub(in crate::store) struct Cells<'row> {
    pub(in crate::store) row: &'row dyn Columns,
    pub(in crate::store) table: &'static str,
}

impl Cells<'_> {
    /// A value as the database has it.
    pub(in crate::store) fn plain<T: FromValue>(&self, column: &str) -> Result<T> {
        let value = self.row.value(column).map_err(|error| self.unreadable(column, error))?;
        T::from_value(value).ok_or_else(|| self.unreadable(column, "the value is of another type"))
    }

    /// A number that is never negative.
    pub(in crate::store) fn number(&self, column: &str) -> Result<u64> {
        u64::try_from(self.plain::<i64>(column)?).map_err(|error| self.unreadable(column, error))
    }

    /// A text that has a meaning.
    pub(in crate::store) fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.plain::<String>(column)?.parse().map_err(|error| self.unreadable(column, error))
    }

    /// A text that has a meaning, or nothing.
    pub(in crate::store) fn parsed_if_any<T: FromStr<Err: Display>>(
        &self,
        column: &str,
    ) -> Result<Option<T>> {
        let text = self.plain::<Option<String>>(column)?;
        text.map(|text| text.parse()).transpose().map_err(|error| self.unreadable(column, error))
    }

    /// A time.
    pub(in crate::store) fn time(&self, column: &str) -> Result<SystemTime> {
        self.time_if_any(column)?.ok_or_else(|| self.unreadable(column, "there is no time"))
    }

    /// A time, or nothing.
    pub(in crate::store) fn time_if_any(&self, column: &str) -> Result<Option<SystemTime>> {
        let millis = self.plain::<Option<i64>>(column)?;
        millis
            .map(|millis| time(millis).ok_or_else(|| self.unreadable(column, "there is no such time")))
            .transpose()
    }

    /// One of the words of an enum.
    pub(in crate::store) fn word<T: Copy>(&self, column: &str, words: &[(T, &str)]) -> Result<T> {
        let text = self.plain::<String>(column)?;
        let found = words.iter().find(|(_, word)| *word == text);
        found
            .map(|(value, _)| *value)
            .ok_or_else(|| self.unreadable(column, format!("{text:?} is no such word")))
    }

    /// The error that this row cannot be read.
    pub(in crate::store) fn unreadable(&self, column: &str, why: impl Display) -> Fault {
        // Never the key itself if it is a secret's digest: of bytes only the first four.
        let row = match self.row.first() {
            Some(Value::Integer(key)) => key.to_string(),
            Some(Value::Text(key)) => key.into_owned(),
            Some(Value::Bytes(key)) => format!("{}…", pulse_proto::hex::encode(&key[..key.len().min(4)])),
            Some(Value::Null) | None => String::from("?"),
        };
        Fault::Unreadable(format!("table {}, row {row}, column {column}: {why}", self.table))
    }
}

/// The word of an enum's value.
pub(in crate::store) fn word_of<T: PartialEq>(value: &T, words: &[(T, &'static str)]) -> &'static str {
    let found = words.iter().find(|(candidate, _)| candidate == value);
    found.map(|(_, word)| *word).expect("the table of words has every value")
}

/// A number as it is stored: 64 bits with a sign, here and in PostgreSQL. Revisions, epochs and sequences
/// that are larger come about by no honest means, and stop at the largest.
pub(in crate::store) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A time as it is stored: Unix milliseconds, rounded down.
pub(in crate::store) fn millis(time: SystemTime) -> i64 {
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
