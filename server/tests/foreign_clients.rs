//! Clients that nobody here wrote: Python's grpcio and grpcurl. Neither has the .proto: they ask the server what it
//! offers, trust it by its `ca.pem`, and do what a proxy does.
//!
//! Python's client is set up by `make tools`, and its absence is a failure. grpcurl needs Go: without it its test says
//! loudly that it was skipped.

use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use pulse_test_support::{PATIENCE, Server, eventually};
use serde_json::{Deserializer, Value, json};

const SERVICE: &str = "pulse.control.v1.ControlPlaneService";
const METHODS: [&str; 6] =
    ["Register", "ReportSync", "ReportTemperatures", "RotateToken", "Unregister", "WatchAuthorizedNodes"];
/// A file of the workspace.
fn of_workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The instance home with delly alone, and a join token's secret.
fn home(server: &Server) -> String {
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=192.0.2.5"]);
    let join = server.join_string(&["--instance", "home"]);
    join.split_once("join=").expect("a join string has a token").1.to_owned()
}

/// Adds minipc to home; returns the list of then.
fn grow(server: &Server) -> Value {
    server.pulse_ok(&[
        "instance",
        "set",
        "--yes",
        "home",
        "--endpoint",
        "delly=192.0.2.5",
        "--endpoint",
        "minipc",
    ]);
    server.allowlist("home")
}

/// A number of 64 bits, which protobuf's JSON writes as a string.
fn number(value: &Value) -> String {
    value.as_u64().expect("a number").to_string()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}

/// The token with its last character changed: of the right form, and nobody's.
fn wrong(token: &str) -> String {
    let last = if token.ends_with('A') { 'E' } else { 'A' };
    format!("{}{last}", &token[..token.len() - 1])
}

/// The detail of this type that came with an error.
fn detail<'a>(details: &'a Value, kind: &str) -> &'a Value {
    let is_kind = |detail: &&Value| detail["@type"] == format!("type.googleapis.com/google.rpc.{kind}");
    let found = details.as_array().and_then(|details| details.iter().find(is_kind));
    found.unwrap_or_else(|| panic!("no {kind}: {details}"))
}

/// A client that prints one JSON value after another for as long as its stream lives. Killed when dropped.
struct Stream {
    child: Child,
    values: Receiver<Value>,
}

impl Stream {
    fn open(mut command: Command) -> Stream {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (value_tx, values) = mpsc::channel();
        thread::spawn(move || {
            // Ends with the output, or with the test that listened.
            for value in Deserializer::from_reader(output).into_iter::<Value>().map_while(Result::ok) {
                if value_tx.send(value).is_err() {
                    return;
                }
            }
        });
        Stream { child, values }
    }

    /// The next message that is no bookmark.
    fn next(&self) -> Value {
        loop {
            let value = self.values.recv_timeout(PATIENCE).expect("the stream has a next message");
            if value.get("bookmark").is_none() {
                return value;
            }
        }
    }

    /// How the client ended: its exit code.
    fn ended(mut self) -> Option<i32> {
        let child = &mut self.child;
        let status = eventually(PATIENCE, "the client's end", || {
            child.try_wait().expect("a child can be waited for").ok_or("it still runs")
        });
        status.code()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Errors mean that it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a client to its end. Its deadline is its own, and shorter than a test's patience.
fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("start {command:?}: {error}"))
}

/// `tests/interop/client.py`.
fn python(server: &Server, arguments: &[&str]) -> Command {
    let python = of_workspace(".tools/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make tools`", python.display());
    let mut command = Command::new(python);
    command.arg(of_workspace("tests/interop/client.py")).arg("--addr").arg(server.address().to_string());
    command.arg("--cacert").arg(server.ca_path()).args(arguments);
    // A proxy of the caller's network is none of the test's.
    command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// One call: what it printed last, after checking the exit code.
fn call(server: &Server, code: i32, arguments: &[&str]) -> Value {
    let output = output(python(server, arguments));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
    let line = stdout.lines().next_back().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}{stderr}"))
}

