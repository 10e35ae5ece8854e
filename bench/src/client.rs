//! A client process: many connections to one server on one thread, told what to do by lines on its standard input.
//!
//! In: [`control::Command`]s. Out: one [`control::Answer`] each. Always: it answers each command once, and ends with its
//! standard input. Never: knows which peer it talks to; that is in what it is told to say.

mod connection;
pub(crate) mod control;
mod fleet;
mod http2;
mod lines;
mod message;
mod speech;
pub(crate) mod unary;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::clock::now_ns;
use crate::failure::{Doing, Outcome};
use control::{Answer, Command, Connect, Subscription};
use fleet::{Fleet, Speak};
use lines::{Nats, Redis};
use message::Messages;
use speech::{GrpcCall, Speech};

/// Marks the standard input among what is ready.
const INPUT: u64 = u64::MAX;
/// How much is looked at before the next look at commands.
const EVENTS: usize = 1024;

/// How often it is looked for connections that ended in a round.
const LOOK_EVERY_NS: u64 = 100_000_000;

/// The command whose answer is still due.
enum Due {
    Connected,
    Round { deadline_ns: u64, expected: usize, look_ns: u64 },
}

/// Runs a client process to the end of its standard input.
pub(crate) fn run() -> Outcome<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC).doing("make an epoll")?;
    let input = io::stdin();
    epoll::add(&epoll, &input, EventData::new_u64(INPUT), EventFlags::IN)
        .doing("watch the standard input")?;
    let mut fleet = Fleet::new(epoll.try_clone().doing("clone the epoll")?);
    let mut commands = Vec::new();
    let mut due = None;
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        let wait = fleet.dial().or_else(|| due.as_ref().map(|_| Duration::from_millis(5)));
        let wait = wait.map(|wait| Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) });
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing("wait for what is ready"),
        }
        for event in &events {
            let (number, flags) = (event.data.u64(), event.flags);
            if number == INPUT {
                let mut buffer = [0; 4096];
                let count = rustix::io::read(&input, &mut buffer).doing("read commands")?;
                if count == 0 {
                    return Ok(());
                }
                commands.extend_from_slice(&buffer[..count]);
            } else {
                fleet.ready(usize::try_from(number).expect("it was a usize"), flags);
            }
        }
        if let Some(answer) = settle(&mut fleet, &mut due) {
            say(&answer)?;
        }
        while let Some(end) = memchr::memchr(b'\n', &commands) {
            let line: Vec<u8> = commands.drain(..=end).collect();
            let command: Command = serde_json::from_slice(&line).doing("read a command")?;
            let answer = match begin(&mut fleet, command) {
                Ok(Begun::Answer(answer)) => *answer,
                Ok(Begun::Due(begun)) => {
                    due = Some(begun);
                    continue;
                }
                Err(failure) => Answer { error: failure.chain(), ..Answer::default() },
            };
            say(&answer)?;
        }
    }
}

enum Begun {
    Answer(Box<Answer>),
    Due(Due),
}

fn begin(fleet: &mut Fleet, command: Command) -> Outcome<Begun> {
    let round = |fleet: &Fleet, timeout_ms: u64, count: Option<usize>| {
        let expected = count.unwrap_or_else(|| fleet.reading());
        let now = now_ns();
        let (deadline_ns, look_ns) = (now + timeout_ms * 1_000_000, now + LOOK_EVERY_NS);
        Begun::Due(Due::Round { deadline_ns, expected, look_ns })
    };
    let now = |answer: Answer| Begun::Answer(Box::new(answer));
    Ok(match command {
        Command::Connect(connect) => {
            let tls = connect.ca.as_deref().map(|ca| tls(ca, &connect.subscription)).transpose()?;
            let (has_kinds, speak) = speak(&connect)?;
            fleet.connect(connect, tls, has_kinds, speak);
            Begun::Due(Due::Connected)
        }
        Command::Close => {
            fleet.close();
            now(Answer::default())
        }
        Command::Expect { marker } => {
            fleet.expect(marker);
            now(Answer::default())
        }
        Command::Await { count, timeout_ms } => round(fleet, timeout_ms, count),
        Command::Stall { every } => {
            fleet.forget_stalled();
            let stalled = fleet.stall(every);
            now(Answer { missing: stalled, ..fleet.round() })
        }
        Command::Resume { timeout_ms } => {
            fleet.resume();
            round(fleet, timeout_ms, None)
        }
        Command::Unary(unary) => {
            let tls = unary.ca.as_deref().map(|ca| tls_for(ca, &[b"h2"])).transpose()?;
            now(Answer { calls: Some(unary::run(&unary, tls)?), ..Answer::default() })
        }
        Command::Look => now(fleet.round()),
    })
}

