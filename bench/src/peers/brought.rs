//! The peers that the bench brings along, seen from the bench.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;

use super::{Peer, watch};
use crate::client::control::{Connect, Subscription};
use crate::clock::now_ns;
use crate::failure::{Doing, Failure, Outcome};
use crate::list::List;
use crate::port::Port;
use crate::process::Process;
use crate::serve::{Certificate, Kind};

/// One of them.
#[derive(Debug)]
pub(crate) struct Brought {
    name: &'static str,
    kind: Kind,
    port: Port,
    process: Process,
    lists: UnixStream,
    certificate: Option<Certificate>,
}

impl Brought {
    /// Starts it; `folder` is for its socket.
    pub(crate) fn start(
        name: &'static str,
        kind: Kind,
        certificate: Option<&Certificate>,
        folder: &Path,
    ) -> Outcome<Brought> {
        let port = Port::take()?;
        let (process, lists) = start(name, kind, certificate, folder, &port)?;
        Ok(Brought { name, kind, port, process, lists, certificate: certificate.cloned() })
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Outcome<()> {
        self.process.kill()
    }

    /// Starts it again on the same port, after it was killed.
    pub(crate) fn start_again(&mut self, folder: &Path, list: &List) -> Outcome<()> {
        (self.process, self.lists) =
            start(self.name, self.kind, self.certificate.as_ref(), folder, &self.port)?;
        self.push(list).map(drop)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }
}

fn start(
    name: &'static str,
    kind: Kind,
    certificate: Option<&Certificate>,
    folder: &Path,
    port: &Port,
) -> Outcome<(Process, UnixStream)> {
    let socket = folder.join(format!("{name}.sock"));
    // That of an earlier start.
    let _ = std::fs::remove_file(&socket);
    let own = std::env::current_exe().doing("find the bench's own program")?;
    let mut command = Command::new(own);
    let word = kind.to_possible_value().expect("every kind has a word");
    command.arg("serve").arg(word.get_name()).arg("--lists").arg(&socket);
    command.arg("--listen").arg(port.address().to_string());
    if let Some(certificate) = certificate {
        command.arg("--tls").arg(certificate.folder());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(name, &mut command)?;
    let mut line = String::new();
    let output = process.child().stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).doing(format!("hear {name}"))?;
    if line != "ready\n" {
        return Err(Failure::new(format!("{name} did not start")));
    }
    let lists = UnixStream::connect(&socket).doing(format!("reach {name}"))?;
    Ok((process, lists))
}

impl Peer for Brought {
    fn name(&self) -> &'static str {
        self.name
    }

    fn server(&mut self) -> &mut Process {
        &mut self.process
    }

    fn connect(&self, count: usize) -> Connect {
        let subscription = match self.kind {
            Kind::NaiveTonic => watch(Vec::new(), None),
            Kind::FloorEpoll | Kind::FloorEpoll2 | Kind::FloorTls => Subscription::Framed,
        };
        Connect {
            count,
            address: self.port.address(),
            ca: self.certificate.as_ref().map(Certificate::authority),
            in_flight: 256,
            timeout_ms: 120_000,
            subscription,
        }
    }

    fn push(&mut self, list: &List) -> Outcome<u64> {
        let message = list.message();
        let mut frame = u32::try_from(message.len()).expect("a list is short").to_be_bytes().to_vec();
        frame.extend_from_slice(&message);
        let asked_ns = now_ns();
        self.lists.write_all(&frame).doing(format!("push to {}", self.name))?;
        Ok(asked_ns)
    }

    fn version(&self) -> String {
        match self.kind {
            Kind::NaiveTonic => format!("tonic {}", crate::machine::locked_version("tonic")),
            Kind::FloorTls => format!("rustls {}", crate::machine::locked_version("rustls")),
            Kind::FloorEpoll | Kind::FloorEpoll2 => "-".to_owned(),
        }
    }
}
