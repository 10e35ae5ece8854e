//! `pulse-bench replicas`: three servers on one PostgreSQL beside one there, and one on its own file.
//!
//! In: a PostgreSQL on this machine. Out: a run of its own, from which docs/scale.md has its measured figures. Always: all
//! servers are up at the same time and take turns, so that what the machine does meanwhile falls on all alike.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use tempfile::TempDir;

use crate::client::control::{Answer, Command, Connect, Unary};
use crate::crowd::Crowd;
use crate::failure::{Doing, Failure, Outcome};
use crate::fleet;
use crate::list::List;
use crate::machine::Machine;
use crate::measure::reports::{self, CONNECTIONS};
use crate::measure::{figure, kibibytes_each};
use crate::peers::pulse::Pulse;
use crate::peers::{Peer, watch};
use crate::postgres::Postgres;
use crate::record::{PeerNote, Run, median, milliseconds, rounded};
use crate::run::progress;
use crate::{table, targets};

/// `pulse-bench replicas`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Replicas {
    /// The PostgreSQL [default: the one that `scripts/with-postgres.sh` has started]
    #[arg(long, value_name = "postgres://USER@HOST/DATABASE")]
    postgres: Option<String>,
    /// Numbers of clients
    #[arg(short = 'n', long, value_name = "N", value_delimiter = ',', default_values_t = [300, 3_000])]
    clients: Vec<usize>,
    /// Rounds of pushes for each number of clients
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: u32,
    /// How long a load of reports lasts, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    load_ms: u64,
    /// Pulse's program [default: pulse beside this one]
    #[arg(long, value_name = "FILE")]
    pulse: Option<PathBuf>,
    /// Write the run's JSON to this file
    #[arg(long, value_name = "FILE", default_value = "target/bench/replicas.json")]
    json: PathBuf,
}

/// Nodes of the list.
const NODES: usize = 200;
/// Pushes that do not count.
const WARM_UP: u32 = 2;
/// How long a push may take.
const PATIENCE_MS: u64 = 30_000;
/// How long servers are left alone after a push, so that they have saved what they sent before the next one's turn.
const LATER: std::time::Duration = std::time::Duration::from_millis(2_300);

/// Servers on one database, with their clients.
struct Group {
    name: &'static str,
    servers: Vec<Pulse>,
    crowds: Vec<Crowd>,
    tokens: PathBuf,
    /// The next push goes to this one.
    turn: usize,
    /// Registrations a second, as they went before anything else.
    registrations: f64,
}

/// One push, in milliseconds since it was asked for; the server's own share of the processor in microseconds a client.
struct Pushed {
    first: f64,
    p50: f64,
    last: f64,
    /// The last one at the server that was asked, and the last one at another.
    last_here: f64,
    last_elsewhere: Option<f64>,
    commit: f64,
    cpu: f64,
}

impl Group {
    fn start(args: &With<'_>, name: &'static str, servers: usize, database: Option<&str>) -> Outcome<Group> {
        let folder = args.folder.join(name);
        let tokens = folder.join("tokens");
        let mut group =
            Group { name, servers: Vec::new(), crowds: Vec::new(), tokens, turn: 0, registrations: 0.0 };
        for at in 0..servers {
            let own = folder.join(at.to_string());
            std::fs::create_dir_all(own.join("data")).doing("make a data folder")?;
            let mut variables = Vec::new();
            if let Some(url) = database {
                let key = folder.join("0/data/secret.key").display().to_string();
                variables.push(("PULSE_DATABASE_URL".to_owned(), url.to_owned()));
                variables.push(("PULSE_SECRET_KEY_FILE".to_owned(), key));
            }
            let tokens = folder.join("tokens");
            group.servers.push(Pulse::start_with(args.pulse, &own, false, &tokens, variables)?);
        }
        progress(&format!("{} proxies register with {name}", args.most));
        let began = Instant::now();
        fleet::register(&group.servers[0], args.most)?;
        #[expect(clippy::cast_precision_loss, reason = "they are few")]
        let all = (args.most + fleet::REPORTERS + 1) as f64;
        group.registrations = all / began.elapsed().as_secs_f64();
        Ok(group)
    }

