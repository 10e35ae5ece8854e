//! A load of unary calls: so many under way at one time, or so many a second, each a report of one proxy.
//!
//! In: callers with their tokens. Out: how many calls ended how, and how long each took since it was due.
//! Always: bounded in time; one thread. A proxy has at most one call under way, as the contract asks of reports.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use super::connection::{Buffers, Connection, Phase};
use super::control::{Calls, Times, Unary};
use super::http2::request_headers;
use super::speech::{Said, Speech, UnaryStreams};
use crate::clock::now_ns;
use crate::failure::{Doing, Failure, Outcome};
use crate::report_message;

/// How long answers may still take after the last call.
const PATIENCE: Duration = Duration::from_secs(10);

/// One proxy that calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Caller {
    /// Its bearer token; empty for a server that asks for none.
    pub(crate) token: String,
    /// The name and the address of its node.
    pub(crate) node: (String, String),
    /// The session of its reports.
    pub(crate) session: String,
}

/// A caller, ready to call.
struct Ready {
    headers: Vec<u8>,
    report: report_message::Template,
    sequence: u64,
}

/// One connection with its callers.
struct Lane {
    connection: Connection,
    callers: Vec<Ready>,
    /// Callers that have no call under way.
    idle: VecDeque<usize>,
    under_way: Vec<Call>,
    next_stream: u32,
}

struct Call {
    stream: u32,
    caller: usize,
    due_ns: u64,
}

/// Runs a load to its end.
pub(crate) fn run(unary: &Unary, tls: Option<Arc<rustls::ClientConfig>>) -> Outcome<Calls> {
    let epoll = epoll::create(CreateFlags::CLOEXEC).doing("make an epoll")?;
    let mut load = Load {
        lanes: lanes(unary, tls, &epoll)?,
        epoll,
        buffers: Buffers::default(),
        calls: Calls::default(),
        latencies: Vec::new(),
        wire: Vec::new(),
    };
    load.open()?;
    let began_ns = now_ns();
    let ends_ns = began_ns + unary.duration_ms * 1_000_000;
    let mut issued = 0u64;
    let mut turn = 0;
    loop {
        let now = now_ns();
        if now < ends_ns {
            match unary.rate {
                // Open loop: a call is due when the clock says so, however late the ones before it are.
                Some(rate) => {
                    let due_at = |number: u64| began_ns + number * 1_000_000_000 / u64::from(rate);
                    while due_at(issued) <= now {
                        load.issue(turn, usize::MAX, due_at(issued))?;
                        turn += 1;
                        issued += 1;
                    }
                }
                None => {
                    for lane in 0..load.lanes.len() {
                        while load.issue(lane, unary.in_flight, now)? {
                            issued += 1;
                        }
                    }
                }
            }
        } else if load.lanes.iter().all(|lane| lane.under_way.is_empty()) {
            break;
        } else if now > ends_ns + u64::try_from(PATIENCE.as_nanos()).expect("it is short") {
            let open: usize = load.lanes.iter().map(|lane| lane.under_way.len()).sum();
            load.calls.broken.insert("no answer".to_owned(), open as u64);
            break;
        }
        let pause = if unary.rate.is_some() { Duration::from_micros(200) } else { Duration::from_millis(5) };
        load.turn(pause)?;
    }
    load.calls.elapsed_ns = now_ns() - began_ns;
    load.calls.latency = Times::of(&mut load.latencies);
    Ok(load.calls)
}

fn lanes(unary: &Unary, tls: Option<Arc<rustls::ClientConfig>>, epoll: &OwnedFd) -> Outcome<Vec<Lane>> {
    let callers = super::read_lines(&unary.callers)?;
    let callers: Result<Vec<Caller>, _> = callers.iter().map(|line| serde_json::from_str(line)).collect();
    let callers = callers.doing("read the callers")?;
    let authority = unary.address.to_string();
    let mut lanes = Vec::new();
    for number in 0..unary.connections {
        let watch = unary.watch.as_ref().map(|path| {
            let first = callers.get(number).map(|caller| caller.token.as_str()).unwrap_or_default();
            request_headers(tls.is_some(), &authority, path, Some(first).filter(|token| !token.is_empty()))
        });
        let next_stream = if watch.is_some() { 3 } else { 1 };
        let speech = Speech::Unary(UnaryStreams::new(watch));
        let connection = Connection::dial(unary.address, tls.as_ref(), speech).doing("dial the server")?;
        let flags = EventFlags::IN | EventFlags::OUT;
        epoll::add(epoll, connection.socket(), EventData::new_u64(number as u64), flags)
            .doing("watch a socket")?;
        let own = callers.iter().skip(number).step_by(unary.connections).map(|caller| {
            let token = Some(caller.token.as_str()).filter(|token| !token.is_empty());
            Ready {
                headers: request_headers(tls.is_some(), &authority, &unary.path, token),
                report: report_message::Template::new(&caller.session, &caller.node),
                sequence: unary.first_sequence,
            }
        });
        let callers: Vec<Ready> = own.collect();
        if callers.is_empty() {
            return Err(Failure::new("there are fewer callers than connections"));
        }
        let idle = (0..callers.len()).collect();
        lanes.push(Lane { connection, callers, idle, under_way: Vec::new(), next_stream });
    }
    Ok(lanes)
}

