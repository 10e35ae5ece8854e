//! The last-sync state: how a proxy's list compares with the newest one of its scope.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Transport;
use crate::publish::Published;
use crate::registry::{Proxy, Standing};
use crate::store::{Ahead, ProxyStatus};

/// How far a proxy is with its list. By hash; the first that fits, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncState {
    /// Its token is revoked, or it was removed.
    Revoked,
    /// It has never applied a list.
    Never,
    /// It has had no stream for three intervals; if it asks over the paths of older proxies: it has not for four.
    Offline,
    /// It refused the newest list.
    Refused,
    /// It has the newest list in force.
    InSync,
    /// It has not applied the newest list for three intervals.
    Stale,
    /// It has not applied the newest list yet.
    Pending,
}

impl SyncState {
    /// All of them.
    pub const ALL: [SyncState; 7] = [
        SyncState::Revoked,
        SyncState::Never,
        SyncState::Offline,
        SyncState::Refused,
        SyncState::InSync,
        SyncState::Stale,
        SyncState::Pending,
    ];

    /// The word for it, everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncState::Revoked => "REVOKED",
            SyncState::Never => "NEVER",
            SyncState::Offline => "OFFLINE",
            SyncState::Refused => "REFUSED",
            SyncState::InSync => "IN_SYNC",
            SyncState::Stale => "STALE",
            SyncState::Pending => "PENDING",
        }
    }
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A proxy as it is shown.
#[derive(Clone, PartialEq, Debug)]
pub struct FleetView {
    /// How far it is with its list.
    pub state: SyncState,
    /// Why it has no list yet, if it waits for an instance.
    pub waiting: Option<String>,
    /// Whether it has a stream.
    pub is_connected: bool,
    /// How it asked for its list last; `None`: it never did.
    pub transport: Option<Transport>,
    /// For how long the newest list has been there without being applied; `None` if it is.
    pub lag: Option<Duration>,
    /// What it holds that this database never made; it is sent no list then.
    pub ahead: Option<Ahead>,
    /// What it holds and last said.
    pub status: ProxyStatus,
}

/// How many intervals without a stream, or without the newest list, are too many.
const PATIENCE_INTERVALS: u32 = 3;

/// How many intervals without a word of a proxy that only asks are too many: one that comes late has not missed one yet.
const PATIENCE_WITH_PULLS: u32 = 4;

/// Says how a proxy stands. `absent_for` is `None` while it has a stream.
pub(super) fn view(
    proxy: &Proxy,
    status: ProxyStatus,
    ahead: Option<Ahead>,
    absent_for: Option<Duration>,
    newest: Option<&Published>,
    refresh_interval: Duration,
) -> FleetView {
    let patience = refresh_interval * PATIENCE_INTERVALS;
    let transport = Transport::of(&status);
    let absence = match transport {
        Some(Transport::Rest) => refresh_interval * PATIENCE_WITH_PULLS,
        Some(Transport::Grpc) | None => patience,
    };
    let newest = newest.filter(|_| proxy.scope().is_some());
    let newest_hash = newest.map(|newest| newest.signed.allowlist.hash());
    let is_newest =
        |mark: Option<crate::store::Mark>| mark.is_some_and(|mark| Some(mark.hash) == newest_hash);
    // A list that was changed on its way may be refused under another hash.
    let is_at =
        |mark: crate::store::Mark| newest.is_some_and(|newest| newest.signed.position == mark.position);
    // What is ahead holds another list, whatever it had applied when this copy of the database was made.
    let is_applied = is_newest(status.applied) && ahead.is_none();
    let lag = newest.filter(|_| !is_applied).map(|newest| newest.since.elapsed());
    let state = if proxy.standing != Standing::Active {
        SyncState::Revoked
    } else if status.applied.is_none() {
        SyncState::Never
    } else if absent_for.is_some_and(|absent| absent >= absence) {
        SyncState::Offline
    } else if status.refused.is_some_and(|refused| is_newest(Some(refused)) || is_at(refused)) {
        SyncState::Refused
    } else if is_applied {
        SyncState::InSync
    } else if lag.is_some_and(|lag| lag >= patience) {
        SyncState::Stale
    } else {
        SyncState::Pending
    };
    let waiting = (proxy.is_active() && proxy.scope().is_none()).then(|| waiting_reason(proxy));
    FleetView { state, waiting, is_connected: absent_for.is_none(), transport, lag, ahead, status }
}

