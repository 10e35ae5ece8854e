//! [`Pulse`]: everything that the running server is made of, joined once.
//!
//! In: what the store has, and where the server listens. Out: handles for those who answer proxies and admins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use pulse_proto::Pin;
use pulse_proto::signature::{PublicKey, SigningKey};

use crate::RunError;
use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::config::Config;
use crate::fleet::{Fleet, FleetView, SyncState};
use crate::inventory::Inventory;
use crate::metrics::Metrics;
use crate::public_address::{self, Host};
use crate::publish::{Lists, Publisher};
use crate::readings::Readings;
use crate::refusals::Refusals;
use crate::registry::{Proxy, Registry};
use crate::rpc::Rpc;
use crate::shutdown::Drain;
use crate::store::Store;
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
    /// The database.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When the server started.
    pub started_at: SystemTime,
    /// Where it listens.
    pub listen_addrs: Vec<SocketAddr>,
    /// The pin of its own CA; `None` with an admin's certificate, or without TLS.
    pub pin: Option<Pin>,
    /// The file of its own CA.
    pub ca_path: Option<PathBuf>,
    /// The host and the port that join strings name.
    pub public_authority: (String, u16),
    /// Begins when the server goes down.
    pub drain: Drain,
    /// The key that signs lists.
    pub signing_key: PublicKey,
}

/// Where the server is found, and how it is known.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) listen_addrs: Vec<SocketAddr>,
    pub(crate) public_authority: (String, u16),
    pub(crate) pin: Option<Pin>,
    pub(crate) ca_path: Option<PathBuf>,
}

impl Place {
    pub(crate) fn of(config: &Config, listen_addrs: Vec<SocketAddr>, tls: Option<&Tls>) -> Place {
        let public_authority =
            public_address::choose(config.public_address.as_ref(), &listen_addrs, &Host::of_system());
        let pin = tls.and_then(Tls::pin);
        let ca_path = tls.and_then(Tls::ca_file).map(PathBuf::from);
        Place { listen_addrs, public_authority, pin, ca_path }
    }
}

impl Pulse {
    /// Loads what the store has, and joins it up.
    ///
    /// # Errors
    /// [`RunError::Store`], [`RunError::Key`].
    pub(crate) async fn load(
        config: &Config,
        store: Store,
        metrics: Arc<Metrics>,
        place: Place,
        drain: Drain,
    ) -> Result<Pulse, RunError> {
        let loaded = store.load().await?;
        let mut inventory = Inventory::default();
        loaded.instances.into_iter().for_each(|instance| inventory.put(Arc::new(instance)));
        let mut registry = Registry::default();
        loaded.proxies.into_iter().for_each(|proxy| registry.put_proxy(Arc::new(proxy)));
        loaded.tokens.into_iter().for_each(|token| registry.put_token(token));
        loaded.join_tokens.into_iter().for_each(|token| registry.put_join_token(Arc::new(token)));
        let catalog = Catalog {
            server_id: loaded.server_id,
            epoch: loaded.epoch,
            revision: loaded.revision,
            inventory,
            registry,
        };
        let key = SigningKey::from_pkcs8(&loaded.signing_key)?;
        let signing_key = key.public();
        let publisher = Publisher::new(key, config.refresh_interval, Arc::clone(&metrics), loaded.lists);
        let fleet = Fleet::new(config.refresh_interval, loaded.statuses);
        let readings = Readings::new(store.clone(), loaded.newest);
        let lists = publisher.lists();
        let max_nodes = usize::try_from(config.limits.max_nodes_per_list).unwrap_or(usize::MAX);
        let changes =
            Changes::new(store.clone(), catalog, publisher, fleet.clone(), Arc::clone(&metrics), max_nodes);
        Ok(Pulse {
            changes,
            lists,
            fleet,
            readings,
            store,
            metrics,
            started_at: SystemTime::now(),
            listen_addrs: place.listen_addrs,
            pin: place.pin,
            ca_path: place.ca_path,
            public_authority: place.public_authority,
            drain,
            signing_key,
        })
    }

    /// A proxy as it is shown, beside the newest list of its scope.
    pub fn view(&self, proxy: &Proxy) -> FleetView {
        let newest = proxy.scope().and_then(|scope| self.lists.newest(scope));
        self.fleet.view(proxy, newest.as_deref())
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

    /// The service for proxies.
    pub(crate) fn rpc(&self, config: &Config, refusals: Refusals) -> Rpc {
        Rpc {
            changes: self.changes.clone(),
            lists: self.lists.clone(),
            fleet: self.fleet.clone(),
            readings: self.readings.clone(),
            store: self.store.clone(),
            refusals,
            metrics: Arc::clone(&self.metrics),
            drain: self.drain.clone(),
            signing_key: self.signing_key,
            refresh_interval: config.refresh_interval,
            max_readings_per_report: usize::try_from(config.limits.max_readings_per_report)
                .unwrap_or(usize::MAX),
            goodbyes: Arc::new(AtomicU64::new(0)),
        }
    }
}
