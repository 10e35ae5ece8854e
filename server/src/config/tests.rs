use super::*;
use std::num::NonZeroU32;

fn load(
    text: &str,
    variables: &[(&str, &str)],
    change: impl FnOnce(&mut ConfigSources),
) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pulse.yaml");
    std::fs::write(&path, text).expect("the file is written");
    let environment = variables.iter().map(|(name, value)| (*name, *value)).collect();
    let mut sources = ConfigSources { path: Some(path), environment, ..ConfigSources::default() };
    change(&mut sources);
    Config::load(&sources).map(|(config, _)| config)
}

fn read(text: &str) -> Config {
    load(text, &[], |_| {}).expect(text)
}

/// The mistakes without the folder's name.
fn mistakes(text: &str) -> Vec<String> {
    let error = load(text, &[], |_| {}).expect_err(text).to_string();
    error
        .lines()
        .map(|line| line.rsplit_once("pulse.yaml").map_or(line, |(_, rest)| rest).to_owned())
        .collect()
}

#[test]
fn empty_file_gives_the_defaults() {
    let config = read("");
    assert_eq!(config.listen, ["[::]:7655".parse().unwrap()]);
    assert_eq!(config.data_dir, Path::new("/var/lib/pulse"));
    assert_eq!(config.admin_socket(), Path::new("/var/lib/pulse/admin.sock"));
    assert_eq!((config.plaintext, config.tls, config.public_address), (false, None, None));
    assert_eq!((config.refresh_interval.as_secs(), config.shutdown_grace.as_secs()), (60, 8));
    assert_eq!((config.readings.max_bytes, config.readings.max_age.as_secs()), (2_147_483_648, 7_776_000));
    assert_eq!((config.audit.max_rows, config.audit.max_age.as_secs()), (2_000_000, 157_680_000));
    assert_eq!((config.limits.max_nodes_per_list, config.limits.max_request_bytes), (10_000, 1_048_576));
}

#[test]
fn limits_on_calls_are_read() {
    let config = read("");
    let quota = |burst, seconds| Quota {
        burst: NonZeroU32::new(burst).expect("it is not zero"),
        interval: Duration::from_secs(seconds),
    };
    let twelve = quota(12, 5);
    assert_eq!((config.limits.watches, config.limits.registrations), (twelve, twelve));
    assert_eq!(config.limits.failures, quota(30, 2));
    assert_eq!((config.limits.max_connections_per_address, config.trusted_proxies.len()), (1_024, 0));

    let text = "trusted_proxies: [10.0.0.0/8, '::1']\nlimits: {watch_burst: 3, watch_interval: 1m, \
                failed_calls_per_minute: 60, max_calls: 8}\n";
    let config = read(text);
    assert!(config.trusted_proxies[0].contains("10.9.9.9".parse().unwrap()));
    assert_eq!(config.limits.watches.interval.as_secs(), 60);
    assert_eq!((config.limits.watches.burst.get(), config.limits.registrations), (3, twelve));
    assert_eq!((config.limits.failures.interval.as_secs(), config.limits.max_calls), (1, 8));
    assert_eq!(mistakes("trusted_proxies: [lan]\nlimits: {watch_burst: 0, watch_interval: 0s}\n").len(), 3);
}

#[test]
fn listen_takes_one_address_or_several() {
    let listen = |text: &str| -> Vec<String> { read(text).listen.iter().map(ToString::to_string).collect() };
    assert_eq!(listen("listen: 127.0.0.1:0\n"), ["127.0.0.1:0"]);
    assert_eq!(
        listen("listen: [\"[::1]:80\", 0.0.0.0, '::', ':9']\n"),
        ["[::1]:80", "0.0.0.0:7655", "[::]:7655", "[::]:9"]
    );
    assert_eq!(listen("listen: []\n"), ["[::]:7655"]);
    assert_eq!(
        mistakes("listen: [localhost:1, \"1.2.3.4:99999\"]\n"),
        [
            ":1: listen: must be an address with a port like 0.0.0.0:7655 or [::]:7655, but is \"localhost:1\"",
            ":1: listen: must be an address with a port like 0.0.0.0:7655 or [::]:7655, but is \"1.2.3.4:99999\"",
        ]
    );
}

