//! `pulse import` on the real programs: each older form, twice, and a damaged one of each; what is old stays as it is, and a host
//! keeps working with the token that it has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use pulse_proto::hash::sha256;
use pulse_proto::hex;
use pulse_test_support::proxmox::FakeProxmox;
use pulse_test_support::v1::RegisterRequest;
use pulse_test_support::{Client, PATIENCE, Proxy, Ran, Server, connect, eventually, fixtures, with_token};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What an older install left: files in a folder, and how they were.
struct Older {
    folder: TempDir,
    were: BTreeMap<PathBuf, Vec<u8>>,
}

impl Older {
    fn new(files: &[(&str, &[u8])]) -> Older {
        let folder = TempDir::new().expect("a temporary folder can be made");
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).expect("a file can be written");
        }
        let were = contents(folder.path());
        Older { folder, were }
    }

    /// An older server's data folder with these instances.
    fn data(instances: &Value) -> Older {
        let mut text = json!({ "pveInstances": instances }).to_string().into_bytes();
        let key = [42; 32];
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes");
        let nonce = cipher.seal_in_place_append_tag(Aad::empty(), &mut text).expect("it can be sealed");
        let sealed = [&nonce.as_ref()[..], &text].concat();
        Older::new(&[("nodes.enc", &sealed), (".encryption.key", STANDARD.encode(key).as_bytes())])
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("temporary folders have plain names").to_owned()
    }

    #[track_caller]
    fn is_as_it_was(&self) {
        assert_eq!(contents(self.folder.path()), self.were);
    }
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder can be listed");
    let entries = entries.map(|entry| entry.expect("the folder can be listed").path());
    entries
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).expect("the file can be read")))
        .collect()
}

/// A control token as older servers made them.
fn token(of: u8) -> String {
    URL_SAFE.encode([of; 32])
}

fn revision(server: &Server) -> f64 {
    server.metrics().value("pulse_revision")
}

/// Imports, and once more, which must change nothing; returns what was said the first time.
#[track_caller]
fn import_twice(server: &Server, arguments: &[&str]) -> Value {
    let arguments = [&["import", "--yes"], arguments].concat();
    let before = revision(server);
    let said = server.json(&arguments);
    let after = revision(server);
    assert_eq!(after, before + 1.0, "it is one change: {said:#}");
    assert_eq!(said["result"]["revision"].as_f64(), Some(after), "{said:#}");
    let again = server.json(&arguments);
    assert_eq!((revision(server), &again["result"]), (after, &Value::Null), "{again:#}");
    assert_eq!(texts(&again["plan"], "add"), [""; 0], "{again:#}");
    assert!(!texts(&again["plan"], "there").is_empty(), "{again:#}");
    said
}

/// The texts of all steps with this outcome.
fn texts(plan: &Value, outcome: &str) -> Vec<String> {
    let steps = plan["steps"].as_array().unwrap_or_else(|| panic!("no plan: {plan:#}"));
    let steps = steps.iter().filter(|step| step["outcome"] == outcome);
    steps.map(|step| step["text"].as_str().expect("a step has a text").to_owned()).collect()
}

/// The nodes of an instance: name, address, where from.
fn nodes(server: &Server, instance: &str) -> Vec<[String; 3]> {
    let shown = server.json(&["instance", "show", instance]);
    let nodes = shown["nodes"].as_array().expect("an instance has nodes").iter();
    let text = |value: &Value| value.as_str().expect("it is text").to_owned();
    nodes.map(|node| ["name", "ip", "origin"].map(|key| text(&node[key]))).collect()
}

fn imported(nodes: &[(&str, &str)]) -> Vec<[String; 3]> {
    nodes.iter().map(|(name, ip)| [*name, *ip, "import"].map(str::to_owned)).collect()
}

