//! The way to Pulse: one HTTP/2 connection over TLS, dialled when it is needed, and the token that goes with each call.
//!
//! In: the server's address, what to trust, the current token. Out: [`Client`]s that share the connection.
//! Always: the certificate is checked inside the handshake, before any token is sent; a call takes the token that is
//! current when it is made. Never: retries, or decides when to dial again; that is `sync`.

mod dial;
mod failure;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper_util::rt::TokioIo;
use pulse_proto::v1::control_plane_service_client::ControlPlaneServiceClient;
use pulse_proto::{MAX_MESSAGE_BYTES, TOKEN_METADATA, Token};
use rustls::ClientConfig;
use tokio::sync::Notify;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::config::ServerUrl;
use crate::seams::Network;

pub use dial::{DIAL_TIMEOUT, DialError};
pub(crate) use failure::reason_of;
pub use failure::{Failure, describe};

/// What calls are made with.
pub type Client = ControlPlaneServiceClient<InterceptedService<Channel, Credentials>>;

/// This program, as it names itself to the server.
pub const USER_AGENT: &str = concat!("pulse-sensor-proxy/", env!("CARGO_PKG_VERSION"));

/// A dead peer is noticed after a ping that stays unanswered: 20 s + 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls under way at once are a stream and a report; what waits beyond that is held back.
const CALLS_WAITING: usize = 16;

/// The way to one server. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    url: ServerUrl,
    network: Network,
    tls: Arc<ArcSwap<ClientConfig>>,
    channel: ArcSwap<Channel>,
    credentials: Credentials,
    /// A call beside the stream was answered.
    answered: Notify,
}

/// Puts the current token on each call.
#[derive(Clone, Default)]
pub struct Credentials {
    bearer: Arc<ArcSwapOption<MetadataValue<Ascii>>>,
    /// Whether calls go out without a bearer too: a host that asks to be approved has none.
    is_bearer_needless: Arc<AtomicBool>,
    proof: Arc<ArcSwapOption<MetadataValue<Ascii>>>,
}

impl Link {
    /// Makes the way to a server. Nothing is dialled before the first call.
    ///
    /// Needs a tokio runtime around it, because the connection's worker is started here.
    pub fn new(url: ServerUrl, tls: Arc<ClientConfig>, network: Network) -> Link {
        let tls = Arc::new(ArcSwap::new(tls));
        let channel = channel(&url, &tls, &network);
        Link(Arc::new(Shared {
            url,
            network,
            tls,
            channel: ArcSwap::from_pointee(channel),
            credentials: Credentials::default(),
            answered: Notify::new(),
        }))
    }

    /// Where it leads.
    pub fn url(&self) -> &ServerUrl {
        &self.0.url
    }

    /// A client for calls now: make one for each call or stream, so that a new connection and a new token are seen.
    pub fn client(&self) -> Client {
        let channel = Channel::clone(&self.0.channel.load());
        ControlPlaneServiceClient::with_interceptor(channel, self.0.credentials.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Gives up the present connection; the next client dials anew.
    pub fn redial(&self) {
        self.0.channel.store(Arc::new(channel(&self.0.url, &self.0.tls, &self.0.network)));
    }

    /// Trusts something else from now on, and dials anew.
    pub fn trust(&self, tls: Arc<ClientConfig>) {
        self.trust_when_dialling(tls);
        self.redial();
    }

    /// Trusts something else whenever it dials from now on; the present connection stays.
    pub fn trust_when_dialling(&self, tls: Arc<ClientConfig>) {
        self.0.tls.store(tls);
    }

    /// Says that the server answered a call, to whoever waits for it to be back.
    pub fn note_answer(&self) {
        self.0.answered.notify_waiters();
    }

    /// Waits for an answer that comes after this call.
    pub fn answered(&self) -> impl Future<Output = ()> {
        self.0.answered.notified()
    }

    /// Takes the token for the calls to come; `None`: calls fail before anything is sent.
    pub fn use_token(&self, token: Option<&Token>) {
        let bearer = token.and_then(|token| secret(&format!("Bearer {}", token.reveal())));
        self.0.credentials.bearer.store(bearer.map(Arc::new));
    }

    /// Lets calls go out without a token.
    pub fn go_without_token(&self) {
        self.0.credentials.is_bearer_needless.store(true, Ordering::Relaxed);
    }

    /// Sends a ctrl token beside a join token, which proves the identity of a proxy that registers again.
    pub fn prove_with(&self, token: Option<&Token>) {
        let proof = token.and_then(|token| secret(token.reveal()));
        self.0.credentials.proof.store(proof.map(Arc::new));
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("url", &self.0.url).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match self.bearer.load_full() {
            Some(bearer) => {
                request.metadata_mut().insert("authorization", MetadataValue::clone(&bearer));
            }
            None if self.is_bearer_needless.load(Ordering::Relaxed) => {}
            None => {
                return Err(Status::unauthenticated(
                    "this proxy has no token yet: run `pulse-sensor-proxy register`",
                ));
            }
        }
        if let Some(proof) = self.proof.load_full() {
            request.metadata_mut().insert(TOKEN_METADATA, MetadataValue::clone(&proof));
        }
        Ok(request)
    }
}

/// A metadata value that no log shows. Tokens are base64url, so none is refused.
fn secret(text: &str) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = text.parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn channel(url: &ServerUrl, tls: &Arc<ArcSwap<ClientConfig>>, network: &Network) -> Channel {
    let (tls, network) = (Arc::clone(tls), network.clone());
    let place = url.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (tls, place, network) = (tls.load_full(), place.clone(), network.clone());
        async move { dial::dial(&place, tls, &network).await.map(TokioIo::new) }
    });
    Endpoint::from_shared(format!("https://{}", url.authority()))
        .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
        .expect("a parsed host and port make a URI")
        .buffer_size(CALLS_WAITING)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .connect_with_connector_lazy(connector)
}

#[cfg(test)]
mod tests;
