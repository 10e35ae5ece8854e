//! `pulse instance …`.

use http::Method;

use super::client::segment;
use super::failure::Failure;
use super::{Asking, now, show, text};
use crate::api;
use crate::args::Instance;

impl Asking {
    pub(super) async fn instance(&self, instance: &Instance) -> Result<String, Failure> {
        let one = |name: &str| format!("/instances/{}", segment(name));
        match instance {
            Instance::Add { name, endpoints } => {
                let endpoints = endpoints.iter().map(api::Node::from).collect();
                let add = api::AddInstance { name: name.clone(), endpoints };
                self.send(Method::POST, "/instances", &add, |added: api::Instance| {
                    let nodes = text::count(added.endpoints.len(), "node");
                    format!("added instance {} with {nodes}\n", text::clean(&added.name))
                })
                .await
            }
            Instance::List => {
                self.get("/instances", |all: api::Instances| show::instances(&all, now())).await
            }
            Instance::Show { name } => self.get(&one(name), |one: api::Instance| show::instance(&one)).await,
            Instance::Set { name, endpoints } => {
                let set = api::SetEndpoints { endpoints: endpoints.iter().map(api::Node::from).collect() };
                self.send(Method::PUT, &one(name), &set, |set: api::Instance| {
                    let nodes = text::count(set.endpoints.len(), "node");
                    format!("instance {} has {nodes} now\n", text::clean(&set.name))
                })
                .await
            }
            Instance::Remove { name, yes } => {
                let path = one(name) + if *yes { "?yes=true" } else { "" };
                self.send(Method::DELETE, &path, &(), |gone: api::Removed| {
                    format!("removed instance {}\n", text::clean(&gone.removed))
                })
                .await
            }
        }
    }
}
