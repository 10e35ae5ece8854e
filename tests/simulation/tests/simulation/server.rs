//! The server's host: the real parts of the server over the simulated network, without its TLS.
//!
//! In: commands of admins, a word to stop. Out: entries of the journal: what was done, how proxies are shown, which reports
//! came and what they were answered. Always: the data folder outlives the program.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt, Full};
use prost::Message;
use pulse::config::{Config, ConfigSources};
use pulse::listen::grpc_timeout::GrpcTimeoutLayer;
use pulse::listen::{Bounds, Peer, serve_stream};
use pulse::metrics::Metrics;
use pulse::refusals::Refusals;
use pulse::rpc::Rpc;
use pulse::shutdown::{Hand, Signals};
use pulse::store::{Retention, Store};
use pulse::{Place, Pulse};
use pulse_proto::{Chance, Token, TokenKind, v1};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use turmoil::net::TcpListener;
use uuid::Uuid;

use crate::clock::{SimTime, WallClock};
use crate::journal::{Event, Journal, Report};

/// The name of the server's host in the simulated network.
pub(crate) const NAME: &str = "pulse";

/// How often the view of the fleet is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a command does; the text says what came of it.
pub(crate) type Work = Box<dyn FnOnce(Arc<Pulse>) -> Pin<Box<dyn Future<Output = String> + Send>> + Send>;

/// The server's host, which outlives each start of the program.
pub(crate) struct ServerHost {
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: WallClock,
    config: Config,
    time: SimTime,
    chance: Chance,
    journal: Journal,
    running: Mutex<Option<Running>>,
    /// How each proxy is shown.
    states: Mutex<HashMap<Uuid, &'static str>>,
}

struct Running {
    pulse: Arc<Pulse>,
    commands_tx: mpsc::UnboundedSender<(String, Work)>,
    stop_tx: Option<oneshot::Sender<()>>,
}

impl ServerHost {
    pub(crate) fn new(folder: &Path, time: SimTime, chance: Chance, journal: Journal) -> Arc<ServerHost> {
        let data_dir = folder.join("server");
        std::fs::create_dir_all(&data_dir).expect("the folder can be made");
        let path = folder.join("pulse.yaml");
        let text = "refresh_interval: 5s\npublic_address: pulse\nreadings:\n  max_age: 3650d\n";
        std::fs::write(&path, text).expect("the file can be written");
        let sources =
            ConfigSources { path: Some(path), data_dir: Some(data_dir.clone()), ..ConfigSources::default() };
        let (config, _) = Config::load(&sources).expect("the configuration is good");
        let clock = WallClock::new(time.clone());
        let (running, states) = (Mutex::new(None), Mutex::default());
        Arc::new(ServerHost { data_dir, clock, config, time, chance, journal, running, states })
    }

    /// The interval within which proxies hear something.
    pub(crate) fn refresh_interval(&self) -> Duration {
        self.config.refresh_interval
    }

    /// The running server, if it is up.
    pub(crate) fn pulse(&self) -> Option<Arc<Pulse>> {
        self.running().as_ref().map(|running| Arc::clone(&running.pulse))
    }

    /// How each proxy is shown.
    pub(crate) fn states(&self) -> HashMap<Uuid, &'static str> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the server do something, if it is up.
    pub(crate) fn command(&self, name: String, work: Work) {
        let sent = self
            .running()
            .as_ref()
            .is_some_and(|running| running.commands_tx.send((name.clone(), work)).is_ok());
        if !sent {
            self.note(Event::Admin(format!("{name}: the server is down")));
        }
    }

    /// Asks it to stop, as SIGTERM does.
    pub(crate) fn stop(&self) {
        if let Some(stop_tx) = self.running().as_mut().and_then(|running| running.stop_tx.take()) {
            let _ = stop_tx.send(());
        }
    }

