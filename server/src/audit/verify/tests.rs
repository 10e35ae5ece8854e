//! What of a log that was altered is found, and as what.

use std::time::SystemTime;

use serde_json::json;

use super::*;
use crate::audit::{Actor, Entry, Outcome};

/// A log of so many rows, each of a revision of its own, and its ends.
fn log(rows: u64) -> (Vec<Row>, Ends) {
    let (mut ends, mut made) = (Ends::of_none(), Vec::new());
    for seq in 1..=rows {
        let target = format!("instance:{seq}");
        let entry = Entry::new(
            SystemTime::UNIX_EPOCH,
            &Actor::SERVER,
            "instance.add",
            target,
            Outcome::Done,
            json!({}),
        );
        let row = Row::chain(&entry, seq, seq, &ends.head.hash);
        ends.head = Point { seq, hash: row.hash.clone() };
        made.push(row);
    }
    (made, ends)
}

fn verdict(rows: &[Row], ends: &Ends, expected: Option<Point>) -> Option<Damage> {
    let mut verifier = Verifier::new(ends.clone(), expected);
    rows.iter().for_each(|row| verifier.row(row, &mut |_| ()));
    verifier.end(None, true, &mut |_| ()).damage
}

#[test]
fn a_log_as_it_was_written_holds_from_its_first_row_and_from_its_base() {
    let (rows, ends) = log(5);
    assert_eq!(verdict(&rows, &ends, None), None);
    assert_eq!(verdict(&[], &Ends::of_none(), None), None);
    let pruned = Ends { base: Point { seq: 3, hash: rows[2].hash.clone() }, ..ends };
    assert_eq!(verdict(&rows[3..], &pruned, None), None);
    let verifier = Verifier::new(Ends::of_none(), None);
    assert_eq!(verifier.end(None, false, &mut |_| ()).damage, Some(Damage::Seal));
}

#[test]
fn what_was_altered_is_found_and_named_for_what_it_is() {
    let (rows, ends) = log(5);
    let altered = |change: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = rows.clone();
        change(&mut rows);
        verdict(&rows, &ends, None)
    };
    assert_eq!(altered(&|rows| rows[2].actor = "x".to_owned()), Some(Damage::Edited { seq: 3 }));
    let edited = |rows: &mut Vec<Row>| {
        rows[2].actor = "x".to_owned();
        rows[2].hash = rows[2].computed_hash();
    };
    assert_eq!(altered(&edited), Some(Damage::Unchained { seq: 4 }));
    let swapped = |rows: &mut Vec<Row>| {
        rows.swap(2, 3);
        (rows[2].seq, rows[3].seq) = (3, 4);
    };
    assert_eq!(altered(&swapped), Some(Damage::Reordered { seq: 3, was: 4 }));
    assert_eq!(altered(&|rows| drop(rows.remove(2))), Some(Damage::Removed { seq: 4, first: 3, last: 3 }));
    assert_eq!(altered(&|rows| drop(rows.drain(..2))), Some(Damage::Removed { seq: 3, first: 1, last: 2 }));
    assert_eq!(altered(&|rows| rows.truncate(3)), Some(Damage::CutOff { first: 4, last: 5 }));
    let replaced = |rows: &mut Vec<Row>| {
        rows[4].actor = "x".to_owned();
        rows[4].hash = rows[4].computed_hash();
    };
    assert_eq!(altered(&replaced), Some(Damage::NotTheLast { seq: 5 }));
    let base = Ends { base: Point { seq: 3, hash: rows[2].hash.clone() }, ..ends.clone() };
    assert_eq!(verdict(&rows, &base, None), Some(Damage::PutThere { seq: 1, first: 4 }));
}

#[test]
fn a_row_that_was_noted_elsewhere_is_looked_for() {
    let (rows, ends) = log(5);
    let point = |seq: u64, hash: &str| Some(Point { seq, hash: hash.to_owned() });
    assert_eq!(verdict(&rows, &ends, point(3, &rows[2].hash)), None);
    assert_eq!(verdict(&rows, &ends, point(3, &rows[1].hash)), Some(Damage::NotExpected { seq: 3 }));
    let behind = Damage::ExpectedBehindEnd { seq: 6, last: 5 };
    assert_eq!(verdict(&rows, &ends, point(6, &rows[1].hash)), Some(behind));
    let pruned = Ends { base: Point { seq: 3, hash: rows[2].hash.clone() }, ..ends };
    assert_eq!(verdict(&rows[3..], &pruned, point(3, &rows[2].hash)), None);
    assert_eq!(verdict(&rows[3..], &pruned, point(3, &rows[1].hash)), Some(Damage::NotExpected { seq: 3 }));
    let gone = Damage::ExpectedPruned { seq: 2, base: 3 };
    assert_eq!(verdict(&rows[3..], &pruned, point(2, &rows[1].hash)), Some(gone));
}
