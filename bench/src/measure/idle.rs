//! T9 and T10: the memory of a stream that is idle, and what large lists add to it.

use super::probes::Probes;
use super::{figure, growth, kibibytes_each};
use crate::client::control::Command;
use crate::failure::Outcome;
use crate::peers::Peer;
use crate::rounds::{SHORT_PAUSE, Stand};
use crate::run::{Bench, progress};

/// Pushes whose growth is told.
const PUSHES: u32 = 10;

/// Measures a server over TLS, and leaves its clients connected.
pub(crate) fn measure(bench: &mut Bench, clients: usize) -> Outcome<(Stand, Probes)> {
    progress(&format!("memory of {clients} idle streams over TLS"));
    let mut pulse = bench.start_pulse(true)?;
    pulse.push(&bench.list(8))?;
    std::thread::sleep(bench.pace.settle);
    let empty = pulse.server().resident_bytes()?;
    let probes = Probes::of(&pulse);
    let mut stand = Stand::open(Box::new(pulse), clients)?;
    std::thread::sleep(bench.pace.settle);
    let at_first = growth(stand.peer.server(), empty)?;
    for _ in 0..2 {
        stand.crowd.tell(&Command::Close)?;
        std::thread::sleep(bench.pace.settle);
        let connect = stand.peer.connect(clients);
        stand.crowd.connect(connect)?;
    }
    std::thread::sleep(bench.pace.settle);
    let idle = growth(stand.peer.server(), empty)?;
    let note = format!(
        "{:.1} KiB before the reconnects; {:.1} MiB without clients",
        kibibytes_each(at_first, clients),
        kibibytes_each(empty.cast_signed(), 1024),
    );
    bench.run.figures.push(figure(
        "T9",
        "memory per idle TLS stream",
        clients,
        kibibytes_each(idle, clients),
        "KiB",
        note,
    ));

    let before = stand.peer.server().resident_bytes()?;
    for number in 0..PUSHES {
        let list = bench.list(200);
        stand.push(&list, number, 200, SHORT_PAUSE)?;
    }
    std::thread::sleep(bench.pace.settle);
    let grown = growth(stand.peer.server(), before)?;
    let note = format!("{PUSHES} pushes");
    let value = kibibytes_each(grown, clients);
    bench.run.figures.push(figure(
        "T10",
        "memory growth per stream by pushes of 200 nodes",
        clients,
        value,
        "KiB",
        note,
    ));
    Ok((stand, probes))
}
