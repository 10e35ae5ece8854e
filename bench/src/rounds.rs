//! Pushes, peer by peer and round by round: what T1 to T8 are made of.
//!
//! In: peers with connected clients. Out: one [`Push`] for each peer and round. Always: peers take turns push by push, and
//! another one begins each round, so that what the machine does meanwhile falls on all alike.

use std::time::Duration;

use crate::client::control::{Answer, Command};
use crate::crowd::Crowd;
use crate::failure::{Failure, Outcome};
use crate::list::List;
use crate::peers::Peer;
use crate::record::{Push, milliseconds, rounded};

/// How long a push may take.
const PATIENCE_MS: u64 = 30_000;
/// What a server and its clients still do just after the last arrival (acknowledgements, windows) belongs to the push.
const SETTLE: Duration = Duration::from_millis(30);
/// What a server does later because of a push (writing down what it sent, asking whether it was read) is measured apart, and
/// must be over before the next peer's turn: until it takes less than 1 % of a core for a while, or for some seconds.
const LATER_LOOK: Duration = Duration::from_millis(150);
const MOST_LOOKS: u32 = 12;
const QUIET_SHARE: u64 = 100;

/// A peer with its clients.
pub(crate) struct Stand {
    /// The peer.
    pub(crate) peer: Box<dyn Peer>,
    /// Its clients.
    pub(crate) crowd: Crowd,
    /// How many of them there are.
    pub(crate) clients: usize,
    /// Connections that have ended and were to end; a push fails if it finds more.
    pub(crate) given_up: usize,
}

impl Stand {
    /// Connects so many clients to a peer, which has been given a first list.
    pub(crate) fn open(peer: Box<dyn Peer>, clients: usize) -> Outcome<Stand> {
        let mut crowd = Crowd::start()?;
        crowd.connect(peer.connect(clients))?;
        Ok(Stand { peer, crowd, clients, given_up: 0 })
    }

    /// Pushes a list, and waits until it is with all.
    pub(crate) fn push(&mut self, list: &List, round: u32, nodes: usize) -> Outcome<Push> {
        self.crowd.tell(&Command::Expect { marker: self.peer.marker(list) })?;
        let commits_before = self.peer.commits_ns()?;
        std::thread::sleep(SETTLE);
        let (cpu_before, client_before) = (self.peer.server().cpu_ns()?, self.crowd.cpu_ns()?);
        let asked_ns = self.peer.push(list)?;
        let answer = self.crowd.tell(&Command::Await { count: None, timeout_ms: PATIENCE_MS })?;
        std::thread::sleep(SETTLE);
        let (cpu_after, client_after) = (self.peer.server().cpu_ns()?, self.crowd.cpu_ns()?);
        let later = self.quiet(cpu_after)?;
        let commits_after = self.peer.commits_ns()?;
        let times = self.all_there(&answer)?;
        let since = |at_ns: u64| milliseconds(at_ns.saturating_sub(asked_ns));
        let listening = answer.open.max(1);
        Ok(Push {
            peer: self.peer.name().to_owned(),
            clients: self.clients,
            nodes,
            round,
            first_ms: since(times.first_ns),
            p50_ms: since(times.p50_ns),
            p99_ms: since(times.p99_ns),
            last_ms: since(times.last_ns),
            cpu_us: per_client(cpu_after.saturating_sub(cpu_before), listening),
            later_cpu_us: per_client(later.saturating_sub(cpu_after), listening),
            client_cpu_us: per_client(client_after.saturating_sub(client_before), listening),
            commit_ms: commits_before
                .zip(commits_after)
                .map(|(before, after)| milliseconds(after.saturating_sub(before))),
            stale: answer.stale,
        })
    }

    /// Pushes a list and waits until it is with all, and no longer. How long that took, in milliseconds.
    pub(crate) fn push_at_once(&mut self, list: &List) -> Outcome<f64> {
        self.crowd.tell(&Command::Expect { marker: self.peer.marker(list) })?;
        let asked_ns = self.peer.push(list)?;
        let answer = self.crowd.tell(&Command::Await { count: None, timeout_ms: PATIENCE_MS })?;
        let times = self.all_there(&answer)?;
        Ok(milliseconds(times.last_ns.saturating_sub(asked_ns)))
    }

    /// Waits until the server is quiet. Its processor time by then.
    fn quiet(&mut self, mut before: u64) -> Outcome<u64> {
        let enough = u64::try_from(LATER_LOOK.as_nanos()).unwrap_or(u64::MAX) / QUIET_SHARE;
        std::thread::sleep(self.peer.pause());
        if !self.peer.pause().is_zero() {
            before = self.peer.server().cpu_ns()?;
        }
        for _ in 0..MOST_LOOKS {
            std::thread::sleep(LATER_LOOK);
            let now = self.peer.server().cpu_ns()?;
            if now.saturating_sub(before) < enough {
                return Ok(now);
            }
            before = now;
        }
        Ok(before)
    }

    fn all_there(&self, answer: &Answer) -> Outcome<crate::client::control::Times> {
        if answer.missing > 0 || answer.ended.values().sum::<usize>() > self.given_up {
            return Err(Failure::new(format!(
                "{}: {} of {} clients did not get a push; connections that ended: {:?}",
                self.peer.name(),
                answer.missing,
                self.clients,
                answer.ended
            )));
        }
        answer.times.ok_or_else(|| Failure::new(format!("{}: nobody got a push", self.peer.name())))
    }
}

#[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
fn per_client(nanoseconds: u64, clients: usize) -> f64 {
    rounded(nanoseconds as f64 / 1e3 / clients as f64)
}

/// One round: a push of every peer, beginning with another one each time. `list` makes the next list.
pub(crate) fn round(
    stands: &mut [Stand],
    round: u32,
    nodes: usize,
    mut list: impl FnMut() -> List,
) -> Outcome<Vec<Push>> {
    let count = stands.len();
    let first = round as usize % count;
    (0..count).map(|place| stands[(first + place) % count].push(&list(), round, nodes)).collect()
}
