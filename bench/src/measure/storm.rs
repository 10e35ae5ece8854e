//! T11: kill -9, a start, and all clients dial at once.
//!
//! Always: the time runs from the start of the server's process to the first message of the last client, for Pulse and for
//! floor-tls alike. Meanwhile the admin socket is asked every 100 ms.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::figure;
use crate::client::control::{Answer, Command, Connect, Subscription};
use crate::clock::now_ns;
use crate::crowd::Crowd;
use crate::failure::{Doing, Failure, Outcome};
use crate::peers::Peer;
use crate::peers::pulse::{INSTANCE, Pulse, ask_status};
use crate::record::{median, milliseconds};
use crate::run::{Bench, progress};
use crate::serve::Kind;

/// How often the admin socket is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long a storm may take.
const PATIENCE_MS: u64 = 120_000;

/// What one storm was like.
struct Storm {
    total_ms: f64,
    retried: usize,
}

/// What the admin saw meanwhile.
#[derive(Default)]
struct Seen {
    listening_ms: Option<f64>,
    answered_ms: Option<f64>,
    worst_ms: f64,
    asked: usize,
    unanswered: usize,
}

/// Storms of each, turn by turn.
pub(crate) fn measure(bench: &mut Bench, clients: usize) -> Outcome<()> {
    let storms = bench.pace.storms;
    progress(&format!("{storms} storms of {clients} clients over TLS"));
    let mut pulse = bench.start_pulse(true)?;
    let list = bench.list(8);
    pulse.push(&list)?;
    let mut floor = bench.start_brought("floor-tls", Kind::FloorTls, true)?;
    let (mut crowd, mut floor_crowd) = (Crowd::start()?, Crowd::start()?);
    crowd.connect(pulse.connect(clients))?;
    floor_crowd.connect(floor.connect(clients))?;
    let folder = bench.folder.path().to_owned();
    let (mut own, mut floors, mut all_seen) = (Vec::new(), Vec::new(), Vec::new());
    let mut full = 0;
    for _ in 0..storms {
        let held = held(&pulse)?;
        let before = accept_queue()?;
        let (storm, seen) = of_pulse(&mut pulse, &mut crowd, clients, held)?;
        full += accept_queue()? - before;
        own.push(storm);
        all_seen.push(seen);
        let connect = at_once(floor.connect(clients));
        floor.kill()?;
        let began_ns = now_ns();
        // As Pulse's: they dial from the start of the process on.
        let (started, answer) = std::thread::scope(|scope| {
            let dialing = scope.spawn(|| dial(&mut floor_crowd, connect));
            (floor.start_again(&folder, &list), dialing.join().expect("dialing does not panic"))
        });
        started?;
        floors.push(storm_of(&answer?, began_ns)?);
    }
    let total = |storms: &[Storm]| median(storms.iter().map(|storm| storm.total_ms)).unwrap_or(f64::NAN);
    let ratio = median(own.iter().zip(&floors).map(|(own, floor)| own.total_ms / floor.total_ms));
    let retried: usize = own.iter().map(|storm| storm.retried).sum();
    let floor_retried: usize = floors.iter().map(|storm| storm.retried).sum();
    let note = format!(
        "{:.0} / {:.0} ms from the start of the process; dialled again {retried} / {floor_retried}",
        total(&own),
        total(&floors),
    );
    let value = ratio.unwrap_or(f64::NAN);
    bench.run.figures.push(figure("T11", "storm over TLS / floor-tls", clients, value, "", note));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let value = full as f64;
    let what = "connections for which the accept queue was full, in storms";
    bench.run.figures.push(figure("", what, clients, value, "", format!("{storms} storms")));
    tell_seen(bench, clients, &all_seen);
    Ok(())
}

fn tell_seen(bench: &mut Bench, clients: usize, all: &[Seen]) {
    let worst = all.iter().map(|seen| seen.worst_ms).fold(0.0, f64::max);
    let asked: usize = all.iter().map(|seen| seen.asked).sum();
    let unanswered: usize = all.iter().map(|seen| seen.unanswered).sum();
    let note = format!("of {asked} questions; {unanswered} while it started had no answer");
    bench.run.figures.push(figure("", "admin socket in a storm, worst answer", clients, worst, "ms", note));
    let most = |value: fn(&Seen) -> Option<f64>| all.iter().filter_map(value).fold(0.0, f64::max);
    let note = format!("the most; the admin socket answered after {:.0} ms", most(|seen| seen.answered_ms));
    let what = "start to listening after kill -9, in a storm";
    bench.run.figures.push(figure("", what, clients, most(|seen| seen.listening_ms), "ms", note));
}

