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
    /// Write the whole stacks of the server with streams here, as a flame graph takes them
    #[arg(long, value_name = "FILE")]
    stacks: Option<PathBuf>,
    /// Frames that tell a place
    #[arg(long, value_name = "N", default_value_t = 5)]
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
    if let Some(path) = heap.stacks.as_ref().filter(|_| streams > 0) {
        std::fs::write(path, &text).doing(format!("write {}", path.display()))?;
    }
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
///
/// Functions that the compiler took into others stand in the opposite order within theirs. So what stands behind the
/// allocator's own frame begins with the innermost, and is read forward; what stands before it is read backward.
fn by_place(folded: &str, frames: usize) -> Places {
    let mut places = Places::new();
    for line in folded.lines() {
        let Some((stack, bytes)) = line.rsplit_once(' ') else { continue };
        let Ok(bytes) = bytes.parse::<i64>() else { continue };
        let stack: Vec<&str> = stack.split(';').collect();
        let allocator = stack.iter().rposition(|frame| ALLOCATOR.iter().any(|name| frame.contains(name)));
        let (before, behind) = stack.split_at(allocator.unwrap_or(stack.len()));
        let telling = behind.iter().chain(before.iter().rev()).map(|frame| short(frame));
        let mut place: Vec<String> = Vec::new();
        for frame in telling.filter(|frame| is_telling(frame)) {
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

/// How Rust's allocator calls itself.
const ALLOCATOR: [&str; 3] = ["__rdl_alloc", "__rdl_realloc", "__rdl_alloc_zeroed"];
/// Functions and files of the standard library that stand in every stack.
const FUNCTIONS: [&str; 14] = [
    "_R",
    "alloc",
    "box_new",
    "do_reserve",
    "extend_with",
    "fallible_with",
    "finish_grow",
    "grow",
    "new_uninit",
    "realloc",
    "reserve",
    "resize",
    "try_allocate",
    "with_capacity",
];
const FILES: [&str; 12] = [
    "(alloc.rs)",
    "(core.rs)",
    "(list.rs)",
    "(raw.rs)",
    "(boxed.rs)",
    "(function.rs)",
    "(local.rs)",
    "(option.rs)",
    "(panic.rs)",
    "(panicking.rs)",
    "(sync.rs)",
    "(unwind_safe.rs)",
];

/// A function without its types.
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
    // Types beside the outermost brackets are left over.
    match (text.split([' ', ',']).next(), text.rsplit(' ').next()) {
        (Some(name), Some(file)) if name != file => format!("{name} {file}"),
        _ => text,
    }
}

fn is_telling(frame: &str) -> bool {
    let is_same = FUNCTIONS.iter().any(|name| frame.starts_with(name))
        || FILES.iter().any(|file| frame.ends_with(file));
    !frame.is_empty() && !is_same
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
        let folded = "main (main.rs);poll<> (raw.rs);serve<A, B> (connection.rs);___rdl_alloc (alloc.rs);\
                      allocate (alloc.rs);with_capacity<> (mod.rs);new<> (framed_write.rs);handshake<> (server.rs) 100\n\
                      main (main.rs);serve<C> (connection.rs);___rdl_alloc (alloc.rs);new<> (framed_write.rs);\
                      handshake<> (server.rs) 28\n\
                      main (main.rs);read_tls<> (conn.rs);___rdl_realloc (alloc.rs);finish_grow<> (mod.rs) 7\n";
        let places = by_place(folded, 2);
        assert_eq!(places.get("new (framed_write.rs) < handshake (server.rs)"), Some(&128), "{places:?}");
        assert_eq!(places.get("read_tls (conn.rs) < main (main.rs)"), Some(&7), "{places:?}");
    }
}
