//! How far the reports of each session are: a session is one start of a proxy, its reports are counted.
//!
//! In: reports that come, and what the writer stored of them. Out: what is on the disk, without asking the disk.
//! Always: what counts as durable here is on the disk; no report is told to be durable while one before it may be lost.
//! Never: needed, only quicker; what is forgotten is looked up again.
//!
//! A report may be answered before it is on the disk, and a server that is killed then loses it, while its proxy has it
//! still. After the restart a later report of that session must not be stored before it, as it would count as a double
//! then. So a session that goes on behind a gap is told once to begin with the oldest that it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// The most sessions to remember: some 80 bytes each. A proxy has one, or a few while it delivers what an earlier start left.
const MAX_SESSIONS: usize = 100_000;

/// A proxy, and one start of it.
pub(in crate::store) type Key = (Uuid, Uuid);

/// How far one session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Progress {
    /// It is told apart what it sends again.
    Known {
        /// The highest sequence on the disk; 0: none.
        durable: u64,
        /// The highest sequence that was taken.
        taken: u64,
    },
    /// It went on behind a gap: what it sends next is stored if it is not behind `at`.
    Gap {
        /// The highest sequence on the disk; 0: none.
        durable: u64,
        /// The sequence that came.
        at: u64,
    },
}

impl Progress {
    /// The highest sequence on the disk.
    pub(in crate::store) fn durable(self) -> u64 {
        match self {
            Progress::Known { durable, .. } | Progress::Gap { durable, .. } => durable,
        }
    }

    /// The same, when so much of it is on the disk by now.
    pub(in crate::store) fn with_durable(self, durable: u64) -> Progress {
        match self {
            Progress::Known { taken, .. } => Progress::Known { durable, taken: taken.max(durable) },
            Progress::Gap { at, .. } => Progress::Gap { durable, at },
        }
    }
}

/// The sessions that were heard of since the start. Cloning shares them.
#[derive(Clone, Default, Debug)]
pub(in crate::store) struct Sessions(Arc<Mutex<HashMap<Key, Progress>>>);

impl Sessions {
    /// How far a session is.
    pub(in crate::store) fn of(&self, key: &Key) -> Option<Progress> {
        self.lock().get(key).copied()
    }

    /// Notes that a report was taken and waits. Out: how far its session was before; `None`: nobody knows yet.
    pub(in crate::store) fn take(&self, key: &Key, sequence: u64) -> Option<(u64, u64)> {
        match self.lock().get_mut(key) {
            Some(Progress::Known { durable, taken }) => {
                let before = (*durable, *taken);
                *taken = sequence.max(*taken);
                Some(before)
            }
            Some(Progress::Gap { .. }) | None => None,
        }
    }

