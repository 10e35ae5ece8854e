//! One connection of a client: its socket, TLS if there is any, and what is spoken on it.
//!
//! In: readiness of the socket. Out: the head of each whole message. Always: no call blocks; one read for each readiness.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::speech::{Said, Speech};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// TCP's handshake is under way.
    Dialing,
    /// Bytes go to and fro; nothing was said yet.
    Greeting,
    /// The first message has come.
    Subscribed,
}

/// One connection.
pub(super) struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    speech: Speech,
    /// What could not be written at once.
    wire: Vec<u8>,
    pub(super) phase: Phase,
    pub(super) is_stalled: bool,
    /// Whether the socket is asked for room to write.
    pub(super) wants_room: bool,
}

/// Buffers that all connections of a process share.
pub(super) struct Buffers {
    wire: Box<[u8]>,
    plain: Box<[u8]>,
    out: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        let size = 128 << 10;
        Buffers { wire: vec![0; size].into(), plain: vec![0; size].into(), out: Vec::new() }
    }
}

impl Connection {
    /// Begins to dial.
    pub(super) fn dial(
        address: SocketAddr,
        tls: Option<&Arc<rustls::ClientConfig>>,
        speech: Speech,
    ) -> io::Result<Connection> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let name = ServerName::from(address.ip());
        let tls = tls.map(|config| ClientConnection::new(Arc::clone(config), name)).transpose();
        let tls = tls.map_err(io::Error::other)?.map(Box::new);
        Ok(Connection {
            stream: TcpStream::from(socket),
            tls,
            speech,
            wire: Vec::new(),
            phase: Phase::Dialing,
            is_stalled: false,
            wants_room: true,
        })
    }

    /// The socket.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether requests may go out: the socket is connected, and TLS has shaken hands.
    pub(super) fn is_ready(&self) -> bool {
        self.phase != Phase::Dialing && self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    /// Something can be written: the connection is there, or there is room again.
    pub(super) fn writable(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        if self.phase == Phase::Dialing {
            sockopt::socket_error(&self.stream)??;
            self.phase = Phase::Greeting;
            self.speech.greet(&mut buffers.out);
            return self.send(&mut buffers.out);
        }
        self.flush()
    }

    /// Reads what is there, once, and gives each message's head to `said`.
    pub(super) fn readable(
        &mut self,
        buffers: &mut Buffers,
        said: &mut impl FnMut(Said<'_>),
    ) -> io::Result<()> {
        let Buffers { wire, plain, out } = buffers;
        let count = match self.stream.read(wire) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(tls) = &mut self.tls else {
            self.speech.take(&wire[..count], out, said);
            return if out.is_empty() { Ok(()) } else { self.send(out) };
        };
        let mut rest = &wire[..count];
        let is_handshaking = tls.is_handshaking();
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let mut waiting = state.plaintext_bytes_to_read();
            while waiting > 0 {
                let count = tls.reader().read(plain)?;
                self.speech.take(&plain[..count], out, said);
                waiting -= count.min(waiting);
            }
        }
        if is_handshaking || !out.is_empty() || tls.wants_write() { self.send(out) } else { Ok(()) }
    }

    /// Sends bytes of the speech, and what TLS has to say, as far as the socket takes them.
    pub(super) fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.tls {
            None => self.wire.append(out),
            Some(tls) => {
                tls.writer().write_all(out)?;
                out.clear();
                while tls.wants_write() {
                    tls.write_tls(&mut self.wire)?;
                }
            }
        }
        self.flush()
    }

    /// What is spoken, with a buffer for what it has to send.
    pub(super) fn speech(&mut self) -> &mut Speech {
        &mut self.speech
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.wire.is_empty() {
            match self.stream.write(&self.wire) {
                Ok(count) => drop(self.wire.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.wants_room = !self.wire.is_empty();
        if self.wire.is_empty() {
            self.wire = Vec::new();
        }
        Ok(())
    }
}
