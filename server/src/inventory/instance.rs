//! [`Instance`]: a standalone host or a cluster, its nodes with where they come from, and what admins want of them.
//!
//! In: nodes as an admin typed them, an older install listed them, or the cluster tells them. Out: the nodes that may be read.
//! Always: what an admin set for a node outlives the node; of two sources that name one node differently, what was typed stands.
//! Never: decides whether a change may go out by itself; `shrink` does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulse_proto::Node;
use uuid::Uuid;

use crate::pve::address::PveUrl;
use crate::pve::certificate::Fingerprint;

/// Who says that a node exists. What comes later stands behind what comes before, where both name one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// An admin typed it.
    Manual,
    /// It was in the files of an older install.
    Import,
    /// The cluster tells it.
    Cluster,
}

impl Origin {
    /// The word for people, JSON and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Manual => "manual",
            Origin::Import => "import",
            Origin::Cluster => "cluster",
        }
    }
}

/// Whether an instance or a node is in use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Use {
    /// It is.
    #[default]
    Active,
    /// It stays as it is, whatever its source says.
    Paused,
    /// It is on no list.
    Excluded,
}

impl Use {
    /// The word for people, JSON and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Use::Active => "active",
            Use::Paused => "paused",
            Use::Excluded => "excluded",
        }
    }
}

/// A node as its source names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownNode {
    /// Its name and address, as the source says.
    pub node: Node,
    /// The source.
    pub origin: Origin,
    /// When the source said so, as far as the catalog knows: a cluster that goes on saying it does not change the catalog.
    pub confirmed_at: SystemTime,
}

/// What an admin set for a node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wish {
    /// Where it is, in place of what its source says; `None`: as that says.
    pub address: Option<String>,
    /// Whether it is in use.
    pub standing: Use,
}

/// A change that would take away too much, and waits for an admin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// What the nodes of this origin would be.
    pub nodes: Vec<Node>,
    /// The names of those that would go.
    pub gone: Vec<String>,
    /// Who wants it.
    pub by: String,
    /// Since when it waits.
    pub at: SystemTime,
    /// Whether an admin said no: it is then not asked again, until its source says something else.
    pub is_discarded: bool,
}

/// Proxmox VE as the source of an instance's nodes.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// The hosts that are asked, in turn. Not empty.
    pub urls: Vec<PveUrl>,
    /// The API token's id: `USER@REALM!ID`.
    pub token_id: String,
    /// The API token's secret, sealed for this instance.
    pub sealed_secret: Arc<[u8]>,
    /// The certificates that are trusted; empty: those that the system trusts.
    pub fingerprints: Vec<Fingerprint>,
    /// How often it is asked.
    pub poll_interval: Duration,
}

/// Shows everything but the sealed secret.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("urls", &self.urls)
            .field("token_id", &self.token_id)
            .field("fingerprints", &self.fingerprints)
            .field("poll_interval", &self.poll_interval)
            .finish_non_exhaustive()
    }
}

/// All that is stored of an instance.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// Its identity; never changes.
    pub id: Uuid,
    /// Its name: 1 to 63 of `[A-Za-z0-9._-]`, beginning alphanumeric.
    pub name: String,
    /// Its nodes as their sources name them; of one name there is one for each origin. Empty once it is removed.
    pub nodes: Vec<KnownNode>,
    /// What admins set for nodes, by their names in lower case; also for those that are not there at the moment.
    pub wishes: BTreeMap<String, Wish>,
    /// Whether it is in use.
    pub standing: Use,
    /// Where its nodes come from, beside an admin.
    pub source: Option<Source>,
    /// Changes that wait for an admin, by whose nodes they would change.
    pub held: BTreeMap<Origin, Held>,
    /// When it was added.
    pub created_at: SystemTime,
    /// When it was removed, if it was.
    pub removed_at: Option<SystemTime>,
}

/// A Proxmox VE instance: a standalone host or a cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct Instance {
    facts: Facts,
    endpoints: Vec<Node>,
}

impl std::ops::Deref for Instance {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

impl From<Facts> for Instance {
    fn from(facts: Facts) -> Instance {
        let endpoints = readable(&facts);
        Instance { facts, endpoints }
    }
}

impl Instance {
    /// A new one, with nodes that were typed.
    #[must_use]
    pub fn new(id: Uuid, name: &str, nodes: Vec<Node>, created_at: SystemTime) -> Instance {
        let known = |node| KnownNode { node, origin: Origin::Manual, confirmed_at: created_at };
        Instance::from(Facts {
            id,
            name: name.to_owned(),
            nodes: nodes.into_iter().map(known).collect(),
            wishes: BTreeMap::new(),
            standing: Use::Active,
            source: None,
            held: BTreeMap::new(),
            created_at,
            removed_at: None,
        })
    }

    /// The same, but for what `change` does to it.
    #[must_use]
    pub fn with(&self, change: impl FnOnce(&mut Facts)) -> Instance {
        let mut facts = self.facts.clone();
        change(&mut facts);
        Instance::from(facts)
    }

