//! What fuzzing begins with: small good and bad inputs of each target, made here so that they follow the contract.

use prost::Message;
use prost_types::Timestamp;
use pulse_proto::v1::{self, watch_authorized_nodes_response::Kind};
use pulse_proto::{Allowlist, Node};

use crate::{calls, state_files, watch_message};

/// The seeds of a target: their names, and the inputs.
pub fn of(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "admin_api" => vec![
            ("add", with(0, br#"{"name": "lab", "endpoints": [{"name": "a", "ip": "10.0.0.9"}, {"name": "b"}]}"#)),
            ("set", with(1, br#"{"endpoints": [{"name": "n1", "ip": "10.0.0.1"}]}"#)),
            ("range", with(1, br#"{"endpoints": [{"name": "b", "ip": "10.0.0.0/8"}]}"#)),
            ("show", with(3, b"ho%6de\0")),
            ("join", with(5, br#"{"instance": "home", "scope": "all", "uses": 3, "ttl_seconds": 60}"#)),
            ("proxy", with(7, br#"{"scope": "instance", "instance": "home"}"#)),
            ("lists", with(12, b"instance=home\0")),
            ("audit", with(14, b"limit=5&before=9\0")),
            ("readings", with(13, b"node=n1\0")),
        ],
        "cache_file" => vec![
            ("list", with(state_files::WRAP, &list().encode_to_vec())),
            ("empty", with(state_files::WRAP, &v1::AllowlistSnapshot { nodes: Vec::new(), ..list() }.encode_to_vec())),
            ("older", with(state_files::WRAP, &v1::AllowlistSnapshot { epoch: 0, ..list() }.encode_to_vec())),
            ("head", with(state_files::FIX_CHECKSUM, b"pulse-allowlist-cache 1\nproxy -\napplied 1763661000000\nsnapshot 0\n\n")),
            ("foreign", with(state_files::FIX_CHECKSUM, format!("pulse-allowlist-cache 1\nproxy {}\napplied 18446744073709551615\nsnapshot 2\nab\n", state_files::OWNER).as_bytes())),
        ],
        "identity_file" => vec![
            ("full", identity().into_bytes()),
            ("least", format!(r#"{{"format":1,"server_id":"{}","url":"https://pulse.lan","signing_keys":[]}}"#, state_files::SERVER).into_bytes()),
            ("newer", br#"{"format":2}"#.to_vec()),
        ],
        "join_string" => vec![
            ("join", b"pulse://pulse.lan:7655/?pin=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855&join=TOKEN".to_vec()),
            ("ipv6", b"pulse://[fd00::1]/?join=TOKEN&later=1".to_vec()),
            ("doubled", b"pulse://10.0.0.1:443?join=TOKEN&join=TOKEN".to_vec()),
            ("url", b"HTTP://pulse.lan:7655/".to_vec()),
            ("scope", b"instance:0192d3a8-7f3c-7d3e-8a51-0242ac120002".to_vec()),
            ("token", b"TOKEN\n".to_vec()),
            ("hash", b"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_vec()),
        ],
        "nodes" => vec![
            ("some", b"n1|10.0.0.1\nN1|10.0.0.1\nn1|::ffff:10.0.0.1\nb|\na-b|\n10.0.0.9|10.0.0.9".to_vec()),
            ("bad", b"*|\n-a|\nx|10.0.0.0/8\ny|fe80::1%eth0\nz|[fd00::1]\n10.0.0.1|10.0.0.2\n|".to_vec()),
            ("dns", b"a|host.example\nb|1.2.3.4.5\nc|x_y-z.\nd|0x7f.1\nfd00--1|FD00::0001".to_vec()),
        ],
        "older_files" => vec![
            ("config", with(0, b"allowed_nodes:\n  - delly\n  - 10.0.0.5\n  - 10.0.0.0/24\nallowed_nodes: [b]\nmetrics_address: default\n")),
            ("list", with(1, b"- delly\n- localhost\n- fd00::1\n")),
            ("lines", with(1, b"# hosts\ndelly\n- minipc\n192.0.2.0/24\n")),
            ("corosync", with(2, b"totem {\n  version: 2\n  cluster_name: home\n}\nnodelist {\n  node {\n    name: pve1\n    nodeid: 1\n    ring0_addr: 192.0.2.1\n  }\n}\nquorum {\n  device {\n    model: net\n  }\n}\n")),
            ("token", with(3, b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")),
            ("sealed", with(4, b"0123456789ab and what is no text")),
        ],
        "older_rest" => vec![
            ("register", with(0x20, b"\0{\"hostname\":\"n2\",\"kind\":\"socket\"}")),
            ("http", with(0x20, b"\0{\"hostname\":\"n2\",\"proxy_url\":\"https://n2:8443\",\"mode\":\"\"}")),
            ("wait", with(0x21, b"wait=false\0{\"hostname\":\"stranger\"}")),
            ("pull", with(0x12, b"")),
            ("report", with(0x13, b"\0{\"session\":\"0192d3a8-7f3c-7d3e-8a51-0242ac120002\",\"sequence\":1,\"nodes\":[{\"name\":\"n1\",\"ip\":\"10.0.0.1\",\"readings\":[]}]}")),
            ("goodbye", with(0x14, b"hostname=n2\0")),
            ("install", with(5, b"..%2f..%2fetc%2fpasswd\0")),
            ("token", with(0x32, b"pctl_AAAA\0")),
        ],
        "pve_answers" => vec![
            ("version", with(0, br#"{"data":{"version":"8.4.1","release":"8.4","repoid":"ab"}}"#)),
            ("cluster", with(1, br#"{"data":[{"type":"cluster","name":"c","nodes":2,"quorate":"1","version":3},{"type":"node","name":"a","nodeid":1,"ip":"192.0.2.1","online":1,"local":1},{"type":"node","name":"b","nodeid":"2","ip":"fd00::2","online":0,"local":0}]}"#)),
            ("alone", with(1, br#"{"data":[{"type":"node","name":"pve","nodeid":0,"ip":"192.0.2.1","online":1,"local":1}]}"#)),
            ("nodes", with(2, br#"[{"node":"a","type":"node"},{"node":"b"}]"#)),
        ],
        "proxy_config" => vec![
            ("full", [&b"pulse_control_plane:\n  url: https://pulse.lan:7655\n  token_file: /x\n  refresh_interval: 60s\n  insecure_skip_verify: false\n  pin: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nallowed_nodes: [n1, 10.0.0.0/24, 'fd00::1']\nreport_interval: 10s\nthis_node: n1\nsensors:\n  sysfs_root: /sys\nlog_level: info\n"[..], b"\0PULSE_CONTROL_PLANE_URL=http://[::1]\nLOG_FORMAT=json"].concat()),
            ("bad", b"url: x\nallowed_nodes:\n - a b\n - {c: d}\n &a b: *a\nreport_interval: 0.5s\nreport_interval: -1\n".to_vec()),
            ("older", b"allow_ssh: true\nsocket_path: /run/x.sock\nmetrics_address: 127.0.0.1:9127\nrate_limit:\n  per_peer_interval_ms: 1000\n".to_vec()),
        ],
        "server_config" => vec![
            ("full", [&b"listen: ['[::]:7655', 127.0.0.1:1]\npublic_address: pulse.lan:443\nplaintext: no\ntls:\n  certificate_file: /c\n  key_file: /k\nrefresh_interval: 60s\nshutdown_grace: 8s\nlog_level: info\nreadings:\n  max_bytes: 2GiB\n  max_age: 90d\nlimits:\n  max_nodes_per_list: 10000\n  max_request_bytes: 1MiB\n  handshake_timeout: 5s\n"[..], b"\0LIMITS_MAX_CONNECTIONS=1000\nLISTEN=10.0.0.1:7655"].concat()),
            ("plain", b"listen: \"[::1]:7655\"\nplaintext: true\n".to_vec()),
            ("bad", b"listen: 7655\nport: 1\nlimits: []\nreadings:\n  max_bytes: 99999999999999999999TiB\n  max_age: 1y\n".to_vec()),
        ],
        "static_list" => vec![
            ("block", b"allowed_nodes:\n  - n1\n  - 10.0.0.0/24\n  - fd00::1\n".to_vec()),
            ("bare", b"- n1\n- ::ffff:10.0.0.0/104\n- '[FD00::0001]'\n".to_vec()),
            ("lines", b"# mine\nn1 # first\n\n- 10.0.0.5/24\r\n  fd00::5/64\n".to_vec()),
            ("bad", b"*\n10.0.0.0/33\na b\npve1:8006\n".to_vec()),
        ],
        "sysfs" => vec![
            ("cpu", b"coretemp\n\x0045000\n\0Package id 0\n\x0084000\n\x00100000\n\x000\n\x0044000\n\0Core 0\n\x001\n\0\0acpitz\n\x0027800\n".to_vec()),
            ("odd", "k10temp\0-40001\0\u{1b}[31m Tctl\u{7f}\0 1e3\0-0\x001\09223372036854775808\0ääääääääää\0".into()),
            ("drive", b"nvme\n\x0035850\n\0Composite\n\x0065261850\n\x0084850\n".to_vec()),
        ],
        "watch_message" => watch(),
        "readings_buffer" => {
            let mut file = b"pulse-readings-buffer 1\n".to_vec();
            for sequence in 1..4 {
                let report = v1::ReportTemperaturesRequest { sequence, ..report() };
                file.extend(report.encode_length_delimited_to_vec());
            }
            let other = b"pulse-readings-buffer 2\nwhatever";
            let fix = state_files::FIX_CHECKSUM;
            vec![("three", with(fix, &file)), ("cut", with(fix, &file[..40])), ("other", with(fix, other)), ("damaged", with(0, &file))]
        }
        "register" => vec![
            ("host", with(2, &register().encode_to_vec())),
            ("waiting", with(2, &v1::RegisterRequest { hostname: "no-node".into(), ..register() }.encode_to_vec())),
            ("bad", with(2, &v1::RegisterRequest { proxy_url: "javascript:1".into(), kind: 9, ..register() }.encode_to_vec())),
            ("unknown", with(0, &register().encode_to_vec())),
        ],
        "watch_request" => vec![
            ("first", with(0, &[])),
            ("same", with(calls::TRUE_LIST, &[])),
            ("other", with(0, &held().encode_to_vec())),
            ("bad", with(0, &v1::WatchAuthorizedNodesRequest { hash: "sha256:x".into(), epoch: u64::MAX, scope: "s".repeat(65), ..held() }.encode_to_vec())),
        ],
        "report_sync" => vec![
            ("applied", with(calls::TRUE_LIST, &v1::ReportSyncRequest { outcome: 1, on_disk: true, version: "1".into(), ..Default::default() }.encode_to_vec())),
            ("refused", with(calls::TRUE_LIST, &v1::ReportSyncRequest { outcome: 2, refusal_reason: 1, detail: "a\u{7}b\u{2028}".into(), ..Default::default() }.encode_to_vec())),
            ("bad", with(0, &v1::ReportSyncRequest { hash: "x".into(), ..Default::default() }.encode_to_vec())),
        ],
        "report_temperatures" => vec![
            ("good", with(calls::TRUE_FRAME | calls::TRUE_NODES, &report().encode_to_vec())),
            ("foreign", with(calls::TRUE_FRAME, &report().encode_to_vec())),
            ("raw", with(0, &report().encode_to_vec())),
            ("bad", with(0, &v1::ReportTemperaturesRequest { session: "x".into(), ..report() }.encode_to_vec())),
        ],
        "rotate_token" | "unregister" => vec![("empty", Vec::new()), ("more", b"\x0a\x02ab\x10\x01".to_vec()), ("cut", b"\x0a\x09ab".to_vec())],
        _ => Vec::new(),
    }
}

fn with(switches: u8, rest: &[u8]) -> Vec<u8> {
    [&[switches], rest].concat()
}

fn list() -> v1::AllowlistSnapshot {
    let nodes = [("n1", "10.0.0.1"), ("n2", ""), ("n3", "fd00::3"), ("n4", "n4.example")];
    let allowlist = Allowlist::new(nodes.iter().filter_map(|(name, address)| Node::new(name, address).ok()));
    v1::AllowlistSnapshot {
        epoch: 1_763_661_000_000,
        scope: "instance:0192d3a8-7f3c-7d3e-8a51-0242ac120002".into(),
        revision: 7,
        hash: allowlist.hash().to_string(),
        nodes: allowlist.to_wire(),
        updated_at: Some(Timestamp { seconds: 1_763_661_000, nanos: 5 }),
        refresh_interval: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        key_id: "0011223344556677".into(),
        signature: vec![1; 64],
    }
}

fn watch() -> Vec<(&'static str, Vec<u8>)> {
    use watch_message::{AHEAD, FIX_HASH, MAKE, SIGN, SORT};
    let message = |kind| v1::WatchAuthorizedNodesResponse { kind: Some(kind), server: None }.encode_to_vec();
    let (epoch, revision, hash) = (1, 2, list().hash);
    let server = v1::ServerInfo {
        server_id: "0192d3a8-7f3c-7d3e-8a51-0242ac120001".into(),
        version: "0.1.0".into(),
        signing_keys: vec![v1::SigningKey {
            key_id: "k".into(),
            public_key: vec![2; 32],
            announcement_signature: vec![3; 64],
            announced_by: "j".into(),
        }],
        ..Default::default()
    };
    let reason = "because".to_owned();
    vec![
        ("list", with(SORT | FIX_HASH | SIGN, &message(Kind::Snapshot(list())))),
        ("unsigned", with(0, &message(Kind::Snapshot(list())))),
        ("older", with(SORT | FIX_HASH | SIGN | AHEAD, &message(Kind::Snapshot(list())))),
        (
            "unchanged",
            with(0, &message(Kind::Unchanged(v1::Unchanged { epoch, revision, hash: hash.clone() }))),
        ),
        ("bookmark", with(0, &message(Kind::Bookmark(v1::Bookmark { epoch, revision, hash })))),
        ("waiting", with(0, &message(Kind::Waiting(v1::Waiting { reason: reason.clone() })))),
        ("rotate", with(0, &message(Kind::RotateToken(v1::RotateToken {})))),
        ("revoked", with(0, &message(Kind::Revoked(v1::Revoked { reason: reason.clone() })))),
        ("goodbye", with(0, &message(Kind::Goodbye(v1::Goodbye { reconnect_after: None, reason })))),
        (
            "keys",
            with(0, &v1::WatchAuthorizedNodesResponse { kind: None, server: Some(server) }.encode_to_vec()),
        ),
        ("made", with(MAKE | SORT | FIX_HASH | SIGN, &[0, 1, 2, 3, 10, 10, 11, 12, 20, 13, 21, 14])),
        ("made_badly", with(MAKE | FIX_HASH | SIGN, &[1, 255, 63, 255, 10, 0, 4, 1, 1, 1, 11, 3])),
    ]
}

fn identity() -> String {
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let hash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    format!(
        r#"{{"format": 1, "server_id": "{}", "turn": 2, "url": "https://pulse.lan:7655", "pin": "{hash}",
"proxy_id": "{}", "hostname": "n1", "hostname_given": true, "signing_keys": ["{key}"],
"mark": {{"epoch": 1763661000000, "revision": 7, "scope": "all", "hash": "{hash}"}},
"revoked": "by hand", "token_file_sha256": "{key}"}}"#,
        state_files::SERVER,
        state_files::OWNER
    )
}

fn register() -> v1::RegisterRequest {
    v1::RegisterRequest {
        hostname: "n2".into(),
        kind: 2,
        proxy_url: "https://n2:8443".into(),
        machine_id: "0".repeat(64),
        proxy_id: "0192d3a8-7f3c-7d3e-8a51-0242ac120002".into(),
        version: "0.1.0".into(),
    }
}

fn held() -> v1::WatchAuthorizedNodesRequest {
    let v1::AllowlistSnapshot { epoch, revision, scope, hash, .. } = list();
    v1::WatchAuthorizedNodesRequest {
        epoch,
        revision,
        scope,
        hash,
        version: "0.1.0".into(),
        source: 2,
        ..Default::default()
    }
}

fn report() -> v1::ReportTemperaturesRequest {
    let reading = |sensor: &str, celsius| v1::Reading {
        sensor: sensor.into(),
        chip: "coretemp".into(),
        label: "Core 0".into(),
        kind: 2,
        temperature_celsius: celsius,
        max_celsius: Some(84.0),
        critical_celsius: None,
    };
    let report = |name: &str, readings, unreadable_reason: &str| v1::NodeReport {
        node: Some(v1::Node { name: name.into(), ip: String::new() }),
        collected_at: Some(Timestamp { seconds: 1_763_661_000, nanos: 0 }),
        epoch: 1,
        revision: 2,
        readings,
        unreadable_reason: unreadable_reason.into(),
    };
    v1::ReportTemperaturesRequest {
        session: "0192d3a8-7f3c-7d3e-8a51-0242ac120002".into(),
        sequence: 1,
        reports: vec![
            report("n1", vec![reading("coretemp-isa-0000/temp1", 45.5), reading("x/temp2", -40.0)], ""),
            report("n2", Vec::new(), "not this host"),
        ],
    }
}
