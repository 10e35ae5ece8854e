//! [`Way`]: over which way a server is asked, by what was typed and the environment.
//!
//! Always: a flag goes before the environment; what names a server on this machine goes before what names one from afar.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pulse_config::Environment;
use tokio::net::UnixStream;

use super::super::failure::Failure;
use super::afar::{Afar, Stream};
use crate::args::{Place, Serve};
use crate::config::Config;

/// The way to one server. Shown, it is what people know the server by.
#[derive(Clone)]
pub(in crate::cli) enum Way {
    /// Its admin socket, on this machine.
    Socket(PathBuf),
    /// Its port.
    Afar(Arc<Afar>),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Socket(path) => write!(f, "{}", path.display()),
            Way::Afar(afar) => write!(f, "{afar}"),
        }
    }
}

/// As it is shown: the token is no part of that.
impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({self})")
    }
}

impl Way {
    /// Chooses it.
    ///
    /// # Errors
    /// [`Failure`]: what was typed is no way, or the configuration that would say where the socket is cannot be read.
    pub(in crate::cli) fn of(place: &Place, environment: Environment) -> Result<Way, Failure> {
        let is_here = place.socket.is_some() || place.data_dir.is_some();
        let named = || environment.value("PULSE_SERVER").and_then(|url| url.to_str()).map(str::to_owned);
        match place.server.clone().or_else(|| named().filter(|_| !is_here)) {
            Some(url) => Ok(Way::Afar(Arc::new(Afar::of(&url, place, &environment)?))),
            None => Ok(Way::Socket(socket(place, environment)?)),
        }
    }

    /// Opens a connection.
    pub(super) async fn dial(&self) -> Result<Box<dyn Stream>, Failure> {
        match self {
            Way::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(Failure::connecting(path, &error)),
            },
            Way::Afar(afar) => afar.dial().await,
        }
    }

    /// What `Host` says.
    pub(super) fn host(&self) -> String {
        match self {
            Way::Socket(_) => "localhost".to_owned(),
            Way::Afar(afar) => afar.authority(),
        }
    }
}

/// The admin socket. The configuration is read only if nothing nearer says where it is, so that a mistake in the
/// file does not lock the admin out.
pub(in crate::cli) fn socket(place: &Place, environment: Environment) -> Result<PathBuf, Failure> {
    if let Some(socket) = &place.socket {
        return Ok(socket.clone());
    }
    let variable = || environment.value("PULSE_DATA_DIR").map(PathBuf::from);
    if let Some(data_dir) = place.data_dir.clone().or_else(variable) {
        return Ok(data_dir.join("admin.sock"));
    }
    match Config::load(&place.sources(&Serve::default(), environment)) {
        Ok((config, _)) => Ok(config.admin_socket()),
        Err(error) => Err(Failure::configuration(error.to_string())),
    }
}
