use std::time::Duration;

use pulse_proto::Node;

use super::*;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(line.split_whitespace()).and_then(Args::checked)
}

fn admin(line: &str) -> Admin {
    match parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).command {
        Command::Admin(admin) => admin,
        Command::Serve(_) | Command::Files(_) => panic!("{line}: no question to a server"),
    }
}

#[test]
fn the_command_line_is_well_formed() {
    Args::command().debug_assert();
}

#[test]
fn every_documented_line_is_understood() {
    for line in [
        "pulse serve",
        "pulse serve --config pulse.yaml --data-dir /tmp/x --listen 127.0.0.1:0 --listen [::1]:7655",
        "pulse serve --plaintext --listen 127.0.0.1:7655",
        "pulse --data-dir /tmp/x serve",
        "pulse instance add home",
        "pulse instance add home --endpoint delly=192.168.0.5 --endpoint minipc",
        "pulse instance list --json",
        "pulse instance show home",
        "pulse instance set home --endpoint delly=2001:db8::5",
        "pulse instance add home --pve https://pve1.lan:8006 --pve https://[2001:db8::1]:8006 --token-id a@pve!b --token-secret-file f",
        "pulse instance add home --pve https://pve:8006 --token-id a@pve!b --token-secret-file - --poll-interval 30s --no-check",
        "pulse instance set home --endpoint delly --yes",
        "pulse instance set home --token-secret-file f",
        "pulse instance set home --no-pve",
        "pulse instance pause home",
        "pulse instance exclude home --yes",
        "pulse instance resume home",
        "pulse instance remove home --yes",
        "pulse import /etc/pulse-sensor-proxy/config.yaml allowed_nodes.yaml --instance home",
        "pulse import .pulse-control-token --host pve1 --dry-run",
        "pulse import --pulse-data /etc/pulse --yes --json",
        "pulse node list",
        "pulse node address home pve1 192.0.2.1",
        "pulse node address home pve1",
        "pulse node pause home pve1",
        "pulse node exclude home pve1 --yes",
        "pulse node resume home pve1",
        "pulse audit verify --expect 12:0000000000000000000000000000000000000000000000000000000000000000",
        "pulse audit verify audit.jsonl --json",
        "pulse audit export audit.jsonl --after 12 --force",
        "pulse audit export -",
        "pulse allowlist held",
        "pulse allowlist confirm home",
        "pulse allowlist discard home",
        "pulse join create",
        "pulse join create --instance home --scope all --uses 3 --ttl 90m",
        "pulse join list",
        "pulse join revoke 0a1b2c3d",
        "pulse join open",
        "pulse join open --ttl 1h --from 10.0.0.0/24 --from 2001:db8::7",
        "pulse join close",
        "pulse proxy approve 0192",
        "pulse proxy approve delly --instance home --scope all",
        "pulse proxy debug-token delly --ttl 10m",
        "pulse proxy list --data-dir /tmp/x --socket /tmp/x/admin.sock --config pulse.yaml --json",
        "pulse proxy show delly",
        "pulse proxy set 0192 --instance home",
        "pulse proxy set 0192 --scope all",
        "pulse proxy rotate 0192",
        "pulse proxy revoke 0192",
        "pulse proxy remove 0192",
        "pulse bench",
        "pulse bench --proxies 20000 --rounds 3 --nodes 50 --address [::1]:7655 --ca-file ca.pem --yes --json",
        "pulse allowlist show",
        "pulse allowlist show --instance home",
        "pulse allowlist show --all",
        "pulse allowlist show --all --revision 7",
        "pulse allowlist history",
        "pulse allowlist history --instance home --limit 500 --json",
        "pulse allowlist diff 3 7",
        "pulse allowlist diff 3 7 --all",
        "pulse backup /srv/pulse.tar --force",
        "pulse epoch new --yes",
        "pulse restore /srv/pulse.tar --data-dir /tmp/x --new-epoch",
        "pulse restore /srv/pulse.tar --keep-epoch --yes",
        "pulse check",
        "pulse check /srv/pulse.tar --json",
        "pulse temps",
        "pulse temps delly --json",
        "pulse status",
        "pulse audit --follow",
        "pulse --json audit",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_can_be_told_without_a_server_is_a_usage_error() {
    for (line, named) in [
        ("pulse instance set home", "--endpoint"),
        ("pulse instance add home --endpoint a=10.0.0.0/24", "it is a range"),
        ("pulse instance add home --endpoint =10.0.0.1", "needs a name"),
        ("pulse join create --ttl 5y", "must be a duration like"),
        ("pulse join create --ttl 10ms", "at least 1s"),
        ("pulse join create --uses 0", "0 is not in 1.."),
        ("pulse join open --from 10.0.0.0/40", "is no network"),
        ("pulse proxy approve", "<ID>"),
        ("pulse join create --scope everything", "possible values: instance, all"),
        ("pulse proxy set 0192", "--instance"),
        ("pulse allowlist show --all --instance home", "cannot be used with"),
        ("pulse allowlist history --limit 0", "0 is not in 1..=500"),
        ("pulse allowlist diff 3", "<REV>"),
        ("pulse restore", "<FILE>"),
        ("pulse restore x --new-epoch --keep-epoch", "cannot be used with"),
        ("pulse check --socket /tmp/x", "cannot be used with 'check'"),
        ("pulse serve --listen pulse.lan:7655", "must be an address with a port"),
        ("pulse serve --json", "cannot be used with 'serve'"),
        ("pulse serve --socket /tmp/x", "cannot be used with 'serve'"),
        ("pulse proxy", "Usage"),
        ("pulse", "Usage"),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(named), "{line}: {error}");
    }
}

#[test]
fn a_join_token_is_for_one_proxy_of_its_own_instance_and_a_day_unless_said_otherwise() {
    let (uses, ttl) = (1, Duration::from_secs(86_400));
    let default = Join::Create { instance: None, scope: Scope::Instance, uses, ttl };
    assert_eq!(admin("pulse join create"), Admin::Join(default));
}

#[test]
fn an_endpoint_without_an_address_is_a_node_known_by_name() {
    let only_name = Node::new("delly", "").unwrap();
    for line in ["pulse instance add home --endpoint delly", "pulse instance add home --endpoint delly="] {
        let endpoints = vec![only_name.clone()];
        assert_eq!(
            admin(line),
            Admin::Instance(Instance::Add { name: "home".into(), endpoints, pve: Pve::default() })
        );
    }
}

#[test]
fn plaintext_is_a_flag_above_the_environment() {
    let serve = |plaintext| Serve { plaintext, ..Serve::default() };
    let variables = || [("PULSE_PLAINTEXT".into(), "false".into())].into_iter();
    let value = |environment: Environment| environment.value("PULSE_PLAINTEXT").map(ToOwned::to_owned);
    assert_eq!(value(serve(true).over(variables())), Some("true".into()));
    assert_eq!(value(serve(false).over(variables())), Some("false".into()));
}

#[test]
fn plain_text_for_older_proxies_is_a_flag_above_the_environment() {
    let Command::Serve(serve) = parse("pulse serve --legacy-http 10.0.0.5:7656").expect("a command").command
    else {
        panic!("it is another command");
    };
    let variables = [("PULSE_LEGACY_HTTP".into(), "10.0.0.6:1".into())].into_iter();
    let value = serve.over(variables).value("PULSE_LEGACY_HTTP").map(ToOwned::to_owned);
    assert_eq!(value, Some("10.0.0.5:7656".into()));
    assert!(parse("pulse serve --legacy-http 10.0.0.5").is_err());
}

#[test]
fn help_names_the_environment_and_ends_well() {
    let help = parse("pulse serve --help").expect_err("help");
    assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    assert!(help.to_string().contains("PULSE_DATA_DIR") && help.to_string().contains("--listen"));
}
