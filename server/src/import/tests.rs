//! Each older form is read, and a damaged one of each is named and nothing of it taken by half.

use std::path::PathBuf;

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use pulse_proto::hash::sha256;
use pulse_proto::{Token, TokenKind};
use pulse_test_support::fixtures;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A file of this name with this text, in a folder that goes with it.
fn file(name: &str, text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn read(name: &str, text: impl AsRef<[u8]>) -> Findings {
    let (_folder, path) = file(name, text);
    let found = read_file(&path);
    assert_eq!(read_file(&path), found, "{name}: it is read the same again");
    found
}

fn lines(instance: &FoundInstance) -> Vec<String> {
    instance.nodes.iter().map(Node::line).collect()
}

/// All that a person is shown.
fn shown(findings: &Findings) -> String {
    let unread = findings.unread.iter().map(ToString::to_string);
    unread.chain(findings.notes.clone()).chain([format!("{findings:?}")]).collect::<Vec<_>>().join("\n")
}

/// What is named as unread, with its line, in short.
fn unread(findings: &Findings) -> Vec<String> {
    let short = |unread: &Unread| {
        let place = unread.place.rsplit('/').next().unwrap_or_default();
        assert!(!unread.what.is_empty() && !unread.way_out.is_empty(), "{unread}");
        format!("{place}: {}", unread.what)
    };
    findings.unread.iter().map(short).collect()
}

#[track_caller]
fn assert_unread(findings: &Findings, parts: &[&str]) {
    let unread = unread(findings);
    assert_eq!(unread.len(), parts.len(), "{unread:#?}");
    for (unread, part) in unread.iter().zip(parts) {
        assert!(unread.contains(part), "{part:?} is not in {unread:?}");
    }
}

#[test]
fn all_three_forms_of_a_list_give_the_same_nodes() {
    for text in [
        "allowed_nodes:\n  - delly\n  - 192.168.0.5\n  - DELLY\n",
        "http_enabled: false\nallowed_nodes: [delly]\nrate_limit: {per_peer_burst: 10}\nallowed_nodes: [192.168.0.5]\n",
        "- delly\n- 192.168.0.5\n",
        "# by the installer\ndelly\n- ::ffff:192.168.0.5 # the same\n",
    ] {
        for name in ["config.yaml", "allowed_nodes.yaml", "config.yaml.backup.1763632800"] {
            let found = read(name, text);
            assert_eq!(found.instances.len(), 1, "{text:?}");
            assert_eq!(lines(&found.instances[0]), ["delly|", "192.168.0.5|192.168.0.5"], "{text:?}");
            assert_eq!(found.instances[0].name, None);
            assert_unread(&found, &[]);
            assert!(found.notes.iter().any(|note| note.contains("twice")), "{:?}", found.notes);
        }
    }
}

#[test]
fn ranges_loopbacks_and_bare_ipv6_addresses_are_named_and_the_rest_is_taken() {
    let found = read(
        "allowed_nodes.yaml",
        "- delly\n- 10.0.0.0/24\n- localhost\n- 127.0.0.1\n- ::1\n- fd00::5\n- 0.0.0.0\n- [a]\n- pve*\n",
    );
    assert_eq!(lines(&found.instances[0]), ["delly|"]);
    let named = [
        "allowed_nodes.yaml:2: 10.0.0.0/24 is a range",
        "allowed_nodes.yaml:3: localhost is a loopback",
        "allowed_nodes.yaml:4: 127.0.0.1 is a loopback",
        "allowed_nodes.yaml:5: ::1 is a loopback",
        "allowed_nodes.yaml:6: fd00::5 is an IPv6 address without a name",
        "allowed_nodes.yaml:7: node address \"0.0.0.0\"",
        "allowed_nodes.yaml:8: each entry must be a single value",
        "allowed_nodes.yaml:9: node name \"pve*\"",
    ];
    assert_unread(&found, &named);
    let found = read("allowed_nodes.yaml", "- 10.0.0.0/24\n");
    assert!(found.instances.is_empty());
    assert_unread(&found, &["is a range"]);
}

#[test]
fn a_configuration_without_nodes_is_no_mistake_and_names_its_other_files() {
    let found = read(
        "config.yaml",
        "allowed_nodes_file: /etc/pulse-sensor-proxy/allowed_nodes.yaml\npulse_control_plane:\n  url: https://pulse:7655\n  token_file: /x/secret\n",
    );
    assert!(found.instances.is_empty() && found.unread.is_empty());
    let notes = found.notes.join("\n");
    assert!(
        notes.contains("lists no nodes") && notes.contains("config.yaml:1 names a file with more nodes"),
        "{notes}"
    );
    assert!(notes.contains("config.yaml:4 names the file of its control token"), "{notes}");
}

#[test]
fn a_damaged_list_is_named_by_its_line() {
    for (text, part) in [
        ("allowed_nodes: [delly, minipc\n", "not valid YAML"),
        ("allowed_nodes:\n\t- delly\n", "tabs"),
        ("x: &x [a]\nallowed_nodes: *x\n", "allowed_nodes.yaml:2: aliases"),
    ] {
        let found = read("allowed_nodes.yaml", text);
        assert!(found.instances.is_empty(), "{text:?}");
        assert_unread(&found, &[part]);
    }
    assert_unread(
        &read("allowed_nodes.yaml", b"delly\n\xff\n"),
        &["allowed_nodes.yaml:2: it is no UTF-8 text"],
    );
    assert_unread(&read("allowed_nodes.yaml", vec![b'#'; (4 << 20) + 1]), &["larger than 4 MiB"]);
}

#[test]
fn what_may_be_a_secret_is_not_repeated() {
    let found = read(".env", "API_TOKEN=hidden-secret\nPROXY=https://root:hidden-secret@pve\n");
    assert_unread(&found, &["none of the files"]);
    assert!(!shown(&found).contains("hidden"));
    let found = read("allowed_nodes", "delly\nAPI_TOKEN=hidden-secret\n");
    assert_unread(&found, &["allowed_nodes:2: this line is no host's name"]);
    assert!(!shown(&found).contains("hidden"));
}

#[test]
fn folders_missing_files_and_files_of_a_data_folder_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let unread_of = |name: &str| unread(&read_file(&folder.path().join(name))).join("\n");
    assert!(unread_of("").contains("it is a folder"));
    assert!(unread_of("none.yaml").contains("no such file"));
    assert!(unread_of("nodes.enc").contains("data folder"));
    assert!(unread(&read_file("/dev/null".as_ref())).join("\n").contains("no plain file"));
    let target = folder.path().join("list");
    std::fs::write(&target, "delly\n").unwrap();
    std::os::unix::fs::symlink(&target, folder.path().join("link")).unwrap();
    assert_eq!(lines(&read_file(&folder.path().join("link")).instances[0]), ["delly|"]);
}

