//! `corosync.conf`: who is in a cluster, as its members wrote it down.
//!
//! In: the file's text. Out: the cluster's name and nodes. Always: a file whose blocks do not close is damaged as a whole, as
//! members may be missing. Never: takes a quorum device for a node.
//!
//! Source: `corosync.conf(5)`: lines `key: value`, blocks `name {` to `}`, and `#` at the beginning of a line.

use pulse_proto::Node;

use super::{Findings, FoundInstance, Unread, instance_name, is_loopback, quoted};

/// The deepest block that is read; the deepest of corosync's own stands at 3.
const MAX_DEPTH: usize = 16;

/// A block: `name { … }`.
#[derive(Default)]
struct Block {
    name: String,
    line: usize,
    values: Vec<(String, String)>,
    blocks: Vec<Block>,
}

impl Block {
    /// All blocks of this name directly in this one.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Block> {
        self.blocks.iter().filter(move |block| block.name == name)
    }

    /// The value of a key; the last one counts.
    fn value(&self, key: &str) -> Option<&str> {
        let found = self.values.iter().rfind(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Whether a file was meant to be one.
pub(super) fn is_meant(name: &str, text: &str) -> bool {
    let opens = |line: &str| {
        let name = line.trim().strip_suffix('{').map(str::trim_end);
        name.is_some_and(|name| ["totem", "nodelist"].contains(&name))
    };
    name.starts_with("corosync") && name.contains(".conf") || text.lines().any(opens)
}

/// Reads the nodes of a cluster.
pub(super) fn read(text: &str, source: &str) -> Findings {
    let root = match parse(text) {
        Ok(root) => root,
        Err((line, what)) => {
            let way_out = "copy the file again, whole, from /etc/pve/corosync.conf of a member";
            return Findings::of_unread(Unread::new(format!("{source}:{line}"), what, way_out));
        }
    };
    let mut findings = Findings::default();
    let cluster = root.all("totem").find_map(|totem| totem.value("cluster_name"));
    let mut instance = FoundInstance::new(cluster.and_then(instance_name), source);
    if let (Some(old), new) = (cluster, &instance.name)
        && new.as_deref() != Some(old)
    {
        let new = new.as_deref().map_or("without a name".to_owned(), |new| format!("as {new}"));
        findings.notes.push(format!(
            "{source}: the cluster {} is taken {new}: instances have names of A-Z a-z 0-9 . _ -",
            quoted(old)
        ));
    }
    let members: Vec<&Block> = root.all("nodelist").flat_map(|list| list.all("node")).collect();
    if members.is_empty() {
        let what = "it has no nodelist, as those of very old clusters, so it names no nodes";
        findings.unread.push(Unread::new(
            source,
            what,
            "add the nodes by hand, or give Pulse an API token of the cluster",
        ));
        return findings;
    }
    for member in &members {
        match node(member) {
            Ok(node) => instance.add(node),
            Err((what, way_out)) => {
                findings.unread.push(Unread::new(format!("{source}:{}", member.line), what, way_out));
            }
        }
    }
    if members.iter().any(|member| member.value("ring0_addr").is_some()) {
        findings.notes.push(format!(
            "{source}: addresses are those of the first ring, which may be the cluster's own network and not where the host answers \
             others; set another where that is so"
        ));
    }
    let devices = root.all("quorum").flat_map(|quorum| quorum.all("device")).count();
    if devices > 0 {
        findings.notes.push(format!("{source}: its quorum device votes and is no node, so it is left out"));
    }
    if !instance.nodes.is_empty() {
        findings.instances.push(instance);
    }
    findings
}

/// The node of a member; or why there is none, and what to do.
fn node(member: &Block) -> Result<Node, (String, String)> {
    let ring = member.value("ring0_addr").unwrap_or_default();
    // Files of old versions have no names.
    let Some(name) = member.value("name").or((!ring.is_empty()).then_some(ring)) else {
        return Err(("this node has neither a name nor an address".to_owned(), "add it by hand".to_owned()));
    };
    if is_loopback(name) || is_loopback(ring) {
        let what = format!("the node {} is at a loopback, and no node of a fleet", quoted(name));
        return Err((what, "add it by hand, with the address at which others reach it".to_owned()));
    }
    // An address that is the name says nothing more; but an address that has to be the name does.
    let is_address = ring.parse::<std::net::IpAddr>().is_ok();
    let address = if ring.eq_ignore_ascii_case(name) && !is_address { "" } else { ring };
    Node::new(name, address).map_err(|error| (error.to_string(), "add it by hand".to_owned()))
}

/// The file as blocks in one that has no name; or the line that is damaged.
fn parse(text: &str) -> Result<Block, (usize, String)> {
    let mut open = vec![Block::default()];
    let mut last = 1;
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        last = number;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_suffix('{') {
            if open.len() > MAX_DEPTH {
                return Err((number, "its blocks are nested too deep".to_owned()));
            }
            open.push(Block { name: name.trim_end().to_owned(), line: number, ..Block::default() });
        } else if line == "}" {
            let closed = open.pop().filter(|_| !open.is_empty());
            let (Some(closed), Some(outer)) = (closed, open.last_mut()) else {
                return Err((number, "a block ends here that never began".to_owned()));
            };
            outer.blocks.push(closed);
        } else if let (Some((key, value)), Some(block)) = (line.split_once(':'), open.last_mut()) {
            block.values.push((key.trim_end().to_owned(), value.trim_start().to_owned()));
        } else {
            return Err((
                number,
                "this line is neither `key: value` nor the beginning or end of a block".to_owned(),
            ));
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(root), true) => Ok(root),
        (block, _) => {
            let (name, line) = block.map(|block| (block.name, block.line)).unwrap_or_default();
            Err((last, format!("it ends in the middle of the block {} of line {line}", quoted(&name))))
        }
    }
}
