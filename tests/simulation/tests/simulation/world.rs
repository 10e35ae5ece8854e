//! One run: the hosts, the network between them, what goes wrong with them, and whether all is well at the end.

mod database;
mod together;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pulse::registry::ScopeKind;
use pulse_proto::Token;
use tempfile::TempDir;
use turmoil::{Builder, Sim};

use crate::admin::{self, Slot};
use crate::chance::Dice;
use crate::check::{self, Revocation};
use crate::clock::SimTime;
use crate::journal::{Entry, Event, Journal};
use crate::proxy::{Keep, ProxyHost};
use crate::server::{self, ServerHost, Work};

/// What one step of the simulation advances the time by.
const TICK: Duration = Duration::from_millis(20);
/// How long things go wrong.
const FAULTS: Duration = Duration::from_secs(100);

/// The instances.
pub(crate) const EAST: &str = "east";
pub(crate) const WEST: &str = "west";

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) journal: Vec<Entry>,
    /// What did not hold.
    pub(crate) wrong: Vec<String>,
}

/// Something that is to be done at its time.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    StartServer { restores: bool, begins_epoch: bool },
    StartProxy(usize),
    StopClone,
    Mend(usize),
    BeginEpoch,
}

/// What is wrong with the way between the server and a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Fine,
    /// Nothing comes through.
    Cut,
    /// Nothing comes from the server.
    CutFromServer,
    /// Nothing comes from the proxy.
    CutFromProxy,
    /// What is sent waits.
    Held,
    /// It takes long.
    Slow,
}

/// An old copy of the database.
struct Copy {
    /// How much of the journal it knows.
    entries: usize,
    /// Of which of it the database that was copied knew.
    kept: Vec<Range<usize>>,
    at: Duration,
}

pub(crate) struct World {
    sim: Sim<'static>,
    pub(crate) dice: Dice,
    pub(crate) time: SimTime,
    pub(crate) journal: Journal,
    pub(crate) server: Arc<ServerHost>,
    /// The last one is the clone of another.
    pub(crate) proxies: Vec<Arc<ProxyHost>>,
    pub(crate) ways: Vec<Way>,
    pub(crate) revocations: Slot<Revocation>,
    revoked: Vec<Revocation>,
    agenda: Vec<(Duration, Action)>,
    copy: Option<Copy>,
    /// The part of the journal that the present database knows, but for the part from the last entry on.
    kept: Vec<Range<usize>>,
    known_from: usize,
    wrong: Vec<String>,
    joins: Vec<(usize, Slot<Token>)>,
    folder: TempDir,
}

/// Runs the seed.
pub(crate) fn run(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    world.begin();
    world.go_wrong();
    world.mend_all();
    world.come_together();
    world.end()
}

/// Runs a world in which nothing goes wrong but one thing that must not be: a host's state folder is put back as it was before
/// its newest list.
pub(crate) fn run_with_a_state_folder_put_back(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    world.begin();
    world.proxies[0].copy_state(Keep::Aside);
    let names = vec![node_of(0), "x1".to_owned()];
    world.command("nodes of east".to_owned(), admin::set_nodes(EAST, names));
    world.pass(Duration::from_secs(2));
    world.kill_proxy(0);
    world.set_way(0, Way::Cut);
    world.proxies[0].copy_state(Keep::PutBack);
    world.later(Duration::ZERO, Action::StartProxy(0));
    world.pass(Duration::from_secs(2));
    world.end()
}

impl World {
    fn new(seed: u64) -> World {
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { TempDir::new_in(shm) } else { TempDir::new() };
        let folder = folder.expect("a temporary folder can be made");
        let (dice, time, journal) = (Dice::of(seed), SimTime::default(), Journal::default());
        let server = ServerHost::new(folder.path(), time.clone(), dice.fork(), journal.clone());
        let count = 2 + dice.index(3);
        let host = |at: usize, name: &str, node: &str| {
            let celsius = celsius_of(at);
            ProxyHost::new(folder.path(), name, node, celsius, time.clone(), dice.fork(), journal.clone())
        };
        let mut proxies: Vec<_> = (0..count).map(|at| host(at, &format!("host{at}"), &node_of(at))).collect();
        // What it is called and what its sensors say it has from the one that it is a clone of.
        proxies.push(host(0, "clone", "stranger"));

        let mut builder = Builder::new();
        let mut sim = builder
            .tick_duration(TICK)
            .simulation_duration(Duration::from_hours(24))
            .tcp_capacity(4_096)
            .rng_seed(seed)
            .build();
        let program = Arc::clone(&server);
        sim.host(server::NAME, move || Arc::clone(&program).run());
        for proxy in &proxies {
            let program = Arc::clone(proxy);
            sim.host(proxy.name.as_str(), move || Arc::clone(&program).run());
        }
        let ways = vec![Way::Fine; proxies.len()];
        let mut world = World {
            sim,
            dice,
            time,
            journal,
            server,
            proxies,
            ways,
            revocations: Slot::default(),
            revoked: Vec::new(),
            agenda: Vec::new(),
            copy: None,
            kept: Vec::new(),
            known_from: 0,
            wrong: Vec::new(),
            joins: Vec::new(),
            folder,
        };
        // The same delay for all of a link's messages: what is sent at one moment keeps its order.
        for at in 0..world.proxies.len() {
            world.set_latency(at, Duration::from_millis(1), Duration::from_millis(50));
        }
        world
    }

