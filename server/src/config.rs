//! What the operator decided: the configuration file, the environment and the flags, as typed values.
//!
//! In: paths and the environment. Out: [`Config`] with warnings, or every mistake at once.
//! Always: flag, then environment (`PULSE_` and the key's path in capitals), then file, then default. No key is called
//! `port`, because container platforms set `PULSE_PORT` to things of their own.
//! Never: opens a certificate, a key or a socket.

mod database;
mod limits;
pub mod secret_key;

use pulse_config::{Document, Environment, LogFormat, LogLevel, Mistakes, Reading, Section, Warning};
use pulse_proto::DEFAULT_PORT;
use pulse_proto::join::split_authority;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::network::Network;
pub use database::{Database, DatabaseUrl, Password};
pub use limits::{Limits, Quota};
pub use secret_key::SecretKey;

/// The configuration file if no other is named.
pub const DEFAULT_PATH: &str = "/etc/pulse/pulse.yaml";
/// The data folder if no other is named.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/pulse";
/// The folder of what installers fetch, if no other is named.
pub const DEFAULT_INSTALL_DIR: &str = "/usr/share/pulse/install";
/// What the names of environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "PULSE_";

/// Where a configuration comes from: the flags of the command line, and the environment.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// `--config`; a file that is named must be there.
    pub path: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`; empty if it is not given.
    pub listen: Vec<SocketAddr>,
    /// The environment.
    pub environment: Environment,
}

/// Everything that the program needs to know before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The configuration file, which need not exist.
    pub path: PathBuf,
    /// The addresses to listen on, at least one.
    pub listen: Vec<SocketAddr>,
    /// The folder for database, keys, certificates and the admin socket.
    pub data_dir: PathBuf,
    /// PostgreSQL; `None`: the database is a file in the data folder.
    pub database: Option<Database>,
    /// Where the key is under which the database's secrets are sealed.
    pub secret_key: SecretKey,
    /// What proxies dial, for join strings and the certificate.
    pub public_address: Option<PublicAddress>,
    /// Whether TLS is off; only if every address in `listen` is loopback.
    pub plaintext: bool,
    /// Where older proxies and installers that know no TLS are served in plain text; `None`: nowhere.
    pub legacy_http: Option<SocketAddr>,
    /// The folder of the files that installers fetch.
    pub install_dir: PathBuf,
    /// The operator's own certificate; `None`: one from Pulse's own CA.
    pub tls: Option<TlsFiles>,
    /// How often a proxy should hear something, at least.
    pub refresh_interval: Duration,
    /// How long a shutdown may take to drain.
    pub shutdown_grace: Duration,
    /// What is logged.
    pub log_level: LogLevel,
    /// The shape of log lines.
    pub log_format: LogFormat,
    /// How much history is kept.
    pub readings: Retention,
    /// How much of the audit log is kept.
    pub audit: AuditRetention,
    /// Those who pass on the calls of many: bounds on one address do not count for them.
    pub trusted_proxies: Vec<Network>,
    /// What one caller, and all of them, may take.
    pub limits: Limits,
}

/// Host and port under which proxies reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// A DNS name or an address; IPv6 without brackets.
    pub host: String,
    /// The port; 7655 if none is written.
    pub port: u16,
}

/// A certificate of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain, in PEM.
    pub certificate_file: PathBuf,
    /// Its key, in PEM.
    pub key_file: PathBuf,
}

/// When history is forgotten: by whichever bound is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The size of the whole database, in bytes, above which the oldest readings go.
    pub max_bytes: u64,
    /// The oldest reading that is kept.
    pub max_age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_bytes: 2 << 30, max_age: Duration::from_secs(90 * 24 * 60 * 60) }
    }
}

/// When rows of the audit log are forgotten: by whichever bound is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRetention {
    /// The most rows, each some 500 bytes.
    pub max_rows: u64,
    /// The oldest row that is kept.
    pub max_age: Duration,
}

impl Default for AuditRetention {
    fn default() -> Self {
        Self { max_rows: 2_000_000, max_age: Duration::from_secs(5 * 365 * 24 * 60 * 60) }
    }
}

/// Why there is no configuration. The operator must change something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for is not there.
    #[error("the configuration file {} does not exist; create it, or leave --config out to use {DEFAULT_PATH}", .0.display())]
    Missing(PathBuf),
    /// What is written is wrong: every mistake, one a line.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// Flags ask for plain text where others could listen in.
    #[error(
        "plaintext is on, but {0} is not a loopback address; listen on 127.0.0.1 or [::1], or turn plaintext off"
    )]
    PlaintextBeyondLoopback(SocketAddr),
}

impl From<Mistakes> for ConfigError {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl Config {
    /// Whether the server's certificate is from an authority of Pulse's own.
    #[must_use]
    pub fn has_own_authority(&self) -> bool {
        !self.plaintext && self.tls.is_none()
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConfigError`], which displays every mistake that there is.
    pub fn load(sources: &ConfigSources) -> Result<(Self, Vec<Warning>), ConfigError> {
        let named =
            sources.path.clone().or_else(|| sources.environment.value("PULSE_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
        let file = path.display().to_string();
        let document = match pulse_config::read_text(&path)? {
            Some(text) => Document::parse(&text, file)?,
            None if named.is_some() => return Err(ConfigError::Missing(path)),
            None => Document::empty(file),
        };
        let reading = read_file(&document, &sources.environment)?;
        let config = reading.value.into_config(&path, sources);
        let open = config.listen.iter().find(|address| !address.ip().to_canonical().is_loopback());
        match open {
            Some(address) if config.plaintext => Err(ConfigError::PlaintextBeyondLoopback(*address)),
            _ => Ok((config, reading.warnings)),
        }
    }

    /// The socket of the local admin.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// The file of the key under which the database's secrets are sealed.
    #[must_use]
    pub fn secret_key_file(&self) -> PathBuf {
        self.secret_key.file(&self.data_dir)
    }

    /// The path of every key, as in `limits.max_connections`: what the sample file holds.
    #[must_use]
    pub fn known_keys() -> Vec<String> {
        read_file(&Document::empty(DEFAULT_PATH), &Environment::default())
            .map(|reading| reading.known_keys)
            .unwrap_or_default()
    }
}

/// What the file and the environment say, before flags and defaults.
struct Written {
    listen: Option<Vec<SocketAddr>>,
    data_dir: Option<PathBuf>,
    database: Option<Database>,
    secret_key_file: Option<PathBuf>,
    public_address: Option<PublicAddress>,
    plaintext: Option<bool>,
    legacy_http: Option<SocketAddr>,
    install_dir: Option<PathBuf>,
    tls: Option<TlsFiles>,
    refresh_interval: Option<Duration>,
    shutdown_grace: Option<Duration>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
    readings: Retention,
    audit: AuditRetention,
    trusted_proxies: Option<Vec<Network>>,
    limits: Limits,
}

impl Written {
    fn into_config(self, path: &Path, sources: &ConfigSources) -> Config {
        let flags = Some(sources.listen.clone()).filter(|listen| !listen.is_empty());
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
        let from_service_manager = || state_directory(&sources.environment);
        Config {
            path: path.to_owned(),
            listen: flags
                .or(self.listen.filter(|listen| !listen.is_empty()))
                .unwrap_or_else(|| vec![everywhere]),
            data_dir: (sources.data_dir.clone().or(self.data_dir))
                .or_else(from_service_manager)
                .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)),
            database: self.database,
            secret_key: SecretKey::of(self.secret_key_file, &sources.environment),
            public_address: self.public_address,
            plaintext: self.plaintext.unwrap_or(false),
            legacy_http: self.legacy_http,
            install_dir: self.install_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_INSTALL_DIR)),
            tls: self.tls,
            refresh_interval: self.refresh_interval.unwrap_or(Duration::from_secs(60)),
            // The whole exit takes at most 10 s: 2 s are left to end what is still there.
            shutdown_grace: self.shutdown_grace.unwrap_or(Duration::from_secs(8)),
            log_level: self.log_level.unwrap_or_default(),
            log_format: self.log_format.unwrap_or_default(),
            readings: self.readings,
            audit: self.audit,
            trusted_proxies: self.trusted_proxies.unwrap_or_default(),
            limits: self.limits,
        }
    }
}

