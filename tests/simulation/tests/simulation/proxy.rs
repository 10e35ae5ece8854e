//! A proxy's host: the real loop, collector and reporter, with a state folder and a sysfs of its own.
//!
//! Out: entries of the journal: each list that is in force. Always: the folders outlive the program.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pulse_proto::hash::sha256;
use pulse_proto::{Chance, JoinString, Pin, Token, hex};
use pulse_sensor_proxy::config::{Config, ConfigSources};
use pulse_sensor_proxy::gate::{Gate, InForce as Held};
use pulse_sensor_proxy::identity::{Folder, Home, Hostname, Identity, Pending, ProxyKind};
use pulse_sensor_proxy::seams::{Connection, Network, Seams, Workers};
use pulse_sensor_proxy::shutdown::drain;
use pulse_sensor_proxy::{join_control_plane, static_nodes};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use turmoil::net::TcpStream;

use crate::clock::{SimTime, WallClock};
use crate::journal::{Event, InForce, Journal, List};
use crate::server;

/// How long a proxy takes to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// A proxy's host, which outlives each start of the program.
pub(crate) struct ProxyHost {
    /// Its name in the simulated network.
    pub(crate) name: String,
    /// The node that it is.
    pub(crate) node: String,
    pub(crate) clock: WallClock,
    folder: PathBuf,
    time: SimTime,
    chance: Chance,
    journal: Journal,
    /// Whether the program runs when the host is up.
    is_enabled: AtomicBool,
    running: Mutex<Option<Running>>,
}

/// What to do with the copy of a state folder.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    Aside,
    PutBack,
}

struct Running {
    gate: Gate,
    stop_tx: Option<oneshot::Sender<()>>,
}

impl ProxyHost {
    /// A host whose sensors say `celsius`.
    pub(crate) fn new(
        folder: &Path,
        name: &str,
        node: &str,
        celsius: u64,
        time: SimTime,
        chance: Chance,
        journal: Journal,
    ) -> Arc<ProxyHost> {
        let folder = folder.join(name);
        let chip = folder.join("sys/class/hwmon/hwmon0");
        std::fs::create_dir_all(&chip).expect("folders can be made");
        std::fs::create_dir_all(folder.join("state")).expect("folders can be made");
        for (file, text) in [("name", "coretemp".to_owned()), ("temp1_input", format!("{celsius}000"))] {
            std::fs::write(chip.join(file), text).expect("a file can be written");
        }
        let path = folder.display();
        let config = format!(
            "report_interval: 4s\nthis_node: {node}\nsensors:\n  sysfs_root: {path}/sys\n\
             pulse_control_plane:\n  url: https://{}\n  token_file: {path}/token\n",
            server::NAME
        );
        std::fs::write(folder.join("config.yaml"), config).expect("a file can be written");
        let clock = WallClock::new(time.clone());
        Arc::new(ProxyHost {
            name: name.to_owned(),
            node: node.to_owned(),
            clock,
            folder,
            time,
            chance,
            journal,
            is_enabled: AtomicBool::new(false),
            running: Mutex::new(None),
        })
    }

    /// Whether the program runs from the next start of the host on.
    pub(crate) fn enable(&self, is_enabled: bool) {
        self.is_enabled.store(is_enabled, Ordering::Relaxed);
    }

