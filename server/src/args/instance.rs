//! `pulse instance …`.

use clap::Subcommand;
use pulse_proto::Node;

use super::value::endpoint;

/// `pulse instance …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Instance {
    /// Add an instance
    Add {
        /// Its name: 1 to 63 of A-Z a-z 0-9 . _ -
        name: String,
        /// A node, and where it is; can be given several times
        #[arg(long = "endpoint", value_name = "NODE=ADDR", value_parser = endpoint)]
        endpoints: Vec<Node>,
    },
    /// List instances
    List,
    /// Show one instance and its nodes
    Show {
        /// Its name
        name: String,
    },
    /// Replace the nodes of an instance
    Set {
        /// Its name
        name: String,
        /// A node, and where it is; give all that it shall have
        #[arg(long = "endpoint", value_name = "NODE=ADDR", value_parser = endpoint, required = true)]
        endpoints: Vec<Node>,
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
