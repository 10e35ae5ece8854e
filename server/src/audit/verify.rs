//! Whether a log is the one that was written: its rows, one after the other, then its end.
//!
//! In: rows in order, and both ends as they were kept. Out: what is wrong, at which row, in the order in which it shows.
//! Always: the same rules for the database, a backup and an exported file. Never: needs more than one row in memory.

use std::fmt;

use super::{Ends, Point, Row};

/// How far around its place a row is looked for that stood elsewhere: each place is one hash.
const NEAR: u64 = 1_000;

/// Something that cannot be, if the log is the one that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A row does not have its hash.
    Edited {
        /// The row.
        seq: u64,
    },
    /// A row has the hash that it had at another place.
    Reordered {
        /// Where it is.
        seq: u64,
        /// Where it was.
        was: u64,
    },
    /// Rows are missing before one.
    Removed {
        /// The row that comes after them.
        seq: u64,
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
    /// A row is chained to another one than that before it.
    Unchained {
        /// The row.
        seq: u64,
    },
    /// A row is of a revision that cannot follow that of the row before it.
    Revision {
        /// The row.
        seq: u64,
        /// Its revision.
        revision: u64,
        /// That of the row before it.
        before: u64,
    },
    /// A row stands where none can be: before the first or behind the last.
    PutThere {
        /// The row.
        seq: u64,
        /// The first that there may be.
        first: u64,
    },
    /// The last rows are missing.
    CutOff {
        /// The first that is missing.
        first: u64,
        /// The last that was added.
        last: u64,
    },
    /// The last row is not the one that was added last.
    NotTheLast {
        /// The row.
        seq: u64,
    },
    /// The log ends before the fleet's revision.
    BehindFleet {
        /// The revision of the last row.
        revision: u64,
        /// That of the fleet.
        fleet: u64,
    },
    /// The seal of both ends is not that of the key.
    Seal,
    /// A row is not the one that was noted elsewhere.
    NotExpected {
        /// The row.
        seq: u64,
    },
    /// A row that was noted elsewhere is behind the end.
    ExpectedBehindEnd {
        /// The row.
        seq: u64,
        /// The last row.
        last: u64,
    },
    /// A row that was noted elsewhere was taken away by retention, so that nothing can be said.
    ExpectedPruned {
        /// The row.
        seq: u64,
        /// The last row that was taken away.
        base: u64,
    },
}

impl Damage {
    /// What a program may branch on.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Damage::Edited { .. } => "AUDIT_ROW_EDITED",
            Damage::Reordered { .. } => "AUDIT_ROWS_REORDERED",
            Damage::Removed { .. } => "AUDIT_ROWS_REMOVED",
            Damage::Unchained { .. } | Damage::Revision { .. } => "AUDIT_ROW_NOT_CHAINED",
            Damage::PutThere { .. } | Damage::NotTheLast { .. } => "AUDIT_ROW_ADDED",
            Damage::CutOff { .. } | Damage::BehindFleet { .. } => "AUDIT_CUT_OFF",
            Damage::Seal => "AUDIT_SEAL_BROKEN",
            Damage::NotExpected { .. } | Damage::ExpectedBehindEnd { .. } => "AUDIT_NOT_AS_EXPECTED",
            Damage::ExpectedPruned { .. } => "AUDIT_EXPECTED_PRUNED",
        }
    }

    /// The row at which it shows, if it does at one.
    #[must_use]
    pub fn row(&self) -> Option<u64> {
        match self {
            Damage::Edited { seq }
            | Damage::Reordered { seq, .. }
            | Damage::Removed { seq, .. }
            | Damage::Unchained { seq }
            | Damage::Revision { seq, .. }
            | Damage::PutThere { seq, .. }
            | Damage::NotTheLast { seq }
            | Damage::NotExpected { seq }
            | Damage::ExpectedBehindEnd { seq, .. }
            | Damage::ExpectedPruned { seq, .. } => Some(*seq),
            Damage::CutOff { .. } | Damage::BehindFleet { .. } | Damage::Seal => None,
        }
    }
}

/// What is wrong with the row, or with the log.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Edited { .. } => f.write_str("it was changed: it does not have its hash"),
            Damage::Reordered { was, .. } => write!(f, "it stood at {was} when it was written: rows were put in another order"),
            Damage::Removed { first, last, .. } => write!(f, "{} before it", missing(*first, *last)),
            Damage::Unchained { .. } => {
                f.write_str("it is not chained to the row before it: one of the two was changed")
            }
            Damage::Revision { revision, before, .. } => {
                write!(f, "it is of revision {revision}, and the row before it of {before}")
            }
            Damage::PutThere { first, .. } => write!(f, "the log begins with row {first}: it was put there"),
            Damage::CutOff { first, last } => write!(f, "{} at the end", missing(*first, *last)),
            Damage::NotTheLast { .. } => {
                f.write_str("it is not the row that was added last: it was changed or put there")
            }
            Damage::BehindFleet { revision, fleet } => {
                write!(f, "it ends with revision {revision}, and the fleet is at {fleet}: rows are missing at the end")
            }
            Damage::Seal => f.write_str(
                "the seal of its ends does not fit them: rows were cut off at an end, or all of it was written anew, by somebody \
                 without the sealing key",
            ),
            Damage::NotExpected { .. } => {
                f.write_str("it is not the row that was noted elsewhere: the log was written anew from there or before")
            }
            Damage::ExpectedBehindEnd { last, .. } => {
                write!(f, "it was noted elsewhere, and the log ends with row {last}: rows were cut off, or the database is an older copy")
            }
            Damage::ExpectedPruned { base, .. } => {
                write!(f, "rows up to {base} went by retention, so nothing can be said of it: keep a later one, or an export")
            }
        }
    }
}