#[test]
fn a_control_token_gives_the_digest_of_what_the_proxy_will_show() {
    let ours = Token::generate(TokenKind::Ctrl).unwrap();
    let older = URL_SAFE.encode([7; 32]);
    for (name, text) in [
        (".pulse-control-token", format!("{older}\n")),
        (".pulse-control-token", format!(" {}\r\n", ours.reveal())),
        ("copied", older),
        ("copied", ours.reveal().to_owned()),
        ("token", "a".repeat(40)),
    ] {
        let found = read(name, &text);
        let [FoundProxy { hostname: None, proxy_url: None, token_digest: Some(digest) }] =
            &found.instances[0].proxies[..]
        else {
            panic!("{name}: {found:?}")
        };
        assert_eq!(digest.as_bytes(), &sha256(text.trim().as_bytes()), "{name}");
        assert!(!shown(&found).contains(text.trim()));
    }
}

#[test]
fn a_damaged_control_token_is_named_and_not_shown() {
    let join = Token::generate(TokenKind::Join).unwrap();
    let ours = Token::generate(TokenKind::Ctrl).unwrap();
    for (name, text, part) in [
        (".pulse-control-token", "\n", "it is empty"),
        (".pulse-control-token", "hidden", "32 to 512 characters"),
        (".pulse-control-token", "hidden and more words than a token has at all", "one word"),
        (".pulse-control-token", "hidden-schlüssel-hidden-schlüssel-hidden", "one word"),
        (".pulse-control-token", &ours.reveal()[..40], "damaged"),
        ("copied", join.reveal(), "it is no ctrl token"),
        (".http-auth-token", &"hidden".repeat(8), "the bearer of the older proxy's own listener"),
    ] {
        let found = read(name, text);
        assert!(found.instances.is_empty(), "{name}");
        assert_unread(&found, &[part]);
        let shown = shown(&found);
        assert!(!shown.contains("hidden") && !shown.contains(&ours.reveal()[5..40]), "{shown}");
        assert!(!shown.contains(&join.reveal()[6..]), "{shown}");
    }
}

