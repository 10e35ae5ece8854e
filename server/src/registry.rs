//! Who may connect: proxies, the digests of their ctrl tokens, join tokens, and windows in which none is needed.
//!
//! In: registrations and what admins set. Out: an immutable [`Registry`], cheap to clone.
//! Always: a proxy has no scope before it is approved; a token is known by its SHA-256 only; the token of a revoked or removed proxy stays as a tombstone.
//! Never: asks the store, or decides what a proxy may read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use pulse_proto::{Scope, TokenDigest};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};
use uuid::Uuid;

use crate::index::Index;
use crate::network::{Network, any_contains};

/// How local callers reach a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyKind {
    /// A Unix socket.
    Socket,
    /// An HTTPS listener of its own.
    Http,
}

/// Which nodes a proxy may read, before its instance is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScopeKind {
    /// Those of its instance.
    Instance,
    /// Every node.
    All,
}

/// Whether a proxy may connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may.
    Active,
    /// An admin revoked its token; registering again makes it active.
    Revoked {
        /// When.
        at: SystemTime,
        /// Why, for the proxy and the admin.
        reason: String,
    },
    /// It was taken off, by an admin or by itself; registering again makes a new proxy.
    Removed {
        /// When.
        at: SystemTime,
        /// Why.
        reason: String,
    },
}

/// One proxy.
#[derive(Clone, PartialEq, Debug)]
pub struct Proxy {
    /// Its identity, a UUIDv7; survives renames, upgrades and further registrations.
    pub id: Uuid,
    /// The host's name, as it registered.
    pub hostname: String,
    /// The host's machine id keyed for Pulse, 64 hex digits. Empty: not known.
    pub machine_id: String,
    /// How local callers reach it.
    pub kind: ProxyKind,
    /// Where local callers reach it in HTTP mode; shown, never dialled. Empty: nowhere.
    pub proxy_url: String,
    /// The version with which it registered.
    pub version: String,
    /// The address from which it registered last.
    pub peer: Option<IpAddr>,
    /// The instance to which it belongs; it may be a removed one.
    pub instance: Option<Uuid>,
    /// Which nodes it may read.
    pub scope_kind: ScopeKind,
    /// Whether it may connect.
    pub standing: Standing,
    /// Whether it came with a join token or an admin approved it; until then it gets no list and reports nothing.
    pub is_approved: bool,
    /// Whether an admin asked that it take a new token.
    pub rotate_requested: bool,
    /// When it registered first.
    pub created_at: SystemTime,
    /// When it registered last.
    pub registered_at: SystemTime,
}

impl Proxy {
    /// The scope whose list it gets; `None` while it waits for approval or for an instance.
    pub fn scope(&self) -> Option<Scope> {
        match self.scope_kind {
            _ if !self.is_approved => None,
            ScopeKind::All => Some(Scope::All),
            ScopeKind::Instance => self.instance.map(Scope::Instance),
        }
    }

    /// Whether it may connect.
    pub fn is_active(&self) -> bool {
        self.standing == Standing::Active
    }
}

/// What a ctrl token is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenStanding {
    /// It is the proxy's token.
    Current,
    /// It becomes the proxy's token with its first use, if that is before this time.
    Next {
        /// When it ends unused.
        use_before: SystemTime,
    },
    /// It was the token of a proxy that was revoked or removed.
    Tombstone,
    /// It only watches, as its proxy would: for a person with another program.
    Debug {
        /// When it ends.
        until: SystemTime,
    },
}

/// A ctrl token, as the registry knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CtrlToken {
    /// The SHA-256 of the token.
    pub digest: TokenDigest,
    /// Whose it is.
    pub proxy: Uuid,
    /// What it is good for.
    pub standing: TokenStanding,
}

impl CtrlToken {
    /// When it ends by itself, if it does.
    pub fn end(&self) -> Option<SystemTime> {
        match self.standing {
            TokenStanding::Next { use_before } => Some(use_before),
            TokenStanding::Debug { until } => Some(until),
            TokenStanding::Current | TokenStanding::Tombstone => None,
        }
    }
}

