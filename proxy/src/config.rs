//! What the operator decided: the configuration file, the environment and the flags, as typed values.
//!
//! In: paths and the environment. Out: [`Config`] with warnings, or every mistake at once.
//! Always: flag, then environment (`PULSE_SENSOR_PROXY_` and the key in capitals), then file, then default; the static
//! list alone is the sum of all its sources. Every key that an older version knew is known.
//! Never: reads a token, or touches the network.

mod block;
mod legacy;
mod own_path;

pub use block::{AddBlockError, ControlPlaneBlock, add_control_plane_block};
pub use pulse_config::{Network, StaticEntry, StaticList};
pub use pulse_reach::{ServerUrl, ServerUrlError};

use pulse_config::{
    Document, Environment, LogFormat, LogLevel, Mistakes, Place, Reading, Remark, Section, Warning,
};
use pulse_proto::{Node, Pin};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration file if no other is named.
pub const DEFAULT_PATH: &str = "/etc/pulse-sensor-proxy/config.yaml";
/// The state folder if no other is named.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/pulse-sensor-proxy";
/// What the names of environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "PULSE_SENSOR_PROXY_";

/// The server's interval if neither it nor the configuration says one.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const REFRESH_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(600);
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
const REPORT_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// Where a configuration comes from: the flags of the command line, and the environment.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// `--config`; a file that is named must be there.
    pub path: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
}

/// Everything that the program needs to know before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The configuration file, which need not exist.
    pub path: PathBuf,
    /// The folder for what the program itself keeps.
    pub state_dir: PathBuf,
    /// The server; `None`: the static list alone.
    pub control_plane: Option<ControlPlane>,
    /// What the configuration itself allows.
    pub static_list: StaticList,
    /// How often temperatures are read and reported.
    pub report_interval: Duration,
    /// The node that is this host, if the operator says so.
    pub this_node: Option<String>,
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
    /// What is logged.
    pub log_level: LogLevel,
    /// The shape of log lines.
    pub log_format: LogFormat,
}

/// The server, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// Its address.
    pub url: ServerUrl,
    /// Where the token stands that a person or an installer put there.
    pub token_file: PathBuf,
    /// How often something should be heard, until the server says otherwise.
    pub refresh_interval: Duration,
    /// Whether the certificate goes unchecked (a known pin never does).
    pub insecure_skip_verify: bool,
    /// Certificates to trust instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The server's key, for a configuration written by hand; registration keeps its own.
    pub pin: Option<Pin>,
}

/// Why there is no configuration. The operator must change something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for is not there.
    #[error("the configuration file {} does not exist; create it, or leave --config out to use {DEFAULT_PATH}", .0.display())]
    Missing(PathBuf),
    /// Its folder is not there either, so it cannot be made.
    #[error("the configuration file {} cannot be made, because its folder does not exist: create the folder first", .0.display())]
    NoFolder(PathBuf),
    /// What is written is wrong: every mistake, one a line.
    #[error("{0}")]
    Mistakes(Mistakes),
}