/// Asserts that an import did nothing: its exit code, a part of what it said, and the fleet as it was.
#[track_caller]
fn did_nothing(server: &Server, arguments: &[&str], code: i32, part: &str) -> Ran {
    let before = revision(server);
    let ran = server.pulse(&[&["import"], arguments].concat());
    assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
    assert!(ran.stderr.contains(part) && ran.stdout.is_empty(), "{part:?}: {ran:?}");
    assert_eq!(revision(server), before, "{ran:?}");
    ran
}

#[test]
fn each_form_of_a_list_is_taken_over_once_and_stays_as_it_was() {
    let server = Server::start();
    let map = "http_enabled: false\nallowed_nodes:\n  - delly\n  - 192.168.0.5\n";
    for (at, (name, text)) in [
        ("config.yaml", map),
        ("allowed_nodes.yaml", "allowed_nodes: [delly, 192.168.0.5]\n"),
        ("allowed_nodes.yaml", "- delly\n- 192.168.0.5\n"),
        ("allowed_nodes.yaml", "# by the installer\ndelly\n192.168.0.5\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let older = Older::new(&[(name, text.as_bytes())]);
        let instance = format!("home{at}");
        let said = import_twice(&server, &[&older.path(name), "--instance", &instance]);
        assert_eq!(texts(&said["result"], "add").len(), 3, "{said:#}");
        assert_eq!(
            nodes(&server, &instance),
            imported(&[("192.168.0.5", "192.168.0.5"), ("delly", "")]),
            "{text}"
        );
        older.is_as_it_was();
    }
}

#[test]
fn every_captured_corosync_conf_is_taken_over_once() {
    let Some(folder) = fixtures() else { return };
    for (name, cluster, members) in [
        ("corosync-docs-741.conf", "testcluster", &["due", "tre", "uno"][..]),
        ("corosync-multiple-nodes.conf", "cloud", &["prox1", "prox2", "prox3", "prox4"]),
        ("corosync-old.conf", "sea", &["prox1"]),
        ("corosync-single-node.conf", "cloud", &["prox1"]),
    ] {
        let server = Server::start();
        let captured = fs::read(folder.join("cluster").join(name)).expect("the capture is there");
        let older = Older::new(&[(name, &captured)]);
        import_twice(&server, &[&older.path(name)]);
        let expected: Vec<_> = members.iter().map(|member| (*member, "")).collect();
        assert_eq!(nodes(&server, cluster), imported(&expected), "{name}");
        older.is_as_it_was();
        // Cut off in the middle, it names no half cluster.
        let half = Older::new(&[(name, &captured[..captured.len() / 2])]);
        did_nothing(&server, &[&half.path(name), "--yes"], 1, name);
    }
}

/// A cluster as an older server kept it, asked at the fake.
fn cluster(fake: &FakeProxmox) -> Value {
    let member = |name: &str, last: u8, address_override: &str, control_token: &str| {
        json!({
            "NodeName": name, "Host": format!("https://192.0.2.{last}:8006"), "IP": format!("192.0.2.{last}"),
            "IPOverride": address_override, "TemperatureProxyControlToken": control_token,
        })
    };
    json!([{
        "Name": "home", "Host": fake.url(), "User": "pulse@pve", "TokenName": "monitor", "TokenValue": "hidden-value",
        "VerifySSL": false, "IsCluster": true, "ClusterName": "homelab", "TemperatureProxyURL": "https://pve3:8443",
        "TemperatureProxyToken": token(9), "ClusterEndpoints": [
            member("pve1", 11, "", &token(1)), member("pve2", 12, "198.51.100.12", ""), member("pve3", 13, "", &token(3)),
        ],
    }])
}

fn fingerprint(fake: &FakeProxmox) -> String {
    hex::encode(&sha256(&fake.certificate()))
}

#[test]
fn an_older_servers_data_is_taken_over_once_with_source_addresses_and_proxies() {
    let server = Server::builder().config("log_level: trace").start();
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.11", "pve2=192.0.2.12", "pve3=192.0.2.13"]);
    fake.demand("pulse@pve!monitor=hidden-value");
    let older = Older::data(&cluster(&fake));
    let folder = older.path("");

    // Nobody looked whose certificate it was: all but the source is taken, and the way out is said.
    let said = import_twice(&server, &["--pulse-data", &folder]);
    let left_out = texts(&said["result"], "left_out");
    assert!(left_out.len() == 1 && left_out[0].contains("there is none to trust"), "{left_out:?}");
    let way_out =
        said["result"]["steps"].as_array().unwrap().iter().find_map(|step| step["way_out"].as_str());
    assert!(way_out.is_some_and(|way_out| way_out.contains("--fingerprint")), "{said:#}");
    let were = [("pve1", "192.0.2.11"), ("pve2", "198.51.100.12"), ("pve3", "192.0.2.13")];
    assert_eq!(nodes(&server, "homelab"), imported(&were));
    assert_eq!(fake.asked(), [""; 0], "no host is asked");
    let proxies = server.proxies();
    let proxy = |host: &str| proxies.iter().find(|proxy| proxy["hostname"] == host).expect("it is there");
    assert_eq!(proxies.len(), 2, "{proxies:#?}");
    assert_eq!((&proxy("pve1")["kind"], &proxy("pve1")["instance"]), (&json!("socket"), &json!("homelab")));
    assert_eq!(proxy("pve3")["proxy_url"], "https://pve3:8443");

    // With a fingerprint the source follows, sealed again, and is believed.
    let said = import_twice(&server, &["--pulse-data", &folder, "--fingerprint", &fingerprint(&fake)]);
    let added = texts(&said["result"], "add");
    assert!(added.len() == 1 && added[0].starts_with("source "), "{added:?}");
    eventually(PATIENCE, "Proxmox VE is heard", || {
        let shown = server.json(&["instance", "show", "homelab"]);
        if shown["pve"]["state"] == "ok" { Ok(()) } else { Err(shown) }
    });
    // What the cluster confirms is its own now; the address that a person set stays.
    let ips: Vec<_> = server.allowlist("homelab")["nodes"].as_array().expect("nodes").clone();
    let ips: Vec<_> = ips.iter().map(|node| node["ip"].as_str().unwrap_or_default()).collect();
    assert_eq!(ips, ["192.0.2.11", "198.51.100.12", "192.0.2.13"]);
    let again = server.json(&["import", "--yes", "--pulse-data", &folder]);
    assert_eq!(again["result"], Value::Null, "{again:#}");
    older.is_as_it_was();

    // No secret is in what was said, or kept where others read it.
    let audit = server.pulse_ok(&["audit", "--json"]);
    assert_eq!(audit.matches("\"action\":\"import\"").count(), 2, "{audit}");
    let ran = server.pulse(&["import", "--dry-run", "--pulse-data", &folder]);
    assert!(ran.is_success(), "{ran:?}");
    let all = [audit, said.to_string(), ran.stdout, ran.stderr, server.process().log().join("\n")];
    let kept = contents(&server.data_dir());
    for secret in ["hidden-value".to_owned(), token(1), token(3), token(9), STANDARD.encode([42; 32])] {
        assert!(all.iter().all(|text| !text.contains(&secret)), "a secret is shown");
        let holds = |bytes: &Vec<u8>| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!kept.values().any(holds), "a secret is kept as it is");
    }
}

