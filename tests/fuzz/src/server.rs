//! A whole server inside this process, which targets ask over its port and its admin socket.
//!
//! Always: one at a time; after some hundred calls a new one on an empty folder takes its place, so that what an input
//! finds does not depend on hours of others. Never: trusts it: an answer that no server may give ends the run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use pulse::config::{Config, ConfigSources};
use pulse::shutdown::{Hand, Signals};
use pulse_config::Environment;
use pulse_proto::v1::{RegisterRequest, RegisterResponse};
use pulse_proto::{JoinString, MAX_MESSAGE_BYTES};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::{folder, sweep};

/// The calls after which a new server begins: fewer than the bursts and uses that it is given below.
const CALLS: u32 = 900;
/// Longer than any answer may take, on a machine with other work too.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that is told to end has ended by then.
const LONGEST_END: Duration = Duration::from_secs(10);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime can be made")
});
static SERVER: Mutex<Option<Server>> = Mutex::new(None);

/// A server with the instance `home` and one proxy of it, and a client of its port.
#[derive(Debug)]
pub struct Server {
    /// The proxy's ctrl token.
    pub token: String,
    /// What it was told when it registered.
    pub registered: RegisterResponse,
    /// A join token with which any number of proxies can register.
    pub join: String,
    grpc: Grpc<Channel>,
    admin_socket: PathBuf,
    address: SocketAddr,
    calls: u32,
    hand: Hand,
    running: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// Asks the present server.
///
/// # Panics
/// When none can be had.
pub fn ask<T>(question: impl FnOnce(&mut Server) -> T) -> T {
    // After a panic the server may be in the middle of anything: it is not asked again.
    let mut held = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = match held.take() {
        Some(server) if server.calls < CALLS => server,
        _ => Server::start(),
    };
    server.calls += 1;
    let answer = question(&mut server);
    *held = Some(server);
    answer
}

impl Server {
    fn start() -> Server {
        sweep();
        let folder = folder();
        let config = config(folder.path());
        let admin_socket = config.admin_socket();
        let (signals, hand) = Signals::by_hand();
        let running = RUNTIME.spawn(async move {
            let ended = pulse::run(config, signals, std::io::sink()).await;
            assert!(ended.is_ok(), "the server ended: {ended:?}");
        });
        let address = address(&admin_socket);
        let grpc = RUNTIME.block_on(async {
            let endpoint =
                Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL");
            Grpc::new(endpoint.connect_lazy()).max_decoding_message_size(MAX_MESSAGE_BYTES)
        });
        let mut server = Server {
            token: String::new(),
            registered: RegisterResponse::default(),
            join: String::new(),
            grpc,
            admin_socket,
            address,
            calls: 0,
            hand,
            running: Some(running),
            _folder: folder,
        };
        let nodes = json!([{"name": "n1", "ip": "10.0.0.1"}, {"name": "n2"}]);
        server.admin("POST", "/instances", &json!({"name": "home", "endpoints": nodes}));
        let (status, made) = server.admin(
            "POST",
            "/join-tokens",
            &json!({"instance": "home", "uses": 1_000, "ttl_seconds": 86_400}),
        );
        assert_eq!(status, 201, "{made}");
        let join: JoinString =
            made["join"].as_str().and_then(|join| join.parse().ok()).expect("a join string is made");
        server.join = join.join.expect("it has a token").reveal().to_owned();
        server.registered = server.register("n1");
        server.token = server.registered.ctrl_token.clone();
        server
    }

    /// Registers a proxy, as a host does that nobody disturbs.
    ///
    /// # Panics
    /// When that is refused.
    pub fn register(&mut self, hostname: &str) -> RegisterResponse {
        use prost::Message;
        let message = RegisterRequest { hostname: hostname.to_owned(), ..RegisterRequest::default() };
        let join = self.join.clone();
        let answer = self.call("Register", Some(&join), &message.encode_to_vec());
        let answer = answer.expect("a good registration is not refused");
        RegisterResponse::decode(&answer[..]).expect("the server's answers are messages")
    }

