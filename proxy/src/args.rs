//! The command line.
//!
//! Always: what a flag leaves open, the environment and the configuration file decide. Never: a secret is shown in help.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::ConfigSources;
use crate::identity::ProxyKind;

/// Reads the temperatures of the nodes that Pulse allows, and reports them.
#[derive(Debug, Parser)]
#[command(name = "pulse-sensor-proxy", version, propagate_version = true)]
pub struct Args {
    /// The configuration file [default: /etc/pulse-sensor-proxy/config.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder for what this program keeps [default: /var/lib/pulse-sensor-proxy]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Answer, or log, in JSON; errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep the list the newest, collect and report, until a signal comes
    Run,
    /// Make this host known to Pulse, with a join string from `pulse join create`
    Register(RegisterArgs),
    /// Take this host off its server for good: from then on nothing may be read, until it is registered again
    Unregister,
    /// Fetch the list once, verify and keep it, and print it
    Sync,
    /// Show what this proxy would work with, without asking the network
    Status,
    /// Read the sensors of this host once, and print what they say
    Collect,
    /// Look at the configuration
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say every mistake in it
    Check,
}

/// A join string as it was given, not read yet. Its `Debug` does not show it.
#[derive(Clone)]
pub struct JoinText(pub String);

impl From<String> for JoinText {
    fn from(text: String) -> JoinText {
        JoinText(text)
    }
}

impl std::fmt::Debug for JoinText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinText(…)")
    }
}

/// What `register` takes.
#[derive(Debug, clap::Args)]
pub struct RegisterArgs {
    /// The join string in quotes, or - to read it from standard input
    #[arg(long, value_name = "STRING", conflicts_with = "join_file")]
    pub join: Option<JoinText>,
    /// A file that holds the join string
    #[arg(long, value_name = "FILE")]
    pub join_file: Option<PathBuf>,
    /// The join string, if neither --join nor --join-file is given (so that it need not stand in a process list)
    #[arg(skip)]
    pub join_from_environment: Option<JoinText>,
    /// The name of this host's node in Pulse [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// How local callers reach this proxy
    #[arg(long, value_enum, default_value = "socket")]
    pub kind: ProxyKind,
    /// The URL of this proxy's own listener, for --kind http
    #[arg(long, value_name = "URL")]
    pub proxy_url: Option<String>,
    /// Where the machine id stands
    #[arg(long, value_name = "FILE", hide = true, default_value = crate::register::host::MACHINE_ID)]
    pub machine_id_file: PathBuf,
}

impl Args {
    /// Where the configuration comes from.
    pub fn config_sources(&self) -> ConfigSources {
        ConfigSources {
            path: self.config.clone(),
            state_dir: self.state_dir.clone(),
            environment: pulse_config::Environment::of_process(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_description_of_the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_takes_the_common_flags_behind_it() {
        for command in ["run", "unregister", "sync", "status", "collect", "config check", "register --join -"]
        {
            let line = format!("pulse-sensor-proxy {command} --config /c --state-dir /s --json");
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert!(args.json && args.config.is_some() && args.state_dir.is_some(), "{command}");
        }
    }
}
