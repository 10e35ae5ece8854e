//! All connections of one client process, in one epoll loop on one thread.
//!
//! In: readiness. Out: when each connection had the round's message. Always: one thread and one read for each arrival,
//! the same for every peer, so that the client takes as little of the machine as it can and as much from each.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::connection::{Buffers, Connection, Phase};
use super::control::{Answer, Connect, Times};
use super::speech::{Said, Speech};
use crate::clock::now_ns;

/// Connections that are dialled between two looks at what is ready.
const DIALS_AT_A_TIME: usize = 32;
/// How long a connection that failed while it was made waits before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Makes what is spoken on the connection with this number.
pub(super) type Speak = Box<dyn Fn(usize) -> Speech>;

/// The connections, and the round that is under way.
pub(super) struct Fleet {
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    notes: Vec<Note>,
    buffers: Buffers,
    dialing: Option<Dialing>,
    has_kinds: bool,
    round: Round,
    ended: BTreeMap<String, usize>,
}

/// What is remembered of a connection.
#[derive(Clone, Copy, Default)]
struct Note {
    /// The last round whose message it had.
    round: u32,
    /// Stale lists since that round began.
    stale: u32,
    was_stalled: bool,
}

struct Dialing {
    connect: Connect,
    tls: Option<Arc<rustls::ClientConfig>>,
    speak: Speak,
    next: usize,
    in_flight: usize,
    again: VecDeque<(u64, usize)>,
    began_ns: u64,
    firsts: Vec<u64>,
    retried: BTreeMap<String, usize>,
}

#[derive(Default)]
struct Round {
    number: u32,
    marker: Vec<u8>,
    arrivals: Vec<u64>,
}

impl Fleet {
    pub(super) fn new(epoll: OwnedFd) -> Fleet {
        Fleet {
            epoll,
            connections: Vec::new(),
            notes: Vec::new(),
            buffers: Buffers::default(),
            dialing: None,
            has_kinds: false,
            round: Round::default(),
            ended: BTreeMap::new(),
        }
    }

    /// Begins to open connections.
    pub(super) fn connect(
        &mut self,
        connect: Connect,
        tls: Option<Arc<rustls::ClientConfig>>,
        has_kinds: bool,
        speak: Speak,
    ) {
        self.close();
        self.has_kinds = has_kinds;
        self.connections.resize_with(connect.count, || None);
        self.notes = vec![Note::default(); connect.count];
        self.dialing = Some(Dialing {
            tls,
            speak,
            next: 0,
            in_flight: 0,
            again: VecDeque::new(),
            began_ns: now_ns(),
            firsts: Vec::with_capacity(connect.count),
            retried: BTreeMap::new(),
            connect,
        });
    }

    /// Closes all connections.
    pub(super) fn close(&mut self) {
        self.connections.clear();
        self.notes.clear();
        self.ended.clear();
        self.dialing = None;
    }

    /// Dials what is due. Returns how long the loop may sleep: `None` as long as it likes.
    pub(super) fn dial(&mut self) -> Option<Duration> {
        let Some(dialing) = &mut self.dialing else { return None };
        let mut dialed = 0;
        while dialed < DIALS_AT_A_TIME && dialing.in_flight < dialing.connect.in_flight {
            let is_due = dialing.again.front().is_some_and(|(due, _)| *due <= now_ns());
            let number = match is_due {
                true => dialing.again.pop_front().expect("there is a front").1,
                false if dialing.next < dialing.connect.count => {
                    dialing.next += 1;
                    dialing.next - 1
                }
                false => break,
            };
            dialed += 1;
            let speech = (dialing.speak)(number);
            let connection = Connection::dial(dialing.connect.address, dialing.tls.as_ref(), speech);
            let connection = connection.and_then(|connection| {
                let data = EventData::new_u64(number as u64);
                epoll::add(&self.epoll, connection.socket(), data, EventFlags::OUT | EventFlags::IN)?;
                Ok(connection)
            });
            match connection {
                Ok(connection) => {
                    dialing.in_flight += 1;
                    self.connections[number] = Some(connection);
                }
                Err(error) => dialing.try_again(number, &error.to_string()),
            }
        }
        let has_more = dialing.next < dialing.connect.count && dialing.in_flight < dialing.connect.in_flight;
        match (has_more, dialing.again.is_empty()) {
            (true, _) => Some(Duration::ZERO),
            (false, false) => Some(Duration::from_millis(10)),
            (false, true) => None,
        }
    }

