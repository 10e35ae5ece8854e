//! What a person sees of the history of lists. Pure: an answer in, text out.

use super::text::{Table, count, or_dash, time};
use crate::api::{Allowlist, ListDiff, ListHistory};

/// How much of a hash tells lists apart for a person: as much as git shows.
const SHORT_HASH: usize = "sha256:".len() + 12;

pub(super) fn history(past: &ListHistory) -> String {
    if past.revisions.is_empty() {
        return "no list yet\n".to_owned();
    }
    let mut table =
        Table::new(["REVISION", "WHEN", "LIST", "NODES", "+", "-", "WHO", "WHAT", "HASH", "EPOCH"]);
    for one in &past.revisions {
        table.row([
            one.revision.to_string(),
            time(one.at),
            list_name(&one.instance),
            one.nodes.to_string(),
            format!("+{}", one.added),
            format!("-{}", one.removed),
            or_dash(one.actor.as_ref()),
            or_dash(one.action.as_ref()),
            one.hash.chars().take(SHORT_HASH).collect(),
            one.epoch.to_string(),
        ]);
    }
    table.render()
}

fn list_name(instance: &Option<String>) -> String {
    instance.clone().unwrap_or_else(|| "(all nodes)".to_owned())
}

pub(super) fn diff(diff: &ListDiff) -> String {
    let mut facts = Table::plain();
    let list = |list: &Allowlist| {
        let made = or_dash(list.updated_at.map(time));
        format!("revision {} of {made}, {}", or_dash(list.revision), count(list.nodes.len(), "node"))
    };
    facts.row(["list".to_owned(), list_name(&diff.to.instance)]);
    facts.row(["from".to_owned(), list(&diff.from)]);
    facts.row(["to".to_owned(), list(&diff.to)]);
    let mut table = Table::plain();
    for node in &diff.removed {
        table.row(["-".to_owned(), node.name.clone(), or_dash(Some(&node.ip))]);
    }
    for node in &diff.added {
        table.row(["+".to_owned(), node.name.clone(), or_dash(Some(&node.ip))]);
    }
    for node in &diff.changed {
        let (from, to) = (or_dash(Some(&node.from_ip)), or_dash(Some(&node.to_ip)));
        table.row(["~".to_owned(), node.name.clone(), format!("{from} is now {to}")]);
    }
    let table = table.render();
    let table = if table.is_empty() { "no difference\n".to_owned() } else { table };
    format!("{}\n{table}", facts.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AddressChange, ListRevision, Node};

    fn at() -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_767_323_045).expect("within the calendar")
    }

    #[test]
    fn history_is_a_line_for_each_list() {
        let one = ListRevision {
            scope: "all".to_owned(),
            instance: None,
            epoch: 1,
            revision: 7,
            at: at(),
            actor: Some("admin:uid=0".to_owned()),
            action: Some("instance.set".to_owned()),
            hash: format!("sha256:{}", "ab".repeat(32)),
            nodes: 3,
            added: 2,
            removed: 1,
        };
        let home =
            ListRevision { instance: Some("home".to_owned()), actor: None, action: None, ..one.clone() };
        let text = history(&ListHistory { revisions: vec![one, home] });
        assert_eq!(
            text,
            "\
REVISION  WHEN                  LIST         NODES  +   -   WHO          WHAT          HASH                 EPOCH
7         2026-01-02 03:04:05Z  (all nodes)  3      +2  -1  admin:uid=0  instance.set  sha256:abababababab  1
7         2026-01-02 03:04:05Z  home         3      +2  -1  -            -             sha256:abababababab  1
"
        );
    }

    #[test]
    fn a_difference_names_what_came_went_and_moved() {
        let list = |revision| Allowlist {
            scope: "all".to_owned(),
            instance: None,
            epoch: 1,
            revision: Some(revision),
            hash: String::new(),
            updated_at: Some(at()),
            key_id: None,
            nodes: vec![],
        };
        let node = |name: &str| Node { name: name.to_owned(), ip: String::new() };
        let (from_ip, to_ip) = ("10.0.0.1".to_owned(), "10.0.0.2".to_owned());
        let changed = vec![AddressChange { name: "moved".to_owned(), from_ip, to_ip }];
        let (from, to, added, removed) = (list(1), list(2), vec![node("new")], vec![node("old")]);
        let text = diff(&ListDiff { from, to, added, removed, changed });
        assert!(text.ends_with("-  old    -\n+  new    -\n~  moved  10.0.0.1 is now 10.0.0.2\n"), "{text}");
        let same = ListDiff { from: list(1), to: list(1), added: vec![], removed: vec![], changed: vec![] };
        assert!(diff(&same).ends_with("\nno difference\n"));
    }
}
