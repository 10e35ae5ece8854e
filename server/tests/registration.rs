//! Registration cannot dead-lock: who a host is, what a host gets that nobody knows yet, how each bad join token is told,
//! and what `register` leaves on the disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pulse_test_support::{PATIENCE, Proxy, Ran, Server, eventually, let_pass};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Machine ids as they stand in `/etc/machine-id`, so that no test depends on the machine that it runs on.
struct Machines(TempDir);

impl Machines {
    fn new() -> Machines {
        Machines(TempDir::new().expect("a temporary folder can be made"))
    }

    /// The path of a machine's id.
    fn id(&self, machine: u8) -> String {
        let path = self.0.path().join(format!("machine-id-{machine}"));
        fs::write(&path, format!("{machine:032x}\n")).expect("a file can be written");
        path.to_str().expect("temporary folders have plain names").to_owned()
    }

    /// A proxy with folders of its own, registered as a host of this machine.
    fn host(&self, server: &Server, join: &[&str], machine: u8, hostname: &str) -> Proxy {
        let proxy = Proxy::builder(hostname).build();
        self.register_again(&proxy, &server.join_string(join), machine, hostname);
        proxy
    }

    fn register_again(&self, proxy: &Proxy, join: &str, machine: u8, hostname: &str) {
        let id = self.id(machine);
        let ran = proxy.register_with(join, &["--hostname", hostname, "--machine-id-file", &id]);
        assert!(ran.is_success(), "{ran:?}");
    }
}

/// A server with the instance home: the nodes delly and minipc, known by name alone.
fn home() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    server
}

fn is_connected(server: &Server, id: &str) -> bool {
    server.json(&["proxy", "show", id])["is_connected"] == true
}

/// The secret in a join string.
fn secret(join: &str) -> &str {
    join.split_once("join=").expect("a join string has a token").1
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.as_ref().display()))
}

fn mode(path: &Path) -> u32 {
    let about = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    about.permissions().mode() & 0o7777
}

/// The ctrl token, where the configuration says that it stands.
fn token_path(proxy: &Proxy) -> PathBuf {
    proxy.config_path().with_file_name(".pulse-control-token")
}

/// A proxy that was configured by hand for the server of `registered`, with a token that was there once.
fn with_token_of(registered: &Proxy, token: &str) -> Proxy {
    let status = registered.status();
    let text = |key: &str| status[key].as_str().expect("a registered proxy knows its server").to_owned();
    let block = format!("pulse_control_plane:\n  url: {}\n  pin: {}\n", text("server"), text("pinned"));
    let proxy = Proxy::builder("delly").config(&block).build();
    fs::write(token_path(&proxy), token).expect("a file can be written");
    proxy
}

fn pending_path(proxy: &Proxy) -> PathBuf {
    proxy.state_dir().join("control/pending-registration.json")
}

/// Asserts how a command failed: its exit code, and the reason in its JSON. Returns the text for people.
fn failed(ran: &Ran, code: i32, reason: &str) -> String {
    let said = ran.json();
    assert_eq!((ran.code, said["reason"].as_str()), (Some(code), Some(reason)), "{ran:?}");
    said["error"].as_str().expect("an error has a text").to_owned()
}

