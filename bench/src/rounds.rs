//! Pushes, peer by peer and round by round: what T1 to T8 are made of.
//!
//! In: peers with connected clients. Out: one [`Push`] for each peer and round. Always: peers take turns push by push, another
//! one begins each round, and every second round goes the other way, so that what the machine does meanwhile falls on all
//! alike, and nobody always follows the same one.

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
/// must be over before the next peer's turn: after the pause of the run's pace, until it takes less than 1 % of a core for a
/// while, or for some seconds.
const LATER_LOOK: Duration = Duration::from_millis(150);
const MOST_LOOKS: u32 = 12;
const QUIET_SHARE: u64 = 100;

/// The least such pause: Pulse asks whether a list was read 0.3 to 0.6 s after it.
pub(crate) const SHORT_PAUSE: Duration = Duration::from_millis(700);

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
    ///
    /// `pause` is how long a server that goes on later with what a push brought about is left alone for that.
    pub(crate) fn push(&mut self, list: &List, round: u32, nodes: usize, pause: Duration) -> Outcome<Push> {
        self.crowd.tell(&Command::Expect { marker: self.peer.marker(list) })?;
        let commits_before = self.peer.commits_ns()?;
        std::thread::sleep(SETTLE);
        let (cpu_before, client_before) = (self.peer.server().cpu_ns()?, self.crowd.cpu_ns()?);
        let asked_ns = self.peer.push(list)?;
        let answer = self.crowd.tell(&Command::Await { count: None, timeout_ms: PATIENCE_MS })?;
        std::thread::sleep(SETTLE);
        let (cpu_after, client_after) = (self.peer.server().cpu_ns()?, self.crowd.cpu_ns()?);
        let later = self.quiet(cpu_after, pause)?;
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
    fn quiet(&mut self, mut before: u64, pause: Duration) -> Outcome<u64> {
        let enough = u64::try_from(LATER_LOOK.as_nanos()).unwrap_or(u64::MAX) / QUIET_SHARE;
        if self.peer.has_later() {
            std::thread::sleep(pause);
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
    pause: Duration,
    mut list: impl FnMut() -> List,
) -> Outcome<Vec<Push>> {
    let count = stands.len();
    let first = round as usize % count;
    let place = |step: usize| if round.is_multiple_of(2) { first + step } else { first + count - step };
    (0..count).map(|step| stands[place(step) % count].push(&list(), round, nodes, pause)).collect()
}
