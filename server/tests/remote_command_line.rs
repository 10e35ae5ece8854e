//! The command line from afar: each command does over the network what it does over the socket, except what only the socket may.
//!
//! Each command stands in the table below; a new one that does not is noticed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use pulse::args::Args;
use pulse_test_support::{Client, Ran, Server};
use serde_json::{Value, json};

/// Where a command may be given.
#[derive(Clone, Copy, PartialEq, Debug)]
enum From {
    /// From afar as well.
    Afar,
    /// On the server's machine: what is asked for is refused from afar.
    SocketOnly,
    /// It asks no server, so it takes none.
    NoServer,
}

/// Every command with arguments, in an order in which most have something to do.
const COMMANDS: &[(From, &str, &[&str])] = &[
    (From::Afar, "instance add", &["lab", "--endpoint", "a", "--endpoint", "b"]),
    (From::Afar, "instance list", &[]),
    (From::Afar, "instance show", &["lab"]),
    (From::Afar, "instance set", &["lab", "--endpoint", "a", "--endpoint", "c", "--yes"]),
    (From::Afar, "instance pause", &["lab"]),
    (From::Afar, "instance exclude", &["lab", "--yes"]),
    (From::Afar, "instance resume", &["lab"]),
    (From::Afar, "node list", &[]),
    (From::Afar, "node address", &["lab", "a", "10.0.0.7"]),
    (From::Afar, "node pause", &["lab", "a"]),
    (From::Afar, "node exclude", &["lab", "a", "--yes"]),
    (From::Afar, "node resume", &["lab", "a"]),
    (From::Afar, "import", &["FOLDER/allowed_nodes.yaml", "--instance", "older", "--yes"]),
    (From::Afar, "join create", &["--instance", "lab"]),
    (From::Afar, "join list", &[]),
    (From::Afar, "join open", &[]),
    (From::Afar, "join close", &[]),
    (From::Afar, "join revoke", &["00000000"]),
    (From::Afar, "proxy list", &[]),
    (From::Afar, "proxy show", &["delly"]),
    (From::Afar, "proxy set", &["delly", "--scope", "all"]),
    (From::Afar, "proxy approve", &["delly"]),
    (From::Afar, "proxy debug-token", &["delly"]),
    (From::Afar, "proxy rotate", &["delly"]),
    (From::Afar, "allowlist show", &[]),
    (From::Afar, "allowlist held", &[]),
    (From::Afar, "allowlist confirm", &["lab"]),
    (From::Afar, "allowlist discard", &["lab"]),
    (From::Afar, "allowlist history", &["--instance", "lab"]),
    (From::Afar, "allowlist diff", &["1", "2", "--instance", "home"]),
    (From::Afar, "proxy revoke", &["delly"]),
    (From::Afar, "proxy remove", &["delly"]),
    (From::Afar, "instance remove", &["lab", "--yes"]),
    (From::Afar, "temps", &[]),
    (From::Afar, "status", &[]),
    (From::Afar, "audit", &[]),
    (From::Afar, "audit verify", &[]),
    (From::Afar, "audit export", &["FOLDER/audit.jsonl"]),
    (From::Afar, "admin list", &[]),
    (From::Afar, "token list", &[]),
    (From::Afar, "token create", &["other", "--scope", "monitoring:read"]),
    (From::Afar, "token revoke", &["00000000"]),
    (From::Afar, "epoch new", &["--yes"]),
    (From::SocketOnly, "admin add", &["somebody"]),
    (From::SocketOnly, "admin reset", &["somebody"]),
    (From::SocketOnly, "admin remove", &["somebody"]),
    (From::SocketOnly, "backup", &["FOLDER/backup.tar"]),
    (From::SocketOnly, "key rotate", &[]),
    (From::SocketOnly, "bench", &["--yes", "--proxies", "1"]),
    (From::NoServer, "serve", &[]),
    (From::NoServer, "restore", &["FOLDER/backup.tar"]),
    (From::NoServer, "check", &[]),
    (From::NoServer, "db copy", &["--from", "sqlite:/nowhere", "--to", "postgres://nobody@127.0.0.1/none"]),
    // The pin is another one afterwards.
    (From::Afar, "tls rotate", &[]),
    (From::Afar, "tls finish", &["--yes"]),
];

/// The commands that the command line has, as they are typed.
fn commands() -> BTreeSet<String> {
    fn below(command: &clap::Command, typed: &str, found: &mut BTreeSet<String>) {
        for command in command.get_subcommands() {
            below(command, format!("{typed} {}", command.get_name()).trim(), found);
        }
        if !command.is_subcommand_required_set() {
            found.insert(typed.to_owned());
        }
    }
    let mut found = BTreeSet::new();
    below(&Args::command(), "", &mut found);
    found
}

