//! T12 and T13: reports of temperatures, as many as go and a few at a time.
//!
//! Always: whatever Pulse took is looked for afterwards: in its metrics, and in its database once it has ended.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::figure;
use super::probes::{Probes, WHO};
use crate::client::control::{Answer, Calls, Command, Times, Unary};
use crate::client::unary::Caller;
use crate::crowd::Crowd;
use crate::failure::{Doing, Failure, Outcome};
use crate::fleet::REPORTERS;
use crate::list::node;
use crate::peers::pulse::Pulse;
use crate::peers::{Peer, WATCH_PATH};
use crate::record::{median, milliseconds};
use crate::rounds::Stand;
use crate::run::{Bench, progress};
use crate::serve::Kind;

/// The call.
pub(crate) const PATH: &str = "/pulse.control.v1.ControlPlaneService/ReportTemperatures";
/// Proxies that report, and connections that they share; each connection has one call under way.
const CALLERS: usize = 512;
pub(crate) const CONNECTIONS: usize = 64;
/// Nodes of the list, of which the first changes its name from push to push.
const NODES: usize = 200;
/// A lone proxy's pace: 200 reports a second of 10,000 proxies are one in 50 s from each.
const SLOW_RATE: u32 = 200;
/// gRPC's RESOURCE_EXHAUSTED.
const EXHAUSTED: u8 = 8;
/// Sensors of a report.
const VALUES: f64 = 15.0;

/// T12: as many reports as go, against a tonic server that keeps nothing.
pub(crate) fn throughput(bench: &mut Bench) -> Outcome<()> {
    let (turns, milliseconds) = (bench.pace.loads, bench.pace.load_ms);
    progress("reports, 64 under way");
    let mut pulse = bench.start_pulse(false)?;
    pulse.push(&bench.list(NODES))?;
    let mut naive = bench.start_brought("naive-tonic", Kind::NaiveTonic, false)?;
    let (own, others) =
        (callers(bench.folder.path(), Some(pulse.tokens()))?, callers(bench.folder.path(), None)?);
    let load = |address, callers: &Path, first_sequence, duration_ms| {
        Command::Unary(Unary {
            address,
            ca: None,
            connections: CONNECTIONS,
            in_flight: 1,
            rate: None,
            duration_ms,
            path: PATH.to_owned(),
            callers: callers.to_owned(),
            first_sequence,
            watch: None,
        })
    };
    let mut crowd = Crowd::start()?;
    // Once without being looked at: every sensor is new to the store then.
    let warm = calls(&mut crowd, &load(pulse.address(), &own, 0, milliseconds.min(1_000)))?;
    calls(&mut crowd, &load(naive.address(), &others, 0, milliseconds.min(1_000)))?;
    let (mut taken, mut ratios, mut rates, mut costs) =
        (succeeded(&warm), Vec::new(), Vec::new(), Vec::new());
    let (mut partial, mut exhausted, mut others_of) = (warm.partial, 0, std::collections::BTreeMap::new());
    for turn in 1..=turns {
        let cpu = pulse.server().cpu_ns()?;
        let done = calls(&mut crowd, &load(pulse.address(), &own, turn << 32, milliseconds))?;
        let cpu = pulse.server().cpu_ns()? - cpu;
        let plain_cpu = naive.server().cpu_ns()?;
        let plain = calls(&mut crowd, &load(naive.address(), &others, turn << 32, milliseconds))?;
        let plain_cpu = naive.server().cpu_ns()? - plain_cpu;
        taken += succeeded(&done);
        partial += done.partial;
        exhausted += done.by_status.get(&EXHAUSTED).copied().unwrap_or_default();
        for (status, count) in done.by_status.iter().filter(|(status, _)| ![0, EXHAUSTED].contains(status)) {
            *others_of.entry(*status).or_insert(0) += count;
        }
        ratios.push(rate(&done) / rate(&plain));
        rates.push((rate(&done), rate(&plain)));
        costs.push((each(cpu, succeeded(&done)), each(plain_cpu, succeeded(&plain))));
    }
    let middle = |values: &[(f64, f64)]| {
        let own = median(values.iter().map(|pair| pair.0)).unwrap_or(f64::NAN);
        (own, median(values.iter().map(|pair| pair.1)).unwrap_or(f64::NAN))
    };
    let ((own_rate, plain_rate), (own_cost, plain_cost)) = (middle(&rates), middle(&costs));
    let kept = kept(pulse, taken)?;
    let mut note = format!(
        "{own_rate:.0} / {plain_rate:.0} a second, {own_cost:.1} / {plain_cost:.1} µs of server CPU each; {exhausted} told to wait; {kept}"
    );
    if partial > 0 || !others_of.is_empty() {
        note.push_str(&format!("; {partial} taken in part; other statuses {others_of:?}"));
    }
    let value = median(ratios).unwrap_or(f64::NAN);
    bench.run.figures.push(figure("T12", "reports a second / plain tonic", 0, value, "", note));
    Ok(())
}