    /// Something is ready on a connection.
    pub(super) fn ready(&mut self, number: usize, flags: EventFlags) {
        let Some(Some(connection)) = self.connections.get_mut(number) else { return };
        let before = connection.phase;
        let had_interest = (connection.wants_room, connection.is_stalled);
        let (note, round) = (&mut self.notes[number], &mut self.round);
        let has_kinds = self.has_kinds;
        let mut end = None;
        let mut is_first = before != Phase::Subscribed;
        let mut result = Ok(());
        if flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) && connection.wants_room {
            result = connection.writable(&mut self.buffers);
        }
        if result.is_ok() && flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
            result = connection.readable(&mut self.buffers, &mut |said| match said {
                Said::End(why) => end = Some(why),
                Said::Message(head) => {
                    let was_first = std::mem::take(&mut is_first);
                    // A bookmark names a hash too; only a list, field 1, is one.
                    let list = head.filter(|head| !has_kinds || head.first() == Some(&0x0a));
                    if let Some(head) = list {
                        round.take(note, head, was_first);
                    }
                }
                Said::Answered { .. } | Said::Credit => {}
            });
        }
        if !is_first && before != Phase::Subscribed {
            connection.phase = Phase::Subscribed;
            if let Some(dialing) = &mut self.dialing {
                dialing.in_flight -= 1;
                dialing.firsts.push(now_ns());
            }
        }
        match (result, end) {
            (Ok(()), None) => {
                if had_interest.0 != connection.wants_room {
                    set_interest(&self.epoll, number, connection);
                }
            }
            (Err(error), end) => self.lost(number, &end.unwrap_or_else(|| error.to_string())),
            (Ok(()), Some(why)) => self.lost(number, &why),
        }
    }

    fn lost(&mut self, number: usize, why: &str) {
        let connection = self.connections[number].take();
        let was_subscribed = connection.is_some_and(|connection| connection.phase == Phase::Subscribed);
        match &mut self.dialing {
            Some(dialing) if !was_subscribed => {
                dialing.in_flight -= 1;
                dialing.try_again(number, why);
            }
            _ => *self.ended.entry(why.to_owned()).or_default() += 1,
        }
    }

    /// The answer to `connect`, once it is done or out of time.
    pub(super) fn connected(&mut self) -> Option<Answer> {
        let dialing = self.dialing.as_mut()?;
        let is_late = now_ns() - dialing.began_ns > dialing.connect.timeout_ms * 1_000_000;
        let lost: usize = self.ended.values().sum();
        if dialing.firsts.len() < dialing.connect.count && !is_late {
            return None;
        }
        let missing = dialing.connect.count - dialing.firsts.len().min(dialing.connect.count);
        let times = Times::of(&mut dialing.firsts);
        let (began_ns, retried) = (dialing.began_ns, std::mem::take(&mut dialing.retried));
        self.dialing = None;
        let open = self.open();
        debug_assert!(open + missing + lost >= self.connections.len());
        Some(Answer {
            open,
            retried,
            missing,
            times,
            began_ns,
            ended: self.ended.clone(),
            ..Answer::default()
        })
    }

    /// Begins a round.
    pub(super) fn expect(&mut self, marker: String) {
        self.round.number += 1;
        self.round.marker = marker.into_bytes();
        self.round.arrivals.clear();
        for note in &mut self.notes {
            note.stale = 0;
        }
    }

    /// How many connections that read have not had the round's message.
    pub(super) fn missing(&self) -> usize {
        let both = self.connections.iter().zip(&self.notes);
        both.filter(|(connection, note)| {
            connection.as_ref().is_some_and(|connection| !connection.is_stalled)
                && note.round != self.round.number
        })
        .count()
    }

    /// Whether the round's message may be with all that read: cheap, as it is asked in each turn of the loop.
    pub(super) fn may_be_complete(&self, expected: usize) -> bool {
        self.round.arrivals.len() >= expected
    }

    /// Connections that read.
    pub(super) fn reading(&self) -> usize {
        self.connections.iter().flatten().filter(|connection| !connection.is_stalled).count()
    }

    /// How the round went.
    pub(super) fn round(&mut self) -> Answer {
        let stale = self.notes.iter().map(|note| u64::from(note.stale)).sum();
        let mut of_stalled: Vec<u32> =
            self.notes.iter().filter(|note| note.was_stalled).map(|note| note.stale).collect();
        of_stalled.sort_unstable();
        let stale_of_stalled = of_stalled.last().map(|most| (of_stalled[of_stalled.len() / 2], *most));
        Answer {
            open: self.open(),
            missing: self.missing(),
            times: Times::of(&mut self.round.arrivals),
            stale,
            stale_of_stalled,
            ended: self.ended.clone(),
            ..Answer::default()
        }
    }

    /// Every so-many-th connection stops reading; returns how many do.
    pub(super) fn stall(&mut self, every: usize) -> usize {
        for (number, connection) in self.connections.iter_mut().enumerate() {
            let Some(connection) = connection.as_mut().filter(|_| number % every == 0) else { continue };
            connection.is_stalled = true;
            self.notes[number].was_stalled = true;
            set_interest(&self.epoll, number, connection);
        }
        self.connections.iter().flatten().filter(|connection| connection.is_stalled).count()
    }

    /// All connections read again.
    pub(super) fn resume(&mut self) {
        for (number, connection) in self.connections.iter_mut().enumerate() {
            if let Some(connection) = connection.as_mut().filter(|connection| connection.is_stalled) {
                connection.is_stalled = false;
                set_interest(&self.epoll, number, connection);
            }
        }
    }

    /// Forgets who was stalled.
    pub(super) fn forget_stalled(&mut self) {
        for note in &mut self.notes {
            note.was_stalled = false;
        }
    }

    fn open(&self) -> usize {
        let is_open = |connection: &&Connection| connection.phase == Phase::Subscribed;
        self.connections.iter().flatten().filter(is_open).count()
    }
}

impl Round {
    /// One list of a connection: the round's own, or a stale one, unless it is the connection's first message.
    fn take(&mut self, note: &mut Note, head: &[u8], is_first: bool) {
        if note.round != self.number
            && !self.marker.is_empty()
            && memchr::memmem::find(head, &self.marker).is_some()
        {
            note.round = self.number;
            self.arrivals.push(now_ns());
        } else if !is_first {
            note.stale += 1;
        }
    }
}

impl Dialing {
    fn try_again(&mut self, number: usize, why: &str) {
        *self.retried.entry(why.to_owned()).or_default() += 1;
        let after = u64::try_from(RETRY_AFTER.as_nanos()).expect("it is short");
        self.again.push_back((now_ns() + after, number));
    }
}

fn set_interest(epoll: &OwnedFd, number: usize, connection: &Connection) {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, !connection.is_stalled);
    flags.set(EventFlags::OUT, connection.wants_room);
    // It fails only for a socket that is not there any more, of which its own next call tells.
    let _ = epoll::modify(epoll.as_fd(), connection.socket(), EventData::new_u64(number as u64), flags);
}
