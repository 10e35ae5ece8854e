//! `pulse bench`: what this server does on this machine, measured with simulated proxies.
//!
//! In: a running server, and how much of what. Out: a table as `make bench` has it, or JSON.
//! Always: everything goes through the server's public calls; what the bench made is removed however it ends; each wait
//! has a bound. Never: touches an instance, a proxy or a join token that is not its own.

mod at_once;
mod connection;
mod crowd;
mod figures;
mod list;
mod process;
mod reports;
mod rounds;
mod route;
mod stage;

use std::io::{self, Write};

use http::Method;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::{Asking, ask, print, text, typed};
use crate::api;
use crate::args::Bench;
use crate::listen::file_limit;
use crowd::Crowd;
use figures::Figures;
use list::List;
use process::Process;
use rounds::Rounds;
use route::Route;
use stage::Stage;

/// Files that the bench needs beside one for each proxy: its own, those of calls under way, of connections being made.
const OTHER_FILES: u64 = 256;
/// What a simulated proxy takes on this side: connection, TLS, buffers.
const PROXY_KIB: u32 = 110;
/// Nodes of the shorter list.
const FEW: usize = 8;

pub(super) async fn run(asking: &Asking, bench: &Bench) -> Result<(), Failure> {
    let client = &asking.client;
    let status: api::Status = typed(client.call(Method::GET, "/status", &()).await?)?;
    let proxies: api::Proxies = typed(client.call(Method::GET, "/proxies", &()).await?)?;
    nobody_reads_all(&proxies)?;
    files_suffice(bench)?;
    let route = Route::of(&status, bench).await?;
    let stage = Stage::new(client.clone());
    let explanation = explanation(&stage, &route, bench, proxies.proxies.len());
    if bench.yes {
        say(&explanation);
    } else {
        ask::confirm(&explanation, "Begin?")?;
    }

    let mut interruption = Interruption::listen()?;
    // Not cut short: what it makes is known before it is removed.
    let outcome = match stage.set_up(bench.proxies, &List::new(stage.name(), FEW, 0)).await {
        Err(failure) => Err(failure),
        Ok(join) => tokio::select! {
            outcome = measure(&stage, &route, &join, bench, &status) => outcome,
            () = interruption.came() => Err(Failure::local("CANCELLED", "cancelled".to_owned())),
        },
    };
    say("removing what the bench made");
    let cleared = stage.clear().await;
    match (outcome, cleared) {
        (Ok(figures), cleared) => {
            let text = if asking.json { text::json(&figures.json()) } else { figures.table() };
            print(&text).and(cleared)
        }
        (Err(failure), Ok(())) => Err(failure.with("\nwhat the bench had made is removed")),
        (Err(failure), Err(left)) => Err(failure.with(&format!("\n{left}"))),
    }
}

/// It measures the machine that it runs on.
pub(super) fn not_from_afar() -> Failure {
    let text = "a bench runs on the server's own machine, over its Unix socket: run `pulse bench` there";
    Failure::usage("SOCKET_ONLY", text.to_owned())
}

async fn measure(
    stage: &Stage,
    route: &Route,
    join: &str,
    bench: &Bench,
    status: &api::Status,
) -> Result<Figures, Failure> {
    let process = Process::of(stage.client()).await;
    let memory_before = process.resident_bytes();
    say(&format!("registering {}", text::count(bench.proxies as usize, "proxy")));
    let crowd = Crowd::register(route, join, stage.name(), bench.proxies).await?;
    say("opening their connections");
    let (mut streams, storm) = crowd.connect(route).await?;
    let memory_idle = process.resident_bytes();
    say(&format!("pushing lists of {FEW} and of {} nodes", bench.nodes));
    let mut rounds = Rounds::new(stage, &process, &mut streams);
    let mut pushes = vec![rounds.push_all(FEW, bench.rounds).await?];
    if bench.nodes as usize != FEW {
        pushes.push(rounds.push_all(bench.nodes as usize, bench.rounds).await?);
    }
    say("reporting temperatures");
    let nodes = rounds.newest().nodes();
    let reports = reports::measure(&streams, &nodes).await?;
    Ok(Figures {
        version: status.version.clone(),
        address: route.to_string(),
        is_tls: route.is_tls(),
        instance: stage.name().to_owned(),
        proxies: bench.proxies,
        streams: streams.open(),
        registrations: crowd.registrations(),
        storm,
        pushes,
        reports,
        server_resident_memory_bytes_before: memory_before,
        server_resident_memory_bytes_connected: memory_idle,
        server_resident_memory_bytes: process.resident_bytes(),
        server_not_known: process.not_known().map(str::to_owned),
    })
}

fn explanation(stage: &Stage, route: &Route, bench: &Bench, present: usize) -> String {
    format!(
        "This adds the instance {} and {} to the running server at {route}, opens as many connections, pushes lists to \
         them, reports temperatures, and removes all of them again. The {} that it has now are not touched, but share \
         the machine meanwhile. It needs some {} MiB of memory. Its rows of the audit log, of lists, of readings and of \
         removed proxies stay in the database.",
        stage.name(),
        text::count(bench.proxies as usize, "simulated proxy"),
        text::count(present, "proxy"),
        20 + bench.proxies * PROXY_KIB / 1024
    )
}

/// Tells how far it is. Who cannot be told has closed the terminal, and what was made must go all the same.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A proxy that reads every node would be pushed the bench's, and would try to read them.
fn nobody_reads_all(proxies: &api::Proxies) -> Result<(), Failure> {
    let reads_all = |proxy: &&api::Proxy| proxy.scope == api::ScopeKind::All && proxy.revoked.is_none();
    let Some(proxy) = proxies.proxies.iter().find(reads_all) else { return Ok(()) };
    let text = format!(
        "proxy {} may read every node, so the bench's nodes would be pushed to it as well: set its scope first \
         (`pulse proxy set {} --scope instance`), or measure another server",
        proxy.hostname, proxy.id
    );
    Err(Failure::local("READS_ALL", text))
}

fn files_suffice(bench: &Bench) -> Result<(), Failure> {
    let files = file_limit::raise().files;
    let possible = files.saturating_sub(OTHER_FILES);
    if u64::from(bench.proxies) <= possible {
        return Ok(());
    }
    let text = format!(
        "this process may open {files} files, which is enough for {possible} proxies: say --proxies {possible}, or raise the \
         limit (ulimit -Hn)"
    );
    Err(Failure::local("FILE_LIMIT", text))
}

/// The signals that end the bench before its time.
struct Interruption {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Interruption {
    fn listen() -> Result<Interruption, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::local("SIGNALS", format!("listen for signals: {error}")))
        };
        Ok(Interruption {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn came(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