    /// Connects so many clients, as many to each server.
    fn connect(&mut self, clients: usize) -> Outcome<()> {
        let tokens = crate::client::read_lines(&self.tokens)?;
        let share = clients / self.servers.len();
        self.crowds.clear();
        for (at, (server, own)) in self.servers.iter().zip(tokens.chunks(share)).enumerate() {
            let path = self.tokens.with_file_name(format!("tokens-of-{at}"));
            std::fs::write(&path, own.join("\n")).doing("write the tokens")?;
            let mut crowd = Crowd::start()?;
            crowd
                .connect(Connect { subscription: watch(Vec::new(), Some(path)), ..server.connect(share) })?;
            self.crowds.push(crowd);
        }
        Ok(())
    }

    fn cpu_ns(&mut self) -> Outcome<u64> {
        self.servers.iter_mut().map(|server| server.server().cpu_ns()).sum()
    }

    fn push(&mut self, list: &List, clients: usize) -> Outcome<Pushed> {
        let at = self.turn % self.servers.len();
        self.turn += 1;
        for crowd in &mut self.crowds {
            crowd.tell(&Command::Expect { marker: list.hash().to_owned() })?;
        }
        let commits = |server: &Pulse| server.commits_ns().map(Option::unwrap_or_default);
        let before = commits(&self.servers[at])?;
        let cpu = self.cpu_ns()?;
        let asked_ns = self.servers[at].push(list)?;
        for crowd in &mut self.crowds {
            crowd.begin(&Command::Await { count: None, timeout_ms: PATIENCE_MS })?;
        }
        let answers: Vec<Answer> = self.crowds.iter_mut().map(Crowd::answer).collect::<Outcome<_>>()?;
        let cpu = self.cpu_ns()?.saturating_sub(cpu);
        let commit = commits(&self.servers[at])?.saturating_sub(before);
        let mut times = Vec::new();
        for answer in &answers {
            if answer.missing > 0 || !answer.ended.is_empty() || answer.stale > 0 {
                let Answer { missing, ended, stale, .. } = answer;
                return Err(Failure::new(format!(
                    "{}: {missing} clients did not get a push, {stale} got an older list, ended: {ended:?}",
                    self.name
                )));
            }
            times.push(answer.times.ok_or_else(|| Failure::new("nobody got a push"))?);
        }
        let since = |at_ns: u64| milliseconds(at_ns.saturating_sub(asked_ns));
        let last = |times: &mut dyn Iterator<Item = &crate::client::control::Times>| {
            times.map(|times| times.last_ns).max().map(since)
        };
        let others = times.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, times)| times);
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
        let cpu = rounded(cpu as f64 / 1e3 / clients as f64);
        Ok(Pushed {
            first: times.iter().map(|times| times.first_ns).min().map_or(f64::NAN, since),
            p50: median(times.iter().map(|times| since(times.p50_ns))).unwrap_or(f64::NAN),
            last: last(&mut times.iter()).unwrap_or(f64::NAN),
            last_here: since(times[at].last_ns),
            last_elsewhere: last(&mut others.into_iter()),
            commit: milliseconds(commit),
            cpu,
        })
    }
}

/// What every group is started with; `most` proxies register with each.
struct With<'a> {
    pulse: &'a Path,
    folder: &'a Path,
    most: usize,
}