/// A join token, as the registry knows it.
#[derive(Clone, PartialEq, Debug)]
pub struct JoinToken {
    /// Its short name for people: 8 hex digits.
    pub id: String,
    /// The SHA-256 of the token.
    pub digest: TokenDigest,
    /// The instance to which its proxies are assigned; `None`: that which matches the host.
    pub instance: Option<Uuid>,
    /// Which nodes its proxies may read.
    pub scope_kind: ScopeKind,
    /// How many registrations it is good for.
    pub uses: u32,
    /// How many it has made.
    pub used: u32,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it ends.
    pub expires_at: SystemTime,
    /// When it was revoked, if it was.
    pub revoked_at: Option<SystemTime>,
}

impl JoinToken {
    /// Whether it is good for one more registration at this time, if its instance is there.
    pub fn is_good_at(&self, now: SystemTime) -> bool {
        self.revoked_at.is_none() && now < self.expires_at && self.used < self.uses
    }
}

/// A time in which hosts without a join token may register, to wait for approval.
#[derive(Clone, PartialEq, Debug)]
pub struct JoinWindow {
    /// Its identity, a UUIDv7: later ones are greater.
    pub id: Uuid,
    /// The networks from which hosts may come. Empty: from everywhere.
    pub sources: Vec<Network>,
    /// When it was opened.
    pub opened_at: SystemTime,
    /// When it closes by itself.
    pub closes_at: SystemTime,
    /// When it was closed before that, if it was.
    pub closed_at: Option<SystemTime>,
}

impl JoinWindow {
    /// Whether it is open at this time.
    pub fn is_open(&self, now: SystemTime) -> bool {
        self.closed_at.is_none() && now < self.closes_at
    }

    /// Whether it lets in hosts of this address.
    pub fn admits(&self, peer: Option<IpAddr>) -> bool {
        self.sources.is_empty() || peer.is_some_and(|peer| any_contains(&self.sources, peer))
    }
}

/// All proxies and tokens. Cloning shares them.
#[derive(Clone, Default, Debug)]
pub struct Registry {
    proxies: HashTrieMapSync<Uuid, Arc<Proxy>>,
    /// By the digest's bytes: a look-up by hash tells nothing about a token that is not known.
    tokens: HashTrieMapSync<[u8; 32], CtrlToken>,
    join_tokens: RedBlackTreeMapSync<String, Arc<JoinToken>>,
    join_digests: HashTrieMapSync<[u8; 32], String>,
    /// The newest one.
    join_window: Option<Arc<JoinWindow>>,
    /// How many active proxies have each scope.
    scopes: HashTrieMapSync<Scope, usize>,
    /// Proxies that are not removed, by machine id and by hostname in lower case; those without a machine id are not here.
    machines: Index<(String, String), Uuid>,
    /// Proxies that are not removed, by the instance that they belong to.
    of_instances: Index<Uuid, Uuid>,
    /// Active and approved proxies, by hostname in lower case.
    hostnames: Index<String, Uuid>,
    /// Active and approved proxies, by the address that they registered from.
    peers: Index<IpAddr, Uuid>,
    /// Active proxies that nobody approved yet.
    unapproved: RedBlackTreeSetSync<Uuid>,
    /// Ctrl tokens by their proxy.
    tokens_of: Index<Uuid, [u8; 32]>,
    /// Ctrl tokens that end by time, the first to end first.
    ending: RedBlackTreeSetSync<(SystemTime, [u8; 32])>,
}

impl Registry {
    /// Adds a proxy, or puts it in the place of the one with its id.
    pub fn put_proxy(&mut self, proxy: Arc<Proxy>) {
        if let Some(before) = self.proxies.get(&proxy.id).cloned() {
            self.unlist(&before);
        }
        self.list(&proxy);
        self.proxies.insert_mut(proxy.id, proxy);
    }

