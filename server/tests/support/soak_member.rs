//! One proxy of a fleet that comes and goes: it follows its list over connections that end in every way, and reports.
//!
//! In: the phase that the fleet is in. Out: the list that it holds, the reports that were accepted, counts.
//! Always: it leaves by its own will only; a stream that the server ends, and a call that the server refuses over a
//! connection that is not being left, end the test.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pulse_proto::Chance;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::v1::{
    AllowlistSnapshot, Node, NodeReport, Reading, ReportTemperaturesRequest, SensorKind,
};
use pulse_test_support::{Client, Server, Watch, holding, in_time};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

/// How long a watch lasts on average.
const LIFE: Duration = Duration::from_secs(15);

/// What the fleet does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Everything.
    Going,
    /// Nobody leaves any more, and no report is begun.
    Settling,
    /// Everybody leaves.
    Over,
}

/// What all of them share.
pub(crate) struct Fleet {
    server: Arc<Server>,
    tls: TlsConnector,
    phase: watch::Receiver<Phase>,
    /// How often each of them reports.
    report_interval: Duration,
    pub(crate) counts: Counts,
}

/// What happened so far.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    /// Lists that were heard.
    pub(crate) lists: AtomicUsize,
    /// Connections that were cut without a word.
    pub(crate) cuts: AtomicUsize,
    /// Connections that were closed as HTTP/2 and TLS want it.
    pub(crate) closes: AtomicUsize,
    /// Watches that were given up, and begun anew on the same connection.
    pub(crate) resets: AtomicUsize,
    /// Calls that were told to come later.
    pub(crate) told_to_wait: AtomicUsize,
}

impl Fleet {
    pub(crate) fn new(
        server: Arc<Server>,
        phase: watch::Receiver<Phase>,
        report_interval: Duration,
    ) -> Fleet {
        let tls = TlsConnector::from(crate::client::client_config(&server.ca_path(), &["h2"]));
        Fleet { server, tls, phase, report_interval, counts: Counts::default() }
    }

    async fn dial(&self) -> (TlsStream<Cuttable>, oneshot::Sender<()>) {
        let address = self.server.address();
        let socket = in_time("a connection", TcpStream::connect(address)).await.expect("the server listens");
        socket.set_nodelay(true).expect("a socket takes the option");
        let (cut, is_cut) = oneshot::channel();
        let socket = Cuttable { socket, is_cut: Some(is_cut) };
        let shaken = self.tls.connect(ServerName::from(address.ip()), socket);
        (in_time("a handshake", shaken).await.expect("the server shakes hands"), cut)
    }

    async fn is_in(&self, phase: impl Fn(Phase) -> bool) {
        // A test that failed takes the sender with it, and this task after it.
        let _ = self.phase.clone().wait_for(|now| phase(*now)).await;
    }
}

/// How many of so many leave in a second.
pub(crate) fn departures_per_second(streams: usize) -> f64 {
    streams as f64 / LIFE.as_secs_f64()
}

/// One proxy.
pub(crate) struct Member {
    client: Client,
    /// Its connection and the number of that, while it has one that it does not leave.
    present: watch::Sender<Option<(usize, Client)>>,
    list: watch::Sender<AllowlistSnapshot>,
    /// The times of collection of what was accepted, in thousandths of a second.
    accepted: Mutex<Vec<i64>>,
}

impl Member {
    /// One that holds nothing yet.
    pub(crate) fn new(client: Client) -> Member {
        let (present, list) = (watch::Sender::new(None), watch::Sender::default());
        Member { client, present, list, accepted: Mutex::default() }
    }

    pub(crate) fn id(&self) -> Uuid {
        self.client.proxy_id.parse().expect("a proxy's identity is a UUID")
    }

    /// The times of collection of the reports that were accepted, in their order.
    pub(crate) fn accepted(&self) -> Vec<i64> {
        self.accepted.lock().expect("no holder of this lock panics").clone()
    }

