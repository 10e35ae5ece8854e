//! The proxy's configuration from the outside: files, environment and flags, those of older installs among them.

use pulse_config::{Environment, LogLevel};
use pulse_sensor_proxy::config::{Config, ConfigError, ConfigSources, ControlPlane, StaticEntry};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A configuration folder of its own.
struct Host(TempDir);

impl Host {
    fn new(config: &str) -> Self {
        let host = Self(tempfile::tempdir().expect("a temporary folder"));
        host.write("config.yaml", config.as_bytes());
        host
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).expect("the file is written");
    }

    fn sources(&self, variables: &[(&str, &str)]) -> ConfigSources {
        let environment = variables.iter().map(|(name, value)| (*name, *value)).collect();
        ConfigSources { path: Some(self.0.path().join("config.yaml")), state_dir: None, environment }
    }

    fn load(&self, variables: &[(&str, &str)]) -> (Config, Vec<String>) {
        let (config, warnings) = Config::load(&self.sources(variables)).expect("the configuration is good");
        (config, warnings.iter().map(ToString::to_string).map(|line| self.without_folder(&line)).collect())
    }

    fn mistakes(&self) -> Vec<String> {
        let error = Config::load(&self.sources(&[])).expect_err("the configuration has mistakes");
        error.to_string().lines().map(|line| self.without_folder(line)).collect()
    }

    fn without_folder(&self, line: &str) -> String {
        line.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn read(config: &str) -> Config {
    Host::new(config).load(&[]).0
}

fn nodes(config: &Config) -> Vec<String> {
    config.static_list.entries().iter().map(ToString::to_string).collect()
}

#[test]
fn block_of_the_documentation_is_read() {
    let config = read(
        "pulse_control_plane:
  url: https://pulse.lan:7655
  token_file: /etc/pulse-sensor-proxy/.pulse-control-token
  refresh_interval: 60s        # \"60s\", \"1m\" and 60 all mean the same
  insecure_skip_verify: false
allowed_nodes: [delly, 192.168.0.134, 10.0.0.0/24]   # fallback only: names, addresses, CIDRs
report_interval: 10s
sensors:
  sysfs_root: /sys             # tests point it at captured trees
",
    );
    let expected = ControlPlane {
        url: "https://pulse.lan:7655".parse().unwrap(),
        token_file: "/etc/pulse-sensor-proxy/.pulse-control-token".into(),
        refresh_interval: Duration::from_secs(60),
        insecure_skip_verify: false,
        ca_file: None,
        pin: None,
    };
    assert_eq!(config.control_plane, Some(expected));
    assert_eq!(nodes(&config), ["delly", "192.168.0.134", "10.0.0.0/24"]);
    assert_eq!((config.report_interval.as_secs(), config.sysfs_root.as_path()), (10, Path::new("/sys")));
}

#[test]
fn sixty_seconds_are_written_in_many_ways() {
    for text in ["60s", "1m", "60", "\"60s\"", "'60'"] {
        let config = read(&format!("pulse_control_plane: {{url: 'https://a', refresh_interval: {text}}}\n"));
        assert_eq!(config.control_plane.unwrap().refresh_interval, Duration::from_secs(60), "{text}");
    }
    for text in ["60.0", "-60", "4s", "11m", "[60]", "99999999999999999999"] {
        let host =
            Host::new(&format!("pulse_control_plane: {{url: 'https://a', refresh_interval: {text}}}\n"));
        let found = host.mistakes();
        assert!(
            found[0].starts_with("config.yaml:1: pulse_control_plane.refresh_interval: "),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn without_a_file_in_the_usual_place_the_defaults_hold() {
    let sources = ConfigSources::default();
    // A machine on which the proxy is installed has that file.
    if Path::new(pulse_sensor_proxy::config::DEFAULT_PATH).exists() {
        return;
    }
    let (config, warnings) = Config::load(&sources).unwrap();
    assert_eq!((config.control_plane, warnings), (None, vec![]));
    assert!(config.static_list.is_empty());
    assert_eq!(config.state_dir, Path::new("/var/lib/pulse-sensor-proxy"));
}

#[test]
fn file_that_is_named_must_be_there() {
    let missing = PathBuf::from("/nowhere/config.yaml");
    let by_flag = ConfigSources { path: Some(missing.clone()), ..ConfigSources::default() };
    assert_eq!(Config::load(&by_flag).unwrap_err(), ConfigError::Missing(missing.clone()));
    let environment = Environment::from_iter([("PULSE_SENSOR_PROXY_CONFIG", "/nowhere/config.yaml")]);
    let by_variable = ConfigSources { environment, ..ConfigSources::default() };
    assert_eq!(Config::load(&by_variable).unwrap_err(), ConfigError::Missing(missing));
}

#[test]
fn flag_goes_before_environment_before_file() {
    let host = Host::new("state_dir: /file\nlog_level: warning\nreport_interval: 20s\n");
    let variables = [
        ("PULSE_SENSOR_PROXY_STATE_DIR", "/environment"),
        ("PULSE_SENSOR_PROXY_LOG_LEVEL", "debug"),
        ("STATE_DIRECTORY", "/manager"),
    ];
    let (config, _) = host.load(&variables);
    assert_eq!((config.state_dir.as_path(), config.log_level), (Path::new("/environment"), LogLevel::Debug));
    let mut sources = host.sources(&variables);
    sources.state_dir = Some("/flag".into());
    assert_eq!(Config::load(&sources).unwrap().0.state_dir, Path::new("/flag"));
    let (config, _) = host.load(&[("STATE_DIRECTORY", "/manager")]);
    assert_eq!((config.state_dir.as_path(), config.log_level), (Path::new("/file"), LogLevel::Warn));
    assert_eq!(
        Host::new("").load(&[("STATE_DIRECTORY", "/manager:/more")]).0.state_dir,
        Path::new("/manager")
    );
}

#[test]
fn whole_block_can_come_from_the_environment() {
    let variables = [
        ("PULSE_SENSOR_PROXY_PULSE_CONTROL_PLANE_URL", "https://[fd00::1]"),
        ("PULSE_SENSOR_PROXY_PULSE_CONTROL_PLANE_INSECURE_SKIP_VERIFY", "yes"),
        ("PULSE_SENSOR_PROXY_SENSORS_SYSFS_ROOT", "/tmp/sys"),
        ("PULSE_SENSOR_PROXY_SOMETHING_ELSE", "ignored"),
    ];
    let (config, warnings) = Host::new("").load(&variables);
    let control_plane = config.control_plane.unwrap();
    assert_eq!(
        (control_plane.url.to_string().as_str(), control_plane.insecure_skip_verify),
        ("https://[fd00::1]:7655", true)
    );
    assert_eq!((config.sysfs_root.as_path(), warnings), (Path::new("/tmp/sys"), vec![]));
}

#[test]
fn token_stands_beside_the_configuration_if_nothing_else_is_said() {
    let host = Host::new("pulse_control_plane: {url: 'https://a'}\n");
    assert_eq!(
        host.load(&[]).0.control_plane.unwrap().token_file,
        host.0.path().join(".pulse-control-token")
    );
}

#[test]
fn plain_http_means_https_and_says_so() {
    let (config, warnings) = Host::new("pulse_control_plane:\n  url: http://192.168.0.9:7655/\n").load(&[]);
    assert_eq!(config.control_plane.unwrap().url.to_string(), "https://192.168.0.9:7655");
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("config.yaml:2: pulse_control_plane.url: begins with http://"),
        "{warnings:?}"
    );
}

#[test]
fn block_without_an_address_asks_no_server() {
    for text in [
        "pulse_control_plane:\n  url:\n",
        "pulse_control_plane: {url: ''}\n",
        "pulse_control_plane: {refresh_interval: 60}\n",
    ] {
        let (config, warnings) = Host::new(text).load(&[]);
        assert_eq!(config.control_plane, None, "{text}");
        assert!(
            warnings.len() == 1 && warnings[0].contains("is empty, so no server is asked"),
            "{text}: {warnings:?}"
        );
    }
    for text in ["", "pulse_control_plane:\n", "pulse_control_plane: {}\n"] {
        let (config, warnings) = Host::new(text).load(&[]);
        assert_eq!((config.control_plane, warnings), (None, vec![]), "{text}");
    }
}

#[test]
fn pin_is_read_or_refused() {
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let config = read(&format!("pulse_control_plane: {{url: 'https://a', pin: 'sha256:{hex}'}}\n"));
    assert_eq!(config.control_plane.unwrap().pin.unwrap().to_string(), format!("sha256:{hex}"));
    let host = Host::new("pulse_control_plane: {url: 'https://a', pin: abc}\n");
    assert!(host.mistakes()[0].contains("pin: a pin is written sha256:"));
}

#[test]
fn nodes_of_all_places_are_joined() {
    let host = Host::new("allowed_nodes: [delly, 10.0.0.1]\nallowed_nodes:\n  - DELLY\n  - minipc\n");
    host.write("allowed_nodes.yaml", b"# by an installer\nallowed_nodes:\n- 10.0.0.1\n- pve3\n");
    let (config, warnings) = host.load(&[("PULSE_SENSOR_PROXY_ALLOWED_NODES", "pve4, 10.0.0.0/8")]);
    assert_eq!(nodes(&config), ["delly", "10.0.0.1", "minipc", "pve4", "10.0.0.0/8", "pve3"]);
    assert!(matches!(config.static_list.entries()[1], StaticEntry::Address(_)));
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn file_of_nodes_that_is_named_but_missing_is_a_warning() {
    let (config, warnings) =
        Host::new("allowed_nodes_file: /nowhere/nodes.yaml\nallowed_nodes: [a]\n").load(&[]);
    assert_eq!(nodes(&config), ["a"]);
    assert!(
        warnings.len() == 1
            && warnings[0].starts_with("/nowhere/nodes.yaml: allowed_nodes_file: does not exist")
    );
}

#[test]
fn nothing_of_the_clusters_files_is_ever_opened() {
    let text = "allowed_nodes_file: /etc/pve/nodes.yaml
state_dir: /etc/pve/x
pulse_control_plane:
  url: https://pulse.lan
  token_file: /etc/./pve/priv/token
  ca_file: /etc/pve/pve-root-ca.pem
";
    let found = Host::new(text).mistakes();
    assert_eq!(found.len(), 4, "{found:#?}");
    for key in ["1: allowed_nodes_file", "2: state_dir", "token_file", "ca_file"] {
        let line = found.iter().find(|line| line.contains(key)).expect("each is told");
        assert!(line.contains("lies below /etc/pve") && line.contains("name a path elsewhere"), "{line}");
    }
    // A link leads there too.
    let host = Host::new("");
    std::os::unix::fs::symlink("/etc/pve/nodes", host.0.path().join("allowed_nodes.yaml")).unwrap();
    assert!(
        host.mistakes()[0].starts_with("allowed_nodes.yaml: lies below /etc/pve"),
        "{:?}",
        host.mistakes()
    );
    let sources =
        ConfigSources { path: Some("/etc/pve/pulse-sensor-proxy.yaml".into()), ..ConfigSources::default() };
    assert!(Config::load(&sources).unwrap_err().to_string().contains("lies below /etc/pve"));
}

#[test]
fn mistakes_of_both_files_come_at_once() {
    let host = Host::new("report_intervall: 5s\nallowed_nodes: [0.0.0.0/0/0]\n");
    host.write("allowed_nodes.yaml", b"good\nnot good\n");
    let found = host.mistakes();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("config.yaml:2: allowed_nodes: \"0.0.0.0/0/0\" is no network"), "{found:?}");
    assert_eq!(found[1], "config.yaml:1: report_intervall: unknown key; did you mean report_interval?");
    assert!(found[2].starts_with("allowed_nodes.yaml:2: node name \"not good\""), "{found:?}");
}

#[test]
fn older_installs_keep_working_with_one_warning_a_key() {
    let text = "allowed_source_subnets: [192.168.0.0/24]
metrics_address: 127.0.0.1:9127
log_level: warning
allowed_nodes: [localhost]
allowed_nodes_file: /nowhere/none
strict_node_validation: false
read_timeout: 5s
write_timeout: 10s
max_ssh_output_bytes: 1048576
require_proxmox_hostkeys: false
allowed_peers:
  - uid: 1000
    capabilities: [read, write, admin]
allowed_peer_uids: [1000]
allowed_peer_gids: []
allow_idmapped_root: true
allowed_idmap_users: [root]
rate_limit:
  per_peer_interval_ms: 333
  per_peer_burst: 10
http_enabled: true
http_listen_addr: 0.0.0.0:8443
http_tls_cert: /etc/pulse-sensor-proxy/tls/server.crt
http_tls_key: /etc/pulse-sensor-proxy/tls/server.key
http_auth_token: very-secret
pulse_control_plane:
  url: https://pulse:7655/
  token_file: /etc/pulse-sensor-proxy/.pulse-control-token
  refresh_interval: 60
  insecure_skip_verify: true
";
    let variables = [
        ("PULSE_SENSOR_PROXY_SOCKET", "/run/x.sock"),
        ("PULSE_SENSOR_PROXY_HTTP_ENABLED", "maybe"),
        ("PULSE_SENSOR_PROXY_HTTP_AUTH_TOKEN", "also-secret"),
    ];
    let (config, warnings) = Host::new(text).load(&variables);
    assert!(config.control_plane.is_some_and(|control_plane| control_plane.insecure_skip_verify));
    let told =
        |key: &str| warnings.iter().filter(|line| line.contains(&format!(" {key}: is accepted"))).count();
    let old = [
        "allowed_source_subnets",
        "metrics_address",
        "strict_node_validation",
        "read_timeout",
        "write_timeout",
        "max_ssh_output_bytes",
        "require_proxmox_hostkeys",
        "allowed_peers",
        "allowed_peer_uids",
        "allowed_peer_gids",
        "allow_idmapped_root",
        "allowed_idmap_users",
        "rate_limit",
        "http_enabled",
        "http_listen_addr",
        "http_tls_cert",
        "http_tls_key",
        "http_auth_token",
    ];
    for key in old {
        assert_eq!(told(key), 1, "{key}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), old.len() + 2, "the file of nodes and the socket besides: {warnings:#?}");
    assert!(!warnings.concat().contains("secret"));
}

#[test]
fn this_node_is_a_name() {
    assert_eq!(read("this_node: delly\n").this_node.as_deref(), Some("delly"));
    assert_eq!(read("this_node:\n").this_node, None);
    assert!(
        Host::new("this_node: 10.0.0.0/8\n").mistakes()[0].starts_with("config.yaml:1: this_node: node name")
    );
}

#[test]
fn damaged_files_are_mistakes() {
    let host = Host::new("");
    for (bytes, about) in [
        (b"a: \xff\n".as_slice(), "config.yaml:1: is not UTF-8 text here"),
        (b"sensors:\n\tsysfs_root: /sys\n", "config.yaml:2: is not valid YAML"),
        (b"- delly\n", "config.yaml:1: must be a block of keys"),
        (b"a: &a [x]\nallowed_nodes: *a\n", "config.yaml:2: aliases"),
    ] {
        host.write("config.yaml", bytes);
        assert!(host.mistakes()[0].starts_with(about), "{:?}", host.mistakes());
    }
    host.write("config.yaml", "\u{feff}log_level: debug\r\nallowed_nodes:\r\n  - a\r\n".as_bytes());
    assert_eq!(nodes(&host.load(&[]).0), ["a"]);
}

#[test]
fn list_of_a_hundred_thousand_nodes_is_read_quickly() {
    let host = Host::new("");
    let lines: String = (0..100_000).map(|number| format!("n{number}\n")).collect();
    host.write("allowed_nodes.yaml", lines.as_bytes());
    assert_eq!(host.load(&[]).0.static_list.entries().len(), 100_000);
}
