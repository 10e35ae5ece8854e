//! What a check of a database found: nothing, or what is wrong and where.
//!
//! Out: [`Checked`], which [`super::check`] returns.

use std::fmt;

use uuid::Uuid;

/// What is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The table; empty if it is the file as a whole.
    pub table: String,
    /// The row, by its key; empty if it is the table as a whole.
    pub row: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.table.as_str(), self.row.as_str()) {
            ("", _) => write!(f, "{}", self.what),
            (table, "") => write!(f, "table {table}: {}", self.what),
            (table, row) => write!(f, "table {table}, row {row}: {}", self.what),
        }
    }
}

/// What was checked, and what was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// The identity of the database; `None` if it cannot be read.
    pub server_id: Option<Uuid>,
    /// The fleet's epoch.
    pub epoch: u64,
    /// The fleet's revision.
    pub revision: u64,
    /// How many rows the audit log has.
    pub audit_rows: u64,
    /// How many lists there are.
    pub lists: u64,
    /// Whether the database cannot be used as it is: the file itself is damaged, or a server would not start on it.
    pub is_unusable: bool,
    /// What is wrong. Empty: all holds.
    pub findings: Vec<Finding>,
}
