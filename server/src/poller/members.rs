//! The nodes that a membership means.

use pulse_proto::{Node, NodeError};

use crate::inventory::{Facts, Use};
use crate::pve::Doubt;
use crate::pve::answers::Membership;

/// The members as nodes, by name, as hosts tell them in any order. `url_host` is the host part of the URL that was asked: the
/// address of the node that answered, if the answer has none. Who is excluded may be whatever it likes.
///
/// # Errors
/// [`Doubt::Unfit`] if a member cannot be a node.
pub fn nodes_of(membership: &Membership, url_host: &str, facts: &Facts) -> Result<Vec<Node>, Doubt> {
    let is_alone = membership.members.len() == 1;
    let mut nodes = Vec::with_capacity(membership.members.len());
    for member in &membership.members {
        let wish = facts.wish(&member.name);
        let own = || (member.is_local || is_alone).then_some(url_host);
        let address = member.ip.as_deref().or_else(own).unwrap_or_default();
        let wished = wish.and_then(|wish| wish.address.as_deref());
        // An address that no list takes does not matter where an admin set another.
        let made = Node::new(&member.name, address);
        let made = made.or_else(|error| wished.map_or(Err(error), |wished| Node::new(&member.name, wished)));
        match made {
            Ok(node) => nodes.push(node),
            Err(_) if wish.is_some_and(|wish| wish.standing == Use::Excluded) => {}
            Err(error) => return Err(unfit(&facts.name, &member.name, address, &error)),
        }
    }
    nodes.sort_by_cached_key(|node| node.name().to_ascii_lowercase());
    Ok(nodes)
}

fn unfit(instance: &str, name: &str, address: &str, error: &NodeError) -> Doubt {
    Doubt::Unfit {
        what: format!(
            "the cluster's node {name:?} with the address {address:?} cannot be on a list ({error}): rename it, or take it out with \
             `pulse node exclude {instance} {name}`"
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
        let made = nodes_of(&membership(&members), "2001:db8::1", &facts(&[])).unwrap();
        let lines: Vec<String> = made.iter().map(Node::line).collect();
        assert_eq!(lines, ["pve1|2001:db8::1", "pve2|192.0.2.2", "pve3|"]);
    }

    #[test]
    fn a_member_that_no_list_takes_is_doubt_until_an_admin_excludes_it() {
        let members = membership(&[("-x", None, true), ("b", None, false)]);
        let unfit = nodes_of(&members, "pve", &facts(&[])).unwrap_err();
        assert!(unfit.to_string().contains("pulse node exclude home -x"), "{unfit}");
        let excluded = Wish { address: None, standing: Use::Excluded };
        assert_eq!(nodes_of(&members, "pve", &facts(&[("-x", excluded)])).unwrap().len(), 1);
    }
}
