//! The server's end of TLS: its certificate, where that comes from, and how it is exchanged while the server runs.
//!
//! In: the data folder or the operator's own files; requests to reload, or to exchange the authority's key. Out: a
//! [`rustls::ServerConfig`] for the listener, the [`Pin`] for join strings, and the pins that proxies are told.
//! Always: a new certificate is for new handshakes, so no stream is dropped, and no session from before it is resumed; one
//! that fails a check changes nothing.
//! Never: makes a new authority where there was one, unless an admin asks for it, for every proxy holds its pin; shows a key.

mod authority;
mod bridge;
mod certificate;
mod error;
mod exchange;
mod files;
mod handshake;
mod identity;
mod names;
pub mod shared;
mod source;
mod tickets;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use pulse_proto::Pin;
use rustls::ServerConfig;

use crate::config::Config;
use crate::public_address::{self, Host};
use crate::shutdown::{Drain, Reloads};
use authority::Authority;
use files::Paths;
use handshake::Live;
use identity::{Fingerprint, Validity};
use names::Names;
use source::{Loaded, Source};
use tickets::Tickets;

pub use error::TlsError;

/// An operator's own certificate that ends sooner than this is warned of.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The server's certificate, exchanged while it is in use.
pub struct Tls {
    source: Source,
    live: Live,
    server: Arc<ServerConfig>,
    /// Of the authority's key, and while it is exchanged, of the one before. Empty: there is no authority of Pulse's own.
    pins: ArcSwap<Vec<Pin>>,
    seen: Mutex<Seen>,
}

/// How things stand with the certificate, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// When the certificate ends.
    pub ends_at: SystemTime,
    /// When the authority's certificate ends; `None` with an operator's own certificate.
    pub authority_ends_at: Option<SystemTime>,
    /// The exchange of the authority's key, while it lasts.
    pub exchange: Option<Exchange>,
    /// Why the files on disk are not the ones in use.
    pub trouble: Option<String>,
}

/// An exchange of the authority's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// The pin of the key before, which is still good.
    pub previous: Pin,
    /// When it began.
    pub began_at: SystemTime,
}

/// What is known of the files.
struct Seen {
    /// Their state when the certificate in use was read.
    loaded: Fingerprint,
    /// A newer state that was seen once: perhaps half-written.
    once: Option<Fingerprint>,
    /// The state that failed and was logged, and why.
    failed: Option<(Fingerprint, String)>,
    validity: Validity,
    authority: Option<Validity>,
    exchange: Option<Exchange>,
    /// What was said of the certificate in use.
    remarks: Vec<String>,
}

impl Tls {
    /// Reads the certificate that the configuration names, or makes Pulse's own. Needs the data folder to be there,
    /// and blocks on the disk.
    ///
    /// # Errors
    /// [`TlsError`]; each says what to do.
    pub fn open(config: &Config) -> Result<Tls, TlsError> {
        let source = match &config.tls {
            Some(files) => {
                let host = Host::of_system();
                let (public_host, _) =
                    public_address::choose(config.public_address.as_ref(), &config.listen, &host);
                Source::Operator { files: files.clone(), public_host }
            }
            None => {
                let host = Host::of_system();
                // What join strings name is among them, so that `-cacert ca.pem` works with the same host.
                let (public, _) =
                    public_address::choose(config.public_address.as_ref(), &config.listen, &host);
                let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
                let names = Names::new(&config.listen, [public, hostname].into_iter().chain(host.fqdn));
                let folder = config.data_dir.clone();
                Source::Own { paths: Paths::in_folder(&folder), folder, names }
            }
        };
        Tls::from_source(source, &config.data_dir, SystemTime::now())
    }

    fn from_source(source: Source, data_dir: &Path, now: SystemTime) -> Result<Tls, TlsError> {
        let loaded = source.load(now)?;
        loaded.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
        let seen = Seen {
            loaded: source.fingerprint(),
            once: None,
            failed: None,
            validity: loaded.identity.validity,
            authority: loaded.authority,
            exchange: loaded.exchange,
            remarks: loaded.remarks,
        };
        let tickets = Tickets::open(data_dir.join("tickets.key"), &loaded.identity.certified, now)?;
        let (live, server) = Live::new(loaded.identity.certified, tickets)?;
        let pins = ArcSwap::from_pointee(loaded.pins);
        Ok(Tls { source, live, server: Arc::new(server), pins, seen: Mutex::new(seen) })
    }