/// Why a proxy without approval or instance has no list, and what ends it.
pub(crate) fn waiting_reason(proxy: &Proxy) -> String {
    let Proxy { id, hostname, is_approved, .. } = proxy;
    if !is_approved {
        return format!(
            "the host {hostname:?} registered without a join token and waits for approval: approve it with \
             `pulse proxy approve {id}`, if it is the one that it says it is"
        );
    }
    format!(
        "no instance matches the host {hostname:?}: add it as an endpoint of one (`pulse instance add` or `set`), or \
         assign the proxy with `pulse proxy set ID --instance NAME`"
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use pulse_proto::signature::SigningKey;
    use pulse_proto::{Allowlist, ListHash, Node, Position, Scope, SignedAllowlist};
    use tokio::time::advance;
    use uuid::Uuid;

    use super::super::unheard;
    use super::*;
    use crate::registry::{ProxyKind, ScopeKind};
    use crate::store::Mark;

    const INTERVAL: Duration = Duration::from_secs(60);

    pub(in crate::fleet) fn proxy(standing: Standing) -> Proxy {
        Proxy {
            id: Uuid::from_u128(1),
            hostname: "delly".into(),
            machine_id: String::new(),
            kind: ProxyKind::Socket,
            proxy_url: String::new(),
            version: String::new(),
            peer: None,
            instance: Some(Uuid::from_u128(2)),
            scope_kind: ScopeKind::Instance,
            standing,
            is_approved: true,
            rotate_requested: false,
            created_at: SystemTime::UNIX_EPOCH,
            registered_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn list(name: &str) -> Allowlist {
        Allowlist::new([Node::new(name, "").unwrap()])
    }

    fn published(name: &str) -> Published {
        let (key, _) = SigningKey::generate().unwrap();
        let (position, scope) = (Position { epoch: 1, revision: 2 }, Scope::Instance(Uuid::from_u128(2)));
        let signed = Arc::new(SignedAllowlist::sign(
            &key,
            position,
            scope,
            list(name),
            SystemTime::UNIX_EPOCH,
            INTERVAL,
        ));
        Published::new(signed)
    }

    fn mark(hash: ListHash) -> Option<Mark> {
        Some(Mark { position: Position { epoch: 1, revision: 1 }, hash, at: SystemTime::UNIX_EPOCH })
    }

    fn state(status: ProxyStatus, absent: Option<u64>, newest: &Published) -> SyncState {
        let absent = absent.map(Duration::from_secs);
        view(&proxy(Standing::Active), status, None, absent, Some(newest), INTERVAL).state
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_state_that_fits_is_shown() {
        let newest = published("new");
        let (old, new) = (list("old").hash(), list("new").hash());
        let none = unheard(Uuid::from_u128(1));
        let applied = |hash| ProxyStatus { applied: mark(hash), ..none.clone() };

        let revoked = Standing::Revoked { at: SystemTime::UNIX_EPOCH, reason: String::new() };
        assert_eq!(
            view(&proxy(revoked), applied(new), None, None, Some(&newest), INTERVAL).state,
            SyncState::Revoked
        );
        assert_eq!(state(none.clone(), None, &newest), SyncState::Never);
        assert_eq!(state(applied(new), Some(180), &newest), SyncState::Offline);
        assert_eq!(state(applied(new), Some(179), &newest), SyncState::InSync);
        let refused = ProxyStatus { refused: mark(new), ..applied(old) };
        assert_eq!(state(refused, None, &newest), SyncState::Refused);
        let refused_before = ProxyStatus { refused: mark(old), ..applied(new) };
        assert_eq!(state(refused_before, None, &newest), SyncState::InSync);
        assert_eq!(state(applied(old), None, &newest), SyncState::Pending);
        advance(INTERVAL * 3).await;
        assert_eq!(state(applied(old), None, &newest), SyncState::Stale);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ahead_of_the_database_is_not_in_sync() {
        let newest = published("new");
        let status = ProxyStatus { applied: mark(list("new").hash()), ..unheard(Uuid::from_u128(1)) };
        let position = Position { epoch: 1, revision: 9 };
        let noticed_at = SystemTime::UNIX_EPOCH;
        let ahead = Some(Ahead { proxy: Uuid::from_u128(1), position, noticed_epoch: 1, noticed_at });
        let of = || view(&proxy(Standing::Active), status.clone(), ahead, None, Some(&newest), INTERVAL);
        assert_eq!(of().state, SyncState::Pending);
        advance(INTERVAL * 3).await;
        assert_eq!((of().state, of().ahead), (SyncState::Stale, ahead));
    }

    #[tokio::test(start_paused = true)]
    async fn lag_counts_from_the_newest_list_until_it_is_applied() {
        let newest = published("new");
        advance(Duration::from_secs(7)).await;
        let of = |hash| {
            let status = ProxyStatus { applied: mark(hash), ..unheard(Uuid::from_u128(1)) };
            view(&proxy(Standing::Active), status, None, None, Some(&newest), INTERVAL).lag
        };
        assert_eq!(of(list("old").hash()), Some(Duration::from_secs(7)));
        assert_eq!(of(list("new").hash()), None);
    }

    #[tokio::test]
    async fn a_proxy_without_an_instance_waits_and_says_what_would_end_it() {
        let waiting = Proxy { instance: None, ..proxy(Standing::Active) };
        let view = view(&waiting, unheard(waiting.id), None, None, None, INTERVAL);
        assert!(view.waiting.unwrap().contains("pulse proxy set ID --instance"));
    }
}
