//! Which rows of the audit log go, and what stays as it was without them.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pulse::audit::{Actor, Entry, Outcome};
use pulse::config::AuditRetention;
use pulse::store::{Commit, Leave, Retention, Stand, Store, StoreError};
use pulse_proto::Clock;
use serde_json::json;

const DAY: Duration = Duration::from_hours(24);
const FOR_EVER: Duration = Duration::from_hours(24 * 36_500);

async fn open(folder: &Path) -> Store {
    let retention = Retention { max_bytes: 1 << 40, max_age: FOR_EVER };
    Store::open(folder, retention, Clock::system()).await.expect("the store opens")
}

fn at(days: u64) -> SystemTime {
    UNIX_EPOCH + DAY * 20_000 + DAY * u32::try_from(days).expect("some days")
}

fn entry(at: SystemTime) -> Entry {
    Entry::new(at, &Actor::SERVER, "call.refuse", "UNKNOWN_TOKEN".to_owned(), Outcome::Refused, json!({}))
}

/// A change without anything but its row. Out: the hash of that.
async fn change(store: &Store) -> Result<String, StoreError> {
    let loaded = store.load().await?;
    let commit = Commit {
        expected: loaded.revision,
        expected_hash: loaded.audit_hash,
        revision: loaded.revision + 1,
        changes: vec![],
        lists: vec![],
        leave: Leave::Alone,
        audit: entry(at(0)),
    };
    store.commit(commit).await
}

/// Removes all that need not be kept.
async fn prune(store: &Store, max_rows: u64, max_age: Duration, now: SystemTime) -> Result<(), StoreError> {
    let mut began = false;
    while store.prune_audit(AuditRetention { max_rows, max_age }, now, Leave::Alone, began).await? {
        began = true;
    }
    Ok(())
}

/// The first row and the last.
async fn ends(store: &Store) -> (u64, u64) {
    let verdict = store.audit_verify(None).await.expect("it can be read");
    assert_eq!(verdict.damage, None, "{verdict:?}");
    (verdict.base.seq + 1, verdict.head.seq)
}

#[tokio::test]
async fn of_a_fleet_that_nobody_changes_rows_go_too_and_its_history_is_told_from_others_still() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let hash = change(&store).await.unwrap();
    store.append_audit((0..3_000).map(|_| entry(at(0))).collect()).await.unwrap();
    prune(&store, 1_000, FOR_EVER, at(1)).await.unwrap();
    let (first, last) = ends(&store).await;
    assert!(first > 2_000 && last > 3_001 && last - first < 1_000, "{first} to {last}");
    // The row that made the revision is gone, and its hash is known.
    assert_eq!(store.audit_of(1).await.unwrap(), None);
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, &loaded.audit_hash), (1, &hash));
    let stand = |audit_hash: &str| Stand {
        server_id: loaded.server_id,
        revision: 1,
        audit_hash: audit_hash.to_owned(),
    };
    assert!(store.newer(stand(&hash)).await.unwrap().is_none());
    let other = store.newer(stand(&hash.replace('a', "b"))).await;
    assert!(matches!(other, Err(StoreError::OtherHistory { revision: 1 })), "{other:?}");
    change(&store).await.unwrap();
    drop(store);
    let store = open(folder.path()).await;
    change(&store).await.unwrap();
    assert_eq!(ends(&store).await, (first, last + 2));
}

#[tokio::test]
async fn old_rows_go_a_day_at_a_time_and_younger_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.append_audit((0..10).map(|day| entry(at(day))).collect()).await.unwrap();
    prune(&store, 1_000, 5 * DAY, at(5)).await.unwrap();
    prune(&store, 1_000, 5 * DAY, at(6)).await.unwrap();
    assert_eq!(ends(&store).await, (1, 10), "none is a day beyond its time");
    prune(&store, 1_000, 5 * DAY, at(7)).await.unwrap();
    // That of the seventh day is just as old as it may be; and there is the row that says so.
    assert_eq!(ends(&store).await, (3, 11));
    let row = store.audit_tail(1).await.unwrap().remove(0);
    assert_eq!(row.action, "audit.prune");
    prune(&store, 1_000, 5 * DAY, at(7)).await.unwrap();
    assert_eq!(ends(&store).await, (3, 11));
    // However old, the last row stays.
    prune(&store, 1_000, DAY, at(1_000_000)).await.unwrap();
    assert_eq!(ends(&store).await, (11, 12));
}

#[tokio::test]
async fn nothing_goes_from_a_log_that_is_not_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.append_audit((0..300).map(|_| entry(at(0))).collect()).await.unwrap();
    let shell = rusqlite::Connection::open(folder.path().join("pulse.db")).unwrap();
    for alteration in [
        "UPDATE audit SET actor = 'nobody' WHERE seq = 2",
        "UPDATE audit SET actor = 'server' WHERE seq = 2; UPDATE audit_head SET seal = x'00'",
    ] {
        shell.execute_batch(alteration).unwrap();
        let refused = prune(&store, 100, FOR_EVER, at(1)).await.unwrap_err().to_string();
        assert!(refused.contains("nothing is removed from an audit log"), "{refused}");
        assert_eq!(store.audit_after(0, 1).await.unwrap()[0].seq, 1);
    }
}
