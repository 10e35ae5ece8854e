//! What Pulse counts of itself: every metric's name, meaning and labels, in this one file; the labels' words in `label`.
//!
//! In: counts from the modules, each through its own field. Out: [`Metrics::encode`], text for a scraper.
//! Always: names begin with `pulse_` (but for the two that every process has), say their unit, and counters end in
//! `_total`; a label's values are words that the program knows beforehand.
//! Never: a label for a proxy, a node or an address: ten thousand of them would be ten thousand time series.

mod label;

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use label::{Bucket, ConnectionRefusal, HandshakeFailure, PollResult, ReportResult, StreamEnd};

/// The media type of [`Metrics::encode`]: OpenMetrics, which Prometheus reads.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From commit to applied: 1 ms to 60 s, three steps for each ten times until a proxy counts as late.
const PUSH_LATENCY_SECONDS: [f64; 15] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// A commit is one fsync: 0.1 ms on a good disk, seconds on a dying one.
const COMMIT_SECONDS: [f64; 12] =
    [0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0, 10.0];

/// A poll is a handshake and four answers: 10 ms in a rack, and 10 s are the end.
const POLL_SECONDS: [f64; 9] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0];

/// One label: its name, and a value that is an enum above or a constant of the contract.
type Label<T> = [(&'static str, T); 1];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// Every metric of the server. Cheap to count with, from any task.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `pulse_watch_streams`: watch streams that are open.
    pub watch_streams: Gauge,
    /// `pulse_pushes_total`: newest lists of a scope announced to its streams.
    pub pushes: Counter,
    /// `pulse_encodes_total`: lists encoded; one for each push, however many streams there are.
    pub encodes: Counter,
    /// `pulse_push_latency_seconds`: from the commit of a list until a proxy said that it is in force.
    pub push_latency_seconds: Histogram,
    /// `pulse_readings_total`: temperatures stored.
    pub readings: Counter,
    /// `pulse_connections`: connections that are open.
    pub connections: Gauge,
    /// `pulse_store_commit_seconds`: how long a commit took.
    pub store_commit_seconds: Histogram,
    /// `pulse_revision`: the fleet's revision.
    pub revision: Gauge,
    /// `pulse_database_older_than_fleet`: 1 while proxies hold lists that this database never made, else 0.
    pub database_older_than_fleet: Gauge,
    /// `pulse_pve_poll_seconds`: how long one poll of Proxmox VE took, whatever came of it.
    pub pve_poll_seconds: Histogram,
    /// `pulse_instances_with_problems`: instances whose Proxmox VE cannot be believed at the moment.
    pub instances_with_problems: Gauge,
    /// `pulse_held_changes`: changes that would take away too much, and wait for an admin.
    pub held_changes: Gauge,
    /// `pulse_feed_listeners`: listeners of the live feed.
    pub feed_listeners: Gauge,
    /// `pulse_feed_reloads_total`: listeners of the live feed that were told to load everything anew.
    pub feed_reloads: Counter,
    /// `pulse_legacy_http_requests_total`: requests in plain text, to the port of `legacy_http`.
    pub legacy_http_requests: Counter,
    pve_polls: Family<Label<PollResult>, Counter>,
    list_refusals: Family<Label<&'static str>, Counter>,
    refusals: Family<Label<&'static str>, Counter>,
    rate_limited: Family<Label<Bucket>, Counter>,
    proxies: Family<Label<&'static str>, Gauge>,
    streams_ended: Family<Label<StreamEnd>, Counter>,
    reports: Family<Label<ReportResult>, Counter>,
    connections_refused: Family<Label<ConnectionRefusal>, Counter>,
    handshake_failures: Family<Label<HandshakeFailure>, Counter>,
    certificate_ends: Family<Label<&'static str>, Gauge>,
    certificate_reload_failing: Gauge,
    resident_memory_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        let r = &mut registry;
        let mut metrics = Metrics {
            watch_streams: register(
                r,
                "pulse_watch_streams",
                "Watch streams that are open",
                Gauge::default(),
            ),
            pushes: register(
                r,
                "pulse_pushes",
                "Newest lists announced to a scope's streams",
                Counter::default(),
            ),
            encodes: register(r, "pulse_encodes", "Lists encoded, once for all streams", Counter::default()),
            push_latency_seconds: register(
                r,
                "pulse_push_latency_seconds",
                "From the commit of a list until a proxy said that it is in force",
                Histogram::new(PUSH_LATENCY_SECONDS),
            ),
            readings: register(r, "pulse_readings", "Temperatures stored", Counter::default()),
            connections: register(r, "pulse_connections", "Connections that are open", Gauge::default()),
            store_commit_seconds: register(
                r,
                "pulse_store_commit_seconds",
                "How long a commit to the store took",
                Histogram::new(COMMIT_SECONDS),
            ),
            revision: register(r, "pulse_revision", "The revision of the fleet", Gauge::default()),
            database_older_than_fleet: register(
                r,
                "pulse_database_older_than_fleet",
                "Whether proxies hold lists that this database never made",
                Gauge::default(),
            ),
            pve_poll_seconds: register(
                r,
                "pulse_pve_poll_seconds",
                "How long one poll of Proxmox VE took",
                Histogram::new(POLL_SECONDS),
            ),
            instances_with_problems: register(
                r,
                "pulse_instances_with_problems",
                "Instances whose Proxmox VE cannot be believed",
                Gauge::default(),
            ),
            held_changes: register(
                r,
                "pulse_held_changes",
                "Changes that would take away too much, and wait for an admin",
                Gauge::default(),
            ),
            feed_listeners: register(
                r,
                "pulse_feed_listeners",
                "Listeners of the live feed",
                Gauge::default(),
            ),
            feed_reloads: register(
                r,
                "pulse_feed_reloads",
                "Listeners of the live feed that were told to load everything anew",
                Counter::default(),
            ),
            legacy_http_requests: register(
                r,
                "pulse_legacy_http_requests",
                "Requests in plain text to the port of legacy_http",
                Counter::default(),
            ),
            pve_polls: register(r, "pulse_pve_polls", "Polls of Proxmox VE, by result", Family::default()),
            list_refusals: register(
                r,
                "pulse_list_refusals",
                "Lists that a proxy refused, by the reason it gave",
                Family::default(),
            ),
            refusals: register(r, "pulse_refusals", "Calls that were refused, by reason", Family::default()),
            rate_limited: register(
                r,
                "pulse_rate_limited",
                "Calls that were told to wait because their caller makes too many, by kind of bucket",
                Family::default(),
            ),
            proxies: register(r, "pulse_proxies", "Proxies by last-sync state", Family::default()),
            streams_ended: register(
                r,
                "pulse_watch_streams_ended",
                "Watch streams that ended, by reason",
                Family::default(),
            ),
            reports: register(r, "pulse_reports", "Reports of temperatures, by result", Family::default()),
            connections_refused: register(
                r,
                "pulse_connections_refused",
                "Connections closed before they were served, by reason",
                Family::default(),
            ),
            handshake_failures: register(
                r,
                "pulse_tls_handshake_failures",
                "TLS handshakes that failed, by reason",
                Family::default(),
            ),
            certificate_ends: register(
                r,
                "pulse_certificate_ends_timestamp_seconds",
                "When the server's certificate and its CA's end, in Unix time",
                Family::default(),
            ),
            certificate_reload_failing: register(
                r,
                "pulse_certificate_reload_failing",
                "1 while the certificate files on disk cannot be used, and older ones are in use",
                Gauge::default(),
            ),
            resident_memory_bytes: register(
                r,
                "process_resident_memory_bytes",
                "Resident memory",
                Gauge::default(),
            ),
            // The full one takes its place below.
            registry: Registry::default(),
        };
        r.register(
            "pulse_build",
            "The version that runs",
            Info::new(Build { version: env!("CARGO_PKG_VERSION") }),
        );
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        register(
            r,
            "process_start_time_seconds",
            "When the program started, in Unix time",
            Gauge::<f64, AtomicU64>::default(),
        )
        .set(started.as_secs_f64());
        metrics.registry = registry;
        metrics
    }

    /// Counts a poll of Proxmox VE (`pulse_pve_polls_total`).
    pub fn polled(&self, result: PollResult) {
        self.pve_polls.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a list that a proxy refused (`pulse_list_refusals_total`); `reason` is a name of the contract's enum.
    pub fn list_refused(&self, reason: &'static str) {
        self.list_refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a call that was refused (`pulse_refusals_total`); `reason` is one of `pulse_proto::reason`.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a call that was told to wait (`pulse_rate_limited_total`).
    pub fn rate_limited(&self, bucket: Bucket) {
        self.rate_limited.get_or_create(&[("bucket", bucket)]).inc();
    }

    /// Sets how many proxies are in each last-sync state (`pulse_proxies`); every state is named each time, also at 0.
    pub fn set_proxies(&self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        for (state, count) in counts {
            self.proxies.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets when certificates end (`pulse_certificate_ends_timestamp_seconds`), `server` or `ca`; and whether the files on
    /// disk cannot be used (`pulse_certificate_reload_failing`).
    pub fn set_certificates(
        &self,
        ends_at: impl IntoIterator<Item = (&'static str, SystemTime)>,
        is_reload_failing: bool,
    ) {
        for (certificate, at) in ends_at {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let gauge = self.certificate_ends.get_or_create(&[("certificate", certificate)]);
            gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
        self.certificate_reload_failing.set(is_reload_failing.into());
    }

    /// Counts a watch stream's end (`pulse_watch_streams_ended_total`).
    pub fn stream_ended(&self, reason: StreamEnd) {
        self.streams_ended.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a report (`pulse_reports_total`).
    pub fn reported(&self, result: ReportResult) {
        self.reports.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a connection that was not served (`pulse_connections_refused_total`).
    pub fn connection_refused(&self, reason: ConnectionRefusal) {
        self.connections_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// How many connections were not served for this reason.
    pub fn connections_refused(&self, reason: ConnectionRefusal) -> u64 {
        self.connections_refused.get_or_create(&[("reason", reason)]).get()
    }

    /// Counts a failed handshake (`pulse_tls_handshake_failures_total`).
    pub fn handshake_failed(&self, reason: HandshakeFailure) {
        self.handshake_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// How many handshakes failed for this reason.
    pub fn handshakes_failed(&self, reason: HandshakeFailure) -> u64 {
        self.handshake_failures.get_or_create(&[("reason", reason)]).get()
    }

    /// Everything as text of the type [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.resident_memory_bytes.set(bytes);
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
    metric
}

/// The resident memory of this process. Source: `proc_pid_status(5)`, `VmRSS`, whose `kB` are 1024 bytes.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_follows_the_conventions_and_stands_in_the_text() {
        let metrics = Metrics::new();
        metrics.pushes.inc();
        metrics.push_latency_seconds.observe(0.003);
        metrics.list_refused("WRONG_HASH");
        metrics.refused(pulse_proto::reason::UNKNOWN_TOKEN);
        metrics.rate_limited(Bucket::FailedCall);
        metrics.set_proxies([("IN_SYNC", 3), ("STALE", 0)]);
        metrics.set_certificates([("server", UNIX_EPOCH + std::time::Duration::from_secs(7))], true);
        metrics.stream_ended(StreamEnd::Drained);
        metrics.reported(ReportResult::Repeated);
        metrics.polled(PollResult::Doubted);
        metrics.connection_refused(ConnectionRefusal::Limit);
        metrics.handshake_failed(HandshakeFailure::NotTls);
        let text = metrics.encode();
        for line in [
            "pulse_watch_streams 0",
            "pulse_pushes_total 1",
            "pulse_encodes_total 0",
            "pulse_push_latency_seconds_bucket{le=\"0.005\"} 1",
            "pulse_list_refusals_total{reason=\"WRONG_HASH\"} 1",
            "pulse_refusals_total{reason=\"UNKNOWN_TOKEN\"} 1",
            "pulse_rate_limited_total{bucket=\"failed_call\"} 1",
            "pulse_proxies{state=\"IN_SYNC\"} 3",
            "pulse_proxies{state=\"STALE\"} 0",
            "pulse_certificate_ends_timestamp_seconds{certificate=\"server\"} 7",
            "pulse_certificate_reload_failing 1",
            "pulse_watch_streams_ended_total{reason=\"drained\"} 1",
            "pulse_reports_total{result=\"repeated\"} 1",
            "pulse_pve_polls_total{result=\"doubted\"} 1",
            "pulse_pve_poll_seconds_count 0",
            "pulse_instances_with_problems 0",
            "pulse_held_changes 0",
            "pulse_legacy_http_requests_total 0",
            "pulse_readings_total 0",
            "pulse_connections 0",
            "pulse_connections_refused_total{reason=\"limit\"} 1",
            "pulse_tls_handshake_failures_total{reason=\"not_tls\"} 1",
            "pulse_store_commit_seconds_count 0",
            "pulse_revision 0",
            "pulse_database_older_than_fleet 0",
            concat!("pulse_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("pulse_") || line.starts_with("process_"), "{line}");
        }
    }

    #[test]
    fn memory_is_measured() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let text = Metrics::new().encode();
        assert!(text.lines().any(|line| line.starts_with("process_start_time_seconds 1")));
    }
}
