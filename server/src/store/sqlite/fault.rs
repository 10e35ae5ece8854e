//! What goes wrong inside the engine, before it is known what was being done.
//!
//! In: SQLite's errors, and rows that make no sense. Out: a [`StoreError`] with the doing and the file.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Error, ErrorCode};

use crate::store::StoreError;

/// Why a transaction ended without a result.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// SQLite said so. Shared, because all reports of a group get the same one.
    Engine(Arc<Error>),
    /// A row makes no sense.
    Unreadable(String),
    /// The fleet is at another revision.
    Conflict(u64),
    /// A file beside the database cannot be used, or there is no room for it.
    Disk(Arc<std::io::Error>),
    /// Nobody waits for it any more.
    Stopped,
}

/// What the engine's own functions return.
pub(super) type Result<T> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Engine(Arc::new(error))
    }
}

impl Fault {
    /// Whether writing itself failed: a broken rule of the schema is a mistake of the caller, not of the disk.
    pub(super) fn is_of_the_disk(&self) -> bool {
        match self {
            Fault::Engine(error) => error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation),
            Fault::Unreadable(_) | Fault::Conflict(_) | Fault::Disk(_) | Fault::Stopped => false,
        }
    }

    /// Whether the same would fail whenever it is tried: what was to be written breaks a rule of the schema.
    pub(super) fn is_for_ever(&self) -> bool {
        match self {
            Fault::Engine(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
            ),
            Fault::Unreadable(_) | Fault::Conflict(_) => true,
            Fault::Disk(_) | Fault::Stopped => false,
        }
    }

    /// The error for the caller. `doing` is what was tried, such as `read the audit log`.
    pub(super) fn while_doing(&self, doing: &str, path: &Path) -> StoreError {
        match self {
            Fault::Conflict(revision) => StoreError::Conflict(*revision),
            Fault::Stopped => StoreError::Closed,
            Fault::Disk(error) => {
                StoreError::Database { doing: doing.to_owned(), source: Box::new(Arc::clone(error)) }
            }
            Fault::Unreadable(what) => StoreError::Unreadable(format!("{}: {what}", path.display())),
            Fault::Engine(error) if is_damage(error) => {
                StoreError::Unreadable(format!("{}: {doing}: {error}", path.display()))
            }
            Fault::Engine(error) => StoreError::Database {
                doing: format!("{doing} ({})", path.display()),
                source: Box::new(Arc::clone(error)),
            },
        }
    }
}

/// Whether the file is damaged, or no database, or holds values of another type than ours.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..) => true,
        error => {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        }
    }
}
