//! `pulse allowlist …`.

use clap::Subcommand;

use crate::api;

/// `pulse allowlist …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Allowlist {
    /// Show which nodes may be read
    Show {
        /// By the proxies of one instance [default: every list]
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        instance: Option<String>,
        /// By the proxies that may read all nodes
        #[arg(long)]
        all: bool,
        /// As it was made at this revision of the fleet
        #[arg(long, value_name = "REV")]
        revision: Option<u64>,
    },
    /// Show changes that would take away too much, and wait for an admin
    Held,
    /// Let the changes of an instance go out that are held
    Confirm {
        /// The instance's name
        instance: String,
    },
    /// Say no to the changes of an instance that are held: the list stays as it is until its cluster says something else
    Discard {
        /// The instance's name
        instance: String,
    },
    /// Show how lists came about: revision, when, who, and how many nodes came and went
    History {
        /// The list of one instance [default: every list]
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        instance: Option<String>,
        /// The list of all nodes
        #[arg(long)]
        all: bool,
        /// How many, the newest first
        #[arg(long, value_name = "N", default_value_t = api::LIST_REVISIONS, value_parser = clap::value_parser!(u32).range(1..=i64::from(api::MAX_LIST_REVISIONS)))]
        limit: u32,
    },
    /// Show how the list of one revision differs from that of another
    Diff {
        /// The revision of the first, as `history` shows it
        #[arg(value_name = "REV")]
        from: u64,
        /// The revision of the second
        #[arg(value_name = "REV")]
        to: u64,
        /// The list of one instance [default: of the only one]
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        instance: Option<String>,
        /// The list of all nodes
        #[arg(long)]
        all: bool,
    },
}