#[test]
fn a_host_that_registers_again_is_the_same_proxy_and_nobody_else_notices() {
    let (server, machines) = (home(), Machines::new());
    let mut other = machines.host(&server, &["--instance", "home"], 1, "minipc");
    other.start();
    server.wait_for_state(&other.id(), "IN_SYNC");
    let others_token = read(token_path(&other));
    let quiet = other.process().log().len();

    let mut delly = machines.host(&server, &["--instance", "home"], 2, "delly");
    let (id, first_token) = (delly.id(), read(token_path(&delly)));
    delly.start();
    let created = server.wait_for_state(&id, "IN_SYNC")["created_at"].clone();

    // With its state folder: its token proves who it is, and stays; its stream too.
    machines.register_again(&delly, &server.join_string(&["--instance", "home"]), 2, "delly");
    assert_eq!((delly.id(), read(token_path(&delly))), (id.clone(), first_token.clone()));
    assert!(is_connected(&server, &id));
    // Renamed, with its state folder: the id is not the name.
    machines.register_again(&delly, &server.join_string(&["--instance", "home"]), 2, "renamed");
    assert_eq!(delly.id(), id);
    machines.register_again(&delly, &server.join_string(&["--instance", "home"]), 2, "delly");
    delly.terminate();
    assert_eq!(delly.wait_exit(PATIENCE), Some(0));

    // Installed anew in the same place: machine, folder and name say that it is the same one. Case does not count in names.
    fs::remove_dir_all(delly.state_dir()).expect("a folder can be removed");
    fs::remove_file(token_path(&delly)).expect("a file can be removed");
    machines.register_again(&delly, &server.join_string(&["--instance", "home"]), 2, "Delly");
    assert_eq!(delly.id(), id);
    assert_ne!(read(token_path(&delly)), first_token);
    delly.start();
    let shown = server.wait_for_state(&id, "IN_SYNC");
    assert_eq!(shown["created_at"], created);
    // The token that it had is good for nothing now, and the proxy is not thought to be revoked.
    let stale = with_token_of(&delly, &first_token);
    let said = failed(&stale.proxy("sync", &["--json"]), 1, "unknown_token");
    assert!(said.contains("register the host again"), "{said}");

    // The name on another machine, the machine under another name, and both in another state folder, are others.
    let ids = [
        id,
        other.id(),
        machines.host(&server, &["--instance", "home"], 3, "delly").id(),
        machines.host(&server, &["--instance", "home"], 2, "attic").id(),
        machines.host(&server, &["--instance", "home"], 2, "delly").id(),
    ];
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[..at].contains(id), "{ids:?}");
    }
    assert_eq!(server.proxies().len(), ids.len());

    // The other one: its stream never ended, its token opens the next one too.
    assert!(is_connected(&server, &other.id()));
    let heard: Vec<String> = other.process().log().split_off(quiet);
    assert!(!heard.iter().any(|line| line.contains("WARN") || line.contains("ERROR")), "{heard:#?}");
    assert_eq!(read(token_path(&other)), others_token);
    other.terminate();
    assert_eq!(other.wait_exit(PATIENCE), Some(0));
    other.start();
    server.pulse_ok(&[
        "instance",
        "set",
        "home",
        "--endpoint",
        "delly",
        "--endpoint",
        "minipc",
        "--endpoint",
        "nas",
    ]);
    let list = server.allowlist("home");
    server.wait_for_applied(&other.id(), list["hash"].as_str().expect("a list has a hash"));
}

#[test]
fn a_machine_id_proves_nothing_beyond_the_instance_of_the_join_token() {
    let (server, machines) = (home(), Machines::new());
    server.pulse_ok(&["instance", "add", "lab", "--endpoint", "delly"]);
    let host = machines.host(&server, &["--instance", "home"], 1, "delly");
    let (id, token) = (host.id(), read(token_path(&host)));
    let nodes = |proxy: &Proxy| proxy.proxy("sync", &["--json"]).json()["nodes"].as_array().map(Vec::len);
    assert_eq!(nodes(&host), Some(2));
    // Its folder is wiped, so that nothing but machine and name speak for it.
    fs::remove_dir_all(host.state_dir()).expect("a folder can be removed");
    machines.register_again(&host, &server.join_string(&["--instance", "lab"]), 1, "delly");
    assert_ne!(host.id(), id);
    assert_eq!(nodes(&host), Some(1));
    // The one at home keeps its token.
    assert_eq!(nodes(&with_token_of(&host, &token)), Some(2));
}

#[test]
fn two_proxies_on_one_machine_are_two() {
    let (server, machines) = (home(), Machines::new());
    let join = server.join_string(&["--instance", "home", "--uses", "2"]);
    let proxies = ["delly", "minipc"].map(|hostname| {
        let mut proxy = Proxy::builder(hostname).build();
        machines.register_again(&proxy, &join, 1, hostname);
        proxy.start();
        proxy
    });
    assert_ne!(proxies[0].id(), proxies[1].id());
    assert_ne!(read(token_path(&proxies[0])), read(token_path(&proxies[1])));
    for proxy in &proxies {
        server.wait_for_state(&proxy.id(), "IN_SYNC");
    }
    for proxy in &proxies {
        assert!(is_connected(&server, &proxy.id()), "both at once");
    }
    // Each reads the node of its own name.
    for (proxy, node) in proxies.iter().zip(["delly", "minipc"]) {
        eventually(PATIENCE, &format!("a temperature of {node}"), || {
            let ran = server.pulse(&["temps", node, "--json"]);
            let shown = if ran.is_success() { ran.json()["nodes"][0].clone() } else { json!(ran.stdout) };
            let is_read =
                shown["proxy_id"] == proxy.id() && shown["readings"][0]["temperature_celsius"] == 40.0;
            if is_read { Ok(()) } else { Err(shown) }
        });
    }
}

