//! `pulse node …`.

use clap::Subcommand;

use super::value::address;

/// `pulse node …`. What is set for a node lasts, whatever its cluster says and when it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Node {
    /// List nodes: who says that they exist, since when, and what contradicts what
    List,
    /// Say where a node is, whatever its cluster says
    Address {
        /// The instance's name
        instance: String,
        /// The node's name
        node: String,
        /// IPv4, IPv6 or a DNS name [default: what the cluster says, again]
        #[arg(value_parser = address)]
        address: Option<String>,
    },
    /// Leave a node as it is, whatever its cluster says
    Pause {
        /// The instance's name
        instance: String,
        /// The node's name
        node: String,
    },
    /// Take a node off every list
    Exclude {
        /// The instance's name
        instance: String,
        /// The node's name
        node: String,
        /// Yes, though more than half of a list of four or more, or all of a list, goes
        #[arg(long)]
        yes: bool,
    },
    /// Use a node again that was paused or excluded
    Resume {
        /// The instance's name
        instance: String,
        /// The node's name
        node: String,
    },
}
