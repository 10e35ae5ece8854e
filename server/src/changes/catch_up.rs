//! What other servers changed in the same database, taken over: rows, lists and bells, as if it had been changed here.
//!
//! In: a ring of the database's bell, or the time; a proxy that holds more than this server knows. Out: the picture and the
//! lists of the newest revision.
//! Always: revisions only rise; a list that is taken over has the hash of what this server compiles itself, and a signature of
//! the fleet's key. Never: goes on from a database with another history, as one that lost its last commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pulse_proto::signature::Statement;
use pulse_proto::{Scope, SignedAllowlist};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{sleep, timeout};

use super::{ChangeError, Changed, Changes};
use crate::allowlist;
use crate::audit::Entry;
use crate::catalog::Catalog;
use crate::publish::Publisher;
use crate::shutdown::Drain;
use crate::store::{Newer, Stand, StoreError};

/// How often the database is asked though nothing rang: rings can be lost.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The longest that somebody who wants to change something waits for the database to say what others changed.
const LONGEST_ASK: Duration = Duration::from_secs(5);

/// How often it is asked, after each pause, what became of a change whose end was not heard.
const QUESTIONS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);

impl Changes {
    /// Whether other servers change the fleet too.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// Takes over what other servers changed, until the server goes down. Out: why it cannot go on, if it cannot.
    pub async fn keep_up(self, drain: Drain) -> Result<(), StoreError> {
        let mut is_failing = false;
        loop {
            let heard = match self.catch_up().await {
                Ok(()) => self.hear_of_ahead().await,
                Err(error) => Err(error),
            };
            match heard {
                Ok(()) if is_failing => {
                    is_failing = false;
                    self.is_deaf.store(false, Ordering::Relaxed);
                    tracing::info!("what other servers change is heard of again");
                }
                Ok(()) => {}
                // With a key that is not the database's any more nothing may be sealed.
                Err(error @ (StoreError::OtherHistory { .. } | StoreError::Sealed(_))) => return Err(error),
                Err(StoreError::Closed) => return Ok(()),
                Err(error) => {
                    self.is_deaf.store(true, Ordering::Relaxed);
                    if !std::mem::replace(&mut is_failing, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(
                            error,
                            "what other servers change is not heard of; what is in force stays in force"
                        );
                    }
                }
            }
            tokio::select! {
                () = drain.started() => return Ok(()),
                () = self.store.rung() => {}
                () = sleep(ASK_INTERVAL) => {}
            }
        }
    }

    /// Whether what other servers change cannot be taken over at the moment.
    pub fn is_deaf(&self) -> bool {
        self.is_deaf.load(Ordering::Relaxed)
    }

    /// Takes over which proxies other servers noticed to be ahead.
    async fn hear_of_ahead(&self) -> Result<(), StoreError> {
        let new = self.fleet.hear_of_ahead(self.store.ahead().await?);
        if !new.is_empty() {
            let catalog = self.catalog();
            self.fleet.tell_ahead(&catalog.registry, catalog.epoch);
            new.into_iter().for_each(|proxy| self.fleet.ring(proxy));
        }
        Ok(())
    }

