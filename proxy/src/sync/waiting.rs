//! The registration that waits: made when its server can be reached, given up when the server refuses it.
//!
//! In: what `register` kept. Out: the state folder of the new registration, and a word to the loop that it is there.
//! Always: one attempt at a time; a proxy that is registered already makes it beside its stream, which goes on meanwhile;
//! it is said whether it was used, refused or past its time. Never: gives it up because a server is away or busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pulse_proto::reason;
use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::config::ControlPlane;
use crate::identity::{Home, IdentityError};
use crate::register::{self, RegisterError};
use crate::seams::Seams;
use crate::telemetry::chain;

/// How often to look for a registration that waits. It is one small file.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What the loop and a registration beside it tell each other.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Whether this proxy has a token that may be good: then the loop leaves the registration to [`Registrar::run`].
    is_registered: AtomicBool,
    /// One attempt at a time: two would use up two registrations.
    turn: Mutex<()>,
    /// There is a new registration.
    renewed: Notify,
}

impl Beside {
    /// Notes whether this proxy is registered.
    pub(super) fn note(&self, is_registered: bool) {
        self.is_registered.store(is_registered, Ordering::Relaxed);
    }

    /// Waits for a new registration.
    pub(super) async fn renewed(&self) {
        self.renewed.notified().await;
    }
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// None waits.
    Nothing,
    /// It is made.
    Done,
    /// The server refused it: it is forgotten.
    GivenUp,
    /// It goes on waiting.
    Later(RegisterError),
    /// It cannot be read.
    Unreadable(IdentityError),
    /// It is made or given up, but cannot be forgotten.
    Stuck(IdentityError),
}

/// Makes the registration that waits.
#[derive(Clone, Debug)]
pub(super) struct Registrar {
    pub(super) home: Home,
    pub(super) control: ControlPlane,
    pub(super) seams: Seams,
    pub(super) beside: Arc<Beside>,
}

impl Registrar {
    /// Makes each registration that comes to wait while this proxy is registered, for ever.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(self.seams.chance.clone());
        let mut said = None;
        loop {
            let attempt = match self.beside.is_registered.load(Ordering::Relaxed) {
                true => Box::pin(self.attempt()).await,
                false => Attempt::Nothing,
            };
            let (trouble, retry_after) = match attempt {
                Attempt::Nothing | Attempt::Done | Attempt::GivenUp => {
                    (said, backoff) = (None, Backoff::new(self.seams.chance.clone()));
                    sleep(LOOK_INTERVAL).await;
                    continue;
                }
                Attempt::Later(RegisterError::Unreachable { text, retry_after }) => (text, retry_after),
                Attempt::Later(error) => (chain(&error), None),
                Attempt::Unreadable(error) | Attempt::Stuck(error) => (chain(&error), None),
            };
            if said.as_ref() != Some(&trouble) {
                tracing::warn!(
                    error = trouble,
                    "the registration that waits is not made yet: it is tried again, and this proxy works on meanwhile"
                );
                said = Some(trouble);
            }
            sleep(backoff.next_asked(retry_after).total().max(LOOK_INTERVAL)).await;
        }
    }

    /// Makes the registration that waits, if one does.
    pub(super) async fn attempt(&self) -> Attempt {
        let _turn = self.beside.turn.lock().await;
        let pending = match self.home.pending() {
            Ok(None) => return Attempt::Nothing,
            Ok(Some(pending)) => pending,
            Err(error) => return Attempt::Unreadable(error),
        };
        let server = pending.join.authority();
        let outcome = match register::register(&pending, &self.home, Some(&self.control), &self.seams).await {
            Ok(done) => {
                let token_file = &self.control.token_file;
                if let Err(error) = register::carry_token(&done, &self.home, Some(&self.control), token_file)
                {
                    tracing::warn!(error = %chain(&error), "the token file's token is not noted as taken up");
                }
                tracing::info!(proxy_id = %done.identity.proxy_id.unwrap_or_default(), server,
                    "the registration that waited is done");
                Attempt::Done
            }
            Err(error @ (RegisterError::Refused { .. } | RegisterError::Answer(_))) => {
                tracing::error!(server, outcome = outcome_of(&error), error = %chain(&error),
                    "the registration that waited is given up: register again with a fresh join string");
                Attempt::GivenUp
            }
            // Away, busy, or a disk or a file of this host in the way, or whoever stands at the server's address for a
            // while: the join string may be as good as before.
            Err(error) => return Attempt::Later(error),
        };
        if let Err(error) = self.home.forget_pending() {
            return Attempt::Stuck(error);
        }
        if matches!(outcome, Attempt::Done) {
            self.beside.renewed.notify_waiters();
        }
        outcome
    }
}

/// Why a registration is over, in a word.
fn outcome_of(error: &RegisterError) -> &'static str {
    match error {
        RegisterError::Refused { reason: Some(reason), .. } => match reason.as_str() {
            reason::JOIN_TOKEN_USED => "used",
            reason::JOIN_TOKEN_EXPIRED => "past its time",
            reason::JOIN_TOKEN_REVOKED => "revoked",
            _ => "refused",
        },
        RegisterError::Answer(_) => "not understood",
        _ => "refused",
    }
}