#[test]
fn flags_go_before_environment_before_file() {
    let text = "data_dir: /file\nlisten: 127.0.0.1:1\nlog_level: warn\nlimits:\n  max_connections: 1000\n";
    let variables = [
        ("PULSE_DATA_DIR", "/environment"),
        ("PULSE_LISTEN", "127.0.0.1:2,[::1]:2"),
        ("PULSE_LIMITS_MAX_CONNECTIONS", "2000"),
    ];
    let config = load(text, &variables, |_| {}).unwrap();
    assert_eq!((config.data_dir.as_path(), config.listen.len()), (Path::new("/environment"), 2));
    assert_eq!((config.limits.max_connections, config.log_level), (2000, LogLevel::Warn));
    let config = load(text, &variables, |sources| {
        sources.data_dir = Some("flag".into());
        sources.listen = vec!["127.0.0.1:3".parse().unwrap()];
    });
    let config = config.unwrap();
    assert_eq!(
        (config.data_dir.as_path(), config.listen[0].port(), config.listen.len()),
        (Path::new("flag"), 3, 1)
    );
}

#[test]
fn folder_of_the_service_manager_goes_behind_the_file() {
    let variables = [("STATE_DIRECTORY", "/var/lib/other:/var/lib/more")];
    assert_eq!(load("", &variables, |_| {}).unwrap().data_dir, Path::new("/var/lib/other"));
    assert_eq!(load("data_dir: /file\n", &variables, |_| {}).unwrap().data_dir, Path::new("/file"));
}

#[test]
fn plaintext_is_for_loopback_alone() {
    assert!(read("plaintext: true\nlisten: ['127.0.0.1:0', '[::1]:0', '[::ffff:127.0.0.1]:0']\n").plaintext);
    for text in ["plaintext: true\n", "plaintext: true\nlisten: ['127.0.0.1:0', '0.0.0.0:0']\n"] {
        assert!(mistakes(text)[0].contains("is not a loopback address"), "{text}");
    }
    let open = |sources: &mut ConfigSources| sources.listen = vec!["192.168.0.5:1".parse().unwrap()];
    let error = load("plaintext: true\nlisten: 127.0.0.1:0\n", &[], open).unwrap_err();
    assert_eq!(error, ConfigError::PlaintextBeyondLoopback("192.168.0.5:1".parse().unwrap()));
    let text = "plaintext: true\nlisten: 127.0.0.1:0\ntls: {certificate_file: /c, key_file: /k}\n";
    assert_eq!(
        mistakes(text),
        [":1: plaintext: cannot be true beside a certificate in tls; remove one of the two"]
    );
}

#[test]
fn plain_text_for_older_proxies_is_off_and_needs_a_port_of_its_own() {
    assert_eq!(read("").legacy_http, None);
    assert_eq!(read("legacy_http:\n").legacy_http, None);
    let of = |text: &str| read(text).legacy_http.map(|address| address.to_string());
    assert_eq!(of("legacy_http: 10.0.0.5:7656\n").as_deref(), Some("10.0.0.5:7656"));
    assert_eq!(of("legacy_http: ':7656'\n").as_deref(), Some("[::]:7656"));
    for text in ["legacy_http: 10.0.0.5\n", "legacy_http: '[::1]'\n", "legacy_http: lan:7656\n"] {
        assert_eq!(mistakes(text).len(), 1, "{text}");
    }
    let limits = read("limits: {pull_burst: 3, pull_interval: 1m}\n").limits;
    assert_eq!((limits.pulls.burst.get(), limits.pulls.interval.as_secs()), (3, 60));
    assert_eq!(limits.watches, read("").limits.pulls);
}

#[test]
fn certificate_and_key_go_together() {
    let files = TlsFiles { certificate_file: "/c".into(), key_file: "/k".into() };
    assert_eq!(read("tls: {certificate_file: /c, key_file: /k}\n").tls, Some(files.clone()));
    assert_eq!(
        mistakes("tls: {certificate_file: /c}\n"),
        [": tls.key_file: is missing: a certificate_file needs its key_file"]
    );
    assert_eq!(
        mistakes("tls: {key_file: /k}\n"),
        [": tls.certificate_file: is missing: a key_file needs its certificate_file"]
    );
    assert_eq!(mistakes("tls: {certificate_file: c, key_file: /k}\n").len(), 1);
    let variables = [("PULSE_TLS_CERTIFICATE_FILE", "/c"), ("PULSE_TLS_KEY_FILE", "/k")];
    assert_eq!(load("", &variables, |_| {}).unwrap().tls, Some(files));
}