    /// Notes what a transaction that is on the disk came to.
    pub(in crate::store) fn stored(&self, stored: impl IntoIterator<Item = (Key, Progress)>) {
        let mut sessions = self.lock();
        for (key, mut progress) in stored {
            if sessions.len() >= MAX_SESSIONS {
                sessions.clear();
            }
            if let (Progress::Known { taken, .. }, Some(Progress::Known { taken: later, .. })) =
                (&mut progress, sessions.get(&key))
            {
                *taken = (*taken).max(*later);
            }
            sessions.insert(key, progress);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Progress>> {
        // Each of its changes is one entry, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be done with a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Place {
    /// It is new: store it.
    New,
    /// It, or a later one, is stored already.
    Double,
    /// It comes behind a gap: the oldest of its session shall come first.
    BehindGap,
}

/// Where a report stands in its session. `before` is how far the session is known to be; `stored` asks the database for a
/// session that is not known since the start of the server.
///
/// Where other servers take reports of the same session, one may have been lost with another server while this one knew the
/// session: there every report that does not follow what is durable is behind a gap.
pub(in crate::store) fn place<E>(
    before: Option<Progress>,
    is_shared: bool,
    sequence: u64,
    stored: impl FnOnce() -> Result<u64, E>,
) -> Result<(Place, Progress), E> {
    let durable = match before {
        Some(before) => before.durable(),
        None => stored()?,
    };
    if sequence <= durable {
        let progress = before.unwrap_or(Progress::Known { durable, taken: durable });
        return Ok((Place::Double, progress));
    }
    let is_behind_gap = match before {
        Some(Progress::Known { .. }) => is_shared && sequence > durable.saturating_add(1),
        Some(Progress::Gap { at, .. }) => sequence > at,
        None => sequence > durable.saturating_add(1),
    };
    Ok(match is_behind_gap {
        true => (Place::BehindGap, Progress::Gap { durable, at: sequence }),
        false => (Place::New, Progress::Known { durable: sequence, taken: sequence }),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const KEY: Key = (Uuid::from_u128(1), Uuid::from_u128(2));

    /// What becomes of reports that come one after another, of a session with `durable` on the disk before the start.
    fn places(durable: u64, sequences: &[u64]) -> Vec<Place> {
        places_from(None, false, durable, sequences)
    }

    fn places_from(
        mut progress: Option<Progress>,
        is_shared: bool,
        durable: u64,
        sequences: &[u64],
    ) -> Vec<Place> {
        let placed = sequences.iter().map(|sequence| {
            let (place, after) =
                place(progress, is_shared, *sequence, || Ok::<_, Infallible>(durable)).unwrap();
            progress = Some(after);
            place
        });
        placed.collect()
    }

    #[test]
    fn a_session_goes_on_where_it_was() {
        use Place::{Double, New};
        assert_eq!(places(4, &[5, 6, 6, 5, 7]), [New, New, Double, Double, New]);
        assert_eq!(places(0, &[1, 2]), [New, New]);
        assert_eq!(places(4, &[4, 3, 5]), [Double, Double, New]);
    }

    #[test]
    fn a_proxy_that_has_what_was_lost_is_told_to_send_it_first() {
        use Place::{BehindGap, Double, New};
        // 5 and 6 were answered and lost with the server.
        assert_eq!(places(4, &[7, 5, 6, 7]), [BehindGap, New, New, New]);
        assert_eq!(places(4, &[7, 8, 5, 6, 7]), [BehindGap, BehindGap, New, New, New]);
        assert_eq!(places(0, &[2, 1, 2]), [BehindGap, New, New]);
        assert_eq!(places(4, &[7, 4, 5]), [BehindGap, Double, New]);
    }

    #[test]
    fn a_proxy_that_has_it_no_more_is_asked_once() {
        use Place::{BehindGap, New};
        assert_eq!(places(4, &[9, 9, 12]), [BehindGap, New, New], "gaps that it knows of are its own");
        assert_eq!(places(0, &[u64::MAX, u64::MAX]), [BehindGap, New]);
    }

    #[test]
    fn what_was_lost_with_another_server_is_asked_for_though_the_session_is_known() {
        use Place::{BehindGap, New};
        let known = Some(Progress::Known { durable: 3, taken: 3 });
        assert_eq!(places_from(known, true, 3, &[5, 4, 5]), [BehindGap, New, New]);
        assert_eq!(
            places_from(known, true, 3, &[5, 5, 6]),
            [BehindGap, New, New],
            "the proxy has it no more"
        );
        assert_eq!(places_from(known, false, 3, &[5]), [New], "nobody else could have taken it");
    }

    #[test]
    fn what_waits_is_known_and_not_durable() {
        let sessions = Sessions::default();
        assert_eq!(sessions.take(&KEY, 1), None, "it was never heard of");
        sessions.stored([(KEY, Progress::Known { durable: 1, taken: 1 })]);
        assert_eq!(sessions.take(&KEY, 2), Some((1, 1)));
        assert_eq!(sessions.take(&KEY, 2), Some((1, 2)), "it comes again");
        sessions.stored([(KEY, Progress::Known { durable: 1, taken: 1 })]);
        assert_eq!(sessions.of(&KEY), Some(Progress::Known { durable: 1, taken: 2 }), "it waits still");
    }
}
