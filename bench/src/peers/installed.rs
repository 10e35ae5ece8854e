//! The peers that come from the system's packages, if they are there: etcd, NATS and Redis, each as its package runs it,
//! with as many clients as the bench has.
//!
//! Always: what they are given to pass on is the message that Pulse sends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use super::{Peer, WINDOW};
use crate::client::control::{Connect, Subscription};
use crate::clock::now_ns;
use crate::failure::{Doing, Outcome};
use crate::list::List;
use crate::machine::output;
use crate::port::Port;
use crate::process::{Process, wait_until};

/// The names of these peers, their programs, and Debian's packages.
pub(crate) const INSTALLED: [(&str, &str, &str); 3] = [
    ("etcd", "etcd", "etcd-server"),
    ("nats", "nats-server", "nats-server"),
    ("redis", "redis-server", "redis-server"),
];

/// Key, subject and channel of the list.
const TOPIC: &str = "pulse-bench";
/// How long a server may take to be there, or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a program is. Debian has some of them where only an administrator looks.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Starts one of them by its name.
pub(crate) fn start(name: &'static str, program: &Path, folder: &Path) -> Outcome<Box<dyn Peer>> {
    let folder = folder.join(name);
    // That of the run with fewer clients.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).doing(format!("make {}", folder.display()))?;
    let (port, second) = (Port::take()?, Port::take()?);
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match name {
        "etcd" => {
            let (client, peer) =
                (format!("http://{}", port.address()), format!("http://{}", second.address()));
            command.arg("--data-dir").arg(&folder).args(["--log-level", "error"]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.arg("--initial-cluster").arg(format!("default={peer}"));
        }
        "nats" => {
            command.args(["--addr", "127.0.0.1", "--port", &port.address().port().to_string()]);
        }
        _ => {
            command.args(["--bind", "127.0.0.1", "--port", &port.address().port().to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--maxclients", "19000", "--dir"]).arg(&folder);
        }
    }
    let mut process = Process::start(name, &mut command)?;
    let address = port.address();
    wait_until(&format!("{name} to listen"), PATIENCE, || {
        process.check()?;
        Ok(TcpStream::connect(address).ok().map(drop))
    })?;
    let way = match name {
        "etcd" => Way::Etcd(Box::new(Etcd::connect(address)?)),
        "nats" => Way::Nats,
        _ => Way::Redis,
    };
    let version = output(&program.display().to_string(), &["--version"]);
    let version = version.lines().next().unwrap_or_default().to_owned();
    Ok(Box::new(Installed { name, version, process, address, way, _ports: [port, second] }))
}

/// One of them, running.
struct Installed {
    name: &'static str,
    version: String,
    process: Process,
    address: SocketAddr,
    way: Way,
    _ports: [Port; 2],
}

/// How a list is given to it.
enum Way {
    Etcd(Box<Etcd>),
    Nats,
    Redis,
}

impl Peer for Installed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn server(&mut self) -> &mut Process {
        &mut self.process
    }

    fn connect(&self, count: usize) -> Connect {
        let subscription = match &self.way {
            Way::Etcd(_) => Subscription::Grpc {
                path: "/etcdserverpb.Watch/Watch".to_owned(),
                tokens: None,
                message: WatchRequest { create: Some(WatchCreate { key: TOPIC.into() }) }.encode_to_vec(),
                // The end of the client's half would end the watch.
                is_end: false,
                window: WINDOW,
                has_kinds: false,
            },
            Way::Nats => Subscription::Nats { subject: TOPIC.to_owned() },
            Way::Redis => Subscription::Redis { channel: TOPIC.to_owned() },
        };
        Connect { count, address: self.address, ca: None, in_flight: 256, timeout_ms: 120_000, subscription }
    }

    fn push(&mut self, list: &List) -> Outcome<u64> {
        let message = list.message();
        match &mut self.way {
            Way::Etcd(etcd) => etcd.put(message),
            Way::Nats => publish_nats(self.address, &message).doing("publish to nats"),
            Way::Redis => publish_redis(self.address, &message).doing("publish to redis"),
        }
    }

    fn version(&self) -> String {
        self.version.clone()
    }
}

/// etcd's `PutRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// etcd's `PutResponse`, of which nothing is needed.
#[derive(Clone, PartialEq, Eq, Message)]
struct PutResponse {}

/// etcd's `WatchRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}

/// etcd's `WatchCreateRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// A connection to etcd.
struct Etcd {
    runtime: Runtime,
    grpc: Grpc<Channel>,
}

impl Etcd {
    fn connect(address: SocketAddr) -> Outcome<Etcd> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.doing("start a runtime")?;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).doing("name etcd")?;
        let dial = tower::service_fn(move |_| async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        });
        let channel = runtime.block_on(endpoint.connect_with_connector(dial)).doing("connect to etcd")?;
        Ok(Etcd { runtime, grpc: Grpc::new(channel) })
    }

    fn put(&mut self, value: Vec<u8>) -> Outcome<u64> {
        let Etcd { runtime, grpc } = self;
        runtime.block_on(async {
            grpc.ready().await.doing("reach etcd")?;
            let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
            let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
            let request = tonic::Request::new(PutRequest { key: TOPIC.into(), value });
            let asked_ns = now_ns();
            grpc.unary(request, path, codec).await.doing("put to etcd")?;
            Ok(asked_ns)
        })
    }
}

/// Publishes over a connection that is made before the clock is read.
fn publish_nats(address: SocketAddr, message: &[u8]) -> std::io::Result<u64> {
    let mut stream = connect(address)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let hello = r#"CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"name":"pulse-bench","lang":"rust","version":"1"}"#;
    stream.write_all(format!("{hello}\r\nPING\r\n").as_bytes())?;
    until_pong(&mut lines)?;
    let mut bytes = format!("PUB {TOPIC} {}\r\n", message.len()).into_bytes();
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(b"\r\nPING\r\n");
    let asked_ns = now_ns();
    stream.write_all(&bytes)?;
    // A connection that is closed at once could take the message with it.
    until_pong(&mut lines)?;
    Ok(asked_ns)
}

fn until_pong(lines: &mut impl BufRead) -> std::io::Result<()> {
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        if line.starts_with("PONG") {
            return Ok(());
        }
        line.clear();
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

fn publish_redis(address: SocketAddr, message: &[u8]) -> std::io::Result<u64> {
    let mut stream = connect(address)?;
    let mut bytes = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{TOPIC}\r\n${}\r\n", TOPIC.len(), message.len());
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    let mut frame = std::mem::take(&mut bytes).into_bytes();
    frame.extend_from_slice(message);
    frame.extend_from_slice(b"\r\n");
    let asked_ns = now_ns();
    stream.write_all(&frame)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind == *b":" { Ok(asked_ns) } else { Err(std::io::Error::other("it refused to publish")) }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
