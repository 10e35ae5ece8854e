//! Pulse: the control plane for temperature proxies on Proxmox hosts.

pub mod accounts;
pub mod allowlist;
pub mod api;
pub mod args;
pub mod audit;
pub mod backup;
pub mod bell;
pub mod catalog;
pub mod changes;
pub mod cli;
pub mod config;
pub mod feed;
pub mod fleet;
pub mod fresh;
pub mod import;
pub mod index;
pub mod install;
pub mod inventory;
mod legacy_http;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod network;
pub mod poller;
pub mod pruning;
pub mod public_address;
pub mod publish;
mod pulse;
pub mod pve;
pub mod readings;
pub mod refusals;
pub mod registry;
pub mod replicas;
pub mod report;
pub mod rest;
pub mod rpc;
pub mod sealing;
pub mod shutdown;
mod starting;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod web;
pub mod whole_file;

pub use pulse::{Place, Pulse};

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use pulse_proto::signature::KeyError;
use pulse_proto::token::TokenError;
use pulse_proto::{Chance, Clock};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::Config;
use crate::listen::grpc_timeout::GrpcTimeoutLayer;
use crate::listen::{Bounds, ListenError, Listener, admin_socket};
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::shutdown::{Drain, Ended, Reloads, Signals};
use crate::starting::Starting;
use crate::store::{Retention, Store, StoreError};
use crate::tls::{Tls, TlsError};