#[test]
fn a_host_that_no_instance_matches_waits_and_gets_its_list_when_the_instance_is_added() {
    let server = Server::start();
    let mut proxy = Proxy::builder("delly").config("allowed_nodes: [minipc]").build();
    let ran = proxy.register_with(&server.join_string(&[]), &["--hostname", "delly", "--json"]);
    assert!(ran.is_success(), "that nobody knows the host yet is no failure: {ran:?}");
    let said = ran.json();
    assert_eq!((&said["instance"], &said["nodes"]), (&Value::Null, &Value::Null));
    let reason = said["waiting"].as_str().expect("it says why there is no list").to_owned();
    assert!(reason.contains("delly") && reason.contains("instance"), "{reason}");
    let id = proxy.id();
    // `sync`, with which an installer primes the cache, tells waiting from a failure.
    assert_eq!(failed(&proxy.proxy("sync", &["--json"]), 1, "waiting"), {
        format!("the server has no list for this proxy yet: {reason}")
    });

    proxy.start();
    eventually(PATIENCE, "its stream", || {
        if is_connected(&server, &id) { Ok(()) } else { Err("not connected") }
    });
    eventually(PATIENCE, "its log says why", || {
        let log = proxy.process().log();
        let is_said =
            |line: &String| line.contains("no list for this proxy yet") && line.contains(r#"host \"delly\""#);
        if log.iter().any(is_said) { Ok(()) } else { Err(log) }
    });
    let listed = server.proxies();
    assert_eq!(
        (&listed[0]["waiting"], &listed[0]["state"]),
        (&json!(reason), &json!("NEVER")),
        "{listed:#?}"
    );
    assert!(server.pulse_ok(&["proxy", "list"]).contains("waiting"));
    assert!(server.pulse_ok(&["proxy", "show", "delly"]).contains(&reason));
    assert_eq!(proxy.status()["list"]["source"], "static", "until then the static list counts");

    // One that has other nodes leaves it waiting.
    server.pulse_ok(&["instance", "add", "other", "--endpoint", "minipc"]);
    assert_eq!(server.proxies()[0]["waiting"], json!(reason));
    // The match is exact, but for case.
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "DELLY", "--endpoint", "minipc"]);

    let shown = server.wait_for_state(&id, "IN_SYNC");
    assert_eq!((&shown["instance"], &shown["waiting"]), (&json!("home"), &Value::Null));
    let list = server.allowlist("home");
    assert_eq!(shown["applied"]["hash"], list["hash"]);
    let kept = proxy.status();
    assert_eq!((&kept["running"], &kept["list"]["hash"]), (&json!(true), &list["hash"]));
    assert!(proxy.process().has_said("a new list is in force"), "{:#?}", proxy.process().log());
    assert!(!proxy.process().has_said("not reachable"), "on the same stream");

    // It stays where it is when its name goes to another instance.
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "minipc"]);
    server.pulse_ok(&["instance", "set", "--yes", "other", "--endpoint", "delly"]);
    let list = server.allowlist("home");
    server.wait_for_applied(&id, list["hash"].as_str().expect("a list has a hash"));
}

#[test]
fn an_admin_ends_the_wait_too() {
    let server = home();
    let mut proxy = Proxy::builder("attic").build();
    proxy.register_ok(&server.join_string(&[]));
    proxy.start();
    let id = proxy.id();
    eventually(PATIENCE, "its stream", || {
        if is_connected(&server, &id) { Ok(()) } else { Err("not connected") }
    });
    server.pulse_ok(&["proxy", "set", "attic", "--instance", "home"]);
    let shown = server.wait_for_state(&id, "IN_SYNC");
    assert_eq!(
        (&shown["instance"], &shown["applied"]["hash"]),
        (&json!("home"), &server.allowlist("home")["hash"])
    );
}

