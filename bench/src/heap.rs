//! `pulse-bench heap`: the bytes that one idle stream holds, by the place that allocated them.
//!
//! In: a Pulse with symbols, and heaptrack. Out: a table. Always: what a server holds without clients is taken off, place by
//! place; the server is killed, so that what it held is what was never given back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;

use crate::crowd::Crowd;
use crate::failure::{Doing, Failure, Outcome};
use crate::fleet;
use crate::list::List;
use crate::peers::Peer;
use crate::peers::installed::program;
use crate::peers::pulse::{Pulse, Variables};
use crate::run::progress;

/// `pulse-bench heap`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Heap {
    /// Streams, each over TLS of its own
    #[arg(short = 'n', long, value_name = "N", default_value_t = 500)]
    streams: usize,
    /// Pushes of 200 nodes before the look
    #[arg(long, value_name = "N", default_value_t = 3)]
    pushes: u32,
    /// Pulse's program, with symbols [default: ../profiling/pulse beside this one]
    #[arg(long, value_name = "FILE")]
    pulse: Option<PathBuf>,
    /// Frames that tell a place
    #[arg(long, value_name = "N", default_value_t = 4)]
    frames: usize,
    /// Places that are shown
    #[arg(long, value_name = "N", default_value_t = 40)]
    places: usize,
}

/// Where packages and a build by hand put the parts of heaptrack.
const PRELOAD: [&str; 3] = [
    "/usr/lib/heaptrack/libheaptrack_preload.so",
    "/usr/lib/x86_64-linux-gnu/heaptrack/libheaptrack_preload.so",
    "/usr/local/lib/heaptrack/libheaptrack_preload.so",
];
const INTERPRET: [&str; 4] = [
    "/usr/lib/heaptrack/libexec/heaptrack_interpret",
    "/usr/libexec/heaptrack_interpret",
    "/usr/lib/x86_64-linux-gnu/libexec/heaptrack_interpret",
    "/usr/local/lib/heaptrack/libexec/heaptrack_interpret",
];
/// The recorder writes what it saw at least so often.
const SETTLE: Duration = Duration::from_secs(2);

/// Bytes by place.
type Places = BTreeMap<String, i64>;

/// Measures and prints.
pub(crate) fn run(heap: &Heap) -> Outcome<()> {
    let own = std::env::current_exe().doing("find the bench's own program")?;
    let built = || own.parent()?.parent().map(|target| target.join("profiling/pulse"));
    let pulse = heap.pulse.clone().or_else(built).unwrap_or_else(|| PathBuf::from("pulse"));
    let folder = tempfile::tempdir().doing("make a folder")?;
    let tokens = folder.path().join("tokens");
    progress(&format!("{} proxies register", heap.streams));
    let plain = Pulse::start(&pulse, &folder.path().join("plain"), false, &tokens)?;
    fleet::register(&plain, heap.streams)?;
    let data = plain.stop()?;
    let empty = places(heap, &pulse, &data, folder.path(), 0)?;
    let full = places(heap, &pulse, &data, folder.path(), heap.streams)?;
    print(heap, &empty, &full)
}

/// What a server holds that so many streams are open to.
fn places(heap: &Heap, pulse: &Path, data: &Path, folder: &Path, streams: usize) -> Outcome<Places> {
    progress(&format!("a server with {streams} streams is recorded"));
    let own = folder.join(format!("recorded-{streams}"));
    fleet::copy(data, &own)?;
    let raw = own.join("raw");
    let variables: Variables = vec![
        ("LD_PRELOAD".to_owned(), found(&PRELOAD, "heaptrack")?.display().to_string()),
        ("DUMP_HEAPTRACK_OUTPUT".to_owned(), raw.display().to_string()),
    ];
    let mut pulse = Pulse::start_with(pulse, &own, true, &folder.join("tokens"), variables)?;
    let mut crowd = Crowd::start()?;
    if streams > 0 {
        crowd.connect(pulse.connect(streams))?;
    }
    for number in 0..heap.pushes {
        pulse.push(&List::new(200, number + 1))?;
    }
    std::thread::sleep(SETTLE);
    pulse.server().kill()?;
    drop(crowd);

    let interpreted = own.join("interpreted");
    let mut command = Command::new(found(&INTERPRET, "heaptrack")?);
    command.stdin(File::open(&raw).doing("read what was recorded")?);
    command.stdout(File::create(&interpreted).doing("write what was read")?).stderr(Stdio::null());
    finish(&mut command)?;
    let folded = own.join("folded");
    let print = program("heaptrack_print").ok_or_else(|| Failure::new("heaptrack_print is not installed"))?;
    let mut command = Command::new(print);
    command.arg("--file").arg(&interpreted).arg("--print-flamegraph").arg(&folded);
    command.args(["--flamegraph-cost-type", "leaked"]).stdout(Stdio::null()).stderr(Stdio::null());
    finish(&mut command)?;
    let text = std::fs::read(&folded).doing("read the stacks")?;
    Ok(by_place(&String::from_utf8_lossy(&text), heap.frames))
}