fn missing(from: u64, to: u64) -> String {
    if from == to { format!("row {from} is missing") } else { format!("rows {from} to {to} are missing") }
}

/// What was verified, and the first thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// How many rows were looked at.
    pub rows: u64,
    /// When the first of them was written, Unix milliseconds; 0 without one.
    pub first_at_ms: u64,
    /// When the last of them was written, Unix milliseconds; 0 without one.
    pub last_at_ms: u64,
    /// The row before the first one: what retention took away ends there.
    pub base: Point,
    /// The last row that was added, as it was kept.
    pub head: Point,
    /// What is wrong; `None`: nothing.
    pub damage: Option<Damage>,
}

/// A log that is gone through.
#[derive(Debug)]
pub struct Verifier {
    ends: Ends,
    expected: Option<Point>,
    /// The row that was last.
    last: Point,
    revision: Option<u64>,
    verdict: Verdict,
}

impl Verifier {
    /// Begins behind the base. `expected` is a row that was noted elsewhere.
    #[must_use]
    pub fn new(ends: Ends, expected: Option<Point>) -> Verifier {
        let (base, head) = (ends.base.clone(), ends.head.clone());
        let verdict = Verdict { rows: 0, first_at_ms: 0, last_at_ms: 0, base, head, damage: None };
        // What came before is not known if rows went.
        let revision = (ends.base.seq == 0).then_some(0);
        Verifier { last: ends.base.clone(), ends, expected, revision, verdict }
    }

    /// Looks at the next row. What is wrong with it goes to `found`; the rows behind it are then judged by this one.
    pub fn row(&mut self, row: &Row, found: &mut dyn FnMut(Damage)) {
        let seq = row.seq;
        let mut found = |damage: Damage| {
            self.verdict.damage.get_or_insert_with(|| damage.clone());
            found(damage);
        };
        if self.verdict.rows == 0 {
            self.verdict.first_at_ms = row.at_ms;
        }
        self.verdict.rows += 1;
        self.verdict.last_at_ms = row.at_ms;
        let is_next = seq == self.last.seq + 1;
        if seq <= self.ends.base.seq {
            found(Damage::PutThere { seq, first: self.ends.base.seq + 1 });
        } else if !is_next {
            found(Damage::Removed { seq, first: self.last.seq + 1, last: seq.saturating_sub(1) });
        }
        if row.computed_hash() != row.hash {
            found(match place_of(row) {
                Some(was) => Damage::Reordered { seq, was },
                None => Damage::Edited { seq },
            });
        }
        if is_next && row.previous_hash != self.last.hash {
            found(Damage::Unchained { seq });
        }
        // Each change of the fleet has its row, in order; what changes nothing keeps the revision.
        if let Some(before) = self.revision
            && !(before..=before.saturating_add(1)).contains(&row.revision)
        {
            found(Damage::Revision { seq, revision: row.revision, before });
        }
        if self.expected.as_ref().is_some_and(|expected| expected.seq == seq && expected.hash != row.hash) {
            found(Damage::NotExpected { seq });
        }
        self.last = Point { seq, hash: row.hash.clone() };
        self.revision = Some(row.revision);
    }

    /// Takes the last row for the end of the log, where none was kept.
    #[must_use]
    pub fn ending_here(mut self) -> Verifier {
        self.ends.head = self.last.clone();
        self
    }

    /// The row that was last.
    #[must_use]
    pub fn last(&self) -> &Point {
        &self.last
    }

    /// The first thing that is wrong so far.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.verdict.damage.as_ref()
    }

    /// Ends with the last row. `fleet` is the fleet's revision, where that is known; `is_sealed` whether the seal of both ends
    /// fits them; where there is none to look at, it does.
    pub fn end(mut self, fleet: Option<u64>, is_sealed: bool, found: &mut dyn FnMut(Damage)) -> Verdict {
        let Ends { base, head, .. } = &self.ends;
        let mut found = |damage: Damage| {
            self.verdict.damage.get_or_insert_with(|| damage.clone());
            found(damage);
        };
        if let Some(fleet) = fleet
            && let Some(revision) = self.revision.filter(|revision| *revision < fleet)
        {
            found(Damage::BehindFleet { revision, fleet });
        }
        if self.last.seq < head.seq {
            found(Damage::CutOff { first: self.last.seq + 1, last: head.seq });
        } else if self.last != *head {
            found(Damage::NotTheLast { seq: self.last.seq });
        }
        if !is_sealed {
            found(Damage::Seal);
        }
        match &self.expected {
            Some(expected) if expected.seq > self.last.seq => {
                found(Damage::ExpectedBehindEnd { seq: expected.seq, last: self.last.seq });
            }
            Some(expected) if expected.seq < base.seq => {
                found(Damage::ExpectedPruned { seq: expected.seq, base: base.seq });
            }
            Some(expected) if expected.seq == base.seq && expected.hash != base.hash => {
                found(Damage::NotExpected { seq: expected.seq });
            }
            _ => {}
        }
        self.verdict
    }
}

/// Where a row stood, if its hash is that of another place near its own.
fn place_of(row: &Row) -> Option<u64> {
    let near = (1..=NEAR).flat_map(|away| [row.seq.checked_sub(away), row.seq.checked_add(away)]).flatten();
    let mut there = row.clone();
    near.into_iter().find(|seq| {
        there.seq = *seq;
        there.computed_hash() == row.hash
    })
}

#[cfg(test)]
mod tests;