#[test]
fn public_address_has_a_port() {
    let address = read("public_address: pulse.lan\n").public_address.unwrap();
    assert_eq!((address.host.as_str(), address.port), ("pulse.lan", 7655));
    let address = read("public_address: '[fd00::1]:443'\n").public_address.unwrap();
    assert_eq!((address.host.as_str(), address.port), ("fd00::1", 443));
    assert!(mistakes("public_address: https://pulse.lan\n")[0].contains("without https://"));
}

#[test]
fn all_mistakes_come_at_once() {
    let text = "port: 7655\nlisten_adress: x\nrefresh_interval: 1s\nreadings: {max_byte: 1, max_age: 90y}\nlimits: {max_nodes_per_list: 10001}\n";
    let found = mistakes(text);
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(found.iter().any(|line| line == ":4: readings.max_byte: unknown key; did you mean max_bytes?"));
    assert!(found.iter().any(|line| line.starts_with(":1: port: unknown key")));
}

#[test]
fn no_key_is_called_port() {
    assert!(Config::known_keys().iter().all(|key| key.rsplit('.').next() != Some("port")));
    assert!(
        load("", &[("PULSE_PORT", "tcp://10.0.0.1:80"), ("PULSE_SERVICE_HOST", "10.0.0.1")], |_| {}).is_ok()
    );
}

#[test]
fn file_that_is_named_must_be_there() {
    let missing = |sources: &mut ConfigSources| sources.path = Some("/nowhere/pulse.yaml".into());
    assert_eq!(load("", &[], missing), Err(ConfigError::Missing("/nowhere/pulse.yaml".into())));
    let by_variable = |sources: &mut ConfigSources| sources.path = None;
    let variables = [("PULSE_CONFIG", "/nowhere/else.yaml")];
    assert_eq!(load("", &variables, by_variable), Err(ConfigError::Missing("/nowhere/else.yaml".into())));
}

#[test]
fn a_database_url_is_read_without_a_password_and_with_tls_beyond_this_machine() {
    use tokio_postgres::config::{SslMode, TargetSessionAttrs};
    let url = DatabaseUrl::parse("postgres://pulse@db.lan:5433/fleet?sslmode=prefer").unwrap();
    assert_eq!(url.to_string(), "postgres://db.lan:5433/fleet");
    assert_eq!(url.config().get_ssl_mode(), SslMode::Require);
    let elsewhere = DatabaseUrl::parse("postgres://pulse@localhost/fleet?hostaddr=192.0.2.2").unwrap();
    assert_eq!(
        elsewhere.config().get_ssl_mode(),
        SslMode::Require,
        "the address counts, not the name beside it"
    );
    let several = DatabaseUrl::parse("postgres://pulse@a.lan,b.lan/fleet").unwrap();
    assert_eq!(several.config().get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    let here = DatabaseUrl::parse("postgres://pulse@127.0.0.1/fleet?sslmode=disable").unwrap();
    assert_eq!(here.config().get_ssl_mode(), SslMode::Disable);
    let two =
        DatabaseUrl::parse("postgres://pulse@a.lan,b.lan/fleet?target_session_attrs=read-write").unwrap();
    assert_eq!(two.to_string(), "postgres://a.lan:5432,b.lan:5432/fleet");
    for (text, rule) in [
        ("postgres://pulse:hunter2@db.lan/fleet", "no password"),
        ("postgres://pulse@db.lan/fleet?sslmode=disable", "TLS off"),
        ("postgres://db.lan/fleet", "a user"),
        ("postgres://pulse@db.lan", "a database"),
        ("mysql://pulse@db.lan/fleet", "must be a URL"),
        ("postgres://pulse@db.lan/fleet?nonsense=1", "no URL"),
    ] {
        let refused = DatabaseUrl::parse(text).unwrap_err();
        assert!(refused.contains(rule), "{text}: {refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
    let secret: Environment = [("PULSE_DATABASE_PASSWORD", "hunter2")].into_iter().collect();
    let password = Password::of(&secret).unwrap();
    assert_eq!((format!("{password:?}"), password.secret()), ("Password(..)".to_owned(), "hunter2"));
}
