//! Notices a proxy that holds a list which this database never made, once it is known what the database has made.

use pulse_proto::{Position, reason};
use tonic::{Code, Status};

use super::Rpc;
use super::status::retry;
use crate::registry::Proxy;

/// How long a proxy waits that holds more than this server knows, while the database cannot be asked.
const BEHIND_RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// Sees to it that this server knows all that a proxy may have heard from another one: what it holds, beside what is known
/// here. A database that no other server writes to needs no look.
///
/// # Errors
/// The database cannot be asked: the proxy keeps what it has, and may find a server that knows more.
pub(super) async fn settle(rpc: &Rpc, held: Position) -> Result<(), Status> {
    let catalog = rpc.changes.catalog();
    let known = Position { epoch: catalog.epoch, revision: catalog.revision };
    if held <= known || !rpc.changes.is_shared() {
        return Ok(());
    }
    rpc.changes.catch_up().await.map_err(|error| {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a proxy may hold more than this server knows"
        );
        let text = "this server cannot ask its database for what you hold already: keep it, and come back";
        retry(Code::Unavailable, reason::STORE_UNAVAILABLE, text, BEHIND_RETRY)
    })
}

/// Compares what the proxy says it holds with the newest that it would be sent.
pub(super) fn notice(rpc: &Rpc, proxy: &Proxy, held: Position) {
    // Nobody vouches for what it says yet.
    if !proxy.is_approved {
        return;
    }
    let catalog = rpc.changes.catalog();
    let newest = newest(rpc, proxy);
    let newest = newest.unwrap_or(Position { epoch: catalog.epoch, revision: catalog.revision });
    if rpc.fleet.notice(proxy.id, held, newest) {
        rpc.fleet.tell_ahead(&catalog.registry, catalog.epoch);
        rpc.fleet.ring(proxy.id);
        if rpc.store.is_shared() {
            // At once: it may go to another server.
            let (fleet, store) = (rpc.fleet.clone(), rpc.store.clone());
            tokio::spawn(async move { fleet.save_ahead(&store).await });
        }
    }
}

/// Takes note that the proxy refused a list as older than one that it applied. If it was the newest, the proxy holds
/// more than this database has, though it did not say how much: at least the next.
pub(super) fn notice_refusal(rpc: &Rpc, proxy: &Proxy, refused: Position) {
    if newest(rpc, proxy) == Some(refused) {
        notice(rpc, proxy, Position { revision: refused.revision.saturating_add(1), ..refused });
    }
}

fn newest(rpc: &Rpc, proxy: &Proxy) -> Option<Position> {
    proxy.scope().and_then(|scope| rpc.lists.newest(scope)).map(|newest| newest.signed.position)
}