#[test]
fn a_damaged_one_of_each_form_is_named_and_leaves_the_fleet_as_it_is() {
    let server = Server::start();
    let fake = FakeProxmox::start();
    let older = Older::new(&[
        ("config.yaml", b"allowed_nodes: [delly, minipc\n"),
        ("allowed_nodes.yaml", b"allowed_nodes:\n  - delly\n - minipc: {\n"),
        ("lines.yaml", b"\x00\xff\xfe"),
        (".pulse-control-token", b"hidden"),
        ("corosync.conf", b"nodelist {\n  node {\n    name: pve1\n"),
    ]);
    for name in ["config.yaml", "allowed_nodes.yaml", "lines.yaml", ".pulse-control-token", "corosync.conf"] {
        let ran = did_nothing(
            &server,
            &[&older.path(name), "--instance", "home", "--host", "pve1", "--yes"],
            1,
            name,
        );
        assert!(!ran.stderr.contains("hidden"), "{ran:?}");
    }
    older.is_as_it_was();
    let data = Older::data(&cluster(&fake));
    let mut sealed = fs::read(data.path("nodes.enc")).expect("it is there");
    sealed[20] ^= 1;
    let key = fs::read(data.path(".encryption.key")).expect("it is there");
    let damaged = Older::new(&[("nodes.enc", &sealed), (".encryption.key", &key)]);
    did_nothing(&server, &["--pulse-data", &damaged.path(""), "--yes"], 1, "it does not open");
    damaged.is_as_it_was();
    assert!(server.json(&["instance", "list"])["instances"].as_array().is_some_and(Vec::is_empty));

    // Beside a good one it is named, and the good one is taken.
    let good = Older::new(&[("allowed_nodes.yaml", b"- delly\n")]);
    let (bad, good) = (older.path("corosync.conf"), good.path("allowed_nodes.yaml"));
    let ran = server.pulse(&["import", &bad, &good, "--instance", "home", "--yes"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("corosync.conf:3") && ran.stdout.contains("1 thing left out"), "{ran:?}");
    assert_eq!(nodes(&server, "home"), imported(&[("delly", "")]));
}

#[test]
fn nothing_is_done_before_it_is_shown_and_said_yes_to() {
    let server = Server::start();
    let older = Older::new(&[("allowed_nodes.yaml", b"- delly\n"), ("token", token(1).as_bytes())]);
    let (list, file) = (older.path("allowed_nodes.yaml"), older.path("token"));
    let ran = did_nothing(&server, &[&list, "--instance", "home"], 2, "say --yes");
    assert!(ran.stderr.contains("add       node delly of home"), "{ran:?}");
    let before = revision(&server);
    let ran = server.pulse(&["import", &list, "--instance", "home", "--dry-run"]);
    assert!(
        ran.is_success() && ran.stdout.contains("nothing was changed: 2 things would be added"),
        "{ran:?}"
    );
    assert_eq!(revision(&server), before);
    // Who names no instance, and no host, is told how.
    did_nothing(&server, &[&list, "--yes"], 1, "--instance NAME");
    did_nothing(&server, &[&file, "--instance", "home", "--yes"], 1, "--host HOSTNAME");
    did_nothing(&server, &[&file, "--host", "delly", "--yes"], 1, "--instance NAME");
    let many: String = (0..9_000).map(|n| format!("- node-{n}-of-a-very-large-site\n")).collect();
    let large = Older::new(&[("allowed_nodes.yaml", many.as_bytes())]);
    let path = large.path("allowed_nodes.yaml");
    did_nothing(&server, &[&path, "--instance", "home", "--yes"], 2, "256KiB");
}

#[test]
fn what_is_there_stays_as_it_is_and_what_contradicts_it_is_named() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "homelab", "--endpoint", "pve1=203.0.113.1", "--endpoint", "nas"]);
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.11", "pve2=192.0.2.12", "pve3=192.0.2.13"]);
    let older = Older::data(&cluster(&fake));
    let said = import_twice(&server, &["--pulse-data", &older.path("")]);
    let left_out = texts(&said["result"], "left_out").join("\n");
    assert!(left_out.contains("it is there at 203.0.113.1 (manual)"), "{left_out}");
    let shown = nodes(&server, "homelab");
    assert!(shown.contains(&["pve1", "203.0.113.1", "manual"].map(str::to_owned)), "{shown:?}");
    assert_eq!(shown.len(), 4, "nothing is taken away: {shown:?}");

    // A host that is there with another token keeps it.
    let pve1 =
        server.proxies().iter().find(|proxy| proxy["hostname"] == "pve1").cloned().expect("it is there");
    let other = Older::new(&[("token", token(77).as_bytes())]);
    let file = other.path("token");
    let ran =
        did_nothing(&server, &[&file, "--instance", "homelab", "--host", "PVE1", "--yes"], 1, "proxy remove");
    assert!(ran.stderr.contains(pve1["id"].as_str().unwrap()), "{ran:?}");
}

