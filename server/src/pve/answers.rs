//! What Proxmox VE answers: versions, members of a cluster, nodes; from version 5 on, in every shape in which they come.
//!
//! In: an HTTP status and a body. Out: what it says, or a [`Doubt`]. Always: what is half, empty or contradicts itself is a
//! doubt. Never: guesses a member.
//!
//! Source of the shapes: the API viewer of Proxmox VE (pve.proxmox.com/pve-docs/api-viewer), and captured answers.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Doubt;

/// The longest version: `9.1.6` and what a build adds to it.
const MAX_VERSION_BYTES: usize = 64;

/// The longest name of a host, by DNS.
const MAX_NAME_BYTES: usize = 253;

/// What `/version` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// As people write it: `8.4.1`, `7.4-16`, `5.1-41`.
    pub text: String,
    /// Its first number.
    pub major: u32,
}

/// A member of a cluster, or the one node of a standalone host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its address; `None`: the answer has none.
    pub ip: Option<String>,
    /// Whether the cluster sees it. One that is offline is a member all the same.
    pub is_online: bool,
    /// Whether it is the one that answered.
    pub is_local: bool,
}

/// What `/cluster/status` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The cluster's name; `None`: a standalone host, a cluster of one.
    pub cluster: Option<String>,
    /// Its members, in the order of their names. Never empty.
    pub members: Vec<Member>,
}

/// Reads the body of `/version`.
///
/// # Errors
/// [`Doubt::NotProxmox`].
pub fn version(body: &[u8]) -> Result<Version, Doubt> {
    let not_proxmox = || Doubt::NotProxmox("its answer to /version is none of Proxmox VE".to_owned());
    let data = data(body).map_err(|_| not_proxmox())?;
    let text = |key: &str| data.get(key).and_then(text);
    let is_fit = |text: &String| {
        text.len() <= MAX_VERSION_BYTES
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+~".contains(&byte))
    };
    let version = text("version").filter(is_fit).ok_or_else(not_proxmox)?;
    let major = version.split(['.', '-']).next().and_then(|number| number.parse().ok());
    let major = major.filter(|major| *major > 0);
    let major = major.ok_or_else(not_proxmox)?;
    // Before version 6 the number of the build stands apart.
    let is_whole = version.contains('-') || version.matches('.').count() > 1;
    let release = text("release").filter(is_fit).filter(|release| !is_whole && !release.contains('.'));
    let text = release.map_or_else(|| version.clone(), |release| format!("{version}-{release}"));
    Ok(Version { text, major })
}

/// Reads the body of `/cluster/status`.
///
/// # Errors
/// [`Doubt::Garbage`], [`Doubt::Empty`], [`Doubt::Half`], [`Doubt::NoQuorum`], [`Doubt::Doubled`].
pub fn membership(body: &[u8]) -> Result<Membership, Doubt> {
    const WHAT: &str = "/cluster/status";
    let data = data(body).map_err(|why| Doubt::Garbage { path: WHAT, why })?;
    let entries = objects(&data, WHAT)?;
    let is_a =
        |entry: &&Map<String, Value>, kind: &str| entry.get("type").and_then(Value::as_str) == Some(kind);
    let mut clusters = entries.iter().copied().filter(|entry| is_a(entry, "cluster"));
    let cluster = match (clusters.next(), clusters.next()) {
        (cluster, None) => cluster,
        _ => return Err(Doubt::Garbage { path: WHAT, why: "it names several clusters".to_owned() }),
    };
    let mut members = Vec::new();
    for entry in entries.iter().copied().filter(|entry| is_a(entry, "node")) {
        let member = member(entry).map_err(|why| Doubt::Garbage { path: WHAT, why })?;
        // A QDevice has a vote and is no node; corosync lists it under the number 0, which no member of a cluster has.
        let has_no_number = entry.get("nodeid").and_then(number).is_none_or(|number| number == 0);
        let is_device = cluster.is_some() && has_no_number && member.name.eq_ignore_ascii_case("qdevice");
        if !is_device {
            members.push(member);
        }
    }
    if members.is_empty() {
        return Err(Doubt::Empty { path: WHAT });
    }
    members.sort_by_cached_key(|member| (member.name.to_ascii_lowercase(), member.name.clone()));
    if let Some(pair) = members.windows(2).find(|pair| pair[0].name.eq_ignore_ascii_case(&pair[1].name)) {
        return Err(Doubt::Doubled { name: pair[0].name.clone() });
    }
    let Some(cluster) = cluster else {
        if members.len() > 1 {
            let why = "it has several nodes and no cluster".to_owned();
            return Err(Doubt::Garbage { path: WHAT, why });
        }
        return Ok(Membership { cluster: None, members });
    };
    let missing = |what: &str| Doubt::Garbage { path: WHAT, why: format!("it does not say {what}") };
    match cluster.get("quorate").and_then(|value| flag(Some(value))) {
        Some(true) => {}
        Some(false) => return Err(Doubt::NoQuorum),
        None => return Err(missing("whether the cluster has quorum")),
    }
    let expected =
        cluster.get("nodes").and_then(number).ok_or_else(|| missing("how many nodes there are"))?;
    if expected != members.len() as u64 {
        return Err(Doubt::Half { path: WHAT, expected, found: members.len() });
    }
    let name = cluster.get("name").and_then(text).unwrap_or_default();
    Ok(Membership { cluster: Some(name), members })
}

