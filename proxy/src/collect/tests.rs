use super::*;
use crate::gate::{Closed, GateWriter, InForce, gate};
use crate::seams::Seams;
use crate::testing::package_reading;
use pulse_proto::signature::SigningKey;
use pulse_proto::{Allowlist, Scope, SignedAllowlist};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use tokio::sync::{mpsc, oneshot};

const INTERVAL: Duration = Duration::from_secs(10);

/// A list of the node `here`, which is this host, and `there`, which is not.
fn pushed(revision: u64) -> InForce {
    let key = SigningKey::generate().expect("a key").0;
    let nodes = ["here", "there"].map(|name| Node::new(name, "").expect("a node"));
    let position = Position { epoch: 7, revision };
    let interval = Duration::from_secs(60);
    let list = SignedAllowlist::sign(
        &key,
        position,
        Scope::All,
        Allowlist::new(nodes),
        SystemTime::UNIX_EPOCH,
        interval,
    );
    InForce::Pushed { list: Arc::new(list), since: SystemTime::UNIX_EPOCH }
}

fn readings() -> Readings {
    Readings { readings: vec![package_reading()], ..Readings::default() }
}

/// A collector that runs, and its rounds.
struct Running {
    writer: GateWriter,
    rounds_rx: mpsc::UnboundedReceiver<Round>,
    shutdown_tx: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn run<R>(first: InForce, read: R) -> Running
where
    R: Fn() -> Result<Readings, SensorError> + Clone + Send + Sync + 'static,
{
    let (writer, gate) = gate(first);
    let (rounds_tx, rounds_rx) = mpsc::unbounded_channel();
    let (shutdown_tx, shutdown_rx) = oneshot::channel();
    let host = LocalHost { hostname: "here".into(), ..LocalHost::default() };
    let deliver = move |round| rounds_tx.send(round).expect("the test listens");
    let shutdown = async move {
        let _ = shutdown_rx.await;
    };
    let task =
        tokio::spawn(Collector::new(gate, host, INTERVAL, read, &Seams::system()).run(deliver, shutdown));
    Running { writer, rounds_rx, shutdown_tx: Some(shutdown_tx), task }
}

impl Running {
    async fn next(&mut self) -> Round {
        timeout(Duration::from_secs(60), self.rounds_rx.recv()).await.expect("in time").expect("it runs")
    }