#[test]
fn what_several_files_say_of_one_thing_is_one_thing() {
    let server = Server::start();
    let standalone = |name: &str, last: u8, control_token: &str| {
        json!({
            "Name": name, "Host": format!("https://192.0.2.{last}:8006"), "TemperatureProxyControlToken": control_token,
            "User": "pulse@pve", "TokenName": "monitor", "TokenValue": format!("hidden-{last}"), "VerifySSL": true,
        })
    };
    let cluster = |member: &str| {
        let members = json!([{ "NodeName": member, "Host": format!("https://{member}:8006") }]);
        json!({ "Name": member, "IsCluster": true, "ClusterName": "lab", "ClusterEndpoints": members })
    };
    let data = Older::data(&json!([
        standalone("delly", 1, &token(1)),
        standalone("Delly", 2, &token(2)),
        standalone("minipc", 3, &token(1)),
        cluster("a"),
        cluster("b"),
        { "Name": "nas", "Host": "https://nas:8006", "TemperatureProxyURL": "https://nas:8443" },
    ]));
    let file =
        Older::new(&[("token", token(1).as_bytes()), ("allowed_nodes.yaml", b"- delly\n- 192.0.2.1\n")]);
    let arguments = ["--pulse-data", &data.path(""), &file.path("token"), &file.path("allowed_nodes.yaml")];
    let said = import_twice(&server, &[&arguments[..], &["--instance", "delly"]].concat());
    let left_out = texts(&said["result"], "left_out");
    for part in [
        "node Delly (192.0.2.2) of delly: it is there at 192.0.2.1 (import)",
        "it is https://192.0.2.1:8006 asked as pulse@pve!monitor here",
        "proxy of Delly of delly: it is there with another control token",
        "the control token of minipc",
        "a second instance lab",
        "the proxy of nas",
    ] {
        assert_eq!(left_out.iter().filter(|text| text.contains(part)).count(), 1, "{part:?}: {left_out:#?}");
    }
    assert_eq!(left_out.len(), 6, "{left_out:#?}");
    assert_eq!(nodes(&server, "delly"), imported(&[("delly", "192.0.2.1"), ("192.0.2.1", "192.0.2.1")]));
    assert_eq!(nodes(&server, "lab"), imported(&[("a", "")]));
    let proxies = server.proxies();
    let hosts: Vec<_> = proxies.iter().map(|proxy| (&proxy["hostname"], &proxy["instance"])).collect();
    assert_eq!(hosts, [(&json!("delly"), &json!("delly"))]);
    assert!(!said.to_string().contains("hidden"));
}

