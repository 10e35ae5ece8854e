//! The server's sample configuration and unit file: they parse, and say what is so.

#[path = "../../deploy/check.rs"]
mod check;

use pulse::config::{Config, ConfigSources};
use pulse_config::Document;

fn load(text: &str) -> Config {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pulse.yaml");
    std::fs::write(&path, text).expect("the sample is written");
    let sources = ConfigSources { path: Some(path), ..ConfigSources::default() };
    let (mut config, warnings) = Config::load(&sources).expect("the sample is a configuration");
    assert_eq!(warnings, []);
    config.path = "/etc/pulse/pulse.yaml".into();
    config
}

#[test]
fn sample_changes_nothing_as_it_is() {
    assert_eq!(load(&check::read("pulse.yaml")), load(""));
}

#[test]
fn sample_holds_every_key_with_its_default() {
    let text = check::uncommented(&check::read("pulse.yaml"));
    assert_eq!(load(&text), load(""));
    let mut known = Config::known_keys();
    known.sort();
    assert_eq!(check::keys(&Document::parse(&text, "pulse.yaml").unwrap()), known);
}

#[test]
fn unit_file_is_strict_and_complete() {
    let unit = check::Unit::parse(&check::read("pulse.service"));
    unit.check_common("pulse");
    assert_eq!(unit.command()[1..], ["serve", "--config", pulse::config::DEFAULT_PATH]);
    assert_eq!(unit.service("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert!(unit.service("LimitNOFILE").parse::<u64>().unwrap() > load("").limits.max_connections);
}

#[test]
fn systemd_accepts_the_unit_file() {
    check::verify_with_systemd("pulse.service");
}
