//! The catalog as the store has it, and the changes of a fleet that nobody serves.

use std::sync::Arc;
use std::time::Duration;

use pulse_proto::Clock;
use pulse_proto::signature::{KeyError, SigningKey};

use super::Changes;
use crate::accounts::Accounts;
use crate::catalog::Catalog;
use crate::fleet::Fleet;
use crate::inventory::Inventory;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::registry::Registry;
use crate::store::{Loaded, Store, StoreError};

/// Stands in for the refresh interval where nobody is told of it.
const UNTOLD_INTERVAL: Duration = Duration::from_secs(60);

/// Why there is nothing to change.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key that signs lists cannot be used.
    #[error("the database's signing key cannot be used")]
    Key(#[from] KeyError),
}

/// Takes the catalog out of what was loaded.
pub(crate) fn catalog(loaded: &mut Loaded) -> Catalog {
    let mut inventory = Inventory::default();
    loaded.instances.drain(..).for_each(|instance| inventory.put(Arc::new(instance)));
    let mut registry = Registry::default();
    loaded.proxies.drain(..).for_each(|proxy| registry.put_proxy(Arc::new(proxy)));
    loaded.tokens.drain(..).for_each(|token| registry.put_token(token));
    loaded.join_tokens.drain(..).for_each(|token| registry.put_join_token(Arc::new(token)));
    loaded.join_windows.drain(..).for_each(|window| registry.put_join_window(Arc::new(window)));
    let audit_hash = std::mem::take(&mut loaded.audit_hash).into();
    let Loaded { server_id, epoch, revision, .. } = *loaded;
    let mut accounts = Accounts::default();
    loaded.admins.drain(..).for_each(|admin| accounts.put_admin(Arc::new(admin)));
    loaded.credentials.drain(..).for_each(|credential| accounts.put_credential(Arc::new(credential)));
    Catalog { server_id, epoch, revision, audit_hash, inventory, registry, accounts }
}

impl Changes {
    /// The changes of a fleet that nobody serves: for a restore.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn alone(store: &Store, clock: &Clock) -> Result<Changes, LoadError> {
        let mut loaded = store.load().await?;
        let catalog = catalog(&mut loaded);
        let key = SigningKey::from_pkcs8(&loaded.signing_key)?;
        let metrics = Arc::new(Metrics::new());
        // No signature covers the interval; a server tells its own.
        let publisher = Publisher::new(key, UNTOLD_INTERVAL, Arc::clone(&metrics), loaded.lists);
        let fleet = Fleet::new(UNTOLD_INTERVAL, loaded.statuses, clock.clone());
        fleet.load_ahead(loaded.ahead);
        Ok(Changes::new(store.clone(), catalog, publisher, fleet, metrics, usize::MAX, clock.clone()))
    }
}