    /// Whether it is to run.
    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Relaxed)
    }

    /// What a person does with a join token: the registration waits in the state folder until the program makes it.
    pub(crate) fn register(&self, join: Token) {
        let join = JoinString {
            host: server::NAME.to_owned(),
            port: pulse_proto::DEFAULT_PORT,
            // There is no TLS here, and a pin keeps the system's roots out of it.
            pin: Some(Pin::of_spki(b"simulated")),
            join: Some(join),
        };
        let pending = Pending {
            join,
            hostname: Hostname { name: self.node.clone(), is_given: true },
            kind: ProxyKind::Socket,
            proxy_url: String::new(),
            // As of two machines with different ids, whatever they are called.
            machine_id: hex::encode(&sha256(self.name.as_bytes())),
        };
        self.home().keep_pending(&pending).expect("the state folder can be written");
    }

    /// Who it is to the server, and the token that it uses.
    pub(crate) fn identity(&self) -> Option<(Folder, Identity)> {
        self.home().find(&self.config().control_plane?.url).ok().flatten()
    }

    /// Takes the place of another one: its folders are copied, as when a machine is cloned.
    pub(crate) fn clone_state_of(&self, other: &ProxyHost) {
        for part in ["state", "sys"] {
            let own = self.folder.join(part);
            std::fs::remove_dir_all(&own).expect("the folder can be removed");
            copy(&other.folder.join(part), &own);
        }
    }

    /// Keeps a copy of the state folder, or puts it back.
    pub(crate) fn copy_state(&self, keep: Keep) {
        let (state, aside) = (self.folder.join("state"), self.folder.join("aside"));
        match keep {
            Keep::Aside => copy(&state, &aside),
            Keep::PutBack => {
                std::fs::remove_dir_all(&state).expect("the folder can be removed");
                copy(&aside, &state);
            }
        }
    }

    /// The list in force, while it runs.
    pub(crate) fn in_force(&self) -> Option<Arc<Held>> {
        self.running().as_ref().map(|running| running.gate.in_force())
    }

    /// Asks it to stop, as SIGTERM does.
    pub(crate) fn stop(&self) {
        if let Some(stop_tx) = self.running().as_mut().and_then(|running| running.stop_tx.take()) {
            let _ = stop_tx.send(());
        }
    }

    /// Forgets the program that ran, after it was killed.
    pub(crate) fn killed(&self) {
        *self.running() = None;
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self) -> Home {
        Home::new(&self.folder.join("state"))
    }

    fn config(&self) -> Config {
        let (path, state_dir) = (Some(self.folder.join("config.yaml")), Some(self.folder.join("state")));
        let sources = ConfigSources { path, state_dir, ..ConfigSources::default() };
        let (config, _) = Config::load(&sources).expect("the configuration is good");
        config
    }

    /// The program: from the state folder to the last report.
    pub(crate) async fn run(self: Arc<ProxyHost>) -> turmoil::Result {
        if !self.is_enabled() {
            return Ok(());
        }
        let config = self.config();
        let seams = Seams {
            clock: self.clock.handle(),
            chance: self.chance.clone(),
            network: Network::Driven(Arc::new(|url| {
                let place = (url.host().to_owned(), url.port());
                Box::pin(async move { Ok(Box::new(TcpStream::connect(place).await?) as Box<dyn Connection>) })
            })),
            workers: Workers::Inline,
        };
        let (trigger, drained) = drain();
        let mut parts = JoinSet::new();
        let control = config.control_plane.clone().expect("the configuration names the server");
        let fixed = static_nodes(&config.static_list);
        let joined = join_control_plane(&config, control, fixed, &drained, &mut parts, &seams)?;
        let (stop_tx, stop_rx) = oneshot::channel();
        *self.running() = Some(Running { gate: joined.gate.clone(), stop_tx: Some(stop_tx) });
        self.time_journal(Event::Started(self.name.clone()));
        let mut watching = JoinSet::new();
        watching.spawn(Arc::clone(&self).watch(joined.gate.clone()));
        // The other end is held until the program ends.
        let _ = stop_rx.await;
        trigger.begin();
        let all_ended = async { while parts.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, all_ended).await;
        *self.running() = None;
        self.time_journal(Event::Ended(self.name.clone()));
        Ok(())
    }

    /// Writes down each list that is in force.
    async fn watch(self: Arc<ProxyHost>, gate: Gate) {
        let mut changed_rx = gate.changed_rx();
        loop {
            self.write_down(&gate.in_force());
            if changed_rx.changed().await.is_err() {
                return;
            }
        }
    }

    fn write_down(&self, held: &Held) {
        let identity = self.identity().and_then(|(_, identity)| identity.proxy_id);
        let list = held.list().map(|list| List {
            scope: self.journal.scope(&list.scope.to_string()),
            epoch: list.position.epoch,
            revision: list.position.revision,
            hash: list.allowlist.hash().to_string(),
        });
        self.time_journal(Event::InForce(InForce {
            host: self.name.clone(),
            identity: identity.map(|id| self.journal.number(&id.to_string())),
            source: held.source().as_str(),
            list,
            closed: held.closed(),
        }));
    }

    fn time_journal(&self, event: Event) {
        self.journal.note(self.time.elapsed(), event);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folders can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => {
                std::fs::copy(&from, &to).expect("a file can be copied");
            }
        }
    }
}