fn read_file(document: &Document, environment: &Environment) -> Result<Reading<Written>, Mistakes> {
    pulse_config::read(document, environment, ENVIRONMENT_PREFIX, |keys| {
        let plaintext = keys.boolean("plaintext");
        let tls = keys.section("tls", read_tls);
        if plaintext == Some(true) && tls.is_some() {
            keys.refuse("plaintext", "cannot be true beside a certificate in tls; remove one of the two");
        }
        Written {
            listen: keys.list("listen", listen_address),
            data_dir: keys.path("data_dir"),
            database: database::read(keys, environment),
            secret_key_file: keys.path("secret_key_file"),
            public_address: keys.value("public_address", public_address).flatten(),
            plaintext,
            legacy_http: keys.value("legacy_http", legacy_http).flatten(),
            install_dir: keys.path("install_dir"),
            tls,
            refresh_interval: keys.duration("refresh_interval", seconds(5..=600)),
            shutdown_grace: keys.duration("shutdown_grace", seconds(1..=9)),
            log_level: keys.choice("log_level", LogLevel::CHOICES),
            log_format: keys.choice("log_format", LogFormat::CHOICES),
            readings: keys.section("readings", read_retention),
            audit: keys.section("audit", read_audit),
            trusted_proxies: keys.list("trusted_proxies", network),
            limits: keys.section("limits", Limits::read),
        }
    })
}

