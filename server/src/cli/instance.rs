//! `pulse instance …`.

use http::Method;

use super::client::segment;
use super::failure::Failure;
use super::{Asking, now, show, sources, text};
use crate::api::{self, Standing};
use crate::args::Instance;

impl Asking {
    pub(super) async fn instance(&self, instance: &Instance) -> Result<String, Failure> {
        let one = |name: &str| format!("/instances/{}", segment(name));
        match instance {
            Instance::Add { name, endpoints, pve } => {
                let endpoints = endpoints.iter().map(api::Node::from).collect();
                let pve = if pve.is_given() { Some(self.pve(pve).await?) } else { None };
                let add = api::AddInstance { name: name.clone(), endpoints, pve };
                self.send(Method::POST, "/instances", &add, |added: api::Instance| {
                    let nodes = text::count(added.endpoints.len(), "node");
                    format!(
                        "added instance {} with {nodes}\n{}",
                        text::clean(&added.name),
                        sources::remarks(&added, false)
                    )
                })
                .await
            }
            Instance::List => {
                self.get("/instances", |all: api::Instances| show::instances(&all, now())).await
            }
            Instance::Show { name } => {
                self.get(&one(name), |one: api::Instance| sources::instance(&one, now())).await
            }
            Instance::Set { name, no_pve: true, .. } => {
                self.send(Method::DELETE, &(one(name) + "/pve"), &(), |set: api::Instance| {
                    format!(
                        "instance {} keeps its nodes; Proxmox VE is asked no more\n",
                        text::clean(&set.name)
                    )
                })
                .await
            }
            Instance::Set { name, pve, add_fingerprints, .. }
                if pve.is_given() || !add_fingerprints.is_empty() =>
            {
                let set = api::SetPve { add_fingerprints: add_fingerprints.clone(), ..self.pve(pve).await? };
                self.send(Method::PUT, &(one(name) + "/pve"), &set, |set: api::Instance| {
                    format!("Proxmox VE is asked for the nodes of instance {} now\n", text::clean(&set.name))
                })
                .await
            }
            Instance::Set { name, endpoints, yes, .. } => {
                let endpoints = endpoints.iter().map(api::Node::from).collect();
                let set = api::SetEndpoints { endpoints, yes: *yes };
                self.send(Method::PUT, &one(name), &set, |set: api::Instance| {
                    let nodes = text::count(set.endpoints.len(), "node");
                    format!(
                        "instance {} has {nodes} now\n{}",
                        text::clean(&set.name),
                        sources::remarks(&set, false)
                    )
                })
                .await
            }
            Instance::Pause { name } => {
                self.set_use(name, Standing::Paused, false, "is asked no more; its list stays as it is").await
            }
            Instance::Exclude { name, yes } => {
                self.set_use(name, Standing::Excluded, *yes, "is on no list").await
            }
            Instance::Resume { name } => self.set_use(name, Standing::Active, false, "is in use").await,
            Instance::Remove { name, yes } => {
                let path = one(name) + if *yes { "?yes=true" } else { "" };
                self.send(Method::DELETE, &path, &(), |gone: api::Removed| {
                    format!("removed instance {}\n", text::clean(&gone.removed))
                })
                .await
            }
        }
    }

    async fn set_use(
        &self,
        name: &str,
        standing: Standing,
        yes: bool,
        told: &str,
    ) -> Result<String, Failure> {
        let path = format!("/instances/{}/standing", segment(name));
        self.send(Method::PUT, &path, &api::SetUse { standing, yes }, |set: api::Instance| {
            format!("instance {} {told}\n", text::clean(&set.name))
        })
        .await
    }
}
