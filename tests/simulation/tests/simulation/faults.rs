//! What goes wrong, and what admins do meanwhile: one thing after the other, as the seed decides.

use std::time::Duration;

use pulse::registry::ScopeKind;

use crate::admin::{self, Slot};
use crate::server;
use crate::world::{Action, EAST, WEST, Way, World, node_of};

/// The farthest that a wall clock goes wrong.
const MOST_WRONG: Duration = Duration::from_hours(20 * 24);

/// The farthest that the server's wall clock is ahead, in milliseconds: 20 hours.
const SERVER_AHEAD_MS: i64 = 20 * 3_600_000;

impl World {
    /// One thing happens.
    pub(crate) fn something_happens(&mut self) {
        match self.dice.below(100) {
            0..22 => self.network_fails(),
            22..30 => self.proxy_ends(),
            30..34 => self.server_ends(),
            34..40 => self.clock_steps(),
            // An older copy is the better one.
            40..44 if !self.has_copy() || self.dice.percent(30) => self.copy_database(),
            44..46 => self.clone_appears(),
            _ => self.admin_acts(),
        }
    }

    fn network_fails(&mut self) {
        let at = self.dice.index(self.proxies.len());
        if self.ways[at] != Way::Fine {
            return;
        }
        let way = match self.dice.below(5) {
            0 => Way::Cut,
            1 => Way::CutFromServer,
            2 => Way::CutFromProxy,
            3 => Way::Held,
            _ => Way::Slow,
        };
        self.set_way(at, way);
        let wait = self.dice.between(Duration::from_millis(300), Duration::from_secs(40));
        self.later(wait, Action::Mend(at));
    }

    fn proxy_ends(&mut self) {
        let at = self.dice.index(self.proxies.len() - 1);
        let name = self.proxies[at].name.clone();
        if !self.runs(&name) {
            return;
        }
        let least = match self.dice.percent(60) {
            true => {
                self.kill_proxy(at);
                Duration::from_millis(20)
            }
            false => {
                self.fault(format!("{name} is stopped"));
                self.proxies[at].stop();
                // Behind the time that it has to end.
                Duration::from_secs(6)
            }
        };
        let wait = self.dice.between(least, least + Duration::from_secs(15));
        self.later(wait, Action::StartProxy(at));
    }

    fn server_ends(&mut self) {
        if !self.runs(server::NAME) || self.server.pulse().is_none() {
            return;
        }
        let restores = self.has_copy() && self.dice.percent(40);
        let least = match restores || self.dice.percent(60) {
            true => {
                self.kill_server();
                Duration::from_millis(20)
            }
            false => {
                self.fault("the server is stopped".to_owned());
                self.server.stop();
                Duration::from_secs(11)
            }
        };
        let begins_epoch = restores && self.dice.percent(50);
        let wait = self.dice.between(least, least + Duration::from_secs(25));
        self.later(wait, Action::StartServer { restores, begins_epoch });
    }

    fn clock_steps(&mut self) {
        let at = self.dice.index(self.proxies.len() + 1);
        let most = match self.dice.below(3) {
            0 => Duration::from_secs(600),
            1 => Duration::from_hours(5),
            _ => MOST_WRONG,
        };
        let step =
            i64::try_from(self.dice.between(Duration::from_secs(5), most).as_millis()).unwrap_or_default();
        let mut ahead = if self.dice.percent(30) {
            0
        } else if self.dice.percent(50) {
            step
        } else {
            -step
        };
        if at == self.proxies.len() {
            // An epoch from farther ahead is not taken for a server's when a proxy shows it again.
            ahead = ahead.min(SERVER_AHEAD_MS);
        }
        let (clock, name) = match self.proxies.get(at) {
            Some(proxy) => (&proxy.clock, proxy.name.as_str()),
            None => (&self.server.clock, server::NAME),
        };
        clock.set_ahead_ms(ahead);
        self.fault(format!("the clock of {name} is {ahead} ms ahead"));
    }

    /// Another host with a copy of a state folder comes up, once, for a while.
    fn clone_appears(&mut self) {
        let clone = self.proxies.len() - 1;
        let of = self.dice.index(clone);
        if self.proxies[clone].identity().is_some() || self.proxies[of].identity().is_none() {
            return;
        }
        self.proxies[clone].clone_state_of(&self.proxies[of]);
        self.proxies[clone].enable(true);
        self.fault(format!("a clone of {} comes up", self.proxies[of].name));
        self.later(Duration::ZERO, Action::StartProxy(clone));
        let wait = self.dice.between(Duration::from_secs(3), Duration::from_secs(40));
        self.later(wait, Action::StopClone);
    }

    fn admin_acts(&mut self) {
        let count = self.proxies.len() - 1;
        let node = node_of(self.dice.index(count));
        match self.dice.below(100) {
            0..45 => {
                let mut names: Vec<String> =
                    (0..count).map(node_of).filter(|_| self.dice.percent(75)).collect();
                names.extend((0..6).map(|at| format!("x{at}")).filter(|_| self.dice.percent(30)));
                self.command(format!("nodes of east: {names:?}"), admin::set_nodes(EAST, names));
            }
            45..55 => {
                let names: Vec<String> =
                    (0..4).map(|at| format!("w{at}")).filter(|_| self.dice.percent(50)).collect();
                self.command(format!("nodes of west: {names:?}"), admin::set_nodes(WEST, names));
            }
            55..65 => {
                let scope_kind = if self.dice.percent(50) { ScopeKind::All } else { ScopeKind::Instance };
                self.command(
                    format!("scope of {node}: {scope_kind:?}"),
                    admin::set_proxy(node, None, Some(scope_kind)),
                );
            }
            65..72 => {
                let instance = if self.dice.percent(60) { EAST } else { WEST };
                self.command(
                    format!("instance of {node}: {instance}"),
                    admin::set_proxy(node, Some(instance), None),
                );
            }
            72..86 => self.command(format!("rotate {node}"), admin::rotate(node)),
            86..91 => {
                let removes = self.dice.percent(30);
                let name = format!("{} {node}", if removes { "remove" } else { "revoke" });
                let (time, journal, slot) =
                    (self.time.clone(), self.journal.clone(), self.revocations.clone());
                self.command(name, admin::revoke(node, removes, time, journal, slot));
            }
            91..93 => self.command("epoch new".to_owned(), admin::begin_epoch()),
            // A change of no list.
            _ => {
                let work = admin::create_join(EAST, ScopeKind::Instance, Slot::default());
                self.command("a join token for nobody".to_owned(), work);
            }
        }
    }
}
