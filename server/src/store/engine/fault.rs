//! What goes wrong inside the engine, before it is known what was being done.
//!
//! In: the errors of SQLite and PostgreSQL, and rows that make no sense. Out: a [`StoreError`] with the doing and the
//! database.

use std::sync::Arc;

use rusqlite::ErrorCode;
use tokio_postgres::error::SqlState;

use crate::sealing::SealingError;
use crate::store::StoreError;

/// Why a transaction ended without a result.
#[derive(Clone, Debug)]
pub(in crate::store) enum Fault {
    /// SQLite said so. Shared, because all reports of a group get the same one.
    Sqlite(Arc<rusqlite::Error>),
    /// PostgreSQL said so, or it cannot be reached.
    Postgres(Arc<tokio_postgres::Error>),
    /// PostgreSQL does not answer, or not as it should.
    Away(Arc<str>),
    /// The connection was lost while a transaction ended: it may be there.
    Undecided,
    /// A row makes no sense.
    Unreadable(String),
    /// The fleet is at another revision.
    Conflict(u64),
    /// The database has another history than what somebody holds.
    OtherHistory {
        /// The revision that it is at.
        revision: u64,
    },
    /// Another server has the work by now.
    LeaseLost,
    /// A file beside the database cannot be used, or there is no room for it.
    Disk(Arc<std::io::Error>),
    /// A key that is sealed in the database cannot be had.
    Sealed(SealingError),
    /// Other servers are on the database, by these names.
    OtherServers(String),
    /// Nobody waits for it any more.
    Stopped,
}

/// What the engine's own functions return.
pub(in crate::store) type Result<T> = std::result::Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(Arc::new(error))
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        Fault::Postgres(Arc::new(error))
    }
}

impl Fault {
    /// Whether writing itself failed: a broken rule of the schema is a mistake of the caller, not of the disk.
    pub(in crate::store) fn is_of_the_disk(&self) -> bool {
        match self {
            Fault::Sqlite(error) => error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation),
            Fault::Postgres(error) => !breaks_a_rule(error) && !is_to_be_tried_again(error),
            Fault::Away(_) | Fault::Undecided => true,
            Fault::Unreadable(_)
            | Fault::Conflict(_)
            | Fault::OtherHistory { .. }
            | Fault::LeaseLost
            | Fault::Disk(_)
            | Fault::Sealed(_)
            | Fault::OtherServers(_)
            | Fault::Stopped => false,
        }
    }

    /// Whether the same would fail whenever it is tried: what was to be written breaks a rule of the schema.
    pub(in crate::store) fn is_for_ever(&self) -> bool {
        match self {
            Fault::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
            ),
            Fault::Postgres(error) => breaks_a_rule(error),
            Fault::Unreadable(_) | Fault::Conflict(_) | Fault::OtherHistory { .. } | Fault::Sealed(_) => true,
            Fault::Away(_)
            | Fault::Undecided
            | Fault::LeaseLost
            | Fault::Disk(_)
            | Fault::OtherServers(_)
            | Fault::Stopped => false,
        }
    }

    /// The error for the caller. `doing` is what was tried, such as `read the audit log`; `database` says where.
    pub(in crate::store) fn while_doing(&self, doing: &str, database: &str) -> StoreError {
        let doing_there = || format!("{doing} ({database})");
        match self {
            Fault::Conflict(revision) => StoreError::Conflict(*revision),
            Fault::OtherHistory { revision } => StoreError::OtherHistory { revision: *revision },
            Fault::LeaseLost => StoreError::LeaseLost { doing: doing.to_owned() },
            Fault::Stopped => StoreError::Closed,
            Fault::Undecided => StoreError::Undecided { doing: doing_there() },
            Fault::Sealed(error) => StoreError::Sealed(error.clone()),
            Fault::OtherServers(names) => StoreError::OtherServers(names.clone()),
            Fault::Disk(error) => {
                StoreError::Database { doing: doing.to_owned(), source: Box::new(Arc::clone(error)) }
            }
            Fault::Unreadable(what) => StoreError::Unreadable(format!("{database}: {what}")),
            Fault::Sqlite(error) if is_damage(error) => {
                StoreError::Unreadable(format!("{database}: {doing}: {error}"))
            }
            Fault::Sqlite(error) => {
                StoreError::Database { doing: doing_there(), source: Box::new(Arc::clone(error)) }
            }
            Fault::Postgres(error) => {
                StoreError::Database { doing: doing_there(), source: said(error).into() }
            }
            Fault::Away(why) => StoreError::Database { doing: doing_there(), source: why.as_ref().into() },
        }
    }
}

/// Whether the file is damaged, or no database, or holds values of another type than ours.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..) => true,
        error => {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        }
    }
}

/// All that an error says: itself only says of what kind it is.
fn said(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// Classes 22 and 23: a value that a column cannot hold, or a constraint.
fn breaks_a_rule(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("22") || code.code().starts_with("23"))
}

/// Two transactions were in each other's way, and this one gave way.
fn is_to_be_tried_again(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::T_R_DEADLOCK_DETECTED) || code == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}
