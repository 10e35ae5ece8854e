//! What the commands say and how they end, with the real binary and no server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pulse_proto::{Pin, Token, TokenKind};
use pulse_test_support::capture::keep_output;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// No step takes longer on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

struct Host(TempDir);

impl Host {
    fn new(config: &str) -> Host {
        let host = Host(tempfile::tempdir().expect("a folder"));
        fs::write(host.config(), config).expect("a file");
        host
    }

    fn config(&self) -> std::path::PathBuf {
        self.0.path().join("config.yaml")
    }

    fn state(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pulse-sensor-proxy"));
        // Nothing of the machine that runs the tests decides what they see.
        command
            .env_clear()
            .args(args)
            .arg("--config")
            .arg(self.config())
            .arg("--state-dir")
            .arg(self.state());
        command
    }

    fn output(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = self.command(args);
        let output = command.output().expect("the binary starts");
        keep_output(&command, &output);
        let Output { status, stdout, stderr } = output;
        (status.code(), String::from_utf8_lossy(&stdout).into(), String::from_utf8_lossy(&stderr).into())
    }

    fn json(&self, args: &[&str]) -> (Option<i32>, Value) {
        let (code, stdout, stderr) = self.output(&[args, &["--json"]].concat());
        (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}")))
    }

    fn run(&self) -> Run {
        let mut child = self.command(&["run"]).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (lines_tx, lines) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if lines_tx.send(line).is_err() {
                    return;
                }
            }
        });
        Run { child, lines }
    }
}

