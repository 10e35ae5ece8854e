use super::*;

use crate::seams::Seams;
use crate::testing::package_reading;
use hyper_util::rt::TokioIo;
use pulse_proto::encoded::Encoded;
use pulse_proto::v1::control_plane_service_client::ControlPlaneServiceClient;
use pulse_proto::v1::control_plane_service_server::{ControlPlaneService, ControlPlaneServiceServer};
use pulse_proto::{Node, Position, v1};
use std::collections::VecDeque;
use std::fs;
use std::time::SystemTime;
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response};
use tonic_types::{ErrorDetails, StatusExt};

/// What the server does with a report.
enum Answer {
    /// Says that it is on the disk.
    Durable,
    /// Takes it, and says that it is on the disk up to another one only.
    DurableUpTo(u64),
    Refuses(&'static str),
    Fails(Status),
}

#[derive(Default)]
struct Heard {
    /// The next answers; beyond them every report is durable.
    answers: VecDeque<Answer>,
    requests: Vec<(Instant, ReportTemperaturesRequest)>,
}

/// A server in this process that keeps what it hears.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Heard>>);

impl Fake {
    fn will(self, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.0.lock().expect("not poisoned").answers.extend(answers);
        self
    }

    fn requests(&self) -> Vec<ReportTemperaturesRequest> {
        self.0.lock().expect("not poisoned").requests.iter().map(|(_, request)| request.clone()).collect()
    }

    fn sequences(&self) -> Vec<u64> {
        self.requests().iter().map(|request| request.sequence).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.0.lock().expect("not poisoned").requests.iter().map(|(at, _)| *at).collect()
    }

