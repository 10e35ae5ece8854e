//! The section `limits`: bounds on what comes in.

use std::num::NonZeroU32;
use std::time::Duration;

use pulse_config::Section;
use pulse_proto::MAX_NODES;

use super::seconds;

/// Bounds on what comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most nodes of one list.
    pub max_nodes_per_list: u64,
    /// The most readings of one report.
    pub max_readings_per_report: u64,
    /// The most connections at one time.
    pub max_connections: u64,
    /// The most connections at one time of one address (IPv6: of one /64).
    pub max_connections_per_address: u64,
    /// The most streams at one time of one connection.
    pub max_streams_per_connection: u64,
    /// The most watches at one time.
    pub max_watches: u64,
    /// The most unary calls at one time; and the most registrations beside them.
    pub max_calls: u64,
    /// The most bytes of a request's headers.
    pub max_header_list_bytes: u64,
    /// The most bytes of a request's body.
    pub max_request_bytes: u64,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a request's headers may take.
    pub header_timeout: Duration,
    /// How often a proxy may begin a watch.
    pub watches: Quota,
    /// How often a proxy may ask for its list over the paths of older proxies.
    pub pulls: Quota,
    /// How often a host may register.
    pub registrations: Quota,
    /// How often an address may bring no good token, before it is told to wait.
    pub failures: Quota,
    /// How often somebody may try to log in with one name, from one address; from all together ten times as many at once, and with
    /// all names ten times as often.
    pub log_ins: Quota,
}

/// How much one caller may do at once, and how fast it may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// How many tokens a full bucket has.
    pub burst: NonZeroU32,
    /// How long one token takes to come back; not zero.
    pub interval: Duration,
}

const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("it is not zero");
const TWELVE: NonZeroU32 = NonZeroU32::new(12).expect("it is not zero");
const THIRTY: NonZeroU32 = NonZeroU32::new(30).expect("it is not zero");

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_nodes_per_list: MAX_NODES as u64,
            max_readings_per_report: pulse_proto::MAX_READINGS as u64,
            max_connections: 60_000,
            // A fleet behind one NAT is one address, with one connection for each proxy.
            max_connections_per_address: 1_024,
            // A proxy needs one watch and a few unary calls beside it.
            max_streams_per_connection: 16,
            max_watches: 60_000,
            // A call takes milliseconds, so these are thousands a second; each holds 1 MiB at the most.
            max_calls: 512,
            max_header_list_bytes: 16 * 1024,
            max_request_bytes: 1024 * 1024,
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(10),
            watches: Quota { burst: TWELVE, interval: Duration::from_secs(5) },
            pulls: Quota { burst: TWELVE, interval: Duration::from_secs(5) },
            registrations: Quota { burst: TWELVE, interval: Duration::from_secs(5) },
            failures: per_minute(THIRTY),
            log_ins: Quota { burst: FIVE, interval: Duration::from_secs(30) },
        }
    }
}

impl Limits {
    /// Reads the section; what it does not say is as in the default.
    pub(super) fn read(keys: &mut Section<'_, '_>) -> Limits {
        let default = Limits::default();
        Limits {
            // A proxy refuses a longer list, so a higher bound would only move the error to it.
            max_nodes_per_list: keys
                .integer("max_nodes_per_list", 1..=MAX_NODES as u64)
                .unwrap_or(default.max_nodes_per_list),
            max_readings_per_report: keys
                .integer("max_readings_per_report", pulse_proto::MAX_READINGS as u64..=65_536)
                .unwrap_or(default.max_readings_per_report),
            max_connections: keys
                .integer("max_connections", 1..=1_000_000)
                .unwrap_or(default.max_connections),
            max_connections_per_address: keys
                .integer("max_connections_per_address", 1..=1_000_000)
                .unwrap_or(default.max_connections_per_address),
            max_streams_per_connection: keys
                .integer("max_streams_per_connection", 2..=1000)
                .unwrap_or(default.max_streams_per_connection),
            max_watches: keys.integer("max_watches", 1..=1_000_000).unwrap_or(default.max_watches),
            max_calls: keys.integer("max_calls", 8..=65_536).unwrap_or(default.max_calls),
            max_header_list_bytes: keys
                .bytes("max_header_list_bytes", 4 << 10..=1 << 20)
                .unwrap_or(default.max_header_list_bytes),
            max_request_bytes: keys
                .bytes("max_request_bytes", 1 << 20..=64 << 20)
                .unwrap_or(default.max_request_bytes),
            handshake_timeout: keys
                .duration("handshake_timeout", seconds(1..=60))
                .unwrap_or(default.handshake_timeout),
            header_timeout: keys
                .duration("header_timeout", seconds(1..=60))
                .unwrap_or(default.header_timeout),
            watches: Quota {
                burst: count(keys, "watch_burst", 1_000).unwrap_or(default.watches.burst),
                interval: keys
                    .duration("watch_interval", seconds(1..=600))
                    .unwrap_or(default.watches.interval),
            },
            pulls: Quota {
                burst: count(keys, "pull_burst", 1_000).unwrap_or(default.pulls.burst),
                interval: keys.duration("pull_interval", seconds(1..=600)).unwrap_or(default.pulls.interval),
            },
            registrations: Quota {
                burst: count(keys, "registration_burst", 1_000).unwrap_or(default.registrations.burst),
                interval: keys
                    .duration("registration_interval", seconds(1..=600))
                    .unwrap_or(default.registrations.interval),
            },
            log_ins: Quota {
                burst: count(keys, "log_in_burst", 1_000).unwrap_or(default.log_ins.burst),
                interval: keys
                    .duration("log_in_interval", seconds(1..=3600))
                    .unwrap_or(default.log_ins.interval),
            },
            failures: count(keys, "failed_calls_per_minute", 100_000).map_or(default.failures, per_minute),
        }
    }
}

/// A number from 1 to `most`.
fn count(keys: &mut Section<'_, '_>, key: &str, most: u32) -> Option<NonZeroU32> {
    let count = keys.integer(key, 1..=u64::from(most))?;
    u32::try_from(count).ok().and_then(NonZeroU32::new)
}

/// So many at once, and as many in a minute.
fn per_minute(count: NonZeroU32) -> Quota {
    Quota { burst: count, interval: Duration::from_secs(60) / count.get() }
}
