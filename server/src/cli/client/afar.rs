//! [`Afar`]: a server that is asked over the network, with an API token.
//!
//! In: its address, the file of the token, what is trusted. Out: a connection to a server that showed the right certificate.
//! Always: the token is sent only after that. Plain HTTP goes to this machine's own addresses and no further.
//! Never: shows the token, takes it from the arguments, or has it in an error.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use pulse_config::Environment;
use pulse_proto::{Pin, Token, TokenKind};
use pulse_reach::ServerUrl;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::failure::Failure;
use super::trust::{self, Trust};
use crate::args::Place;

/// How long a connection may take, from the first packet to the end of the handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest file of a token: the token, and line ends.
const MAX_TOKEN_BYTES: u64 = 1024;

/// A stream of bytes, secured where it need be.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// See the module.
pub(in crate::cli) struct Afar {
    url: ServerUrl,
    /// `None`: plain HTTP.
    tls: Option<(TlsConnector, Trust)>,
    authorization: HeaderValue,
}

impl fmt::Display for Afar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url.authority())
    }
}

impl Afar {
    /// Of an address, and the flags and variables that belong to it.
    pub(super) fn of(url: &str, place: &Place, environment: &Environment) -> Result<Afar, Failure> {
        let variable = |name: &str| environment.value(name).map(PathBuf::from);
        let parsed: Result<ServerUrl, _> = url.parse();
        let url_of_server =
            parsed.map_err(|error| Failure::usage("SERVER", format!("the address of the server {error}")))?;
        let is_plain = ServerUrl::is_plain_http(url) && is_this_machine(url_of_server.host());
        if ServerUrl::is_plain_http(url) && !is_plain {
            eprintln!(
                "http:// is taken as https:// on the same port, as the token is never sent in the open"
            );
        }
        let pin = match (&place.pin, environment.value("PULSE_PIN")) {
            (Some(pin), _) => Some(*pin),
            (None, Some(text)) => Some(pin_of(&text.to_string_lossy())?),
            (None, None) => None,
        };
        let ca_file = place.ca_file.clone().or_else(|| variable("PULSE_CA_FILE"));
        let trust = Trust::choose(pin, ca_file);
        let tls = match is_plain {
            true => None,
            false => Some((TlsConnector::from(trust::client_config(&trust)?), trust)),
        };
        let Some(file) = place.token_file.clone().or_else(|| variable("PULSE_TOKEN_FILE")) else {
            let text = "a server from afar asks for an API token: say --token-file FILE, or - for standard input; `pulse token create` on \
                        the server makes one";
            return Err(Failure::usage("NO_TOKEN", text.to_owned()));
        };
        let token = read_token(&file)?;
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
        let mut authorization =
            bearer.map_err(|_| bad_token(&file, "it has characters that no token has"))?;
        authorization.set_sensitive(true);
        Ok(Afar { url: url_of_server, tls, authorization })
    }

    /// `HOST:PORT`.
    pub(super) fn authority(&self) -> String {
        self.url.authority()
    }

    /// The header with the token.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Opens a connection, whose server has shown that it is the right one.
    pub(super) async fn dial(&self) -> Result<Box<dyn Stream>, Failure> {
        let late = |_| self.not_reached(&format!("it does not answer within {} s", DIAL_TIMEOUT.as_secs()));
        timeout(DIAL_TIMEOUT, self.open()).await.map_err(late)?
    }

    async fn open(&self) -> Result<Box<dyn Stream>, Failure> {
        let connecting = TcpStream::connect((self.url.host(), self.url.port())).await;
        let stream = connecting.map_err(|error| self.not_reached(&why(&error)))?;
        stream.set_nodelay(true).map_err(|error| self.not_reached(&error.to_string()))?;
        let Some((connector, trust)) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.url.host().to_owned());
        let name = name.map_err(|_| self.not_reached("its host is no name that a certificate can have"))?;
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(trust::explain(&error, &self.authority(), trust)),
        }
    }

    fn not_reached(&self, why: &str) -> Failure {
        let text = format!(
            "the server {self} is not reached: {why}; is it the right address, does it run, and is there a firewall in between?"
        );
        Failure::local("NOT_REACHED", text)
    }
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        _ => error.to_string(),
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn pin_of(text: &str) -> Result<Pin, Failure> {
    text.trim().parse().map_err(|error| Failure::usage("PIN", format!("PULSE_PIN: {error}")))
}

/// The token in a file, or on standard input (`-`).
fn read_token(file: &Path) -> Result<Token, Failure> {
    let unreadable = |error: io::Error| {
        let text = format!("read the API token from {}: {error}", file.display());
        Failure::usage("TOKEN_FILE", text)
    };
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let open = File::open(file).map_err(unreadable)?;
        let mode = open.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            let shown = file.display();
            eprintln!("warning: {shown} has an API token and can be read by others: chmod 600 {shown}");
        }
        open.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    }
    // What the error says never has the token in it.
    Token::parse(TokenKind::Api, text.trim()).map_err(|error| bad_token(file, &error.to_string()))
}

fn bad_token(file: &Path, why: &str) -> Failure {
    let text = format!("{} has no API token: {why}; `pulse token create` makes one", file.display());
    Failure::usage("TOKEN_FILE", text)
}
