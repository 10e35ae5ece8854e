//! The peers: each a server process of its own, with a way to push a list and a way to listen for it.
//!
//! In: lists. Out: when a push began, and what to tell a client process to hear it. Always: the clock is read just before
//! the push is asked for.

pub(crate) mod brought;
pub(crate) mod installed;
pub(crate) mod pulse;

use crate::client::control::{Connect, Subscription};
use crate::failure::Outcome;
use crate::list::List;
use crate::process::Process;

/// One peer, running.
pub(crate) trait Peer {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Its server.
    fn server(&mut self) -> &mut Process;

    /// How a client reaches and subscribes it; `count` clients.
    fn connect(&self, count: usize) -> Connect;

    /// Pushes a list to all who subscribed. Returns when that was asked for, by the clock of the bench.
    fn push(&mut self, list: &List) -> Outcome<u64>;

    /// How long all commits to a disk have taken until now, in nanoseconds, if the server says so.
    fn commits_ns(&self) -> Outcome<Option<u64>> {
        Ok(None)
    }

    /// Whether the server goes on with what a push has brought about after it had nothing to do for a while.
    fn has_later(&self) -> bool {
        false
    }

    /// The part of a list's message by which a client knows it.
    fn marker(&self, list: &List) -> String {
        list.hash().to_owned()
    }

    /// Its version, for the report.
    fn version(&self) -> String;
}

/// HTTP/2's windows of a client, before anybody says otherwise. Clients of Go, Python and C++ begin with these.
pub(crate) const WINDOW: u32 = 65_535;

/// The call that proxies have open.
pub(crate) const WATCH_PATH: &str = "/pulse.control.v1.ControlPlaneService/WatchAuthorizedNodes";

/// The watch of a proxy that holds nothing.
pub(crate) fn watch(message: Vec<u8>, tokens: Option<std::path::PathBuf>) -> Subscription {
    Subscription::Grpc {
        path: WATCH_PATH.to_owned(),
        tokens,
        message,
        is_end: true,
        window: WINDOW,
        has_kinds: true,
    }
}
