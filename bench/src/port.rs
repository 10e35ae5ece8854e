//! A port that stays the bench's own, also while the server that listens on it is down.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketType, sockopt};

use crate::failure::{Doing, Outcome};

/// A port of 127.0.0.1 that the system gives to nobody else.
///
/// The socket is bound and never listens: then Linux lets a listener with `SO_REUSEADDR` have the port as well, and skips
/// the port when it looks for a free one, also for one of ten thousand clients. Source: ip(7).
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _held: OwnedFd,
}

impl Port {
    /// Takes a free port.
    pub(crate) fn take() -> Outcome<Port> {
        let take = || -> rustix::io::Result<(OwnedFd, net::SocketAddrAny)> {
            let held = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
            sockopt::set_socket_reuseaddr(&held, true)?;
            net::bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let name = net::getsockname(&held)?;
            Ok((held, name))
        };
        let (held, name) = take().doing("take a port")?;
        Ok(Port { address: name.try_into().doing("read the port's address")?, _held: held })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
