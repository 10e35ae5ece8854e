//! The command line: what may be typed, as types.
//!
//! In: the arguments of the process. Out: [`Args`]. Always: what can be checked without a server is checked here,
//! so that it is a usage error (exit code 2) with the rule. Never: reads the environment or a file; `config` does.

mod admin;
mod allowlist;
mod audit;
mod bench;
mod files;
mod import;
mod instance;
mod join;
mod node;
mod proxy;
mod value;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args as Group, CommandFactory, Parser, Subcommand};
use pulse_config::Environment;
use pulse_proto::Pin;

use crate::config::{ConfigSources, legacy_http_address, listen_address};
pub use admin::{Account, ApiToken};
pub use allowlist::Allowlist;
pub use audit::{Audit, AuditLog};
pub use bench::Bench;
pub use files::{Db, Files, Restore};
pub use import::Import;
pub use instance::{Instance, PVEUM, Pve};
pub use join::Join;
pub use node::Node;
pub use proxy::Proxy;
pub use value::Scope;

/// Pulse: tells temperature proxies on Proxmox hosts which nodes they may read, and gathers what they read.
#[derive(Clone, Debug, Parser)]
#[command(name = "pulse", version, propagate_version = true, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where server and data are.
    #[command(flatten)]
    pub place: Place,
}

/// Where the configuration, the data and the admin socket are; with any command, before or behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Group)]
pub struct Place {
    /// Configuration file [default: /etc/pulse/pulse.yaml; environment: PULSE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of database, keys and admin socket [default: /var/lib/pulse; environment: PULSE_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Socket of the server to ask [default: admin.sock in the data folder]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Ask a server from afar, with an API token.
    // Not the comment above: rustdoc takes the brackets for a link.
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["socket", "data_dir"], help = "Ask a server from afar, with an API token: https://HOST[:PORT] [environment: PULSE_SERVER]")]
    pub server: Option<String>,
    /// File with the API token, - for standard input [environment: PULSE_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Key that the server's certificate leads to, sha256:HEX as `pulse status` shows it [environment: PULSE_PIN]
    #[arg(long, global = true, value_name = "PIN")]
    pub pin: Option<Pin>,
    /// Authorities that the server's certificate is checked against, in PEM [default: the system's; environment: PULSE_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(Serve),
    /// Ask a running server over its admin socket.
    #[command(flatten)]
    Admin(Admin),
    /// Work on files, without a server.
    #[command(flatten)]
    Files(Files),
}

/// `pulse serve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Group)]
pub struct Serve {
    /// Addresses to listen on; empty: those of the configuration.
    // Not the comment above: rustdoc takes the brackets for a link.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        value_parser = listen_address,
        help = "Address to listen on; can be given several times [default: [::]:7655]"
    )]
    pub listen: Vec<SocketAddr>,
    /// No TLS; only on loopback addresses
    #[arg(long)]
    pub plaintext: bool,
    /// Address at which older proxies that know no TLS are served in plain text, and nothing else is: whoever can read the
    /// traffic has their tokens
    #[arg(long, value_name = "ADDR:PORT", value_parser = legacy_http_address)]
    pub legacy_http: Option<SocketAddr>,
}

/// What a running server is asked.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Admin {
    /// Proxmox instances and their nodes
    #[command(subcommand, arg_required_else_help = true)]
    Instance(Instance),
    /// Nodes: where they come from, and what becomes of them
    #[command(subcommand, arg_required_else_help = true)]
    Node(Node),
    /// Take over what older installs have: lists of nodes, control tokens, clusters, a server's data
    Import(Import),
    /// Join tokens, with which hosts register their proxy
    #[command(subcommand, arg_required_else_help = true)]
    Join(Join),
    /// Proxies: what they are, hold and last said
    #[command(subcommand, arg_required_else_help = true)]
    Proxy(Proxy),
    /// Who may read what
    #[command(subcommand, arg_required_else_help = true)]
    Allowlist(Allowlist),
    /// Admins, who log in with a password
    #[command(name = "admin", subcommand, arg_required_else_help = true)]
    Account(Account),
    /// API tokens, with which programs ask and change
    #[command(name = "token", subcommand, arg_required_else_help = true)]
    ApiToken(ApiToken),
    /// The key of Pulse's own CA, which proxies have pinned
    #[command(subcommand, arg_required_else_help = true)]
    Tls(Tls),
    /// The key under which secrets in the database are sealed
    #[command(subcommand, arg_required_else_help = true)]
    Key(Key),
    /// Write all that is needed to bring the fleet back to one file; it holds every key
    Backup {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// The epoch of the fleet's lists
    #[command(subcommand, arg_required_else_help = true)]
    Epoch(Epoch),
    /// The newest temperatures
    Temps {
        /// Every sensor of this node only: its name or address
        node: Option<String>,
    },
    /// How the server is
    Status,
    /// Measure this server on this machine: simulated proxies of an instance of their own, which go again
    Bench(Bench),
    /// Who did what: the newest rows of the audit log (with --json: one object a line)
    Audit(Audit),
}