    /// The set-up of every handshake, for the listener.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// The pin of Pulse's own authority. None: the certificate is the operator's, and is checked by its name.
    pub fn pin(&self) -> Option<Pin> {
        self.pins.load().first().copied()
    }

    /// The pins to which the certificate leads: [`Tls::pin`], and while the authority's key is exchanged, that of the key
    /// before.
    pub fn pins(&self) -> Arc<Vec<Pin>> {
        self.pins.load_full()
    }

    /// The certificate of Pulse's own authority, for those who check with a file. None: see [`Tls::pin`].
    pub fn ca_file(&self) -> Option<&Path> {
        match &self.source {
            Source::Own { paths, .. } => Some(&paths.ca_certificate),
            Source::Operator { .. } => None,
        }
    }

    /// When the certificate in use ends.
    pub fn ends_at(&self) -> SystemTime {
        self.seen().validity.until
    }

    /// How things stand.
    pub fn condition(&self) -> Condition {
        let seen = self.seen();
        Condition {
            ends_at: seen.validity.until,
            authority_ends_at: seen.authority.map(|authority| authority.until),
            exchange: seen.exchange,
            trouble: seen.failed.as_ref().map(|(_, why)| why.clone()),
        }
    }

    /// Begins to exchange the authority's key: new handshakes show a certificate of the new one, join strings have its pin,
    /// and proxies with the pin of the key before go on, because that key vouches for the new one. Blocks on the disk.
    ///
    /// # Errors
    /// [`TlsError`]; then everything is as before.
    pub fn rotate(&self, now: SystemTime) -> Result<Exchange, TlsError> {
        let mut seen = self.seen();
        let Source::Own { paths, .. } = &self.source else { return Err(TlsError::NoAuthority) };
        if let Some(exchange) = seen.exchange {
            return Err(TlsError::ExchangeUnderWay(show(exchange.began_at)));
        }
        let before = Authority::ensure(paths, now)?;
        let in_use = self.pin();
        let is_built = before.bridge.as_ref().is_some_and(|bridge| Some(bridge.previous) == in_use);
        // A bridge from the key in use is what an exchange left whose certificate could not be written.
        if !is_built {
            if Some(before.pin) != in_use {
                return Err(TlsError::AuthorityChanged(paths.folder()));
            }
            exchange::begin(paths, &before, now)?;
        }
        self.take(&mut seen, self.source.load(now)?, now)?;
        seen.exchange.ok_or_else(|| TlsError::AuthorityMismatch(paths.folder()))
    }

    /// Ends an exchange of the authority's key: the pin of the key before is good no more. Blocks on the disk.
    ///
    /// # Errors
    /// [`TlsError`]; then everything is as before.
    pub fn finish_rotation(&self, now: SystemTime) -> Result<Exchange, TlsError> {
        let mut seen = self.seen();
        let Source::Own { paths, .. } = &self.source else { return Err(TlsError::NoAuthority) };
        let exchange = seen.exchange.ok_or(TlsError::NoExchange)?;
        exchange::finish(paths)?;
        self.take(&mut seen, self.source.load(now)?, now)?;
        tracing::info!(previous = %exchange.previous, "the exchange of the authority's key is finished; the previous pin is good no more");
        Ok(exchange)
    }

