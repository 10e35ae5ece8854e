//! What a client process is told and what it answers: one JSON object a line, on its standard input and output.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One line in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Opens so many connections and subscribes each; answers when all have heard something.
    Connect(Connect),
    /// Closes all connections.
    Close,
    /// Begins a round: from now on a message counts as its own if it holds this text.
    Expect {
        /// The text.
        marker: String,
    },
    /// Answers when the round's message is with every connection that reads, or when the time is over.
    Await {
        /// If it is for so many only.
        #[serde(default)]
        count: Option<usize>,
        /// The time.
        timeout_ms: u64,
    },
    /// Every so-many-th connection stops reading.
    Stall {
        /// 10: a tenth of them.
        every: usize,
    },
    /// All connections read again; answers as `Await` does.
    Resume {
        /// The time.
        timeout_ms: u64,
    },
    /// Makes unary calls.
    Unary(Unary),
    /// Says how the connections are.
    Look,
}

/// Where to connect and what to ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Connect {
    /// How many connections.
    pub(crate) count: usize,
    /// The server.
    pub(crate) address: SocketAddr,
    /// The certificate to trust, in PEM; `None`: plain text.
    pub(crate) ca: Option<PathBuf>,
    /// The most connections at one time that are not subscribed yet.
    pub(crate) in_flight: usize,
    /// After so long the rest counts as failed.
    pub(crate) timeout_ms: u64,
    /// What is spoken.
    pub(crate) subscription: Subscription,
}

/// What is spoken on a connection, and how it is subscribed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Subscription {
    /// The floors: nothing is asked, and each message comes behind its length.
    Framed,
    /// gRPC: one call whose answers are the messages.
    Grpc {
        /// The method's path.
        path: String,
        /// A file with a bearer token in each line, for the connections in turn.
        tokens: Option<PathBuf>,
        /// The request.
        message: Vec<u8>,
        /// Whether the request ends the client's half of the stream.
        is_end: bool,
        /// HTTP/2's windows, of stream and connection.
        window: u32,
        /// Whether only messages that begin with a list (field 1) count as stale; else all do.
        has_kinds: bool,
    },
    /// NATS core.
    Nats {
        /// The subject.
        subject: String,
    },
    /// Redis pub/sub.
    Redis {
        /// The channel.
        channel: String,
    },
}

/// A load of unary calls, each of one report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unary {
    /// The server.
    pub(crate) address: SocketAddr,
    /// The certificate to trust; `None`: plain text.
    pub(crate) ca: Option<PathBuf>,
    /// How many connections share the load.
    pub(crate) connections: usize,
    /// How many calls each has under way at one time.
    pub(crate) in_flight: usize,
    /// Calls a second over all; `None`: as many as it goes.
    pub(crate) rate: Option<u32>,
    /// How long.
    pub(crate) duration_ms: u64,
    /// The method's path.
    pub(crate) path: String,
    /// The callers, for the connections in turn; one JSON [`Caller`](super::unary::Caller) a line.
    pub(crate) callers: PathBuf,
    /// Added to the sequence of every report, so that a second load with the same callers goes on.
    pub(crate) first_sequence: u64,
    /// The path of a watch that each connection opens first, as its first caller: proxies have one connection for all.
    pub(crate) watch: Option<String>,
}

/// One line out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Why the command did not work. Empty: it did.
    #[serde(default)]
    pub(crate) error: String,
    /// Connections that are subscribed.
    #[serde(default)]
    pub(crate) open: usize,
    /// Connections that were tried again, and why: text and number.
    #[serde(default)]
    pub(crate) retried: BTreeMap<String, usize>,
    /// Connections that ended, and why: text and number.
    #[serde(default)]
    pub(crate) ended: BTreeMap<String, usize>,
    /// Connections that wait for the round's message.
    #[serde(default)]
    pub(crate) missing: usize,
    /// When it happened, by `CLOCK_MONOTONIC`: the arrivals of a round, or of the first messages of a `Connect`.
    #[serde(default)]
    pub(crate) times: Option<Times>,
    /// When a `Connect` began, by the same clock.
    #[serde(default)]
    pub(crate) began_ns: u64,
    /// Stale lists since the round before, over all that read.
    #[serde(default)]
    pub(crate) stale: u64,
    /// Stale lists for each connection that was stalled: the median and the most.
    #[serde(default)]
    pub(crate) stale_of_stalled: Option<(u32, u32)>,
    /// What became of a load.
    #[serde(default)]
    pub(crate) calls: Option<Calls>,
}

/// Points of time, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) first_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) last_ns: u64,
}

impl Times {
    /// Of points in any order; `None` of none.
    pub(crate) fn of(points: &mut [u64]) -> Option<Times> {
        points.sort_unstable();
        let at = |part: f64| {
            // Rounding to a place of the list; exact enough for any number of clients.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let place = (points.len().saturating_sub(1) as f64 * part).round() as usize;
            points.get(place).copied()
        };
        Some(Times { first_ns: at(0.0)?, p50_ns: at(0.5)?, p99_ns: at(0.99)?, last_ns: at(1.0)? })
    }
}

/// What became of a load of unary calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Calls {
    /// How long it took, from the first call to the last answer.
    pub(crate) elapsed_ns: u64,
    /// Calls by gRPC status; 0 is success.
    pub(crate) by_status: BTreeMap<u8, u64>,
    /// Successful calls whose answer refused a node.
    pub(crate) partial: u64,
    /// Calls that ended otherwise, and why.
    pub(crate) broken: BTreeMap<String, u64>,
    /// Latency of the successful calls, from when each was due; all in nanoseconds.
    pub(crate) latency: Option<Times>,
}
