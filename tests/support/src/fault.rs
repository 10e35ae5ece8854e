//! A fault at one system call of a program that is otherwise left alone: the call fails, or the program is killed in
//! front of it. `strace` does both (its option `inject`), so what is tested is the program that people run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::NamedTempFile;

/// What writes a file, makes it durable, or puts it in its place.
const CALLS: [&str; 7] = ["write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink"];

/// More calls than one way of a program has.
const TOO_MANY: u32 = 400;

/// What happens at the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// It fails with this error, such as `EIO` or `ENOSPC`.
    Error(&'static str),
    /// The program is killed in front of it, so the call before it was its last.
    Kill,
}

/// A fault at the `nth` such call (from 1) of a thread that has one of these paths.
#[derive(Debug)]
pub struct Fault {
    blow: Blow,
    call: &'static str,
    nth: u32,
    paths: Vec<PathBuf>,
    trace: NamedTempFile,
}

impl Fault {
    fn new(blow: Blow, call: &'static str, nth: u32, paths: Vec<PathBuf>) -> Fault {
        Fault { blow, call, nth, paths, trace: NamedTempFile::new().expect("a temporary file can be made") }
    }

    /// Tries every call in turn: of each kind the first, the second and so on, until a fault does not happen because the
    /// program never comes so far. `attempt` drives the program; `paths` are those of its files that count.
    ///
    /// # Panics
    /// When fewer than `fewest` faults happened, so that next to nothing was tried; or a kind of call has no end.
    pub fn at_each_call(
        blow: Blow,
        fewest: u32,
        paths: impl Fn() -> Vec<PathBuf>,
        mut attempt: impl FnMut(&Fault),
    ) {
        let mut happened = 0;
        for call in CALLS {
            for nth in 1.. {
                assert!(nth < TOO_MANY, "the calls of {call} have no end");
                let fault = Fault::new(blow, call, nth, paths());
                attempt(&fault);
                let Some(at) = fault.happened() else { break };
                println!("{blow:?} at {call} {nth}: {at}");
                happened += 1;
            }
        }
        assert!(happened >= fewest, "only {happened} faults happened");
    }

    /// Whether `strace` is there and may trace.
    ///
    /// # Panics
    /// When it is not, where nothing may be skipped (`CI`, or `PULSE_FIXTURES_REQUIRED=1`).
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so loudly")]
    pub fn can_be_made() -> bool {
        let works = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).status();
        if works.is_ok_and(|status| status.success()) {
            return true;
        }
        let is_required =
            ["CI", "PULSE_FIXTURES_REQUIRED"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!is_required, "strace is missing or may not trace: install it (apt-get install strace)");
        eprintln!("SKIPPED: strace is missing or may not trace; install it (apt-get install strace)");
        false
    }

    /// The command with the fault in it. The process that is started is the program, and `strace` its grandchild.
    pub(crate) fn around(&self, command: &Command) -> Command {
        let mut strace = Command::new("strace");
        // -s 0: what is written may be a secret.
        strace.args(["-D", "-f", "-qq", "-y", "-s", "0", "-o"]).arg(self.trace.path());
        for path in &self.paths {
            strace.arg("-P").arg(path);
        }
        let blow = match self.blow {
            Blow::Error(error) => format!("error={error}"),
            Blow::Kill => "signal=KILL".to_owned(),
        };
        strace.arg("-e").arg(format!("trace={}", self.call));
        strace.arg("-e").arg(format!("inject={}:{blow}:when={}", self.call, self.nth));
        strace.arg(command.get_program()).args(command.get_args());
        strace.env_clear();
        let set = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let set: Vec<(OsString, OsString)> = set.collect();
        strace.envs(set);
        strace
    }

    /// The call at which it happened, as `strace` wrote it; `None` if the program never came so far.
    ///
    /// # Panics
    /// When the trace cannot be read.
    pub fn happened(&self) -> Option<String> {
        let trace = std::fs::read(self.trace.path()).expect("the trace can be read");
        let trace = String::from_utf8_lossy(&trace).into_owned();
        match self.blow {
            Blow::Error(_) => trace.lines().find(|line| line.contains("(INJECTED)")).map(str::to_owned),
            // The call that it was killed in front of has no result.
            Blow::Kill => trace.lines().find(|line| line.ends_with("= ?")).map(str::to_owned),
        }
    }
}

/// The files of a folder, each with the temporary one that is written in its place, and the folder.
pub fn written_in(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
    let files = names.iter().flat_map(|name| [folder.join(name), folder.join(format!(".{name}.new"))]);
    files.chain([folder.to_owned()]).collect()
}