    pub(crate) fn now(&self) -> Duration {
        self.time.elapsed()
    }

    pub(crate) fn fault(&self, text: String) {
        self.journal.note(self.now(), Event::Fault(text));
    }

    /// Steps on for some time, doing what is due.
    fn pass(&mut self, duration: Duration) {
        let until = self.now() + duration;
        while self.now() < until {
            if let Err(error) = self.sim.step() {
                self.wrong.push(format!("{:?}: a program failed: {error}", self.now()));
            }
            self.time.set(self.sim.elapsed());
            while let Some(at) = self.agenda.iter().position(|(at, _)| *at <= self.now()) {
                let (_, action) = self.agenda.remove(at);
                self.act(action);
            }
            self.hand_out_joins();
        }
    }

    /// Does something later.
    pub(crate) fn later(&mut self, wait: Duration, action: Action) {
        self.agenda.push((self.now() + wait, action));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::StartServer { restores, begins_epoch } => {
                if restores {
                    self.restore();
                }
                self.sim.bounce(server::NAME);
                if begins_epoch {
                    let wait = self.dice.between(Duration::from_secs(1), Duration::from_secs(10));
                    self.later(wait, Action::BeginEpoch);
                }
            }
            Action::StartProxy(at) => self.sim.bounce(self.proxies[at].name.as_str()),
            Action::StopClone => {
                let clone = self.proxies.len() - 1;
                self.proxies[clone].enable(false);
                self.kill_proxy(clone);
            }
            Action::Mend(at) => self.set_way(at, Way::Fine),
            Action::BeginEpoch => self.server.command("epoch new".to_owned(), admin::begin_epoch()),
        }
    }

    // What goes wrong.

    /// Sets the way between the server and a proxy.
    pub(crate) fn set_way(&mut self, at: usize, way: Way) {
        let name = self.proxies[at].name.clone();
        if self.ways[at] == Way::Held {
            self.sim.release(server::NAME, name.as_str());
        }
        self.sim.repair(server::NAME, name.as_str());
        match way {
            Way::Fine => self.set_latency(at, Duration::from_millis(1), Duration::from_millis(50)),
            Way::Cut => self.sim.partition(server::NAME, name.as_str()),
            Way::CutFromServer => self.sim.partition_oneway(server::NAME, name.as_str()),
            Way::CutFromProxy => self.sim.partition_oneway(name.as_str(), server::NAME),
            Way::Held => self.sim.hold(server::NAME, name.as_str()),
            Way::Slow => self.set_latency(at, Duration::from_millis(500), Duration::from_secs(6)),
        }
        self.ways[at] = way;
        self.fault(format!("the way to {name} is {way:?}"));
    }

    fn set_latency(&mut self, at: usize, least: Duration, most: Duration) {
        let latency = self.dice.between(least, most);
        self.sim.set_link_latency(server::NAME, self.proxies[at].name.as_str(), latency);
    }

    /// Ends a proxy's program, by force.
    pub(crate) fn kill_proxy(&mut self, at: usize) {
        let name = self.proxies[at].name.clone();
        self.fault(format!("{name} is killed"));
        self.proxies[at].killed();
        self.sim.crash(name.as_str());
    }

    /// Ends the server's program, by force.
    pub(crate) fn kill_server(&mut self) {
        self.fault("the server is killed".to_owned());
        self.server.killed();
        self.sim.crash(server::NAME);
    }

    /// Whether the program of a host runs.
    pub(crate) fn runs(&mut self, name: &str) -> bool {
        self.sim.is_host_running(name)
    }

    /// Copies the database as it is now.
    pub(crate) fn copy_database(&mut self) {
        let path = self.folder.path().join("copy.db");
        let _ = std::fs::remove_file(&path);
        let copied = self
            .database()
            .and_then(|database| database.execute("VACUUM INTO ?1", [path.display().to_string()]));
        if copied.is_ok() {
            let entries = self.journal.entries().len();
            self.copy = Some(Copy { entries, kept: self.kept_so_far(entries), at: self.now() });
            self.fault("the database is copied".to_owned());
        }
    }

    pub(crate) fn has_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Puts the copy in the database's place, while the server is down.
    fn restore(&mut self) {
        let Some(copy) = self.copy.take() else { return };
        self.write_down_lists();
        let path = self.server.data_dir.join("pulse.db");
        for behind in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(path.with_file_name(format!("pulse.db{behind}")));
        }
        std::fs::copy(self.folder.path().join("copy.db"), path).expect("the copy can be copied");
        self.take_revocations();
        let now = self.now();
        for revocation in self.revoked.iter_mut().filter(|r| r.at > copy.at && r.until.is_none()) {
            revocation.until = Some(now);
        }
        self.kept = copy.kept;
        self.known_from = self.journal.entries().len();
        self.fault(format!("the database is the copy of {:?} (of which {} entries)", copy.at, copy.entries));
    }

    /// The parts of the journal that the present database knows, up to `end`.
    fn kept_so_far(&self, end: usize) -> Vec<Range<usize>> {
        let mut kept = self.kept.clone();
        kept.push(self.known_from..end);
        kept
    }

    fn take_revocations(&mut self) {
        let new = self.revocations.take();
        self.revoked.extend(new);
    }

    /// Has an admin do something.
    pub(crate) fn command(&self, name: String, work: Work) {
        self.server.command(name, work);
    }

    // The course of a run.

    fn begin(&mut self) {
        self.pass(Duration::from_secs(1));
        let count = self.proxies.len() - 1;
        let east = (0..count).map(node_of).collect();
        self.command("instance east".to_owned(), admin::add_instance(EAST, east));
        self.command("instance west".to_owned(), admin::add_instance(WEST, vec!["w1".to_owned()]));
        self.pass(Duration::from_secs(1));
        for at in 0..count {
            self.proxies[at].enable(true);
            let wait = self.dice.between(Duration::ZERO, Duration::from_secs(4));
            self.later(wait, Action::StartProxy(at));
            let scope_kind = if self.dice.percent(25) { ScopeKind::All } else { ScopeKind::Instance };
            self.register(at, scope_kind);
        }
        self.pass(Duration::from_secs(6));
    }

    fn go_wrong(&mut self) {
        let until = self.now() + FAULTS;
        while self.now() < until {
            self.something_happens();
            let wait = self.dice.between(Duration::from_millis(200), Duration::from_millis(1_800));
            self.pass(wait);
        }
    }

    /// From here on nothing goes wrong any more; clocks stay wrong, but for the server's.
    fn mend_all(&mut self) {
        self.agenda.clear();
        self.server.clock.set_ahead_ms(0);
        self.fault("nothing goes wrong from here on".to_owned());
        let clone = self.proxies.len() - 1;
        if self.proxies[clone].is_enabled() {
            self.proxies[clone].enable(false);
            self.kill_proxy(clone);
        }
        for at in 0..self.proxies.len() {
            if self.ways[at] != Way::Fine {
                self.set_way(at, Way::Fine);
            }
        }
        if !self.runs(server::NAME) || self.server.pulse().is_none() {
            self.kill_server();
            self.sim.bounce(server::NAME);
        }
        for at in 0..clone {
            let name = self.proxies[at].name.clone();
            if !self.runs(&name) {
                self.sim.bounce(name.as_str());
            }
        }
    }

    fn end(mut self) -> Outcome {
        self.write_down_lists();
        self.take_revocations();
        let journal = self.journal.entries();
        let rows = self.rows();
        let kept = self.kept_so_far(journal.len());
        self.wrong.extend(check::going_back(&journal));
        self.wrong.extend(check::unpublished(&journal));
        self.wrong.extend(check::offline_for_an_outage(&journal, self.server.refresh_interval() * 3));
        self.wrong.extend(check::served_though_revoked(&journal, &self.revoked));
        self.wrong.extend(check::lost_or_doubled(&journal, &rows, &kept));
        self.wrong.extend(self.misplaced());
        Outcome { journal, wrong: self.wrong }
    }
}

/// The node of a host.
pub(crate) fn node_of(at: usize) -> String {
    format!("n{at}")
}

/// What the sensors of a host say.
fn celsius_of(at: usize) -> u64 {
    40 + at as u64
}
