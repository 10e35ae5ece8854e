//! The HTTP API: what the command line (and, one day, the UI) asks and sets, as JSON under [`api::ROOT`].
//!
//! In: requests of an admin, known by the peer credentials of the Unix socket. Out: what [`Changes`], [`Lists`],
//! [`Fleet`], [`Readings`] and [`Store`] answer, in the types of [`api`].
//! Always: a handler only translates; a path has a description, which names who may ask; every error is a problem with a reason, those
//! of the framework too.
//! Never: keeps state of its own, or decides.
//!
//! [`Changes`]: crate::changes::Changes
//! [`Lists`]: crate::publish::Lists
//! [`Fleet`]: crate::fleet::Fleet
//! [`Readings`]: crate::readings::Readings
//! [`Store`]: crate::store::Store

mod access;
mod admins;
mod api_tokens;
mod audit;
mod backup;
pub mod description;
mod epoch;
mod events;
mod extract;
mod held;
mod import;
mod instances;
mod join_tokens;
mod key;
mod lists;
mod nodes;
pub mod probes;
mod proxies;
mod refusal;
mod refused;
pub mod routes;
mod sessions;
mod sources;
mod status;
mod temperatures;
mod tls;
mod viewer;
mod views;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Pulse;
use crate::api;

/// The admin API. Its requests carry the extension [`AdminPeer`](crate::listen::admin_socket::AdminPeer): who may open the socket
/// is an admin, and the audit log notes the user id. What is open to all is beside it, in [`description::router`].
pub fn admin_router(pulse: Arc<Pulse>) -> Router {
    let access = Arc::new(routes::access_of(&description::description()));
    let paths = refused::noted(Router::from(routes::paths()), pulse.refusals.clone())
        .layer(DefaultBodyLimit::max(api::MAX_REQUEST_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&pulse), look_around))
        .layer(middleware::from_fn_with_state(Arc::clone(&pulse), access::guard))
        // Last, so that it is the first that a request meets: layers above find its access.
        .layer(middleware::from_fn_with_state(access, routes::only_described))
        .with_state(pulse);
    refusal::with_problems(Router::new().nest(api::ROOT, paths))
}

pub use refusal::with_fallback;

/// The longest that an admin waits for what other servers know.
const LOOK_WAIT: Duration = Duration::from_secs(2);

/// Before an admin is answered, what other servers changed and know is taken in.
async fn look_around(State(pulse): State<Arc<Pulse>>, request: Request, next: Next) -> Response {
    if pulse.store.is_shared() {
        let looking = async {
            if let Err(error) = pulse.changes.catch_up().await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "an admin is told what is known here"
                );
            }
            pulse.replicas.look_around().await;
        };
        // A database that hangs keeps nobody from seeing what is known here.
        if timeout(LOOK_WAIT, looking).await.is_err() {
            tracing::debug!("the database does not answer: an admin is told what is known here");
        }
    }
    next.run(request).await
}

/// So many of them are made at one time; the others wait.
static APART: Semaphore = Semaphore::const_new(2);

/// Makes an answer that takes a look at all of the fleet, 15 ms for 10,000 proxies: on a thread of its own, as a runtime's
/// thread that is busy for so long may be the one that looks after the sockets.
async fn apart<T: IntoResponse + 'static>(answer: impl FnOnce() -> T + Send + 'static) -> Response {
    // Nobody closes it.
    let place = APART.acquire().await.ok();
    let made = tokio::task::spawn_blocking(move || {
        let _place = place;
        answer().into_response()
    });
    let made = made.await;
    made.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime ends.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
