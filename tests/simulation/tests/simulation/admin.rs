//! What admins do to the running server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pulse::Pulse;
use pulse::audit::Actor;
use pulse::changes::{ChangeError, NewInstance, NewJoin};
use pulse::registry::ScopeKind;
use pulse_proto::{Node, Token};
use uuid::Uuid;

use crate::check::Revocation;
use crate::clock::SimTime;
use crate::journal::Journal;
use crate::server::Work;

/// A place into which a command puts what it made. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Vec<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot(Arc::default())
    }
}

impl<T> Slot<T> {
    fn put(&self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }

    /// Takes what was put there.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Longer than the clocks of the simulation go wrong.
const JOIN_TTL: Duration = Duration::from_hours(300 * 24);

fn admin() -> Actor {
    Actor::admin(0)
}

/// The active proxy of a host, by the name that it registered with.
fn proxy_of(pulse: &Pulse, node: &str) -> Option<Uuid> {
    let catalog = pulse.changes.catalog();
    catalog
        .registry
        .proxies()
        .filter(|proxy| proxy.is_active() && proxy.hostname == node)
        .map(|proxy| proxy.id)
        .last()
}

fn said<T>(result: Result<T, ChangeError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        // The text may have an id in it, which differs from run to run.
        Err(error) => error.reason().to_owned(),
    }
}

fn nodes(names: &[String]) -> Vec<Node> {
    names.iter().map(|name| Node::new(name, "").expect("a node's name")).collect()
}

/// Adds an instance with nodes.
pub(crate) fn add_instance(name: &'static str, names: Vec<String>) -> Work {
    Box::new(move |pulse| {
        Box::pin(async move {
            said(pulse.changes.add_instance(&admin(), NewInstance::typed(name, nodes(&names))).await)
        })
    })
}

/// Gives an instance other nodes.
pub(crate) fn set_nodes(name: &'static str, names: Vec<String>) -> Work {
    Box::new(move |pulse| {
        Box::pin(async move { said(pulse.changes.set_endpoints(&admin(), name, nodes(&names), true).await) })
    })
}

/// Makes a join token for a host.
pub(crate) fn create_join(instance: &'static str, scope_kind: ScopeKind, made: Slot<Token>) -> Work {
    Box::new(move |pulse| {
        Box::pin(async move {
            let new = NewJoin { instance: Some(instance.to_owned()), scope_kind, uses: 1, ttl: JOIN_TTL };
            let result = pulse.changes.create_join(&admin(), new).await;
            said(result.map(|(_, token)| made.put(token)))
        })
    })
}

/// Moves the proxy of a host to another instance or scope.
pub(crate) fn set_proxy(node: String, instance: Option<&'static str>, scope_kind: Option<ScopeKind>) -> Work {
    Box::new(move |pulse| {
        Box::pin(async move {
            let Some(id) = proxy_of(&pulse, &node) else { return "no such proxy".to_owned() };
            let instance = instance.map(str::to_owned);
            said(pulse.changes.set_proxy(&admin(), id, instance, scope_kind).await)
        })
    })
}

/// Asks the proxy of a host for a new token.
pub(crate) fn rotate(node: String) -> Work {
    Box::new(move |pulse| {
        Box::pin(async move {
            let Some(id) = proxy_of(&pulse, &node) else { return "no such proxy".to_owned() };
            said(pulse.changes.request_rotation(&admin(), id).await)
        })
    })
}

/// Revokes the proxy of a host, or takes it off.
pub(crate) fn revoke(
    node: String,
    removes: bool,
    time: SimTime,
    journal: Journal,
    revocations: Slot<Revocation>,
) -> Work {
    Box::new(move |pulse| {
        Box::pin(async move {
            let Some(id) = proxy_of(&pulse, &node) else { return "no such proxy".to_owned() };
            let result = match removes {
                true => pulse.changes.remove_proxy(&admin(), id).await,
                false => pulse.changes.revoke_proxy(&admin(), id).await,
            };
            if result.is_ok() {
                let catalog = pulse.changes.catalog();
                let (identity, at) = (journal.number(&id.to_string()), time.elapsed());
                let position = (catalog.epoch, catalog.revision);
                revocations.put(Revocation { identity, at, position, until: None });
            }
            said(result)
        })
    })
}

/// Begins a new epoch.
pub(crate) fn begin_epoch() -> Work {
    Box::new(move |pulse| Box::pin(async move { said(pulse.changes.begin_epoch(&admin()).await) }))
}
