//! `pulse node …`.

use http::Method;

use super::client::segment;
use super::failure::Failure;
use super::{Asking, now, sources, text};
use crate::api::{self, SetNode, Standing};
use crate::args::Node;

impl Asking {
    pub(super) async fn node(&self, node: &Node) -> Result<String, Failure> {
        let standing = |standing, yes| SetNode { standing: Some(standing), yes, ..SetNode::default() };
        match node {
            Node::List => self.get("/nodes", |nodes: api::Nodes| sources::nodes(&nodes, now())).await,
            Node::Address { instance, node, address } => {
                let address = address.clone().unwrap_or_default();
                let told = match address.as_str() {
                    "" => "is where its source says".to_owned(),
                    address => format!("is at {}", text::clean(address)),
                };
                let set = SetNode { address: Some(address.clone()), ..SetNode::default() };
                self.set_node(instance, node, &set, &told).await
            }
            Node::Pause { instance, node } => {
                let told = "stays as it is, whatever its cluster says";
                self.set_node(instance, node, &standing(Standing::Paused, false), told).await
            }
            Node::Exclude { instance, node, yes } => {
                self.set_node(instance, node, &standing(Standing::Excluded, *yes), "is on no list").await
            }
            Node::Resume { instance, node } => {
                self.set_node(instance, node, &standing(Standing::Active, false), "is in use").await
            }
        }
    }

    async fn set_node(
        &self,
        instance: &str,
        node: &str,
        set: &SetNode,
        told: &str,
    ) -> Result<String, Failure> {
        let path = format!("/instances/{}/nodes/{}", segment(instance), segment(node));
        self.send(Method::PATCH, &path, set, |one: api::Instance| {
            let is_it =
                |known: &api::KnownNode| known.name.eq_ignore_ascii_case(node) && known.origin != "none";
            let absent = match one.nodes.iter().any(is_it) {
                true => "",
                false => "no node of that name is there now: this holds when one comes\n",
            };
            let nodes = text::count(one.endpoints.len(), "node");
            format!(
                "node {} {told}; instance {} has {nodes} to read\n{absent}",
                text::clean(node),
                text::clean(&one.name)
            )
        })
        .await
    }
}
