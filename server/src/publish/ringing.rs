//! Who is to be woken when a scope's list changes, and how: a few at a time.
//!
//! Ten thousand tasks that are woken at once stand in front of every other one. So the first few are woken by whoever
//! publishes, and the rest in turns by [`Rounds::keep_ringing`], which lets others run between them and goes round the
//! scopes: a small one does not wait for a large one.
//! Always: each stream that was there when the list changed is rung after that. Never: more than one round of a scope at
//! a time: a change in the middle of one makes it longer.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::bell::{Bell, Ring};

/// How many are woken in one turn: some 1 ms of work on one core, at 10 µs each.
const TURN: usize = 96;

/// The streams of one scope.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    bells: Vec<Option<Arc<Bell>>>,
    free: Vec<usize>,
    /// Where the round goes on, and how many places it still has to see.
    at: usize,
    left: usize,
}

impl Streams {
    /// Gives a stream a place, by number.
    pub(super) fn enter(&self, bell: Arc<Bell>) -> usize {
        let mut places = self.lock();
        match places.free.pop() {
            Some(place) => {
                places.bells[place] = Some(bell);
                place
            }
            None => {
                places.bells.push(Some(bell));
                // A round that is under way goes one place further, or it would end before it came round.
                if places.left > 0 {
                    places.left += 1;
                }
                places.bells.len() - 1
            }
        }
    }

    /// Gives the place back.
    pub(super) fn leave(&self, place: usize) {
        let mut places = self.lock();
        places.bells[place] = None;
        places.free.push(place);
        if places.free.len() == places.bells.len() && places.left == 0 {
            *places = Places::default();
        }
    }

    /// Begins a round with its first turn. Says whether there is more of it that nobody goes on with yet.
    fn begin(&self) -> bool {
        let mut places = self.lock();
        let is_under_way = places.left > 0;
        places.left = places.bells.len();
        // Those who go on with it come to every place once more.
        !is_under_way && places.turn()
    }

    /// Goes on with the round. Says whether there is more of it.
    fn go_on(&self) -> bool {
        self.lock().turn()
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn turn(&mut self) -> bool {
        let mut rung = 0;
        while self.left > 0 && rung < TURN {
            self.at = if self.at + 1 < self.bells.len() { self.at + 1 } else { 0 };
            self.left -= 1;
            if let Some(bell) = &self.bells[self.at] {
                bell.ring(Ring::List);
                rung += 1;
            }
        }
        self.left > 0
    }
}

/// The rounds that are under way.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    waiting: Mutex<VecDeque<Arc<Streams>>>,
    begun: Notify,
}

impl Rounds {
    /// Wakes the first few, and has the rest woken.
    pub(super) fn begin(&self, streams: &Arc<Streams>) {
        if streams.begin() {
            self.lock().push_back(Arc::clone(streams));
            self.begun.notify_one();
        }
    }

    /// Wakes the rest of every round that begins, until `stop`.
    pub(super) async fn keep_ringing(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                () = self.begun.notified() => {}
            }
            loop {
                let Some(streams) = self.lock().pop_front() else { break };
                if streams.go_on() {
                    self.lock().push_back(streams);
                }
                // Those who were woken, and everybody else, run before the next few are.
                tokio::task::yield_now().await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Streams>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn rung(bell: &Bell) -> bool {
        bell.poll_rung(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn all_are_rung_and_those_of_a_small_scope_do_not_wait_for_a_large_one() {
        let rounds = Arc::new(Rounds::default());
        let (large, small) = (Arc::new(Streams::default()), Arc::new(Streams::default()));
        let bells: Vec<_> = (0..10 * TURN).map(|_| Arc::new(Bell::default())).collect();
        let places: Vec<_> = bells.iter().map(|bell| large.enter(Arc::clone(bell))).collect();
        let few: Vec<_> = (0..2 * TURN).map(|_| Arc::new(Bell::default())).collect();
        for bell in &few {
            small.enter(Arc::clone(bell));
        }

        rounds.begin(&large);
        rounds.begin(&small);
        assert_eq!(bells.iter().filter(|bell| rung(bell)).count(), TURN, "the first few at once");
        let keeper = tokio::spawn({
            let rounds = Arc::clone(&rounds);
            async move { rounds.keep_ringing(std::future::pending()).await }
        });
        // One turn each.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(few.iter().all(|bell| rung(bell)));
        assert!(!bells.iter().all(|bell| rung(bell)), "the large one is not done");

        // A change in the middle: each is rung once more, whether the round had passed it or not.
        for bell in &bells {
            rung(bell);
        }
        large.leave(places[3]);
        rounds.begin(&large);
        for _ in 0..12 {
            tokio::task::yield_now().await;
        }
        let silent: Vec<_> =
            bells.iter().enumerate().filter(|(_, bell)| !rung(bell)).map(|(n, _)| n).collect();
        assert_eq!(silent, [3], "who has left is rung no more");
        assert!(large.lock().left == 0 && rounds.lock().is_empty());
        keeper.abort();
    }

    #[test]
    fn who_comes_in_the_middle_of_a_round_costs_nobody_the_ring() {
        // The second round begins somewhere in the middle.
        for rounds in 1..=2 {
            let streams = Streams::default();
            let bells: Vec<_> = (0..10 * TURN).map(|_| Arc::new(Bell::default())).collect();
            bells.iter().for_each(|bell| {
                streams.enter(Arc::clone(bell));
            });
            assert!(streams.begin());
            for _ in 1..rounds {
                assert!(streams.go_on());
                assert!(!streams.begin(), "those who go on with it go on");
            }
            for bell in &bells {
                rung(bell);
            }
            assert!(!streams.begin());
            for _ in 0..3 {
                streams.enter(Arc::default());
                assert!(streams.go_on());
            }
            while streams.go_on() {}
            let silent = bells.iter().filter(|bell| !rung(bell)).count();
            assert_eq!(silent, 0, "{rounds}");
        }
    }

    #[test]
    fn places_are_used_again_and_given_up_with_the_last() {
        let streams = Streams::default();
        let (a, b) = (streams.enter(Arc::default()), streams.enter(Arc::default()));
        streams.leave(a);
        assert_eq!(streams.enter(Arc::default()), a);
        streams.leave(b);
        streams.leave(a);
        assert!(streams.lock().bells.is_empty());
        assert!(!streams.begin(), "nobody is there");
    }
}
