//! The proxy's sample configuration and unit file: they parse, and say what is so.

use std::process::Command;

use pulse_config::Document;
use pulse_sensor_proxy::config::{Config, ConfigSources, DEFAULT_PATH};
use pulse_test_support::{binary, deploy};

/// The configuration that `text` gives, with the warnings' words; `token_file` and the like are as if the file stood in
/// its usual place.
fn load(text: &str) -> (Config, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).expect("the sample is written");
    let sources = ConfigSources { path: Some(path), ..ConfigSources::default() };
    let (mut config, warnings) = Config::load(&sources).expect("the sample is a configuration");
    config.path = DEFAULT_PATH.into();
    if let Some(control_plane) = &mut config.control_plane
        && let Ok(name) = control_plane.token_file.strip_prefix(folder.path())
    {
        control_plane.token_file = std::path::Path::new("/etc/pulse-sensor-proxy").join(name);
    }
    (config, warnings.into_iter().map(|warning| format!("{}: {}", warning.key, warning.text)).collect())
}

#[test]
fn sample_changes_nothing_as_it_is() {
    assert_eq!(load(&deploy::read("pulse-sensor-proxy.yaml")), load(""));
    assert_eq!(load("").1, Vec::<String>::new());
}

#[test]
fn sample_holds_every_key_with_its_default() {
    let text = deploy::uncommented(&deploy::read("pulse-sensor-proxy.yaml"));
    let (config, warnings) = load(&text);
    assert_eq!(config, load("").0);
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("pulse_control_plane.url: is empty"),
        "{warnings:?}"
    );
    let mut known = Config::known_keys();
    known.sort();
    assert_eq!(deploy::keys(&Document::parse(&text, "config.yaml").unwrap()), known);
}

#[test]
fn sample_block_holds_its_defaults() {
    let sample = deploy::uncommented(&deploy::read("pulse-sensor-proxy.yaml"));
    let with_url = sample.replace("\n  url:\n", "\n  url: https://pulse.lan:7655\n");
    assert_ne!(sample, with_url);
    assert_eq!(load(&with_url), load("pulse_control_plane: {url: 'https://pulse.lan:7655'}\n"));
}

#[test]
fn unit_file_is_strict_and_complete() {
    let unit = deploy::Unit::parse(&deploy::read("pulse-sensor-proxy.service"));
    unit.check_common("pulse-sensor-proxy");
    // The default path, where a missing file is no mistake.
    assert_eq!(unit.command()[1..], ["run"]);
}

#[test]
fn systemd_accepts_the_unit_file() {
    deploy::verify_with_systemd("pulse-sensor-proxy.service");
}

#[test]
fn the_unit_starts_the_program_with_flags_that_it_knows() {
    let unit = deploy::Unit::parse(&deploy::read("pulse-sensor-proxy.service"));
    let words = unit.command();
    assert!(words[0].ends_with("/pulse-sensor-proxy"), "{words:?}");
    let ran = Command::new(binary("pulse-sensor-proxy")).args(&words[1..]).arg("--help").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
