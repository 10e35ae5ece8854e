//! T14 and T15: clients that stop reading. What they cost those that go on, what they cost the server, and what they get
//! when they read again.

use std::time::{Duration, Instant};

use super::{figure, growth, kibibytes_each};
use crate::client::control::{Command, Subscription};
use crate::failure::Outcome;
use crate::record::median;
use crate::rounds::{SHORT_PAUSE, Stand};
use crate::run::{Bench, progress};

/// One in so many stalls.
const EVERY: usize = 10;
/// Pushes until a stalled client's windows are full, whatever the server does: 64 KiB hold eight lists.
const FILL: u32 = 10;
/// No pushes after so long: a server may let a client go that takes nothing for 30 s, and Pulse does.
const STALLED: Duration = Duration::from_secs(20);
/// How long stalled clients may take to get the newest list.
const PATIENCE_MS: u64 = 30_000;
/// The window of a client that asks for much at once: hyper's own default, which proxies have.
const WIDE_WINDOW: u32 = 2 << 20;

/// Measures on a server whose clients are connected.
pub(crate) fn measure(bench: &mut Bench, mut stand: Stand) -> Outcome<()> {
    let (clients, compared) = (stand.clients, bench.pace.compared);
    progress(&format!("a tenth of {clients} clients stalls"));
    let before = lasts(bench, &mut stand, compared, None)?;
    std::thread::sleep(bench.pace.settle);
    let memory = stand.peer.server().resident_bytes()?;
    let stalled = stand.crowd.tell(&Command::Stall { every: EVERY })?.missing;
    let until = Some(Instant::now() + STALLED);
    let filled = lasts(bench, &mut stand, FILL, until)?.len();
    let with = lasts(bench, &mut stand, compared, until)?;
    let pushed = filled + with.len();
    std::thread::sleep(bench.pace.settle);
    let grown = kibibytes_each(growth(stand.peer.server(), memory)?, stalled);
    let answer = stand.crowd.tell(&Command::Resume { timeout_ms: PATIENCE_MS })?;
    stand.given_up = answer.ended.values().sum();
    let after = lasts(bench, &mut stand, compared, None)?;

    let without = median(before.into_iter().chain(after));
    if let Some((with, without)) = median(with).zip(without) {
        let note = format!("{with:.1} / {without:.1} ms, 200 nodes, TLS");
        let what = "last healthy client, a tenth stalled / none";
        bench.run.figures.push(figure("T14", what, clients, with / without, "", note));
    }
    let note = format!("{stalled} stalled for {pushed} pushes of 200 nodes");
    bench.run.figures.push(figure("T15", "memory per stalled client", clients, grown, "KiB", note));
    let (middle, most) = answer.stale_of_stalled.unwrap_or_default();
    let mut note = format!("the most; {middle} is the median; window 64 KiB");
    if answer.missing > 0 || !answer.ended.is_empty() {
        note.push_str(&format!("; {} never got the newest, ended: {:?}", answer.missing, answer.ended));
    }
    bench.run.figures.push(figure("T15b", "stale lists per stalled client", clients, most.into(), "", note));
    wide(bench, stand)
}

/// The same for clients with a wide window, for information: how much is on its way is then the server's choice alone.
fn wide(bench: &mut Bench, mut stand: Stand) -> Outcome<()> {
    let mut connect = stand.peer.connect(stand.clients);
    if let Subscription::Grpc { window, .. } = &mut connect.subscription {
        *window = WIDE_WINDOW;
    }
    stand.crowd.connect(connect)?;
    stand.given_up = 0;
    lasts(bench, &mut stand, 1, None)?;
    stand.crowd.tell(&Command::Stall { every: EVERY })?;
    let pushed = lasts(bench, &mut stand, FILL + bench.pace.compared, Some(Instant::now() + STALLED))?.len();
    let answer = stand.crowd.tell(&Command::Resume { timeout_ms: PATIENCE_MS })?;
    let (middle, most) = answer.stale_of_stalled.unwrap_or_default();
    let note = format!("the most of {pushed} pushes; {middle} is the median; window 2 MiB");
    let what = "stale lists per stalled client, wide window";
    bench.run.figures.push(figure("", what, stand.clients, most.into(), "", note));
    Ok(())
}

/// When the last client that reads had each of so many lists, in milliseconds.
fn lasts(bench: &mut Bench, stand: &mut Stand, pushes: u32, until: Option<Instant>) -> Outcome<Vec<f64>> {
    let mut lasts = Vec::new();
    for number in 0..pushes {
        if until.is_some_and(|until| Instant::now() > until) {
            break;
        }
        let list = bench.list(200);
        lasts.push(stand.push(&list, number, 200, SHORT_PAUSE)?.last_ms);
    }
    Ok(lasts)
}
