//! The server's process, if it is one of this machine: its CPU time and its memory.
//!
//! In: the process id at the other end of the admin socket, by the kernel's word. Out: figures from `/proc`, or why there
//! are none.

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

    /// The CPU time that it has had. Source: `proc_pid_stat(5)`, fields 14 and 15, in ticks.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.ok()?)).ok()?;
        ticks(&stat).map(|ticks| {
            Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
        })
    }
}

fn ticks(stat: &str) -> Option<u64> {
    // The name, field 2, stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_user_and_system() {
        assert_eq!(ticks("7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 5 6 20 0 1 0 99 0"), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let own = Process(Ok(i32::try_from(std::process::id()).unwrap()));
        assert!(own.resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(own.cpu().is_some());
    }
}
