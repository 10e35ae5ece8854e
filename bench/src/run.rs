//! `pulse-bench run`: everything in its order, and the table at the end.
//!
//! In: what to measure. Out: the table on standard output, the run as JSON. Always: each number of clients begins with
//! servers that were started for it; a peer that is not installed is named, not left out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::failure::{Doing, Failure, Outcome};
use crate::fleet;
use crate::list::List;
use crate::machine::Machine;
use crate::measure::{idle, reports, scale, stalled, storm};
use crate::pace::Pace;
use crate::peers::Peer;
use crate::peers::brought::Brought;
use crate::peers::installed::{self, INSTALLED};
use crate::peers::pulse::Pulse;
use crate::record::{PeerNote, Run};
use crate::rounds::{Stand, round};
use crate::serve::{Certificate, Kind};
use crate::{pace, table, targets};

/// `pulse-bench run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// A short form: 1,000 clients and few rounds
    #[arg(long, conflicts_with = "tiny")]
    pub(crate) quick: bool,
    /// Just enough to see that the bench works
    #[arg(long, hide = true)]
    pub(crate) tiny: bool,
    /// Numbers of clients
    #[arg(short = 'n', long, value_name = "N", value_delimiter = ',')]
    pub(crate) clients: Vec<usize>,
    /// Rounds for each size of list
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<u32>,
    /// Instances of T16, each with 50 nodes and 5 proxies
    #[arg(long, value_name = "N")]
    pub(crate) instances: Option<usize>,
    /// Peers to run beside Pulse [default: all that are here]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
    /// Only these parts [default: all]
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    pub(crate) parts: Vec<Part>,
    /// Pulse's program [default: pulse beside this one]
    #[arg(long, value_name = "FILE")]
    pub(crate) pulse: Option<PathBuf>,
    /// Where runs are kept; data folders of servers are made there too, so it should be on a disk [default: target/bench]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Write the run's JSON to this file too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl RunArgs {
    /// Whether it is less, or other, than what runs of its kind are.
    fn is_partial(&self) -> bool {
        !(self.clients.is_empty()
            && self.peers.is_empty()
            && self.parts.is_empty()
            && self.rounds.is_none()
            && self.instances.is_none())
    }
}

/// A part of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// T1 to T8
    Pushes,
    /// T9, T10, T13, T14, T15
    Memory,
    /// T11
    Storm,
    /// T12
    Reports,
    /// T16
    Scale,
}

/// Sizes of the lists that are pushed: 380 B and 8 KB.
const SIZES: [usize; 2] = [8, 200];

/// What all measurements share.
pub(crate) struct Bench {
    /// Folder of this run: sockets, data folders, tokens.
    pub(crate) folder: TempDir,
    /// Pulse's program.
    pub(crate) pulse: PathBuf,
    /// The certificate of the peers that speak TLS.
    pub(crate) certificate: Certificate,
    /// How much is measured.
    pub(crate) pace: Pace,
    /// Which peers were asked for; empty: all.
    peers: Vec<String>,
    lists: u32,
    /// What is kept of the run.
    pub(crate) run: Run,
}

impl Bench {
    /// A list that no push had before.
    pub(crate) fn list(&mut self, nodes: usize) -> List {
        self.lists += 1;
        List::new(nodes, self.lists)
    }

    /// The data folder of a Pulse that knows the proxies.
    fn data(&self, is_tls: bool) -> PathBuf {
        self.folder.path().join(if is_tls { "pulse-tls" } else { "pulse" })
    }

    /// The file with the tokens of the registered proxies.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    /// Starts Pulse on the data folder with the registered proxies.
    pub(crate) fn start_pulse(&self, is_tls: bool) -> Outcome<Pulse> {
        Pulse::start(&self.pulse, &self.data(is_tls), is_tls, &self.tokens())
    }

    /// Starts a peer that the bench brings along, with a first list.
    pub(crate) fn start_brought(&mut self, name: &'static str, kind: Kind, is_tls: bool) -> Outcome<Brought> {
        let certificate = is_tls.then_some(&self.certificate);
        let mut peer = Brought::start(name, kind, certificate, self.folder.path())?;
        let list = self.list(8);
        peer.push(&list)?;
        Ok(peer)
    }

    /// Measures one thing. What fails is told at the end, and the rest is measured all the same.
    fn attempt(&mut self, is_wanted: bool, what: &str, measure: impl FnOnce(&mut Bench) -> Outcome<()>) {
        if !is_wanted {
            return;
        }
        if let Err(failure) = measure(self) {
            let text = format!("{what} failed: {}", failure.chain());
            progress(&text);
            self.run.troubles.push(text);
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|wanted| wanted == name)
    }

    /// All peers that were asked for and are here.
    fn peers(&mut self) -> Outcome<Vec<Box<dyn Peer>>> {
        let brought = [
            ("floor-epoll", Kind::FloorEpoll, false),
            ("floor-epoll2", Kind::FloorEpoll2, false),
            ("floor-tls", Kind::FloorTls, true),
            ("naive-tonic", Kind::NaiveTonic, false),
            ("naive-tonic-tls", Kind::NaiveTonic, true),
        ];
        let mut peers: Vec<Box<dyn Peer>> = Vec::new();
        for is_tls in [false, true] {
            let pulse = self.start_pulse(is_tls)?;
            if self.is_wanted(pulse.name()) || self.is_wanted("pulse") {
                peers.push(Box::new(pulse));
            }
        }
        for (name, kind, is_tls) in brought {
            if self.is_wanted(name) {
                peers.push(Box::new(self.start_brought(name, kind, is_tls)?));
            }
        }
        for (name, program, package) in INSTALLED {
            if !self.is_wanted(name) {
                continue;
            }
            match installed::program(program) {
                Some(program) => {
                    let mut peer = installed::start(name, &program, self.folder.path())?;
                    peer.push(&self.list(8))?;
                    peers.push(peer);
                }
                None if self.run.absent.iter().all(|absent| absent.name != name) => {
                    let note = format!("not installed: `make bench-setup`, or the package {package}");
                    self.run.absent.push(PeerNote { name: name.to_owned(), note });
                }
                None => {}
            }
        }
        Ok(peers)
    }

