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
    /// The database itself
    #[command(subcommand, arg_required_else_help = true)]
    Db(Db),
}

/// `pulse db …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Db {
    /// Move a fleet to an empty database on PostgreSQL: every row as it is, compared afterwards; no server may run on either
    Copy {
        /// The data folder that has the database
        #[arg(long, value_name = "sqlite:FOLDER", value_parser = sqlite_folder)]
        from: PathBuf,
        /// Where it shall be; the password is read from PULSE_DATABASE_PASSWORD, or from --password-file
        // Read later: clap would repeat it in an error, and somebody may have typed a password into it.
        #[arg(long, value_name = "postgres://USER@HOST/DATABASE")]
        to: String,
        /// The file that has the password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// The file of the key that opens what servers on the database share; made if it is not there [default: that of the
        /// database in FOLDER]
        #[arg(long, value_name = "FILE")]
        secret_key_file: Option<PathBuf>,
        /// The authorities that the database's certificate is checked against, in PEM [default: the system's]
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
    },
}

/// Reads `sqlite:FOLDER`.
fn sqlite_folder(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("sqlite:").filter(|folder| !folder.is_empty()) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Err("must be sqlite: and the data folder, like sqlite:/var/lib/pulse".to_owned()),
    }
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
