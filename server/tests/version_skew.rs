//! Programs of different versions work together: the real server and the real proxy, with a relay between them that
//! lets each hear what a later or an earlier version of the other would say.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{
    RegisterRequest, RegisterResponse, ReportSyncRequest, ReportTemperaturesRequest,
    WatchAuthorizedNodesRequest, WatchAuthorizedNodesResponse,
};
use pulse_test_support::wire::{self, Wire};
use pulse_test_support::{PATIENCE, Passing, Proxy, Relay, Server, eventually};
use serde_json::Value;

/// A number that no enum of the contract has.
const LATER: i32 = 77;

/// A server with the instance home of one node that is this host.
fn home() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly"]);
    server
}

/// A proxy that runs behind a relay.
fn join(server: &Server, relay: &Relay) -> Proxy {
    let mut proxy = Proxy::builder("delly").build();
    proxy.register_ok(&relay.join(&server.join_string(&["--instance", "home"])));
    proxy.start();
    proxy
}

/// Asserts that a change gets through, and that readings arrive.
fn lists_apply_and_readings_arrive(server: &Server, proxy: &Proxy) {
    let first = server.allowlist("home");
    server.wait_for_applied(&proxy.id(), hash(&first));
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "nas"]);
    let second = server.allowlist("home");
    assert_ne!(hash(&first), hash(&second));
    server.wait_for_applied(&proxy.id(), hash(&second));
    assert_eq!(proxy.status()["list"]["hash"], second["hash"]);
    proxy.sysfs().set_temperature(53.0);
    eventually(PATIENCE, "the reading arrives", || {
        // Not of the text: a time can have a 53.0 in it.
        let ran = server.pulse(&["temps", "delly", "--json"]);
        let is_there = ran.stdout.contains("\"temperature_celsius\": 53.0");
        if is_there { Ok(()) } else { Err(ran) }
    });
}

fn hash(list: &Value) -> &str {
    list["hash"].as_str().expect("a list has a hash")
}

/// What passed a relay, so that no test passes because nothing did.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<BTreeSet<(String, bool)>>>);

impl Seen {
    fn note(&self, passing: &Passing<'_>) {
        self.0.lock().expect("nobody panics here").insert((passing.method.to_owned(), passing.is_answer));
    }

    #[track_caller]
    fn assert_both_ways(&self, methods: &[&str]) {
        let seen = self.0.lock().expect("nobody panics here");
        for method in methods {
            for is_answer in [false, true] {
                assert!(seen.contains(&((*method).to_owned(), is_answer)), "{method}: {seen:?}");
            }
        }
    }
}

