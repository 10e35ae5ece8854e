//! Where the log begins and ends: what is kept beside its rows, sealed.
//!
//! Always: a seal covers both ends and the fleet, so that neither a log whose last rows were cut off nor one that was written
//! anew as a whole has one that fits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FIRST;

/// A row's place and its hash: `SEQ:HASH`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The place; 0: before the first row.
    pub seq: u64,
    /// The hash, 64 hex digits.
    pub hash: String,
}

impl Point {
    /// Before the first row.
    #[must_use]
    pub fn first() -> Point {
        Point { seq: 0, hash: FIRST.to_owned() }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        let parsed = text.split_once(':').and_then(|(seq, hash)| {
            let is_hash = hash.len() == FIRST.len() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            Some(Point { seq: seq.parse().ok().filter(|_| is_hash)?, hash: hash.to_ascii_lowercase() })
        });
        parsed.ok_or_else(|| {
            format!(
                "must be SEQ:HASH, a row's number and its 64 hex digits, as `pulse audit verify` shows them, but is {text:?}"
            )
        })
    }
}

/// Both ends of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The last row that retention took away; the first one that is there is chained to it.
    pub base: Point,
    /// The revision of that row. 0: none, or one that made no revision.
    pub base_revision: u64,
    /// The hash of the row that made that revision, which went with it or before it.
    pub base_revision_hash: String,
    /// The last row that was added.
    pub head: Point,
}

impl Ends {
    /// For what its seal is made: no other mark of the same key is one.
    pub const PURPOSE: &'static str = "pulse audit log, both ends";

    /// Those of a log without a row.
    #[must_use]
    pub fn of_none() -> Ends {
        let (base_revision, base_revision_hash) = Default::default();
        Ends { base: Point::first(), base_revision, base_revision_hash, head: Point::first() }
    }

    /// What the seal is made of: no two different ends, or fleets, have the same.
    #[must_use]
    pub fn sealed_text(&self, fleet: Uuid) -> Vec<u8> {
        let Ends { base, base_revision, base_revision_hash, head } = self;
        // Numbers and hex digits: none holds a line's end, and an empty hash has its line.
        format!("pulse-audit-ends-v1\n{fleet}\n{base}\n{base_revision}\n{base_revision_hash}\n{head}\n")
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_as_it_is_shown() {
        let point = Point { seq: 12, hash: FIRST.replace('0', "a") };
        assert_eq!(point.to_string().parse(), Ok(point.clone()));
        assert_eq!(point.to_string().to_uppercase().parse(), Ok(point));
        for wrong in
            ["", "12", "12:", "12:ab", "x:0", &format!("-1:{FIRST}"), &format!("1:{}", "g".repeat(64))]
        {
            assert!(wrong.parse::<Point>().is_err_and(|rule| rule.contains("SEQ:HASH")), "{wrong}");
        }
    }

    #[test]
    fn every_end_and_the_fleet_are_under_the_seal() {
        let (ends, fleet) = (Ends::of_none(), Uuid::from_u128(1));
        let other = Point { seq: 1, hash: FIRST.to_owned() };
        let altered = [
            Ends { base: other.clone(), ..ends.clone() },
            Ends { base_revision: 1, ..ends.clone() },
            Ends { base_revision_hash: FIRST.to_owned(), ..ends.clone() },
            Ends { head: other, ..ends.clone() },
        ];
        for other in altered {
            assert_ne!(other.sealed_text(fleet), ends.sealed_text(fleet), "{other:?}");
        }
        assert_ne!(ends.sealed_text(Uuid::from_u128(2)), ends.sealed_text(fleet));
    }
}