/// A server with an instance and a proxy, and a folder of the one who asks.
struct Scene {
    server: Server,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Scene {
        let server = Server::start();
        server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
        let join = server.join_string(&["--instance", "home"]);
        Client::register(&server, &join, "delly").await;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let nodes = "allowed_nodes:\n  - pve1\n";
        std::fs::write(folder.path().join("allowed_nodes.yaml"), nodes).expect("a file can be written");
        Scene { server, folder }
    }

    /// A file with an API token of these scopes.
    fn token(&self, scopes: &[&str]) -> PathBuf {
        let file = self.folder.path().join(scopes.join("-").replace(':', "-"));
        let path = file.to_str().expect("it is text");
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        let create: Vec<&str> =
            ["token", "create", "afar", "--file", path].into_iter().chain(scopes).collect();
        self.server.pulse_ok(&create);
        file
    }

    fn pin(&self) -> String {
        self.server.json(&["status"])["pin"].as_str().expect("it has a CA of its own").to_owned()
    }

    /// The words of a command, with what stands for the folder filled in.
    fn words(&self, command: &str, arguments: &[&str]) -> Vec<String> {
        let folder = self.folder.path().to_str().expect("it is text");
        let arguments = arguments.iter().map(|argument| argument.replace("FOLDER", folder));
        command.split(' ').map(str::to_owned).chain(arguments).collect()
    }

    fn afar(&self, words: &[impl AsRef<str>], pin: &str, token: &Path) -> Ran {
        let (url, token) = (self.server.url(), token.to_str().expect("it is text"));
        let mut all: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        all.extend(["--server", &url, "--pin", pin, "--token-file", token]);
        self.server.pulse_elsewhere(&all, "")
    }
}

/// What a command printed, without its values: those of two servers differ.
fn shape(ran: &Ran) -> Value {
    fn of(value: &Value) -> Value {
        match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), of(value))).collect(),
            Value::Array(list) => list.first().map_or(json!([]), |first| json!([of(first)])),
            _ => json!("value"),
        }
    }
    let lines = ran.stdout.lines().next().map(|line| serde_json::from_str(line).ok());
    let one = serde_json::from_str::<Value>(&ran.stdout).ok().or(lines.flatten());
    one.map_or(Value::Null, |one| of(&one))
}

fn reason(ran: &Ran) -> String {
    let said = ran.stderr.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    said.and_then(|said| said["reason"].as_str().map(str::to_owned)).unwrap_or_default()
}