#[test]
fn the_server_believes_nothing_of_what_it_is_sent() {
    let server = Server::start();
    let before = revision(&server);
    let digest = "0".repeat(64);
    for (one, field) in [
        (json!({"name": "-a"}), "name"),
        (json!({"name": "a", "nodes": [{"name": "10.0.0.0/24"}]}), "instances[0].nodes[0]"),
        (
            json!({"name": "a", "address_overrides": [{"name": "a", "ip": "*"}]}),
            "instances[0].address_overrides[0]",
        ),
        (
            json!({"name": "a", "pve": {"urls": ["http://a"], "token_id": "a@pve!b", "token_secret": "hidden"}}),
            "instances[0].pve.urls[0]",
        ),
        (
            json!({"name": "a", "pve": {"urls": ["https://a"], "token_id": "a", "token_secret": "hidden"}}),
            "instances[0].pve.token_id",
        ),
        (
            json!({"name": "a", "proxies": [{"token_digest": "hidden"}]}),
            "instances[0].proxies[0].token_digest",
        ),
        (
            json!({"name": "a", "proxies": [{"token_digest": digest, "proxy_url": "https://u:hidden@a"}]}),
            "instances[0].proxies[0].proxy_url",
        ),
    ] {
        let mut one = one;
        one["source"] = json!("x");
        let import = json!({ "instances": [one] });
        let answer = server.admin("POST", "/import", Some(&import)).expect("the server answers");
        let said: Value = serde_json::from_str(&answer.body).expect("it is JSON");
        assert_eq!((answer.status, &said["field"]), (422, &json!(field)), "{said}");
        assert!(!answer.body.contains("hidden"), "{said}");
    }
    let strange = json!({ "instances": [{"source": "x", "name": "a", "nodes": [{"name": "a"}],
        "proxies": [{"token_digest": digest, "hostname": "a\u{1b}[2J"}]}] });
    let answer = server.admin("POST", "/import", Some(&strange)).expect("the server answers");
    assert!(answer.status == 200 && answer.body.contains("that is no name of a host"), "{answer:?}");
    assert_eq!((revision(&server), server.proxies().len()), (before + 1.0, 0));
}