/// Whether everything that was taken is there: counted by the server, and as rows of its database when it has ended.
fn kept(pulse: Pulse, taken: u64) -> Outcome<String> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let expected = taken as f64 * VALUES;
    let counted = pulse.metric("pulse_readings_total")?;
    let database = pulse.data_dir().join("pulse.db");
    pulse.stop()?;
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection =
        rusqlite::Connection::open_with_flags(&database, flags).doing("open Pulse's database")?;
    let rows: u64 = connection
        .query_row("SELECT count(*) FROM readings", [], |row| row.get::<_, i64>(0))
        .doing("count the reports in Pulse's database")?
        .cast_unsigned();
    if (counted - expected).abs() > 0.5 || rows != taken {
        return Err(Failure::new(format!(
            "Pulse took {taken} reports, counted {counted} readings ({expected} were sent), and has {rows} in its database"
        )));
    }
    Ok(format!("all {taken} that were taken are in the database"))
}

/// T13: a few reports a second, without pushes and while one push to everybody follows the other; and what others see then.
/// Those who report are pushed to as well, over the same connection, as proxies are.
pub(crate) fn under_push(bench: &mut Bench, stand: &mut Stand, probes: &Probes) -> Outcome<()> {
    let duration_ms = bench.pace.load_ms;
    progress(&format!("reports while {} clients are pushed to", stand.clients));
    stand.push_at_once(&bench.list(NODES))?;
    let connect = stand.peer.connect(1);
    let callers = callers(bench.folder.path(), Some(probes.reporters()))?;
    let load = |first_sequence, watch: Option<&str>| {
        Command::Unary(Unary {
            address: connect.address,
            ca: connect.ca.clone(),
            connections: REPORTERS,
            in_flight: 1,
            rate: Some(SLOW_RATE),
            duration_ms,
            path: PATH.to_owned(),
            callers: callers.clone(),
            first_sequence,
            watch: watch.map(str::to_owned),
        })
    };
    let mut crowd = Crowd::start()?;
    calls(&mut crowd, &load(1 << 40, None))?;
    let mut lasts = Vec::new();
    let mut push = || stand.push_at_once(&bench.list(NODES)).map(|last_ms| lasts.push(last_ms));
    let quiet = || {
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    };
    // Reports alone, and others alone, so that neither is in the other's way.
    let without = while_it_runs(quiet, |_| calls(&mut crowd, &load(2 << 40, Some(WATCH_PATH))))?;
    let with = while_it_runs(&mut push, |_| calls(&mut crowd, &load(3 << 40, Some(WATCH_PATH))))?;
    let apart = while_it_runs(&mut push, |_| calls(&mut crowd, &load(4 << 40, None)))?;
    let for_a_while = |is_over: &AtomicBool| {
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| probes.ask(is_over));
            std::thread::sleep(Duration::from_millis(duration_ms));
            is_over.store(true, Ordering::Relaxed);
            asking.join().expect("asking does not panic")
        })
    };
    let seen_without = while_it_runs(quiet, for_a_while)?;
    let seen_with = while_it_runs(&mut push, for_a_while)?;

    let p99 = |calls: &Calls| calls.latency.map(|times| milliseconds(times.p99_ns));
    let (with_ms, without_ms) =
        p99(&with).zip(p99(&without)).ok_or_else(|| Failure::new("no report was taken"))?;
    let p50 = |calls: &Calls| calls.latency.map_or(f64::NAN, |times| milliseconds(times.p50_ns));
    let failed =
        with.by_status.iter().filter(|(status, _)| **status != 0).map(|(_, count)| count).sum::<u64>();
    let pushes = lasts.len();
    let note = format!(
        "p99 {with_ms:.1} / {without_ms:.1} ms, p50 {:.1} / {:.1} ms; {pushes} pushes of 200 nodes, one after the other, last client after {:.0} ms; {failed} refused",
        p50(&with),
        p50(&without),
        median(lasts).unwrap_or(f64::NAN)
    );
    let clients = stand.clients;
    let what = "p99 of a report under push / without";
    bench.run.figures.push(figure("T13", what, clients, with_ms / without_ms, "", note));
    if let Some(times) = apart.latency {
        let [p50, p99, most] = [times.p50_ns, times.p99_ns, times.last_ns].map(milliseconds);
        let what = "a report over a connection without a watch, under push, p99";
        let note = format!("p50 {p50:.1}, p99 {p99:.1}, the most {most:.1} ms");
        bench.run.figures.push(figure("", what, clients, p99, "ms", note));
    }
    for ((who, with), without) in WHO.iter().zip(seen_with).zip(seen_without) {
        let shown = |times: &Times| {
            let at = [times.p50_ns, times.p99_ns, times.last_ns].map(milliseconds);
            format!("p50 {:.1}, p99 {:.1}, the most {:.1} ms", at[0], at[1], at[2])
        };
        let note = format!("{}; without {}", shown(&with), shown(&without));
        let what = format!("{who} under push, p99");
        bench.run.figures.push(figure("", &what, clients, milliseconds(with.p99_ns), "ms", note));
    }
    Ok(())
}

