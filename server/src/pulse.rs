//! [`Pulse`]: everything that the running server is made of, joined once.
//!
//! In: what the store has, and where the server listens. Out: handles for those who answer proxies and admins.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use pulse_proto::signature::SigningKey;
use pulse_proto::{Chance, Clock, Pin, Token, TokenKind};

use crate::RunError;
use crate::accounts::uses::Uses;
use crate::backup::make::Backups;
use crate::changes::{Changes, LINK_LIFE, catalog};
use crate::config::Config;
use crate::feed::LiveFeed;
use crate::fleet::{Fleet, FleetView, SyncState};
use crate::inventory::Use;
use crate::limits::CallLimits;
use crate::limits::sign_ins::SignIns;
use crate::metrics::Metrics;
use crate::poller::{Poller, Polls};
use crate::public_address::{self, Host};
use crate::publish::{Lists, Publisher};
use crate::readings::Readings;
use crate::refusals::Refusals;
use crate::registry::Proxy;
use crate::replicas::{Looks, Replicas};
use crate::rpc::Rpc;
use crate::shutdown::Drain;
use crate::store::{Ahead, Store};
use crate::tls::Tls;

/// Everything that the server is made of, for those who answer admins.
#[derive(Debug)]
pub struct Pulse {
    /// Changes of the fleet, and its present picture.
    pub changes: Changes,
    /// The newest lists.
    pub lists: Lists,
    /// What proxies hold and say.
    pub fleet: Fleet,
    /// Temperatures.
    pub readings: Readings,
    /// What is told to those who follow the fleet.
    pub feed: LiveFeed,
    /// The other servers on the database.
    pub replicas: Replicas,
    /// What became of asking Proxmox VE.
    pub polls: Polls,
    /// Who asks it.
    pub poller: Poller,
    /// The database.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When the server started.
    pub started_at: SystemTime,
    /// Where it listens.
    pub listen_addrs: Vec<SocketAddr>,
    /// Where older proxies are served in plain text; `None`: nowhere.
    pub legacy_http: Option<SocketAddr>,
    /// Its certificate; `None` in plain text.
    pub tls: Option<Arc<Tls>>,
    /// The host and the port that join strings name.
    pub public_authority: (String, u16),
    /// How long a proxy may hear nothing before it is a third of the way to stale.
    pub refresh_interval: Duration,
    /// Begins when the server goes down.
    pub drain: Drain,
    /// The key that signs lists.
    pub signing_key: Arc<SigningKey>,
    /// How much callers may ask for.
    pub limits: Arc<CallLimits>,
    /// How often somebody may try to log in.
    pub sign_ins: SignIns,
    /// Where refused requests are told.
    pub refusals: Refusals,
    /// When API tokens were used last.
    pub uses: Uses,
    /// What lets the first admin in.
    first_link: FirstLink,
    /// Where backups are made.
    pub backups: Backups,
    /// The time of day.
    pub clock: Clock,
}

/// Where the server is found, and how it is known.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) listen_addrs: Vec<SocketAddr>,
    pub(crate) public_authority: (String, u16),
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Lets in the first admin, once; made anew with each start.
#[derive(Debug)]
struct FirstLink {
    token: Token,
    until: SystemTime,
}

impl Place {
    /// Of the configuration, the addresses that were bound, and the certificate.
    pub fn of(config: &Config, listen_addrs: Vec<SocketAddr>, tls: Option<Arc<Tls>>) -> Place {
        let public_authority =
            public_address::choose(config.public_address.as_ref(), &listen_addrs, &Host::of_system());
        Place { listen_addrs, public_authority, tls }
    }
}

impl Pulse {
    /// Loads what the store has, and joins it up.
    ///
    /// # Errors
    /// [`RunError::Store`], [`RunError::Key`].
    pub async fn load(
        config: &Config,
        store: Store,
        metrics: Arc<Metrics>,
        refusals: Refusals,
        place: Place,
        drain: Drain,
        clock: Clock,
    ) -> Result<Pulse, RunError> {
        let mut loaded = store.load().await?;
        let catalog = catalog(&mut loaded);
        let key = SigningKey::from_pkcs8(&loaded.signing_key)?;
        // Publisher and announcements of pins each have one.
        let signing_key = Arc::new(SigningKey::from_pkcs8(&loaded.signing_key)?);
        let publisher = Publisher::new(key, config.refresh_interval, Arc::clone(&metrics), loaded.lists);
        let fleet = Fleet::new(config.refresh_interval, loaded.statuses, clock.clone());
        fleet.load_ahead(loaded.ahead);
        fleet.tell_ahead(&catalog.registry, catalog.epoch);
        let readings = Readings::new(store.clone(), loaded.newest);
        let lists = publisher.lists();
        let max_nodes = usize::try_from(config.limits.max_nodes_per_list).unwrap_or(usize::MAX);
        let changes = Changes::new(
            store.clone(),
            catalog,
            publisher,
            fleet.clone(),
            Arc::clone(&metrics),
            max_nodes,
            clock.clone(),
        );
        let name = match place.listen_addrs.first() {
            Some(address) => format!("{}:{}", public_address::node_name(), address.port()),
            None => public_address::node_name(),
        };
        let polls = Polls::new(loaded.polls);
        let poller = Poller::new(
            store.clone(),
            changes.clone(),
            polls.clone(),
            Arc::clone(&metrics),
            clock.clone(),
            Chance::system(),
        );
        let looks = Looks { fleet: fleet.clone(), readings: readings.clone(), polls: polls.clone() };
        let replicas = Replicas::new(store.clone(), changes.clone(), looks, &name);
        Ok(Pulse {
            replicas,
            polls,
            poller,
            changes,
            lists,
            fleet,
            readings,
            feed: LiveFeed::new(Arc::clone(&metrics)),
            store,
            metrics,
            started_at: clock.now(),
            listen_addrs: place.listen_addrs,
            legacy_http: None,
            tls: place.tls,
            public_authority: place.public_authority,
            refresh_interval: config.refresh_interval,
            drain,
            signing_key,
            limits: Arc::new(CallLimits::of(config)),
            sign_ins: SignIns::new(config.limits.log_ins),
            refusals,
            uses: Uses::new(clock.clone()),
            first_link: FirstLink {
                token: Token::generate(TokenKind::SetUp)?,
                until: clock.now() + LINK_LIFE,
            },
            backups: Backups::new(&config.data_dir, clock.clone()),
            clock,
        })
    }