/// `pulse epoch …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Epoch {
    /// Begin a new epoch: every list becomes newer than all that proxies hold, and goes to them at once
    New {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `pulse tls …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Tls {
    /// Begin to exchange the CA's key: proxies learn the new pin by themselves, the old one stays good meanwhile
    Rotate,
    /// End the exchange: the old pin is good no more
    Finish {
        /// Yes, though some proxies may not have heard the new pin; those must then be registered again
        #[arg(long)]
        yes: bool,
    },
}

/// `pulse key …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Key {
    /// Seal every secret under a new key, at once and as a whole
    Rotate {
        /// The file of the new key, where the server's own data folder does not have the key: the server reads it, and it must then
        /// take the place of the old one before the next start
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

impl Args {
    /// Reads the arguments of the process; what is wrong with them, and `--help`, comes back as the error, whose
    /// `exit` prints it.
    ///
    /// # Errors
    /// The arguments are none, or ask for help or the version.
    pub fn try_of_process() -> Result<Args, clap::Error> {
        Args::try_parse()?.checked()
    }

    fn checked(self) -> Result<Args, clap::Error> {
        let (flag, command) = match (&self.command, &self.place) {
            (Command::Serve(_), Place { json: true, .. }) => ("--json", "serve"),
            (Command::Serve(_), Place { socket: Some(_), .. }) => ("--socket", "serve"),
            (Command::Serve(_), Place { server: Some(_), .. }) => ("--server", "serve"),
            (Command::Files(Files::Restore(_)), Place { server: Some(_), .. }) => ("--server", "restore"),
            (Command::Files(Files::Check { .. }), Place { server: Some(_), .. }) => ("--server", "check"),
            (Command::Files(Files::Db(_)), Place { server: Some(_), .. }) => ("--server", "db"),
            (Command::Files(Files::Restore(_)), Place { socket: Some(_), .. }) => ("--socket", "restore"),
            (Command::Files(Files::Check { .. }), Place { socket: Some(_), .. }) => ("--socket", "check"),
            (Command::Files(Files::Db(_)), Place { socket: Some(_), .. }) => ("--socket", "db"),
            _ => return Ok(self),
        };
        let text = format!("'{flag}' asks a running server and cannot be used with '{command}'");
        Err(Args::command().error(ErrorKind::ArgumentConflict, text))
    }
}

impl Serve {
    /// The environment with the flags above it that have no place of their own in [`ConfigSources`].
    #[must_use]
    pub fn over(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
        let plaintext = self.plaintext.then(|| ("PULSE_PLAINTEXT".to_owned(), OsString::from("true")));
        let legacy_http = self.legacy_http.map(|address| address.to_string().into());
        let legacy_http = legacy_http.map(|address| ("PULSE_LEGACY_HTTP".to_owned(), address));
        let variables = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        variables.chain(plaintext).chain(legacy_http).collect()
    }
}

impl Place {
    /// Where the configuration comes from; `serve` has flags of its own.
    #[must_use]
    pub fn sources(&self, serve: &Serve, environment: Environment) -> ConfigSources {
        let (path, data_dir) = (self.config.clone(), self.data_dir.clone());
        ConfigSources { path, data_dir, listen: serve.listen.clone(), environment }
    }
}

#[cfg(test)]
mod tests;