impl From<Mistakes> for ConfigError {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConfigError`], which displays every mistake that there is.
    pub fn load(sources: &ConfigSources) -> Result<(Self, Vec<Warning>), ConfigError> {
        Self::read(sources, |path| Err(ConfigError::Missing(path.to_owned())))
    }

    /// As [`Config::load`], for the command that writes the file: a named one that is not there yet counts as empty, if
    /// there is a folder to make it in.
    ///
    /// # Errors
    /// [`ConfigError`], which displays every mistake that there is.
    pub fn load_to_write(sources: &ConfigSources) -> Result<(Self, Vec<Warning>), ConfigError> {
        Self::read(sources, |path| {
            let folder = folder_of(path);
            match folder.as_os_str().is_empty() || folder.is_dir() {
                true => Ok(()),
                false => Err(ConfigError::NoFolder(path.to_owned())),
            }
        })
    }

    /// `without` decides what a named file is that is not there: as good as an empty one, or an error.
    fn read(
        sources: &ConfigSources,
        without: impl FnOnce(&Path) -> Result<(), ConfigError>,
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let named = sources
            .path
            .clone()
            .or_else(|| sources.environment.value("PULSE_SENSOR_PROXY_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
        for given in [Some(&path), sources.state_dir.as_ref()].into_iter().flatten() {
            let refused = |rule| Mistakes::in_file(&given.display().to_string(), None, rule);
            own_path::check(given).map_err(refused)?;
        }
        let document = match pulse_config::read_text(&path)? {
            Some(text) => Document::parse(&text, path.display().to_string())?,
            None => {
                if named.is_some() {
                    without(&path)?;
                }
                Document::empty(path.display().to_string())
            }
        };
        let mut files = ListFiles { beside: folder_of(&path), mistakes: vec![], warnings: vec![] };
        let reading = read_file(&document, &sources.environment, &mut files);
        let (reading, mut mistakes) = match reading {
            Ok(reading) => (Some(reading), vec![]),
            Err(mistakes) => (None, mistakes.into_remarks()),
        };
        mistakes.extend(files.mistakes);
        match reading {
            Some(Reading { value, mut warnings, .. }) if mistakes.is_empty() => {
                warnings.extend(files.warnings);
                warnings.extend(legacy::warn_variables(&sources.environment));
                Ok((value.into_config(path, sources), warnings))
            }
            _ => Err(Mistakes::new(mistakes).into()),
        }
    }

    /// The path of every key of this version, as in `sensors.sysfs_root`: what the sample file holds.
    #[must_use]
    pub fn known_keys() -> Vec<String> {
        let mut files = ListFiles { beside: PathBuf::new(), mistakes: vec![], warnings: vec![] };
        read_file(&Document::empty(DEFAULT_PATH), &Environment::default(), &mut files)
            .map(|reading| reading.known_keys)
            .unwrap_or_default()
    }
}

/// What the file and the environment say, before flags and defaults.
struct Written {
    control_plane: WrittenControlPlane,
    static_list: StaticList,
    report_interval: Option<Duration>,
    this_node: Option<String>,
    sysfs_root: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
}

struct WrittenControlPlane {
    url: Option<ServerUrl>,
    token_file: Option<PathBuf>,
    refresh_interval: Option<Duration>,
    insecure_skip_verify: Option<bool>,
    ca_file: Option<PathBuf>,
    pin: Option<Pin>,
}

impl Written {
    fn into_config(self, path: PathBuf, sources: &ConfigSources) -> Config {
        let token_file = folder_of(&path).join(".pulse-control-token");
        let given = self.control_plane;
        let control_plane = given.url.map(|url| ControlPlane {
            url,
            token_file: given.token_file.unwrap_or(token_file),
            refresh_interval: given.refresh_interval.unwrap_or(REFRESH_INTERVAL),
            insecure_skip_verify: given.insecure_skip_verify.unwrap_or(false),
            ca_file: given.ca_file,
            pin: given.pin,
        });
        let from_service_manager = || state_directory(&sources.environment);
        Config {
            path,
            state_dir: (sources.state_dir.clone().or(self.state_dir))
                .or_else(from_service_manager)
                .unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR)),
            control_plane,
            static_list: self.static_list,
            report_interval: self.report_interval.unwrap_or(REPORT_INTERVAL),
            this_node: self.this_node,
            sysfs_root: self.sysfs_root.unwrap_or_else(|| PathBuf::from("/sys")),
            log_level: self.log_level.unwrap_or_default(),
            log_format: self.log_format.unwrap_or_default(),
        }
    }
}

fn read_file(
    document: &Document,
    environment: &Environment,
    files: &mut ListFiles,
) -> Result<Reading<Written>, Mistakes> {
    pulse_config::read(document, environment, ENVIRONMENT_PREFIX, |keys| {
        let control_plane = keys.section("pulse_control_plane", read_control_plane);
        let mut nodes = keys.union("allowed_nodes", str::parse::<StaticEntry>);
        nodes.extend(files.read(own_path::read(keys, "allowed_nodes_file")));
        let written = Written {
            control_plane,
            static_list: StaticList::new(nodes),
            report_interval: keys.duration("report_interval", REPORT_INTERVALS),
            this_node: keys.value("this_node", node_name).flatten(),
            sysfs_root: keys.section("sensors", |keys| own_path::read(keys, "sysfs_root")),
            state_dir: own_path::read(keys, "state_dir"),
            log_level: keys.choice("log_level", LogLevel::CHOICES),
            log_format: keys.choice("log_format", LogFormat::CHOICES),
        };
        legacy::accept_keys(keys);
        written
    })
}

fn read_control_plane(keys: &mut Section<'_, '_>) -> WrittenControlPlane {
    let url = keys.value("url", |text| match text {
        "" => Ok(None),
        text => text
            .parse::<ServerUrl>()
            .map(|url| Some((url, ServerUrl::is_plain_http(text))))
            .map_err(|e| e.to_string()),
    });
    match &url {
        Some(Some((url, true))) => {
            let text =
                format!("begins with http://, but Pulse is only reached over TLS: {url} is used; write that");
            keys.warn("url", text);
        }
        // Older proxies took an empty address for "off", so this must not stop one after an upgrade.
        None | Some(None) if keys.is_in_file() => {
            keys.warn("url", "is empty, so no server is asked and the static list alone is in force; give https://HOST:7655");
        }
        _ => {}
    }
    let pin = keys.value("pin", |text| match text {
        "" => Ok(None),
        text => text.parse::<Pin>().map(Some).map_err(|error| error.to_string()),
    });
    WrittenControlPlane {
        url: url.flatten().map(|(url, _)| url),
        token_file: own_path::read(keys, "token_file"),
        refresh_interval: keys.duration("refresh_interval", REFRESH_INTERVALS),
        insecure_skip_verify: keys.boolean("insecure_skip_verify"),
        ca_file: own_path::read(keys, "ca_file"),
        pin: pin.flatten(),
    }
}

fn node_name(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        text => {
            Node::new(text, "").map(|node| Some(node.name().to_owned())).map_err(|error| error.to_string())
        }
    }
}

/// Reads the files of the static list, and keeps what is to be said about them.
struct ListFiles {
    beside: PathBuf,
    mistakes: Vec<Remark>,
    warnings: Vec<Warning>,
}

impl ListFiles {
    /// Reads `named`, or `allowed_nodes.yaml` beside the configuration if it is there.
    fn read(&mut self, named: Option<PathBuf>) -> Vec<StaticEntry> {
        let path = named.clone().unwrap_or_else(|| self.beside.join("allowed_nodes.yaml"));
        let file = path.display().to_string();
        let entries = own_path::check(&path)
            .map_err(|rule| Mistakes::in_file(&file, None, rule))
            .and_then(|()| pulse_config::read_text(&path))
            .and_then(|text| text.map(|text| pulse_config::read_list_file(&text, &file)).transpose());
        match entries {
            Ok(Some(entries)) => return entries,
            Ok(None) if named.is_some() => {
                // The list is only what the proxy falls back to: without it, it must still start.
                let place = Place::File { file, line: None };
                let text = "does not exist, so it adds no node; create it or remove the key".to_owned();
                self.warnings.push(Remark { place, key: "allowed_nodes_file".to_owned(), text });
            }
            Ok(None) => {}
            Err(mistakes) => self.mistakes.extend(mistakes.into_remarks()),
        }
        Vec::new()
    }
}

/// The first folder that the service manager made for us (systemd.exec(5): several are parted by colons).
fn state_directory(environment: &Environment) -> Option<PathBuf> {
    let folders = environment.value("STATE_DIRECTORY")?.to_str()?;
    folders.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
