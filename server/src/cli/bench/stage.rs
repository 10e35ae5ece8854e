//! What the bench makes on the server for itself: an instance and a join token; and how all of it goes again.
//!
//! Always: what goes is found by the instance's name on the server, so that nothing is left of a call whose answer was
//! lost. Never: removes a proxy that is not of the bench's instance, or has not a hostname of the bench's.

use http::Method;

use super::super::client::{Client, segment};
use super::at_once::at_most;
use super::list::List;
use super::{Failure, typed};
use crate::api;

/// How long the join token is good for, if it is not revoked before.
const JOIN_SECONDS: u64 = 15 * 60;
/// Removals at one time: the server writes them in groups.
const AT_ONCE: usize = 64;
/// How often the proxies are looked for, until none is left.
const LOOKS: usize = 3;

/// The bench's own corner of the server.
#[derive(Debug)]
pub(super) struct Stage {
    client: Client,
    name: String,
}

impl Stage {
    /// A corner that nobody else has; nothing is made yet.
    pub(super) fn new(client: Client) -> Stage {
        let random = uuid::Uuid::new_v4().simple().to_string();
        Stage { client, name: format!("bench-{}", &random[..8]) }
    }

    /// The name of the instance; those of proxies and nodes begin with it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The way to the server.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Makes the instance and the join token; returns the join string.
    pub(super) async fn set_up(&self, proxies: u32, list: &List) -> Result<String, Failure> {
        let add = api::AddInstance { name: self.name.clone(), endpoints: list.endpoints(), pve: None };
        self.client.call(Method::POST, "/instances", &add).await?;
        let create = api::CreateJoin {
            instance: Some(self.name.clone()),
            scope: api::ScopeKind::Instance,
            uses: proxies,
            ttl_seconds: JOIN_SECONDS,
        };
        let new: api::NewJoin = typed(self.client.call(Method::POST, "/join-tokens", &create).await?)?;
        Ok(new.join)
    }

    /// Sets the nodes of the instance.
    pub(super) async fn set(&self, set: &api::SetEndpoints) -> Result<(), Failure> {
        self.client.call(Method::PUT, &format!("/instances/{}", segment(&self.name)), set).await.map(drop)
    }

    /// Removes everything. The join token first, so that no registration under way comes after.
    pub(super) async fn clear(&self) -> Result<(), Failure> {
        let join = self.revoke_join().await;
        let proxies = self.remove_proxies().await;
        let instance = self.remove_instance().await;
        join.and(proxies).and(instance).map_err(|failure| {
            let name = &self.name;
            failure.with(&format!(
                "\nsomething of the bench may be left on the server; by hand: `pulse join list` and `pulse join revoke ID`, \
                 `pulse proxy list` and `pulse proxy remove {name}-…`, `pulse instance remove {name} --yes`"
            ))
        })
    }

    async fn revoke_join(&self) -> Result<(), Failure> {
        let all: api::JoinTokens = typed(self.client.call(Method::GET, "/join-tokens", &()).await?)?;
        let is_own = |token: &&api::JoinToken| {
            let is_good = matches!(token.state, api::JoinState::Open | api::JoinState::Used);
            token.instance.as_ref() == Some(&self.name) && is_good
        };
        for token in all.join_tokens.iter().filter(is_own) {
            let path = format!("/join-tokens/{}", segment(&token.id));
            self.client.call(Method::DELETE, &path, &()).await?;
        }
        Ok(())
    }

    async fn remove_proxies(&self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for _ in 0..LOOKS {
            let all: api::Proxies = typed(self.client.call(Method::GET, "/proxies", &()).await?)?;
            let is_own = |proxy: &api::Proxy| {
                proxy.instance.as_ref() == Some(&self.name)
                    && proxy.hostname.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('-'))
            };
            let own: Vec<api::Proxy> = all.proxies.into_iter().filter(is_own).collect();
            if own.is_empty() {
                return Ok(());
            }
            let removals =
                own.into_iter().map(|proxy| {
                    let client = self.client.clone();
                    async move {
                        client.call(Method::DELETE, &format!("/proxies/{}", proxy.id), &()).await.map(drop)
                    }
                });
            outcome = at_most(AT_ONCE, removals).await.map(drop);
        }
        outcome
    }

    async fn remove_instance(&self) -> Result<(), Failure> {
        let all: api::Instances = typed(self.client.call(Method::GET, "/instances", &()).await?)?;
        if !all.instances.iter().any(|instance| instance.name == self.name) {
            return Ok(());
        }
        let path = format!("/instances/{}?yes=true", segment(&self.name));
        self.client.call(Method::DELETE, &path, &()).await.map(drop)
    }
}