#[test]
fn fields_and_kinds_of_a_later_version_are_passed_over_by_both_ends() {
    let server = home();
    let seen = Seen::default();
    let noted = seen.clone();
    let methods = wire::methods();
    let relay = Relay::start(&server, move |passing| {
        noted.note(&passing);
        let method = methods.iter().find(|method| method.name() == passing.method).expect("it is a method");
        let full_name = if passing.is_answer { method.output_type() } else { method.input_type() };
        let message = wire::with_unknown_fields(wire::short(full_name), &passing.message);
        if !(method.server_streaming() && passing.is_answer) {
            return vec![message];
        }
        // Before each message one of every number that is free for a kind.
        let kinds = (8..15).map(|number| Wire::new().bytes(number, "of a later version").into_bytes());
        kinds.chain([message]).collect()
    });
    let proxy = join(&server, &relay);
    lists_apply_and_readings_arrive(&server, &proxy);
    server.pulse_ok(&["proxy", "rotate", &proxy.id()]);
    eventually(PATIENCE, "the proxy has a new token", || {
        match proxy.process().has_said("this proxy has a new token") {
            true => Ok(()),
            false => Err(proxy.process().log()),
        }
    });
    seen.assert_both_ways(&[
        "Register",
        "WatchAuthorizedNodes",
        "ReportSync",
        "ReportTemperatures",
        "RotateToken",
    ]);
    // With the new token too; and nothing of what was not understood is a problem to anybody.
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    for process in [server.process(), proxy.process()] {
        let problems: Vec<_> = process
            .log()
            .into_iter()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

#[test]
fn a_kind_that_is_not_known_is_a_sign_of_life_and_nothing_else() {
    let server = home();
    // Nothing but a kind of a later version is heard instead of each bookmark, and instead of `unchanged`.
    let relay = Relay::start(&server, |passing| {
        let is_watch = passing.method == "WatchAuthorizedNodes" && passing.is_answer;
        if !is_watch {
            return passing.unchanged();
        }
        let message = WatchAuthorizedNodesResponse::decode_from(&passing.message);
        match message.kind {
            Some(Kind::Bookmark(_) | Kind::Unchanged(_)) => vec![Wire::new().bytes(14, "").into_bytes()],
            _ => passing.unchanged(),
        }
    });
    let proxy = join(&server, &relay);
    let id = proxy.id();
    server.wait_for_state(&id, "IN_SYNC");
    let ended = || {
        let metrics = server.metrics();
        metrics.value("pulse_watch_streams_ended_total{reason=\"gone\"}")
    };
    let before = ended();
    // Three intervals of five seconds without a sign of life end a stream; these four are heard through.
    pulse_test_support::let_pass(std::time::Duration::from_secs(20));
    assert_eq!(ended(), before, "a stream that is heard is not given up: {:#?}", proxy.process().log());
    server.wait_for_state(&id, "IN_SYNC");
}

#[test]
fn values_of_a_later_versions_enums_mean_what_the_contract_says() {
    let server = home();
    let relay = Relay::start(&server, |passing| match (passing.method, passing.is_answer) {
        ("Register", false) => passing.edited(|message: &mut RegisterRequest| message.kind = LATER),
        ("WatchAuthorizedNodes", false) => {
            passing.edited(|message: &mut WatchAuthorizedNodesRequest| message.source = LATER)
        }
        ("ReportSync", false) => {
            passing.edited(|message: &mut ReportSyncRequest| message.refusal_reason = LATER)
        }
        ("ReportTemperatures", false) => passing.edited(|message: &mut ReportTemperaturesRequest| {
            message
                .reports
                .iter_mut()
                .flat_map(|report| &mut report.readings)
                .for_each(|reading| reading.kind = LATER);
        }),
        _ => passing.unchanged(),
    });
    let proxy = join(&server, &relay);
    lists_apply_and_readings_arrive(&server, &proxy);
    let shown = server.json(&["proxy", "show", &proxy.id()]);
    assert_eq!(shown["kind"], "socket", "a kind that is not known is taken for the usual one: {shown}");
    assert_eq!(shown["list_source"], "", "a source that is not known is not said: {shown}");
    let temperatures = server.json(&["temps", "delly"]);
    let reading = &temperatures["nodes"][0]["readings"][0];
    assert_eq!(reading["kind"], "other", "{temperatures}");
}

#[test]
fn an_outcome_that_is_not_known_is_refused_and_nothing_is_taken_for_applied() {
    let server = home();
    let relay = Relay::start(&server, |passing| match (passing.method, passing.is_answer) {
        ("ReportSync", false) => passing.edited(|message: &mut ReportSyncRequest| message.outcome = LATER),
        _ => passing.unchanged(),
    });
    let proxy = join(&server, &relay);
    let first = server.wait_for_state(&proxy.id(), "IN_SYNC")["applied"].clone();
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly", "--endpoint", "nas"]);
    // The list is in force all the same, and the proxy goes on.
    let list = server.allowlist("home");
    proxy.wait_for_status("the list is in force", |status| status["list"]["hash"] == list["hash"]);
    eventually(PATIENCE, "the refusal is said", || {
        let log = proxy.process().log();
        let is_said =
            log.iter().any(|line| line.contains("refuses a sync report") && line.contains("outcome"));
        if is_said { Ok(()) } else { Err(log) }
    });
    assert_eq!(server.json(&["proxy", "show", &proxy.id()])["applied"], first);
}

#[test]
fn an_older_server_that_says_only_what_it_must_is_enough() {
    let server = home();
    let seen = Seen::default();
    let noted = seen.clone();
    let relay = Relay::without_details(&server, move |passing| {
        noted.note(&passing);
        match (passing.method, passing.is_answer) {
            ("Register", true) => passing.edited(|message: &mut RegisterResponse| {
                message.instance = None;
                message.list = None;
                message.token.clear();
                let server = message.server.as_mut().expect("a proxy keeps its state by the server's id");
                server.version.clear();
                server.refresh_interval = None;
            }),
            ("WatchAuthorizedNodes", true) => passing.edited(|message: &mut WatchAuthorizedNodesResponse| {
                message.server = None;
                if let Some(Kind::Snapshot(list)) = &mut message.kind {
                    list.updated_at = None;
                    list.refresh_interval = None;
                }
            }),
            _ => passing.unchanged(),
        }
    });
    let proxy = join(&server, &relay);
    lists_apply_and_readings_arrive(&server, &proxy);
    seen.assert_both_ways(&["Register", "WatchAuthorizedNodes", "ReportSync", "ReportTemperatures"]);
    // A refusal without details is told by its code and its text.
    let used_up = server.join_string(&["--instance", "home", "--uses", "1"]);
    Proxy::builder("nas").build().register_ok(&used_up);
    let ran = Proxy::builder("other").build().register(&relay.join(&used_up));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no uses left"), "{ran:?}");
    // And the stream's own word is enough to end it.
    server.pulse_ok(&["proxy", "revoke", &proxy.id()]);
    proxy.wait_for_status("it is revoked", |status| {
        status["revoked"].is_string() || status["revoked"].is_object()
    });
}

#[test]
fn an_older_proxy_that_says_only_what_it_must_is_enough() {
    let server = home();
    let relay = Relay::start(&server, |passing| match (passing.method, passing.is_answer) {
        ("Register", false) => passing.edited(|message: &mut RegisterRequest| {
            let hostname = std::mem::take(&mut message.hostname);
            *message = RegisterRequest { hostname, ..RegisterRequest::default() };
        }),
        ("WatchAuthorizedNodes", false) => vec![Vec::new()],
        ("ReportSync", false) => passing.edited(|message: &mut ReportSyncRequest| {
            message.on_disk = false;
            message.at = None;
            message.detail.clear();
            message.version.clear();
        }),
        ("ReportTemperatures", false) => passing.edited(|message: &mut ReportTemperaturesRequest| {
            for report in &mut message.reports {
                (report.epoch, report.revision) = (0, 0);
                for reading in &mut report.readings {
                    reading.chip.clear();
                    reading.label.clear();
                    reading.kind = 0;
                    (reading.max_celsius, reading.critical_celsius) = (None, None);
                }
            }
        }),
        _ => passing.unchanged(),
    });
    let proxy = join(&server, &relay);
    lists_apply_and_readings_arrive(&server, &proxy);
    let shown = server.json(&["proxy", "show", &proxy.id()]);
    assert_eq!((&shown["version"], &shown["list_source"]), (&"".into(), &"".into()), "{shown}");
    // People see it too, without what is not known.
    assert!(server.pulse_ok(&["proxy", "show", &proxy.id()]).contains("delly"));
    assert!(server.pulse_ok(&["temps"]).contains("53.0"));
}

/// `decode` for a closure that cannot fail.
trait DecodeFrom: Sized {
    fn decode_from(bytes: &[u8]) -> Self;
}

impl<M: prost::Message + Default> DecodeFrom for M {
    fn decode_from(bytes: &[u8]) -> M {
        M::decode(bytes).expect("the server sends messages of the method's type")
    }
}
