//! The server's sample configuration and unit file: they parse, and say what is so.

use std::process::Command;

use pulse::config::{Config, ConfigSources};
use pulse_config::Document;
use pulse_test_support::{binary, deploy};

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
    assert_eq!(load(&deploy::read("pulse.yaml")), load(""));
}

#[test]
fn sample_holds_every_key_with_its_default() {
    let text = deploy::uncommented(&deploy::read("pulse.yaml"));
    assert_eq!(load(&text), load(""));
    let mut known = Config::known_keys();
    known.sort();
    assert_eq!(deploy::keys(&Document::parse(&text, "pulse.yaml").unwrap()), known);
}

#[test]
fn unit_file_is_strict_and_complete() {
    let unit = deploy::Unit::parse(&deploy::read("pulse.service"));
    unit.check_common("pulse");
    // The default path, where a missing file is no mistake.
    assert_eq!(unit.command()[1..], ["serve"]);
    assert_eq!(unit.service("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert!(unit.service("LimitNOFILE").parse::<u64>().unwrap() > load("").limits.max_connections);
}

#[test]
fn systemd_accepts_the_unit_file() {
    deploy::verify_with_systemd("pulse.service");
}

#[test]
fn the_unit_starts_the_program_with_flags_that_it_knows() {
    let unit = deploy::Unit::parse(&deploy::read("pulse.service"));
    let words = unit.command();
    assert!(words[0].ends_with("/pulse"), "{words:?}");
    let ran = Command::new(binary("pulse")).args(&words[1..]).arg("--help").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
