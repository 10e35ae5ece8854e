//! A real HAProxy with the configuration that is shipped, in front of three servers on one database: as `deploy/compose.yaml`
//! has it, which is read here as well.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pulse::config::{Config, ConfigSources};
use pulse::sealing::SealingKey;
use pulse_config::Environment;
use pulse_test_support::postgres::Postgres;
use pulse_test_support::{PATIENCE, Port, Proxy, Server, deploy, eventually};
use serde_json::json;

const PROXIES: usize = 6;

/// A load balancer. Killed when dropped.
struct Balancer(Child);

impl Balancer {
    fn start(port: &Port, servers: &[Server]) -> Balancer {
        // Debian puts it where only root looks.
        let debian = PathBuf::from("/usr/sbin/haproxy");
        let mut command = Command::new(if debian.exists() { debian } else { "haproxy".into() });
        command.arg("-db").arg("-f").arg(deploy::path("haproxy.cfg"));
        command.env("PULSE_LISTEN", port.address().to_string());
        for (name, server) in ["PULSE_SERVER_1", "PULSE_SERVER_2", "PULSE_SERVER_3"].iter().zip(servers) {
            command.env(name, server.address().to_string());
        }
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Balancer(started.expect("haproxy can be started: scripts/tools.sh all installs it"))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until all proxies have the newest list in force by way of so many servers, and says how many streams each has.
fn all_in_sync(server: &Server, servers: usize) -> Vec<u64> {
    eventually(PATIENCE * 2, "every proxy is in sync by way of the load balancer", || {
        let status = server.json(&["status"]);
        let in_sync = &status["proxies_by_state"]["IN_SYNC"];
        let alive = status["replicas"].as_array().cloned().unwrap_or_default();
        let alive = alive.iter().filter(|replica| replica["is_alive"] == json!(true));
        let streams: Vec<u64> = alive.filter_map(|replica| replica["streams"].as_u64()).collect();
        let is_so = streams.len() == servers
            && *in_sync == json!(PROXIES)
            && streams.iter().sum::<u64>() == PROXIES as u64;
        if is_so { Ok(streams) } else { Err(status) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_are_spread_over_the_servers_and_find_another_when_theirs_is_killed() {
    let port = Port::take();
    let config = format!("public_address: {}\ntrusted_proxies: [127.0.0.1/32]\n", port.address());
    let postgres = Postgres::start();
    let url = postgres.database();
    let mut servers = vec![Server::builder().config(&config).config(&format!("database_url: {url}")).start()];
    for _ in 1..3 {
        let mut server = Server::builder().config(&config).beside(&servers[0], &url);
        server.start_again();
        servers.push(server);
    }
    let _balancer = Balancer::start(&port, &servers);
    servers[0].pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = servers[0].join_string(&["--instance", "home", "--uses", &PROXIES.to_string()]);
    assert!(join.contains(&port.address().to_string()), "{join}");
    eventually(PATIENCE, "the load balancer finds a server", || std::net::TcpStream::connect(port.address()));
    let mut proxies: Vec<Proxy> =
        (0..PROXIES).map(|at| Proxy::builder(&format!("host-{at}")).build()).collect();
    for proxy in &mut proxies {
        proxy.register_ok(&join);
        proxy.start();
    }
    let streams = all_in_sync(&servers[0], 3);
    assert_eq!(streams, [2, 2, 2], "each server has its share");
    servers[1].pulse_ok(&["instance", "set", "home", "--endpoint", "delly", "--endpoint", "attic"]);
    all_in_sync(&servers[1], 3);
    servers[2].kill();
    all_in_sync(&servers[0], 2);
    servers[0].pulse_ok(&["instance", "set", "home", "--endpoint", "delly"]);
    all_in_sync(&servers[1], 2);
}

/// The lines of compose.yaml between the one that begins so and the next that is indented less than those after it.
fn block<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with(begin)).skip(1).peekable();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = lines.peek().map_or(0, |line| indent(line));
    let block = lines.take_while(|line| indent(line) >= own);
    block.map(str::trim).filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn the_composition_gives_servers_settings_that_they_know_and_secrets_that_are_made() {
    let text = deploy::read("compose.yaml");
    let environment = block(&text, "environment: &environment");
    let values: BTreeMap<_, _> = environment.iter().filter_map(|line| line.split_once(": ")).collect();
    // The name that proxies dial is out of .env.
    let values = values.into_iter().map(|(name, value)| match name {
        "PULSE_PUBLIC_ADDRESS" => (name, "pulse.lan"),
        _ => (name, value),
    });
    let values: BTreeMap<_, _> = values.collect();
    let known: Vec<String> =
        Config::known_keys().iter().map(|key| format!("PULSE_{}", key.to_uppercase())).collect();
    let environment: Environment = values.clone().into_iter().collect();
    values.keys().for_each(|name| assert!(known.contains(&(*name).to_owned()), "{name}"));
    let sources = ConfigSources { environment, ..ConfigSources::default() };
    let (config, _) = Config::load(&sources).expect("it is a configuration");
    let database = config.database.expect("it names a database");
    assert_eq!(database.url.to_string(), "postgres://database:5432/pulse");
    // What servers and database read is mounted, and what is mounted is made.
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(deploy::path("compose-secrets.sh"), folder.path().join("compose-secrets.sh"))
        .expect("a copy");
    let make = || {
        let ran =
            Command::new("bash").arg("compose-secrets.sh").arg("pulse.lan").current_dir(&folder).output();
        let ran = ran.expect("bash can be started");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    make();
    let (_, listed) = text.rsplit_once("\nsecrets:\n").expect("they are listed at the end");
    let secrets: BTreeMap<String, PathBuf> = listed
        .lines()
        .filter_map(|line| line.trim().split_once(": {file: ./"))
        .map(|(name, file)| (name.to_owned(), folder.path().join(file.trim_end_matches('}'))))
        .collect();
    for path in [&database.password_file, &database.ca_file, &config.secret_key.named] {
        let path = path.as_ref().expect("it is named");
        let name = path.strip_prefix("/run/secrets").expect("it is a secret").display().to_string();
        assert!(secrets.contains_key(&name), "{name} is not among {secrets:?}");
    }
    let contents =
        || -> Vec<_> { secrets.values().map(|file| std::fs::read(file).expect("it was made")).collect() };
    let made = contents();
    SealingKey::open(&secrets["secret_key"]).expect("it is a key");
    for (name, file) in &secrets {
        let mode = std::fs::metadata(file).expect("it was made").permissions().mode() & 0o777;
        assert_eq!(mode, if name == "database_certificate" { 0o644 } else { 0o600 }, "{name}");
    }
    make();
    assert_eq!(contents(), made, "what is there stays");
    // The servers exempt the load balancer, at the address that it has.
    let address =
        text.lines().find_map(|line| line.trim().strip_prefix("ipv4_address: ")).expect("it has one");
    let address: std::net::IpAddr = address.parse().expect("it is an address");
    assert!(config.trusted_proxies.iter().any(|network| network.contains(address)));
    for server in ["pulse-1", "pulse-2", "pulse-3"] {
        assert!(text.contains(&format!("  {server}:\n    <<: *pulse\n")), "{server}");
        assert!(deploy::read("haproxy.cfg").contains(&format!("\"{server}:7655\"")), "{server}");
    }
}
