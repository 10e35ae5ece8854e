//! The peers that the bench brings along, each as a server process: the floors, and tonic as anybody would use it.
//!
//! In: lists, each behind its length (32 bits, big-endian), on a Unix socket. Out: the newest to every client, at once
//! and whenever it changes. Always: what a client gets is the same message that Pulse sends.

mod certificate;
mod floor_epoll;
mod floor_tls;
mod naive;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::failure::{Doing, Outcome};
pub(crate) use certificate::Certificate;

/// Which peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// Raw epoll and plain TCP: the same bytes to every client with one write each, from one thread.
    FloorEpoll,
    /// The same from two threads.
    FloorEpoll2,
    /// A task for each connection on a watch channel, over rustls.
    FloorTls,
    /// tonic's generated service on a watch channel: each stream clones and encodes.
    NaiveTonic,
}

/// `pulse-bench serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// Which peer
    #[arg(value_enum)]
    pub(crate) kind: Kind,
    /// Unix socket on which lists come
    #[arg(long, value_name = "PATH")]
    pub(crate) lists: PathBuf,
    /// Folder with certificate.pem and key.pem; without it: plain text
    #[arg(long, value_name = "DIR")]
    pub(crate) tls: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
}

/// The longest queue of connections that wait to be accepted; the system bounds it too.
const BACKLOG: i32 = 4096;

/// Serves until it is killed.
pub(crate) fn run(serve: &Serve) -> Outcome<()> {
    match serve.kind {
        Kind::FloorEpoll => floor_epoll::run(serve, 1),
        Kind::FloorEpoll2 => floor_epoll::run(serve, 2),
        Kind::FloorTls => floor_tls::run(serve),
        Kind::NaiveTonic => naive::run(serve),
    }
}

/// Listens, without blocking.
fn listen(address: SocketAddr) -> Outcome<std::net::TcpListener> {
    let bound = || -> io::Result<std::net::TcpListener> {
        let family = rustix::net::AddressFamily::INET;
        let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bound().doing(format!("listen on {address}"))
}

/// Says that clients may come.
fn ready() -> Outcome<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "ready").and_then(|()| output.flush()).doing("say that it is ready")
}

/// The list on the way from the bench to the streams of a peer on tokio.
struct Lists {
    socket: UnixListener,
}

impl Lists {
    fn bind(serve: &Serve) -> Outcome<Lists> {
        let socket =
            UnixListener::bind(&serve.lists).doing(format!("listen on {}", serve.lists.display()))?;
        Ok(Lists { socket })
    }

    /// Takes the bench's one connection and the first list.
    async fn first(self) -> Outcome<(Bytes, UnixStream)> {
        let (mut stream, _) = self.socket.accept().await.doing("wait for the bench")?;
        Ok((next(&mut stream).await.doing("read the first list")?, stream))
    }
}

async fn next(stream: &mut UnixStream) -> io::Result<Bytes> {
    let length = stream.read_u32().await? as usize;
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message.into())
}

/// Sends every list that comes to the watchers, until the bench goes.
async fn follow<T>(mut stream: UnixStream, lists_tx: watch::Sender<T>, form: impl Fn(Bytes) -> T) {
    while let Ok(message) = next(&mut stream).await {
        lists_tx.send_replace(form(message));
    }
}
