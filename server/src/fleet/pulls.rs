//! Proxies that ask for their list now and then, over the paths of older ones, and hear nothing in between.
//!
//! In: each answer that such a proxy got. Out: it is there, and what it got counts as pushed and applied, since it says
//! nothing of that itself. Always: a stream of the same proxy tells the truth, and what was asked beside it changes nothing
//! but the time. Never: decides what it may read.

use std::net::IpAddr;

use pulse_proto::{ListHash, Position};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Fleet, lock};
use crate::store::{Mark, ProxyStatus};

/// Where the list of a proxy comes from that asks for it; no stream says this word.
const PULLED: &str = "pulled";

/// What a proxy got that asked for its list.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The address that it called from.
    pub peer: Option<IpAddr>,
    /// Its version. Empty: it did not say.
    pub version: String,
    /// The list, which it may have had already; `None`: it waits for one.
    pub list: Option<(Position, ListHash)>,
}

/// How a proxy asks for its list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// With a stream, in which it is told at once.
    Grpc,
    /// Now and then, over the paths of older proxies.
    Rest,
}

impl Transport {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Grpc => "grpc",
            Transport::Rest => "rest",
        }
    }

    /// How a proxy asked last; `None`: it never did.
    pub(super) fn of(status: &ProxyStatus) -> Option<Transport> {
        status.last_pull?;
        Some(if status.list_source == PULLED { Transport::Rest } else { Transport::Grpc })
    }
}

impl Fleet {
    /// Notes that a proxy asked for its list and was answered, be it that the list is the one that it has.
    pub fn pulled(&self, proxy: Uuid, pull: Pull) {
        let entry = self.entry(proxy);
        let is_streaming = {
            let mut presence = lock(&entry.presence);
            if presence.stream == 0 {
                // It is absent from now on, until it asks again.
                presence.since = Instant::now();
            }
            presence.stream != 0
        };
        let is_streaming = is_streaming || self.is_elsewhere(proxy);
        let now = self.inner.clock.now();
        self.update(proxy, &entry, |status| {
            (status.last_seen, status.last_pull) = (Some(now), Some(now));
            if is_streaming {
                return;
            }
            status.peer = pull.peer;
            status.version = pull.version;
            status.list_source = PULLED.to_owned();
            status.insecure_skip_verify = false;
            // Such a proxy has its list in memory only.
            (status.on_disk, status.kept_list) = (false, None);
            let Some((position, hash)) = pull.list else { return };
            let mark = Mark { position, hash, at: now };
            let is_it = |known: &Mark| (known.position, known.hash) == (position, hash);
            status.pushed = Some(mark);
            status.applied = status.applied.filter(is_it).or(Some(mark));
            status.refused = None;
            status.last_error.clear();
        });
    }

