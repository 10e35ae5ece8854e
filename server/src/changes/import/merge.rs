//! Of several files one picture: an instance by its name, a control token by its digest.
//!
//! In: what was found, file by file. Out: [`Merged`]. Always: one token is one host's; of two hosts that are said to have it, the
//! first one. Never: looks at the fleet.

use pulse_proto::{Node, TokenDigest};

use super::{Import, Report, count, is_same};
use crate::import::{FoundInstance, FoundProxy, FoundPve};

/// All that was found.
pub(super) struct Merged {
    /// Instances, in the order in which they were found.
    pub(super) instances: Vec<WantedInstance>,
    /// Control tokens, in that order too.
    pub(super) tokens: Vec<WantedToken>,
}

/// An instance as the files have it.
pub(super) struct WantedInstance {
    /// Its name.
    pub(super) name: String,
    /// Its nodes: those of which the address is known come first, so that they are the ones that are taken.
    pub(super) nodes: Vec<Node>,
    /// Nodes with the address that a person set.
    pub(super) address_overrides: Vec<(String, String)>,
    /// Where and as whom Proxmox VE is asked; the first one goes first.
    pub(super) sources: Vec<FoundPve>,
    /// The files.
    files: Vec<String>,
}

/// A control token as the files have it.
pub(super) struct WantedToken {
    /// Its SHA-256.
    pub(super) digest: TokenDigest,
    /// Its host, if it is known.
    pub(super) hostname: Option<String>,
    /// Where the host's own listener is.
    pub(super) proxy_url: Option<String>,
    /// The name of its instance, if one is named.
    pub(super) instance: Option<String>,
    /// The file.
    pub(super) file: String,
}

impl WantedToken {
    /// Whether it is of this instance.
    pub(super) fn is_of(&self, instance: &str) -> bool {
        self.instance.as_ref().is_some_and(|name| is_same(name, instance))
    }
}

/// Makes one picture of all files.
pub(super) fn merge(import: &Import, report: &mut Report) -> Merged {
    let mut merged = Merged { instances: Vec::new(), tokens: Vec::new() };
    for found in &import.instances {
        let name = found.name.as_ref().or(import.instance.as_ref());
        let is_taken = match name {
            Some(name) => merged.add_instance(name, found, report),
            None => {
                tell_of_nameless(found, report);
                true
            }
        };
        if !is_taken {
            continue;
        }
        for proxy in &found.proxies {
            merged.add_token(proxy, name, &found.source, report);
        }
    }
    for instance in &mut merged.instances {
        instance.nodes.sort_by_key(|node| node.address().to_string().is_empty());
    }
    for token in merged.tokens.iter_mut().filter(|token| token.hostname.is_none()) {
        token.hostname.clone_from(&import.host);
    }
    merged
}

/// Control tokens need no name: their host may tell the instance.
fn tell_of_nameless(found: &FoundInstance, report: &mut Report) {
    if found.nodes.is_empty() && found.pve.is_none() {
        return;
    }
    let (nodes, source) = (count(found.nodes.len(), "node"), &found.source);
    let text = format!("{nodes} of {source}: it is not said of which instance they are");
    report.left_out("instance", None, text, "name it with --instance NAME");
}

impl Merged {
    /// Adds what is known of an instance; `false`: it is another one of the same name.
    fn add_instance(&mut self, name: &str, found: &FoundInstance, report: &mut Report) -> bool {
        let at = match self.instances.iter().position(|known| is_same(&known.name, name)) {
            Some(at) => at,
            None => {
                self.instances.push(WantedInstance {
                    name: name.to_owned(),
                    nodes: Vec::new(),
                    address_overrides: Vec::new(),
                    sources: Vec::new(),
                    files: Vec::new(),
                });
                self.instances.len() - 1
            }
        };
        let known = &mut self.instances[at];
        let is_named = |node: &Node| known.nodes.iter().any(|known| is_same(known.name(), node.name()));
        let has_nodes = !known.nodes.is_empty() && !found.nodes.is_empty();
        if has_nodes && known.files.contains(&found.source) && !found.nodes.iter().any(is_named) {
            let text = format!(
                "a second instance {name} in {}, which has none of the nodes of the first: it is another one, with {} and {}",
                found.source,
                count(found.nodes.len(), "node"),
                count(found.proxies.len(), "control token"),
            );
            let way_out = "add it under another name: `pulse instance add NAME --endpoint NODE=ADDR`";
            report.left_out("instance", Some(name), text, way_out);
            return false;
        }
        for node in &found.nodes {
            if !known.nodes.iter().any(|known| known.is_same_as(node)) {
                known.nodes.push(node.clone());
            }
        }
        known.address_overrides.extend(found.address_overrides.iter().cloned());
        known.sources.extend(found.pve.clone());
        known.files.push(found.source.clone());
        true
    }

    fn add_token(&mut self, proxy: &FoundProxy, instance: Option<&String>, file: &str, report: &mut Report) {
        let shown = proxy.hostname.as_deref().unwrap_or("a host that is not named");
        let Some(digest) = proxy.token_digest else {
            let text =
                format!("the proxy of {shown} in {file}: its control token is not known, only its URL");
            let way_out =
                "register the host with a join token (`pulse join create`): it then says its URL itself";
            return report.left_out("proxy", instance.map(String::as_str), text, way_out);
        };
        let Some(known) = self.tokens.iter_mut().find(|known| known.digest == digest) else {
            return self.tokens.push(WantedToken {
                digest,
                hostname: proxy.hostname.clone(),
                proxy_url: proxy.proxy_url.clone(),
                instance: instance.cloned(),
                file: file.to_owned(),
            });
        };
        match (&known.hostname, &proxy.hostname) {
            // Who knows the host, knows the instance too.
            (None, Some(hostname)) => {
                known.hostname = Some(hostname.clone());
                known.instance = instance.cloned().or(known.instance.take());
                known.file = file.to_owned();
            }
            (Some(known), Some(other)) if !is_same(known, other) => {
                let text =
                    format!("the control token of {other} in {file}: it is {known}'s too, and stays that");
                let way_out = format!("register {other} with a join token (`pulse join create`)");
                return report.left_out("proxy", instance.map(String::as_str), text, way_out);
            }
            _ => known.instance = known.instance.take().or(instance.cloned()),
        }
        known.proxy_url = known.proxy_url.take().or(proxy.proxy_url.clone());
    }
}
