//! When credentials were used last: noted in memory, written in groups.
//!
//! In: each use. Out: the newest of each credential, at most five seconds later in the store.
//! Never: holds up a request, or grows beyond the credentials that exist.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pulse_proto::Clock;

use crate::store::{CredentialUse, Store};

/// How late a use is in the store at the most.
const PERIOD: Duration = Duration::from_secs(5);

/// The uses that are not written yet. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Uses {
    unsaved: Arc<Mutex<HashMap<String, CredentialUse>>>,
    clock: Clock,
}

impl Uses {
    /// None yet.
    pub fn new(clock: Clock) -> Uses {
        Uses { unsaved: Arc::default(), clock }
    }

    /// Notes that a credential is used now.
    pub fn note(&self, credential: &str, from: Option<IpAddr>) {
        let used = CredentialUse { credential: credential.to_owned(), at: self.clock.now(), from };
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        unsaved.insert(credential.to_owned(), used);
    }

    /// Writes what is new every few seconds, until `stop`; then once more.
    pub async fn save(self, store: Store, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let is_over = tokio::select! {
                () = &mut stop => true,
                () = tokio::time::sleep(PERIOD) => false,
            };
            self.save_now(&store).await;
            if is_over {
                return;
            }
        }
    }

    /// Writes what is new now. What cannot be written is kept, unless a newer use took its place.
    pub async fn save_now(&self, store: &Store) {
        let uses = std::mem::take(&mut *self.unsaved.lock().unwrap_or_else(PoisonError::into_inner));
        if uses.is_empty() {
            return;
        }
        if let Err(error) = store.save_uses(uses.values().cloned().collect()).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "uses of API tokens are not written yet"
            );
            let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
            uses.into_iter().for_each(|(id, used)| {
                unsaved.entry(id).or_insert(used);
            });
        }
    }
}