    /// One call with one message; the answer's first message.
    ///
    /// # Panics
    /// When no answer comes in time.
    pub fn call(&mut self, method: &str, token: Option<&str>, message: &[u8]) -> Result<Vec<u8>, Status> {
        let path = format!("/pulse.control.v1.ControlPlaneService/{method}");
        let path = PathAndQuery::try_from(path).expect("a method makes a path");
        let mut request = Request::new(Bytes::copy_from_slice(message));
        if let Some(value) = token.and_then(|token| format!("Bearer {token}").parse().ok()) {
            request.metadata_mut().insert("authorization", value);
        }
        RUNTIME.block_on(async {
            let called = timeout(PATIENCE, async {
                self.grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
                let mut stream = self.grpc.server_streaming(request, path, RawCodec).await?.into_inner();
                match stream.next().await {
                    Some(first) => first.map(|bytes| bytes.to_vec()),
                    None => Err(Status::unknown("the stream ended without a message")),
                }
            });
            called.await.expect("the server answers in time")
        })
    }

    /// One request of an admin: the status, and the JSON of the answer.
    ///
    /// # Panics
    /// When there is no answer, or it is no JSON.
    pub fn admin(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.admin_bytes(method, path, body.to_string().as_bytes())
    }

    /// As [`Server::admin`], with any body.
    ///
    /// # Panics
    /// As [`Server::admin`].
    pub fn admin_bytes(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let answer = exchange(&self.admin_socket, method, path, body).expect("the admin socket answers");
        let (status, _, body) = parted(&answer);
        let body = serde_json::from_slice(&body);
        (status, body.unwrap_or_else(|error| panic!("{method} {path}: no JSON comes back: {error}")))
    }

    /// One request over the port, with lines of headers: the status, the head, and the body of the answer.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn ask_port(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("the port answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("the option exists");
        let answer = sent(stream, method, path, headers, body).expect("the port answers");
        parted(&answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.hand.stop();
        let Some(running) = self.running.take() else { return };
        let ended = RUNTIME.block_on(async { timeout(LONGEST_END, running).await });
        // A second panic would hide the first one.
        assert!(
            std::thread::panicking() || matches!(ended, Ok(Ok(()))),
            "the server did not end well: {ended:?}"
        );
    }
}

fn config(folder: &Path) -> Config {
    let path = folder.join("pulse.yaml");
    let text = "listen: 127.0.0.1:0\nplaintext: true\nlog_level: \"off\"\nlimits:\n  watch_burst: 1000\n  \
                registration_burst: 1000\n  pull_burst: 1000\n  log_in_burst: 1000\n  failed_calls_per_minute: 100000\n";
    std::fs::write(&path, text).expect("a temporary folder can be written");
    let sources = ConfigSources {
        path: Some(path),
        data_dir: Some(folder.join("data")),
        environment: Environment::default(),
        ..ConfigSources::default()
    };
    Config::load(&sources).expect("the configuration is good").0
}

/// Where the server listens, once it does.
fn address(admin_socket: &Path) -> SocketAddr {
    let begin = Instant::now();
    loop {
        if let Ok(answer) = exchange(admin_socket, "GET", "/status", b"") {
            let text = String::from_utf8_lossy(&answer);
            let status: Option<Value> =
                text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
            let listen = status.as_ref().and_then(|status| status["listen"][0].as_str()?.parse().ok());
            if let Some(address) = listen {
                return address;
            }
        }
        assert!(begin.elapsed() < PATIENCE, "the server does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn exchange(socket: &Path, method: &str, path: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    sent(stream, method, &format!("/api/v1{path}"), "", body)
}

/// Status, head and body of an answer.
fn parted(answer: &[u8]) -> (u16, String, Vec<u8>) {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer has a head");
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    let status = status.and_then(|digits| digits.parse().ok()).expect("an answer has a status");
    (status, String::from_utf8_lossy(&answer[..head]).into_owned(), answer[head + 4..].to_vec())
}

fn sent(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<Vec<u8>> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: pulse\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Sends and takes bytes as they are.
#[derive(Clone, Copy, Debug)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_ends_well_and_leaves_nothing() {
        let mut server = Server::start();
        assert!(!server.register("n2").ctrl_token.is_empty());
        let folder = server._folder.path().to_owned();
        drop(server);
        assert!(!folder.exists());
    }
}
