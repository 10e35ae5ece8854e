//! One list, fetched once: what an installer calls to prime the cache, and what `sync` prints.
//!
//! Always: verified and kept as the loop does it, under the lock that a running proxy takes too. Never: puts anything in
//! force; a running proxy is told by the server.

use std::time::Duration;

use pulse_proto::text::one_line;
use pulse_proto::{Refusal, SignedAllowlist, v1};
use tokio::time::timeout;
use tonic::Status;
use v1::watch_authorized_nodes_response::Kind;

use super::standing::Standing;
use crate::identity::IdentityError;
use crate::link::{Failure, Link};
use crate::seams::Seams;
use crate::tls::{self, TrustError};

/// From dialling to the first message.
const LIMIT: Duration = Duration::from_secs(30);

/// What the server had.
#[derive(Debug)]
pub enum Fetched {
    /// A list, verified; and what kept it from the disk, if something did.
    List(Box<SignedAllowlist>, Result<(), String>),
    /// No list yet, and why.
    Waiting(String),
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no token.
    #[error("this proxy is not registered with {0}: run `pulse-sensor-proxy register --join STRING`")]
    NoToken(String),
    /// What to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The state folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The call failed.
    #[error("fetch the list from {server}: {}", failure.text())]
    Call {
        /// Where.
        server: String,
        /// Why.
        failure: Failure,
    },
    /// The server took too long.
    #[error("fetch the list from {0}: no answer within {limit} s", limit = LIMIT.as_secs())]
    Silent(String),
    /// The server ended the stream, and says why.
    #[error("fetch the list from {server}: the server ends the stream: {reason}")]
    Ended {
        /// Where.
        server: String,
        /// Why.
        reason: String,
    },
    /// The list fails a check.
    #[error("the list from {server} is refused")]
    Refused {
        /// Where.
        server: String,
        /// Which check.
        source: Refusal,
    },
}

/// Fetches the newest list, verifies and keeps it.
///
/// # Errors
/// [`FetchError`]; what was kept before stays, except when the server says that this proxy is revoked.
pub async fn fetch(standing: &mut Standing, seams: &Seams) -> Result<Fetched, FetchError> {
    let server = standing.control().url.to_string();
    let token = standing.token().ok_or_else(|| FetchError::NoToken(server.clone()))?;
    let tls = tls::client_config(&standing.trust())?;
    let link = Link::new(standing.control().url.clone(), tls, seams.network.clone());
    link.use_token(Some(token));
    let mut client = link.client();
    // Only to say what is wrong with it.
    let _ = standing.cached();
    let kept = standing.kept_problem();
    let request = v1::WatchAuthorizedNodesRequest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kept_list_problem: kept.map_or(v1::KeptListProblem::Unspecified, |kept| kept.problem).into(),
        kept_list_detail: kept.map(|kept| kept.text.clone()).unwrap_or_default(),
        ..v1::WatchAuthorizedNodesRequest::default()
    };
    // What it holds is not said, so that the whole list comes. The stream ends when it is dropped.
    let opened = timeout(LIMIT, async {
        let mut stream = client.watch_authorized_nodes(request).await?.into_inner();
        Ok::<_, Status>((stream.message().await?, stream))
    });
    let first = match opened.await {
        Ok(Ok((first, _stream))) => first,
        Ok(Err(status)) => {
            let failure = Failure::of(&status);
            if let Failure::Revoked(reason) = &failure {
                standing.revoke(reason)?;
            }
            return Err(FetchError::Call { server, failure });
        }
        Err(_) => return Err(FetchError::Silent(server)),
    };
    let ended = |reason: &str| FetchError::Ended { server: server.clone(), reason: reason.to_owned() };
    let first = first.ok_or_else(|| ended("it gives no reason"))?;
    if let Some(info) = &first.server {
        standing.learn(info)?;
    }
    match first.kind {
        Some(Kind::Snapshot(snapshot)) => {
            let list = SignedAllowlist::verify(&snapshot, standing.keys(), standing.reached())
                .map_err(|source| FetchError::Refused { server, source })?;
            // A newer one that a running proxy kept meanwhile stays.
            let kept = standing.keep(&list, seams.clock.now());
            Ok(Fetched::List(Box::new(list), kept))
        }
        Some(Kind::Waiting(waiting)) => Ok(Fetched::Waiting(waiting.reason)),
        Some(Kind::Revoked(revoked)) => {
            standing.revoke(&revoked.reason)?;
            Err(FetchError::Call { server, failure: Failure::Revoked(one_line(&revoked.reason)) })
        }
        Some(Kind::Goodbye(goodbye)) => Err(ended(&goodbye.reason)),
        Some(Kind::Bookmark(_)) => Err(ended(
            "it sends this proxy no list, as its database is older than what the proxy holds; its admin sees that in `pulse \
             status`",
        )),
        _ => Err(ended("it sent no list; it may be of another version")),
    }
}
