//! PostgreSQL: statements on a connection, transactions and views.
//!
//! In: statements in the SQL that both engines share. Out: their rows. Always: a transaction is all of its work, or
//! nothing; a connection that was lost is made anew with the next one. Many statements of one kind are sent without waiting
//! for each answer. Used by threads of its own, never by those of the runtime, on which the connection itself works.

mod address;
mod check;
mod doorbell;
pub(super) mod keys;
pub(super) mod leases;
pub(super) mod others;
pub(super) mod replicas;
pub(super) mod schema;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::try_join_all;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row, Statement};

use super::engine::fault::{Fault, Result};
use super::engine::sql::{Columns, Sql, Value, row};
pub(super) use address::Address;
pub use check::check;
pub(super) use doorbell::Doorbell;
pub use keys::share_authority;

/// How transactions begin.
const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How many statements are on the way at once.
const PIPELINE: usize = 1_024;

/// The longest that anything may take: a statement, or the making of a connection. PostgreSQL ends statements itself before.
const LONGEST: Duration = Duration::from_secs(15);

/// How many ids of readings a server takes at once, as the sequence in the schema counts.
const READING_IDS: i64 = 4_096;

/// What the rows take. Readings are counted, as files do not shrink when rows are deleted: by their own size and some 100 bytes
/// for row header and indices.
const USED_BYTES: &str = "
    SELECT CAST(
        coalesce((SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'readings'), 0)
            * (100 + coalesce((SELECT avg(pg_column_size(r.*))
                FROM (SELECT * FROM readings ORDER BY id DESC LIMIT 1000) AS r), 0))
        + coalesce((SELECT sum(pg_total_relation_size(oid)) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = CAST('public' AS regnamespace) AND relname <> 'readings'), 0)
        AS BIGINT) AS number";

/// The runtime on which connections work: one thread of its own, so that whoever waits for a thread that asks the database
/// does not hold up its answer.
#[derive(Debug)]
pub(super) struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    pub(super) fn start() -> std::io::Result<OwnRuntime> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("store-postgres").enable_all();
        builder.build().map(|runtime| OwnRuntime(Some(runtime)))
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle().clone()
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever drops it may be a task of another runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// A connection, made when it is needed.
pub(super) struct Connection {
    address: Address,
    runtime: Handle,
    client: Option<Open>,
}

struct Open {
    client: Client,
    statements: RefCell<HashMap<String, Statement>>,
}

impl Connection {
    pub(super) fn new(address: Address, runtime: Handle) -> Connection {
        Connection { address, runtime, client: None }
    }

    /// Runs one transaction: all of it, or nothing. Says that it wrote something, as that cannot be told.
    pub(super) fn transact<T>(&mut self, work: impl FnOnce(&dyn Sql) -> Result<T>) -> Result<(T, bool)> {
        self.within(WRITE, |statements| work(statements)).map(|value| (value, true))
    }

    /// Reads the database as it is at one moment.
    pub(super) fn view<T>(&mut self, work: impl FnOnce(&dyn Sql) -> Result<T>) -> Result<T> {
        self.within(READ, |statements| work(statements))
    }

