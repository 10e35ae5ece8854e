//! Notices a proxy that holds a list which this database never made.

use pulse_proto::Position;

use super::Rpc;
use crate::registry::Proxy;

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
