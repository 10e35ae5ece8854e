//! The configuration of both programs: files, lists of nodes, and the environment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pulse_config::Environment;
use pulse_sensor_proxy::config::{StaticEntry, StaticList};
use pulse_sensor_proxy::static_nodes;

use crate::{PLANTED, assert_tells, folder};

/// The file, a zero byte, and lines `NAME=VALUE` of the environment: a configuration that keeps its bounds, or
/// mistakes that name where they are; the secret beside it is nowhere.
///
/// # Panics
/// When that does not hold.
pub fn check_proxy(data: &[u8]) {
    use pulse_sensor_proxy::config::{Config, ConfigSources};
    let folder = folder();
    let (path, environment) = written(folder.path(), data, "PULSE_SENSOR_PROXY_");
    let sources = ConfigSources { path: Some(path), state_dir: Some(folder.path().to_owned()), environment };
    let read = Config::load(&sources);
    match &read {
        Ok((config, warnings)) => {
            let seconds = |least, most| Duration::from_secs(least)..=Duration::from_secs(most);
            assert!(seconds(1, 600).contains(&config.report_interval));
            if let Some(control) = &config.control_plane {
                assert!(seconds(5, 600).contains(&control.refresh_interval));
            }
            check_list(&config.static_list);
            warnings.iter().for_each(|warning| assert_tells(&warning.to_string(), 8_192));
        }
        Err(error) => check_mistakes(&error.to_string(), folder.path()),
    }
    assert!(!format!("{read:?}{sources:?}").contains(PLANTED), "a secret is told");
    let again = Config::load(&sources);
    assert_eq!(format!("{again:?}"), format!("{read:?}"), "it reads otherwise the second time");
}

/// As [`check_proxy`], for the server.
///
/// # Panics
/// When that does not hold.
pub fn check_server(data: &[u8]) {
    use pulse::config::{Config, ConfigSources};
    let folder = folder();
    let (path, environment) = written(folder.path(), data, "PULSE_");
    let data_dir = Some(folder.path().to_owned());
    let sources = ConfigSources { path: Some(path), data_dir, environment, ..ConfigSources::default() };
    let read = Config::load(&sources);
    match &read {
        Ok((config, warnings)) => {
            let seconds = |least, most| Duration::from_secs(least)..=Duration::from_secs(most);
            assert!(seconds(5, 600).contains(&config.refresh_interval));
            assert!(seconds(1, 9).contains(&config.shutdown_grace));
            assert!(!config.listen.is_empty());
            let is_local = config.listen.iter().all(|address| address.ip().to_canonical().is_loopback());
            assert!(!config.plaintext || is_local, "plain text for others");
            assert!(config.limits.max_nodes_per_list <= pulse_proto::MAX_NODES as u64);
            warnings.iter().for_each(|warning| assert_tells(&warning.to_string(), 8_192));
        }
        Err(error) => check_mistakes(&error.to_string(), folder.path()),
    }
    assert!(!format!("{read:?}{sources:?}").contains(PLANTED), "a secret is told");
    let again = Config::load(&sources);
    assert_eq!(format!("{again:?}"), format!("{read:?}"), "it reads otherwise the second time");
}

/// An `allowed_nodes_file` in any of its forms.
///
/// # Panics
/// When its entries are others once they are written down.
pub fn check_static_list(data: &[u8]) {
    use pulse_sensor_proxy::config::{Config, ConfigSources};
    let folder = folder();
    let path = folder.path().join("config.yaml");
    fs::write(&path, "").expect("a temporary folder can be written");
    fs::write(folder.path().join("allowed_nodes.yaml"), data).expect("a temporary folder can be written");
    let sources = ConfigSources { path: Some(path), ..ConfigSources::default() };
    match Config::load(&sources) {
        Ok((config, _)) => check_list(&config.static_list),
        Err(error) => check_mistakes(&error.to_string(), folder.path()),
    }
}

fn written(folder: &Path, data: &[u8], prefix: &str) -> (std::path::PathBuf, Environment) {
    let (file, environment) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let path = folder.join("config.yaml");
    fs::write(&path, file).expect("a temporary folder can be written");
    let environment = String::from_utf8_lossy(environment);
    let pairs = environment.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| (format!("{prefix}{name}"), value.to_owned()));
    // The input must not reach for files that are not its own.
    let ours = pairs.filter(|(name, _)| !name.ends_with("_CONFIG"));
    let secrets = ["JOIN", "CONTROL_TOKEN"].map(|name| (format!("{prefix}{name}"), PLANTED.to_owned()));
    (path, ours.chain(secrets).collect())
}

/// Each mistake stands on a line of its own, and says in which file or variable it is.
fn check_mistakes(text: &str, folder: &Path) {
    assert!(!text.trim().is_empty(), "mistakes without a word");
    assert!(!text.contains(PLANTED), "a mistake tells a secret");
    let folder = folder.display().to_string();
    for line in text.lines() {
        assert_tells(line, 16_384);
        let is_placed = line.contains(&folder) || line.contains("PULSE_") || line.contains("plaintext");
        assert!(is_placed, "a mistake without its place: {line}");
    }
}

fn check_list(list: &StaticList) {
    for entry in list.entries() {
        let shown = entry.to_string();
        assert_eq!(shown.parse::<StaticEntry>().as_ref(), Ok(entry), "{shown}");
        assert!(!shown.contains(char::is_whitespace));
    }
    assert_eq!(&StaticList::new(list.entries().iter().cloned()), list, "it has doubles");
    let nodes = static_nodes(list);
    assert!(nodes.nodes.len() + nodes.networks <= list.entries().len());
}