/// Measures, prints the table, and keeps the run.
pub(crate) fn run(args: &Replicas) -> Outcome<()> {
    let began = Instant::now();
    let own = std::env::current_exe().doing("find the bench's own program")?;
    let beside = own.parent().ok_or_else(|| Failure::new("the bench's own program is in no folder"))?;
    let pulse = args.pulse.clone().unwrap_or_else(|| beside.join("pulse"));
    let kept = args.json.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(kept).doing(format!("make {}", kept.display()))?;
    let folder: TempDir =
        tempfile::Builder::new().prefix("run-").tempdir_in(kept).doing("make the run's folder")?;
    let url = args.postgres.clone().or_else(|| std::env::var("PULSE_TEST_POSTGRES").ok());
    let url = url.ok_or_else(|| Failure::new("no PostgreSQL is named: `make bench-replicas` starts one"))?;
    let postgres = Postgres::connect(&url)?;
    let mut run = Run { kind: "replicas".to_owned(), machine: Machine::look(), ..Run::default() };
    run.peers.push(PeerNote { name: "database".to_owned(), note: postgres.version()? });
    let most = args.clients.iter().copied().max().unwrap_or_default();
    let with = With { pulse: &pulse, folder: folder.path(), most };
    let file = Group::start(&with, "one-on-sqlite", 1, None)?;
    let one = Group::start(&with, "one-on-postgresql", 1, Some(&postgres.database("bench_one")?))?;
    let url = postgres.database("bench_three")?;
    let three = Group::start(&with, "three-on-postgresql", 3, Some(&url))?;
    for group in [&file, &one, &three] {
        run.peers.push(PeerNote { name: group.name.to_owned(), note: group.servers[0].version() });
        let what = format!("{}: registrations a second", group.name);
        let note = "64 under way at one server; each is a commit of its own".to_owned();
        run.figures.push(figure("", &what, most, group.registrations, "/s", note));
    }
    let mut groups = [file, one, three];
    let mut lists = 0;
    for &clients in &args.clients {
        pushes(&mut run, &postgres, &mut groups, clients, args.rounds, &mut lists)?;
    }
    loads(&mut run, &postgres, &mut groups, folder.path(), args.load_ms)?;
    let bytes = postgres.bytes_of_a_report(&url)?;
    let note = "15 sensors; the table with its indices".to_owned();
    run.figures.push(figure("", "three-on-postgresql: a report as it is stored", 0, bytes, "B", note));
    run.rows = targets::rows(&run);
    run.seconds = began.elapsed().as_secs();
    let text = table::text(&run, None);
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).doing("print the table")?;
    run.write(&args.json)
}

fn pushes(
    run: &mut Run,
    postgres: &Postgres,
    groups: &mut [Group; 3],
    clients: usize,
    rounds: u32,
    lists: &mut u32,
) -> Outcome<()> {
    for group in groups.iter_mut() {
        progress(&format!("{clients} clients connect to {}", group.name));
        group.connect(clients)?;
    }
    progress(&format!("{rounds} pushes of {NODES} nodes to {clients} clients of each"));
    let mut all: [Vec<Pushed>; 3] = Default::default();
    let (mut written, mut asked): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    for round in 0..WARM_UP + rounds {
        for step in 0..3 {
            // Another one begins each round.
            let at = (round as usize + step) % 3;
            *lists += 1;
            let before = postgres.work()?;
            let pushed = groups[at].push(&List::new(NODES, *lists), clients)?;
            std::thread::sleep(LATER);
            let after = postgres.work()?;
            if round >= WARM_UP {
                all[at].push(pushed);
                #[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
                let each = |count: u64| count as f64 / clients as f64;
                written[at].push(each(after.wal_bytes.saturating_sub(before.wal_bytes)));
                asked[at].push(each(after.cpu_ns.saturating_sub(before.cpu_ns)) / 1e3);
            }
        }
    }
    let middle =
        |values: &[Pushed], of: &dyn Fn(&Pushed) -> Option<f64>| median(values.iter().filter_map(of));
    for (at, group) in groups.iter().enumerate() {
        let of = |of: &dyn Fn(&Pushed) -> Option<f64>| middle(&all[at], of).unwrap_or(f64::NAN);
        let last = of(&|one| Some(one.last));
        let mut note = format!(
            "first {:.2}, half {:.2}; the commit {:.2}; {:.1} µs of server CPU for each client",
            of(&|one| Some(one.first)),
            of(&|one| Some(one.p50)),
            of(&|one| Some(one.commit)),
            of(&|one| Some(one.cpu)),
        );
        if let Some(elsewhere) = middle(&all[at], &|one| one.last_elsewhere) {
            let here = of(&|one| Some(one.last_here));
            note.push_str(&format!(
                "; the last at the server that was asked {here:.2}, at another one {elsewhere:.2}"
            ));
        }
        if at > 0 {
            let middle = |values: &[f64]| median(values.iter().copied()).unwrap_or(f64::NAN);
            note.push_str(&format!(
                "; PostgreSQL, with what is saved of it: {:.1} µs and {:.0} bytes of log for each client",
                middle(&asked[at]),
                middle(&written[at])
            ));
        }
        run.figures.push(figure(
            "",
            &format!("{}: an admin's call to the last client", group.name),
            clients,
            last,
            "ms",
            note,
        ));
    }
    // Paired, so that what the machine does meanwhile is in both.
    for at in 1..3 {
        let pairs = all[at].iter().zip(&all[0]).map(|(own, file)| own.last / file.last);
        let ratio = median(pairs).unwrap_or(f64::NAN);
        let what = format!("{}: last client / {}", groups[at].name, groups[0].name);
        run.figures.push(figure("", &what, clients, ratio, "", "median of the rounds' ratios".to_owned()));
    }
    for group in groups.iter_mut() {
        let mut memory = 0;
        for server in &mut group.servers {
            memory += server.server().resident_bytes()?;
        }
        let mebibytes = kibibytes_each(memory.cast_signed(), 1024);
        let note = format!("{} processes in all", group.servers.len());
        let what = format!("{}: resident", group.name);
        run.figures.push(figure("", &what, clients, mebibytes, "MiB", note));
    }
    Ok(())
}

