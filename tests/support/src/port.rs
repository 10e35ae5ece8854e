//! A port that stays a test's own, also while the server that listens on it is down.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketType, sockopt};

/// A port of 127.0.0.1 that the system gives to nobody else.
///
/// The socket is bound and never listens: then Linux lets a listener with `SO_REUSEADDR` (every listener of Rust has
/// it) have the port as well, refuses callers while there is none, and skips the port when it looks for a free one.
/// Source: ip(7), and `inet_csk_bind_conflict` in the kernel.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: OwnedFd,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn take() -> Port {
        let held = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket can be made");
        sockopt::set_socket_reuseaddr(&held, true).expect("the option exists");
        net::bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
        let address = net::getsockname(&held).expect("a bound socket has a name");
        Port { address: address.try_into().expect("it is an IPv4 socket"), _held: held }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_port_is_refused_until_somebody_listens_and_again_after_that() {
        let port = Port::take();
        let refused =
            || TcpStream::connect(port.address()).unwrap_err().kind() == ErrorKind::ConnectionRefused;
        assert!(refused());
        for _ in 0..2 {
            let listener = TcpListener::bind(port.address()).unwrap();
            TcpStream::connect(port.address()).unwrap();
            drop(listener);
            assert!(refused());
        }
    }
}