/// The answer that is due, if its time has come.
fn settle(fleet: &mut Fleet, due: &mut Option<Due>) -> Option<Answer> {
    let answer = match due.as_mut()? {
        Due::Connected => fleet.connected()?,
        Due::Round { deadline_ns, expected, look_ns } => {
            let now = now_ns();
            let is_complete = fleet.may_be_complete(*expected) || now >= *deadline_ns;
            // A look at all is dear, and needed only when a connection has ended meanwhile.
            if !is_complete && now < *look_ns {
                return None;
            }
            *look_ns = now + LOOK_EVERY_NS;
            if !is_complete && fleet.missing() > 0 {
                return None;
            }
            fleet.round()
        }
    };
    *due = None;
    Some(answer)
}

fn say(answer: &Answer) -> Outcome<()> {
    let mut line = serde_json::to_vec(answer).doing("write an answer")?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line).and_then(|()| output.flush()).doing("say an answer")
}

/// What each connection speaks, and whether its messages have kinds.
fn speak(connect: &Connect) -> Outcome<(bool, Speak)> {
    Ok(match connect.subscription.clone() {
        Subscription::Framed => (false, Box::new(|_| Speech::Framed(Messages::default()))),
        Subscription::Grpc { path, tokens, message, is_end, window, has_kinds } => {
            let tokens = tokens.as_deref().map(read_lines).transpose()?;
            let (is_tls, authority) = (connect.ca.is_some(), connect.address.to_string());
            let message: Arc<[u8]> = message.into();
            let speak = move |number: usize| {
                let token = tokens.as_ref().map(|tokens| tokens[number % tokens.len()].as_str());
                let headers = http2::request_headers(is_tls, &authority, &path, token);
                let call = GrpcCall { headers, message: Arc::clone(&message), is_end, window };
                Speech::Watch { call: Some(call), http2: None, messages: Messages::default() }
            };
            (has_kinds, Box::new(speak))
        }
        Subscription::Nats { subject } => {
            let greeting = Nats::greeting(&subject);
            (false, Box::new(move |_| Speech::Nats { greeting: greeting.clone(), nats: Nats::default() }))
        }
        Subscription::Redis { channel } => {
            let greeting = Redis::greeting(&channel);
            (false, Box::new(move |_| Speech::Redis { greeting: greeting.clone(), redis: Redis::default() }))
        }
    })
}

/// The lines of a file.
pub(crate) fn read_lines(path: &Path) -> Outcome<Vec<String>> {
    let text = std::fs::read_to_string(path).doing(format!("read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn tls(ca: &Path, subscription: &Subscription) -> Outcome<Arc<ClientConfig>> {
    match subscription {
        Subscription::Grpc { .. } => tls_for(ca, &[b"h2"]),
        _ => tls_for(ca, &[]),
    }
}

/// A configuration that trusts one authority, and takes up no earlier session: a proxy does not either, since that would
/// skip its look at the server's key.
pub(crate) fn tls_for(ca: &Path, protocols: &[&[u8]]) -> Outcome<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).doing(format!("read {}", ca.display()))? {
        let certificate = certificate.doing(format!("read {}", ca.display()))?;
        roots.add(certificate).doing("trust the certificate")?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().doing("choose TLS's versions")?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