/// As many reports as go.
fn loads(
    run: &mut Run,
    postgres: &Postgres,
    groups: &mut [Group; 3],
    folder: &Path,
    load_ms: u64,
) -> Outcome<()> {
    let mut rates = Vec::new();
    for group in groups.iter_mut() {
        progress(&format!("reports to {}", group.name));
        // Nobody is pushed to meanwhile.
        group.crowds.clear();
        // Once without being looked at: every sensor is new to the store then.
        Load::of(group, folder)?.run(1_000)?;
        // Sessions of their own, as a server asks for what is missing in one.
        let mut load = Load::of(group, folder)?;
        let before = postgres.work()?;
        let cpu = group.cpu_ns()?;
        let (rate, taken) = load.run(load_ms)?;
        let own = group.cpu_ns()?.saturating_sub(cpu);
        // The last of them are stored a moment after their answer.
        std::thread::sleep(LATER);
        let after = postgres.work()?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let each = |count: u64| count as f64 / taken.max(1) as f64;
        let mut note = format!("{:.1} µs of server CPU for each", each(own) / 1e3);
        if group.name != "one-on-sqlite" {
            note.push_str(&format!(
                "; PostgreSQL: {:.1} µs and {:.0} bytes of log",
                each(after.cpu_ns.saturating_sub(before.cpu_ns)) / 1e3,
                each(after.wal_bytes.saturating_sub(before.wal_bytes)),
            ));
        }
        rates.push(rate);
        run.figures.push(figure("", &format!("{}: reports a second", group.name), 0, rate, "/s", note));
    }
    for at in 1..3 {
        let what = format!("{}: reports a second / {}", groups[at].name, groups[0].name);
        run.figures.push(figure("", &what, 0, rates[at] / rates[0], "", String::new()));
    }
    Ok(())
}

/// Clients that report to each server of a group.
struct Load(Vec<(Crowd, Unary)>);

impl Load {
    fn of(group: &Group, folder: &Path) -> Outcome<Load> {
        let callers = reports::callers(folder, Some(&group.servers[0].reporters()))?;
        let all = crate::client::read_lines(&callers)?;
        let count = group.servers.len();
        let mut load = Vec::new();
        for ((at, server), own) in group.servers.iter().enumerate().zip(all.chunks(all.len() / count)) {
            let callers = folder.join(format!("callers-of-{}-{at}", group.name));
            std::fs::write(&callers, own.join("\n")).doing("write the callers")?;
            let unary = Unary {
                address: server.address(),
                ca: None,
                connections: CONNECTIONS / count,
                in_flight: 1,
                rate: None,
                duration_ms: 0,
                path: reports::PATH.to_owned(),
                callers,
                first_sequence: 0,
                watch: None,
            };
            load.push((Crowd::start()?, unary));
        }
        Ok(Load(load))
    }

    /// Reports a second over all servers, and how many were taken.
    fn run(&mut self, duration_ms: u64) -> Outcome<(f64, u64)> {
        for (crowd, unary) in &mut self.0 {
            crowd.begin(&Command::Unary(Unary { duration_ms, ..unary.clone() }))?;
        }
        let (mut rate, mut taken) = (0.0, 0);
        for (crowd, _) in &mut self.0 {
            let calls = reports::calls_of(crowd.answer()?)?;
            rate += reports::rate(&calls);
            taken += reports::succeeded(&calls);
        }
        if taken == 0 {
            return Err(Failure::new("no report was taken"));
        }
        Ok((rate, taken))
    }
}