struct Run {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Run {
    fn says(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{text}: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    fn code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A join string for a port at which nobody listens.
fn join_string() -> String {
    let token = Token::generate(TokenKind::Join).expect("a token");
    format!("pulse://127.0.0.1:1/?pin={}&join={}", Pin::of_spki(b"none"), token.reveal())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn mistakes_of_a_person_end_with_2_and_say_so_in_json() {
    let host = Host::new("allowed_nodes: [delly]\nreport_intervall: 3\n");
    let (code, stdout, stderr) = host.output(&["config", "check"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("report_interval"), "{stderr}");
    for args in [["config", "check"].as_slice(), &["status"], &["run"], &["collect"], &["sync"]] {
        let (code, json) = host.json(args);
        assert_eq!((code, json["reason"].as_str()), (Some(2), Some("bad_config")), "{args:?}");
    }
    let host = Host::new("");
    let (code, json) = host.json(&["register", "--join", "https://pulse.lan"]);
    assert_eq!((code, json["reason"].as_str()), (Some(2), Some("bad_join_string")));
    let (code, json) = host.json(&["sync"]);
    assert_eq!((code, json["reason"].as_str()), (Some(2), Some("no_control_plane")));
    let (code, json) = host.json(&["bogus"]);
    assert_eq!((code, json["reason"].as_str()), (Some(2), Some("usage")));
}

#[test]
fn a_join_string_with_another_pin_than_the_configuration_is_not_used_up() {
    let pin = Pin::of_spki(b"other");
    let host = Host::new(&format!("pulse_control_plane:\n  url: https://127.0.0.1:1\n  pin: {pin}\n"));
    let (code, json) = host.json(&["register", "--join", &join_string(), "--hostname", "delly"]);
    assert_eq!((code, json["reason"].as_str()), (Some(2), Some("other_pin")), "{json}");
    let text = json["error"].as_str().expect("it says why");
    assert!(text.contains(&pin.to_string()) && text.contains("take the pin out"), "{text}");
    assert_eq!(host.json(&["status"]).1["registration_pending"], false);
}

#[test]
fn a_registration_without_its_server_is_kept_and_told_apart_from_one_that_is_done() {
    let config = "# mine\nallowed_nodes: [delly]   # ours\n";
    let host = Host::new(config);
    let join = join_string();
    let mut child = host
        .command(&["register", "--join", "-", "--hostname", "delly", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{join}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["reason"].as_str()), (Some(1), Some("unreachable")));
    assert!(!json.to_string().contains(join.split("join=").nth(1).unwrap()), "{json}");
    let kept = host.state().join("control/pending-registration.json");
    assert_eq!(mode(&kept), 0o600);
    // What a person wrote stands there as it was, with the block behind it.
    let written = fs::read_to_string(host.config()).unwrap();
    assert!(
        written.starts_with(config) && written.contains("pulse_control_plane:\n  url: https://127.0.0.1:1\n")
    );

    let (code, json) = host.json(&["status"]);
    assert_eq!(
        (code, &json["registration_pending"], &json["registered"]),
        (Some(0), &true.into(), &false.into())
    );
    assert_eq!(json["list"]["source"], "static");

    // A second time the block is there, and nothing is written into the file.
    let before = fs::metadata(host.config()).unwrap().modified().unwrap();
    let (code, _) = host.json(&["register", "--join", &join]);
    assert_eq!(code, Some(1));
    assert_eq!(fs::metadata(host.config()).unwrap().modified().unwrap(), before);
}

#[test]
fn register_makes_the_configuration_that_is_named_and_every_other_command_asks_for_it() {
    let host = Host::new("");
    fs::remove_file(host.config()).unwrap();
    for args in [["run"].as_slice(), &["sync"], &["status"], &["collect"], &["config", "check"]] {
        assert_eq!(host.json(args).0, Some(2), "{args:?}");
        assert!(!host.config().exists(), "{args:?}");
    }
    let (code, json) = host.json(&["register", "--join", &join_string()]);
    assert_eq!((code, json["reason"].as_str()), (Some(1), Some("unreachable")));
    let written = fs::read_to_string(host.config()).unwrap();
    assert!(written.starts_with("pulse_control_plane:\n  url: https://127.0.0.1:1\n"), "{written}");
    assert_eq!(mode(&host.config()), 0o644);
    assert_eq!(host.json(&["config", "check"]).0, Some(0));

    // Its folder is a person's to choose: a slip of the pen makes none.
    let host = Host::new("");
    fs::remove_dir_all(host.0.path()).unwrap();
    let (code, json) = host.json(&["register", "--join", &join_string()]);
    assert_eq!((code, json["reason"].as_str()), (Some(2), Some("bad_config")));
    assert!(json["error"].as_str().unwrap().contains("create the folder first"), "{json}");
}

#[test]
fn the_join_string_comes_from_a_file_or_from_the_environment() {
    let host = Host::new("");
    let path = host.0.path().join("join");
    fs::write(&path, join_string()).unwrap();
    let (code, json) = host.json(&["register", "--join-file", path.to_str().unwrap()]);
    assert_eq!((code, json["reason"].as_str()), (Some(1), Some("unreachable")));
    let mut command = host.command(&["register", "--json"]);
    let output = command.env("PULSE_SENSOR_PROXY_JOIN", join_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn without_a_server_it_runs_on_the_static_list_and_ends_with_0() {
    let host = Host::new("allowed_nodes: [delly, 10.0.0.0/24]\n");
    for signal in [Signal::TERM, Signal::INT] {
        let mut run = host.run();
        run.says("static list alone");
        run.says("running");
        run.signal(signal);
        assert_eq!(run.code(), Some(0));
    }
    assert!(!host.state().exists());
}

#[test]
fn a_server_that_is_away_is_said_once_and_a_second_run_is_refused() {
    let pin = Pin::of_spki(b"none");
    let host = Host::new(&format!("pulse_control_plane:\n  url: https://127.0.0.1:1\n  pin: {pin}\n"));
    let token = Token::generate(TokenKind::Ctrl).unwrap();
    fs::write(host.0.path().join(".pulse-control-token"), token.reveal()).unwrap();
    let mut run = host.run();
    let line = run.says("the server is not reachable");
    assert!(line.contains("127.0.0.1:1") && !line.contains(&token.reveal()[5..]), "{line}");
    assert_eq!(host.json(&["status"]).1["running"], true);
    assert_eq!(host.json(&["run"]).1["reason"], "in_use");
    let (code, _, stderr) = host.output(&["run"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("another pulse-sensor-proxy runs"), "{stderr}");
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(0));
    assert_eq!(host.json(&["status"]).1["running"], false);
    while let Ok(line) = run.lines.try_recv() {
        assert!(!line.contains("the server is not reachable"), "{line}");
    }
}

#[test]
fn a_damaged_identity_is_a_persons_to_mend() {
    let host = Host::new("pulse_control_plane:\n  url: https://127.0.0.1:1\n");
    let folder = host.state().join("control/0192d3a8-7f3c-7d3e-8a51-0242ac120002");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("identity.json"), "{").unwrap();
    for command in ["status", "sync"] {
        let (code, json) = host.json(&[command]);
        assert_eq!((code, &json["reason"]), (Some(2), &"bad_state".into()), "{json}");
        let text = json["error"].as_str().unwrap();
        assert!(text.contains("identity.json is damaged") && text.contains("register again"), "{text}");
    }
}

#[test]
fn collect_shows_what_the_sensors_say_whatever_is_allowed() {
    let host = Host::new("");
    let chip = host.0.path().join("sys/class/hwmon/hwmon0");
    fs::create_dir_all(&chip).unwrap();
    for (name, value) in [("name", "coretemp"), ("temp1_input", "45000"), ("temp1_label", "Package id 0")] {
        fs::write(chip.join(name), value).unwrap();
    }
    fs::write(host.config(), format!("sensors:\n  sysfs_root: {}\n", host.0.path().join("sys").display()))
        .unwrap();
    let (code, json) = host.json(&["collect"]);
    assert_eq!((code, &json["readings"][0]["temperature_celsius"]), (Some(0), &45.0.into()));
    let (_, text, _) = host.output(&["collect"]);
    assert!(text.contains("Package id 0") && text.contains("45.0 °C"), "{text}");
}
