//! The nodes that a membership means.

use std::net::IpAddr;

use pulse_proto::node::Address;
use pulse_proto::{Node, NodeError};

use crate::inventory::{Facts, KnownNode, Origin, Use};
use crate::pve::Doubt;
use crate::pve::answers::Membership;

/// The members as nodes, by name, as hosts tell them in any order. Where a member's address is not told, or is none at which others
/// can reach it, it is the one that it had; else, for the node that answered, `url_host`, the host part of the URL that was asked.
/// Who is excluded may have any name.
///
/// # Errors
/// [`Doubt::Unfit`] if a member cannot be a node.
pub fn nodes_of(
    membership: &Membership,
    url_host: &str,
    facts: &Facts,
    is_other_cluster: bool,
) -> Result<Vec<Node>, Doubt> {
    let is_alone = membership.members.len() == 1;
    let mut nodes = Vec::with_capacity(membership.members.len());
    for member in &membership.members {
        let at = |address: &str| Node::new(&member.name, address).ok().filter(is_reachable);
        let had = || {
            let is_it = |known: &&KnownNode| {
                known.origin == Origin::Cluster && known.node.name().eq_ignore_ascii_case(&member.name)
            };
            let known = facts.nodes.iter().find(is_it)?;
            at(&known.node.address().to_string()).filter(|node| *node.address() != Address::Unknown)
        };
        let own = || (member.is_local || is_alone).then(|| at(url_host)).flatten();
        let told = member.ip.as_deref().and_then(at);
        // In another cluster a node of the same name is another machine.
        let had = || if is_other_cluster { None } else { had() };
        match told.or_else(had).or_else(own).map_or_else(|| Node::new(&member.name, ""), Ok) {
            Ok(node) => nodes.push(node),
            Err(_) if facts.wish(&member.name).is_some_and(|wish| wish.standing == Use::Excluded) => {}
            Err(error) => return Err(unfit(&facts.name, &member.name, &error)),
        }
    }
    nodes.sort_by_cached_key(|node| node.name().to_ascii_lowercase());
    Ok(nodes)
}

/// Whether others can reach a node at its address: at a loopback address each of them would find itself.
fn is_reachable(node: &Node) -> bool {
    match node.address() {
        Address::Ip(IpAddr::V4(ip)) => {
            !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || ip.is_broadcast())
        }
        Address::Ip(IpAddr::V6(ip)) => {
            !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || ip.is_unicast_link_local())
        }
        Address::Dns(name) => !name.to_string().eq_ignore_ascii_case("localhost"),
        Address::Unknown => true,
    }
}

fn unfit(instance: &str, name: &str, error: &NodeError) -> Doubt {
    Doubt::Unfit {
        what: format!(
            "the cluster's node {name:?} cannot be on a list ({error}): rename it, or take it out with `pulse node exclude {instance} \
             {name}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use uuid::Uuid;

    use super::*;
    use crate::inventory::{Instance, Wish};
    use crate::pve::answers::Member;

    fn membership(members: &[(&str, Option<&str>, bool)]) -> Membership {
        let member = |(name, ip, is_local): &(&str, Option<&str>, bool)| Member {
            name: (*name).to_owned(),
            ip: ip.map(str::to_owned),
            is_online: false,
            is_local: *is_local,
        };
        Membership { cluster: Some("home".to_owned()), members: members.iter().map(member).collect() }
    }

    fn facts(wishes: &[(&str, Wish)]) -> Instance {
        Instance::new(Uuid::nil(), "home", Vec::new(), SystemTime::UNIX_EPOCH).with(|facts| {
            facts.wishes.extend(wishes.iter().map(|(name, wish)| ((*name).to_owned(), wish.clone())));
        })
    }

    #[test]
    fn an_address_is_the_clusters_or_of_the_host_that_answers_that_of_the_url() {
        let members = [("pve3", None, false), ("pve2", Some("192.0.2.2"), false), ("pve1", None, true)];
        let made = nodes_of(&membership(&members), "2001:db8::1", &facts(&[]), false).unwrap();
        let lines: Vec<String> = made.iter().map(Node::line).collect();
        assert_eq!(lines, ["pve1|2001:db8::1", "pve2|192.0.2.2", "pve3|"]);
    }

    #[test]
    fn an_address_that_is_not_told_any_more_stays_and_one_that_leads_nowhere_is_none() {
        let home = facts(&[]);
        let told = |instance: &Instance, ip: Option<&str>, url_host: &str| {
            let members = [("pve1", None, true), ("pve2", ip, false)];
            nodes_of(&membership(&members), url_host, instance, false)
                .unwrap()
                .iter()
                .map(Node::line)
                .collect::<Vec<_>>()
        };
        let known = home.with(|facts| {
            let nodes = ["192.0.2.1", "192.0.2.2"];
            let nodes = (1..).zip(nodes).map(|(n, ip)| Node::new(&format!("pve{n}"), ip).unwrap()).collect();
            facts.replace(Origin::Cluster, nodes, SystemTime::UNIX_EPOCH);
        });
        assert_eq!(told(&known, None, "198.51.100.1"), ["pve1|192.0.2.1", "pve2|192.0.2.2"]);
        for nowhere in [
            "127.0.1.1",
            "::1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1%vmbr0",
            "fe80::1",
            "10.0.0.0/8",
        ] {
            assert_eq!(told(&known, Some(nowhere), "pve"), ["pve1|192.0.2.1", "pve2|192.0.2.2"], "{nowhere}");
            assert_eq!(told(&home, Some(nowhere), "localhost"), ["pve1|", "pve2|"], "{nowhere}");
        }
        assert_eq!(told(&home, Some("192.0.2.7"), "127.0.0.1"), ["pve1|", "pve2|192.0.2.7"]);
    }

    #[test]
    fn a_member_that_no_list_takes_is_doubt_until_an_admin_excludes_it() {
        let members = membership(&[("-x", None, true), ("b", None, false)]);
        let unfit = nodes_of(&members, "pve", &facts(&[]), false).unwrap_err();
        assert!(unfit.to_string().contains("pulse node exclude home -x"), "{unfit}");
        let excluded = Wish { address: None, standing: Use::Excluded };
        assert_eq!(nodes_of(&members, "pve", &facts(&[("-x", excluded)]), false).unwrap().len(), 1);
    }
}