const CAPTURED: [(&str, &str, &[&str]); 4] = [
    ("corosync-docs-741.conf", "testcluster", &["due|", "tre|", "uno|"]),
    ("corosync-multiple-nodes.conf", "cloud", &["prox1|", "prox2|", "prox3|", "prox4|"]),
    ("corosync-old.conf", "sea", &["prox1|"]),
    ("corosync-single-node.conf", "cloud", &["prox1|"]),
];

#[test]
fn every_captured_corosync_conf_is_read() {
    let Some(folder) = fixtures() else { return };
    for (name, cluster, nodes) in CAPTURED {
        let found = read_file(&folder.join("cluster").join(name));
        assert_unread(&found, &[]);
        assert_eq!(found.instances.len(), 1, "{name}");
        assert_eq!(found.instances[0].name.as_deref(), Some(cluster), "{name}");
        assert_eq!(lines(&found.instances[0]), nodes, "{name}");
        assert!(found.notes.iter().any(|note| note.contains("first ring")), "{name}");
    }
}

#[test]
fn a_captured_corosync_conf_that_is_cut_anywhere_gives_no_half_cluster() {
    let Some(folder) = fixtures() else { return };
    for (name, ..) in CAPTURED {
        let text = std::fs::read_to_string(folder.join("cluster").join(name)).unwrap();
        let whole = corosync::read(&text, name);
        for (at, _) in text.char_indices() {
            let found = corosync::read(&text[..at], name);
            for instance in &found.instances {
                assert_eq!(instance.nodes, whole.instances[0].nodes, "{name}, cut after {at} bytes");
            }
            assert!(!found.instances.is_empty() || !found.unread.is_empty(), "{name}, cut after {at} bytes");
        }
    }
}

