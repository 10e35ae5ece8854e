//! `pulse allowlist …`.

use http::Method;

use super::client::segment;
use super::failure::Failure;
use super::{Asking, ask, history, now, show, sources, text, typed};
use crate::api;
use crate::args::Allowlist;

impl Asking {
    pub(super) async fn allowlist(&self, allowlist: &Allowlist) -> Result<String, Failure> {
        match allowlist {
            Allowlist::Show { instance, all, revision } => {
                let path = path_of_list("/allowlists", instance, *all, &[("revision", *revision)]);
                self.get(&path, |lists: api::Allowlists| show::allowlists(&lists)).await
            }
            Allowlist::Held => self.get("/instances", |all: api::Instances| sources::held(&all, now())).await,
            Allowlist::Confirm { instance } => {
                let path = format!("/instances/{}", segment(instance));
                let shown: api::Instance = typed(self.client.call(Method::GET, &path, &()).await?)?;
                let confirm =
                    api::ConfirmHeld { seen: Some(shown.held.iter().map(|held| held.held_at).collect()) };
                if ask::is_possible() && !shown.held.is_empty() {
                    ask::confirm(sources::remarks(&shown, true).trim_end(), "Let it go out?")?;
                }
                self.send(Method::POST, &(path + "/held/confirm"), &confirm, |one: api::Instance| {
                    let nodes = text::count(one.endpoints.len(), "node");
                    format!(
                        "what was held of instance {} is in force: it has {nodes} now\n",
                        text::clean(&one.name)
                    )
                })
                .await
            }
            Allowlist::Discard { instance } => {
                let path = format!("/instances/{}/held/discard", segment(instance));
                self.send(Method::POST, &path, &(), |one: api::Instance| {
                    let nodes = text::count(one.endpoints.len(), "node");
                    format!("instance {} keeps its {nodes}\n", text::clean(&one.name))
                })
                .await
            }
            Allowlist::History { instance, all, limit } => {
                let limit = [("limit", Some(u64::from(*limit)))];
                let path = path_of_list("/allowlists/history", instance, *all, &limit);
                self.get(&path, |past: api::ListHistory| history::history(&past)).await
            }
            Allowlist::Diff { from, to, instance, all } => {
                let revisions = [("from", Some(*from)), ("to", Some(*to))];
                let path = path_of_list("/allowlists/diff", instance, *all, &revisions);
                self.get(&path, |diff: api::ListDiff| history::diff(&diff)).await
            }
        }
    }
}

/// A path with the list that is meant and further numbers.
fn path_of_list(path: &str, instance: &Option<String>, all: bool, numbers: &[(&str, Option<u64>)]) -> String {
    let which = match (instance, all) {
        (Some(name), _) => Some(format!("instance={}", segment(name))),
        (None, true) => Some("scope=all".to_owned()),
        (None, false) => None,
    };
    let numbers = numbers.iter().filter_map(|(key, number)| Some(format!("{key}={}", (*number)?)));
    let query: Vec<String> = which.into_iter().chain(numbers).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}
