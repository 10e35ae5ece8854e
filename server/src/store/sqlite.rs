//! SQLite: statements on a connection, transactions and views.
//!
//! In: statements in the SQL that both engines share. Out: their rows. Always: a transaction is all of its work, or
//! nothing. What is SQLite's alone, the file and its checks, is in the modules below this one.

pub(super) mod check;
pub(super) mod copy;
pub(super) mod schema;

use std::borrow::Cow;
use std::ops::Range;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, TransactionBehavior, params_from_iter};

use super::engine::fault::Result;
use super::engine::sql::{Columns, Sql, Value};

/// Runs one transaction: all of it, or nothing. Says whether it wrote anything, too.
pub(super) fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&dyn Sql) -> Result<T>,
) -> Result<(T, bool)> {
    let before = connection.total_changes();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&Statements(&transaction))?;
    transaction.commit()?;
    Ok((value, connection.total_changes() != before))
}

/// Reads the database as it is at one moment.
pub(super) fn view<T>(connection: &mut Connection, work: impl FnOnce(&dyn Sql) -> Result<T>) -> Result<T> {
    let view = connection.transaction()?;
    work(&Statements(&view))
}

/// The statements of a connection or a transaction.
pub(super) struct Statements<'a>(pub(super) &'a Connection);

impl Statements<'_> {
    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>> {
        let statement = self.0.prepare_cached(sql)?;
        // SQLite numbers parameters as it meets them, whatever they are called.
        debug_assert!(
            (1..=statement.parameter_count())
                .all(|at| statement.parameter_name(at) == Some(&*format!("${at}"))),
            "the parameters are not first met in the order of their numbers: {sql}"
        );
        Ok(statement)
    }
}

impl Sql for Statements<'_> {
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        Ok(self.prepare(sql)?.execute(params_from_iter(values))? as u64)
    }

    fn execute_each<'a>(&self, sql: &str, values: &mut dyn Iterator<Item = Vec<Value<'a>>>) -> Result<()> {
        let Some(first) = values.next() else { return Ok(()) };
        let mut statement = self.prepare(sql)?;
        statement.execute(params_from_iter(&first))?;
        for values in values {
            statement.execute(params_from_iter(&values))?;
        }
        Ok(())
    }

    fn query(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: &mut dyn FnMut(&dyn Columns) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.prepare(sql)?;
        let mut found = statement.query(params_from_iter(values))?;
        while let Some(row) = found.next()? {
            read(row)?;
        }
        Ok(())
    }

    fn query_each(
        &self,
        sql: &str,
        values: &[Vec<Value<'_>>],
        read: &mut dyn FnMut(usize, &dyn Columns) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.prepare(sql)?;
        for (at, values) in values.iter().enumerate() {
            let mut found = statement.query(params_from_iter(values))?;
            while let Some(row) = found.next()? {
                read(at, row)?;
            }
        }
        Ok(())
    }

    fn reading_ids(&self) -> Result<Range<i64>> {
        let last: i64 =
            self.0.query_row("SELECT coalesce(max(id), 0) FROM readings", [], |row| row.get(0))?;
        Ok(last + 1..i64::MAX)
    }

    fn generation(&self, last: i64) -> Result<i64> {
        Ok(last + 1)
    }

    fn used_bytes(&self) -> Result<u64> {
        let number = |name: &str| self.0.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = number("page_count")? - number("freelist_count")?;
        Ok(pages.unsigned_abs() * number("page_size")?.unsigned_abs())
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn ring(&self, _revision: u64) -> Result<()> {
        Ok(())
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Columns for Row<'_> {
    fn value(
        &self,
        column: &str,
    ) -> std::result::Result<Value<'_>, Box<dyn std::error::Error + Send + Sync>> {
        value(self.get_ref(column)?)
    }

    fn first(&self) -> Option<Value<'_>> {
        self.get_ref(0).ok().and_then(|first| value(first).ok())
    }
}

fn value(value: ValueRef<'_>) -> std::result::Result<Value<'_>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Text(text) => Value::Text(Cow::Borrowed(std::str::from_utf8(text)?)),
        ValueRef::Blob(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
        ValueRef::Real(number) => return Err(format!("{number} is no whole number").into()),
    })
}