    /// Waits until it holds the list of this hash.
    pub(crate) async fn holds(&self, hash: &str) -> AllowlistSnapshot {
        let mut list = self.list.subscribe();
        let held = in_time("the newest list", list.wait_for(|list| list.hash == hash)).await;
        held.expect("the member outlives this").clone()
    }

    /// Says that the list is in force, over the connection that it has.
    pub(crate) async fn say_applied(&self, list: &AllowlistSnapshot) {
        self.connected().await.1.report_applied(list).await;
    }

    async fn connected(&self) -> (usize, Client) {
        let mut present = self.present.subscribe();
        let connection = in_time("a connection", present.wait_for(Option::is_some)).await;
        connection.expect("the member outlives this").clone().expect("it was waited for")
    }

    /// Whether this is not the connection that it has: it left it meanwhile.
    fn has_left(&self, number: usize) -> bool {
        self.present.borrow().as_ref().is_none_or(|(present, _)| *present != number)
    }

    /// Follows its list until the fleet is over: one connection after the other, each left in a way of its own.
    pub(crate) async fn follow(self: Arc<Member>, fleet: Arc<Fleet>, seed: u64) {
        let chance = Chance::seeded(seed);
        for number in 0.. {
            if *fleet.phase.borrow() == Phase::Over {
                return;
            }
            let (stream, cut) = fleet.dial().await;
            let client = self.client.over(&fleet.server, stream).await;
            self.present.send_replace(Some((number, client.clone())));
            loop {
                let watch = self.begin(&client, &fleet).await;
                self.listen(watch, &fleet, LIFE.mul_f64(2.0 * chance.fraction())).await;
                let way = chance.fraction() * 3.0;
                if way >= 2.0 && *fleet.phase.borrow() == Phase::Going {
                    // The watch is dropped, and nothing else of the connection.
                    fleet.counts.resets.fetch_add(1, Relaxed);
                    continue;
                }
                // First, so that a call which fails for it is not taken for one that the server refused.
                self.present.send_replace(None);
                if way < 1.0 {
                    fleet.counts.cuts.fetch_add(1, Relaxed);
                    // Nobody listens when the connection has ended already, which the listener would have told.
                    let _ = cut.send(());
                } else {
                    fleet.counts.closes.fetch_add(1, Relaxed);
                }
                break;
            }
        }
    }

    async fn begin(&self, client: &Client, fleet: &Fleet) -> Watch {
        loop {
            let held = self.list.borrow().clone();
            let held = if held.hash.is_empty() { Default::default() } else { holding(&held) };
            match client.try_watch(held).await {
                Ok(watch) => return watch,
                Err(status) => fleet.wait_if_told(&status).await,
            }
        }
    }

    /// Hears what a watch says until its time is over; while the fleet settles it has no end.
    async fn listen(&self, mut watch: Watch, fleet: &Fleet, life: Duration) {
        let mut end = std::pin::pin!(async {
            tokio::select! {
                () = tokio::time::sleep(life) => {}
                () = fleet.is_in(|phase| phase != Phase::Going) => {}
            }
            if *fleet.phase.borrow() != Phase::Going {
                fleet.is_in(|phase| phase == Phase::Over).await;
            }
        });
        loop {
            let said = tokio::select! {
                () = &mut end => return,
                said = watch.next() => said,
            };
            match said.map(|said| said.and_then(|said| said.kind)) {
                Ok(Some(Kind::Snapshot(list))) => {
                    let held = self.list.send_replace(list.clone());
                    assert!(list.revision > held.revision, "it went back from {held:?} to {list:?}");
                    fleet.counts.lists.fetch_add(1, Relaxed);
                }
                Ok(Some(Kind::Unchanged(said))) => assert_eq!(said.hash, self.list.borrow().hash),
                Ok(Some(Kind::Bookmark(_))) => {}
                other => panic!("{}: the server ended the stream: {other:?}", self.client.proxy_id),
            }
        }
    }

