//! The simulated proxies: registered, each with a connection and a watch of its own.
//!
//! In: a route and a join string. Out: [`Streams`], which tell of each list when it came.
//! Always: as many are registered and connected at one time as a fleet that starts would be; when the server refuses, it is
//! said which key of its configuration bounds it.

use std::time::{Duration, Instant};

use pulse_proto::v1::RegisterRequest;
use pulse_proto::{JoinString, Token};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tonic::{Code, Status, Streaming};

use super::Failure;
use super::at_once::at_most;
use super::connection::{ANSWER_TIMEOUT, Connection, Pushed, with_token};
use super::figures::Rate;
use super::route::Route;

/// Connections on which registrations go, and how many go on each at one time.
const REGISTERING: usize = 8;
const ON_EACH: usize = 8;
/// Connections that are being made at one time.
const DIALLING: usize = 128;
/// How often a connection is tried, and how long is waited in between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// The registered proxies. Without `Debug`, as the next two: they hold tokens.
pub(super) struct Crowd {
    tokens: Vec<String>,
    registrations: Rate,
    /// A connection that is there already, for questions.
    other: Connection,
}

/// A list that came, or the end of a stream.
#[derive(Debug)]
pub(super) struct Arrival {
    /// When.
    pub(super) at: Instant,
    /// The list's hash; or how the stream ended.
    pub(super) said: Result<String, String>,
}

/// A proxy with its connection.
#[derive(Clone)]
pub(super) struct Proxy {
    /// Its ctrl token.
    pub(super) token: String,
    /// Its connection.
    pub(super) connection: Connection,
}

/// The open watches. Dropped, they end.
pub(super) struct Streams {
    proxies: Vec<Proxy>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    reading: JoinSet<()>,
}

impl Crowd {
    /// Registers so many.
    pub(super) async fn register(
        route: &Route,
        join: &str,
        name: &str,
        count: u32,
    ) -> Result<Crowd, Failure> {
        let unreadable = || Failure::unreadable("its join string is none");
        let join: JoinString = join.parse().map_err(|_| unreadable())?;
        let join = join.join.as_ref().map(Token::reveal).ok_or_else(unreadable)?.to_owned();
        let mut connections = Vec::new();
        for _ in 0..REGISTERING {
            let dialled = route.dial().await;
            connections.push(dialled.map_err(|error| {
                let text = format!("connect to {route}: {error}; --address HOST:PORT says another way");
                Failure::local("CONNECT", text)
            })?);
        }
        let other = connections[0].clone();
        let began = Instant::now();
        let work = (1..=count).zip(connections.iter().cycle()).map(|(number, connection)| {
            let hostname = format!("{name}-{number:05}");
            register(connection.clone(), join.clone(), hostname)
        });
        let registered = at_most(REGISTERING * ON_EACH, work).await?;
        let together = began.elapsed();
        let (tokens, times) = registered.into_iter().unzip();
        let registrations = Rate::of(times, together).ok_or_else(nothing)?;
        Ok(Crowd { tokens, registrations, other })
    }

    /// How the registrations went.
    pub(super) fn registrations(&self) -> Rate {
        self.registrations
    }

    /// Opens all connections and watches; each is open when it has its first list.
    pub(super) async fn connect(&self, route: &Route) -> Result<(Streams, Rate), Failure> {
        let refused_before = Refused::seen(&self.other).await;
        let began = Instant::now();
        let work = self.tokens.iter().map(|token| open(route.clone(), token.clone()));
        let opened = match at_most(DIALLING, work).await {
            Ok(opened) => opened,
            Err(failure) => {
                let refused = Refused::seen(&self.other).await;
                return Err(failure.with(&refused.advice(&refused_before, self.tokens.len())));
            }
        };
        let together = began.elapsed();
        let (arriving, arrivals) = mpsc::unbounded_channel();
        let mut streams = Streams { proxies: Vec::new(), arrivals, reading: JoinSet::new() };
        let mut times = Vec::with_capacity(opened.len());
        for (proxy, stream, took) in opened {
            times.push(took);
            streams.proxies.push(proxy);
            streams.reading.spawn(read(stream, arriving.clone()));
        }
        Ok((streams, Rate::of(times, together).ok_or_else(nothing)?))
    }
}

impl Streams {
    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.proxies.len()
    }

    /// The proxies, with their connections.
    pub(super) fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// What comes next of any stream, until then.
    pub(super) async fn next(&mut self, until: Instant) -> Result<Arrival, Failure> {
        let arrival = timeout_at(until.into(), self.arrivals.recv()).await;
        let arrival =
            arrival.map_err(|_| Failure::local("BENCH", "a push did not come to all".to_owned()))?;
        arrival.ok_or_else(nothing)
    }
}