fn found(paths: &[&str], package: &str) -> Outcome<PathBuf> {
    let path = paths.iter().map(PathBuf::from).find(|path| path.is_file());
    path.ok_or_else(|| Failure::new(format!("{package} is not installed: `make bench-setup`")))
}

fn finish(command: &mut Command) -> Outcome<()> {
    let status = command.status().doing(format!("run {}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{command:?} failed: {status}"))) }
}

/// Bytes by place, from stacks written `outer;inner BYTES`, one a line.
fn by_place(folded: &str, frames: usize) -> Places {
    let mut places = Places::new();
    for line in folded.lines() {
        let Some((stack, bytes)) = line.rsplit_once(' ') else { continue };
        let Ok(bytes) = bytes.parse::<i64>() else { continue };
        let telling = stack.split(';').rev().map(short).filter(|frame| is_telling(frame));
        let mut place: Vec<String> = Vec::new();
        for frame in telling {
            if place.last() != Some(&frame) {
                place.push(frame);
            }
            if place.len() == frames {
                break;
            }
        }
        *places.entry(place.join(" < ")).or_default() += bytes;
    }
    places
}

/// A function without its types and hash.
fn short(frame: &str) -> String {
    let mut text = String::new();
    let mut depth = 0;
    for letter in frame.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ if depth == 0 => text.push(letter),
            _ => {}
        }
    }
    // `<T as Trait>::f` is left as `::f`: then what was within tells more.
    let text = if text.starts_with("::") { frame.replace(['<', '>'], "") } else { text };
    let text = text.replace("{{closure}}", "{}").replace("::::", "::");
    let is_hash = |part: &str| part.len() == 17 && part.starts_with('h');
    match text.rsplit_once("::") {
        Some((rest, last)) if is_hash(last) => rest.to_owned(),
        _ => text,
    }
}

/// Frames of allocators and containers are the same everywhere.
fn is_telling(frame: &str) -> bool {
    const SAME: [&str; 9] =
        ["alloc::", "core::", "std::", "__rust", "__rg", "__rdl", "malloc", "hashbrown::", "0x"];
    !frame.is_empty() && !SAME.iter().any(|start| frame.starts_with(start))
}

#[expect(clippy::cast_precision_loss, reason = "a heap is far below 2^53 bytes")]
fn print(heap: &Heap, empty: &Places, full: &Places) -> Outcome<()> {
    let mut each: Vec<(f64, &str)> = full
        .iter()
        .map(|(place, bytes)| {
            let more = bytes - empty.get(place).copied().unwrap_or_default();
            (more as f64 / heap.streams as f64, place.as_str())
        })
        .collect();
    each.sort_by(|one, other| other.0.total_cmp(&one.0));
    let sum: f64 = each.iter().map(|(bytes, _)| bytes).sum();
    let mut output = std::io::stdout().lock();
    let mut text = format!("{sum:.0} bytes of heap for each of {} idle streams over TLS\n", heap.streams);
    for (bytes, place) in each.iter().take(heap.places) {
        text.push_str(&format!("{bytes:8.0}  {place}\n"));
    }
    output.write_all(text.as_bytes()).doing("print the places")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_added_up_by_their_telling_frames() {
        let folded = "main;tokio::spawn<Foo<Bar>>;pulse::serve;alloc::vec::Vec<u8>::with_capacity;malloc 100\n\
                      main;tokio::spawn<Other>;pulse::serve;alloc::boxed::Box<u8>::new;malloc 28\n\
                      main;h2::codec::new 7\n";
        let places = by_place(folded, 2);
        assert_eq!(places.get("pulse::serve < tokio::spawn"), Some(&128), "{places:?}");
        assert_eq!(places.get("h2::codec::new < main"), Some(&7), "{places:?}");
    }
}
