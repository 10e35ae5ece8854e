//! `pulse admin …`, `pulse token …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::value::ttl;
use crate::accounts::ApiScope;

/// `pulse admin …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Account {
    /// List admins
    List,
    /// Add an admin, and print the one-time link with which the password is set
    Add {
        /// The name: letters, digits, dots, underscores and hyphens
        name: String,
    },
    /// Take an admin's password and log-ins away, and print the one-time link with which a new password is set
    Reset {
        /// The name
        #[arg(default_value = "admin")]
        name: String,
    },
    /// Take an admin off, with all log-ins
    Remove {
        /// The name
        name: String,
    },
}

/// `pulse token …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ApiToken {
    /// Make an API token, and print it: this once
    Create {
        /// Its name, for people
        name: String,
        /// What it shall be good for; can be given several times: monitoring:read, settings:read, settings:write, proxies:register
        #[arg(long, value_name = "SCOPE", required = true)]
        scope: Vec<ApiScope>,
        /// How long it is good for [default: 90d, or until the end of the token with which this is asked]
        #[arg(long, value_name = "DURATION", value_parser = ttl)]
        ttl: Option<Duration>,
        /// Write it to this file, which only its owner can read, instead of to standard output
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List API tokens, and when each was used last
    List,
    /// End an API token
    Revoke {
        /// Its id, as `pulse token list` shows it
        id: String,
    },
}