    async fn heard(&self, count: usize) {
        let enough = async {
            while self.0.lock().expect("not poisoned").requests.len() < count {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(600), enough).await.expect("the reports arrive");
    }
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ControlPlaneService for Fake {
    type WatchAuthorizedNodesStream =
        tokio_stream::Empty<Result<Encoded<v1::WatchAuthorizedNodesResponse>, Status>>;

    async fn report_temperatures(
        &self,
        request: Request<ReportTemperaturesRequest>,
    ) -> Answered<ReportTemperaturesResponse> {
        let request = request.into_inner();
        let mut heard = self.0.lock().expect("not poisoned");
        let sequence = request.sequence;
        let find = |name: &str| {
            request.reports.iter().filter_map(|report| report.node.clone()).find(|node| node.name == name)
        };
        let taken = |durable_sequence, refused| {
            Ok(Response::new(ReportTemperaturesResponse { durable_sequence, refused }))
        };
        let answer = match heard.answers.pop_front().unwrap_or(Answer::Durable) {
            Answer::Durable => taken(sequence, Vec::new()),
            Answer::DurableUpTo(sequence) => taken(sequence, Vec::new()),
            Answer::Refuses(name) => {
                taken(0, vec![v1::RefusedNode { node: find(name), reason: "not on the list".into() }])
            }
            Answer::Fails(status) => Err(status),
        };
        heard.requests.push((Instant::now(), request));
        answer
    }

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Answered<v1::RegisterResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn watch_authorized_nodes(
        &self,
        _: Request<v1::WatchAuthorizedNodesRequest>,
    ) -> Answered<Self::WatchAuthorizedNodesStream> {
        Err(Status::unimplemented("not here"))
    }

    async fn report_sync(&self, _: Request<v1::ReportSyncRequest>) -> Answered<v1::ReportSyncResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn rotate_token(&self, _: Request<v1::RotateTokenRequest>) -> Answered<v1::RotateTokenResponse> {
        Err(Status::unimplemented("not here"))
    }

    async fn unregister(&self, _: Request<v1::UnregisterRequest>) -> Answered<v1::UnregisterResponse> {
        Err(Status::unimplemented("not here"))
    }
}

/// A reporter that runs against a fake server over a pipe in memory, so that the paused clock holds for all of it.
struct Running {
    reports: Reports,
    shutdown_tx: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts with the folder's file, and delivers to `server`.
    fn start(folder: &TempDir, server: &Fake) -> Running {
        let (reports, reporter) = reports(folder.path(), &Seams::system());
        let (dialled_tx, dialled_rx) = mpsc::unbounded_channel::<Result<DuplexStream, std::io::Error>>();
        let service = ControlPlaneServiceServer::new(server.clone());
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(UnboundedReceiverStream::new(dialled_rx)),
        );
        let connector = tower::service_fn(move |_: http::Uri| {
            let dialled_tx = dialled_tx.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                dialled_tx.send(Ok(theirs)).map_err(|_| std::io::Error::other("the server is gone"))?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        let channel = Endpoint::from_static("http://pulse").connect_with_connector_lazy(connector);
        let call = move |request| {
            let mut client = ControlPlaneServiceClient::new(channel.clone());
            async move { client.report_temperatures(request).await.map(Response::into_inner) }
        };
        let (shutdown_tx, shutdown_rx) = oneshot::channel();
        let shutdown = async move {
            let _ = shutdown_rx.await;
        };
        Running { reports, shutdown_tx, task: tokio::spawn(reporter.run(call, shutdown)) }
    }

    fn push(&self, name: &str) {
        self.reports.push(&[reading(name, SystemTime::now())]);
    }

    async fn stop(self) {
        self.shutdown_tx.send(()).expect("it runs");
        timeout(Duration::from_secs(30), self.task).await.expect("it ends").expect("without a panic");
    }

    /// Waits until nothing waits for delivery.
    async fn is_drained(&self) {
        let drained = async {
            while !self.reports.0.lock().is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(600), drained).await.expect("everything is delivered");
    }
}

fn reading(name: &str, collected_at: SystemTime) -> NodeReading {
    NodeReading {
        node: Node::new(name, "10.0.0.1").expect("a node"),
        collected_at,
        position: Position { epoch: 7, revision: 3 },
        result: Ok(vec![package_reading()]),
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join(FILE_NAME)
}

fn unavailable() -> Answer {
    Answer::Fails(Status::unavailable("away"))
}

fn exhausted(seconds: u64) -> Answer {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
    Answer::Fails(Status::with_error_details(Code::ResourceExhausted, "too much at once", details))
}

#[tokio::test(start_paused = true)]
async fn a_report_says_what_was_read_when_and_under_which_list() {
    let (folder, server) = (folder(), Fake::default());
    let running = Running::start(&folder, &server);
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
    let absent = NodeReading { result: Err("ä".repeat(300)), ..reading("there", at) };
    running.reports.push(&[reading("here", at), absent]);
    running.is_drained().await;
    let [request] = &server.requests()[..] else { panic!("one report") };
    let [here, there] = &request.reports[..] else { panic!("two nodes") };
    assert_eq!(here.node, Some(v1::Node { name: "here".into(), ip: "10.0.0.1".into() }));
    assert_eq!(here.collected_at.map(|at| (at.seconds, at.nanos)), Some((1_700_000_000, 250_000_000)));
    assert_eq!((here.epoch, here.revision, here.unreadable_reason.as_str()), (7, 3, ""));
    let expected = v1::Reading {
        sensor: "coretemp-isa-0000/temp1".into(),
        chip: "coretemp".into(),
        label: "Package id 0".into(),
        kind: v1::SensorKind::CpuPackage.into(),
        temperature_celsius: 41.5,
        max_celsius: None,
        critical_celsius: Some(100.0),
    };
    assert_eq!(here.readings, [expected]);
    assert!(there.readings.is_empty());
    assert_eq!(there.unreadable_reason, "ä".repeat(256));
}

#[tokio::test(start_paused = true)]
async fn reports_arrive_in_order_and_once() {
    let (folder, server) = (folder(), Fake::default());
    let running = Running::start(&folder, &server);
    for _ in 0..20 {
        running.push("a");
        sleep(Duration::from_secs(10)).await;
    }
    running.is_drained().await;
    assert_eq!(server.sequences(), (1..=20).collect::<Vec<_>>());
    running.stop().await;
    assert!(!file(&folder).exists(), "nothing is written while the server answers");
}

#[tokio::test(start_paused = true)]
async fn the_backlog_of_an_outage_arrives_in_order_with_its_own_times() {
    let (folder, server) = (folder(), Fake::default().will((0..4).map(|_| unavailable())));
    let running = Running::start(&folder, &server);
    let at = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 10 * n);
    for n in 0..30 {
        running.reports.push(&[reading("a", at(n))]);
    }
    running.is_drained().await;
    let arrived = &server.requests()[4..];
    assert_eq!(arrived.len(), 30);
    for (n, request) in (0..30).zip(arrived) {
        assert_eq!((request.sequence, request.reports[0].collected_at), (n + 1, Some(at(n).into())));
    }
}

#[tokio::test(start_paused = true)]
async fn retries_come_after_1_second_doubling_to_60_at_most() {
    let (folder, server) = (folder(), Fake::default().will((0..12).map(|_| unavailable())));
    let running = Running::start(&folder, &server);
    running.push("a");
    running.is_drained().await;
    let times = server.times();
    assert_eq!(times.len(), 13);
    for (n, pair) in times.windows(2).enumerate() {
        let ceiling = (1_u64 << n.min(6)).min(60);
        assert!(pair[1] - pair[0] <= Duration::from_millis(1000 * ceiling + 50), "retry {n}");
    }
    assert_eq!(server.sequences(), [1; 13]);
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_wait_is_kept_even_if_the_stream_comes_back() {
    let (folder, server) = (folder(), Fake::default().will([exhausted(40)]));
    let running = Running::start(&folder, &server);
    running.push("a");
    server.heard(1).await;
    sleep(Duration::from_secs(5)).await;
    running.reports.stream_is_back();
    running.is_drained().await;
    let times = server.times();
    assert!(times[1] - times[0] >= Duration::from_secs(40), "{:?}", times[1] - times[0]);
    assert!(times[1] - times[0] < Duration::from_secs(42));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_tried_again_at_once_when_the_stream_is_back() {
    for status in [Status::unauthenticated("unknown"), Status::permission_denied("revoked")] {
        let (folder, server) = (folder(), Fake::default().will([Answer::Fails(status)]));
        let running = Running::start(&folder, &server);
        running.push("a");
        running.push("b");
        server.heard(1).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(server.sequences(), [1], "it waits for another token");
        let back = Instant::now();
        running.reports.stream_is_back();
        running.is_drained().await;
        assert!(back.elapsed() < Duration::from_secs(1));
        assert_eq!(server.sequences(), [1, 1, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_or_too_large_report_is_dropped_and_does_not_hold_up_the_next() {
    let too_large =
        "Error, decoded message length too large: found 1258291 bytes, the limit is: 1048576 bytes";
    for status in [Status::invalid_argument("reports[0].node: no"), Status::out_of_range(too_large)] {
        let (folder, server) = (folder(), Fake::default().will([Answer::Fails(status)]));
        let running = Running::start(&folder, &server);
        running.push("a");
        running.push("b");
        running.is_drained().await;
        assert_eq!(server.sequences(), [1, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_refused_by_name_is_not_sent_again_and_the_rest_is() {
    let (folder, server) = (folder(), Fake::default().will([Answer::Refuses("gone")]));
    let running = Running::start(&folder, &server);
    let now = SystemTime::now();
    running.reports.push(&[reading("here", now), reading("gone", now)]);
    running.is_drained().await;
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "not durable, so the rest is sent again");
    assert_eq!(requests[1].sequence, 1);
    let names: Vec<_> =
        requests[1].reports.iter().map(|report| &report.node.as_ref().unwrap().name).collect();
    assert_eq!(names, ["here"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_durable_is_kept_and_sent_again_when_the_stream_is_back() {
    let answers = [Answer::DurableUpTo(0), Answer::DurableUpTo(1), Answer::DurableUpTo(1)];
    let (folder, server) = (folder(), Fake::default().will(answers));
    let running = Running::start(&folder, &server);
    for name in ["a", "b", "c"] {
        running.push(name);
    }
    server.heard(3).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.reports.0.lock().len(), 2);
    running.reports.stream_is_back();
    running.is_drained().await;
    assert_eq!(server.sequences(), [1, 2, 3, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_stays_undurable_is_sent_again_after_a_while_though_new_reports_come() {
    let (folder, server) = (folder(), Fake::default().will((0..4).map(|_| Answer::DurableUpTo(0))));
    let running = Running::start(&folder, &server);
    for _ in 0..4 {
        running.push("a");
        sleep(Duration::from_secs(10)).await;
    }
    running.is_drained().await;
    let sequences = server.sequences();
    assert_eq!(sequences[..4], [1, 2, 3, 1], "the fourth push finds the first due again: {sequences:?}");
}

#[tokio::test(start_paused = true)]
async fn the_buffer_is_bounded_while_the_server_is_away() {
    let (folder, server) = (folder(), Fake::default().will((0..10_000).map(|_| unavailable())));
    let running = Running::start(&folder, &server);
    for _ in 0..200 {
        running.push("a");
        sleep(Duration::from_secs(10)).await;
    }
    let waiting = running.reports.0.lock().len();
    assert!((89..=91).contains(&waiting), "15 minutes of rounds each 10 s: {waiting}");
    server.0.lock().unwrap().answers.clear();
    let before = server.sequences().len();
    running.reports.stream_is_back();
    running.is_drained().await;
    let delivered = server.sequences().split_off(before);
    assert_eq!(delivered.last(), Some(&200));
    assert!(delivered.is_sorted_by(|a, b| a < b) && delivered.len() == waiting);
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_a_stop_is_delivered_after_the_start_under_its_own_session_and_sequence() {
    let folder = folder();
    let away = Fake::default().will((0..100).map(|_| unavailable()));
    let running = Running::start(&folder, &away);
    for name in ["a", "b", "c"] {
        running.push(name);
    }
    away.heard(1).await;
    running.stop().await;
    assert!(file(&folder).exists());

    let server = Fake::default();
    let running = Running::start(&folder, &server);
    running.push("d");
    running.is_drained().await;
    assert_eq!(server.sequences(), [1, 2, 3, 1]);
    let session = away.requests()[0].session.clone();
    let sessions: Vec<bool> = server.requests().iter().map(|request| request.session == session).collect();
    assert_eq!(sessions, [true, true, true, false]);
    // Durable: the file goes at once, not only at the stop.
    is_gone(&file(&folder)).await;
    running.stop().await;
}

async fn is_gone(path: &Path) {
    let gone = async {
        while path.exists() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("the file is removed");
}

#[tokio::test(start_paused = true)]
async fn a_kill_during_an_outage_loses_half_a_minute_at_most_of_what_waited_longer() {
    let folder = folder();
    let away = Fake::default().will((0..1000).map(|_| unavailable()));
    let running = Running::start(&folder, &away);
    for _ in 0..30 {
        running.push("a");
        sleep(Duration::from_secs(10)).await;
    }
    running.task.abort();
    let _ = running.task.await;
    let kept = super::file::read(&file(&folder)).unwrap();
    assert!(kept.len() >= 26, "{} of 30", kept.len());
    assert!(kept.iter().map(|request| request.sequence).eq(1..=kept.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_set_aside_and_stops_nothing() {
    let (folder, server) = (folder(), Fake::default());
    disk::write_private(&file(&folder), b"pulse-readings-buffer 1\nnonsense").unwrap();
    let running = Running::start(&folder, &server);
    running.push("a");
    running.is_drained().await;
    assert_eq!(server.sequences(), [1]);
    assert!(!file(&folder).exists());
    assert!(folder.path().join("readings.buffer.damaged").exists());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_proxy_keeps_no_readings_in_memory_or_on_disk() {
    let folder = folder();
    let away = Fake::default().will((0..1000).map(|_| unavailable()));
    let running = Running::start(&folder, &away);
    running.push("a");
    running.stop().await;
    assert!(file(&folder).exists());

    let running = Running::start(&folder, &away);
    running.reports.clear();
    is_gone(&file(&folder)).await;
    running.stop().await;
    assert!(!file(&folder).exists());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_written_stops_no_delivery() {
    let folder = folder();
    let server = Fake::default().will((0..8).map(|_| unavailable()));
    let running = Running::start(&folder, &server);
    // A folder in the file's place: every write fails.
    fs::create_dir(file(&folder)).unwrap();
    for _ in 0..6 {
        running.push("a");
        sleep(Duration::from_secs(10)).await;
    }
    running.is_drained().await;
    assert_eq!(server.sequences().split_off(8), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_given_up_and_tried_again() {
    let folder = folder();
    let (reports, reporter) = super::reports(folder.path(), &Seams::system());
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let call = move |request: ReportTemperaturesRequest| {
        let mut calls = counted.lock().expect("not poisoned");
        *calls += 1;
        let hangs = *calls == 1;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(ReportTemperaturesResponse { durable_sequence: request.sequence, refused: Vec::new() })
        }
    };
    let task = tokio::spawn(reporter.run(call, std::future::pending()));
    reports.push(&[reading("a", SystemTime::now())]);
    let drained = async {
        while !reports.0.lock().is_empty() {
            advance(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(120), drained).await.expect("delivered in the end");
    assert_eq!(*calls.lock().unwrap(), 2);
    task.abort();
}
