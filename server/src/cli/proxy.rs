//! `pulse proxy …`.

use http::Method;

use super::failure::Failure;
use super::{Asking, now, pick, show, text, typed};
use crate::api;
use crate::args::Proxy;

impl Asking {
    pub(super) async fn proxy(&self, proxy: &Proxy) -> Result<String, Failure> {
        let what = |proxy: &api::Proxy| format!("proxy {} ({})", proxy.id, text::clean(&proxy.hostname));
        match proxy {
            Proxy::List => self.get("/proxies", |all: api::Proxies| show::proxies(&all, now())).await,
            Proxy::Show { id } => {
                self.get(&self.pick(id).await?, |proxy: api::Proxy| show::proxy(&proxy, now())).await
            }
            Proxy::Set { id, instance, scope } => {
                let set = api::SetProxy { instance: instance.clone(), scope: scope.map(Into::into) };
                self.send(Method::PATCH, &self.pick(id).await?, &set, |proxy: api::Proxy| {
                    format!("{} may read {}\n", what(&proxy), readable(&proxy))
                })
                .await
            }
            Proxy::Approve { id, instance, scope } => {
                let approve = api::ApproveProxy { instance: instance.clone(), scope: scope.map(Into::into) };
                let path = self.pick(id).await? + "/approve";
                self.send(Method::POST, &path, &approve, |proxy: api::Proxy| {
                    format!("approved {}; it may read {}\n", what(&proxy), readable(&proxy))
                })
                .await
            }
            Proxy::DebugToken { id, ttl } => {
                let create = api::CreateDebugToken { ttl_seconds: ttl.as_secs() };
                let path = self.pick(id).await? + "/debug-token";
                self.send(Method::POST, &path, &create, |new: api::NewDebugToken| {
                    format!("TOKEN={} {}\n", text::clean(&new.token), text::clean(&new.command))
                })
                .await
            }
            Proxy::Rotate { id } => {
                let path = self.pick(id).await? + "/rotate";
                self.send(Method::POST, &path, &(), |proxy: api::Proxy| {
                    let when = if proxy.is_connected { "now" } else { "when it is back" };
                    format!(
                        "{} takes a new token {when}; the old one ends with the new one's first use\n",
                        what(&proxy)
                    )
                })
                .await
            }
            Proxy::Revoke { id } => {
                let path = self.pick(id).await? + "/revoke";
                self.send(Method::POST, &path, &(), |proxy: api::Proxy| {
                    format!("revoked {}; it may read nothing until it is registered again\n", what(&proxy))
                })
                .await
            }
            Proxy::Remove { id } => {
                self.send(Method::DELETE, &self.pick(id).await?, &(), |gone: api::Removed| {
                    format!("removed proxy {}\n", text::clean(&gone.removed))
                })
                .await
            }
        }
    }

    /// The path of the proxy that was meant.
    async fn pick(&self, named: &str) -> Result<String, Failure> {
        let id = match named.parse::<uuid::Uuid>() {
            Ok(id) => id,
            Err(_) => {
                let all = self.client.call(Method::GET, "/proxies", &()).await?;
                pick::proxy(&typed::<api::Proxies>(all)?.proxies, named)?
            }
        };
        Ok(format!("/proxies/{id}"))
    }
}

/// Which nodes a proxy may read, in words.
fn readable(proxy: &api::Proxy) -> String {
    match (proxy.scope, &proxy.instance) {
        (api::ScopeKind::All, _) => "every node".to_owned(),
        (_, Some(name)) => format!("the nodes of instance {}", text::clean(name)),
        (_, None) => "nothing until it belongs to an instance".to_owned(),
    }
}
