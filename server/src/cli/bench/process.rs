//! The server's process, if it is one of this machine: its CPU time and its memory.
//!
//! In: the process id at the other end of the admin socket, by the kernel's word. Out: figures from `/proc`, or why there
//! are none.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use super::super::client::Client;

/// The server's process.
#[derive(Debug)]
pub(super) struct Process(Result<i32, &'static str>);

impl Process {
    /// That of the server which has this admin socket.
    pub(super) async fn of(client: &Client) -> Process {
        let pid = client.server_process().await.filter(|pid| *pid > 0);
        let pid = pid.ok_or("the server's process cannot be seen from here: it runs in another container");
        let process = Process(pid);
        match process.resident_bytes() {
            Some(_) => process,
            None => Process(pid.and(Err("/proc does not tell of the server's process: it may be hidden"))),
        }
    }

    /// Why there are no figures, if there are none.
    pub(super) fn not_known(&self) -> Option<&'static str> {
        self.0.err()
    }

    /// Its resident memory. Source: `proc_pid_status(5)`, `VmRSS`, whose `kB` are 1024 bytes.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.ok()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    }

    /// The CPU time that its threads have had.
    pub(super) fn cpu(&self) -> Option<Cpu> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0.ok()?)).ok()?;
        let times = threads.filter_map(|thread| {
            let thread = thread.ok()?;
            // One that has ended meanwhile has no file any more.
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), nanoseconds(&stat)?))
        });
        let times: HashMap<OsString, u64> = times.collect();
        (!times.is_empty()).then_some(Cpu(times))
    }
}

/// The CPU time of each thread, in nanoseconds: `/proc/PID/stat` counts in ticks of 10 ms, and a push takes less.
#[derive(Debug)]
pub(super) struct Cpu(HashMap<OsString, u64>);

impl Cpu {
    /// What was taken since an earlier look. Threads that ended in between do not count: those of the server end when they
    /// had nothing to do for long.
    pub(super) fn since(&self, before: &Cpu) -> Duration {
        let taken = self
            .0
            .iter()
            .map(|(thread, now)| now.saturating_sub(before.0.get(thread).copied().unwrap_or_default()));
        Duration::from_nanos(taken.sum())
    }
}

/// The first field of a `schedstat`: time on the CPU. Source: the kernel's `scheduler/sched-stats`.
fn nanoseconds(stat: &str) -> Option<u64> {
    stat.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_thread_counts_what_was_taken_since() {
        let cpu = |times: &[(&str, u64)]| {
            Cpu(times.iter().map(|(thread, time)| (OsString::from(thread), *time)).collect())
        };
        let (before, after) = (cpu(&[("1", 10), ("2", 1_000)]), cpu(&[("1", 15), ("3", 7)]));
        assert_eq!(after.since(&before), Duration::from_nanos(12));
        assert_eq!(nanoseconds("4711 12 3\n"), Some(4711));
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let own = Process(Ok(i32::try_from(std::process::id()).unwrap()));
        assert!(own.resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(own.cpu().is_some());
    }
}
