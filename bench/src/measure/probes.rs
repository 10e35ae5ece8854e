//! What everybody else sees meanwhile: a proxy that comes anew, a load balancer's probe, an admin at the host.
//!
//! In: a server over TLS. Out: how long each of their questions took. Always: each asks again and again, one question at a
//! time, on a new connection each time.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::control::{Command, Connect, Subscription, Times};
use crate::clock::now_ns;
use crate::crowd::Crowd;
use crate::failure::{Failure, Outcome};
use crate::peers::Peer;
use crate::peers::pulse::{Pulse, ask_status, get};

/// How long each waits before the next question.
const PAUSE: Duration = Duration::from_millis(10);

/// Who asks.
pub(crate) const WHO: [&str; 3] = ["a new watch's first list", "/readyz", "the admin socket"];

/// How they reach a server.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    address: SocketAddr,
    authority: Option<PathBuf>,
    socket: PathBuf,
    reporters: PathBuf,
    watch: Connect,
}

impl Probes {
    pub(crate) fn of(pulse: &Pulse) -> Probes {
        let mut watch = pulse.connect(1);
        if let Subscription::Grpc { tokens, .. } = &mut watch.subscription {
            *tokens = Some(pulse.newcomer());
        }
        Probes {
            address: pulse.address(),
            authority: pulse.authority(),
            socket: pulse.data_dir().join("admin.sock"),
            reporters: pulse.reporters(),
            watch,
        }
    }

    /// Where the tokens of proxies are that report and are none of the clients.
    pub(crate) fn reporters(&self) -> &Path {
        &self.reporters
    }

    /// Asks until it is over. How long the questions of each took, in the order of [`WHO`], in nanoseconds.
    pub(crate) fn ask(&self, is_over: &AtomicBool) -> Outcome<[Times; 3]> {
        let mut crowd = Crowd::start()?;
        let watch = || {
            crowd.tell(&Command::Close)?;
            let answer = crowd.connect(self.watch.clone())?;
            let times = answer.times.ok_or_else(|| Failure::new("a new watch got no list"))?;
            Ok(times.last_ns - answer.began_ns)
        };
        let timed = |asked: std::io::Result<()>, since: u64| match asked {
            Ok(()) => Ok(now_ns() - since),
            Err(error) => Err(Failure::new(format!("a question had no answer: {error}"))),
        };
        let ready = || {
            let since = now_ns();
            timed(get(self.address, self.authority.as_deref(), "/readyz").map(drop), since)
        };
        let admin = || {
            let since = now_ns();
            timed(ask_status(&self.socket), since)
        };
        std::thread::scope(|scope| {
            let ready = scope.spawn(|| again(ready, is_over));
            let admin = scope.spawn(|| again(admin, is_over));
            let watched = again(watch, is_over);
            let joined =
                [watched, ready.join().expect("asking does not panic"), admin.join().expect("nor this")];
            let [watched, ready, admin] = joined;
            Ok([watched?, ready?, admin?])
        })
    }
}

fn again(mut ask: impl FnMut() -> Outcome<u64>, is_over: &AtomicBool) -> Outcome<Times> {
    let mut took = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        took.push(ask()?);
        std::thread::sleep(PAUSE);
    }
    Times::of(&mut took).ok_or_else(|| Failure::new("no question was asked"))
}