fn read_tls(keys: &mut Section<'_, '_>) -> Option<TlsFiles> {
    let (certificate_file, key_file) = (keys.path("certificate_file"), keys.path("key_file"));
    match (keys.has("certificate_file"), keys.has("key_file")) {
        (true, false) => keys.refuse("key_file", "is missing: a certificate_file needs its key_file"),
        (false, true) => keys.refuse("certificate_file", "is missing: a key_file needs its certificate_file"),
        _ => {}
    }
    Some(TlsFiles { certificate_file: certificate_file?, key_file: key_file? })
}

fn read_retention(keys: &mut Section<'_, '_>) -> Retention {
    let default = Retention::default();
    Retention {
        // At least some minutes of a large fleet; at most what a file system holds.
        max_bytes: keys.bytes("max_bytes", 16 << 20..=1 << 44).unwrap_or(default.max_bytes),
        max_age: keys.duration("max_age", seconds(60 * 60..=3650 * 24 * 60 * 60)).unwrap_or(default.max_age),
    }
}

fn read_audit(keys: &mut Section<'_, '_>) -> AuditRetention {
    let default = AuditRetention::default();
    AuditRetention {
        max_rows: keys.integer("max_rows", 100..=1_000_000_000).unwrap_or(default.max_rows),
        // A server that was away for a weekend finds what it knew still.
        max_age: keys
            .duration("max_age", seconds(7 * 24 * 60 * 60..=36_500 * 24 * 60 * 60))
            .unwrap_or(default.max_age),
    }
}

/// Reads an address to listen on: `ADDR`, `ADDR:PORT`, `[V6]`, `[V6]:PORT` or `:PORT` (every address).
///
/// # Errors
/// The rule. Names are refused, because what they mean can change while the server runs.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, DEFAULT_PORT));
    }
    let port = text.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    match port.and_then(|port| port.parse().ok()) {
        Some(port) => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        None => {
            Err(format!("must be an address with a port like 0.0.0.0:7655 or [::]:7655, but is {text:?}"))
        }
    }
}

fn legacy_http(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() { Ok(None) } else { legacy_http_address(text).map(Some) }
}

/// Reads the address of the port of older proxies that know no TLS, with its port: `ADDR:PORT`, `[V6]:PORT` or `:PORT`.
///
/// # Errors
/// The rule.
pub fn legacy_http_address(text: &str) -> Result<SocketAddr, String> {
    // The port is never a default: that one is the port of TLS.
    let is_without_port = text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if is_without_port {
        return Err(format!("must have a port that is not the one of TLS, like {text}:7656"));
    }
    listen_address(text)
}

fn public_address(text: &str) -> Result<Option<PublicAddress>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let rule =
        || "must be HOST or HOST:PORT without https:// (IPv6 in brackets), like pulse.lan:7655".to_owned();
    split_authority(text).map(|(host, port)| Some(PublicAddress { host, port })).ok_or_else(rule)
}

fn network(text: &str) -> Result<Network, String> {
    let rule = || format!("must be an address or a network like 10.0.0.0/8 or fd00::/8, but is {text:?}");
    text.parse().map_err(|_| rule())
}

/// The first folder that the service manager made for us (systemd.exec(5): several are parted by colons).
fn state_directory(environment: &Environment) -> Option<PathBuf> {
    let folders = environment.value("STATE_DIRECTORY")?.to_str()?;
    folders.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn seconds(range: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_secs(*range.start())..=Duration::from_secs(*range.end())
}

#[cfg(test)]
mod tests;
