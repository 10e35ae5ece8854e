//! The loop that keeps this proxy's list the newest: connect, receive, verify, keep, put in force, report.
//!
//! In: what Pulse pushes. Out: the list in the gate and on the disk, and [`Contact`] for whoever sends something too.
//! Always: in that order, so that a crash at any point leaves a list that the server did push; what fails a check
//! changes nothing; a state is said in the log when it begins and when it ends.
//! Never: asks a process or `/etc/pve` which nodes there are, or reads sensors.

mod apply;
mod ended;
pub mod once;
pub(crate) mod pins;
pub mod standing;
mod stream;
#[cfg(test)]
mod tests;
mod trouble;
mod waiting;

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
use crate::register::RegisterError;
use crate::seams::Seams;
use crate::shutdown::Drain;
use crate::telemetry::chain;
use crate::tls::{self, Trust, TrustError};
use ended::{Ended, IDLE_PAUSE, REFUSED_PAUSE};
use standing::Standing;
use trouble::Trouble;
use waiting::{Attempt, Beside, Registrar};

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
    /// Whether the pushed list in force is not on the disk, because that cannot be written.
    is_unkept: bool,
    backoff: Backoff,
    /// What keeps this proxy from its server, as it was said in the log.
    trouble: Option<Trouble>,
    followed: Followed,
    /// What is shared with a registration that is made meanwhile.
    beside: Arc<Beside>,
    seams: Seams,
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
        seams: Seams,
    ) -> Result<(Sync, Link, watch::Receiver<Contact>), SyncError> {
        let mut trust = standing.trust();
        let tls = match tls::client_config(&trust) {
            Err(error) if standing.trouble().is_some() => {
                tracing::error!(error = %chain(&error), "with the pin that cannot be read there is nothing to know the server by: it is not dialled");
                // No key is one of none; each attempt looks again.
                trust = Trust::Pinned(Vec::new());
                tls::client_config(&trust)?
            }
            config => config?,
        };
        let url = standing.control().url.clone();
        let link = Link::new(url, tls, seams.network.clone());
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
            is_unkept: false,
            backoff: Backoff::new(seams.chance.clone()),
            trouble: None,
            followed,
            beside: Arc::default(),
            seams,
        };
        Ok((sync, link, contact_rx))
    }

    /// Keeps the list the newest until the drain begins.
    pub async fn run(mut self, drain: Drain) {
        let registrar = self.registrar();
        tokio::select! {
            biased;
            () = drain.begun() => {}
            () = self.keep_up() => {}
            () = registrar.run() => {}
        }
    }

    async fn keep_up(&mut self) {
        loop {
            let wait = match self.prepare().await {
                Ok(()) => {
                    let begun = Instant::now();
                    let beside = Arc::clone(&self.beside);
                    let ended = tokio::select! {
                        biased;
                        // Boxed: a stream's future is large, and there is one at a time.
                        ended = Box::pin(self.stream()) => ended,
                        () = beside.renewed() => Ended::Renewed,
                    };
                    self.after(ended, begun.elapsed())
                }
                Err(wait) => wait,
            };
            self.pause(wait).await;
        }
    }

    /// Brings everything up to date that a call needs. An error is how long to wait instead of calling.
    async fn prepare(&mut self) -> Result<(), Wait> {
        if !self.is_registered() {
            self.register_if_pending().await?;
        }
        self.standing.refresh();
        self.beside.note(self.is_registered());
        self.keep_unkept();
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
        let is_another = is_elsewhere || now.proxy_id != self.followed.proxy_id;
        let next = first_in_force(&mut self.standing, &self.static_nodes);
        let is_open = matches!(next, InForce::Static { .. } | InForce::Nothing(Closed::NoListYet));
        // A list that is in force goes only for another list, for a revocation, or with its server.
        if !is_open || is_elsewhere || self.gate.in_force().list().is_none() {
            self.gate.put(next);
        }
        if is_another {
            // Another server, or another proxy to the same one, counts anew, and what is still to be reported is not
            // about its lists.
            self.reached = self.standing.reached();
            self.unreported = None;
            self.is_unkept = false;
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

    /// Makes the registration that waits, if this proxy has nothing else to do: it is not registered, or revoked.
    async fn register_if_pending(&mut self) -> Result<(), Wait> {
        match Box::pin(self.registrar().attempt()).await {
            Attempt::Nothing | Attempt::GivenUp => Ok(()),
            Attempt::Done => {
                self.settle();
                Ok(())
            }
            Attempt::Later(RegisterError::Unreachable { text, retry_after }) => {
                self.begin(Trouble::Unreachable, &text);
                Err(self.backoff.next_asked(retry_after))
            }
            Attempt::Later(error) => {
                let is_wrong_server = matches!(error, RegisterError::WrongServer(_));
                let trouble = if is_wrong_server { Trouble::WrongServer } else { Trouble::State };
                self.begin(trouble, &chain(&error));
                // Without a floor: a long one is cut short by any registration that waits, and this one does.
                Err(self.backoff.next(None))
            }
            Attempt::Unreadable(error) => {
                self.begin(Trouble::State, &chain(&error));
                Ok(())
            }
            Attempt::Stuck(error) => {
                self.begin(Trouble::State, &chain(&error));
                Err(self.backoff.next(None))
            }
        }
    }

    fn registrar(&self) -> Registrar {
        Registrar {
            home: self.standing.home().clone(),
            control: self.standing.control().clone(),
            seams: self.seams.clone(),
            beside: Arc::clone(&self.beside),
        }
    }

    /// Whether this proxy has a token that may be good.
    fn is_registered(&self) -> bool {
        self.standing.token().is_some() && self.standing.revoked().is_none()
    }
}

/// What is in force before anything is heard: nothing if revoked, else the kept list, else the static one.
pub fn first_in_force(standing: &mut Standing, fixed: &StaticNodes) -> InForce {
    let cached = match standing.revoked() {
        // Its list was dropped with it.
        Some(_) => None,
        None => standing.cached(),
    };
    let cached = match cached {
        Some(Ok(cached)) => Some((Arc::new(cached.list), cached.applied_at)),
        Some(Err(error @ crate::cache::CacheError::NoneYet(_))) => {
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