#[test]
fn each_command_stands_in_the_table() {
    let named: BTreeSet<String> = COMMANDS.iter().map(|(_, command, _)| (*command).to_owned()).collect();
    assert_eq!(named, commands());
    assert_eq!(named.len(), COMMANDS.len(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_does_from_afar_what_it_does_over_the_socket_except_what_only_that_may() {
    let (near, far) = tokio::join!(Scene::new(), Scene::new());
    let pin = far.pin();
    let scopes = ["monitoring:read", "settings:read", "settings:write"];
    let (token, _) = (far.token(&scopes), near.token(&scopes));
    let mut done = 0;
    for (from, command, arguments) in COMMANDS {
        let mut words = far.words(command, arguments);
        if *command != "serve" {
            words.push("--json".to_owned());
        }
        let ran = far.afar(&words, &pin, &token);
        match from {
            From::Afar => {
                let mut words = near.words(command, arguments);
                words.push("--json".to_owned());
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let expected = near.server.pulse(&words);
                assert_eq!(
                    (ran.code, reason(&ran), shape(&ran)),
                    (expected.code, reason(&expected), shape(&expected)),
                    "{command}: {ran:?} and over the socket {expected:?}"
                );
                done += usize::from(ran.is_success());
            }
            From::SocketOnly => {
                assert!(!ran.is_success() && ran.stdout.is_empty(), "{command}: {ran:?}");
                assert_eq!(reason(&ran), "SOCKET_ONLY", "{command}: {ran:?}");
            }
            From::NoServer => {
                assert_eq!(ran.code, Some(2), "{command}: {ran:?}");
                assert!(ran.stderr.contains("'--server' asks a running server"), "{command}: {ran:?}");
            }
        }
    }
    assert!(!far.folder.path().join("backup.tar").exists(), "what was refused leaves nothing");
    let afar = COMMANDS.iter().filter(|(from, ..)| *from == From::Afar).count();
    assert!(done + 8 > afar, "most of them were done: {done} of {afar}");
    let actors = far.server.pulse_ok(&["audit"]);
    assert!(actors.contains("token:"), "who did it is noted: {actors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_key_is_not_sent_the_token() {
    let scene = Scene::new().await;
    let token = scene.token(&["monitoring:read"]);
    let secret = std::fs::read_to_string(&token).expect("it was written");
    let status = ["status", "--json"];
    let pin = scene.pin();
    assert!(scene.afar(&status, &pin, &token).is_success());

    let other = format!("sha256:{}", "ab".repeat(32));
    let ran = scene.afar(&status, &other, &token);
    assert_eq!((ran.code, &*reason(&ran)), (Some(1), "NOT_TRUSTED"), "{ran:?}");
    assert!(ran.stderr.contains("The token was not sent") && ran.stderr.contains(&other), "{ran:?}");
    let uses = scene.server.json(&["token", "list"])["api_tokens"].clone();
    assert!(!uses.to_string().contains(secret.trim()), "{uses}");

    // Without a pin the system is asked, which does not know Pulse's own CA; with its file the name counts.
    let (url, path) = (scene.server.url(), token.to_str().expect("it is text"));
    let afar = |more: &[&str], stdin: &str| {
        let words = [&["status", "--json", "--server", &url][..], more].concat();
        scene.server.pulse_elsewhere(&words, stdin)
    };
    let ran = afar(&["--token-file", path], "");
    assert!(["NOT_TRUSTED", "TRUST"].contains(&&*reason(&ran)) && ran.stderr.contains("--pin"), "{ran:?}");
    let ca = scene.server.ca_path();
    let ca = ca.to_str().expect("it is text");
    assert!(afar(&["--token-file", "-", "--ca-file", ca], &secret).is_success());

    // What is wrong with a token is said without it.
    let ran = afar(&["--token-file", "-", "--pin", &pin], &secret.replace("papi_", "papi_x"));
    assert_eq!((ran.code, &*reason(&ran)), (Some(2), "TOKEN_FILE"), "{ran:?}");
    let made_up = format!("papi_{}", "A".repeat(43));
    let ran = afar(&["--token-file", "-", "--pin", &pin], &made_up);
    assert_eq!((ran.code, &*reason(&ran)), (Some(1), "UNKNOWN_TOKEN"), "{ran:?}");
    assert!(!format!("{ran:?}").contains(&made_up), "{ran:?}");
    let ran = afar(&["--pin", &pin], "");
    assert_eq!((ran.code, &*reason(&ran)), (Some(2), "NO_TOKEN"), "{ran:?}");

    let missing = scene.afar(&["instance", "add", "lab", "--json"], &pin, &token);
    assert_eq!((missing.code, &*reason(&missing)), (Some(1), "MISSING_SCOPE"), "{missing:?}");
    assert!(missing.stderr.contains("settings:write"), "{missing:?}");

    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).expect("it is the test's own");
    let ran = scene.afar(&status, &pin, &token);
    assert!(ran.is_success() && ran.stderr.contains("can be read by others"), "{ran:?}");
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let mut server = Server::start();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let token = folder.path().join("token");
    let path = token.to_str().expect("it is text");
    server.pulse_ok(&["token", "create", "afar", "--scope", "monitoring:read", "--file", path]);
    server.terminate();
    assert_eq!(server.wait_exit(std::time::Duration::from_secs(10)), Some(0));
    let (url, address) = (server.url(), server.address().to_string());
    let pin = format!("sha256:{}", "ab".repeat(32));
    let asked = |url: &str| {
        server
            .pulse_elsewhere(&["status", "--json", "--server", url, "--pin", &pin, "--token-file", path], "")
    };
    let ran = asked(&url);
    assert_eq!((ran.code, &*reason(&ran)), (Some(1), "NOT_REACHED"), "{ran:?}");
    assert!(ran.stderr.contains(&address) && ran.stderr.contains("nothing listens there"), "{ran:?}");
    for (url, why) in
        [("ftp://pulse.lan", "https://"), ("https://a:b@pulse.lan", "password"), ("https://x/y", "path")]
    {
        let ran = asked(url);
        assert_eq!((ran.code, &*reason(&ran)), (Some(2), "SERVER"), "{ran:?}");
        assert!(ran.stderr.contains(why) && !ran.stderr.contains("a:b"), "{ran:?}");
    }
}

#[test]
fn a_server_in_plain_text_is_asked_on_its_own_machine_only() {
    let server = Server::builder().plaintext().start();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let token = folder.path().join("token");
    let path = token.to_str().expect("it is text");
    server.pulse_ok(&["token", "create", "afar", "--scope", "monitoring:read", "--file", path]);
    let asked =
        |url: &str| server.pulse_elsewhere(&["status", "--json", "--server", url, "--token-file", path], "");
    let ran = asked(&format!("http://{}", server.address()));
    assert!(ran.is_success(), "{ran:?}");
    let ran = asked("http://pulse.invalid");
    assert!(!ran.is_success() && ran.stderr.contains("taken as https://"), "{ran:?}");
}