/// Reads the names out of the body of `/nodes`, or of the nodes in `/cluster/resources`.
///
/// # Errors
/// [`Doubt::Garbage`].
pub fn nodes(path: &'static str, body: &[u8]) -> Result<BTreeSet<String>, Doubt> {
    let data = data(body).map_err(|why| Doubt::Garbage { path, why })?;
    let entries = objects(&data, path)?;
    let is_node = |entry: &&Map<String, Value>| entry.get("type").is_none_or(|kind| kind == "node");
    let names = entries.iter().copied().filter(is_node).map(|entry| {
        let name = entry.get("node").and_then(text);
        name.ok_or_else(|| Doubt::Garbage { path, why: "a node in it has no name".to_owned() })
    });
    names.collect()
}

/// Looks whether `/nodes` tells of the same members. A member that is missing there is a half answer.
///
/// # Errors
/// [`Doubt::Half`].
pub fn agree(membership: &Membership, nodes: &BTreeSet<String>) -> Result<(), Doubt> {
    let members: BTreeSet<&str> = membership.members.iter().map(|member| member.name.as_str()).collect();
    match members.iter().copied().eq(nodes.iter().map(String::as_str)) {
        true => Ok(()),
        false => Err(Doubt::Half { path: "/nodes", expected: members.len() as u64, found: nodes.len() }),
    }
}

fn member(entry: &Map<String, Value>) -> Result<Member, String> {
    let name = entry.get("name").and_then(text).ok_or("a node in it has no name")?;
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("a node in it has a name of {} bytes", name.len()));
    }
    let ip = entry.get("ip").and_then(text);
    Ok(Member {
        name,
        ip,
        is_online: flag(entry.get("online")).unwrap_or(false),
        is_local: flag(entry.get("local")).unwrap_or(false),
    })
}

/// What an answer holds: beneath `data`, or bare.
fn data(body: &[u8]) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("it is no JSON ({error})"))?;
    Ok(match value {
        Value::Object(mut outer) if outer.contains_key("data") => outer.remove("data").unwrap_or(Value::Null),
        bare => bare,
    })
}

fn objects<'a>(data: &'a Value, path: &'static str) -> Result<Vec<&'a Map<String, Value>>, Doubt> {
    let list = match data {
        Value::Null => return Err(Doubt::Empty { path }),
        Value::Array(list) => list,
        _ => return Err(Doubt::Garbage { path, why: "it is no list".to_owned() }),
    };
    let objects: Option<Vec<_>> = list.iter().map(Value::as_object).collect();
    objects.ok_or_else(|| Doubt::Garbage { path, why: "it lists something that is no object".to_owned() })
}

/// A text that is not empty; Perl writes numbers as text and the other way round.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn flag(value: Option<&Value>) -> Option<bool> {
    let value = value?;
    value.as_bool().or_else(|| number(value).map(|number| number != 0))
}

#[cfg(test)]
mod tests;
