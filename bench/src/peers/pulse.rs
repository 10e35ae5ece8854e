//! Pulse itself: its release binary, through the calls that everybody has.
//!
//! In: changes over the admin socket, registrations over gRPC. Always: it has a data folder of its own on a disk.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use super::{Peer, watch};
use crate::client::{control::Connect, tls_for};
use crate::clock::now_ns;
use crate::failure::{Doing, Failure, Outcome};
use crate::list::List;
use crate::port::Port;
use crate::process::{Process, wait_until};

/// The instance whose proxies are pushed to.
pub(crate) const INSTANCE: &str = "bench";
/// How long the server may take to be ready, or to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything on one machine: its address stands for many, and is not bounded as one. Bookmarks are rare, so that they
/// fall into no round; a fleet that dials again and again is not held back.
const CONFIG: &str = "\
refresh_interval: 600s
log_level: warn
trusted_proxies: [127.0.0.0/8]
limits:
  max_connections_per_address: 1000000
  watch_burst: 1000
  watch_interval: 1s
  registration_burst: 1000
  registration_interval: 1s
";

/// A server of Pulse.
#[derive(Debug)]
pub(crate) struct Pulse {
    binary: PathBuf,
    folder: PathBuf,
    port: Port,
    is_tls: bool,
    process: Process,
    tokens: PathBuf,
    variables: Variables,
}

/// Variables of an environment.
pub(crate) type Variables = Vec<(String, String)>;

impl Pulse {
    /// Starts a server on a data folder, which may be new; `tokens` names the file with the tokens of its proxies.
    pub(crate) fn start(binary: &Path, folder: &Path, is_tls: bool, tokens: &Path) -> Outcome<Pulse> {
        Pulse::start_with(binary, folder, is_tls, tokens, Variables::new())
    }

    /// The same with variables in its environment, which has none otherwise.
    pub(crate) fn start_with(
        binary: &Path,
        folder: &Path,
        is_tls: bool,
        tokens: &Path,
        variables: Variables,
    ) -> Outcome<Pulse> {
        std::fs::create_dir_all(folder).doing(format!("make {}", folder.display()))?;
        std::fs::write(folder.join("pulse.yaml"), CONFIG).doing("write the configuration")?;
        let port = Port::take()?;
        let process = spawn(binary, folder, is_tls, port.address(), &variables)?;
        let mut pulse = Pulse {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            port,
            is_tls,
            process,
            tokens: tokens.to_owned(),
            variables,
        };
        pulse.wait_ready()?;
        Ok(pulse)
    }

    /// Waits until `/readyz` says so.
    pub(crate) fn wait_ready(&mut self) -> Outcome<()> {
        wait_until("Pulse to be ready", PATIENCE, || {
            self.process.check()?;
            Ok(self.get("/readyz").ok().filter(|(status, _)| *status == 200).map(drop))
        })
    }

    /// Ends it well, so that its data folder can be copied.
    pub(crate) fn stop(mut self) -> Outcome<PathBuf> {
        let status = self.process.terminate()?;
        if !status.success() {
            return Err(Failure::new(format!("pulse did not end well: {status}")));
        }
        Ok(self.folder.clone())
    }

    /// kill -9, and a start on the same data folder and port. Returns when it was started; it may not be ready yet.
    pub(crate) fn kill_and_start(&mut self) -> Outcome<u64> {
        self.process.kill()?;
        let began_ns = now_ns();
        self.process = spawn(&self.binary, &self.folder, self.is_tls, self.port.address(), &self.variables)?;
        Ok(began_ns)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The authority that its clients trust; `None`: plain text.
    pub(crate) fn authority(&self) -> Option<PathBuf> {
        self.is_tls.then(|| self.folder.join("data/ca.pem"))
    }

    /// Its data folder.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where the tokens of its proxies are.
    pub(crate) fn tokens(&self) -> &Path {
        &self.tokens
    }

    /// Runs `pulse ARGUMENTS --json`; returns the JSON.
    pub(crate) fn command(&self, arguments: &[&str]) -> Outcome<Value> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--json").arg("--data-dir").arg(self.data_dir());
        let output = command.output().doing(format!("run pulse {arguments:?}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Failure::new(format!("pulse {arguments:?} failed: {said}")));
        }
        serde_json::from_slice(&output.stdout).doing(format!("read what pulse {arguments:?} printed"))
    }

    /// Asks over the admin socket; an error if the answer is none of success.
    pub(crate) fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let (stream, request) = self.prepare(method, path, body)?;
        let answer = exchange(stream, &request).doing(format!("ask {method} {path}"))?;
        success(&answer, method, path)
    }

    /// A connection to the admin socket and the bytes of a request.
    pub(crate) fn prepare(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Outcome<(UnixStream, String)> {
        let socket = self.data_dir().join("admin.sock");
        let stream = UnixStream::connect(&socket).doing(format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE)).doing("bound the wait for an answer")?;
        Ok((stream, request(method, &format!("/api/v1{path}"), body)))
    }

