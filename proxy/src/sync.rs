//! The loop that keeps this proxy's list the newest: connect, receive, verify, keep, put in force, report.
//!
//! In: what Pulse pushes. Out: the list in the gate and on the disk, and [`Contact`] for whoever sends something too.
//! Always: in that order, so that a crash at any point leaves a list that the server did push; what fails a check
//! changes nothing; a state is said in the log when it begins and when it ends.
//! Never: asks a process or `/etc/pve` which nodes there are, or reads sensors.

mod apply;
mod ended;
pub mod once;
pub mod standing;
mod stream;
#[cfg(test)]
mod tests;
mod trouble;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::{Node, Position, v1};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::backoff::{Backoff, Wait};
use crate::gate::{Closed, GateWriter, InForce, fall_back};
use crate::identity::{Hostname, IdentityError};
use crate::link::Link;
use crate::register::{self, RegisterError};
use crate::shutdown::Drain;
use crate::telemetry::chain;
use crate::tls::{self, Trust, TrustError};
use ended::{IDLE_PAUSE, REFUSED_PAUSE};
use standing::Standing;
use trouble::Trouble;

/// Why the loop cannot begin or go on. The operator must change something.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The state folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// How far this proxy has come with its server, for whoever else calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// The server's state folder, once the server is known. Another folder is another server.
    pub folder: Option<PathBuf>,
    /// The name given at registration, once there was one.
    pub hostname: Option<Hostname>,
    /// How many streams have begun; a higher number says that the server is back.
    pub streams: u64,
    /// Whether this proxy is revoked.
    pub is_revoked: bool,
    /// Whether the server's last word was that it has no list for this proxy yet: then it takes no readings either.
    pub is_waiting: bool,
}

/// What the configuration says beside the server.
#[derive(Clone, Debug, Default)]
pub struct StaticNodes {
    /// Names and addresses, as nodes.
    pub nodes: Vec<Node>,
    /// How many networks there are beside them.
    pub networks: usize,
}

/// The loop's state.
#[derive(Debug)]
pub struct Sync {
    standing: Standing,
    static_nodes: StaticNodes,
    trust: Trust,
    link: Link,
    gate: GateWriter,
    contact_tx: watch::Sender<Contact>,
    /// The newest list that is or was in force, on the disk or not.
    reached: Position,
    refresh_interval: Duration,
    /// What was not reported yet, because the call failed.
    unreported: Option<v1::ReportSyncRequest>,
    backoff: Backoff,
    /// What keeps this proxy from its server, as it was said in the log.
    trouble: Option<Trouble>,
    followed: Followed,
}

/// What of the standing the gate and the contact were last brought to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    folder: Option<PathBuf>,
    proxy_id: Option<Uuid>,
    hostname: Option<Hostname>,
    is_revoked: bool,
}

impl Followed {
    fn of(standing: &Standing) -> Followed {
        Followed {
            folder: standing.folder().map(|folder| folder.path().to_owned()),
            proxy_id: standing.identity().and_then(|identity| identity.proxy_id),
            hostname: standing.identity().and_then(|identity| identity.hostname.clone()),
            is_revoked: standing.revoked().is_some(),
        }
    }
}

impl Sync {
    /// Joins the loop to its server and its gate. Nothing is dialled before [`Sync::run`].
    ///
    /// # Errors
    /// [`SyncError`].
    pub fn new(
        standing: Standing,
        static_nodes: StaticNodes,
        gate: GateWriter,
    ) -> Result<(Sync, Link, watch::Receiver<Contact>), SyncError> {
        let trust = standing.trust();
        let link = Link::new(standing.control().url.clone(), tls::client_config(&trust)?);
        link.use_token(standing.token());
        let reached = gate.in_force().position().max(standing.reached());
        let followed = Followed::of(&standing);
        let contact = Contact {
            folder: followed.folder.clone(),
            hostname: followed.hostname.clone(),
            streams: 0,
            is_revoked: followed.is_revoked,
            is_waiting: false,
        };
        let (contact_tx, contact_rx) = watch::channel(contact);
        let sync = Sync {
            refresh_interval: standing.control().refresh_interval,
            standing,
            static_nodes,
            trust,
            link: link.clone(),
            gate,
            contact_tx,
            reached,
            unreported: None,
            backoff: Backoff::default(),
            trouble: None,
            followed,
        };
        Ok((sync, link, contact_rx))
    }

    /// Keeps the list the newest until the drain begins.
    pub async fn run(mut self, drain: Drain) {
        tokio::select! {
            () = drain.begun() => {}
            () = self.keep_up() => {}
        }
    }

    async fn keep_up(&mut self) {
        loop {
            let wait = match self.prepare().await {
                Ok(()) => {
                    let begun = Instant::now();
                    // Boxed: a stream's future is large, and there is one at a time.
                    let ended = Box::pin(self.stream()).await;
                    self.after(ended, begun.elapsed())
                }
                Err(wait) => wait,
            };
            self.pause(wait).await;
        }
    }