    /// Whether this much time passes without a round.
    async fn is_quiet(&mut self, time: Duration) -> bool {
        timeout(time, self.rounds_rx.recv()).await.is_err()
    }
}

fn named(round: &Round) -> Vec<(&str, bool)> {
    round.iter().map(|reading| (reading.node.name(), reading.result.is_ok())).collect()
}

#[tokio::test(start_paused = true)]
async fn each_listed_node_is_read_or_told_why_not_with_time_and_position() {
    let mut running = run(pushed(3), || Ok(readings()));
    let before = SystemTime::now();
    let round = running.next().await;
    assert_eq!(named(&round), [("here", true), ("there", false)]);
    for reading in &round {
        assert_eq!(reading.position, Position { epoch: 7, revision: 3 });
        assert!(reading.collected_at >= before && reading.collected_at <= SystemTime::now());
    }
    assert_eq!(round[0].result.as_ref().unwrap(), &readings().readings);
    let reason = round[1].result.as_ref().unwrap_err();
    assert!(
        reason.contains("there is not this host (here): this version reads its own host only"),
        "{reason}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_reason_is_not_told_each_round() {
    let mut running = run(pushed(1), || Ok(readings()));
    assert_eq!(named(&running.next().await), [("here", true), ("there", false)]);
    assert_eq!(named(&running.next().await), [("here", true)]);
    let rounds = REASONS_REPEAT.as_secs() / INTERVAL.as_secs() - 2;
    for _ in 0..rounds {
        assert_eq!(named(&running.next().await), [("here", true)]);
    }
    assert_eq!(named(&running.next().await), [("here", true), ("there", false)]);
}

#[tokio::test(start_paused = true)]
async fn the_first_round_comes_soon_and_the_others_on_the_interval() {
    let start = Instant::now();
    let mut running = run(pushed(1), || Ok(readings()));
    running.next().await;
    let first = Instant::now();
    assert!(first - start <= Duration::from_secs(1));
    for n in 1..4 {
        running.next().await;
        assert_eq!((Instant::now() - first).as_secs(), n * 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_list_is_read_at_once() {
    let mut running = run(InForce::Nothing(Closed::NoListYet), || Ok(readings()));
    assert!(running.is_quiet(Duration::from_secs(35)).await);
    running.writer.put(pushed(2));
    let changed = Instant::now();
    let round = running.next().await;
    assert!(changed.elapsed() < Duration::from_secs(1));
    assert_eq!(round[0].position.revision, 2);
    running.writer.put(pushed(3));
    // Reasons that were told under the old list are told again under the new one.
    assert_eq!(named(&running.next().await), [("here", true), ("there", false)]);
}

#[tokio::test(start_paused = true)]
async fn names_and_addresses_of_the_static_list_are_read_and_its_networks_are_not() {
    let nodes = vec![Node::new("here", "").unwrap(), Node::new("127.0.0.1", "127.0.0.1").unwrap()];
    let mut running = run(InForce::Static { nodes, networks: 3 }, || Ok(readings()));
    let round = running.next().await;
    assert_eq!(named(&round), [("here", true), ("127.0.0.1", true)]);
    assert_eq!(round[0].position, Position::default());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_proxy_collects_nothing_not_even_the_reading_under_way() {
    let (started_tx, mut started_rx) = mpsc::unbounded_channel();
    let (go_tx, go_rx) = blocking::channel::<()>();
    let go_rx = Arc::new(std::sync::Mutex::new(go_rx));
    let mut running = run(pushed(1), move || {
        let _ = started_tx.send(());
        let _ = go_rx.lock().unwrap().recv_timeout(Duration::from_secs(30));
        Ok(readings())
    });
    started_rx.recv().await.unwrap();
    running.writer.put(InForce::Nothing(Closed::Revoked("gone".into())));
    go_tx.send(()).unwrap();
    assert!(running.is_quiet(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_host_without_sensors_and_one_that_cannot_be_read_say_why() {
    let mut without = run(pushed(1), || Ok(Readings::default()));
    let reason = without.next().await[0].result.clone().unwrap_err();
    assert!(reason.contains("no temperature sensor"), "{reason}");

    let folder = tempfile::tempdir().unwrap();
    let mut absent = run(pushed(1), reader(&folder.path().join("absent")));
    let reason = absent.next().await[0].result.clone().unwrap_err();
    assert!(reason.contains("absent") && reason.contains("No such file"), "{reason}");
}

#[tokio::test]
async fn a_reading_that_hangs_stops_neither_the_rounds_nor_starts_another() {
    tokio::time::pause();
    let calls = Arc::new(AtomicUsize::new(0));
    let (go_tx, go_rx) = blocking::channel::<()>();
    let go_rx = Arc::new(std::sync::Mutex::new(go_rx));
    let counted = Arc::clone(&calls);
    let mut running = run(pushed(1), move || {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            // Hangs until the test lets go. The paused clock stands still meanwhile, so the test moves it.
            let _ = go_rx.lock().unwrap().recv_timeout(Duration::from_secs(60));
        }
        Ok(readings())
    });
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    // A timer fires on the next whole millisecond.
    tokio::time::advance(READ_LIMIT + Duration::from_millis(1)).await;
    let reason = running.next().await[0].result.clone().unwrap_err();
    assert!(reason.contains("not answered within 10 s"), "{reason}");
    // Rounds go on: a new list is told of, and the hung reading is not joined by another.
    running.writer.put(pushed(2));
    let round = running.next().await;
    assert_eq!((named(&round), round[0].position.revision), (vec![("here", false), ("there", false)], 2));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    go_tx.send(()).unwrap();
    // It came back: from then on this host is read again.
    loop {
        tokio::time::advance(INTERVAL).await;
        tokio::task::yield_now().await;
        if let Ok(Some(round)) = timeout(Duration::from_millis(1), running.rounds_rx.recv()).await
            && named(&round).contains(&("here", true))
        {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_it_even_while_a_reading_hangs() {
    let (started_tx, mut started_rx) = mpsc::unbounded_channel();
    let (go_tx, go_rx) = blocking::channel::<()>();
    let go_rx = Arc::new(std::sync::Mutex::new(go_rx));
    let mut running = run(pushed(1), move || {
        let _ = started_tx.send(());
        let _ = go_rx.lock().unwrap().recv_timeout(Duration::from_secs(60));
        Ok(readings())
    });
    started_rx.recv().await.unwrap();
    running.shutdown_tx.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(5), &mut running.task).await.unwrap().unwrap();
    drop(go_tx);
}
