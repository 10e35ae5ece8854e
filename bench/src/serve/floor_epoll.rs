//! The floor: what pushing to so many clients costs at the least. No protocol, no TLS, no task: a loop of writes.
//!
//! In: lists. Out: each list's bytes to every client with one write. Always: a client that does not read holds up nobody;
//! what it could not be sent waits in a buffer of its own, and only its newest list.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::Serve;
use crate::failure::{Doing, Outcome};

const LISTENER: u64 = u64::MAX;
const LISTS: u64 = u64::MAX - 1;
const WOKEN: u64 = u64::MAX - 2;

/// What writers share.
struct Shared {
    newest: Mutex<Arc<[u8]>>,
    /// Connections for each writer but the first, which accepts.
    accepted: Mutex<Vec<TcpStream>>,
}

struct Client {
    stream: TcpStream,
    /// What is left of a list that the socket did not take whole.
    rest: Vec<u8>,
    /// The newest list that came while there was a rest.
    newest: Option<Arc<[u8]>>,
}

struct Writer {
    epoll: OwnedFd,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    shared: Arc<Shared>,
}

/// Serves until it is killed, or the bench goes.
pub(super) fn run(serve: &Serve, writers: usize) -> Outcome<()> {
    let listener = super::listen(serve.listen)?;
    let bench = UnixListener::bind(&serve.lists).doing("listen for the bench")?;
    super::ready()?;
    let (mut lists, _) = bench.accept().doing("wait for the bench")?;
    let first = next(&mut lists).doing("read the first list")?;
    let shared = Arc::new(Shared { newest: Mutex::new(first), accepted: Mutex::default() });
    let mut bells = Vec::new();
    for _ in 1..writers {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).doing("make a bell")?);
        let mut writer = Writer::new(Arc::clone(&shared))?;
        writer.watch(&bell, WOKEN)?;
        bells.push(Arc::clone(&bell));
        std::thread::spawn(move || writer.run_second(&bell));
    }
    let mut writer = Writer::new(shared)?;
    writer.watch(&listener, LISTENER)?;
    writer.watch(&lists, LISTS)?;
    writer.run_first(&listener, &mut lists, &bells)
}

/// The next list, behind its length as it goes to the clients.
fn next(lists: &mut UnixStream) -> io::Result<Arc<[u8]>> {
    let mut length = [0; 4];
    lists.read_exact(&mut length)?;
    let mut frame = length.to_vec();
    frame.resize(4 + u32::from_be_bytes(length) as usize, 0);
    lists.read_exact(&mut frame[4..])?;
    Ok(frame.into())
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Outcome<Writer> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).doing("make an epoll")?;
        Ok(Writer { epoll, clients: Vec::new(), free: Vec::new(), shared })
    }

    fn watch(&self, what: &impl std::os::fd::AsFd, mark: u64) -> Outcome<()> {
        epoll::add(&self.epoll, what, EventData::new_u64(mark), EventFlags::IN).doing("watch a socket")
    }

    /// The writer that accepts and takes lists.
    fn run_first(
        &mut self,
        listener: &TcpListener,
        lists: &mut UnixStream,
        bells: &[Arc<OwnedFd>],
    ) -> Outcome<()> {
        let mut turn = 0;
        loop {
            for event in self.wait()? {
                match event.data.u64() {
                    LISTS => {
                        let Ok(list) = next(lists) else { return Ok(()) };
                        *self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner) =
                            Arc::clone(&list);
                        ring(bells)?;
                        self.push(&list);
                    }
                    LISTENER => {
                        while let Ok((stream, _)) = listener.accept() {
                            turn = (turn + 1) % (1 + bells.len());
                            if turn == 0 {
                                self.admit(stream);
                            } else {
                                let accepted = &self.shared.accepted;
                                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                                ring(&bells[turn - 1..turn])?;
                            }
                        }
                    }
                    number => self.ready(number, event.flags),
                }
            }
        }
    }

    /// A writer that is told of everything by its bell.
    fn run_second(&mut self, bell: &OwnedFd) {
        let mut pushed = Arc::clone(&self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner));
        while let Ok(events) = self.wait() {
            for event in events {
                if event.data.u64() != WOKEN {
                    self.ready(event.data.u64(), event.flags);
                    continue;
                }
                let mut count = [0; 8];
                // It is readable, and nobody else reads it.
                let _ = rustix::io::read(bell, &mut count);
                let newest = Arc::clone(&self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner));
                if !Arc::ptr_eq(&newest, &pushed) {
                    self.push(&newest);
                    pushed = newest;
                }
                let accepted =
                    std::mem::take(&mut *self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner));
                for stream in accepted {
                    self.admit(stream);
                }
            }
        }
    }

    fn wait(&self) -> Outcome<Vec<Event>> {
        let mut events = Vec::with_capacity(512);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(events),
            Err(error) => Err(error).doing("wait for what is ready"),
        }
    }

    fn admit(&mut self, stream: TcpStream) {
        // They fail only on a socket that is dead, of which its first write tells.
        let _ = stream.set_nonblocking(true);
        let _ = stream.set_nodelay(true);
        let place = self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let data = EventData::new_u64(place as u64);
        let _ = epoll::add(&self.epoll, &stream, data, EventFlags::IN);
        self.clients[place] = Some(Client { stream, rest: Vec::new(), newest: None });
        let newest = Arc::clone(&self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner));
        self.send(place, &newest);
    }

    fn push(&mut self, list: &Arc<[u8]>) {
        for place in 0..self.clients.len() {
            self.send(place, list);
        }
    }

    fn send(&mut self, place: usize, list: &Arc<[u8]>) {
        let Some(client) = &mut self.clients[place] else { return };
        if !client.rest.is_empty() {
            client.newest = Some(Arc::clone(list));
            return;
        }
        match client.stream.write(list) {
            Ok(count) if count == list.len() => {}
            Ok(count) => {
                client.rest = list[count..].to_vec();
                self.watch_room(place, true);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.rest = list.to_vec();
                self.watch_room(place, true);
            }
            Err(_) => self.remove(place),
        }
    }

    fn watch_room(&self, place: usize, wants_room: bool) {
        let Some(client) = &self.clients[place] else { return };
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, wants_room);
        let _ = epoll::modify(&self.epoll, &client.stream, EventData::new_u64(place as u64), flags);
    }

    /// A client took something, said something, or went.
    fn ready(&mut self, number: u64, flags: EventFlags) {
        let place = usize::try_from(number).expect("it was a usize");
        let Some(Some(client)) = self.clients.get_mut(place) else { return };
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match client.stream.read(&mut [0; 64]) {
                Ok(0) => return self.remove(place),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return self.remove(place),
                _ => {}
            }
        }
        if !flags.contains(EventFlags::OUT) {
            return;
        }
        match client.stream.write(&client.rest) {
            Ok(count) => drop(client.rest.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return self.remove(place),
        }
        if client.rest.is_empty() {
            let newest = client.newest.take();
            self.watch_room(place, false);
            if let Some(newest) = newest {
                self.send(place, &newest);
            }
        }
    }

    fn remove(&mut self, place: usize) {
        self.clients[place] = None;
        self.free.push(place);
    }
}

fn ring(bells: &[Arc<OwnedFd>]) -> Outcome<()> {
    for bell in bells {
        rustix::io::write(bell, &1u64.to_ne_bytes()).doing("ring a bell")?;
    }
    Ok(())
}
