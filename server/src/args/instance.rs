//! `pulse instance …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use pulse_proto::Node;

use super::value::{endpoint, fingerprint, interval, pve_url, token_id};

/// How a token with the fewest privileges is made; the same in `docs/proxmox.md`.
pub const PVEUM: &str = "\
Pulse asks Proxmox VE with an API token that may do one thing: look. On a node of the cluster, as root:

  pveum role add PulseRead --privs Sys.Audit
  pveum user add pulse@pve --comment 'Pulse reads who is a member'
  pveum acl modify / --users pulse@pve --roles PulseRead
  pveum user token add pulse@pve monitor --privsep 0

The last one prints the secret as \"value\", once. Put it into a file that only you can read, and:

  pulse instance add NAME --pve https://HOST:8006 --token-id 'pulse@pve!monitor' --token-secret-file FILE

A certificate that Proxmox VE made itself is known by its fingerprint. Pulse shows it and asks; compare it on the host:

  openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem

(pveproxy-ssl.pem in the same folder, if that is there: it is the one that is shown then.)";

/// `pulse instance …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Instance {
    /// Add an instance
    #[command(after_help = PVEUM)]
    Add {
        /// Its name: 1 to 63 of A-Z a-z 0-9 . _ -
        name: String,
        /// A node, and where it is; can be given several times
        #[arg(long = "endpoint", value_name = "NODE=ADDR", value_parser = endpoint)]
        endpoints: Vec<Node>,
        /// Proxmox VE as the source of its nodes.
        #[command(flatten)]
        pve: Pve,
    },
    /// List instances
    List,
    /// Show one instance, its nodes and what Proxmox VE says of it
    Show {
        /// Its name
        name: String,
    },
    /// Replace the nodes of an instance that were typed, or change how Proxmox VE is asked for them
    #[command(
        after_help = PVEUM,
        group = clap::ArgGroup::new("what").args(["endpoints", "no_endpoints", "urls", "token_id", "token_secret_file",
            "fingerprints", "add_fingerprints", "poll_interval", "no_pve"]).required(true).multiple(true)
    )]
    Set {
        /// Its name
        name: String,
        /// A node, and where it is; give all that it shall have, but for those that its cluster tells
        #[arg(
            long = "endpoint",
            value_name = "NODE=ADDR",
            value_parser = endpoint,
            conflicts_with_all = ["urls", "token_id", "token_secret_file", "fingerprints", "add_fingerprints", "poll_interval", "no_pve"]
        )]
        endpoints: Vec<Node>,
        /// No node that was typed; those that its cluster tells stay
        #[arg(
            long,
            conflicts_with_all = ["endpoints", "urls", "token_id", "token_secret_file", "fingerprints", "add_fingerprints",
                "poll_interval", "no_pve"]
        )]
        no_endpoints: bool,
        /// Yes, though more than half of a list of four or more, or all of a list, goes; else such a change is held
        #[arg(long)]
        yes: bool,
        /// Proxmox VE as the source of its nodes.
        #[command(flatten)]
        pve: Pve,
        /// Ask Proxmox VE no more; the nodes that its cluster told stay, as if they had been typed
        #[arg(
            long,
            conflicts_with_all = ["urls", "token_id", "token_secret_file", "fingerprints", "add_fingerprints", "poll_interval"]
        )]
        no_pve: bool,
        /// SHA-256 fingerprint of one more certificate that is trusted, beside those that are; can be given several times
        #[arg(long = "add-fingerprint", value_name = "SHA256", value_parser = fingerprint, conflicts_with = "fingerprints")]
        add_fingerprints: Vec<String>,
    },
    /// Ask Proxmox VE no more for a while: the list stays as it is
    Pause {
        /// Its name
        name: String,
    },
    /// Take an instance off every list, without removing it
    Exclude {
        /// Its name
        name: String,
        /// Yes, though its proxies may then read nothing
        #[arg(long)]
        yes: bool,
    },
    /// Use an instance again that was paused or excluded
    Resume {
        /// Its name
        name: String,
    },
    /// Remove an instance; its proxies may then read nothing
    Remove {
        /// Its name
        name: String,
        /// Yes, though it has proxies
        #[arg(long)]
        yes: bool,
    },
}

/// How Proxmox VE is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Pve {
    /// A host of Proxmox VE that is asked for the nodes; several times for several hosts, which are tried in turn
    #[arg(long = "pve", value_name = "https://HOST:8006", value_parser = pve_url)]
    pub urls: Vec<String>,
    /// The API token's id
    #[arg(long, value_name = "USER@REALM!ID", value_parser = token_id)]
    pub token_id: Option<String>,
    /// The file with the API token's secret; -: standard input
    #[arg(long, value_name = "FILE")]
    pub token_secret_file: Option<PathBuf>,
    /// SHA-256 fingerprint of a certificate that is trusted, whatever the system trusts; can be given several times
    #[arg(long = "fingerprint", value_name = "SHA256", value_parser = fingerprint)]
    pub fingerprints: Vec<String>,
    /// How often it is asked [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub poll_interval: Option<Duration>,
    /// Take it though it cannot be asked at the moment
    #[arg(long)]
    pub no_check: bool,
}

impl Pve {
    /// Whether anything of it was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self != Pve { no_check: self.no_check, ..Pve::default() }
    }
}