    /// Forgets the program that ran, after it was killed.
    pub(crate) fn killed(&self) {
        *self.running() = None;
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: Event) {
        self.journal.note(self.time.elapsed(), event);
    }

    /// The program: from the database to the last connection.
    pub(crate) async fn run(self: Arc<ServerHost>) -> turmoil::Result {
        let (clock, chance, config) = (self.clock.handle(), self.chance.clone(), &self.config);
        let retention = Retention { max_bytes: config.readings.max_bytes, max_age: config.readings.max_age };
        let store = Store::open_in_tasks(&self.data_dir, retention, clock.clone(), chance.clone())?;
        let metrics = Arc::new(Metrics::new());
        // Of the loops; each connection has a drain of its own, so that they begin to drain in one order.
        let (signals, _hand) = Signals::by_hand();
        let place = Place::of(config, Vec::new(), None);
        let (refusals, refusal_log) = Refusals::new(store.clone(), Arc::clone(&metrics), clock.clone());
        let pulse = Pulse::load(
            config,
            store.clone(),
            Arc::clone(&metrics),
            refusals,
            place,
            signals.drain(),
            clock.clone(),
        );
        let pulse = Arc::new(pulse.await?);
        let (streams_tx, streams_rx) = watch::channel(());
        let mut loops = JoinSet::new();
        loops.spawn(pulse.fleet.clone().save(store.clone(), ended(&streams_rx)));
        loops.spawn(refusal_log.write(ended(&streams_rx)));
        let mut endless = JoinSet::new();
        endless.spawn(pulse.changes.clone().keep_expiring(signals.drain()));
        endless.spawn(Arc::clone(&self).look(Arc::clone(&pulse)));

        let (commands_tx, commands_rx) = mpsc::unbounded_channel();
        let (stop_tx, mut stop_rx) = oneshot::channel();
        *self.running() = Some(Running { pulse: Arc::clone(&pulse), commands_tx, stop_tx: Some(stop_tx) });
        endless.spawn(obey(Arc::clone(&pulse), commands_rx, self.journal.clone(), self.time.clone()));
        self.note(Event::Started(NAME.to_owned()));

        let rpc = pulse.rpc(config, chance);
        let listener = TcpListener::bind(("0.0.0.0", pulse_proto::DEFAULT_PORT)).await?;
        let (mut connections, mut hands) = (JoinSet::new(), Vec::new());
        loop {
            let (stream, address) = tokio::select! {
                biased;
                _ = &mut stop_rx => break,
                accepted = listener.accept() => accepted?,
            };
            let (signals, hand) = Signals::by_hand();
            let router = self.router(Rpc { drain: signals.drain(), ..rpc.clone() });
            let (bounds, drain) = (Bounds::of(config), signals.drain());
            let serving = serve_stream(stream, Peer { address }, router, bounds, Arc::clone(&metrics), drain);
            connections.spawn(signals.attend(serving));
            hands.push(hand);
        }
        drop(listener);
        hands.iter().for_each(Hand::stop);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        // What does not end is cut, as by the running server.
        let _ = tokio::time::timeout(config.shutdown_grace, all_ended).await;
        drop((connections, streams_tx));
        while loops.join_next().await.is_some() {}
        pulse.changes.settled().await;
        *self.running() = None;
        drop(endless);
        store.close().await?;
        self.note(Event::Ended(NAME.to_owned()));
        Ok(())
    }