fn of_pulse(pulse: &mut Pulse, crowd: &mut Crowd, clients: usize, held: Vec<u8>) -> Outcome<(Storm, Seen)> {
    let mut connect = at_once(pulse.connect(clients));
    if let Subscription::Grpc { message, .. } = &mut connect.subscription {
        *message = held;
    }
    let (address, socket) = (pulse.address(), pulse.data_dir().join("admin.sock"));
    let began_ns = pulse.kill_and_start()?;
    let is_over = AtomicBool::new(false);
    let (answer, seen) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&socket, address, began_ns, &is_over));
        let answer = dial(crowd, connect);
        is_over.store(true, Ordering::Relaxed);
        (answer, watcher.join().expect("watching does not panic"))
    });
    Ok((storm_of(&answer?, began_ns)?, seen))
}

/// Everybody dials at once; who fails tries again.
fn at_once(connect: Connect) -> Connect {
    Connect { in_flight: usize::MAX, timeout_ms: PATIENCE_MS, ..connect }
}

fn dial(crowd: &mut Crowd, connect: Connect) -> Outcome<Answer> {
    crowd.tell(&Command::Connect(connect))
}

fn storm_of(answer: &Answer, began_ns: u64) -> Outcome<Storm> {
    if answer.missing > 0 {
        return Err(Failure::new(format!(
            "{} clients did not come back; tried again: {:?}",
            answer.missing, answer.retried
        )));
    }
    let times = answer.times.ok_or_else(|| Failure::new("nobody came back"))?;
    let total_ms = milliseconds(times.last_ns - began_ns);
    Ok(Storm { total_ms, retried: answer.retried.values().sum() })
}

/// The watch of a proxy that holds the newest list: it gets a word and no list.
fn held(pulse: &Pulse) -> Outcome<Vec<u8>> {
    let shown = pulse.command(&["allowlist", "show", "--instance", INSTANCE])?;
    let list = shown["allowlists"].get(0).unwrap_or(&shown);
    let number = |key: &str| list[key].as_u64().ok_or_else(|| Failure::new(format!("{list} has no {key}")));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let request = pulse_proto::v1::WatchAuthorizedNodesRequest {
        epoch: number("epoch")?,
        scope: text(&list["scope"]).ok_or_else(|| Failure::new("a list without its scope"))?,
        revision: number("revision")?,
        hash: text(&list["hash"]).ok_or_else(|| Failure::new("a list without its hash"))?,
        ..Default::default()
    };
    Ok(prost::Message::encode_to_vec(&request))
}

/// Asks the admin socket again and again, and notes when the port listens.
fn watch(socket: &Path, address: SocketAddr, began_ns: u64, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let since = || milliseconds(now_ns() - began_ns);
    while seen.listening_ms.is_none() && !is_over.load(Ordering::Relaxed) {
        if TcpStream::connect(address).is_ok() {
            seen.listening_ms = Some(since());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let socket = PathBuf::from(socket);
    while !is_over.load(Ordering::Relaxed) {
        let asked_ns = now_ns();
        if ask_status(&socket).is_ok() {
            seen.answered_ms.get_or_insert_with(since);
            seen.asked += 1;
            seen.worst_ms = seen.worst_ms.max(milliseconds(now_ns() - asked_ns));
        } else {
            seen.unanswered += 1;
        }
        std::thread::sleep(ASK_EVERY);
    }
    seen
}

/// How often the accept queue of any listener of this machine was full.
fn accept_queue() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/net/netstat").doing("read /proc/net/netstat")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let value = |wanted: &str| {
        let place = names.split(' ').position(|name| name == wanted);
        place.and_then(|place| values.split(' ').nth(place)?.parse().ok()).unwrap_or_default()
    };
    Ok(value("ListenOverflows"))
}