    /// The pin that join strings carry; `None` with an admin's certificate, or in plain text.
    pub fn pin(&self) -> Option<Pin> {
        self.tls.as_ref().and_then(|tls| tls.pin())
    }

    /// The file of Pulse's own CA; `None` with an admin's certificate, or in plain text.
    pub fn ca_path(&self) -> Option<&Path> {
        self.tls.as_ref().and_then(|tls| tls.ca_file())
    }

    /// The address of the page on which a link's bearer sets a password. What is behind the `#` stays in the browser.
    pub fn set_up_link(&self, secret: &Token, name: Option<&str>) -> String {
        let (host, port) = &self.public_authority;
        let is_local = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let scheme = if self.tls.is_none() && is_local { "http" } else { "https" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let query = name.map(|name| format!("?name={name}")).unwrap_or_default();
        format!("{scheme}://{host}:{port}/set-up{query}#{}", secret.reveal())
    }

    /// The link with which the first admin sets a password, while there is none.
    pub fn first_link(&self) -> Option<String> {
        let is_needed = self.changes.catalog().accounts.admins().next().is_none();
        is_needed.then(|| self.set_up_link(&self.first_link.token, None))
    }

    /// Whether a secret is that of the first link, and the link is good still.
    pub fn is_first_link(&self, secret: &Token) -> bool {
        let FirstLink { token, until } = &self.first_link;
        token.digest() == secret.digest()
            && self.clock.now() < *until
            && self.changes.catalog().accounts.admins().next().is_none()
    }

    /// Notes that somebody tried to get in, as an admin if it is the name of one, and brought nothing good; an error says that there were too many from there, and how
    /// long to wait.
    ///
    /// # Errors
    /// The time until the next failure would be answered as such.
    pub fn failed_sign_in(
        &self,
        reason: &'static str,
        from: Option<IpAddr>,
        admin: Option<&str>,
    ) -> Result<(), Duration> {
        self.refusals.note_sign_in(reason, from, admin);
        self.limits.failed(from)
    }

    /// A proxy as it is shown, beside the newest list of its scope.
    pub fn view(&self, proxy: &Proxy) -> FleetView {
        let newest = proxy.scope().and_then(|scope| self.lists.newest(scope));
        self.fleet.view(proxy, newest.as_deref(), self.changes.catalog().epoch)
    }

    /// The active proxies that hold lists which this database never made, the first noticed first. Not empty: it is older
    /// than the fleet.
    pub fn ahead(&self) -> Vec<Ahead> {
        let catalog = self.changes.catalog();
        self.fleet.ahead(&catalog.registry, catalog.epoch)
    }

    /// How many proxies are in each last-sync state. Every state has its place, so that a graph of one does not end
    /// when it is empty.
    pub fn proxies_by_state(&self) -> BTreeMap<&'static str, u64> {
        let mut counts: BTreeMap<_, u64> = SyncState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
        for proxy in self.changes.catalog().registry.proxies() {
            *counts.entry(self.view(proxy).state.as_str()).or_default() += 1;
        }
        counts
    }

    /// How many instances ask Proxmox VE, and cannot believe what it says.
    pub fn instances_with_problems(&self) -> usize {
        let catalog = self.changes.catalog();
        let asked = catalog.inventory.present().filter(|instance| instance.standing == Use::Active);
        let asked = asked.filter(|instance| instance.source.is_some());
        asked
            .filter(|instance| self.polls.of(instance.id).is_some_and(|poll| !poll.problem.is_empty()))
            .count()
    }

    /// How many changes would take away too much, and wait for an admin.
    pub fn held_changes(&self) -> usize {
        let catalog = self.changes.catalog();
        let held = catalog.inventory.present().flat_map(|instance| instance.held.values());
        held.filter(|held| !held.is_discarded).count()
    }

    /// The service for proxies.
    pub fn rpc(&self, config: &Config, chance: Chance) -> Rpc {
        Rpc {
            changes: self.changes.clone(),
            lists: self.lists.clone(),
            fleet: self.fleet.clone(),
            readings: self.readings.clone(),
            store: self.store.clone(),
            refusals: self.refusals.clone(),
            replicas: self.replicas.clone(),
            metrics: Arc::clone(&self.metrics),
            drain: self.drain.clone(),
            signing_key: Arc::clone(&self.signing_key),
            tls: self.tls.clone(),
            refresh_interval: config.refresh_interval,
            max_readings_per_report: usize::try_from(config.limits.max_readings_per_report)
                .unwrap_or(usize::MAX),
            goodbyes: Arc::new(AtomicU64::new(0)),
            limits: Arc::clone(&self.limits),
            uses: self.uses.clone(),
            clock: self.clock.clone(),
            chance,
            introduction: Arc::default(),
            no_pins: Arc::default(),
        }
    }
}