#[test]
fn a_host_without_an_instance_of_its_own_is_matched_by_name_or_address_of_one_alone() {
    let server = home();
    let instance_of = |hostname: &str, join: &[&str]| {
        let proxy = Proxy::builder(hostname).build();
        let ran = proxy.register_with(&server.join_string(join), &["--hostname", hostname, "--json"]);
        ran.json()["instance"].clone()
    };
    assert_eq!(instance_of("MiniPC", &[]), json!("home"));
    // Two instances have this name: which one is meant is an admin's to say.
    server.pulse_ok(&["instance", "add", "lab", "--endpoint", "delly"]);
    assert_eq!(instance_of("delly", &[]), Value::Null);
    assert_eq!(instance_of("delly", &["--instance", "lab"]), json!("lab"), "the join token says it");
    assert_eq!(instance_of("unheard-of", &[]), Value::Null);
    // The tests' proxies call from here.
    server.pulse_ok(&["instance", "add", "here", "--endpoint", "pve1=127.0.0.1"]);
    assert_eq!(instance_of("unheard-of-too", &[]), json!("here"));
}

#[test]
fn each_bad_join_token_has_its_own_message_and_leaves_nothing_behind() {
    let server = home();
    let options = ["--instance", "home"];
    let used = server.join_string(&options);
    Proxy::builder("delly").build().register_ok(&used);
    let revoked = server.json(&[&["join", "create"][..], &options].concat());
    server.pulse_ok(&["join", "revoke", revoked["token"]["id"].as_str().expect("a join token has an id")]);
    let revoked = revoked["join"].as_str().expect("there is a join string").to_owned();
    let expired = server.join_string(&["--instance", "home", "--ttl", "1s"]);
    let_pass(Duration::from_secs(1));
    let other_server = Server::start();
    let unknown = other_server.join_string(&[]);
    let unknown =
        format!("{}join={}", used.split("join=").next().expect("it has a beginning"), secret(&unknown));

    let config = "# mine\n";
    for (join, reason, text) in [
        (&used, "join_token_used", "no uses left"),
        (&revoked, "join_token_revoked", "was revoked"),
        (&expired, "join_token_expired", "past its time"),
        (&unknown, "unknown_token", "not known to this server"),
    ] {
        let proxy = Proxy::builder("minipc").config(config).build();
        let before = read(proxy.config_path());
        let said = failed(&proxy.register_with(join, &["--json"]), 1, reason);
        assert!(said.contains(text) && said.contains("pulse join create"), "{reason}: {said}");
        // For people: the same text, and nothing on standard output.
        let ran = proxy.register(join);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (Some(1), "", format!("error: {said}\n")));
        // A token in a message is a token in a log.
        assert!(!said.contains(secret(join)), "{said}");
        assert!(!server.process().has_said(secret(join)));
        assert_eq!(read(proxy.config_path()), before);
        assert!(!proxy.state_dir().exists() && !token_path(&proxy).exists(), "{reason}");
    }
    let states = server.json(&["join", "list"]);
    let states = states["join_tokens"].as_array().expect("a list").iter().map(|token| &token["state"]);
    assert_eq!(states.collect::<Vec<_>>(), ["used", "revoked", "expired"]);
    assert_eq!(server.proxies().len(), 1);
}

#[test]
fn a_damaged_join_string_is_a_persons_to_mend() {
    let server = home();
    let good = server.join_string(&["--instance", "home"]);
    let (begin, token) = good.split_once("join=").expect("a join string has a token");
    let ctrl = token.replace("pjoin_", "pctl_");
    let proxy = Proxy::builder("delly").build();
    for (damaged, says) in [
        ("", "begins with pulse://"),
        (&good.replace("pulse://", "https://"), "begins with pulse://"),
        (&good[..good.len() - 1], "damaged"),
        (&format!("{begin}join={ctrl}"), "pjoin_"),
        (&good.replace("sha256:", "sha256:0"), "64"),
        (&format!("{good}&join={token}"), "twice"),
        (&good.replace("127.0.0.1", "127.0.0.1/elsewhere"), "HOST:PORT"),
    ] {
        let said = failed(&proxy.register_with(damaged, &["--json"]), 2, "bad_join_string");
        assert!(said.contains(says), "{damaged}: {said}");
        assert!(!said.contains(&token[6..]), "{said}");
    }
    assert!(!proxy.state_dir().exists());
    // White space around it is no damage, nor is a key of a later version.
    proxy.register_ok(&format!("  {good}&later=1\r\n"));
}

