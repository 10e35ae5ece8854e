//! The PostgreSQL that several servers share, seen from outside: databases on it, and what a load costs it.
//!
//! In: the URL of a server, such as `scripts/with-postgres.sh` starts. Out: databases of the bench's own, and counts of what
//! was written. Always: on this machine, since its processor time is read from `/proc`.

use std::fs;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};

use crate::failure::{Doing, Failure, Outcome};

/// A connection to the server, with which databases are made and counts are read.
pub(crate) struct Postgres {
    runtime: Runtime,
    client: Client,
    url: String,
    /// The process from which all its others come.
    root: u32,
}

/// What the server has done since it was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Bytes of its write-ahead log.
    pub(crate) wal_bytes: u64,
    /// Processor time of all its processes, in nanoseconds.
    pub(crate) cpu_ns: u64,
}

impl Postgres {
    /// Connects to `postgres://USER@HOST:PORT/DATABASE`.
    pub(crate) fn connect(url: &str) -> Outcome<Postgres> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.doing("start a runtime")?;
        let connected = runtime.block_on(tokio_postgres::connect(url, NoTls));
        let (client, connection) = connected.doing("connect to PostgreSQL")?;
        runtime.spawn(connection);
        let own = runtime.block_on(client.query_one("SELECT pg_backend_pid()", &[]));
        let own: i32 = own.doing("ask PostgreSQL for a process")?.get(0);
        let root = parent(own.unsigned_abs()).ok_or_else(|| {
            Failure::new("PostgreSQL is not on this machine, so what it costs cannot be measured")
        })?;
        Ok(Postgres { runtime, client, url: url.to_owned(), root })
    }

    /// Makes a database of this name. Out: its URL.
    pub(crate) fn database(&self, name: &str) -> Outcome<String> {
        let sql = format!("CREATE DATABASE {name}");
        self.runtime.block_on(self.client.batch_execute(&sql)).doing("make a database")?;
        let (server, _) = self.url.rsplit_once('/').ok_or_else(|| Failure::new("the URL has no database"))?;
        Ok(format!("{server}/{name}"))
    }

    /// Whether it waits for the disk at each commit, and its version.
    pub(crate) fn version(&self) -> Outcome<String> {
        let asked = self.runtime.block_on(self.client.query_one(
            "SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')",
            &[],
        ));
        let row = asked.doing("ask PostgreSQL for its version")?;
        let [version, fsync, commit] = [0, 1, 2].map(|at| row.get::<_, String>(at));
        Ok(format!("PostgreSQL {version}, fsync {fsync}, synchronous_commit {commit}"))
    }

    /// What it has done until now.
    pub(crate) fn work(&self) -> Outcome<Work> {
        // Not its statistics, in which each process counts only once in a while.
        let sql = "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS BIGINT)";
        let asked = self.runtime.block_on(self.client.query_one(sql, &[]));
        let end: i64 = asked.doing("ask PostgreSQL for the end of its log")?.get(0);
        Ok(Work { wal_bytes: end.unsigned_abs(), cpu_ns: self.cpu_ns()? })
    }

    /// What a report takes in a database, with its indices, in bytes.
    pub(crate) fn bytes_of_a_report(&self, url: &str) -> Outcome<f64> {
        let sql =
            "SELECT pg_total_relation_size('readings') / CAST(greatest(count(*), 1) AS FLOAT8) FROM readings";
        self.runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(url, NoTls).await.doing("connect to a database")?;
            let connection = tokio::spawn(connection);
            let row = client.query_one(sql, &[]).await.doing("ask how large the readings are")?;
            connection.abort();
            Ok(row.get(0))
        })
    }

    fn cpu_ns(&self) -> Outcome<u64> {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let mut ticks = 0;
        for entry in fs::read_dir("/proc").doing("look at all processes")? {
            let name = entry.doing("look at a process")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if pid == self.root || parent(pid) == Some(self.root) {
                // Those that ended meanwhile count with the root: cutime and cstime.
                let fields = if pid == self.root { 11..15 } else { 11..13 };
                ticks += stat(pid)
                    .map_or(0, |stat| fields.filter_map(|at| stat.get(at)?.parse::<u64>().ok()).sum::<u64>());
            }
        }
        Ok(ticks * tick_ns)
    }
}

/// The fields of `/proc/PID/stat` after the name: the state is the first of them (proc(5) counts it as the third).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}