struct Load {
    epoll: OwnedFd,
    lanes: Vec<Lane>,
    buffers: Buffers,
    calls: Calls,
    latencies: Vec<u64>,
    wire: Vec<u8>,
}

impl Load {
    /// Waits until every connection is there.
    fn open(&mut self) -> Outcome<()> {
        let deadline_ns = now_ns() + u64::try_from(PATIENCE.as_nanos()).expect("it is short");
        while self.lanes.iter().any(|lane| lane.connection.phase != Phase::Subscribed) {
            if now_ns() > deadline_ns {
                return Err(Failure::new("the server did not take the connections"));
            }
            self.turn(Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Begins a call on a lane, if it has fewer than `most` under way and one of its callers is idle. Lanes are counted
    /// round and round.
    fn issue(&mut self, lane: usize, most: usize, due_ns: u64) -> Outcome<bool> {
        let number_of_lane = lane % self.lanes.len();
        let lane = &mut self.lanes[number_of_lane];
        if lane.under_way.len() >= most {
            return Ok(false);
        }
        let Speech::Unary(UnaryStreams { http2: Some(http2), .. }) = lane.connection.speech() else {
            return Err(Failure::new("a connection was used before it was there"));
        };
        if http2.credit < report_message::MAX_BYTES {
            return Ok(false);
        }
        let Some(number) = lane.idle.pop_front() else {
            *self.calls.broken.entry("every caller had a call under way".to_owned()).or_default() += 1;
            return Ok(false);
        };
        let caller = &mut lane.callers[number];
        caller.sequence += 1;
        let (stream, message) = (lane.next_stream, caller.report.message(caller.sequence));
        http2.request(stream, &caller.headers, message, true, &mut self.wire);
        lane.next_stream += 2;
        lane.under_way.push(Call { stream, caller: number, due_ns });
        lane.connection.send(&mut self.wire).doing("send a call")?;
        if lane.connection.wants_room {
            let (data, flags) = (EventData::new_u64(number_of_lane as u64), EventFlags::IN | EventFlags::OUT);
            epoll::modify(&self.epoll, lane.connection.socket(), data, flags).doing("watch a socket")?;
        }
        Ok(true)
    }

    /// Waits for what is ready, and takes it.
    fn turn(&mut self, pause: Duration) -> Outcome<()> {
        let mut events: Vec<Event> = Vec::with_capacity(256);
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing("wait for what is ready"),
        }
        for event in events {
            let (number, flags) = (event.data.u64(), event.flags);
            let lane = &mut self.lanes[usize::try_from(number).expect("it was a usize")];
            let had_room = lane.connection.wants_room;
            if flags.contains(EventFlags::OUT) {
                lane.connection.writable(&mut self.buffers).doing("write to the server")?;
            }
            let (calls, latencies) = (&mut self.calls, &mut self.latencies);
            let (under_way, idle) = (&mut lane.under_way, &mut lane.idle);
            let mut end = None;
            let read = lane.connection.readable(&mut self.buffers, &mut |said| match said {
                Said::Answered { stream, status, is_long } => {
                    let Some(place) = under_way.iter().position(|call| call.stream == stream) else { return };
                    let call = under_way.swap_remove(place);
                    idle.push_back(call.caller);
                    *calls.by_status.entry(status).or_default() += 1;
                    if status == 0 {
                        calls.partial += u64::from(is_long);
                        latencies.push(now_ns() - call.due_ns);
                    }
                }
                Said::End(why) => end = Some(why),
                Said::Message(_) | Said::Credit => {}
            });
            read.doing("read from the server")?;
            if let Some(why) = end {
                return Err(Failure::new(format!("the server ended a connection: {why}")));
            }
            // TLS's handshake is over, or there is none: calls may go out.
            if lane.connection.phase == Phase::Greeting && lane.connection.is_ready() {
                lane.connection.phase = Phase::Subscribed;
            }
            if had_room != lane.connection.wants_room {
                let mut flags = EventFlags::IN;
                flags.set(EventFlags::OUT, lane.connection.wants_room);
                let data = EventData::new_u64(number);
                epoll::modify(&self.epoll, lane.connection.socket(), data, flags).doing("watch a socket")?;
            }
        }
        Ok(())
    }
}