/// How often certificate files are looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(5);
/// The longest that a unary call may take, whatever its caller says.
const LONGEST_CALL: Duration = Duration::from_secs(30);
/// How long a database that others share may take to take what is left: the whole exit has ten seconds.
const CLOSING: Duration = Duration::from_millis(1_500);
/// The service whose health is told.
const SERVICE: &str = "pulse.control.v1.ControlPlaneService";
/// What `grpc.health.v1` calls the server as a whole.
const WHOLE_SERVER: &str = "";

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder cannot be used.
    #[error("use the data folder {folder}: make it, or give it to the user that runs Pulse")]
    DataDir {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates cannot be used or made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin socket cannot be listened on.
    #[error(transparent)]
    AdminSocket(#[from] admin_socket::AdminSocketError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A restore was cut short, and cannot be gone on with.
    #[error("go on with a restore that was cut short")]
    Restore(#[from] backup::BackupError),
    /// The key that signs lists cannot be used.
    #[error("the database's signing key cannot be used")]
    Key(#[from] KeyError),
    /// A token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Signals cannot be heard.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    /// A loop that runs as long as the server ended before it.
    #[error("{0} ended before the server did: a defect; see the lines before this one")]
    LoopEnded(&'static str),
    /// A commit panicked.
    #[error(
        "a change failed in the middle: a defect; the server ends, so that it begins again with what is committed"
    )]
    Broken,
    /// A task panicked.
    #[error("a task of the server panicked: a defect; see the lines before this one")]
    Panicked(#[source] JoinError),
    /// A second signal ended it at once.
    #[error("a second signal ended the server before it had drained")]
    Aborted,
}

impl RunError {
    /// Whether a person must change something before another start can help.
    pub fn is_for_operator(&self) -> bool {
        // One that still runs comes to its end by itself.
        if let RunError::Restore(error) = self {
            return !matches!(error, backup::BackupError::InUse(_));
        }
        matches!(
            self,
            RunError::DataDir { .. }
                | RunError::Tls(_)
                | RunError::AdminSocket(_)
                | RunError::Store(StoreError::Unreadable(_) | StoreError::Sealed(_))
                | RunError::Key(_)
                | RunError::Listen(
                    ListenError::Plaintext(_) | ListenError::NotHere(_) | ListenError::NotAllowed(_)
                )
        )
    }
}

/// Runs the server until a signal ends it.
///
/// In order: data folder, certificates, addresses, database, then the loops and the way in; at the end the way in is
/// closed, streams say goodbye, and what is unsaved is written. `shown` is what whoever started it reads: while there is no admin
/// yet, the secret link with which one becomes the first.
///
/// # Errors
/// [`RunError`] if it cannot begin, a loop dies, or a second signal cuts the end short.
pub async fn run(config: Config, signals: Signals, shown: impl Write) -> Result<(), RunError> {
    let (drain, reloads) = (signals.drain(), signals.reloads());
    match signals.attend(serve(config, drain, reloads, shown)).await {
        Ended::Finished(result) => result,
        Ended::Aborted => Err(RunError::Aborted),
    }
}

async fn serve(config: Config, drain: Drain, reloads: Reloads, shown: impl Write) -> Result<(), RunError> {
    let limit = listen::file_limit::raise();
    let mut bounds = Bounds::of(&config).within(limit);
    let legacy_bounds = config.legacy_http.map(|_| legacy_http::share(&mut bounds));
    tracing::info!(files = limit.files, streams = bounds.connections, "file limit raised");
    make_data_dir(&config)?;
    // First: it tells whether another server has this folder, before anything in it is touched.
    let admin = admin_socket::AdminSocket::bind(&config.admin_socket())?;
    backup::restore::finish(&config.data_dir)?;
    let clock = Clock::system();
    share_authority(&config, &clock).await?;
    let tls = if config.plaintext { None } else { Some(Arc::new(Tls::open(&config)?)) };
    let listener = Listener::bind(&config.listen, tls.clone())?;
    let legacy = config.legacy_http.map(Listener::bind_in_plain_text).transpose()?;
    let metrics = Arc::new(Metrics::new());
    let place = pulse::Place::of(&config, listener.local_addrs(), tls.clone());
    // Probes are answered from here on, and calls are told to come back.
    let starting = Starting::default();
    let mut serving = pin!(listener.serve(starting.router(), bounds, Arc::clone(&metrics), drain.clone()));
    let loading = async {
        let config::Retention { max_bytes, max_age } = config.readings;
        let (retention, secret_key) = (Retention { max_bytes, max_age }, config.secret_key_file());
        let store = match &config.database {
            Some(database) => {
                Store::connect(&config.data_dir, database, &secret_key, retention, clock.clone()).await?
            }
            None => Store::open_with(&config.data_dir, &secret_key, retention, clock.clone()).await?,
        };
        let (refusals, refusal_log) = Refusals::new(store.clone(), Arc::clone(&metrics), clock.clone());
        let pulse = Pulse::load(
            &config,
            store.clone(),
            Arc::clone(&metrics),
            refusals,
            place,
            drain.clone(),
            clock.clone(),
        );
        let mut pulse = pulse.await?;
        pulse.legacy_http = legacy.as_ref().and_then(|legacy| legacy.local_addrs().first().copied());
        backup::restore::sweep(&config.data_dir);
        pulse.backups.sweep();
        Ok::<_, RunError>((store, Arc::new(pulse), refusal_log))
    };
    let (store, pulse, refusal_log) = tokio::select! {
        loaded = loading => loaded?,
        _ = &mut serving => {
            tracing::info!("the server ended before it had begun");
            return Ok(());
        }
    };

    // Ends when the streams have: what they said last is still saved.
    let (streams_tx, streams_rx) = watch::channel(());
    let mut loops = JoinSet::new();
    if let Some(tls) = tls {
        let looking = tls.keep_current(CERTIFICATE_LOOK, reloads, drain.clone());
        spawn(&mut loops, "the look at certificates", looking);
    }
    spawn(
        &mut loops,
        "the saving of sync states",
        pulse.fleet.clone().save(store.clone(), ended(&streams_rx)),
    );
    spawn(&mut loops, "the ringing of streams", pulse.lists.clone().keep_ringing(ended(&streams_rx)));
    spawn(&mut loops, "the end of what is past its time", pulse.changes.clone().keep_expiring(drain.clone()));
    spawn(&mut loops, "the asking of Proxmox VE", pulse.poller.clone().keep_polling(drain.clone()));
    spawn(&mut loops, "the saving of uses", pulse.uses.clone().save(store.clone(), ended(&streams_rx)));
    spawn(&mut loops, "the log of refusals", refusal_log.write(ended(&streams_rx)));
    let pruning = pruning::keep_pruning(store.clone(), config.audit, pulse.clock.clone(), drain.clone());
    spawn(&mut loops, "the end of old audit rows", pruning);
    if store.is_shared() {
        spawn(&mut loops, "the word to other servers", pulse.replicas.clone().keep_beating(drain.clone()));
    }
    spawn(&mut loops, "the live feed", feed::follow::follow(Arc::clone(&pulse), drain.clone()));
    let admin_routes = rest::description::router().merge(rest::admin_router(Arc::clone(&pulse)));
    let admin = admin.serve(admin_routes.clone(), config.shutdown_grace, Arc::clone(&metrics), drain.clone());
    spawn(&mut loops, "the admin socket", async {
        admin.await;
    });

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(SERVICE, ServingStatus::Serving).await;
    let max_request = usize::try_from(config.limits.max_request_bytes).unwrap_or(usize::MAX);
    let rpc = pulse.rpc(&config, Chance::system());
    let install = install::router(config.install_dir.clone(), Arc::clone(&rpc.limits));
    let older = rpc.clone().older_router(max_request).merge(install);
    let grpc = rpc.router(max_request, health_service);
    let router = Router::new()
        .merge(grpc.layer(GrpcTimeoutLayer { longest: LONGEST_CALL }))
        .merge(older.clone())
        .merge(rest::probes::router(Arc::clone(&pulse)))
        .merge(admin_routes)
        .merge(web::router());
    let router = rest::with_fallback(router);
    for address in &pulse.listen_addrs {
        tracing::info!(%address, tls = !config.plaintext, "listening");
    }
    if let Some(address) = pulse.legacy_http {
        legacy_http::warn(address);
    }
    starting.ready(router);
    show_first_link(&pulse, shown);
    let legacy_serving = async {
        if let Some((legacy, bounds)) = legacy.zip(legacy_bounds) {
            let (host, port) = &pulse.public_authority;
            let place = pulse_proto::join::authority(host, *port);
            let router = legacy_http::router(older, Arc::clone(&metrics), place);
            legacy.serve(router, bounds, Arc::clone(&metrics), drain.clone()).await;
        }
    };
    tell_service_manager(sd_notify::NotifyState::Ready);
    let going_down = async {
        drain.started().await;
        tell_service_manager(sd_notify::NotifyState::Stopping);
        stop_serving(health).await;
    };
    let kept_up = async {
        let kept_up = match store.is_shared() {
            true => pulse.changes.clone().keep_up(drain.clone()).await,
            false => Ok(()),
        };
        match kept_up {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    };
    let drained = tokio::select! {
        drained = async { tokio::join!(serving, going_down, legacy_serving).0 } => drained,
        error = first_end(&mut loops, &drain) => return Err(error),
        () = pulse.changes.broken() => return Err(RunError::Broken),
        error = kept_up => return Err(error.into()),
    };
    tracing::info!(aborted = drained.aborted, "connections ended");

    drop(streams_tx);
    let closing = async {
        while let Some(ended) = loops.join_next().await {
            ended.map_err(RunError::Panicked)?;
        }
        pulse.changes.settled().await;
        Ok::<_, RunError>(store.close().await?)
    };
    if !store.is_shared() {
        closing.await?;
    } else if let Ok(closed) = tokio::time::timeout(CLOSING, closing).await {
        closed?;
    } else {
        tracing::warn!(
            "the database does not answer: what waits to be written is left to the proxies, which hold it too"
        );
        // Whoever drops the last handle would wait for the thread that waits for the database.
        std::mem::forget(store);
    }
    tracing::info!("the server ended");
    Ok(())
}

/// Where several servers share a database, all have one authority, so that a proxy that pinned it trusts each.
async fn share_authority(config: &Config, clock: &Clock) -> Result<(), RunError> {
    let Some(database) = config.database.clone().filter(|_| config.has_own_authority()) else {
        return Ok(());
    };
    let (folder, secret_key, clock) = (config.data_dir.clone(), config.secret_key_file(), clock.clone());
    let runtime = tokio::runtime::Handle::current();
    let shared = tokio::task::spawn_blocking(move || {
        let offered = tls::shared::offer(&folder)?;
        let key = store::share_authority(&database, &secret_key, &offered, &runtime, &clock)?;
        Ok::<_, RunError>(tls::shared::adopt(&folder, &key)?)
    });
    shared.await.map_err(RunError::Panicked)?
}

/// Makes the data folder, if it is not there: for the server's user alone, as it holds keys.
fn make_data_dir(config: &Config) -> Result<(), RunError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir);
    let folder = || config.data_dir.clone();
    made.map_err(|source| RunError::DataDir { folder: folder(), source })?;
    let found = std::fs::metadata(&config.data_dir);
    let found = found.map_err(|source| RunError::DataDir { folder: folder(), source })?;
    if found.permissions().mode() & 0o022 != 0 {
        let folder = config.data_dir.display();
        tracing::warn!(%folder, "other users can put files of their own in place of those in the data folder: chmod go-w it");
    }
    Ok(())
}

/// Starts a loop that is to run as long as the server.
fn spawn(
    loops: &mut JoinSet<&'static str>,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    loops.spawn(async move {
        work.await;
        name
    });
}