    /// Writes down how each proxy is shown.
    async fn look(self: Arc<ServerHost>, pulse: Arc<Pulse>) {
        let (begun, mut shown) = (Instant::now(), HashMap::new());
        let mut ticks = interval(LOOK_INTERVAL);
        loop {
            ticks.tick().await;
            let catalog = pulse.changes.catalog();
            let mut proxies: Vec<_> = catalog.registry.proxies().collect();
            proxies.sort_by_key(|proxy| proxy.id);
            for proxy in proxies {
                let state = pulse.view(proxy).state.as_str();
                if shown.insert(proxy.id, state) != Some(state) {
                    let name = format!("{} {}", proxy.hostname, self.journal.number(&proxy.id.to_string()));
                    self.note(Event::Shown { proxy: name, state, up: begun.elapsed() });
                }
            }
            self.states.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&shown);
        }
    }

    fn router(self: &Arc<ServerHost>, rpc: Rpc) -> Router {
        let (_, health) = tonic_health::server::health_reporter();
        let max_request = usize::try_from(self.config.limits.max_request_bytes).unwrap_or(usize::MAX);
        rpc.router(max_request, health)
            .layer(GrpcTimeoutLayer { longest: Duration::from_secs(30) })
            .layer(middleware::from_fn_with_state(Arc::clone(self), write_down_reports))
    }
}

/// Waits until the other end is dropped.
fn ended(other: &watch::Receiver<()>) -> impl Future<Output = ()> + Send + 'static {
    let mut other = other.clone();
    async move { while other.changed().await.is_ok() {} }
}

/// Does what admins ask for, each as a task of its own.
async fn obey(
    pulse: Arc<Pulse>,
    mut commands_rx: mpsc::UnboundedReceiver<(String, Work)>,
    journal: Journal,
    time: SimTime,
) {
    let mut under_way = JoinSet::new();
    while let Some((name, work)) = commands_rx.recv().await {
        let (work, journal, time) = (work(Arc::clone(&pulse)), journal.clone(), time.clone());
        under_way.spawn(async move {
            let outcome = work.await;
            journal.note(time.elapsed(), Event::Admin(format!("{name}: {outcome}")));
        });
        while under_way.try_join_next().is_some() {}
    }
    // The simulation holds the other end until the program ends.
    sleep(Duration::MAX).await;
}

/// Writes down each report and its answer, as they pass.
async fn write_down_reports(State(host): State<Arc<ServerHost>>, request: Request, next: Next) -> Response {
    if !request.uri().path().ends_with("/ReportTemperatures") {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    // A body that breaks off is the service's to refuse; nothing is known of it here.
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return next.run(Request::from_parts(parts, Body::empty())).await;
    };
    let asked = unframed::<v1::ReportTemperaturesRequest>(&body);
    let token = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.and_then(|text| Token::parse(TokenKind::Ctrl, text).ok()).map(|token| token.digest());
    let catalog = host.pulse().map(|pulse| pulse.changes.catalog());
    let proxy = catalog.zip(token).and_then(|(catalog, token)| Some(catalog.registry.token(&token)?.proxy));
    let known = asked.zip(proxy).map(|(report, proxy)| {
        let (proxy, session) =
            (host.journal.number(&proxy.to_string()), host.journal.number(&report.session));
        let key = Report { proxy, session, sequence: report.sequence };
        let nodes = report.reports.iter().map(|node| {
            let name = node.node.as_ref().map(|node| node.name.clone()).unwrap_or_default();
            let at = node.collected_at.unwrap_or_default();
            (name, at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000)
        });
        let nodes = nodes.collect();
        host.note(Event::Received { report: key, nodes });
        key
    });
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return Response::from_parts(parts, Body::empty());
    };
    let trailers = body.trailers().cloned();
    let body = body.to_bytes();
    if let Some((report, answer)) = known.zip(unframed::<v1::ReportTemperaturesResponse>(&body)) {
        let refused = answer.refused.iter().filter_map(|refused| Some(refused.node.as_ref()?.name.clone()));
        let (durable, refused) = (answer.durable_sequence, refused.collect());
        host.note(Event::Answered { report, durable, refused });
    }
    let body = Full::new(body).with_trailers(std::future::ready(trailers.map(Ok)));
    Response::from_parts(parts, Body::new(body))
}

/// The one message of a unary call: a byte of flags, four of length, the message.
fn unframed<M: Message + Default>(body: &Bytes) -> Option<M> {
    M::decode(body.get(5..)?).ok()
}