    /// Puts a proxy into every index where it belongs.
    fn list(&mut self, proxy: &Proxy) {
        let id = proxy.id;
        if let Some(scope) = active_scope(proxy) {
            self.count(scope, |count| count + 1);
        }
        if !is_removed(proxy) {
            if let Some(machine) = machine(proxy) {
                self.machines.add(machine, id);
            }
            if let Some(instance) = proxy.instance {
                self.of_instances.add(instance, id);
            }
        }
        match (proxy.is_active(), proxy.is_approved) {
            (true, true) => {
                self.hostnames.add(proxy.hostname.to_ascii_lowercase(), id);
                if let Some(peer) = proxy.peer {
                    self.peers.add(peer.to_canonical(), id);
                }
            }
            (true, false) => self.unapproved.insert_mut(id),
            (false, _) => {}
        }
    }

    /// Takes a proxy out of every index where [`Registry::list`] put it.
    fn unlist(&mut self, proxy: &Proxy) {
        let id = proxy.id;
        if let Some(scope) = active_scope(proxy) {
            self.count(scope, |count| count - 1);
        }
        if !is_removed(proxy) {
            if let Some(machine) = machine(proxy) {
                self.machines.remove(&machine, id);
            }
            if let Some(instance) = proxy.instance {
                self.of_instances.remove(&instance, id);
            }
        }
        match (proxy.is_active(), proxy.is_approved) {
            (true, true) => {
                self.hostnames.remove(proxy.hostname.to_ascii_lowercase().as_str(), id);
                if let Some(peer) = proxy.peer {
                    self.peers.remove(&peer.to_canonical(), id);
                }
            }
            (true, false) => {
                self.unapproved.remove_mut(&id);
            }
            (false, _) => {}
        }
    }

    fn count(&mut self, scope: Scope, step: impl FnOnce(usize) -> usize) {
        match step(self.scopes.get(&scope).copied().unwrap_or_default()) {
            0 => {
                self.scopes.remove_mut(&scope);
            }
            count => self.scopes.insert_mut(scope, count),
        }
    }

    /// Adds a ctrl token, or gives it another standing.
    pub fn put_token(&mut self, token: CtrlToken) {
        self.drop_token(&token.digest);
        let digest = *token.digest.as_bytes();
        self.tokens_of.add(token.proxy, digest);
        if let Some(end) = token.end() {
            self.ending.insert_mut((end, digest));
        }
        self.tokens.insert_mut(digest, token);
    }

    /// Forgets a ctrl token: from now on it is unknown.
    pub fn drop_token(&mut self, digest: &TokenDigest) {
        let digest = *digest.as_bytes();
        if let Some(token) = self.tokens.get(&digest).copied() {
            self.tokens_of.remove(&token.proxy, digest);
            if let Some(end) = token.end() {
                self.ending.remove_mut(&(end, digest));
            }
            self.tokens.remove_mut(&digest);
        }
    }

    /// Adds a join token, or puts it in the place of the one with its id.
    pub fn put_join_token(&mut self, token: Arc<JoinToken>) {
        self.join_digests.insert_mut(*token.digest.as_bytes(), token.id.clone());
        self.join_tokens.insert_mut(token.id.clone(), token);
    }

    /// Adds a window, or puts it in the place of the one before it.
    pub fn put_join_window(&mut self, window: Arc<JoinWindow>) {
        if self.join_window.as_ref().is_none_or(|before| before.id <= window.id) {
            self.join_window = Some(window);
        }
    }

    /// The newest window, open or not.
    pub fn join_window(&self) -> Option<&Arc<JoinWindow>> {
        self.join_window.as_ref()
    }

    /// The proxy of this id, removed ones too.
    pub fn proxy(&self, id: Uuid) -> Option<&Arc<Proxy>> {
        self.proxies.get(&id)
    }

