//! The end of a run: nothing goes wrong any more, people help where the server and the hosts say so, and all come together.

use std::collections::BTreeMap;
use std::time::Duration;

use pulse::registry::{ScopeKind, Standing};
use pulse_sensor_proxy::gate::Source;

use super::{EAST, World};
use crate::admin::{self, Slot};
use crate::server;

/// How long all may take to come together: twice the longest back-off, and a person who registers hosts again.
const CONVERGENCE: Duration = Duration::from_secs(240);
/// How often a person looks whether somebody needs help.
const HELP_INTERVAL: Duration = Duration::from_secs(20);

impl World {
    /// Has a person register a host: a join token is asked for, and comes into the state folder when it is there.
    pub(super) fn register(&mut self, at: usize, scope_kind: ScopeKind) {
        let made = Slot::default();
        self.command(
            format!("join token for {}", self.proxies[at].node),
            admin::create_join(EAST, scope_kind, made.clone()),
        );
        self.joins.push((at, made));
    }

    pub(super) fn hand_out_joins(&mut self) {
        let mut handed = Vec::new();
        self.joins.retain(|(at, made)| match made.take().pop() {
            Some(token) => {
                handed.push((*at, token));
                false
            }
            None => true,
        });
        for (at, token) in handed {
            let identity = self.proxies[at].identity().and_then(|(_, identity)| identity.proxy_id);
            self.take_revocations();
            let (now, number) = (self.now(), identity.map(|id| self.journal.number(&id.to_string())));
            for revocation in
                self.revoked.iter_mut().filter(|r| Some(r.identity) == number && r.until.is_none())
            {
                revocation.until = Some(now);
            }
            self.proxies[at].register(token);
            self.fault(format!("{} is registered by a person", self.proxies[at].name));
        }
    }

    pub(super) fn come_together(&mut self) {
        let until = self.now() + CONVERGENCE;
        let arrived = self.newest_rows();
        let mut help_at = self.now() + HELP_INTERVAL;
        loop {
            self.pass(Duration::from_secs(1));
            // A program that was being stopped when the faults ended.
            for at in 0..self.proxies.len() - 1 {
                let name = self.proxies[at].name.clone();
                if !self.runs(&name) {
                    self.sim.bounce(name.as_str());
                }
            }
            if !self.runs(server::NAME) {
                self.sim.bounce(server::NAME);
            }
            let missing = self.missing(&arrived);
            if missing.is_empty() {
                self.fault("all came together".to_owned());
                // Once more, so that what is on its way arrives.
                self.pass(Duration::from_secs(5));
                return;
            }
            if self.now() >= until {
                self.wrong.extend(missing.into_iter().map(|what| format!("not together in time: {what}")));
                return;
            }
            if self.now() >= help_at {
                help_at = self.now() + HELP_INTERVAL;
                self.help();
            }
        }
    }

    /// What keeps the fleet from being as it should be.
    fn missing(&mut self, arrived: &BTreeMap<String, i64>) -> Vec<String> {
        let Some(pulse) = self.server.pulse() else { return vec!["the server is down".to_owned()] };
        let catalog = pulse.changes.catalog();
        let (rows, states) = (self.newest_rows(), self.server.states());
        let mut missing = Vec::new();
        for host in &self.proxies[..self.proxies.len() - 1] {
            let name = &host.name;
            let (Some((_, identity)), Some(held)) = (host.identity(), host.in_force()) else {
                missing.push(format!("{name} is not registered"));
                continue;
            };
            let proxy = identity.proxy_id.and_then(|id| catalog.registry.proxy(id));
            let Some(proxy) = proxy else {
                missing.push(format!("{name} is not known"));
                continue;
            };
            if !matches!(proxy.standing, Standing::Active) {
                if held.list().is_some() || identity.revoked.is_none() {
                    missing.push(format!("{name} does not know that it is revoked"));
                }
                continue;
            }
            let Some(scope) = proxy.scope() else { continue };
            let Some(newest) = pulse.lists.newest(scope) else {
                missing.push(format!("there is no list for {name}"));
                continue;
            };
            let newest = &newest.signed;
            let is_newest = held.list().is_some_and(|list| {
                list.scope == scope
                    && list.position.epoch == newest.position.epoch
                    && list.allowlist.hash() == newest.allowlist.hash()
            });
            if !is_newest || held.source() != Source::Pushed {
                let has = held.list().map(|list| (list.position, list.scope));
                missing.push(format!(
                    "{name} has {has:?} ({}), the newest is {:?} of {scope}",
                    held.source().as_str(),
                    newest.position
                ));
                continue;
            }
            let state = states.get(&proxy.id).copied().unwrap_or("unseen");
            if state != "IN_SYNC" {
                missing.push(format!("{name} is shown {state}"));
            }
            let is_listed = newest.allowlist.nodes().iter().any(|node| node.name() == host.node);
            let is_early = host.clock.ahead_ms() - self.server.clock.ahead_ms() > 240_000;
            let row = |rows: &BTreeMap<String, i64>| rows.get(&host.node).copied().unwrap_or_default();
            if is_listed && !is_early && row(&rows) <= row(arrived) {
                missing.push(format!("no readings of {name} arrive"));
            }
        }
        missing
    }

    /// A person looks at what the server and the hosts show, and does what they say.
    fn help(&mut self) {
        let Some(pulse) = self.server.pulse() else { return };
        let catalog = pulse.changes.catalog();
        if !pulse.fleet.ahead(&catalog.registry, catalog.epoch).is_empty() {
            self.command("epoch new, as the server says".to_owned(), admin::begin_epoch());
        }
        for at in 0..self.proxies.len() - 1 {
            let Some((folder, identity)) = self.proxies[at].identity() else {
                self.register(at, ScopeKind::Instance);
                continue;
            };
            let proxy = identity.proxy_id.and_then(|id| catalog.registry.proxy(id));
            let is_meant = proxy.is_some_and(|proxy| !proxy.is_active());
            let token = folder.token().ok().flatten();
            let is_known = token.is_some_and(|token| {
                catalog
                    .registry
                    .token(&token.digest())
                    .is_some_and(|token| Some(token.proxy) == identity.proxy_id)
            });
            if (identity.revoked.is_some() && !is_meant) || !is_known {
                self.register(at, ScopeKind::Instance);
            }
        }
    }
}
