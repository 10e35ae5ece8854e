//! A real PostgreSQL: Debian's programs, a folder and a port of its own, as an ordinary user.
//!
//! In: nothing, or `PULSE_POSTGRES_BIN`, the folder of another version's programs. Out: a server for one test process, and a
//! database in it for each test. Always: it listens on loopback alone, and is killed with its value.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::wait::{PATIENCE, eventually};

/// Where Debian puts each version's programs.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The user that owns the databases.
pub const USER: &str = "pulse";

/// The variable that has the URL of a server which all tests of a run share, as `scripts/with-postgres.sh` starts it.
const SHARED: &str = "PULSE_TEST_POSTGRES";

/// A database of the test's own on the server that all tests share; `None`: there is none, and tests work on SQLite. The
/// folder knows its database: the second call with it has the same one.
///
/// # Panics
/// When it cannot be made.
pub fn database_of(folder: &Path) -> Option<String> {
    let shared = std::env::var(SHARED).ok()?;
    let known = folder.join("database-url");
    if let Ok(url) = std::fs::read_to_string(&known) {
        return Some(url);
    }
    let (server, _) = shared.rsplit_once('/').expect("the URL names a database");
    // The folder's name is random, and so unique.
    let name: String = folder.display().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    let name = format!("test_{}", name.to_lowercase());
    let mut psql = Command::new(programs().join("psql"));
    psql.args([&shared, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", &format!("CREATE DATABASE {name}")]);
    succeed(psql.output().expect("psql can be started"), "CREATE DATABASE");
    let url = format!("{server}/{name}");
    std::fs::write(known, &url).expect("a file can be written");
    Some(url)
}

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
    process: Option<Child>,
    databases: AtomicUsize,
    settings: Vec<String>,
}

impl Postgres {
    /// As [`Postgres::start`], and it speaks TLS. Out: the file of the authority that its certificate for `localhost` is from.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_with_tls() -> (Postgres, PathBuf) {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
        let mut postgres = Postgres::prepare();
        let (certificate, key) = (postgres.folder.path().join("pg.crt"), postgres.data().join("pg.key"));
        std::fs::write(&certificate, made.cert.pem()).expect("a file can be written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file can be written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        if rustix::process::geteuid().is_root() {
            let (user, group) = ordinary_user();
            std::os::unix::fs::chown(&key, Some(user), Some(group)).expect("root may");
        }
        let (certificate_file, key_file) = (certificate.display(), key.display());
        postgres.settings = vec![
            "ssl=on".to_owned(),
            format!("ssl_cert_file={certificate_file}"),
            format!("ssl_key_file={key_file}"),
        ];
        postgres.resume();
        (postgres, certificate)
    }

    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, or does not start.
    pub fn start() -> Postgres {
        let mut postgres = Postgres::prepare();
        postgres.resume();
        postgres
    }

    fn prepare() -> Postgres {
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        // The programs refuse to run as root, and then run as somebody else, who has to get in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("it is ours");
        let port = free_port();
        let (databases, settings) = Default::default();
        let postgres = Postgres { programs: programs(), folder, port, process: None, databases, settings };
        let data = postgres.data();
        let mut init = postgres.program("initdb");
        init.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", USER, "-D"])
            .arg(&data);
        succeed(init.output().expect("initdb can be started"), "initdb");
        postgres
    }

    /// Starts it again on the same port and folder.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-k"]).arg(self.folder.path());
        for setting in ["listen_addresses=127.0.0.1", "max_connections=200", "log_min_messages=warning"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.folder.path().join("log")).expect("the log is made");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("postgres can be started"));
        eventually(PATIENCE, "PostgreSQL answers", || {
            let asked = self.ask("postgres", "SELECT 1");
            if asked.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&asked.stderr).into_owned())
            }
        });
    }

    /// kill -9, of it and of all that it started.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let group = Pid::from_raw(process.id().cast_signed()).expect("a process has an id");
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = process.wait();
    }

    /// Stops all of it in its tracks, as a machine does that hangs; it answers nobody, and refuses nobody.
    ///
    /// # Panics
    /// When it does not run.
    pub fn hang(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Each of its processes has a group of its own.
    fn signal_all(&self, signal: Signal) {
        let root = self.process.as_ref().expect("it runs").id();
        let mut processes = vec![root];
        for entry in std::fs::read_dir("/proc").expect("there is /proc").flatten() {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(1));
            if parent == Some(&root.to_string()) {
                processes.extend(entry.file_name().to_str().and_then(|pid| pid.parse::<u32>().ok()));
            }
        }
        for process in processes {
            let pid = Pid::from_raw(process.cast_signed()).expect("a process has an id");
            // One may have ended meanwhile.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// A new database. Out: its URL.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        succeed(self.ask("postgres", &format!("CREATE DATABASE {name}")), "CREATE DATABASE");
        format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    /// A new database, whose owner has this name and needs this password. Out: its URL, without the password.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn database_with_password(&self, owner: &str, password: &str) -> String {
        let rules = self.data().join("pg_hba.conf");
        let before = std::fs::read_to_string(&rules).expect("the rules are there");
        // The first that fits counts.
        let demand = format!("host all {owner} 127.0.0.1/32 scram-sha-256\n");
        std::fs::write(&rules, demand + &before).expect("the folder is ours");
        for sql in [
            "SELECT pg_reload_conf()".to_owned(),
            format!("CREATE ROLE {owner} LOGIN PASSWORD '{password}'"),
            format!("CREATE DATABASE {owner} OWNER {owner}"),
        ] {
            succeed(self.ask("postgres", &sql), &sql);
        }
        format!("postgres://{owner}@127.0.0.1:{}/{owner}", self.port)
    }

    /// Asks a database by `psql`; rows without a frame.
    pub fn ask(&self, database: &str, sql: &str) -> Output {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            USER,
            "-d",
            database,
            "-qAtX",
            "-v",
        ]);
        psql.args(["ON_ERROR_STOP=1", "-c", sql]).env("PGCONNECT_TIMEOUT", "5");
        psql.output().expect("psql can be started")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.process_group(0).current_dir(self.folder.path());
        if rustix::process::geteuid().is_root() {
            let (user, group) = ordinary_user();
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

/// The newest version that is installed.
fn programs() -> PathBuf {
    if let Some(programs) = std::env::var_os("PULSE_POSTGRES_BIN") {
        return programs.into();
    }
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest =
        versions.max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or_default());
    let newest =
        newest.unwrap_or_else(|| panic!("no PostgreSQL in {DEBIAN}: scripts/tools.sh postgres installs it"));
    newest.path().join("bin")
}

/// The user `postgres` that Debian's package makes, by the owner of its folder; else `nobody`.
fn ordinary_user() -> (u32, u32) {
    let owner =
        std::fs::metadata(Path::new("/var/lib/postgresql")).map(|folder| (folder.uid(), folder.gid()));
    owner.ok().filter(|(user, _)| *user != 0).unwrap_or((65_534, 65_534))
}

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    socket.local_addr().expect("it is bound").port()
}

fn succeed(output: Output, doing: &str) {
    assert!(output.status.success(), "{doing}: {}", String::from_utf8_lossy(&output.stderr));
}
