//! What must hold of every journal. Pure: a journal in, what is wrong with it out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use crate::journal::{Entry, Event, InForce, List, Report};

/// What a proxy that was revoked may not do any more.
#[derive(Clone, Debug)]
pub(crate) struct Revocation {
    /// The proxy.
    pub(crate) identity: usize,
    /// When it was committed.
    pub(crate) at: Duration,
    /// The epoch and the revision that it made.
    pub(crate) position: (u64, u64),
    /// When the proxy was let in again, if it was.
    pub(crate) until: Option<Duration>,
}

/// How long calls that are under way when a proxy is revoked may take to be answered.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// No proxy's list in force goes back in (epoch, revision).
pub(crate) fn going_back(entries: &[Entry]) -> Vec<String> {
    let mut newest: HashMap<(&str, Option<usize>), (u64, u64)> = HashMap::new();
    let mut wrong = Vec::new();
    for (at, host, identity, list) in lists(entries) {
        let position = (list.epoch, list.revision);
        let before = newest.entry((host, identity)).or_insert(position);
        if position < *before {
            wrong.push(format!("{at:?}: the list of {host} goes back from {before:?} to {position:?}"));
        }
        *before = position.max(*before);
    }
    wrong
}

/// Every list in force is one that the server published.
pub(crate) fn unpublished(entries: &[Entry]) -> Vec<String> {
    let published: HashSet<&List> = entries
        .iter()
        .filter_map(|(_, event)| if let Event::Published(list) = event { Some(list) } else { None })
        .collect();
    let strange = lists(entries).filter(|(.., list)| !published.contains(list));
    strange
        .map(|(at, host, _, list)| format!("{at:?}: {host} has a list that was never published: {list:?}"))
        .collect()
}

/// Nobody is shown as offline before the server has been up for as long as it takes to be so.
pub(crate) fn offline_for_an_outage(entries: &[Entry], patience: Duration) -> Vec<String> {
    let wrong = entries.iter().filter_map(|(at, event)| match event {
        Event::Shown { proxy, state: "OFFLINE", up } if *up < patience => {
            Some(format!("{at:?}: {proxy} is shown OFFLINE by a server that has been up for {up:?}"))
        }
        _ => None,
    });
    wrong.collect()
}

/// A revoked proxy gets no list that is newer than its revocation, and none of its reports is taken.
pub(crate) fn served_though_revoked(entries: &[Entry], revocations: &[Revocation]) -> Vec<String> {
    let mut wrong = Vec::new();
    let revoked = |identity: usize, at: Duration| {
        let in_time = move |r: &&Revocation| at > r.at + UNDER_WAY && r.until.is_none_or(|until| at < until);
        revocations.iter().filter(move |r| r.identity == identity).find(in_time)
    };
    for (at, host, identity, list) in pushed_lists(entries) {
        if let Some(revocation) = identity.and_then(|identity| revoked(identity, at))
            && (list.epoch, list.revision) > revocation.position
        {
            wrong.push(format!("{at:?}: {host} is revoked since {:?} and got {list:?}", revocation.at));
        }
    }
    for (at, event) in entries {
        if let Event::Answered { report, .. } = event
            && let Some(revocation) = revoked(report.proxy, *at)
        {
            wrong.push(format!("{at:?}: {report:?} was taken, of a proxy revoked since {:?}", revocation.at));
        }
    }
    wrong
}

/// A reading in the database: its proxy, its node, and when it was collected.
pub(crate) type Row = (usize, String, i64);