    /// Reports until the fleet settles; returns how many reports were accepted, which are all that it made.
    pub(crate) async fn report(self: Arc<Member>, fleet: Arc<Fleet>, seed: u64) -> usize {
        let chance = Chance::seeded(!seed);
        let began_at = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_millis();
        let began_at = i64::try_from(began_at).expect("it is in this age");
        let session = Uuid::now_v7().to_string();
        // Not all at once.
        let first = Instant::now() + fleet.report_interval.mul_f64(chance.fraction());
        for sequence in 1_u32.. {
            let due = first + fleet.report_interval * (sequence - 1);
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = fleet.is_in(|phase| phase != Phase::Going) => break,
            }
            // Behind the clock, and another one each time: it names the report in the store.
            let collected_at = began_at + i64::from(sequence);
            let report = self.readings(&session, sequence, collected_at, &chance);
            in_time("a report's way to the store", self.deliver(&fleet, &report)).await;
            self.accepted.lock().expect("no holder of this lock panics").push(collected_at);
        }
        self.accepted().len()
    }

    fn readings(
        &self,
        session: &str,
        sequence: u32,
        collected_at: i64,
        chance: &Chance,
    ) -> ReportTemperaturesRequest {
        let collected_at = u64::try_from(collected_at).expect("it is in this age");
        let readings = (1..=4).map(|core| Reading {
            sensor: format!("coretemp-isa-0000/temp{core}"),
            chip: "coretemp".to_owned(),
            label: format!("Core {core}"),
            kind: SensorKind::CpuCore.into(),
            temperature_celsius: 40.0 + (10.0 * chance.fraction()).round(),
            max_celsius: Some(84.0),
            critical_celsius: Some(100.0),
        });
        let list = self.list.borrow();
        let report = NodeReport {
            node: Some(Node { name: "delly".to_owned(), ip: String::new() }),
            collected_at: Some((UNIX_EPOCH + Duration::from_millis(collected_at)).into()),
            epoch: list.epoch,
            revision: list.revision,
            readings: readings.collect(),
            unreadable_reason: String::new(),
        };
        ReportTemperaturesRequest {
            session: session.to_owned(),
            sequence: sequence.into(),
            reports: vec![report],
        }
    }

    /// Sends a report until it is accepted: over another connection when the one that it was sent over is left.
    async fn deliver(&self, fleet: &Fleet, report: &ReportTemperaturesRequest) {
        loop {
            let (number, client) = self.connected().await;
            let answer = client.grpc.clone().report_temperatures(client.authorized(report.clone())).await;
            match answer.map(tonic::Response::into_inner) {
                Ok(taken) => {
                    // It may be answered before it is on the disk; that each is there is looked at in the end.
                    assert!(
                        taken.durable_sequence <= report.sequence && taken.refused.is_empty(),
                        "{taken:?}"
                    );
                    return;
                }
                // Whether it was taken is not known, so it is sent again.
                Err(_) if self.has_left(number) => {}
                Err(status) => fleet.wait_if_told(&status).await,
            }
        }
    }
}

impl Fleet {
    /// Waits if the server said for how long. Any other refusal is not for a fleet that behaves.
    async fn wait_if_told(&self, status: &Status) {
        assert_eq!(status.code(), Code::ResourceExhausted, "the server refused a call: {status:?}");
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        self.counts.told_to_wait.fetch_add(1, Relaxed);
        tokio::time::sleep(delay.expect("it says when to come back")).await;
    }
}

/// A socket that can be cut: nothing more is sent or read then, and the other end gets a reset when it is dropped.
struct Cuttable {
    socket: TcpStream,
    /// `None`: it was cut, or its owner is gone and it never will be.
    is_cut: Option<oneshot::Receiver<()>>,
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever has a connection reads it all the while, so it is enough to look here.
        if let Some(is_cut) = &mut self.is_cut
            && let Poll::Ready(cut) = Pin::new(is_cut).poll(cx)
        {
            self.is_cut = None;
            if cut.is_ok() {
                self.socket.set_zero_linger()?;
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