    /// As [`Connection::transact`], with statements that only PostgreSQL has.
    fn with_statements<T>(&mut self, work: impl FnOnce(&Statements<'_>) -> Result<T>) -> Result<T> {
        self.within(WRITE, work)
    }

    fn within<T>(&mut self, begin: &str, work: impl FnOnce(&Statements<'_>) -> Result<T>) -> Result<T> {
        self.begin(begin)?;
        let Some(open) = &self.client else { return Err(Fault::Stopped) };
        let statements = Statements { open, runtime: &self.runtime };
        let run = || {
            let value = work(&statements)?;
            let ended = statements.simple("COMMIT");
            ended.map_err(|fault| match begin == WRITE && is_silence(&fault) {
                true => Fault::Undecided,
                false => fault,
            })?;
            Ok(value)
        };
        let outcome: Result<T> = run();
        let is_lost = open.client.is_closed() || matches!(outcome, Err(Fault::Away(_) | Fault::Undecided));
        if outcome.is_err() && (is_lost || statements.simple("ROLLBACK").is_err()) {
            self.client = None;
        }
        outcome
    }

    /// Begins a transaction, on a new connection if the one that was there has ended unnoticed.
    fn begin(&mut self, begin: &str) -> Result<()> {
        let was_there = self.client.is_some();
        self.connect()?;
        let Some(open) = &self.client else { return Err(Fault::Stopped) };
        let begun = Statements { open, runtime: &self.runtime }.simple(begin);
        match begun {
            Err(Fault::Postgres(_)) if was_there => {
                self.client = None;
                self.connect()?;
                let Some(open) = &self.client else { return Err(Fault::Stopped) };
                Statements { open, runtime: &self.runtime }.simple(begin)
            }
            Err(fault) => {
                self.client = None;
                Err(fault)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Makes the connection if there is none.
    fn connect(&mut self) -> Result<()> {
        if self.client.as_ref().is_some_and(|open| !open.client.is_closed()) {
            return Ok(());
        }
        self.client = None;
        let connecting = self.address.config.connect(self.address.tls.clone());
        let connected = self.runtime.block_on(async { tokio::time::timeout(LONGEST, connecting).await });
        let (client, connection) = connected.map_err(|_| away("it takes no connection"))??;
        self.runtime.spawn(async move {
            // Whoever uses the client hears of it.
            if let Err(error) = connection.await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection to the database ended"
                );
            }
        });
        self.client = Some(Open { client, statements: RefCell::default() });
        Ok(())
    }
}

/// Whether nobody said what became of a statement: the connection broke, or the server was ended.
fn is_silence(fault: &Fault) -> bool {
    match fault {
        Fault::Away(_) => true,
        Fault::Postgres(error) => {
            error.code().is_none_or(|code| code.code().starts_with("57P") || code.code().starts_with("08"))
        }
        _ => false,
    }
}

fn away(why: &str) -> Fault {
    Fault::Away(format!("{why} within {} s", LONGEST.as_secs()).into())
}

/// The statements of a transaction.
pub(super) struct Statements<'a> {
    open: &'a Open,
    runtime: &'a Handle,
}

impl Statements<'_> {
    fn wait<T>(
        &self,
        work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let done = self.runtime.block_on(async { tokio::time::timeout(LONGEST, work).await });
        Ok(done.map_err(|_| away("it does not answer"))??)
    }

    /// Executes statements without parameters.
    pub(super) fn simple(&self, sql: &str) -> Result<()> {
        self.wait(self.open.client.batch_execute(sql))
    }

    /// The one number that a query finds.
    fn number(&self, sql: &str) -> Result<i64> {
        let found = row(self, "numbers", sql, &[], |cells| cells.plain("number"))?;
        found.ok_or_else(|| Fault::Unreadable(format!("nothing was found by {sql}")))
    }

    fn prepare(&self, sql: &str) -> Result<Statement> {
        if let Some(known) = self.open.statements.borrow().get(sql) {
            return Ok(known.clone());
        }
        let statement = self.wait(self.open.client.prepare(sql))?;
        self.open.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Sql for Statements<'_> {
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let statement = self.prepare(sql)?;
        self.wait(self.open.client.execute_raw(&statement, values))
    }

    fn execute_each<'a>(&self, sql: &str, values: &mut dyn Iterator<Item = Vec<Value<'a>>>) -> Result<()> {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let statement = self.prepare(sql)?;
        loop {
            let some: Vec<_> = values.by_ref().take(PIPELINE).collect();
            if some.is_empty() {
                return Ok(());
            }
            let on_the_way = some.iter().map(|values| self.open.client.execute_raw(&statement, values));
            self.wait(try_join_all(on_the_way))?;
        }
    }

    fn query(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: &mut dyn FnMut(&dyn Columns) -> Result<()>,
    ) -> Result<()> {
        let statement = self.prepare(sql)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let found = self.wait(self.open.client.query(&statement, &parameters))?;
        found.iter().try_for_each(|row| read(row))
    }

    fn query_each(
        &self,
        sql: &str,
        values: &[Vec<Value<'_>>],
        read: &mut dyn FnMut(usize, &dyn Columns) -> Result<()>,
    ) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let statement = self.prepare(sql)?;
        for (chunk, values) in values.chunks(PIPELINE).enumerate() {
            let parameters: Vec<Vec<&(dyn ToSql + Sync)>> =
                values.iter().map(|values| values.iter().map(|value| value as _).collect()).collect();
            let on_the_way = parameters.iter().map(|values| self.open.client.query(&statement, values));
            for (at, found) in self.wait(try_join_all(on_the_way))?.iter().enumerate() {
                found.iter().try_for_each(|row| read(chunk * PIPELINE + at, row))?;
            }
        }
        Ok(())
    }

    fn reading_ids(&self) -> Result<Range<i64>> {
        let last = self.number("SELECT nextval('reading_ids') AS number")?;
        Ok(last - READING_IDS + 1..last + 1)
    }

    fn generation(&self, last: i64) -> Result<i64> {
        Ok(self.number("SELECT unix_ms() / 86400000 AS number")?.max(last))
    }

    fn used_bytes(&self) -> Result<u64> {
        Ok(self.number(USED_BYTES)?.unsigned_abs())
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn ring(&self, revision: u64) -> Result<()> {
        self.execute(doorbell::RING, &[Value::from(revision.to_string())]).map(drop)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Integer(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Value::Integer(number) => number.to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Bytes(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::TEXT, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

impl Columns for Row {
    fn value(
        &self,
        column: &str,
    ) -> std::result::Result<Value<'_>, Box<dyn std::error::Error + Send + Sync>> {
        let at = self.columns().iter().position(|known| known.name() == column);
        value(self, at.ok_or_else(|| format!("there is no column {column}"))?)
    }

    fn first(&self) -> Option<Value<'_>> {
        value(self, 0).ok()
    }
}

fn value(row: &Row, at: usize) -> std::result::Result<Value<'_>, Box<dyn std::error::Error + Send + Sync>> {
    let kind = row.columns()[at].type_();
    Ok(match *kind {
        Type::INT8 => row.try_get::<_, Option<i64>>(at)?.map_or(Value::Null, Value::Integer),
        Type::INT4 => row.try_get::<_, Option<i32>>(at)?.map_or(Value::Null, |number| number.into()),
        Type::TEXT => {
            row.try_get::<_, Option<&str>>(at)?.map_or(Value::Null, |text| Value::Text(Cow::Borrowed(text)))
        }
        Type::BYTEA => row
            .try_get::<_, Option<&[u8]>>(at)?
            .map_or(Value::Null, |bytes| Value::Bytes(Cow::Borrowed(bytes))),
        _ => return Err(format!("it is of type {kind}").into()),
    })
}