    /// The same, with a change let out that is held; `None`: none of this origin is.
    #[must_use]
    pub fn with_held(&self, origin: Origin, at: SystemTime) -> Option<Instance> {
        let nodes = self.held.get(&origin)?.nodes.clone();
        Some(self.with(|facts| facts.put(origin, nodes, at)))
    }

    /// The nodes that may be read: what goes on lists.
    #[must_use]
    pub fn endpoints(&self) -> &[Node] {
        &self.endpoints
    }

    /// Whether it has not been removed.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.removed_at.is_none()
    }
}

impl Facts {
    /// What an admin set for this node.
    #[must_use]
    pub fn wish(&self, name: &str) -> Option<&Wish> {
        if self.wishes.is_empty() { None } else { self.wishes.get(&name.to_ascii_lowercase()) }
    }

    /// Puts the nodes of one origin in the place of those that it had. Of nodes that are the same, the time stays, as the
    /// cluster's is known elsewhere; those whom an admin paused stay as they are.
    pub fn replace(&mut self, origin: Origin, nodes: Vec<Node>, at: SystemTime) {
        let had: HashMap<String, KnownNode> = {
            let had = self.nodes.iter().filter(|known| known.origin == origin);
            had.map(|known| (known.node.name().to_ascii_lowercase(), known.clone())).collect()
        };
        let is_paused = |name: &str| self.wish(name).is_some_and(|wish| wish.standing == Use::Paused);
        let mut kept: HashSet<String> = HashSet::new();
        let mut replaced: Vec<KnownNode> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let name = node.name().to_ascii_lowercase();
            let known = match had.get(&name) {
                Some(before) if before.node == node || (origin == Origin::Cluster && is_paused(&name)) => {
                    before.clone()
                }
                _ => KnownNode { node, origin, confirmed_at: at },
            };
            replaced.push(known);
            kept.insert(name);
        }
        if origin == Origin::Cluster {
            let stays = |known: &&KnownNode| {
                let name = known.node.name().to_ascii_lowercase();
                known.origin == origin && !kept.contains(&name) && is_paused(&name)
            };
            replaced.extend(self.nodes.iter().filter(stays).cloned());
        }
        // What the cluster confirms need not be typed any more, and what an older install said of its members is over.
        let told: HashMap<String, &Node> = match origin {
            Origin::Cluster => {
                replaced.iter().map(|known| (known.node.name().to_ascii_lowercase(), &known.node)).collect()
            }
            _ => HashMap::new(),
        };
        let is_told = |known: &KnownNode| {
            let told = told.get(&known.node.name().to_ascii_lowercase());
            told.is_some_and(|told| known.origin == Origin::Import || told.address() == known.node.address())
        };
        let others = self.nodes.iter().filter(|known| known.origin != origin && !is_told(known));
        let mut all: Vec<KnownNode> = others.cloned().collect();
        all.extend(replaced);
        // In the order of origins; within one, as it was given.
        all.sort_by_key(|known| known.origin);
        self.nodes = all;
    }

    /// Puts nodes in the place of those that this origin had. What is typed stands in for what was imported too, and what another
    /// source names as well stays that one's.
    pub fn put(&mut self, origin: Origin, nodes: Vec<Node>, at: SystemTime) {
        self.held.remove(&origin);
        if origin == Origin::Cluster {
            return self.replace(origin, nodes, at);
        }
        let wanted: HashSet<&Node> = nodes.iter().collect();
        self.nodes.retain(|known| known.origin != Origin::Import || wanted.contains(&known.node));
        let others = self.nodes.iter().filter(|known| known.origin != Origin::Manual);
        let known: HashSet<Node> = others.map(|known| known.node.clone()).collect();
        let typed = nodes.into_iter().filter(|node| !known.contains(node)).collect();
        self.replace(Origin::Manual, typed, at);
    }

    /// Whether another source names a node of this name too, and stands before this one.
    #[must_use]
    pub fn is_outvoted(&self, known: &KnownNode) -> bool {
        let same = |other: &KnownNode| {
            other.origin < known.origin && other.node.name().eq_ignore_ascii_case(known.node.name())
        };
        self.nodes.iter().take_while(|other| other.origin < known.origin).any(same)
    }

    /// A node as it goes on lists; `None`: it is on none.
    #[must_use]
    pub fn on_lists(&self, known: &KnownNode) -> Option<Node> {
        let wish = self.wish(known.node.name());
        if wish.is_some_and(|wish| wish.standing == Use::Excluded) || self.is_outvoted(known) {
            return None;
        }
        match wish.and_then(|wish| wish.address.as_deref()) {
            // Both were looked at when they were set: a name that is an address, and not this one, stays as it is.
            Some(address) => Node::new(known.node.name(), address).ok().or_else(|| Some(known.node.clone())),
            None => Some(known.node.clone()),
        }
    }
}

