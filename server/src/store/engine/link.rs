//! [`Link`]: a connection to the database, whichever engine it is.
//!
//! In: work to be done in a transaction, or on a view. Out: what it came to.
//! Always: a transaction is all of its work, or nothing.

use super::fault::Result;
use super::sql::Sql;
use crate::store::{postgres, sqlite};

/// A connection, which belongs to one thread.
pub(in crate::store) enum Link {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Connection>),
}

impl Link {
    /// Runs one transaction: all of it, or nothing. Says whether it wrote anything, too.
    pub(in crate::store) fn transact<T>(
        &mut self,
        work: impl FnOnce(&dyn Sql) -> Result<T>,
    ) -> Result<(T, bool)> {
        match self {
            Link::Sqlite(connection) => sqlite::transact(connection, work),
            Link::Postgres(connection) => connection.transact(work),
        }
    }

    /// Reads the database as it is at one moment.
    pub(in crate::store) fn view<T>(&mut self, work: impl FnOnce(&dyn Sql) -> Result<T>) -> Result<T> {
        match self {
            Link::Sqlite(connection) => sqlite::view(connection, work),
            Link::Postgres(connection) => connection.view(work),
        }
    }

    /// Puts what is in SQLite's log where it belongs, if no other program's reading is in the way: then the log is empty.
    pub(in crate::store) fn empty_log(&self) {
        if let Link::Sqlite(connection) = self
            && let Err(fault) = sqlite::schema::empty_log(connection)
        {
            tracing::debug!(?fault, "the database's log was not emptied");
        }
    }

    /// Closes it, with all that was written where it belongs.
    pub(in crate::store) fn close(self) -> Result<()> {
        match self {
            Link::Sqlite(connection) => {
                // Its answer is whether another program's reading kept it from emptying the log; then it stays as it is.
                connection.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(()))?;
                connection.close().map_err(|(_, error)| error.into())
            }
            Link::Postgres(connection) => {
                drop(connection);
                Ok(())
            }
        }
    }
}
