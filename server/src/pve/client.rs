//! Asks one Proxmox VE host: a connection for a few questions, one after the other.
//!
//! In: address, API token, whose certificate is trusted. Out: the bodies of answers, or a [`Doubt`]. Always: time and sizes are
//! bounded; an answer that is no success is a doubt. Never: shows the token's secret.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::PveUrl;
use super::certificate::{self, Fingerprint, Trust};
use super::{Doubt, refusal};

/// How long all of a poll may take: connection, handshake and every answer.
pub const LONGEST: Duration = Duration::from_secs(10);

/// The most bytes of an answer: a cluster of 100 nodes with 10,000 guests answers `/cluster/resources` with some 4 MB.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// An API token: `USER@REALM!ID` and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    id: String,
    secret: String,
}

impl ApiToken {
    /// Of both parts.
    ///
    /// # Errors
    /// The rule that one of them breaks.
    pub fn new(id: &str, secret: &str) -> Result<ApiToken, String> {
        let is_whole = id.split_once('!').is_some_and(|(user, name)| {
            !name.is_empty()
                && user.split_once('@').is_some_and(|(user, realm)| !user.is_empty() && !realm.is_empty())
        });
        if !is_whole || !id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=') {
            return Err("the token's id must be like pulse@pve!monitor: USER@REALM!ID".to_owned());
        }
        let secret = secret.trim();
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token's secret must be what `pveum user token add` printed as value: one line"
                .to_owned());
        }
        Ok(ApiToken { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its secret, for whoever seals it.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    fn header(&self) -> Result<HeaderValue, Doubt> {
        let text = format!("PVEAPIToken={}={}", self.id, self.secret);
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| Doubt::Refused("the API token holds bytes that no header can".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A connection to a host.
#[derive(Debug)]
pub struct Client {
    url: PveUrl,
    token: ApiToken,
    sender: SendRequest<Empty<Bytes>>,
    deadline: Instant,
}

impl Client {
    /// Connects. What the client is asked afterwards must be answered within [`LONGEST`] of now.
    ///
    /// # Errors
    /// [`Doubt::Unreachable`], [`Doubt::Certificate`].
    pub async fn connect(url: &PveUrl, token: &ApiToken, trust: &Trust) -> Result<Client, Doubt> {
        let deadline = Instant::now() + LONGEST;
        let (stream, _) = dial(url, trust, deadline).await?;
        let unreachable = |why: String| Doubt::Unreachable { host: url.authority(), why };
        let slow = || unreachable(format!("it does not answer within {} s", LONGEST.as_secs()));
        let opened =
            timeout_at(deadline, http1::handshake(TokioIo::new(stream))).await.map_err(|_| slow())?;
        let (sender, connection) = opened.map_err(|error| unreachable(error.to_string()))?;
        tokio::spawn(async move {
            // Whoever waits for an answer hears of it.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Proxmox VE ended");
            }
        });
        Ok(Client { url: url.clone(), token: token.clone(), sender, deadline })
    }

    /// Asks for a path below `/api2/json`. Out: the body of the answer.
    ///
    /// # Errors
    /// [`Doubt::Refused`] if the answer is no success; [`Doubt::Unreachable`] if there is none.
    pub async fn get(&mut self, path: &'static str) -> Result<Bytes, Doubt> {
        let host = self.url.authority();
        let unreachable = |why: String| Doubt::Unreachable { host: host.clone(), why };
        let slow = || unreachable(format!("it has not answered {path} within {} s", LONGEST.as_secs()));
        let request = Request::get(format!("/api2/json{path}"))
            .header(HOST, host.as_str())
            .header(AUTHORIZATION, self.token.header()?)
            .body(Empty::new())
            .map_err(|error| unreachable(error.to_string()))?;
        let answering = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let answered = timeout_at(self.deadline, answering).await.map_err(|_| slow())?;
        let answer = answered.map_err(|error| unreachable(error.to_string()))?;
        let status = answer.status();
        // Proxmox VE says why in the reason phrase.
        let said = answer.extensions().get::<hyper::ext::ReasonPhrase>();
        let said = said.map_or_else(
            || status.canonical_reason().unwrap_or_default().to_owned(),
            // A host, or whoever stands before it, may repeat what it was shown.
            |said| String::from_utf8_lossy(said.as_bytes()).replace(&self.token.secret, "(the secret)"),
        );
        if let Some(doubt) = refusal(status.as_u16(), &said, &host) {
            return Err(doubt);
        }
        if status != StatusCode::OK {
            return Err(Doubt::Refused(format!(
                "{host} answered {path} with {status}, where 200 was awaited"
            )));
        }
        let reading = body(answer.into_body());
        match timeout_at(self.deadline, reading).await.map_err(|_| slow())? {
            Ok(body) => Ok(body),
            Err(why) => Err(unreachable(format!("its answer to {path} broke off: {why}"))),
        }
    }
}

/// The certificate that a host shows. Nothing is sent to it but the greeting.
///
/// # Errors
/// [`Doubt::Unreachable`]; [`Doubt::Certificate`] if it is not trusted, with what it is.
pub async fn look(url: &PveUrl, trust: &Trust) -> Result<Option<Fingerprint>, Doubt> {
    let (_, shown) = dial(url, trust, Instant::now() + LONGEST).await?;
    Ok(shown)
}

/// A connection, whose host has shown a certificate that is trusted.
async fn dial(
    url: &PveUrl,
    trust: &Trust,
    deadline: Instant,
) -> Result<(TlsStream<TcpStream>, Option<Fingerprint>), Doubt> {
    let unreachable = |why: String| Doubt::Unreachable { host: url.authority(), why };
    let slow = || unreachable(format!("it does not answer within {} s", LONGEST.as_secs()));
    let connecting = TcpStream::connect((url.host(), url.port()));
    let connected = timeout_at(deadline, connecting).await.map_err(|_| slow())?;
    let stream = connected.map_err(|error| unreachable(error.to_string()))?;
    // Questions are short, and each waits for its answer.
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    let (config, shown) = certificate::handshake(trust)
        .map_err(|error| unreachable(format!("TLS cannot be set up: {error}")))?;
    let name = ServerName::try_from(url.host().to_owned()).map_err(|error| unreachable(error.to_string()))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let handshake = timeout_at(deadline, handshake).await.map_err(|_| slow())?;
    let stream = handshake.map_err(|error| not_trusted(&error, url, shown.fingerprint()))?;
    Ok((stream, shown.fingerprint()))
}

async fn body(mut body: hyper::body::Incoming) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > MAX_ANSWER_BYTES {
                return Err(format!("it is larger than {} MiB", MAX_ANSWER_BYTES >> 20));
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}

fn not_trusted(error: &io::Error, url: &PveUrl, shown: Option<Fingerprint>) -> Doubt {
    let host = url.authority();
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause.and_then(|cause| certificate::explain(cause, &host, shown)) {
        Some(text) => Doubt::Certificate { text, shown },
        None => Doubt::Unreachable { host, why: format!("the TLS handshake failed: {error}") },
    }
}

#[cfg(test)]
mod tests;