/// Does one thing again and again while the other runs, which is told by a flag of its own when to end.
fn while_it_runs<T: Send>(
    mut meanwhile: impl FnMut() -> Outcome<()>,
    run: impl FnOnce(&AtomicBool) -> Outcome<T> + Send,
) -> Outcome<T> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&is_over));
        let mut done = Ok(());
        while !running.is_finished() && done.is_ok() {
            done = meanwhile();
        }
        is_over.store(true, Ordering::Relaxed);
        let ran = running.join().expect("measuring does not panic");
        done.and(ran)
    })
}

/// A file of callers; without tokens for a server that asks for none.
pub(crate) fn callers(folder: &Path, tokens: Option<&Path>) -> Outcome<PathBuf> {
    let tokens = tokens.map(crate::client::read_lines).transpose()?;
    let path = folder.join(format!("callers-{}", Uuid::new_v4()));
    let mut file = std::fs::File::create(&path).doing("write the callers")?;
    let count = tokens.as_ref().map_or(CALLERS, |tokens| tokens.len().min(CALLERS));
    for number in 0..count.max(CONNECTIONS) {
        let token = tokens.as_ref().map(|tokens| tokens[number % tokens.len()].clone());
        let caller = Caller {
            token: token.unwrap_or_default(),
            node: node(1 + number % (NODES - 1)),
            session: Uuid::new_v4().to_string(),
        };
        let line = serde_json::to_string(&caller).doing("write a caller")?;
        writeln!(file, "{line}").doing("write the callers")?;
    }
    Ok(path)
}

fn calls(crowd: &mut Crowd, load: &Command) -> Outcome<Calls> {
    calls_of(crowd.tell(load)?)
}

/// What became of a load.
pub(crate) fn calls_of(answer: Answer) -> Outcome<Calls> {
    let calls = answer.calls.ok_or_else(|| Failure::new("a load without calls"))?;
    if calls.broken.is_empty() {
        Ok(calls)
    } else {
        Err(Failure::new(format!("calls broke: {:?}", calls.broken)))
    }
}

/// Calls that did what they were for.
pub(crate) fn succeeded(calls: &Calls) -> u64 {
    calls.by_status.get(&0).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
/// Such calls a second.
pub(crate) fn rate(calls: &Calls) -> f64 {
    succeeded(calls) as f64 / (calls.elapsed_ns as f64 / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn each(nanoseconds: u64, count: u64) -> f64 {
    nanoseconds as f64 / 1e3 / count.max(1) as f64
}