/// Where there is no admin yet, whoever started the server is shown how to become the first. The link is a secret, so no log has it.
fn show_first_link(pulse: &Pulse, mut shown: impl Write) {
    let Some(link) = pulse.first_link() else { return };
    let text = format!("no admin yet: set a password here, once and within 24 hours:\n{link}\n");
    if let Err(error) = shown.write_all(text.as_bytes()).and_then(|()| shown.flush()) {
        tracing::warn!(%error, "the link for the first admin cannot be shown; `pulse admin add NAME` makes one");
    }
}

/// Waits until the other end is dropped.
fn ended(other: &watch::Receiver<()>) -> impl Future<Output = ()> + Send + 'static {
    let mut other = other.clone();
    async move { while other.changed().await.is_ok() {} }
}

/// Waits for a loop that ends too early. Loops that end because the server goes down do not count.
async fn first_end(loops: &mut JoinSet<&'static str>, drain: &Drain) -> RunError {
    loop {
        match loops.join_next().await {
            Some(Err(error)) => return RunError::Panicked(error),
            Some(Ok(name)) if !drain.has_started() => return RunError::LoopEnded(name),
            Some(Ok(_)) => {}
            None => std::future::pending::<()>().await,
        }
    }
}

/// Tells those who watch the server's health that it goes down, and ends their streams: nothing else would, and the
/// drain would wait for them.
async fn stop_serving(mut health: HealthReporter) {
    for service in [WHOLE_SERVER, SERVICE] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}

fn tell_service_manager(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;
    use tonic_health::pb::{HealthCheckRequest, health_server::Health};
    use tonic_health::server::HealthService;

    #[tokio::test]
    async fn who_watches_the_health_hears_the_end_and_does_not_hold_it_up() {
        let reporter = HealthReporter::new();
        reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
        let health = HealthService::from_health_reporter(reporter.clone());
        let mut watches = Vec::new();
        for service in [WHOLE_SERVER, SERVICE] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let mut watch = health.watch(tonic::Request::new(request)).await.unwrap().into_inner();
            assert_eq!(watch.next().await.unwrap().unwrap().status, 1, "serving");
            watches.push(watch);
        }
        stop_serving(reporter).await;
        for mut watch in watches {
            assert_eq!(watch.next().await.unwrap().unwrap().status, 2, "not serving");
            assert!(watch.next().await.is_none());
        }
    }
}
