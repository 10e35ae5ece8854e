//! `pulse restore` and `pulse check`: what is done with files, without a server.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

/// What is done with files, without a server.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Files {
    /// Put a backup back into the data folder; no server may run on it
    Restore(Restore),
    /// Check the database, or a backup: integrity, audit log, every list
    Check {
        /// A backup [default: the database in the data folder, also while the server runs]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// `pulse restore …`.
#[derive(Clone, Debug, PartialEq, Eq, Group)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Begin a new epoch: proxies may have seen newer lists than those of the backup
    #[arg(long, conflicts_with = "keep_epoch")]
    pub new_epoch: bool,
    /// Keep the epoch: nothing was changed since the backup was made
    #[arg(long)]
    pub keep_epoch: bool,
    /// Do not ask; and go on though the check found something, if a server can run on it
    #[arg(long)]
    pub yes: bool,
}
