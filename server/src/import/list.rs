//! The lists that older proxies were given by hand or by their installer: `allowed_nodes` in a configuration, and the file of
//! its own, in its three forms.
//!
//! Always: a name and an address are two entries, as nothing tells which belong together.
//! Never: walks a network, takes a loopback for a node, or repeats a line of what may be no list at all.

use std::collections::BTreeSet;

use pulse_config::{Document, ListForm, Listed, ListedEntry, StaticEntry, Value, read_each_entry};
use pulse_proto::Node;

use super::{Findings, FoundInstance, Unread, is_loopback};

/// Reads the nodes of such a text.
pub(super) fn read(text: &str, source: &str) -> Findings {
    let mut findings = Findings::default();
    let Listed { form, entries } = match read_each_entry(text, source) {
        Ok(listed) => listed,
        Err(mistakes) => {
            let damaged = mistakes.remarks().iter().map(|remark| {
                let way_out = "mend that line, or copy the file again, whole";
                Unread::new(remark.place.to_string(), remark.text.clone(), way_out)
            });
            findings.unread.extend(damaged);
            return findings;
        }
    };
    if matches!(form, ListForm::Lines)
        && !entries.is_empty()
        && entries.iter().all(|listed| listed.entry.is_err())
    {
        let what = "it is none of the files that older installs have";
        let way_out = "give a config.yaml, an allowed_nodes.yaml, a corosync.conf or a control token's file";
        return Findings::of_unread(Unread::new(source, what, way_out));
    }
    if entries.len() > pulse_proto::MAX_NODES {
        let what = format!(
            "it has {} entries, and a list has {} nodes at the most",
            entries.len(),
            pulse_proto::MAX_NODES
        );
        return Findings::of_unread(Unread::new(source, what, "split it"));
    }
    let mut instance = FoundInstance::new(None, source);
    for listed in &entries {
        match node(listed, &form) {
            Ok(node) => instance.add(node),
            Err((what, way_out)) => {
                findings.unread.push(Unread::new(format!("{source}:{}", listed.line), what, way_out));
            }
        }
    }
    tell_of_kinds(&instance, &mut findings, source);
    if let ListForm::Block(document) = &form {
        tell_of_others(document, &mut findings, source);
    }
    if !instance.nodes.is_empty() {
        findings.instances.push(instance);
    } else if entries.is_empty() {
        findings.notes.push(format!("{source} lists no nodes"));
    }
    findings
}

/// The node that an entry names; or why it names none, and what to do.
fn node(listed: &ListedEntry, form: &ListForm) -> Result<Node, (String, String)> {
    let entry = match &listed.entry {
        Ok(entry) => entry,
        // A line of a text that is a list by its lines only may be anything, also a secret.
        Err(_) if matches!(form, ListForm::Lines) => {
            return Err((
                "this line is no host's name or address".to_owned(),
                "correct or remove it".to_owned(),
            ));
        }
        Err(rule) => return Err((rule.clone(), "correct or remove this entry".to_owned())),
    };
    let text = entry.to_string();
    if is_loopback(&text) {
        let what = format!("{text} is a loopback, and no node of a fleet");
        return Err((
            what,
            "nothing is lost: each host is on the list by its own name or address".to_owned(),
        ));
    }
    let no_node =
        |error: pulse_proto::node::NodeError| (error.to_string(), "correct or remove this entry".to_owned());
    match entry {
        StaticEntry::Name(name) => Node::new(name, "").map_err(no_node),
        StaticEntry::Address(address) if address.is_ipv6() => Err((
            format!("{text} is an IPv6 address without a name, and a node needs one"),
            "add the node by its name, with this as its address".to_owned(),
        )),
        StaticEntry::Address(_) => Node::new(&text, &text).map_err(no_node),
        StaticEntry::Network(_) => Err((
            format!("{text} is a range, and a list names nodes: ranges are never walked"),
            "add the nodes in it that you have, by their names".to_owned(),
        )),
    }
}

/// Says that a host may be there twice.
fn tell_of_kinds(instance: &FoundInstance, findings: &mut Findings, source: &str) {
    let is_bare = |node: &&Node| node.name() == node.address().to_string();
    let bare = instance.nodes.iter().filter(is_bare).count();
    if bare == 0 {
        return;
    }
    let mut note =
        format!("{source}: {bare} of its nodes have an address and no name, so the address is their name");
    if bare < instance.nodes.len() {
        note += "; a host whose name stands there too is then a node twice, until a person or Proxmox VE says which belong together";
    }
    findings.notes.push(note);
}

/// Says what else a configuration names that can be imported. Not by its path: what stands there by mistake may be a secret.
fn tell_of_others(document: &Document, findings: &mut Findings, source: &str) {
    let mut lines: BTreeSet<(usize, &str)> = BTreeSet::new();
    for entry in document.entries() {
        match (entry.key.as_str(), &entry.node.value) {
            ("allowed_nodes_file", Value::Scalar(_)) => {
                lines.insert((entry.line, "a file with more nodes"));
            }
            ("pulse_control_plane", Value::Map(inner)) => {
                let files = inner.iter().filter(|inner| inner.key == "token_file");
                lines.extend(files.map(|file| (file.line, "the file of its control token")));
            }
            _ => {}
        }
    }
    let notes =
        lines.into_iter().map(|(line, what)| format!("{source}:{line} names {what}: import that too"));
    findings.notes.extend(notes);
}
