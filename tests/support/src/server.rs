//! A server of the test's own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::capture;
use crate::fault::Fault;
use crate::http::{self, Answer};
use crate::port::Port;
use crate::postgres;
use crate::process::{Ran, Running, Variables, command, run, set};
use crate::scrape::Metrics;
use crate::wait::{PATIENCE, eventually};

/// The configuration of every server: the shortest interval that there is, so that bookmarks come every 2.5 s and a
/// silent proxy is missed after 15 s.
const CONFIG: &str = "refresh_interval: 5s\n";

/// A server before its start.
#[derive(Debug, Default)]
pub struct ServerBuilder {
    config: String,
    arguments: Vec<String>,
    variables: Variables,
    is_plaintext: bool,
    ca_path: Option<PathBuf>,
    is_on_file: bool,
}

impl ServerBuilder {
    /// Keeps the database in a file, also in a run that has PostgreSQL.
    #[must_use]
    pub fn on_file(mut self) -> ServerBuilder {
        self.is_on_file = true;
        self
    }

    /// Adds lines to the configuration file, which has `refresh_interval: 5s` unless they say otherwise.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> ServerBuilder {
        self.config.push_str(yaml);
        self.config.push('\n');
        self
    }

    /// Adds an argument of `pulse serve`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> ServerBuilder {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds an environment variable; the environment is empty otherwise, but for `PATH`.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> ServerBuilder {
        set(&mut self.variables, name, value);
        self
    }

    /// Turns TLS off.
    #[must_use]
    pub fn plaintext(mut self) -> ServerBuilder {
        self.is_plaintext = true;
        self.argument("--plaintext")
    }

    /// Trusts the certificates in this file when it is asked, in place of its own CA: it has a certificate of the test's.
    #[must_use]
    pub fn trusting(mut self, ca_path: &Path) -> ServerBuilder {
        self.ca_path = Some(ca_path.to_owned());
        self
    }

    /// Starts it, and waits until it is ready.
    #[must_use]
    pub fn start(self) -> Server {
        let mut server = self.prepare();
        server.start_again();
        server
    }

    /// Works on this database, with the authority and the certificate of another server that does: one more of several.
    ///
    /// # Panics
    /// When the other server has not started yet.
    #[must_use]
    pub fn beside(self, other: &Server, database_url: &str) -> Server {
        let server = self.config(&format!("database_url: {database_url}")).prepare();
        std::fs::create_dir(server.data_dir()).expect("a folder can be made");
        let (from, to) = (other.data_dir().join("secret.key"), server.data_dir().join("secret.key"));
        std::fs::copy(from, to).expect("the other server has its sealing key");
        server
    }

    /// Makes its folder and its configuration, and does not start it.
    #[must_use]
    pub fn prepare(self) -> Server {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let config = match self.config.contains("refresh_interval:") {
            true => self.config.clone(),
            false => format!("{CONFIG}{}", self.config),
        };
        let config = match postgres::database_of(folder.path()) {
            Some(url) if !self.is_on_file && !config.contains("database_url:") => {
                format!("{config}database_url: {url}\n")
            }
            _ => config,
        };
        std::fs::write(folder.path().join("pulse.yaml"), config).expect("a file can be written");
        Server { folder, port: Port::take(), builder: self, running: None }
    }
}

/// A server with a data folder and a port of its own, which both outlive the process. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    // First, so that the process ends before its folder goes.
    running: Option<Running>,
    folder: TempDir,
    port: Port,
    builder: ServerBuilder,
}

impl Server {
    /// Starts a server and waits until it is ready.
    #[must_use]
    pub fn start() -> Server {
        Server::builder().start()
    }