#[test]
fn a_registration_without_a_server_is_kept_and_made_when_the_server_is_there() {
    let mut server = home();
    let join = server.join_string(&["--instance", "home"]);
    server.kill();
    let mut proxy = Proxy::builder("delly").build();
    let said = failed(&proxy.register_with(&join, &["--hostname", "delly", "--json"]), 1, "unreachable");
    assert!(said.contains(&server.address().to_string()) && said.contains("run"), "{said}");
    assert!(!said.contains(secret(&join)), "{said}");
    let kept = pending_path(&proxy);
    assert_eq!((mode(&kept), mode(kept.parent().expect("it is in a folder"))), (0o600, 0o700));
    assert_eq!(proxy.status()["registration_pending"], true);

    proxy.start();
    eventually(PATIENCE, "its log says so", || {
        if proxy.process().has_said("not reachable") { Ok(()) } else { Err(proxy.process().log()) }
    });
    assert!(kept.exists());
    server.start_again();
    proxy.wait_for_status("registered", |status| {
        status["registered"] == true && status["registration_pending"] == false
    });
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    assert!(proxy.process().has_said("the registration that waited is done"));
    assert!(!kept.exists(), "the join token is not kept longer than it is needed");
    // As after a `register` that reached its server.
    assert_eq!(mode(&token_path(&proxy)), 0o600);
    assert_eq!(read(token_path(&proxy)), read(proxy.control_dir().join("token")));
    assert!(!proxy.process().has_said(secret(&join)));
    assert_eq!(server.json(&["join", "list"])["join_tokens"][0]["used"], 1);
    assert_eq!(server.proxies()[0]["hostname"], "delly");
}

#[test]
fn a_kept_registration_that_is_refused_is_given_up_and_says_so() {
    let mut server = home();
    let join = server.json(&["join", "create", "--instance", "home"]);
    let (join, id) =
        (join["join"].as_str().expect("a join string"), join["token"]["id"].as_str().expect("an id"));
    server.pulse_ok(&["join", "revoke", id]);
    server.kill();
    let mut proxy = Proxy::builder("delly").build();
    failed(&proxy.register_with(join, &["--hostname", "delly", "--json"]), 1, "unreachable");
    server.start_again();
    proxy.start();
    eventually(PATIENCE, "its log says so", || {
        let log = proxy.process().log();
        let is_said = |line: &String| line.contains("given up") && line.contains("revoked");
        if log.iter().any(is_said) { Ok(()) } else { Err(log) }
    });
    let status = proxy.wait_for_status("nothing waits", |status| status["registration_pending"] == false);
    assert_eq!((&status["registered"], &status["running"]), (&json!(false), &json!(true)));

    // And it is taken up while it runs, when a person does as the log says.
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    server.wait_for_state(&proxy.id(), "IN_SYNC");
}

#[test]
fn register_never_rewrites_what_a_person_wrote() {
    let server = home();
    let written =
        "# Mine.\nreport_interval:   7s # not 10\n\nallowed_nodes: [ delly ,  10.0.0.0/24 ]\n# no line end";
    let proxy = Proxy::builder("delly").config(written).build();
    // Reached over a link, as where the configuration is kept elsewhere; and closed to others.
    let (config, real) = (proxy.config_path(), proxy.config_path().with_file_name("kept-elsewhere.yaml"));
    let before = read(&config).trim_end().to_owned();
    fs::write(&real, &before).expect("a file can be written");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("a mode can be set");
    fs::remove_file(&config).expect("a file can be removed");
    symlink(&real, &config).expect("a link can be made");

    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    let after = read(&real);
    let block = after.strip_prefix(&before).unwrap_or_else(|| panic!("it was rewritten:\n{after}"));
    assert!(block.contains("pulse_control_plane:") && block.contains(&server.url()), "{block}");
    assert!(!after.contains("pctl_") && !after.contains("pjoin_"), "{after}");
    assert!(fs::symlink_metadata(&config).expect("it is there").is_symlink());
    assert_eq!(mode(&real), 0o640);
    let check = proxy.proxy("config check", &["--json"]).json();
    assert_eq!((&check["ok"], &check["server"]), (&json!(true), &json!(server.url())));
    assert_eq!(check["warnings"], json!([]));

    // Again, and with a block that a person has changed since: not a byte.
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    assert_eq!(read(&real), after);
    let changed = after.replace("pulse_control_plane:", "pulse_control_plane: # ours");
    fs::write(&real, &changed).expect("a file can be written");
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    assert_eq!(read(&real), changed);

    // A file that is not there is made, and every other command wants one.
    let bare = Proxy::builder("minipc").build();
    fs::remove_file(bare.config_path()).expect("a file can be removed");
    let said = failed(&bare.proxy("sync", &["--json"]), 2, "bad_config");
    assert!(said.contains("does not exist; create it"), "{said}");
    bare.register_ok(&server.join_string(&["--instance", "home"]));
    let made = read(bare.config_path());
    assert!(made.starts_with("pulse_control_plane:") && made.contains(&server.url()), "{made}");
    assert!(bare.proxy("sync", &[]).is_success());
    // One that cannot be understood is not touched, and the join token is not spent on it.
    let broken = Proxy::builder("attic").config("pulse_control_plane: [").build();
    let (before, join) = (read(broken.config_path()), server.join_string(&["--instance", "home"]));
    failed(&broken.register_with(&join, &["--json"]), 2, "bad_config");
    assert_eq!(read(broken.config_path()), before);
    Proxy::builder("attic").build().register_ok(&join);
}