#[test]
fn python_lists_the_service_and_reads_its_health() {
    let server = Server::start();
    let listed = call(&server, 0, &["list"]);
    let services = listed["services"].as_array().expect("a list");
    let names: Vec<&str> = services.iter().map(|service| text(&service["name"])).collect();
    // Its own reflection is the older version; grpcurl's is the newer.
    assert_eq!(names, ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", SERVICE]);
    let methods = services[2]["methods"].as_array().expect("a list");
    let mut names: Vec<&str> = methods.iter().map(|method| text(&method["name"])).collect();
    names.sort_unstable();
    assert_eq!(names, METHODS);
    for method in methods {
        assert_eq!(method["streams"], json!(method["name"] == "WatchAuthorizedNodes"));
    }
    assert_eq!(call(&server, 0, &["health"])["status"], "SERVING");
    assert_eq!(call(&server, 0, &["health", "--service", SERVICE])["status"], "SERVING");
    assert_eq!(call(&server, 1, &["health", "--service", "no.such.Service"])["error"]["code"], "NOT_FOUND");
}

#[test]
fn python_registers_watches_and_reports() {
    let server = Server::start();
    let join = home(&server);
    let registered = call(&server, 0, &["--token", &join, "register", "--hostname", "delly"]);
    let (token, id) = (text(&registered["ctrl_token"]), text(&registered["proxy_id"]));
    assert!(token.starts_with("pctl_"));
    assert_eq!(registered["instance"]["name"], "home");
    let first = server.allowlist("home");
    assert_eq!(registered["snapshot"]["hash"], first["hash"]);
    assert_eq!(registered["snapshot"]["nodes"], first["nodes"]);

    // Watch: the list at once, the next one when it changes.
    let watch = Stream::open(python(&server, &["--token", token, "watch", "--count", "1000"]));
    let now = watch.next();
    assert_eq!(now["snapshot"]["hash"], first["hash"], "{now}");
    let second = grow(&server);
    let pushed = watch.next()["snapshot"].clone();
    for key in ["hash", "nodes"] {
        assert_eq!(pushed[key], second[key], "{pushed}");
    }
    assert_eq!(
        (&pushed["epoch"], &pushed["revision"]),
        (&json!(number(&second["epoch"])), &json!(number(&second["revision"])))
    );
    assert_eq!(pushed["nodes"].as_array().map(Vec::len), Some(2));
    drop(watch);

    // Who holds it hears just that. The other header does as well.
    let (epoch, revision) = (number(&second["epoch"]), number(&second["revision"]));
    let held = |command: &'static str| {
        let fields = [
            "--epoch",
            &epoch,
            "--revision",
            &revision,
            "--scope",
            text(&pushed["scope"]),
            "--hash",
            text(&pushed["hash"]),
        ];
        [&["--proxy-token", token, command][..], &fields]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let call_held = |command, more: &[&str]| {
        let arguments = held(command);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        call(&server, 0, &arguments)
    };
    let unchanged = call_held("watch", &[]);
    assert_eq!(unchanged["unchanged"]["hash"], second["hash"], "{unchanged}");

    // What became of the list.
    call_held("sync", &["--refused", "wrong_hash", "--detail", "an attempt"]);
    let shown = server.wait_for_state(id, "REFUSED");
    assert_eq!(shown["last_error"], "wrong_hash: an attempt");
    call_held("sync", &["--on-disk"]);
    let shown = server.wait_for_applied(id, text(&second["hash"]));
    assert_eq!((&shown["is_on_disk"], &shown["version"]), (&json!(true), &json!("0.0.0-interop")));

    // Readings: taken once, refused by name.
    let session = "0192d3a8-7f3c-7d3e-8a51-0242ac120002";
    let report = |node: &str, ip: &str, value: [&str; 2], sequence: &str| {
        let arguments = [
            "--token",
            token,
            "report",
            "--node",
            node,
            "--ip",
            ip,
            value[0],
            value[1],
            "--session",
            session,
        ];
        call(
            &server,
            0,
            &[&arguments[..], &["--sequence", sequence, "--epoch", &epoch, "--revision", &revision]].concat(),
        )
    };
    let taken = report("delly", "192.0.2.5", ["--celsius", "51.5"], "1");
    assert_eq!((&taken["durable_sequence"], &taken["refused"]), (&json!("1"), &json!([])));
    let again = report("delly", "192.0.2.5", ["--celsius", "99"], "1");
    assert_eq!(again["durable_sequence"], "1");
    report("minipc", "", ["--unreadable", "no sensors"], "2");
    let refused = report("elsewhere", "", ["--celsius", "40"], "3");
    assert_eq!(refused["refused"][0]["node"]["name"], "elsewhere", "{refused}");
    assert!(text(&refused["refused"][0]["reason"]).contains("not on the list"));
    let temps = server.json(&["temps", "delly"]);
    assert_eq!(temps["nodes"][0]["proxy_id"], json!(id));
    let reading = &temps["nodes"][0]["readings"][0];
    assert_eq!(
        (&reading["sensor"], &reading["temperature_celsius"]),
        (&json!("interop/temp1"), &json!(51.5))
    );
    assert_eq!(reading["kind"], "cpu_package");
    let temps = server.json(&["temps"]);
    let nodes: Vec<&str> =
        temps["nodes"].as_array().expect("a list").iter().map(|node| text(&node["node"])).collect();
    assert_eq!(nodes, ["delly", "minipc"]);
    assert_eq!(temps["nodes"][1]["unreadable_reason"], "no sensors");
}

#[test]
fn python_reads_why_it_is_refused() {
    let server = Server::start();
    let join = home(&server);
    let registered = call(&server, 0, &["--token", &join, "register", "--hostname", "delly"]);
    let (token, id) = (text(&registered["ctrl_token"]), text(&registered["proxy_id"]));
    let refused = |arguments: &[&str], code: &str, reason: &str| {
        let error = call(&server, 1, arguments)["error"].clone();
        let info = detail(&error["details"], "ErrorInfo");
        let seen = [&error["code"], &info["reason"], &info["domain"]].map(text);
        assert_eq!(seen, [code, reason, "pulse"], "{error}");
        error
    };
    refused(&["--token", &wrong(token), "watch"], "UNAUTHENTICATED", "UNKNOWN_TOKEN");
    refused(&["--proxy-token", &wrong(token), "watch"], "UNAUTHENTICATED", "UNKNOWN_TOKEN");
    refused(&["--token", "nonsense", "watch"], "UNAUTHENTICATED", "UNKNOWN_TOKEN");
    refused(&["watch"], "UNAUTHENTICATED", "MISSING_TOKEN");
    refused(&["--token", &join, "register", "--hostname", "delly"], "UNAUTHENTICATED", "JOIN_TOKEN_USED");
    let error = refused(
        &["--token", token, "report", "--node", "delly", "--ip", "192.0.2.5", "--celsius", "999"],
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
    );
    let violation = &detail(&error["details"], "BadRequest")["field_violations"][0];
    assert_eq!(violation["field"], "reports[0].readings[0].temperature_celsius", "{violation}");

    server.pulse_ok(&["proxy", "revoke", id]);
    let watch = Stream::open(python(&server, &["--token", token, "watch", "--count", "2"]));
    assert!(watch.next()["revoked"]["reason"].is_string());
    let error = watch.next()["error"].clone();
    assert_eq!(
        (text(&error["code"]), text(&detail(&error["details"], "ErrorInfo")["reason"])),
        ("PERMISSION_DENIED", "PROXY_REVOKED")
    );
    assert_eq!(watch.ended(), Some(1));
}

/// grpcurl, as the tools set it up or as it is in `PATH`; `None` after saying that there is none.
fn grpcurl() -> Option<PathBuf> {
    let set_up = of_workspace(".tools/bin/grpcurl");
    let in_path = || {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).map(|folder| folder.join("grpcurl")).find(|path| path.is_file())
    };
    let found = Some(set_up).filter(|path| path.is_file()).or_else(in_path);
    if found.is_none() {
        // Not by `eprintln!`, which the test runner hides when a test passes.
        writeln!(std::io::stderr(), "SKIPPED: no grpcurl here (install Go, then run `make tools`)")
            .expect("standard error can be written");
    }
    found
}

