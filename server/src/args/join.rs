//! `pulse join …`.

use std::time::Duration;

use clap::Subcommand;

use super::value::{Scope, ttl};
use crate::network::Network;

/// `pulse join …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Join {
    /// Make a join token, and print its join string: this once
    Create {
        /// The instance to which its proxies belong [default: the one that has the host as a node]
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// The nodes that its proxies may read
        #[arg(long, value_enum, default_value_t = Scope::Instance)]
        scope: Scope,
        /// How many proxies can register with it
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long it is good for
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = ttl)]
        ttl: Duration,
    },
    /// List join tokens, and whether hosts without one may register
    List,
    /// Let hosts without a join token register for a while; each then waits for `pulse proxy approve`
    Open {
        /// How long
        #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = ttl)]
        ttl: Duration,
        /// Only from these addresses; can be given several times [default: from everywhere]
        #[arg(long, value_name = "CIDR")]
        from: Vec<Network>,
    },
    /// Close what `pulse join open` opened
    Close,
    /// End a join token
    Revoke {
        /// Its id, as `pulse join list` shows it
        id: String,
    },
}