    /// Whether a proxy was never heard since it registered.
    pub fn is_unheard(&self, proxy: Uuid) -> bool {
        self.existing(proxy).is_none_or(|entry| lock(&entry.status).last_seen.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use pulse_proto::signature::SigningKey;
    use pulse_proto::{Allowlist, Clock, Node, Scope, SignedAllowlist};
    use tokio::time::advance;

    use super::*;
    use crate::fleet::state::tests::proxy;
    use crate::fleet::{FleetView, Opened, SyncState};
    use crate::publish::Published;
    use crate::registry::Standing;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn published(name: &str, revision: u64) -> Published {
        let (key, _) = SigningKey::generate().unwrap();
        let (position, scope) = (Position { epoch: 1, revision }, Scope::Instance(Uuid::from_u128(2)));
        let list = Allowlist::new([Node::new(name, "").unwrap()]);
        let at = SystemTime::UNIX_EPOCH;
        Published::new(Arc::new(SignedAllowlist::sign(&key, position, scope, list, at, INTERVAL)))
    }

    /// A clock that shows the runtime's, which a test moves.
    fn fleet(stored: Option<ProxyStatus>) -> Fleet {
        let begun = Instant::now();
        let clock =
            Clock::driven(move || SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30) + begun.elapsed());
        Fleet::new(INTERVAL, stored, clock)
    }

    fn pull(list: &Published) -> Pull {
        let list = Some((list.signed.position, list.signed.allowlist.hash()));
        Pull { peer: None, version: "4.36.0".into(), list }
    }

    fn shown(fleet: &Fleet, newest: &Published) -> FleetView {
        fleet.view(&proxy(Standing::Active), Some(newest), 1)
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_asks_is_offline_after_four_intervals_without_and_not_while_it_asks() {
        let (fleet, list) = (fleet(None), published("delly", 2));
        assert_eq!(shown(&fleet, &list).state, SyncState::Never);
        for _ in 0..10 {
            fleet.pulled(proxy(Standing::Active).id, pull(&list));
            let view = shown(&fleet, &list);
            assert_eq!((view.state, view.is_connected), (SyncState::InSync, false));
            assert_eq!(view.transport, Some(Transport::Rest));
            advance(INTERVAL).await;
        }
        advance(INTERVAL * 3 - Duration::from_millis(1)).await;
        assert_eq!(shown(&fleet, &list).state, SyncState::InSync);
        advance(Duration::from_millis(1)).await;
        assert_eq!(shown(&fleet, &list).state, SyncState::Offline);
        fleet.pulled(proxy(Standing::Active).id, pull(&list));
        assert_eq!(shown(&fleet, &list).state, SyncState::InSync);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_server_was_away_counts_against_nobody() {
        let list = published("delly", 2);
        let before = fleet(None);
        before.pulled(proxy(Standing::Active).id, pull(&list));
        let stored = lock(&before.entry(proxy(Standing::Active).id).status).clone();
        advance(INTERVAL * 100).await;
        let after = fleet(Some(stored));
        assert_eq!(shown(&after, &list).state, SyncState::InSync);
        advance(INTERVAL * 4).await;
        assert_eq!(shown(&after, &list).state, SyncState::Offline);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_another_server_is_not_offline_here() {
        let list = published("delly", 2);
        let (here, there) = (fleet(None), fleet(None));
        for _ in 0..10 {
            there.pulled(proxy(Standing::Active).id, pull(&list));
            here.merge(vec![lock(&there.entry(proxy(Standing::Active).id).status).clone()], Vec::new());
            assert_eq!(shown(&here, &list).state, SyncState::InSync);
            advance(INTERVAL).await;
        }
        advance(INTERVAL * 3).await;
        assert_eq!(shown(&here, &list).state, SyncState::Offline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_applied_when_it_was_asked_for_and_not_before() {
        let (fleet, old, new) = (fleet(None), published("old", 2), published("new", 3));
        fleet.pulled(proxy(Standing::Active).id, pull(&old));
        let first = shown(&fleet, &old).status.applied.unwrap();
        assert_eq!(shown(&fleet, &new).state, SyncState::Pending);
        advance(INTERVAL).await;
        fleet.pulled(proxy(Standing::Active).id, pull(&old));
        let view = shown(&fleet, &old);
        assert_eq!(view.status.applied, Some(first), "it is in force since then");
        assert!(view.status.last_pull > Some(first.at));
        fleet.pulled(proxy(Standing::Active).id, pull(&new));
        assert_eq!(shown(&fleet, &new).state, SyncState::InSync);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_beside_a_stream_says_nothing_of_what_is_in_force() {
        let (fleet, list) = (fleet(None), published("delly", 2));
        let opened = Opened {
            peer: None,
            version: "1".into(),
            list_source: "cache".into(),
            insecure_skip_verify: false,
            kept_list: None,
        };
        assert!(fleet.is_unheard(proxy(Standing::Active).id));
        let stream = fleet.connect(proxy(Standing::Active).id, opened);
        advance(INTERVAL).await;
        fleet.pulled(proxy(Standing::Active).id, pull(&list));
        let view = shown(&fleet, &list);
        assert_eq!((view.state, view.transport), (SyncState::Never, Some(Transport::Grpc)));
        assert!(view.is_connected && !fleet.is_unheard(proxy(Standing::Active).id));
        drop(stream);
        advance(INTERVAL).await;
        fleet.pulled(proxy(Standing::Active).id, pull(&list));
        assert_eq!(shown(&fleet, &list).transport, Some(Transport::Rest));
    }
}