#[test]
fn what_is_secret_is_the_owners_alone_and_stands_nowhere_else() {
    let server = home();
    let join = server.join_string(&["--instance", "home"]);
    let mut proxy = Proxy::builder("delly").build();
    let ran = proxy.register(&join);
    assert!(ran.is_success(), "{ran:?}");
    let token = read(token_path(&proxy)).trim().to_owned();
    assert!(token.starts_with("pctl_"));
    assert_eq!(mode(&token_path(&proxy)), 0o600);
    proxy.start();
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    server.pulse_ok(&["proxy", "show", "delly"]);

    let mut seen = 0;
    let mut folders = vec![proxy.state_dir().join("control")];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "identity, token and list: {seen}");

    // Not where everybody on the host looks, nor in any answer or log.
    let process = PathBuf::from(format!("/proc/{}", proxy.process().pid()));
    for (place, text) in [
        ("the process list", read(process.join("cmdline"))),
        ("the environment", read(process.join("environ"))),
        ("the answer", format!("{}{}", ran.stdout, ran.stderr)),
        ("the configuration", read(proxy.config_path())),
        ("the proxy's log", proxy.process().log().join("\n")),
        ("the server's log", server.process().log().join("\n")),
        ("status", proxy.proxy("status", &["--json"]).stdout),
        ("proxy show", server.pulse_ok(&["proxy", "show", "delly", "--json"])),
        ("join list", server.pulse_ok(&["join", "list", "--json"])),
        ("audit", server.pulse_ok(&["audit", "--json"])),
        ("metrics", server.get("/metrics").expect("the server answers").body),
    ] {
        assert!(!text.contains(&token[5..]) && !text.contains(&secret(&join)[6..]), "{place}: {text}");
    }
    // The server has no need of it either: it keeps hashes.
    for entry in fs::read_dir(server.data_dir()).expect("the data folder can be listed") {
        let path = entry.expect("the data folder can be listed").path();
        let Ok(bytes) = fs::read(&path) else { continue };
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds(&token[5..]) && !holds(&secret(&join)[6..]), "{}", path.display());
    }
}

#[test]
fn the_join_string_comes_from_a_file_from_the_environment_or_from_standard_input() {
    let server = home();
    let join = server.join_string(&["--instance", "home", "--uses", "4"]);
    let folder = TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("join");
    fs::write(&file, format!("{join}\n")).expect("a file can be written");
    let file = file.to_str().expect("temporary folders have plain names");

    let from_input = Proxy::builder("delly").build();
    assert!(from_input.register(&join).is_success());
    let from_file = Proxy::builder("minipc").build();
    let ran = from_file.proxy("register", &["--join-file", file, "--hostname", "minipc", "--json"]);
    assert!(ran.is_success(), "{ran:?}");
    let from_environment = Proxy::builder("nas").env("PULSE_SENSOR_PROXY_JOIN", &join).build();
    let ran = from_environment.proxy("register", &["--hostname", "nas", "--json"]);
    assert!(ran.is_success(), "{ran:?}");
    // On the command line too, for those who are alone on their host.
    let from_flag = Proxy::builder("attic").build();
    assert!(from_flag.proxy("register", &["--join", &join, "--hostname", "attic"]).is_success());
    assert_eq!(server.proxies().len(), 4);

    let nothing = Proxy::builder("other").build();
    let said = failed(&nothing.proxy("register", &["--json"]), 2, "bad_join_string");
    assert!(
        ["--join STRING", "--join -", "--join-file", "PULSE_SENSOR_PROXY_JOIN"]
            .iter()
            .all(|way| said.contains(way))
    );
    let said = failed(
        &nothing.proxy("register", &["--join-file", "/nonexistent/join", "--json"]),
        2,
        "bad_join_string",
    );
    assert!(said.contains("/nonexistent/join"), "{said}");
    failed(&nothing.proxy("register", &["--join", "-", "--join-file", file, "--json"]), 2, "usage");
}