#[test]
fn ring_addresses_missing_names_and_a_quorum_device_are_read_as_what_they_are() {
    let found = read(
        "corosync.conf",
        "totem {\n cluster_name: home lab\n}\nnodelist {\n\
         node {\n name: pve1\n ring0_addr: 10.0.0.11\n}\nnode {\n name: pve2\n ring0_addr: fd00::12\n}\n\
         node {\n ring0_addr: 10.0.0.13\n}\nnode {\n ring0_addr: fd00::14\n}\nnode {\n nodeid: 5\n}\n\
         node {\n name: pve6\n ring0_addr: 127.0.0.1\n}\nnode {\n name: PVE7\n ring0_addr: pve7.lan\n}\n}\n\
         quorum {\n provider: corosync_votequorum\n two_node: 1\n device {\n model: net\n net {\n host: qdevice\n }\n }\n}\n",
    );
    let instance = &found.instances[0];
    assert_eq!(instance.name.as_deref(), Some("home-lab"));
    assert_eq!(lines(instance), ["pve1|10.0.0.11", "pve2|fd00::12", "10.0.0.13|10.0.0.13", "PVE7|pve7.lan"]);
    assert_unread(
        &found,
        &["corosync.conf:16: node name \"fd00::14\"", "neither a name nor an address", "loopback"],
    );
    assert!(found.notes.iter().any(|note| note.contains("quorum device")));
    assert!(
        found.notes.iter().any(|note| note.contains("\"home lab\" is taken as home-lab")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_damaged_corosync_conf_is_named_by_its_line() {
    let deep = "a {\n".repeat(100);
    for (text, part) in [
        (
            "nodelist {\n node {\n  name: a\n }\n",
            "corosync.conf:4: it ends in the middle of the block \"nodelist\" of line 1",
        ),
        ("nodelist {\n}\n}\n", "corosync.conf:3: a block ends here"),
        ("nodelist {\n what\n}\n", "corosync.conf:2: this line is neither"),
        (&deep, "nested too deep"),
        ("totem {\n version: 2\n}\n", "no nodelist"),
        ("", "no nodelist"),
    ] {
        let found = read("corosync.conf", text);
        assert!(found.instances.is_empty(), "{text:?}");
        assert_unread(&found, &[part]);
    }
}

/// A data folder of an older server with these instances in it.
fn pulse_data(json: &Value) -> TempDir {
    sealed_data(json.to_string().as_bytes())
}

fn sealed_data(json: &[u8]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let key = [42; 32];
    let mut text = json.to_vec();
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &key).unwrap();
    let nonce = cipher.seal_in_place_append_tag(Aad::empty(), &mut text).unwrap();
    std::fs::write(folder.path().join(".encryption.key"), STANDARD.encode(key)).unwrap();
    std::fs::write(folder.path().join("nodes.enc"), [&nonce.as_ref()[..], &text].concat()).unwrap();
    folder
}

fn read_data(json: &Value) -> Findings {
    let folder = pulse_data(json);
    let found = read_pulse_data(folder.path());
    assert_eq!(read_pulse_data(folder.path()), found, "it is read the same again");
    found
}

fn token(of: u8) -> String {
    URL_SAFE.encode([of; 32])
}

fn digest_of(text: &str) -> Option<TokenDigest> {
    Some(TokenDigest::from_bytes(sha256(text.as_bytes())))
}

#[test]
fn a_standalone_host_is_read_with_token_trust_and_proxy() {
    let fingerprint = ["AB"; 32].join(":");
    for (user, token_name) in [
        ("pulse-monitor@pam", "pulse-monitor@pam!pulse"),
        ("pulse-monitor@pam", "pulse"),
        ("pulse-monitor@pam!pulse", ""),
        ("pulse-monitor@pam!pulse", "pulse"),
    ] {
        let found = read_data(&json!({"pveInstances": [{
            "Name": "delly", "Host": "https://192.168.0.5:8006", "GuestURL": "https://delly.lan", "User": user,
            "Password": "", "TokenName": token_name, "TokenValue": "hidden-value", "Fingerprint": fingerprint,
            "VerifySSL": false, "MonitorVMs": true, "MonitorPhysicalDisks": null, "SSHPort": 22,
            "TemperatureProxyURL": "https://192.168.0.5:8443", "TemperatureProxyToken": token(1),
            "TemperatureProxyControlToken": token(2), "IsCluster": false, "ClusterName": "", "ClusterEndpoints": null,
        }], "pbsInstances": [{"Name": "backup"}], "pmgInstances": []}));
        assert_unread(&found, &[]);
        let [instance] = &found.instances[..] else { panic!("{found:?}") };
        assert_eq!(
            (instance.name.as_deref(), lines(instance)),
            (Some("delly"), vec!["delly|192.168.0.5".to_owned()])
        );
        let pve = instance.pve.as_ref().unwrap();
        assert_eq!(
            pve.token,
            ApiToken::new("pulse-monitor@pam!pulse", "hidden-value").unwrap(),
            "{user} {token_name}"
        );
        assert_eq!(pve.urls, ["https://192.168.0.5:8006".parse().unwrap()]);
        assert_eq!(pve.fingerprints, [fingerprint.parse().unwrap()]);
        assert!(!pve.has_trust_from_system);
        let proxy = FoundProxy {
            hostname: Some("delly".to_owned()),
            proxy_url: Some("https://192.168.0.5:8443".to_owned()),
            token_digest: digest_of(&token(2)),
        };
        assert_eq!(instance.proxies, [proxy]);
        let shown = shown(&found);
        assert!(
            !shown.contains("hidden") && !shown.contains(&token(1)) && !shown.contains(&token(2)),
            "{shown}"
        );
        assert!(shown.contains("1 backup servers") && shown.contains("URL for guests"), "{shown}");
    }
}

fn cluster() -> Value {
    let member = |name: &str, last: u8, address_override: &str, token: &str| {
        json!({
            "NodeID": name, "NodeName": name, "Host": format!("https://10.0.0.{last}:8006"), "GuestURL": "",
            "IP": format!("10.0.0.{last}"), "IPOverride": address_override, "Online": true, "PulseReachable": null,
            "LastSeen": "2025-11-20T10:00:00Z", "TemperatureProxyControlToken": token,
        })
    };
    json!({
        "Name": "home", "Host": "https://10.0.0.11:8006", "User": "pulse@pve", "TokenName": "monitor",
        "TokenValue": "hidden-value", "VerifySSL": true, "IsCluster": true, "ClusterName": "homelab",
        "TemperatureProxyURL": "https://pve3:8443", "TemperatureProxyToken": token(9),
        "ClusterEndpoints": [
            member("pve1", 11, "", &token(1)), member("pve2", 12, "10.9.9.12", ""), member("pve3", 13, "", &token(3)),
        ],
    })
}

#[test]
fn a_cluster_is_read_with_members_overrides_and_a_token_for_each_host() {
    let found = read_data(&json!({"pveInstances": [cluster()]}));
    assert_unread(&found, &[]);
    let instance = &found.instances[0];
    assert_eq!(instance.name.as_deref(), Some("homelab"));
    assert_eq!(lines(instance), ["pve1|10.0.0.11", "pve2|10.9.9.12", "pve3|10.0.0.13"]);
    assert_eq!(instance.address_overrides, [("pve2".to_owned(), "10.9.9.12".to_owned())]);
    let pve = instance.pve.as_ref().unwrap();
    let urls: Vec<_> = pve.urls.iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["https://10.0.0.11:8006", "https://10.9.9.12:8006", "https://10.0.0.13:8006"]);
    assert_eq!(pve.token.id(), "pulse@pve!monitor");
    assert!(pve.has_trust_from_system && pve.fingerprints.is_empty());
    let proxy = |name: &str, url: Option<&str>, of: u8| FoundProxy {
        hostname: Some(name.to_owned()),
        proxy_url: url.map(str::to_owned),
        token_digest: digest_of(&token(of)),
    };
    assert_eq!(instance.proxies, [proxy("pve1", None, 1), proxy("pve3", Some("https://pve3:8443"), 3)]);
}

#[test]
fn a_token_for_a_whole_cluster_is_taken_without_a_guess_at_its_host() {
    let mut cluster = cluster();
    cluster["TemperatureProxyControlToken"] = json!(token(8));
    let found = read_data(&json!({"pveInstances": [cluster.clone()]}));
    let last = found.instances[0].proxies.last().unwrap();
    assert_eq!((last.hostname.as_deref(), &last.token_digest), (None, &digest_of(&token(8))));
    assert!(found.notes.iter().any(|note| note.contains("not written down")), "{:?}", found.notes);

    // One host alone is at the URL, and has no token of its own.
    cluster["TemperatureProxyURL"] = json!("https://10.9.9.12:8443");
    let found = read_data(&json!({"pveInstances": [cluster]}));
    let last = found.instances[0].proxies.last().unwrap();
    assert_eq!((last.hostname.as_deref(), &last.token_digest), (Some("pve2"), &digest_of(&token(8))));
}

#[test]
fn the_bearer_of_the_listener_counts_where_there_was_no_control_token_yet() {
    let found = read_data(&json!({"pveInstances": [{
        "Name": "delly", "Host": "https://delly:8006", "TemperatureProxyURL": "https://delly:8443",
        "TemperatureProxyToken": token(5), "TemperatureProxyControlToken": " ",
    }]}));
    assert_eq!(found.instances[0].proxies[0].token_digest, digest_of(&token(5)));
    assert_eq!(lines(&found.instances[0]), ["delly|"]);
    assert_unread(&found, &["it has no API token"]);
}

#[test]
fn a_broken_instance_is_named_and_the_others_are_read() {
    let good = json!({"name": "delly", "host": "delly.lan", "user": "u@pve", "tokenName": "t", "tokenValue": "v", "verifySSL": true});
    let mut member = cluster();
    member["ClusterEndpoints"][1]["IP"] = json!(12);
    let found = read_data(&json!({"pveInstances": [
        {"Name": "first", "TokenValue": 7}, good, "text", {"Name": 5}, {"Name": "fifth", "ClusterEndpoints": {}},
        {"Name": "sixth", "VerifySSL": "yes"}, member,
    ]}));
    let names: Vec<_> = found.instances.iter().map(|instance| instance.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["delly", "homelab"]);
    assert_eq!(lines(&found.instances[0]), ["delly|delly.lan"], "keys are read in any case");
    assert!(found.instances[0].pve.as_ref().unwrap().has_trust_from_system);
    assert_eq!(lines(&found.instances[1]), ["pve1|10.0.0.11", "pve3|10.0.0.13"]);
    let named = [
        "instance \"first\": TokenValue must be text, and is a number",
        "instance 3: it must be an object, and is text",
        "instance 4: Name must be text",
        "instance \"fifth\": ClusterEndpoints must be a list, and is an object",
        "instance \"sixth\": VerifySSL must be true or false, and is text",
        "instance \"home\": member 2: IP must be text",
    ];
    assert_unread(&found, &named);
}

#[test]
fn what_cannot_be_taken_of_an_instance_is_named_and_the_rest_is_taken() {
    let with = |more: Value| {
        let mut instance = json!({"Name": "delly", "Host": "https://delly.lan:8006", "User": "u@pve", "TokenName": "t",
            "TokenValue": "hidden", "VerifySSL": true});
        instance.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let found = read_data(&json!({"pveInstances": [instance]}));
        assert!(!shown(&found).contains("hidden"), "{}", shown(&found));
        found
    };
    for (more, part, is_asked) in [
        (json!({"Fingerprint": "AB:CD"}), "a fingerprint of its certificates must be", true),
        (json!({"TokenValue": "", "Password": "hidden"}), "it logs in with a password", false),
        (json!({"User": "root"}), "its API token cannot be taken: the token's id must be", false),
        (json!({"Host": "http://delly.lan:8006"}), "a URL of its API must begin with https://", false),
        (json!({"TemperatureProxyURL": "javascript:hidden"}), "the URL of its proxy", true),
        (json!({"TemperatureProxyURL": "https://root:hidden@pve:8443"}), "the URL of its proxy", true),
        (
            json!({"TemperatureProxyControlToken": "hidden token"}),
            "its control token: a token is one word",
            true,
        ),
    ] {
        let found = with(more.clone());
        assert!(unread(&found).iter().any(|unread| unread.contains(part)), "{more}: {:?}", unread(&found));
        assert_eq!(lines(&found.instances[0]), ["delly|delly.lan"], "{more}");
        assert_eq!(found.instances[0].pve.is_some(), is_asked, "{more}");
        let trusted = found.instances[0].pve.as_ref().is_some_and(|pve| pve.has_trust_from_system);
        assert_eq!(trusted, is_asked && !part.contains("certificate"), "{more}");
    }
    let found = with(json!({"VerifySSL": false}));
    let pve = found.instances[0].pve.as_ref().unwrap();
    assert!(pve.fingerprints.is_empty() && !pve.has_trust_from_system && found.unread.is_empty());
    let found = with(json!({"Name": "My Server", "Host": "https://localhost:8006"}));
    assert_eq!(found.instances[0].name.as_deref(), Some("My-Server"));
    assert!(found.instances[0].nodes.is_empty());
    assert_unread(&found, &["its node cannot be named as it is: node name \"My Server\""]);
    let found = with(json!({"Host": "https://localhost:8006"}));
    assert_eq!(lines(&found.instances[0]), ["delly|"]);
    assert!(found.notes.iter().any(|note| note.contains("loopback")), "{:?}", found.notes);
    let found = with(json!({"IsCluster": true, "ClusterName": "lab"}));
    assert_eq!((found.instances[0].name.as_deref(), found.instances[0].nodes.len()), (Some("lab"), 0));
    assert!(
        found.notes.iter().any(|note| note.contains("members are not written down")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_damaged_data_folder_is_named_and_nothing_in_it_is_changed() {
    let folder = pulse_data(&json!({"pveInstances": [cluster()]}));
    let (nodes, key) = (folder.path().join("nodes.enc"), folder.path().join(".encryption.key"));
    let (sealed, text) = (std::fs::read(&nodes).unwrap(), std::fs::read(&key).unwrap());
    let reads = |part: &str| {
        let found = read_pulse_data(folder.path());
        assert!(found.instances.is_empty());
        assert_unread(&found, &[part]);
        assert!(!shown(&found).contains(&String::from_utf8(text.clone()).unwrap()));
    };
    for at in [0, 11, 12, 40, sealed.len() - 1] {
        let mut tampered = sealed.clone();
        tampered[at] ^= 1;
        std::fs::write(&nodes, tampered).unwrap();
        reads("it does not open");
        std::fs::write(&nodes, &sealed[..at]).unwrap();
        reads(if at < 28 { "it is cut off" } else { "it does not open" });
    }
    std::fs::write(&nodes, &sealed).unwrap();
    for (other, part) in [
        (STANDARD.encode([43; 32]), "it does not open"),
        (STANDARD.encode([42; 16]), "it holds no key"),
        ("no base64!".to_owned(), "it holds no key"),
        (String::new(), "it holds no key"),
    ] {
        std::fs::write(&key, other).unwrap();
        reads(part);
    }
    std::fs::remove_file(&key).unwrap();
    reads("no .encryption.key");
    std::fs::write(&key, &text).unwrap();
    assert_eq!(read_pulse_data(folder.path()).instances.len(), 1);
    assert_eq!(std::fs::read(&nodes).unwrap(), sealed);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    std::fs::remove_file(&nodes).unwrap();
    reads("no nodes.enc");
    assert_unread(&read_pulse_data(&key), &["it is a file"]);
}

#[test]
fn what_opens_and_is_no_list_of_instances_is_named() {
    for (json, part) in [
        (&b"{\"pveInstances\": [{\"TokenValue\": \"hidden"[..], "is no JSON (line 1"),
        (b"", "is no JSON"),
        (b"[]", "is no list of instances: it must be an object"),
        (br#"{"pveInstances": "hidden"}"#, "pveInstances must be a list"),
        (b"\xff", "is no JSON"),
    ] {
        let found = read_pulse_data(sealed_data(json).path());
        assert!(found.instances.is_empty());
        assert_unread(&found, &[part]);
        assert!(!shown(&found).contains("hidden"));
    }
    let found = read_data(&json!({"pveInstances": null}));
    assert!(found.unread.is_empty() && found.notes[0].contains("no Proxmox VE instance"));
}