    fn note_peers(&mut self, peers: &[Box<dyn Peer>]) {
        for peer in peers {
            if self.run.peers.iter().all(|known| known.name != peer.name()) {
                self.run.peers.push(PeerNote { name: peer.name().to_owned(), note: peer.version() });
            }
        }
    }

    /// T1 to T8: all peers beside each other, with so many clients each.
    fn pushes(&mut self, clients: usize) -> Outcome<()> {
        let peers = self.peers()?;
        self.note_peers(&peers);
        let mut stands = Vec::new();
        for peer in peers {
            progress(&format!("{clients} clients connect to {}", peer.name()));
            stands.push(Stand::open(peer, clients)?);
        }
        let Pace { rounds, warm_up, later, .. } = self.pace;
        for nodes in SIZES {
            progress(&format!(
                "{rounds} rounds of {nodes} nodes to {clients} clients of {} peers",
                stands.len()
            ));
            for number in 0..warm_up + rounds {
                let pushes = round(&mut stands, number, nodes, later, || self.list(nodes))?;
                if number >= warm_up {
                    self.run.pushes.extend(pushes);
                }
            }
        }
        Ok(())
    }
}

/// Runs everything, prints the table, and keeps the run.
pub(crate) fn run(args: &RunArgs) -> Outcome<()> {
    let began = Instant::now();
    let own = std::env::current_exe().doing("find the bench's own program")?;
    let beside = own.parent().ok_or_else(|| Failure::new("the bench's own program is in no folder"))?;
    let pulse = args.pulse.clone().unwrap_or_else(|| beside.join("pulse"));
    if !pulse.is_file() {
        let text = format!("{} is missing: build it with `cargo build --release -p pulse`", pulse.display());
        return Err(Failure::new(text));
    }
    let kept = match (&args.folder, beside.parent()) {
        (Some(folder), _) => folder.clone(),
        (None, Some(target)) => target.join("bench"),
        (None, None) => PathBuf::from("bench"),
    };
    std::fs::create_dir_all(&kept).doing(format!("make {}", kept.display()))?;
    let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&kept).doing("make the run's folder")?;
    let certificate = Certificate::make(folder.path())?;
    let mut pace = match (args.quick, args.tiny) {
        (true, _) => pace::QUICK,
        (_, true) => pace::TINY,
        _ => pace::FULL,
    };
    let counts = if args.clients.is_empty() { pace.clients.to_vec() } else { args.clients.clone() };
    pace.rounds = args.rounds.unwrap_or(pace.rounds);
    pace.instances = args.instances.unwrap_or(pace.instances);
    if !args.tiny && args.is_partial() {
        pace.kind = "partial";
    }
    let run = Run { kind: pace.kind.to_owned(), machine: Machine::look(), ..Run::default() };
    let mut bench = Bench { folder, pulse, certificate, peers: args.peers.clone(), lists: 0, pace, run };
    found_fleet(&mut bench, counts.iter().copied().max().unwrap_or_default())?;
    let wants = |part: Part| args.parts.is_empty() || args.parts.contains(&part);
    for &clients in &counts {
        bench.attempt(wants(Part::Pushes), "T1 to T8", |bench| bench.pushes(clients));
        bench.attempt(wants(Part::Memory), "T9, T10, T13 to T15", |bench| {
            let (mut stand, probes) = idle::measure(bench, clients)?;
            reports::under_push(bench, &mut stand, &probes)?;
            stalled::measure(bench, stand)
        });
        bench.attempt(wants(Part::Storm), "T11", |bench| storm::measure(bench, clients));
    }
    bench.attempt(wants(Part::Reports), "T12", reports::throughput);
    bench.attempt(wants(Part::Scale), "T16", scale::measure);
    let mut run = bench.run;
    run.rows = targets::rows(&run);
    run.seconds = began.elapsed().as_secs();
    keep(&run, &kept, args.json.as_deref())?;
    if run.troubles.is_empty() { Ok(()) } else { Err(Failure::new(run.troubles.join("\n"))) }
}

/// Registers the proxies with a server in plain text, and gives the server over TLS a copy of its data.
fn found_fleet(bench: &mut Bench, count: usize) -> Outcome<()> {
    progress(&format!("{count} proxies register"));
    let pulse = bench.start_pulse(false)?;
    fleet::register(&pulse, count)?;
    let folder = pulse.stop()?;
    fleet::copy(&folder, &bench.data(true))
}

/// Prints the table beside that of the last run of the same kind, and writes the run in its place.
fn keep(run: &Run, folder: &Path, json: Option<&Path>) -> Outcome<()> {
    let last = folder.join(format!("{}.json", run.kind));
    let earlier = Run::read(&last).ok();
    let text = table::text(run, earlier.as_ref());
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).doing("print the table")?;
    let stamp: String = run.machine.date.chars().filter(char::is_ascii_digit).collect();
    run.write(&folder.join(format!("{}-{stamp}.json", run.kind)))?;
    run.write(&last)?;
    json.map_or(Ok(()), |path| run.write(path))
}

/// Tells what is being done.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}
