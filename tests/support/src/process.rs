//! The binaries as processes: found, started without the caller's environment, watched, killed.
//!
//! Always: a process dies with its value; its standard error is kept, and printed if the test failed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::capture;
use crate::wait::{PATIENCE, eventually};

/// Finds a binary of the workspace beside the test's own executable: `target/PROFILE/NAME`.
///
/// # Panics
/// When it was not built.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its executable");
    // Cargo puts tests into target/PROFILE/deps, and binaries one folder up.
    let folder = own.parent().and_then(Path::parent).expect("a test lies in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// Environment variables for a process, beside `PATH`: nothing else is passed on, so that no `PULSE_…`, `RUST_LOG` or
/// `NOTIFY_SOCKET` of the caller changes what is tested.
pub(crate) type Variables = BTreeMap<OsString, OsString>;

pub(crate) fn command(name: &str, variables: &Variables) -> Command {
    let mut command = Command::new(binary(name));
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.envs(variables);
    command
}

/// What a program that ended said.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

/// Runs a program to its end, with `input` as its standard input.
///
/// # Panics
/// When it does not end in [`PATIENCE`].
pub(crate) fn run(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    // A program that never reads its input may have closed it already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let stdout = read_all(child.stdout.take().expect("it is piped"));
    let stderr = read_all(child.stderr.take().expect("it is piped"));
    let mut child = Killed(child);
    let status = eventually(PATIENCE, &format!("the end of {command:?}"), || child.ended());
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("reading does not panic")).into_owned()
    };
    let ran = Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) };
    capture::keep(&command, &ran);
    ran
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is to show.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// A child that does not outlive its value.
#[derive(Debug)]
struct Killed(Child);

impl Killed {
    fn ended(&mut self) -> Result<ExitStatus, &'static str> {
        self.0.try_wait().expect("a child can be waited for").ok_or("it still runs")
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Errors mean that it ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that runs until it is told to end.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Killed,
    lines: Arc<Mutex<Vec<String>>>,
    shown: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts it; `name` stands above its log when a test fails.
    pub(crate) fn start(name: &str, mut command: Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut file = capture::log_of(name, &command);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                capture::write(&mut file, &format!("{line}\n"));
                kept.lock().expect("no holder of this lock panics").push(line);
            }
        });
        // Standard output is where a secret is shown to the person who started it: it is not kept.
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&shown);
        let showing = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                kept.lock().expect("no holder of this lock panics").push(line);
            }
        });
        Running { name: name.to_owned(), child: Killed(child), lines, shown, readers: vec![reader, showing] }
    }

    /// What it has written to its standard output so far.
    ///
    /// # Panics
    /// Never.
    pub fn shown(&self) -> Vec<String> {
        self.shown.lock().expect("no holder of this lock panics").clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The memory that it holds now: `VmRSS` of proc_pid_status(5).
    ///
    /// # Panics
    /// When it ended.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a process that runs has memory");
        let kibibytes = line.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok());
        kibibytes.expect("it is in kB") * 1024
    }

    /// What it wrote to standard error until now.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().expect("no holder of this lock panics").clone()
    }

    /// Whether a line of its log holds this text.
    pub fn has_said(&self, text: &str) -> bool {
        self.log().iter().any(|line| line.contains(text))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.ended().ok()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a child has a process id");
        kill_process(pid, signal).expect("a child that was not waited for can be signalled");
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it at once (SIGKILL), and returns when it is gone and its log is whole.
    pub fn kill(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
        self.finish_log();
    }

    /// Waits for its end, and returns its exit code; `None`: a signal ended it.
    ///
    /// # Panics
    /// When it still runs after `within`.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let child = &mut self.child;
        let status = eventually(within, &format!("the end of {}", self.name), || child.ended());
        self.finish_log();
        status.code()
    }

    fn finish_log(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("reading does not panic");
        }
    }
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failure that it explains")]
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}\n--- end of its log ---", self.name, self.log().join("\n"));
        }
    }
}

/// Adds a variable.
pub(crate) fn set(variables: &mut Variables, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
    variables.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
}
