//! No secret is anywhere but in its own place: not in a log, an answer, a metric, an argument or a file beside it; and the
//! search that says so over all that the tests leave behind finds one where there is one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pulse_proto::{Token, TokenKind};
use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("a folder can be listed").path();
        let kind = fs::symlink_metadata(&path).expect("an entry is there").file_type();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.push(path);
        }
    }
    found
}

fn holds(path: &Path, secret: &[u8]) -> bool {
    let bytes = fs::read(path).expect("a file can be read");
    bytes.windows(secret.len()).any(|window| window == secret)
}

/// The files below `folder` that hold a secret, by their names.
fn places(folder: &Path, secret: &str) -> Vec<String> {
    let found = files(folder).into_iter().filter(|path| holds(path, secret.as_bytes()));
    let mut names: Vec<String> = found
        .map(|path| {
            let mode = fs::metadata(&path).expect("a file is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} holds a secret and others may read it", path.display());
            path.file_name().expect("a file has a name").to_string_lossy().into_owned()
        })
        .collect();
    names.sort();
    names
}

fn secret_of(join: &str) -> &str {
    join.split_once("join=").expect("a join string has a token").1
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[test]
fn each_secret_is_in_its_own_file_and_nowhere_else() {
    // Everything is logged that ever is.
    let mut server = Server::builder().config("log_level: trace").env("RUST_LOG", "trace").start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    let join = server.join_string(&["--instance", "home", "--uses", "3"]);
    let mut proxy = Proxy::builder("delly").config("log_level: trace").build();
    let said = proxy.register_with(&join, &["--hostname", "delly", "--json"]);
    assert!(said.is_success(), "{said:?}");
    let token_file = proxy.config_path().with_file_name(".pulse-control-token");
    let first = read(&token_file);
    proxy.start();
    let id = proxy.id();
    server.wait_for_state(&id, "IN_SYNC");
    server.pulse_ok(&["proxy", "rotate", &id]);
    let in_use = proxy.control_dir().join("token");
    let second = eventually(PATIENCE, "the token is renewed", || match read(&in_use) {
        token if token != first => Ok(token),
        token => Err(token.len()),
    });
    eventually(PATIENCE, "the new token is used", || {
        let shown = server.json(&["proxy", "show", &id]);
        if shown["is_rotation_requested"] == false { Ok(()) } else { Err(shown) }
    });
    // A token that is refused is not repeated either.
    let unknown = Token::generate(TokenKind::Ctrl).expect("there are random bytes");
    let stranger = Proxy::builder("stranger").build();
    let used_up = server.join_string(&["--instance", "home", "--uses", "1"]);
    stranger.register_ok(&used_up);
    let refused = Proxy::builder("late").build().register(&used_up);
    assert_ne!(refused.code, Some(0));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let client = Client::register(&server, &join, "minipc").await;
        let client = Client { token: unknown.reveal().to_owned(), ..client };
        let status = client.try_watch(Default::default()).await.expect_err("the token is unknown");
        assert!(!format!("{status:?}").contains(unknown.reveal()), "{status:?}");
    });

    let secrets = [first.as_str(), &second, secret_of(&join), secret_of(&used_up), unknown.reveal()];
    // What runs: arguments and environment.
    for pid in [server.process().pid(), proxy.process().pid()] {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{pid}/{file}");
            assert!(secrets.iter().all(|secret| !holds(Path::new(&path), secret.as_bytes())), "{path}");
        }
    }
    // What is said.
    let metrics = server.get("/metrics").expect("it answers").body;
    let audit = server.pulse_ok(&["audit", "--json"]);
    let shown = server.pulse_ok(&["proxy", "show", &id, "--json"]);
    let tokens = server.pulse_ok(&["join", "list", "--json"]);
    let status = proxy.proxy("status", &["--json"]).stdout;
    let logs = [server.process().log().join("\n"), proxy.process().log().join("\n")];
    assert!(logs[0].contains("TRACE"), "the server says all that it can say");
    let all = [metrics, audit, shown, tokens, status, refused.stderr, said.stdout, said.stderr];
    for (at, text) in all.iter().chain(&logs).enumerate() {
        for secret in secrets {
            // Half of it would be too much as well.
            assert!(!text.contains(&secret[..secret.len() / 2]), "text {at} shows a secret");
        }
    }
    // What lies on the disk, while it runs and after.
    for is_over in [false, true] {
        if is_over {
            proxy.terminate();
            proxy.wait_exit(PATIENCE);
            server.terminate();
            server.wait_exit(PATIENCE);
        }
        for secret in secrets {
            assert_eq!(places(&server.data_dir(), secret), [""; 0], "the server keeps digests only");
            // The same secret in another spelling.
            let bits = &secret[secret.find('_').expect("a token has a prefix") + 1..];
            assert_eq!(places(&server.data_dir(), bits), [""; 0], "the server keeps digests only");
        }
        assert_eq!(
            places(&proxy.state_dir(), secret_of(&join)),
            [""; 0],
            "a join token is forgotten once it is used"
        );
        assert_eq!(places(&proxy.state_dir(), &second), ["token"]);
        let folder = proxy.config_path().parent().expect("it lies in a folder").to_owned();
        assert!(
            places(&folder, &second).iter().all(|name| name == "token" || name == ".pulse-control-token")
        );
    }
    for key in ["ca.key", "server.key", "secret.key", "pulse.db"] {
        let mode = fs::metadata(server.data_dir().join(key)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    for path in files(&server.data_dir()) {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let is_key = holds(&path, b"PRIVATE KEY");
        assert!(!is_key || name.ends_with(".key"), "{name} holds a private key");
    }
}

#[test]
fn a_registration_that_waits_keeps_its_join_token_to_itself() {
    let mut server = Server::start();
    let join = server.join_string(&[]);
    server.kill();
    let proxy = Proxy::builder("delly").build();
    let ran = proxy.register(&join);
    assert!(
        !format!("{ran:?}").contains(&secret_of(&join)[..30]),
        "a registration that cannot be made shows no secret"
    );
    assert_eq!(places(&proxy.state_dir(), secret_of(&join)), ["pending-registration.json"]);
    let status = proxy.proxy("status", &["--json"]);
    assert!(!format!("{status:?}").contains(&secret_of(&join)[..30]), "nor does the status");
}

/// Runs the search over a folder with one file.
fn search(content: &str, keys: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (output, secrets) = (folder.path().join("output"), folder.path().join("keys"));
    fs::create_dir_all(&output).and_then(|()| fs::create_dir_all(&secrets)).expect("folders can be made");
    fs::write(output.join("said.txt"), content).expect("a file can be written");
    fs::write(secrets.join("test.txt"), keys).expect("a file can be written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/secrets.sh");
    let ran = Command::new(script).arg(&output).arg(&secrets).output().expect("the script can be run");
    let text = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (ran.status.success(), text)
}

#[test]
fn the_search_finds_each_kind_of_secret_names_its_line_and_does_not_show_it() {
    let clean = "nothing here: pctl_… and pjoin_ and sha256:e3b0c442\n";
    let (is_clean, text) = search(clean, "a key that nobody ever said\n");
    assert!(is_clean && text.contains("none in 1 files"), "{text}");
    let (is_clean, text) = search("", "a key that nobody ever said\n");
    assert!(!is_clean && text.contains("nothing in"), "what searched nothing has found nothing: {text}");
    let (is_clean, text) = search(clean, "");
    assert!(!is_clean && text.contains("no key"), "what looked for nothing has found nothing: {text}");
    let token = |kind| Token::generate(kind).expect("there are random bytes").reveal().to_owned();
    let pem = "-----BEGIN PRIVATE KEY-----";
    let key = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA";
    for secret in [
        token(TokenKind::Ctrl),
        token(TokenKind::Join),
        token(TokenKind::Listener),
        token(TokenKind::Ctrl)[..25].to_owned(),
        pem.to_owned(),
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIB".to_owned(),
        "302e020100300506032b657004220420".to_owned(),
        key.to_owned(),
    ] {
        let (is_clean, text) =
            search(&format!("one\ntwo \0\u{ff} a{secret}b\nthree\n"), &format!("{key}\n\n"));
        assert!(!is_clean, "it is not found: {secret:.6}");
        assert!(text.contains("said.txt, line 2"), "{text}");
        assert!(
            !text.contains(&secret) && !text.contains(&secret[..secret.len() / 2]),
            "the search itself shows it"
        );
    }
}

#[test]
fn the_keys_of_a_server_that_ran_are_what_the_search_looks_for() {
    let server = Server::start();
    let pem = read(&server.data_dir().join("server.key"));
    let line = pem.lines().nth(1).expect("a key has a second line").to_owned();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let spellings = pulse_test_support::capture::spellings_of_keys(&server.data_dir());
    assert!(spellings.lines().count() >= 10, "{}", spellings.lines().count());
    drop((server, folder));
    for told in [&line, spellings.lines().last().expect("there are some")] {
        assert!(!search(&format!("told {told}\n"), &spellings).0);
    }
}

#[test]
fn a_join_string_in_the_arguments_is_warned_of_and_not_repeated() {
    let server = Server::start();
    let join = server.join_string(&[]);
    let given = Proxy::builder("delly").build().proxy("register", &["--join", &join, "--hostname", "delly"]);
    assert!(given.is_success() && given.stderr.contains("process list"), "{given:?}");
    assert!(!format!("{given:?}").contains(secret_of(&join)));
    let typed = Proxy::builder("minipc").build().register(&server.join_string(&[]));
    assert!(typed.is_success() && !typed.stderr.contains("process list"), "{typed:?}");
}

#[tokio::test]
async fn what_the_server_holds_in_memory_does_not_show_a_secret_either() {
    use pulse::store::{Retention, Store};
    use pulse_proto::clock::Clock;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let store = Store::open(
        folder.path(),
        Retention { max_bytes: 1 << 30, max_age: std::time::Duration::from_secs(3_600) },
        Clock::system(),
    )
    .await;
    let store = store.expect("the store opens");
    let loaded = store.load().await.expect("the store can be read");
    let shown = format!("{store:?} {loaded:?} {loaded:#?}");
    let spellings = pulse_test_support::capture::spellings_of_keys(folder.path());
    assert!(spellings.lines().count() > 0, "there is the key that opens its signing key");
    assert!(spellings.lines().all(|spelling| !shown.contains(spelling)), "a key is shown");
    let numbers: Vec<String> = loaded.signing_key[16..28].iter().map(ToString::to_string).collect();
    for spelling in [pulse_proto::hex::encode(&loaded.signing_key[16..28]), numbers.join(", ")] {
        assert!(!shown.contains(&spelling), "the signing key is shown");
    }

    let secret = Token::generate(TokenKind::Join).expect("there are random bytes");
    let view = serde_json::json!({"join": secret.reveal(), "token": {
        "id": "0a1b2c3d", "state": "open", "instance": null, "scope": "instance", "uses": 1, "used": 0,
        "created_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-02T03:04:05Z", "revoked_at": null}});
    let new: pulse::api::NewJoin = serde_json::from_value(view).expect("it is an answer");
    assert!(!format!("{new:?} {new:#?}").contains(&secret.reveal()[8..24]));
}
