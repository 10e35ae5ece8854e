//! The protocol in a deterministic simulation: the server's and the proxies' own parts, over a simulated network and simulated
//! time, with faults that a seed decides.
//!
//! `PULSE_SIMULATION_SEED=N` runs one seed, `PULSE_SIMULATION_SEEDS=N` another number of them. A seed that fails is named with the
//! command that runs it again, and its journal is kept.

mod admin;
mod chance;
mod check;
mod clock;
mod faults;
mod journal;
mod proxy;
mod server;
mod world;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

use journal::Lines;
use world::Outcome;

/// How many seeds are run if nobody says otherwise.
const SEEDS: u64 = 500;

thread_local! {
    /// What panicked on this thread, in whichever task.
    static PANICKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// Runs a seed on a thread of its own. A panic of any task is something wrong.
fn run(seed: u64) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICKED.set(Some(info.to_string()));
            before(info);
        }));
    });
    let named = thread::Builder::new().name(format!("seed {seed}"));
    let running = named.spawn(move || {
        let mut outcome = world::run(seed);
        outcome.wrong.extend(PANICKED.take().map(|what| format!("a task panicked: {what}")));
        outcome
    });
    running.expect("a thread can be started").join().unwrap_or_else(|_| Outcome {
        journal: Vec::new(),
        wrong: vec!["the simulation itself panicked; see above".to_owned()],
    })
}

/// Keeps the journal of a seed, and says where.
fn keep(seed: u64, outcome: &Outcome) -> String {
    let path: PathBuf = std::env::temp_dir().join(format!("pulse-simulation-{seed}.journal"));
    match std::fs::write(&path, Lines(&outcome.journal).to_string()) {
        Ok(()) => format!("its journal is in {}", path.display()),
        Err(error) => format!("its journal cannot be kept: {error}"),
    }
}

/// What to say of a seed that failed.
fn failure(seed: u64, outcome: &Outcome) -> String {
    let kept = keep(seed, outcome);
    let wrong: Vec<&str> = outcome.wrong.iter().map(String::as_str).take(20).collect();
    format!(
        "seed {seed} failed:\n  {}\n  {kept}\n  again: PULSE_SIMULATION_SEED={seed} cargo test -p pulse-simulation every_seed",
        wrong.join("\n  ")
    )
}

/// What a journal must hold somewhere, over all seeds.
const THINGS: [&str; 22] = [
    "is Cut\"",
    "is CutFromServer",
    "is CutFromProxy",
    "is Held",
    "is Slow",
    "the server is killed",
    "the server is stopped",
    "host0 is killed",
    "host0 is stopped",
    "the clock of pulse",
    "the clock of host1",
    "the database is the copy",
    "a clone of host",
    "rotate n0: done",
    "revoke n0: done",
    "remove n1: done",
    "epoch new: done",
    "epoch new, as the server says: done",
    "source: \"cache\"",
    "closed: Some(\"revoked",
    "state: \"OFFLINE\"",
    "state: \"STALE\"",
];

fn things_met(outcome: &Outcome) -> Vec<&'static str> {
    let text = Lines(&outcome.journal).to_string();
    THINGS.into_iter().filter(|thing| text.contains(thing)).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
fn every_seed_keeps_the_promises() {
    let one = number("PULSE_SIMULATION_SEED");
    let seeds = one.map_or(0..number("PULSE_SIMULATION_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let (next, failures) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let met: Mutex<BTreeSet<&str>> = Mutex::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run(seed);
                    met.lock().unwrap_or_else(PoisonError::into_inner).extend(things_met(&outcome));
                    if one.is_some() {
                        println!("seed {seed}: {}", keep(seed, &outcome));
                    }
                    if !outcome.wrong.is_empty() {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure(seed, &outcome));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let count = seeds.end - seeds.start;
    assert!(failures.is_empty(), "{} of {count} seeds failed\n{}", failures.len(), failures.join("\n"));
    // Promises that were never put to the test are not kept by that.
    let met = met.into_inner().unwrap_or_else(PoisonError::into_inner);
    let unmet: Vec<_> = THINGS.iter().filter(|thing| !met.contains(**thing)).collect();
    assert!(count < SEEDS || unmet.is_empty(), "no seed met {unmet:?}");
}

/// That the checks see the world and not only what a test hands them.
#[test]
fn a_run_in_which_a_list_goes_back_fails() {
    let named = thread::Builder::new().name("put back".to_owned());
    let running = named.spawn(|| world::run_with_a_state_folder_put_back(1));
    let outcome = running.expect("a thread can be started").join().expect("the simulation does not panic");
    let is_noticed = outcome.wrong.iter().any(|wrong| wrong.contains("the list of host0 goes back"));
    assert!(is_noticed, "{:?}\n{}", outcome.wrong, Lines(&outcome.journal));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in number("PULSE_SIMULATION_SEED").map_or(0..12, |seed| seed..seed + 1) {
        let (one, two) = (run(seed).journal, run(seed).journal);
        let differs = one.iter().zip(&two).position(|(one, two)| one != two);
        if let Some(at) = differs {
            let (one, two) = (Lines(&one[at..=at]), Lines(&two[at..=at]));
            panic!("seed {seed} went two ways at entry {at}:\n{one}{two}");
        }
        assert_eq!(one.len(), two.len(), "seed {seed}");
    }
}