    /// Brings everything up to date that a call needs. An error is how long to wait instead of calling.
    async fn prepare(&mut self) -> Result<(), Wait> {
        self.register_if_pending().await?;
        if let Err(error) = self.standing.refresh() {
            self.begin(Trouble::State, &chain(&error));
            return Err(self.backoff.next(Some(REFUSED_PAUSE)));
        }
        self.follow_standing();
        if let Some(reason) = self.standing.revoked() {
            let reason = reason.to_owned();
            self.begin(Trouble::Revoked, &reason);
            return Err(Wait::firm(IDLE_PAUSE));
        }
        if self.standing.token().is_none() {
            let text = format!("there is no token in {}", self.standing.control().token_file.display());
            self.begin(Trouble::NoToken, &text);
            return Err(Wait::firm(IDLE_PAUSE));
        }
        let trust = self.standing.trust();
        if trust != self.trust {
            match tls::client_config(&trust) {
                Ok(config) => self.link.trust(config),
                Err(error) => {
                    self.begin(Trouble::State, &chain(&error));
                    return Err(Wait::firm(REFUSED_PAUSE));
                }
            }
            self.trust = trust;
        }
        self.link.use_token(self.standing.token());
        Ok(())
    }

    /// Brings gate and contact to where the state folder is, when a registration, a revocation or a first meeting
    /// changed it.
    fn follow_standing(&mut self) {
        let now = Followed::of(&self.standing);
        if now == self.followed {
            return;
        }
        let is_elsewhere = now.folder != self.followed.folder;
        let next = first_in_force(&self.standing, &self.static_nodes);
        let is_open = matches!(next, InForce::Static { .. } | InForce::Nothing(Closed::NoListYet));
        // A list that is in force goes only for another list, for a revocation, or with its server.
        if !is_open || is_elsewhere || self.gate.in_force().list().is_none() {
            self.gate.put(next);
        }
        if is_elsewhere {
            // Another server counts anew, and hears nothing of the last one's lists.
            self.reached = self.standing.reached();
            self.unreported = None;
            self.waits(false);
        }
        self.reached = self.reached.max(self.standing.reached());
        self.contact_tx.send_modify(|contact| {
            (contact.folder, contact.hostname) = (now.folder.clone(), now.hostname.clone());
            contact.is_revoked = now.is_revoked;
        });
        self.followed = now;
    }

    /// Takes note of whether the server has a list for this proxy. Says whether that is news.
    fn waits(&self, is_waiting: bool) -> bool {
        self.contact_tx
            .send_if_modified(|contact| std::mem::replace(&mut contact.is_waiting, is_waiting) != is_waiting)
    }

    /// Makes the registration that could not be made when it was asked for.
    async fn register_if_pending(&mut self) -> Result<(), Wait> {
        let pending = match self.standing.home().pending() {
            Ok(None) => return Ok(()),
            Ok(Some(pending)) => pending,
            Err(error) => {
                self.begin(Trouble::State, &chain(&error));
                return Ok(());
            }
        };
        let control = self.standing.control().clone();
        let home = self.standing.home().clone();
        match Box::pin(register::register(&pending, &home, Some(&control))).await {
            Ok(done) => {
                self.settle();
                self.forget_pending()?;
                if let Err(error) = register::carry_token(&done, &home, Some(&control), &control.token_file) {
                    tracing::warn!(error = %chain(&error), "the token file's token is not noted as taken up");
                }
                tracing::info!(proxy_id = %done.identity.proxy_id.unwrap_or_default(), server = %pending.join.authority(),
                    "the registration that waited is done");
                Ok(())
            }
            Err(RegisterError::Unreachable { text, .. } | RegisterError::WrongServer(text))
                if pending.join.authority() != control.url.authority() && self.standing.token().is_some() =>
            {
                // A server elsewhere that is away must not keep this proxy from its own.
                tracing::warn!(server = %pending.join.authority(), error = text, "the registration goes on waiting");
                Ok(())
            }
            Err(RegisterError::Unreachable { text, retry_after }) => {
                self.begin(Trouble::Unreachable, &text);
                Err(self.backoff.next(retry_after))
            }
            // A disk or a file of this host is in the way, or whoever stands at the server's address for a while: the join
            // string may be as good as before.
            Err(
                error
                @ (RegisterError::Identity(_) | RegisterError::Trust(_) | RegisterError::WrongServer(_)),
            ) => {
                let is_wrong_server = matches!(error, RegisterError::WrongServer(_));
                let trouble = if is_wrong_server { Trouble::WrongServer } else { Trouble::State };
                self.begin(trouble, &chain(&error));
                match self.standing.token() {
                    Some(_) => Ok(()),
                    // Without a floor: a long one is cut short by any registration that waits, and this one does.
                    None => Err(self.backoff.next(None)),
                }
            }
            Err(error) => {
                tracing::error!(server = %pending.join.authority(), error = %chain(&error),
                    "the registration that waited is given up: register again with a fresh join string");
                self.forget_pending()
            }
        }
    }

    fn forget_pending(&mut self) -> Result<(), Wait> {
        self.standing.home().forget_pending().map_err(|error| {
            self.begin(Trouble::State, &chain(&error));
            self.backoff.next(None)
        })
    }
}

/// What is in force before anything is heard: nothing if revoked, else the kept list, else the static one.
pub fn first_in_force(standing: &Standing, fixed: &StaticNodes) -> InForce {
    let cached = match standing.cached() {
        _ if standing.revoked().is_some() => None,
        Some(Ok(cached)) => Some((Arc::new(cached.list), cached.applied_at)),
        Some(Err(error @ crate::cache::CacheError::Missing(_))) => {
            tracing::debug!(%error, "no list to begin with");
            None
        }
        Some(Err(error)) => {
            tracing::warn!(error = %chain(&error), reason = error.reason(), "the kept list is not used");
            None
        }
        None => None,
    };
    fall_back(standing.revoked(), cached, &fixed.nodes, fixed.networks)
}