/// What was acknowledged is in the database, and nothing is in it twice. `kept` are the parts of the journal that the
/// database went through: a restored one lost the others.
pub(crate) fn lost_or_doubled(entries: &[Entry], rows: &[Row], kept: &[Range<usize>]) -> Vec<String> {
    type Key<'a> = (usize, &'a str, i64);
    let mut received: BTreeMap<Report, BTreeSet<Key<'_>>> = BTreeMap::new();
    let mut refused: BTreeMap<Report, BTreeSet<&str>> = BTreeMap::new();
    let mut acknowledged: BTreeSet<Report> = BTreeSet::new();
    let mut unanswered: BTreeMap<Report, i64> = BTreeMap::new();
    let mut refusing: BTreeSet<usize> = BTreeSet::new();
    let mut overtaken: BTreeSet<Report> = BTreeSet::new();
    for (at, (_, event)) in entries.iter().enumerate() {
        match event {
            Event::Received { report, nodes } => {
                let keys = nodes.iter().map(|(node, at)| (report.proxy, node.as_str(), *at));
                received.entry(*report).or_default().extend(keys);
                *unanswered.entry(*report).or_default() += 1;
            }
            Event::Answered { report, durable, refused: nodes } => {
                refused.entry(*report).or_default().extend(nodes.iter().map(String::as_str));
                *unanswered.entry(*report).or_default() -= 1;
                if !nodes.is_empty() {
                    refusing.insert(report.session);
                }
                match kept.iter().any(|part| part.contains(&at)) {
                    true if report.sequence <= *durable => {
                        acknowledged.insert(*report);
                    }
                    true => {}
                    // Lost with the copy that was restored. Should it come again, a newer one of its session may hide it.
                    false => {
                        overtaken.insert(*report);
                    }
                }
            }
            _ => {}
        }
    }
    // Of a report that came more than once an answer may be lost that refused a node; the next one does not say it again. It
    // is not held against the server where it refused nodes of that session.
    let is_unsure = |report: &Report| {
        unanswered.get(report).is_some_and(|count| *count > 0) && refusing.contains(&report.session)
    };
    acknowledged.retain(|report| !is_unsure(report) && !overtaken.contains(report));
    let (mut least, mut most) = (BTreeMap::<Key<'_>, usize>::new(), BTreeMap::<Key<'_>, usize>::new());
    for (report, keys) in &received {
        for key in keys {
            *most.entry(*key).or_default() += 1;
            let is_refused = refused.get(report).is_some_and(|nodes| nodes.contains(key.1));
            if acknowledged.contains(report) && !is_refused {
                *least.entry(*key).or_default() += 1;
            }
        }
    }
    let mut found = BTreeMap::<Key<'_>, usize>::new();
    for (proxy, node, at) in rows {
        *found.entry((*proxy, node, *at)).or_default() += 1;
    }
    let count = |map: &BTreeMap<Key<'_>, usize>, key: &Key<'_>| map.get(key).copied().unwrap_or_default();
    let lost = least.iter().filter(|(key, least)| count(&found, key) < **least);
    let lost = lost.map(|(key, _)| format!("the reading of {key:?} was acknowledged and is lost"));
    let doubled = found.iter().filter(|(key, found)| **found > count(&most, key));
    let doubled = doubled.map(|(key, found)| {
        format!("the reading of {key:?} is there {found} times and was reported {} times", count(&most, key))
    });
    lost.chain(doubled).collect()
}

/// When, which host, who it is, and its list.
type Held<'a> = (Duration, &'a str, Option<usize>, &'a List);

fn lists(entries: &[Entry]) -> impl Iterator<Item = Held<'_>> {
    entries.iter().filter_map(|(at, event)| match event {
        Event::InForce(InForce { host, identity, list: Some(list), .. }) => {
            Some((*at, host.as_str(), *identity, list))
        }
        _ => None,
    })
}

