//! `pulse bench`.

use std::path::PathBuf;

use clap::Args as Group;
use pulse_proto::join::split_authority;

/// `pulse bench`.
#[derive(Clone, Debug, PartialEq, Eq, Group)]
pub struct Bench {
    /// Proxies that are simulated, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub proxies: u32,
    /// Pushes of each size
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Nodes of the longer list; the shorter has 8
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(8..=2_000))]
    pub nodes: u32,
    /// Where to connect to [default: the first address on which the server listens]
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub address: Option<(String, u16)>,
    /// Certificates to check the server's with, if it has one of your own [default: Pulse's own CA]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    split_authority(text).ok_or_else(|| "is written HOST:PORT, an IPv6 address in brackets".to_owned())
}