    /// Where the token of a proxy is that is none of the clients.
    pub(crate) fn newcomer(&self) -> PathBuf {
        self.tokens.with_file_name("newcomer")
    }

    /// Where the tokens of proxies are that report and are none of the clients.
    pub(crate) fn reporters(&self) -> PathBuf {
        self.tokens.with_file_name("reporters")
    }

    /// `GET` over the port.
    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, String)> {
        get(self.address(), self.authority().as_deref(), path)
    }

    /// The sum of all values of a metric, whatever their labels.
    pub(crate) fn metric(&self, name: &str) -> Outcome<f64> {
        let (_, text) = self.get("/metrics").doing("read /metrics")?;
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            (key.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        });
        let values: Vec<f64> = values.collect();
        if values.is_empty() {
            Err(Failure::new(format!("/metrics has no {name}")))
        } else {
            Ok(values.iter().sum())
        }
    }

    /// Sets the list of an instance. Returns when that was asked for.
    pub(crate) fn set(&self, instance: &str, list: &List) -> Outcome<u64> {
        let path = format!("/instances/{instance}");
        let mut body = list.endpoints();
        // Each list is another one as a whole.
        body["yes"] = true.into();
        let (mut stream, request) = self.prepare("PUT", &path, Some(&body))?;
        let asked_ns = now_ns();
        stream.write_all(request.as_bytes()).doing("ask for a change")?;
        let answer = read_answer(stream).doing("read the answer to a change")?;
        success(&answer, "PUT", &path)?;
        Ok(asked_ns)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sum of times is small and not negative"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn spawn(
    binary: &Path,
    folder: &Path,
    is_tls: bool,
    address: SocketAddr,
    variables: &Variables,
) -> Outcome<Process> {
    let mut command = Command::new(binary);
    command.env_clear().envs(variables.iter().cloned());
    command.arg("serve").arg("--config").arg(folder.join("pulse.yaml"));
    command.arg("--data-dir").arg(folder.join("data")).arg("--listen").arg(address.to_string());
    if !is_tls {
        command.arg("--plaintext");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Process::start("pulse", &mut command)
}

fn request(method: &str, path: &str, body: Option<&Value>) -> String {
    let body = body.map(ToString::to_string).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    read_answer(stream)
}

/// `GET` over a server's port, on a connection of its own.
pub(crate) fn get(address: SocketAddr, authority: Option<&Path>, path: &str) -> io::Result<(u16, String)> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = request("GET", path, None);
    let Some(authority) = authority else { return exchange(stream, &request) };
    let config = tls_for(authority, &[b"http/1.1"]).map_err(|failure| io::Error::other(failure.chain()))?;
    let name = ServerName::from(address.ip());
    let connection = ClientConnection::new(Arc::clone(&config), name).map_err(io::Error::other)?;
    exchange(StreamOwned::new(connection, stream), &request)
}

/// Asks a server how it is, over the admin socket at this path.
pub(crate) fn ask_status(socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (status, _) = exchange(stream, &request("GET", "/api/v1/status", None))?;
    if status == 200 { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
}

/// An answer's status and body; the end of the connection ends it.
fn read_answer(mut stream: impl Read) -> io::Result<(u16, String)> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        other => drop(other?),
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    Ok((status, body.to_owned()))
}

fn success((status, body): &(u16, String), method: &str, path: &str) -> Outcome<Value> {
    if !(200..300).contains(status) {
        return Err(Failure::new(format!("{method} {path} was answered with {status}: {body}")));
    }
    if body.is_empty() {
        return Ok(json!(null));
    }
    serde_json::from_str(body).doing(format!("read the answer to {method} {path}"))
}

impl Peer for Pulse {
    fn name(&self) -> &'static str {
        if self.is_tls { "pulse-tls" } else { "pulse" }
    }

    fn server(&mut self) -> &mut Process {
        &mut self.process
    }

    fn has_later(&self) -> bool {
        // It asks whether a list was read, and saves what it sent.
        true
    }

    fn connect(&self, count: usize) -> Connect {
        Connect {
            count,
            address: self.address(),
            ca: self.authority(),
            in_flight: 256,
            timeout_ms: 120_000,
            subscription: watch(Vec::new(), Some(self.tokens.clone())),
        }
    }

    fn push(&mut self, list: &List) -> Outcome<u64> {
        self.set(INSTANCE, list)
    }

    fn commits_ns(&self) -> Outcome<Option<u64>> {
        self.metric("pulse_store_commit_seconds_sum").map(|seconds| Some(nanoseconds(seconds)))
    }

    fn version(&self) -> String {
        let output = Command::new(&self.binary).arg("--version").output();
        output.map_or_else(
            |_| "?".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }
}