/// Without those that came from a disk.
fn pushed_lists(entries: &[Entry]) -> impl Iterator<Item = Held<'_>> {
    let is_pushed =
        |(_, event): &&Entry| matches!(event, Event::InForce(in_force) if in_force.source == "pushed");
    entries.iter().filter(is_pushed).flat_map(|entry| lists(std::slice::from_ref(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(epoch: u64, revision: u64) -> List {
        List { scope: "all".to_owned(), epoch, revision, hash: format!("hash {revision}") }
    }

    fn in_force(seconds: u64, list: List) -> Entry {
        let event = InForce {
            host: "n1".to_owned(),
            identity: Some(1),
            source: "pushed",
            list: Some(list),
            closed: None,
        };
        (Duration::from_secs(seconds), Event::InForce(event))
    }

    fn received(sequence: u64, at: i64) -> Entry {
        let (report, nodes) = (Report { proxy: 1, session: 3, sequence }, vec![("n1".to_owned(), at)]);
        (Duration::ZERO, Event::Received { report, nodes })
    }

    fn answered(sequence: u64, durable: u64) -> Entry {
        let report = Report { proxy: 1, session: 3, sequence };
        (Duration::from_secs(9), Event::Answered { report, durable, refused: Vec::new() })
    }

    fn row(at: i64) -> Row {
        (1, "n1".to_owned(), at)
    }

    #[test]
    fn a_list_that_goes_back_is_noticed() {
        let forward = [in_force(1, list(1, 4)), in_force(2, list(1, 9)), in_force(3, list(2, 3))];
        assert!(going_back(&forward).is_empty());
        for back in [list(1, 8), list(0, 20)] {
            assert_eq!(going_back(&[in_force(1, list(1, 9)), in_force(2, back)]).len(), 1);
        }
    }

    #[test]
    fn a_list_that_nobody_published_is_noticed() {
        let published = (Duration::ZERO, Event::Published(list(1, 4)));
        assert!(unpublished(&[in_force(1, list(1, 4)), published.clone()]).is_empty());
        let other_hash = List { hash: "other".to_owned(), ..list(1, 4) };
        for strange in [other_hash, list(1, 5), list(2, 4)] {
            assert_eq!(unpublished(&[published.clone(), in_force(1, strange)]).len(), 1);
        }
    }

    #[test]
    fn who_is_called_offline_by_a_server_that_was_away_is_noticed() {
        let shown = |state, seconds| {
            let up = Duration::from_secs(seconds);
            [(Duration::ZERO, Event::Shown { proxy: "n1".to_owned(), state, up })]
        };
        let patience = Duration::from_secs(15);
        assert_eq!(offline_for_an_outage(&shown("OFFLINE", 14), patience).len(), 1);
        assert!(offline_for_an_outage(&shown("OFFLINE", 15), patience).is_empty());
        assert!(offline_for_an_outage(&shown("IN_SYNC", 1), patience).is_empty());
    }

    #[test]
    fn a_reading_that_is_lost_or_doubled_is_noticed() {
        let journal = [received(1, 100), received(1, 100), answered(1, 1), received(2, 200)];
        let wrong = |rows: &[_], kept: Range<usize>| lost_or_doubled(&journal, rows, &[kept]).len();
        assert_eq!(wrong(&[row(100)], 0..4), 0, "the second was not acknowledged");
        assert_eq!(wrong(&[row(100), row(200)], 0..4), 0, "the answer may have been lost");
        assert_eq!(wrong(&[row(200)], 0..4), 1, "the first is lost");
        assert_eq!(wrong(&[row(100), row(100)], 0..4), 1, "the first is there twice");
        assert_eq!(wrong(&[row(100), row(300)], 0..4), 1, "nobody reported it");
        assert_eq!(wrong(&[], 3..4), 0, "a restored database lost it");
    }

    #[test]
    fn a_revoked_proxy_that_gets_something_is_noticed() {
        let at = Duration::from_secs(5);
        let revocation = Revocation { identity: 1, at, position: (1, 9), until: None };
        let wrong = |entry: Entry, until: Option<u64>| {
            let until = until.map(Duration::from_secs);
            served_though_revoked(&[entry], &[Revocation { until, ..revocation.clone() }]).len()
        };
        assert_eq!(wrong(in_force(8, list(1, 10)), None), 1);
        assert_eq!(wrong(in_force(8, list(1, 8)), None), 0, "what it had before");
        assert_eq!(wrong(in_force(8, list(1, 10)), Some(7)), 0, "it was let in again");
        assert_eq!(wrong(answered(1, 1), None), 1);
        assert_eq!(wrong(answered(1, 1), Some(9)), 0);
    }
}