/// A server with the instance home, and a proxy of delly that was imported with its older token.
fn with_imported() -> (Server, Older, String) {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "minipc"]);
    let older = Older::new(&[(".pulse-control-token", format!("{}\n", token(5)).as_bytes())]);
    // Its instance is the one that names the host.
    import_twice(&server, &[&older.path(".pulse-control-token"), "--host", "delly"]);
    older.is_as_it_was();
    let id = server.proxies()[0]["id"].as_str().expect("a proxy has an id").to_owned();
    (server, older, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_an_older_token_connects_and_is_the_same_when_it_registers() {
    let (server, _older, id) = with_imported();
    let strange = Client::register(&server, &server.join_string(&["--instance", "home"]), "minipc").await;
    let client = Client { token: token(5), proxy_id: id.clone(), ..strange.clone() };
    let mut watch = client.watch(Default::default()).await;
    let list = watch.snapshot().await;
    assert_eq!(list.hash, server.allowlist("home")["hash"]);
    client.report_applied(&list).await;
    server.wait_for_state(&id, "IN_SYNC");

    // What is imported goes to those who are connected.
    let more = Older::new(&[("allowed_nodes.yaml", b"- nas\n")]);
    server.pulse_ok(&["import", &more.path("allowed_nodes.yaml"), "--instance", "HOME", "--yes"]);
    let names: Vec<_> = watch.snapshot().await.nodes.into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["delly", "minipc", "nas"]);

    // Another of its kind is nobody's.
    let unknown = Client { token: token(6), ..client.clone() };
    let status = unknown.try_watch(Default::default()).await.expect_err("it is not known");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("is not known to this server"), "{status:?}");
    assert!(!format!("{status:?}").contains(&token(6)));

    // Its token proves who it is when it registers, and stays.
    let message = RegisterRequest { hostname: "delly".to_owned(), ..RegisterRequest::default() };
    let answer = connect(&server).await.register(with_token(message, &token(5))).await;
    let answer = answer.expect("its token vouches for it").into_inner();
    assert_eq!((answer.proxy_id, answer.ctrl_token), (id, String::new()));
}

#[test]
fn a_host_with_an_older_token_keeps_working_without_being_touched() {
    let (server, _older, id) = with_imported();
    let block =
        format!("pulse_control_plane:\n  url: {}\n  ca_file: {}\n", server.url(), server.ca_path().display());
    let mut proxy = Proxy::builder("delly").config(&block).build();
    let file = proxy.config_path().with_file_name(".pulse-control-token");
    fs::write(&file, format!("{}\n", token(5))).expect("a file can be written");
    proxy.start();
    let shown = server.wait_for_state(&id, "IN_SYNC");
    assert_eq!(shown["applied"]["hash"], server.allowlist("home")["hash"]);
    assert!(!proxy.process().log().join("\n").contains(&token(5)));
    // From then on it has tokens of today.
    server.pulse_ok(&["proxy", "rotate", &id]);
    eventually(PATIENCE, "it takes a new token", || {
        let in_use = fs::read_to_string(proxy.control_dir().join("token")).unwrap_or_default();
        if in_use.starts_with("pctl_") { Ok(()) } else { Err(in_use.len()) }
    });
}