    /// Reads the certificate anew, and makes a new one where that is due. Blocks on the disk. Returns whether the
    /// certificate is another than before.
    ///
    /// # Errors
    /// [`TlsError`]; the certificate in use then stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.reload_at(SystemTime::now())
    }

    fn reload_at(&self, now: SystemTime) -> Result<bool, TlsError> {
        let mut seen = self.seen();
        // Before the load: what is written after it shows as a change at the next look.
        let before = self.source.fingerprint();
        let loaded = self.source.load(now)?;
        if let Source::Own { folder, .. } = &self.source
            && loaded.pins.first() != self.pins.load().first()
        {
            return Err(TlsError::AuthorityChanged(folder.clone()));
        }
        let is_new = self.take(&mut seen, loaded, now)?;
        // What the load itself wrote is no change.
        if !(self.source.is_own() && is_new) {
            seen.loaded = before;
        }
        Ok(is_new)
    }

    /// Puts a certificate in use. Returns whether it is another than before.
    fn take(&self, seen: &mut Seen, loaded: Loaded, now: SystemTime) -> Result<bool, TlsError> {
        let is_new = self.live.certificate().cert != loaded.identity.certified.cert;
        if is_new {
            self.live.exchange(loaded.identity.certified, now)?;
        }
        let news = loaded.remarks.iter().filter(|remark| !seen.remarks.contains(remark));
        news.for_each(|remark| tracing::warn!("{remark}"));
        self.pins.store(Arc::new(loaded.pins));
        *seen = Seen {
            loaded: self.source.fingerprint(),
            once: None,
            failed: None,
            validity: loaded.identity.validity,
            authority: loaded.authority,
            exchange: loaded.exchange,
            remarks: loaded.remarks,
        };
        Ok(is_new)
    }

    /// Looks at the files once; reloads when they changed, when a renewal is due or when it is `asked`.
    fn look(&self, asked: bool, now: SystemTime) {
        self.live.turn_tickets(now);
        let found = self.source.fingerprint();
        let failed_before = {
            let mut seen = self.seen();
            let is_due = self.source.is_own()
                && (seen.validity.is_renewal_due(now)
                    || seen.authority.is_some_and(|authority| authority.is_renewal_due(now)));
            if !asked && !is_due {
                if found == seen.loaded {
                    seen.once = None;
                    if seen.failed.take().is_some() {
                        tracing::info!("the certificate in use is back on disk");
                    }
                    return;
                }
                // Tools write two files one after the other: a pair counts when it stands still.
                if seen.once.replace(found) != Some(found) {
                    return;
                }
            }
            seen.failed.as_ref().map(|(state, _)| *state)
        };
        match self.reload_at(now) {
            Ok(true) => tracing::info!(ends_at = show(self.ends_at()), "certificate reloaded"),
            Ok(false) if asked => tracing::info!("certificate is unchanged"),
            Ok(false) => {}
            Err(error) => {
                let why = chain(&error);
                if asked || failed_before != Some(found) {
                    tracing::error!(
                        error = why,
                        ends_at = show(self.ends_at()),
                        "certificate not reloaded; the one in use stays"
                    );
                }
                self.seen().failed = Some((found, why));
            }
        }
    }

    /// Keeps the certificate current until the drain: looks at the files each `every`, of which two looks must
    /// agree, and at once when a reload is asked for.
    pub async fn keep_current(self: Arc<Self>, every: Duration, mut reloads: Reloads, drain: Drain) {
        let mut looks = tokio::time::interval(every);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut has_warned = false;
        loop {
            let asked = tokio::select! {
                () = drain.started() => return,
                () = reloads.next() => true,
                _ = looks.tick() => false,
            };
            let this = self.clone();
            // The disk may be slow, and streams must not wait for it.
            let look = tokio::task::spawn_blocking(move || this.look(asked, SystemTime::now()));
            if let Err(error) = look.await {
                tracing::error!(%error, "looking at the certificate failed");
            }
            let ends_at = self.ends_at();
            let ends_soon = !self.source.is_own() && SystemTime::now() + ENDS_SOON > ends_at;
            if ends_soon && !has_warned {
                tracing::warn!(
                    ends_at = show(ends_at),
                    "certificate ends soon; put a newer one in its place"
                );
            }
            has_warned = ends_soon;
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Every write to it is whole, so a panic elsewhere does not make it wrong.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("source", &self.source).field("pins", &self.pins).finish_non_exhaustive()
    }
}

/// A time as people write it, in UTC.
fn show(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(timestamp) => format!("{timestamp:.0}"),
        Err(_) => "a time beyond the calendar".to_owned(),
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