    /// Takes over what other servers changed up to now.
    ///
    /// # Errors
    /// [`StoreError::OtherHistory`] if the database is older than what this server has served; others if it cannot be read.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let publisher = Arc::clone(&self.publisher).lock_owned().await;
        self.take_over(publisher).await.map(drop)
    }

    /// Whether a change was made whose end was not heard, as the connection was lost: its audit row says so.
    pub(super) async fn find_out(
        &self,
        mut publisher: OwnedMutexGuard<Publisher>,
        revision: u64,
        entry: &Entry,
    ) -> Result<(OwnedMutexGuard<Publisher>, bool), ChangeError> {
        for _ in 0..QUESTIONS {
            // The database may still be at it, as it does not know that nobody listens.
            if self.store.wait_for_change().await.is_err() {
                sleep(PAUSE).await;
                continue;
            }
            match self.take_over(publisher).await {
                Ok(back) => {
                    publisher = back;
                    if let Ok(row) = self.store.audit_of(revision).await {
                        let is_it = row.is_some_and(|row| {
                            (row.at_ms, &*row.actor, &*row.action, &*row.target)
                                == (entry.at_ms, &*entry.actor, entry.action, &*entry.target)
                        });
                        tracing::warn!(
                            revision,
                            is_made = is_it,
                            "the end of a change was not heard, as the connection to the database was lost; its audit row tells"
                        );
                        return Ok((publisher, is_it));
                    }
                }
                Err(error @ StoreError::OtherHistory { .. }) => return Err(error.into()),
                Err(_) => publisher = Arc::clone(&self.publisher).lock_owned().await,
            }
            sleep(PAUSE).await;
        }
        Err(ChangeError::Undecided)
    }

    pub(super) async fn take_over(
        &self,
        publisher: OwnedMutexGuard<Publisher>,
    ) -> Result<OwnedMutexGuard<Publisher>, StoreError> {
        let before = self.catalog.load_full();
        let Catalog { server_id, revision, .. } = *before;
        let held = Stand { server_id, revision, audit_hash: before.audit_hash.as_ref().to_owned() };
        let asking = timeout(LONGEST_ASK, self.store.newer(held)).await;
        let newer = asking.map_err(|_| StoreError::Database {
            doing: "read what others changed".to_owned(),
            source: format!("the database does not answer within {} s", LONGEST_ASK.as_secs()).into(),
        })?;
        let Some(newer) = newer? else { return Ok(publisher) };
        let changed = Changed::by_others(&newer, before.epoch);
        let (catalog, lists, concerned) = merged(&before, newer);
        for list in &lists {
            check(&catalog, list, &publisher)?;
        }
        let lists = lists.into_iter().map(|list| publisher.encode_stored(list)).collect();
        let this = self.clone();
        // To the end, also when the caller is gone.
        let placing =
            tokio::spawn(
                async move { this.put_in_place(publisher, lists, catalog, concerned, changed).await },
            );
        placing.await.map_err(|_| {
            self.broken.notify_one();
            StoreError::Closed
        })
    }
}

/// The picture with what is newer in it, the newest list of each scope that has a new one, and whose streams shall look.
fn merged(before: &Catalog, newer: Newer) -> (Catalog, Vec<SignedAllowlist>, BTreeSet<uuid::Uuid>) {
    let Newer {
        stand,
        epoch,
        instances,
        proxies,
        tokens,
        dropped_tokens,
        join_tokens,
        join_windows,
        admins,
        credentials,
        lists,
    } = newer;
    let mut after =
        Catalog { epoch, revision: stand.revision, audit_hash: stand.audit_hash.into(), ..before.clone() };
    let mut concerned = BTreeSet::new();
    instances.into_iter().for_each(|instance| after.inventory.put(Arc::new(instance)));
    for proxy in proxies {
        concerned.insert(proxy.id);
        after.registry.put_proxy(Arc::new(proxy));
    }
    for digest in dropped_tokens {
        concerned.extend(after.registry.token(&digest).map(|token| token.proxy));
        after.registry.drop_token(&digest);
    }
    for token in tokens {
        concerned.insert(token.proxy);
        after.registry.put_token(token);
    }
    join_tokens.into_iter().for_each(|token| after.registry.put_join_token(Arc::new(token)));
    join_windows.into_iter().for_each(|window| after.registry.put_join_window(Arc::new(window)));
    admins.into_iter().for_each(|admin| after.accounts.put_admin(Arc::new(admin)));
    credentials.into_iter().for_each(|credential| after.accounts.put_credential(Arc::new(credential)));
    if epoch != before.epoch {
        concerned.extend(after.registry.proxies().map(|proxy| proxy.id));
    }
    let newest: BTreeMap<Scope, SignedAllowlist> = lists.into_iter().map(|list| (list.scope, list)).collect();
    (after, newest.into_values().collect(), concerned)
}

/// Whether a list is what its nodes make, signed with the fleet's key.
fn check(catalog: &Catalog, list: &SignedAllowlist, publisher: &Publisher) -> Result<(), StoreError> {
    let SignedAllowlist { scope, position, .. } = list;
    let unreadable = |why: String| {
        StoreError::Unreadable(format!("the list of {scope} at revision {} {why}", position.revision))
    };
    // The list of everything is not made while nobody reads it; then it may be an older one.
    if *scope != Scope::All || catalog.registry.has_scope(Scope::All) {
        let (stored, compiled) =
            (list.allowlist.hash(), allowlist::compile(&catalog.inventory, *scope).hash());
        if stored != compiled {
            return Err(unreadable(format!("has the hash {stored}, and its nodes make {compiled}")));
        }
    }
    let statement = Statement {
        epoch: position.epoch,
        revision: position.revision,
        scope: *scope,
        hash: list.allowlist.hash(),
    };
    match publisher.key().verifies(&statement, &list.signature) {
        true => Ok(()),
        false => Err(unreadable("is not signed with the fleet's key".to_owned())),
    }
}