async fn register(
    connection: Connection,
    join: String,
    hostname: String,
) -> Result<(String, Duration), Failure> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let message = RegisterRequest { hostname: hostname.clone(), version, ..RegisterRequest::default() };
    let failed = |status: Status| refused(&format!("register {hostname}"), &status, "limits.max_calls");
    let request = with_token(message, &join).map_err(failed)?;
    let began = Instant::now();
    let answer = timeout(ANSWER_TIMEOUT, connection.client().register(request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
    Ok((answer.map_err(failed)?.into_inner().ctrl_token, began.elapsed()))
}

async fn open(route: Route, token: String) -> Result<(Proxy, Streaming<Pushed>, Duration), Failure> {
    let mut tries = 0;
    loop {
        let began = Instant::now();
        let failure = match try_open(&route, &token).await {
            Ok((connection, stream)) => {
                return Ok((Proxy { token, connection }, stream, began.elapsed()));
            }
            Err(failure) => failure,
        };
        tries += 1;
        if tries == TRIES {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn try_open(route: &Route, token: &str) -> Result<(Connection, Streaming<Pushed>), Failure> {
    let what = "open the connection of a proxy";
    let dialled = route.dial().await;
    let connection = dialled.map_err(|error| Failure::local("CONNECT", format!("{what}: {error}")))?;
    let failed = |status: Status| refused(what, &status, "limits.max_watches");
    let mut stream = connection.watch(token).await.map_err(failed)?;
    let first = timeout(ANSWER_TIMEOUT, stream.message()).await;
    match first.unwrap_or_else(|_| Err(Status::deadline_exceeded("no list"))).map_err(failed)? {
        Some(Pushed { snapshot: Some(_) }) => Ok((connection, stream)),
        _ => Err(Failure::local("BENCH", format!("{what}: no list came"))),
    }
}

/// Reads a stream to its end.
async fn read(mut stream: Streaming<Pushed>, arriving: mpsc::UnboundedSender<Arrival>) {
    loop {
        let message = stream.message().await;
        let at = Instant::now();
        let said = match message {
            Ok(Some(Pushed { snapshot: Some(list) })) => Ok(list.hash),
            Ok(Some(Pushed { snapshot: None })) => continue,
            Ok(None) => Err("it ended".to_owned()),
            Err(status) => Err(status.message().to_owned()),
        };
        let is_over = said.is_err();
        if arriving.send(Arrival { at, said }).is_err() || is_over {
            return;
        }
    }
}

/// Says what the server refused, and what bounds it.
pub(super) fn refused(what: &str, status: &Status, key: &str) -> Failure {
    let advice = match status.code() {
        Code::ResourceExhausted => format!("; {key} of the server's configuration bounds it"),
        _ => String::new(),
    };
    Failure::local("REFUSED", format!("{what}: {}{advice}", status.message()))
}

fn nothing() -> Failure {
    Failure::local("BENCH", "nothing was measured".to_owned())
}

/// Connections that the server refused since its start, by its metrics; `None`: it did not say.
#[derive(Debug)]
struct Refused {
    of_all: Option<f64>,
    of_one_address: Option<f64>,
}

impl Refused {
    async fn seen(connection: &Connection) -> Refused {
        let page = connection.metrics().await;
        let count = |reason: &str| {
            let line = format!("pulse_connections_refused_total{{reason=\"{reason}\"}} ");
            let page = page.as_ref()?;
            let value = page.lines().find_map(|text| text.strip_prefix(&line));
            Some(value.map_or(0.0, |value| value.parse().unwrap_or(0.0)))
        };
        Refused { of_all: count("limit"), of_one_address: count("address_limit") }
    }

    /// What to set, so that so many may connect.
    fn advice(&self, before: &Refused, clients: usize) -> String {
        let needed = clients + REGISTERING;
        let of_one = format!("limits.max_connections_per_address: {needed}");
        let of_all = format!("limits.max_connections: {needed} (beside the connections of others)");
        let grew = |now: Option<f64>, before: Option<f64>| Some(now? > before?);
        let of_one_grew = grew(self.of_one_address, before.of_one_address);
        match (of_one_grew, grew(self.of_all, before.of_all)) {
            (Some(true), _) => {
                format!("\nthe server refuses more connections of one address: it needs {of_one} for this")
            }
            (_, Some(true)) => format!(
                "\nthe server refuses more connections: it needs {of_all} for this, and as many files (LimitNOFILE)"
            ),
            (None, None) => format!(
                "\nif the server's log says that connections are refused: it needs {of_one} and {of_all} for this"
            ),
            _ => String::new(),
        }
    }
}