    /// All proxies that are not removed, in no order.
    pub fn proxies(&self) -> impl Iterator<Item = &Arc<Proxy>> {
        self.proxies.values().filter(|proxy| !is_removed(proxy))
    }

    /// The ctrl token of this digest.
    pub fn token(&self, digest: &TokenDigest) -> Option<&CtrlToken> {
        self.tokens.get(digest.as_bytes()).filter(|token| token.digest == *digest)
    }

    /// The ctrl tokens that end by time and whose time is over.
    pub fn past_tokens(&self, now: SystemTime) -> impl Iterator<Item = &CtrlToken> {
        let past = self.ending.iter().take_while(move |(end, _)| *end <= now);
        past.filter_map(|(_, digest)| self.tokens.get(digest))
    }

    /// The ctrl tokens of one proxy.
    pub fn tokens_of(&self, proxy: Uuid) -> impl Iterator<Item = &CtrlToken> {
        self.tokens_of.of(&proxy).filter_map(|digest| self.tokens.get(&digest))
    }

    /// The join token of this digest.
    pub fn join_token(&self, digest: &TokenDigest) -> Option<&Arc<JoinToken>> {
        let id = self.join_digests.get(digest.as_bytes())?;
        self.join_tokens.get(id).filter(|token| token.digest == *digest)
    }

    /// The join token of this id.
    pub fn join_token_by_id(&self, id: &str) -> Option<&Arc<JoinToken>> {
        self.join_tokens.get(id)
    }

    /// All join tokens, by id.
    pub fn join_tokens(&self) -> impl Iterator<Item = &Arc<JoinToken>> {
        self.join_tokens.values()
    }

    /// Whether an active proxy has this scope.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.scopes.contains_key(&scope)
    }

    /// The proxy that a host without its token is: the same machine id and hostname, not removed.
    pub fn proxy_of_host(&self, machine_id: &str, hostname: &str) -> impl Iterator<Item = &Arc<Proxy>> {
        let machine = (machine_id.to_owned(), hostname.to_ascii_lowercase());
        self.named(self.machines.of(&machine))
    }

    /// The proxies that belong to an instance and are not removed.
    pub fn proxies_of(&self, instance: Uuid) -> impl Iterator<Item = &Arc<Proxy>> {
        self.named(self.of_instances.of(&instance))
    }

    /// The active and approved proxies on hosts of this name, case-blind.
    pub fn proxies_named(&self, hostname: &str) -> impl Iterator<Item = &Arc<Proxy>> {
        self.named(self.hostnames.of(hostname.to_ascii_lowercase().as_str()))
    }

    /// The active and approved proxies that registered from this address.
    pub fn proxies_at(&self, peer: IpAddr) -> impl Iterator<Item = &Arc<Proxy>> {
        self.named(self.peers.of(&peer.to_canonical()))
    }

    /// The active proxies that nobody approved yet.
    pub fn unapproved(&self) -> impl Iterator<Item = &Arc<Proxy>> {
        self.named(self.unapproved.iter().copied())
    }

    /// How many active proxies nobody approved yet.
    pub fn unapproved_count(&self) -> usize {
        self.unapproved.size()
    }

    fn named(&self, ids: impl Iterator<Item = Uuid>) -> impl Iterator<Item = &Arc<Proxy>> {
        ids.filter_map(|id| self.proxies.get(&id))
    }
}

/// Under what a host is known that comes without its token; `None`: it has no machine id, and is never known again.
fn machine(proxy: &Proxy) -> Option<(String, String)> {
    let machine = || (proxy.machine_id.clone(), proxy.hostname.to_ascii_lowercase());
    (!proxy.machine_id.is_empty()).then(machine)
}

fn is_removed(proxy: &Proxy) -> bool {
    matches!(proxy.standing, Standing::Removed { .. })
}

/// The scope that a proxy holds a list of, if it may connect.
fn active_scope(proxy: &Proxy) -> Option<Scope> {
    proxy.scope().filter(|_| proxy.is_active())
}

#[cfg(test)]
mod tests;
