//! A process that the bench started: ended with its value, and measured from outside.
//!
//! Always: processor time is in nanoseconds (`schedstat` of each thread, proc(5)), memory is what is resident.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Doing, Failure, Outcome};

/// How long a process may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    threads: HashMap<u64, u64>,
}

impl Process {
    /// Starts it; `name` stands in errors.
    pub(crate) fn start(name: &str, command: &mut Command) -> Outcome<Process> {
        let child = command.spawn().doing(format!("start {name} ({})", command.get_program().display()))?;
        Ok(Process { name: name.to_owned(), child, threads: HashMap::new() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Processor time that its threads have taken, in nanoseconds; of a thread that ended, what it had when it was seen last.
    pub(crate) fn cpu_ns(&mut self) -> Outcome<u64> {
        let folder = format!("/proc/{}/task", self.pid());
        for task in fs::read_dir(&folder).doing(format!("look at the threads of {}", self.name))? {
            let task = task.doing("look at a thread")?;
            let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may have ended meanwhile.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let time = text.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
            self.threads.insert(id, time.ok_or_else(|| Failure::new("schedstat is not readable"))?);
        }
        Ok(self.threads.values().sum())
    }

    /// Resident memory, in bytes (`VmRSS`).
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .doing(format!("look at the memory of {}", self.name))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes
            .map(|kibibytes| kibibytes * 1024)
            .ok_or_else(|| Failure::new(format!("{} has ended", self.name)))
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Outcome<()> {
        match self.child.try_wait().doing(format!("look at {}", self.name))? {
            None => Ok(()),
            Some(status) => Err(Failure::new(format!("{} ended: {status}", self.name))),
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.child.kill().doing(format!("kill {}", self.name))?;
        self.child.wait().doing(format!("wait for the end of {}", self.name))?;
        Ok(())
    }

    /// Asks it to end, and waits for it.
    pub(crate) fn terminate(&mut self) -> Outcome<ExitStatus> {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a child has a process id");
        kill_process(pid, Signal::TERM).doing(format!("end {}", self.name))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().doing(format!("wait for the end of {}", self.name))? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("{} does not end", self.name)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is there, looking every few milliseconds.
pub(crate) fn wait_until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("waited {} s for {what}", within.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
