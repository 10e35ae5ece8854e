//! `pulse audit …`: the audit log, whether it is the one that was written, and a copy of it.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

use crate::audit::Point;

/// `pulse audit …`; without a command of its own it shows the newest rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Group)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// What to do with the log as a whole.
    #[command(subcommand)]
    pub whole: Option<AuditLog>,
    /// Show new rows as they come, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
}

/// What is done with the log as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AuditLog {
    /// Verify that no row was edited, removed, put elsewhere or cut off; exit code 1 if one was
    Verify {
        /// An exported file, which needs no server [default: the log of the running server]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// A row that was noted earlier, and elsewhere: the log must have it still
        #[arg(long, value_name = "SEQ:HASH")]
        expect: Option<Point>,
    },
    /// Write the log to a file, one row a line, which can be verified anywhere
    Export {
        /// The file; - for standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only rows behind this one
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
}