#[test]
fn grpcurl_lists_describes_watches_and_reports() {
    let Some(program) = grpcurl() else { return };
    let server = Server::start();
    let join = home(&server);
    // The token goes in through the environment: arguments can be seen by all.
    let command = |token: &str, options: &[&str], method: &str| {
        let mut command = Command::new(&program);
        command.env_clear().env("TOKEN", token).arg("-cacert").arg(server.ca_path());
        command.args(["-max-time", "30", "-expand-headers"]);
        if !token.is_empty() {
            command.args(["-H", "authorization: Bearer ${TOKEN}"]);
        }
        command.args(options).arg(server.address().to_string()).args(method.split_whitespace());
        command
    };
    let ask = |token: &str, options: &[&str], method: &str| {
        let output = output(command(token, options, method));
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{method}: {stdout}{stderr}");
        stdout.into_owned()
    };
    let ask_json = |token: &str, data: &Value, method: &str| -> Value {
        let answer = ask(token, &["-d", &data.to_string()], &format!("{SERVICE}/{method}"));
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{method}: {error}: {answer}"))
    };

    let listed = ask("", &[], "list");
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names, ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", SERVICE]);
    let described = ask("", &[], &format!("describe {SERVICE}"));
    assert!(METHODS.iter().all(|method| described.contains(&format!("rpc {method} "))), "{described}");
    assert!(
        described.contains("returns ( stream .pulse.control.v1.WatchAuthorizedNodesResponse )"),
        "{described}"
    );
    let described = ask("", &[], "describe pulse.control.v1.Node");
    assert!(described.contains("string name = 1;") && described.contains("string ip = 2;"), "{described}");
    assert!(ask("", &[], "grpc.health.v1.Health/Check").contains("\"SERVING\""));

    let registered = ask_json(&join, &json!({ "hostname": "delly" }), "Register");
    let (token, id) = (text(&registered["ctrlToken"]), text(&registered["proxyId"]));
    let first = server.allowlist("home");
    let watch_method = format!("{SERVICE}/WatchAuthorizedNodes");
    let watch = Stream::open(command(token, &[], &watch_method));
    assert_eq!(watch.next()["snapshot"]["hash"], first["hash"]);
    let second = grow(&server);
    let pushed = watch.next()["snapshot"].clone();
    assert_eq!(pushed["hash"], second["hash"], "{pushed}");
    assert_eq!(pushed["nodes"][1]["name"], "minipc", "{pushed}");
    drop(watch);
    let list = json!({
        "epoch": pushed["epoch"], "scope": pushed["scope"], "revision": pushed["revision"], "hash": pushed["hash"],
    });
    let watch = Stream::open(command(token, &["-d", &list.to_string()], &watch_method));
    assert_eq!(watch.next()["unchanged"]["hash"], second["hash"]);
    drop(watch);
    let mut applied = list;
    applied["outcome"] = json!("SYNC_OUTCOME_APPLIED");
    assert_eq!(ask_json(token, &applied, "ReportSync"), json!({}));
    server.wait_for_applied(id, text(&second["hash"]));

    let reading = json!({ "sensor": "by hand", "kind": "SENSOR_KIND_NVME", "temperature_celsius": 33.25 });
    let node = json!({
        "node": { "name": "minipc" }, "collected_at": now(), "epoch": pushed["epoch"],
        "revision": pushed["revision"], "readings": [reading],
    });
    let report =
        json!({ "session": "0192d3a8-7f3c-7d3e-8a51-0242ac120003", "sequence": 1, "reports": [node] });
    assert_eq!(ask_json(token, &report, "ReportTemperatures"), json!({ "durableSequence": "1" }));
    let shown = server.json(&["temps", "minipc"])["nodes"][0]["readings"][0].clone();
    assert_eq!((&shown["temperature_celsius"], &shown["kind"]), (&json!(33.25), &json!("nvme")));

    // What `pulse proxy debug-token` prints works as it is, pasted into a shell.
    let mut shell = Command::new("/bin/sh");
    let folder = program.parent().expect("a program is in a folder");
    shell.env_clear().env("PATH", folder).arg("-c").arg(server.pulse_ok(&["proxy", "debug-token", id]));
    let watch = Stream::open(shell);
    assert_eq!(watch.next()["snapshot"]["hash"], second["hash"]);
    drop(watch);

    // A token that is nobody's: gRPC's own code (grpcurl's exit code is 64 and that), with the reason.
    let output = output(command(&wrong(token), &["-format-error"], &watch_method));
    assert_eq!(output.status.code(), Some(64 + 16), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stderr).expect("an error in JSON");
    let info = detail(&error["details"], "ErrorInfo");
    assert_eq!((&info["reason"], &info["domain"]), (&json!("UNKNOWN_TOKEN"), &json!("pulse")), "{error}");
    assert!(text(&error["message"]).contains("register the host again"));
}

/// The time as RFC 3339 has it.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}