    /// A server with settings of its own.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Starts it on the same data folder and the same port, and waits until `/readyz` says 200.
    ///
    /// # Panics
    /// When it runs already, ends, or is not ready in [`PATIENCE`].
    pub fn start_again(&mut self) {
        self.spawn();
        eventually(PATIENCE, "the server is ready", || {
            let ended = self.running_mut().ended();
            assert!(ended.is_none(), "the server ended instead of starting: {ended:?}");
            match self.get("/readyz") {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// When it runs already.
    pub fn spawn(&mut self) {
        let serve = self.serve();
        self.run(serve);
    }

    /// Starts it with a fault in it, without waiting for anything.
    ///
    /// # Panics
    /// When it runs already.
    pub fn spawn_with(&mut self, fault: &Fault) {
        let serve = fault.around(&self.serve());
        self.run(serve);
    }

    fn serve(&self) -> Command {
        let mut serve = command("pulse", &self.builder.variables);
        serve.arg("serve").arg("--config").arg(self.folder.path().join("pulse.yaml"));
        serve.arg("--data-dir").arg(self.data_dir()).arg("--listen").arg(self.address().to_string());
        serve.args(&self.builder.arguments);
        serve
    }

    fn run(&mut self, serve: Command) {
        if let Some(running) = &mut self.running {
            assert!(running.ended().is_some(), "the server runs already");
        }
        self.running = Some(Running::start("the server", serve));
    }

    /// Where it listens; stays the same over restarts.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// `https://ADDRESS`, as the configuration of a proxy names it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// Whether it speaks plain text.
    pub fn is_plaintext(&self) -> bool {
        self.builder.is_plaintext
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The certificate of its CA, in PEM.
    pub fn ca_path(&self) -> PathBuf {
        self.builder.ca_path.clone().unwrap_or_else(|| self.data_dir().join("ca.pem"))
    }

    /// Its process.
    pub fn process(&self) -> &Running {
        self.running.as_ref().expect("the server was started")
    }

    /// The one-time link that the first start prints, once it does.
    ///
    /// # Panics
    /// When it does not in [`PATIENCE`].
    pub fn first_link(&self) -> String {
        eventually(PATIENCE, "the server prints the link for its first admin", || {
            let shown = self.process().shown();
            shown
                .iter()
                .find_map(|line| line.split_once("https://").map(|(_, rest)| format!("https://{rest}")))
                .ok_or(shown)
        })
    }

    fn running_mut(&mut self) -> &mut Running {
        self.running.as_mut().expect("the server was started")
    }

    /// Its exit status, if it ended.
    pub fn process_ended(&mut self) -> Option<std::process::ExitStatus> {
        self.running_mut().ended()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.running_mut().kill();
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.process().terminate();
    }

    /// Waits for its end, and returns its exit code; `None`: a signal ended it.
    ///
    /// # Panics
    /// When it still runs after `within`.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        self.running_mut().wait_exit(within)
    }

    /// Waits until it is ready or has ended, after [`Server::spawn`] or [`Server::spawn_with`]; says whether it is ready.
    ///
    /// # Panics
    /// When it does neither in time.
    pub fn comes_up(&mut self) -> bool {
        eventually(PATIENCE, "the server is ready, or has ended", || {
            if self.process_ended().is_some() {
                return Ok(false);
            }
            match self.get("/readyz") {
                Ok(answer) if answer.status == 200 => Ok(true),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Runs `pulse ARGUMENTS` for this server.
    pub fn pulse(&self, arguments: &[&str]) -> Ran {
        let mut cli = command("pulse", &self.builder.variables);
        cli.args(arguments).arg("--data-dir").arg(self.data_dir());
        run(cli, "")
    }

    /// Runs `pulse ARGUMENTS` as on another machine, with this on its standard input: nothing says where this server's folder is.
    pub fn pulse_elsewhere(&self, arguments: &[&str], stdin: &str) -> Ran {
        let mut cli = command("pulse", &self.builder.variables);
        cli.args(arguments);
        run(cli, stdin)
    }

    /// Runs it with a fault in it.
    pub fn pulse_with_fault(&self, arguments: &[&str], fault: &Fault) -> Ran {
        let mut cli = command("pulse", &self.builder.variables);
        cli.args(arguments).arg("--data-dir").arg(self.data_dir());
        run(fault.around(&cli), "")
    }

    /// Runs `pulse ARGUMENTS` for this server without a fault; returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn pulse_ok(&self, arguments: &[&str]) -> String {
        let ran = self.pulse(arguments);
        assert!(ran.is_success(), "pulse {arguments:?}: {ran:?}");
        ran.stdout
    }

    /// Runs `pulse ARGUMENTS --json`; returns the JSON.
    ///
    /// # Panics
    /// When it fails, or prints none.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.pulse(&[arguments, &["--json"]].concat());
        assert!(ran.is_success(), "pulse {arguments:?}: {ran:?}");
        ran.json()
    }

    /// A join string: `pulse join create OPTIONS`.
    ///
    /// # Panics
    /// When there is none.
    pub fn join_string(&self, options: &[&str]) -> String {
        let join = self.json(&[&["join", "create"], options].concat());
        join["join"].as_str().unwrap_or_else(|| panic!("no join string: {join}")).to_owned()
    }

    /// All proxies, as `pulse proxy list --json` has them.
    ///
    /// # Panics
    /// When the list cannot be had.
    pub fn proxies(&self) -> Vec<Value> {
        let list = self.json(&["proxy", "list"]);
        list["proxies"].as_array().unwrap_or_else(|| panic!("no list of proxies: {list}")).clone()
    }

    /// Waits until a proxy is in a last-sync state such as `IN_SYNC`; returns all that is shown of it then.
    ///
    /// # Panics
    /// When it is not in [`PATIENCE`].
    pub fn wait_for_state(&self, proxy_id: &str, state: &str) -> Value {
        eventually(PATIENCE, &format!("proxy {proxy_id} is {state}"), || {
            let proxy = self.json(&["proxy", "show", proxy_id]);
            if proxy["state"] == state { Ok(proxy) } else { Err(proxy) }
        })
    }

    /// Waits until a proxy has this hash applied and is `IN_SYNC`; returns all that is shown of it then.
    ///
    /// # Panics
    /// When it is not in [`PATIENCE`].
    pub fn wait_for_applied(&self, proxy_id: &str, hash: &str) -> Value {
        eventually(PATIENCE, &format!("proxy {proxy_id} has applied {hash}"), || {
            let proxy = self.json(&["proxy", "show", proxy_id]);
            let is_there = proxy["state"] == "IN_SYNC" && proxy["applied"]["hash"] == hash;
            if is_there { Ok(proxy) } else { Err(proxy) }
        })
    }

    /// The newest list of an instance, as `pulse allowlist show --json` has it.
    ///
    /// # Panics
    /// When there is none.
    pub fn allowlist(&self, instance: &str) -> Value {
        let lists = self.json(&["allowlist", "show", "--instance", instance]);
        let list = lists["allowlists"].get(0).unwrap_or(&lists);
        assert!(list["hash"].is_string(), "no list of {instance}: {lists}");
        list.clone()
    }

    /// `GET` over the port: TLS, no credentials.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        let ca_path = self.ca_path();
        let ca_path: Option<&Path> = (!self.builder.is_plaintext).then_some(&ca_path);
        let answer = http::ask(self.address(), ca_path, &http::request("GET", path, None))?;
        capture::keep_answer("GET", path, answer.status, &answer.head, &answer.body);
        Ok(answer)
    }

    /// A request to the admin API over the port, with headers of its own.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn api(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> std::io::Result<Answer> {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.ask(method, &format!("/api/v1{path}"), &headers, &body)
    }

    /// A request over the port with headers of its own and any body: TLS, and the credentials that these headers bring.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        let ca_path = self.ca_path();
        let ca_path: Option<&Path> = (!self.builder.is_plaintext).then_some(&ca_path);
        let answer = http::ask(self.address(), ca_path, &http::request_with(method, path, headers, body))?;
        capture::keep_answer(method, path, answer.status, &answer.head, &answer.body);
        Ok(answer)
    }

    /// A request to the admin API, over the admin socket: faster than the command line.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        let request = http::request(method, &format!("/api/v1{path}"), body);
        let answer = http::ask_socket(&self.data_dir().join("admin.sock"), &request)?;
        capture::keep_answer(method, path, answer.status, &answer.head, &answer.body);
        Ok(answer)
    }

    /// The same with a body that need not be JSON.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn admin_raw(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let request = http::raw_request(method, &format!("/api/v1{path}"), body);
        let answer = http::ask_socket(&self.data_dir().join("admin.sock"), &request)?;
        capture::keep_answer(method, path, answer.status, &answer.head, &answer.body);
        Ok(answer)
    }

    /// `/metrics`, now.
    ///
    /// # Panics
    /// When it is not answered with 200.
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").expect("the server answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        capture::note_keys(&self.data_dir());
    }
}
