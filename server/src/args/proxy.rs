//! `pulse proxy …`.

use std::time::Duration;

use clap::Subcommand;

use super::value::{Scope, ttl};

/// `pulse proxy …`. A proxy is named by its id, the beginning of its id, or its hostname.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Proxy {
    /// List proxies
    List,
    /// Show all that is known of one proxy
    Show {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
    /// Move a proxy to an instance, or change which nodes it may read
    #[command(group = clap::ArgGroup::new("what").args(["instance", "scope"]).required(true).multiple(true))]
    Set {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
        /// The instance to which it belongs from now on
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// The nodes that it may read from now on
        #[arg(long, value_enum)]
        scope: Option<Scope>,
    },
    /// Approve a proxy that registered without a join token: from now on it gets its list
    Approve {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
        /// The instance to which it belongs [default: the one that has the host as a node]
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// The nodes that it may read [default: instance]
        #[arg(long, value_enum)]
        scope: Option<Scope>,
    },
    /// Make a token with which grpcurl is pushed what a proxy is pushed, and print the command: this once
    DebugToken {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
        /// How long it is good for
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
        ttl: Duration,
    },
    /// Have a proxy take a new token
    Rotate {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
    /// End a proxy's token: it may read nothing until it is registered again
    Revoke {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
    /// Revoke a proxy and take it off the list
    Remove {
        /// Its id, 4 or more characters of its beginning, or its hostname
        id: String,
    },
}
