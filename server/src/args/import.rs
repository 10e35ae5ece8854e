//! `pulse import`.

use std::path::PathBuf;

use clap::Args;

use super::value::{fingerprint, hostname};

/// What is read, what becomes of it, and how it ends; the same in `docs/import.md`.
const AFTER: &str = "\
Files: an older proxy's config.yaml or allowed_nodes.yaml, its control token's file, and the corosync.conf of a cluster. Folder: an \
older server's data, with nodes.enc and .encryption.key in it (/etc/pulse, or /data in its container). They are read by this command, \
and nothing of them is changed.

It shows what it would do, asks, and has the server do all of it in one change. What is there stays as it is, so a second run changes \
nothing. No host is asked.

What could not be read, or is not taken, is named with the way out. The exit code is 0 if the rest was done or is there already, and 1 \
if there is nothing else or the server refused; 2 means that something must be said first.";

/// `pulse import`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(after_help = AFTER)]
pub struct Import {
    /// Files of older installs
    #[arg(value_name = "FILE", required_unless_present = "pulse_data")]
    pub files: Vec<PathBuf>,
    /// Data folder of an older server
    #[arg(long, value_name = "DIR")]
    pub pulse_data: Option<PathBuf>,
    /// The instance of files that name none, such as a list of nodes; made if it is not there
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The host of a control token that names none
    #[arg(long, value_name = "HOSTNAME", value_parser = hostname)]
    pub host: Option<String>,
    /// SHA-256 fingerprint of a certificate to trust, where the older server trusted any; can be given several times
    #[arg(long = "fingerprint", value_name = "SHA256", value_parser = fingerprint)]
    pub fingerprints: Vec<String>,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
}