fn readable(facts: &Facts) -> Vec<Node> {
    if facts.removed_at.is_some() || facts.standing == Use::Excluded {
        return Vec::new();
    }
    // Mostly there is one origin and no wish: then nothing is compared.
    facts.nodes.iter().filter_map(|known| facts.on_lists(known)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(line: &str) -> Node {
        let (name, ip) = line.split_once('=').unwrap_or((line, ""));
        Node::new(name, ip).unwrap()
    }

    fn nodes(lines: &[&str]) -> Vec<Node> {
        lines.iter().map(|line| node(line)).collect()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn instance(typed: &[&str]) -> Instance {
        Instance::new(Uuid::nil(), "home", nodes(typed), at(1))
    }

    fn told(instance: &Instance, members: &[&str]) -> Instance {
        instance.with(|facts| facts.replace(Origin::Cluster, nodes(members), at(2)))
    }

    fn wish(instance: &Instance, name: &str, wish: Wish) -> Instance {
        instance.with(|facts| drop(facts.wishes.insert(name.to_owned(), wish)))
    }

    #[test]
    fn what_the_cluster_confirms_is_the_clusters_and_what_else_was_typed_stays() {
        let home = told(&instance(&["a=192.0.2.1", "backup=192.0.2.9"]), &["a=192.0.2.1", "b=192.0.2.2"]);
        let origins: Vec<_> = home.nodes.iter().map(|known| (known.node.name(), known.origin)).collect();
        assert_eq!(origins, [("backup", Origin::Manual), ("a", Origin::Cluster), ("b", Origin::Cluster)]);
        let left = told(&home, &["a=192.0.2.1"]);
        assert_eq!(left.endpoints(), nodes(&["backup=192.0.2.9", "a=192.0.2.1"]));
    }

    #[test]
    fn what_was_imported_is_the_clusters_once_that_names_it() {
        let imported =
            instance(&[]).with(|facts| facts.replace(Origin::Import, nodes(&["a=192.0.2.90", "nas"]), at(1)));
        let home = told(&imported, &["a=192.0.2.1", "b"]);
        assert_eq!(home.endpoints(), nodes(&["nas", "a=192.0.2.1", "b"]));
        assert_eq!(told(&home, &["b"]).endpoints(), nodes(&["nas", "b"]), "and leaves with it");
        let typed = told(&instance(&["A=192.0.2.1"]), &["a=192.0.2.1"]);
        assert_eq!(typed.endpoints(), nodes(&["a=192.0.2.1"]), "a name is the same in another case");
    }

    #[test]
    fn where_two_sources_name_one_node_what_was_typed_is_on_the_list() {
        let home = told(&instance(&["a=192.0.2.1"]), &["A=198.51.100.1", "b"]);
        assert_eq!(home.endpoints(), nodes(&["a=192.0.2.1", "b"]));
        assert!(home.is_outvoted(&home.nodes[1]));
    }

    #[test]
    fn an_address_that_an_admin_set_outlives_the_node() {
        let elsewhere = Wish { address: Some("203.0.113.7".to_owned()), standing: Use::Active };
        let home = wish(&told(&instance(&[]), &["a=192.0.2.1", "b"]), "a", elsewhere);
        assert_eq!(home.endpoints(), nodes(&["a=203.0.113.7", "b"]));
        let back = told(&told(&home, &["b"]), &["b", "A=192.0.2.3"]);
        assert_eq!(back.endpoints(), nodes(&["b", "A=203.0.113.7"]));
    }

    #[test]
    fn who_is_excluded_is_on_no_list_and_who_is_paused_stays_as_it_is() {
        let home = told(&instance(&[]), &["a=192.0.2.1", "b=192.0.2.2"]);
        let out = wish(&home, "a", Wish { address: None, standing: Use::Excluded });
        assert_eq!(out.endpoints(), nodes(&["b=192.0.2.2"]));
        let paused = wish(&home, "a", Wish { address: None, standing: Use::Paused });
        assert_eq!(
            told(&paused, &["a=192.0.2.8", "b=192.0.2.8"]).endpoints(),
            nodes(&["a=192.0.2.1", "b=192.0.2.8"])
        );
        assert_eq!(told(&paused, &["b=192.0.2.2"]).endpoints(), nodes(&["b=192.0.2.2", "a=192.0.2.1"]));
        let gone = home.with(|facts| facts.standing = Use::Excluded);
        assert_eq!(gone.endpoints(), []);
    }

    #[test]
    fn a_node_that_is_the_same_keeps_the_time_at_which_it_was_confirmed() {
        let home = told(&instance(&[]), &["a", "b"]);
        let later = home.with(|facts| facts.replace(Origin::Cluster, nodes(&["a", "b=192.0.2.2"]), at(9)));
        let times: Vec<_> = later.nodes.iter().map(|known| known.confirmed_at).collect();
        assert_eq!(times, [at(2), at(9)]);
    }

    #[test]
    fn debug_of_a_source_does_not_show_what_is_sealed() {
        let source = Source {
            urls: vec!["https://pve:8006".parse().unwrap()],
            token_id: "pulse@pve!monitor".to_owned(),
            sealed_secret: Arc::from(&b"sealed-bytes"[..]),
            fingerprints: Vec::new(),
            poll_interval: Duration::from_secs(10),
        };
        assert!(!format!("{source:?}").contains("sealed"));
    }
}