#[test]
fn a_proxy_that_begins_with_its_kept_list_is_shown_to_have_it_on_its_disk() {
    let server = home();
    let proxy = Proxy::join(&server, "home", "delly");
    let shown = server.wait_for_state(&proxy.id(), "IN_SYNC");
    // The one of its registration, which the server did not send again.
    assert_eq!(shown["is_on_disk"], true);
}

#[test]
fn register_sync_status_and_collect_answer_in_json() {
    let server = home();
    let proxy = Proxy::builder("delly").build();
    let join = server.join_string(&["--instance", "home"]);
    let arguments = ["--hostname", "delly", "--kind", "http", "--proxy-url", "https://delly:8443", "--json"];
    let registered = proxy.register_with(&join, &arguments).json();
    let list = server.allowlist("home");
    assert_eq!(registered["proxy_id"], json!(proxy.id()));
    assert_eq!(registered["hostname"], "delly");
    assert_eq!(registered["instance"], "home");
    assert_eq!(registered["server"], json!(server.url()));
    assert_eq!(registered["waiting"], Value::Null);
    assert_eq!(registered["nodes"], json!([{"name": "delly", "ip": ""}, {"name": "minipc", "ip": ""}]));
    assert_eq!(registered["state"], json!(proxy.control_dir().display().to_string()));
    let shown = server.json(&["proxy", "show", "delly"]);
    assert_eq!((&shown["kind"], &shown["proxy_url"]), (&json!("http"), &json!("https://delly:8443")));

    let synced = proxy.proxy("sync", &["--json"]);
    assert!(synced.is_success(), "{synced:?}");
    let synced = synced.json();
    for key in ["epoch", "revision", "hash"] {
        assert_eq!(synced[key], list[key], "{synced}");
    }
    assert_eq!((&synced["nodes"], &synced["on_disk"]), (&registered["nodes"], &json!(true)));

    // From the disk alone.
    drop(server);
    let status = proxy.status();
    assert_eq!(status["server_id"], registered["server_id"]);
    assert_eq!(
        (&status["registered"], &status["running"], &status["revoked"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    assert_eq!((&status["list"]["source"], &status["list"]["hash"]), (&json!("cache"), &list["hash"]));
    assert_eq!(status["list"]["nodes"], registered["nodes"]);
    let collected = proxy.proxy("collect", &["--json"]).json();
    assert_eq!(collected["cpu_package"]["temperature_celsius"], 40.0);
    failed(&proxy.proxy("sync", &["--json"]), 1, "unreachable");
}

#[test]
fn a_server_that_is_not_the_pinned_one_gets_no_token_and_is_named_so() {
    let (server, other) = (home(), home());
    let proxy = Proxy::builder("delly").build();
    // Its own token, the address of another: as somebody in between would have it.
    let join = server.join_string(&["--instance", "home"]);
    let join = join.replace(&server.address().to_string(), &other.address().to_string());
    let before = read(proxy.config_path());
    let ran = proxy.register_with(&join, &["--hostname", "delly", "--json"]);
    let said = failed(&ran, 1, "wrong_server");
    assert!(said.contains("pinned key") && said.contains("no token was sent"), "{said}");
    assert_eq!(read(proxy.config_path()), before);
    assert!(!proxy.state_dir().exists(), "trying again would not help, so nothing is kept");
    assert_eq!(other.proxies(), [Value::Null; 0]);
    let refusals = other.metrics();
    assert!(!refusals.has("pulse_refusals_total"), "the token was not even sent: {refusals:#?}");
}
