//! The server's end of TLS: its certificate, where that comes from, and how it is exchanged while the server runs.
//!
//! In: the data folder or the operator's own files; requests to reload. Out: a [`rustls::ServerConfig`] for the
//! listener and the [`Pin`] for join strings.
//! Always: a new certificate is for new handshakes, so no stream is dropped; one that fails a check changes nothing.
//! Never: makes a new authority where there was one, for every proxy holds its pin; shows a key.

mod authority;
mod files;
mod identity;
mod names;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use pulse_proto::Pin;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::{Config, TlsFiles};
use crate::public_address::{self, Host};
use crate::shutdown::{Drain, Reloads};
use authority::Paths;
use identity::{Fingerprint, Identity, Validity};
use names::Names;

/// An operator's own certificate that ends sooner than this is warned of.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Why there is no certificate, or no new one.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}: does it exist, and may the server's user read it?", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate that can be read; it must be PEM, the server's own certificate first", .0.display())]
    NoCertificate(PathBuf),
    /// A file holds no key.
    #[error("{} holds no private key that can be read; it must be PEM and without a passphrase", .0.display())]
    NoKey(PathBuf),
    /// The key is of a kind that TLS here does not know.
    #[error("the key in {} cannot be used; use ECDSA P-256 or RSA of at least 2048 bits", path.display())]
    UnfitKey {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Key and certificate are of different pairs.
    #[error(
        "the key in {} does not belong to the first certificate in {}; the server's own certificate stands first, \
         those that signed it after it", key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is past its time.
    #[error("the certificate in {} ended at {at}; put a newer one in its place, or correct the clock", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When, in UTC.
        at: String,
    },
    /// The certificate's time has not come.
    #[error("the certificate in {} is good from {at} only; correct the clock, or use another", path.display())]
    NotYetValid {
        /// The certificate's file.
        path: PathBuf,
        /// When, in UTC.
        at: String,
    },
    /// `ca.key` is missing beside `ca.pem`.
    #[error(
        "ca.pem is in {} but ca.key is not; restore ca.key from a backup. Or remove ca.pem, server.pem and \
         server.key to begin with a new authority: every proxy must then be registered again, because it trusts the \
         old one", .0.display()
    )]
    AuthorityKeyLost(PathBuf),
    /// The authority is missing beside a certificate that it signed.
    #[error(
        "server.pem or server.key is in {} but ca.pem and ca.key are not; restore both from a backup. Or remove \
         server.pem and server.key to begin with a new authority: every proxy must then be registered again, because \
         it trusts the old one", .0.display()
    )]
    AuthorityLost(PathBuf),
    /// `ca.key` and `ca.pem` are of different pairs.
    #[error(
        "ca.key and ca.pem in {} do not belong together; restore both from the same backup. If ca.key is the right \
         one, remove ca.pem, and it is made again from the key", .0.display()
    )]
    AuthorityMismatch(PathBuf),
    /// `ca.key` became another while the server ran.
    #[error("ca.key in {} is another than at start; restart the server to use it", .0.display())]
    AuthorityChanged(PathBuf),
    /// A certificate cannot be made.
    #[error("make a certificate")]
    Make(#[source] rcgen::Error),
    /// The system gives no random bytes.
    #[error("get random bytes from the system")]
    Random,
    /// The TLS library refuses its set-up.
    #[error("set up TLS")]
    Library(#[source] rustls::Error),
}

/// The server's certificate, exchanged while it is in use.
pub struct Tls {
    source: Source,
    live: Arc<LiveCertificate>,
    server: Arc<ServerConfig>,
    pin: Option<Pin>,
    seen: Mutex<Seen>,
}

/// Where the certificate comes from.
#[derive(Debug)]
enum Source {
    /// Pulse's own authority in the data folder.
    Own { folder: PathBuf, paths: Paths, names: Names },
    /// The operator.
    Operator(TlsFiles),
}

/// A certificate that passed every check, and when the next is due.
struct Loaded {
    identity: Identity,
    pin: Option<Pin>,
    authority: Option<Validity>,
}

/// What is known of the files.
struct Seen {
    /// Their state when the certificate in use was read.
    loaded: Fingerprint,
    /// A newer state that was seen once: perhaps half-written.
    once: Option<Fingerprint>,
    /// The state that failed and was logged.
    failed: Option<Fingerprint>,
    validity: Validity,
    authority: Option<Validity>,
}

impl Tls {
    /// Reads the certificate that the configuration names, or makes Pulse's own. Needs the data folder to be there,
    /// and blocks on the disk.
    ///
    /// # Errors
    /// [`TlsError`]; each says what to do.
    pub fn open(config: &Config) -> Result<Tls, TlsError> {
        let source = match &config.tls {
            Some(files) => Source::Operator(files.clone()),
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
        Tls::from_source(source, SystemTime::now())
    }

    fn from_source(source: Source, now: SystemTime) -> Result<Tls, TlsError> {
        let loaded = source.load(now)?;
        let seen = Seen {
            loaded: source.fingerprint(),
            once: None,
            failed: None,
            validity: loaded.identity.validity,
            authority: loaded.authority,
        };
        let live = Arc::new(LiveCertificate(ArcSwap::new(loaded.identity.certified)));
        let server = Arc::new(server_config(live.clone())?);
        Ok(Tls { source, live, server, pin: loaded.pin, seen: Mutex::new(seen) })
    }

    /// The set-up of every handshake, for the listener.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// The pin of Pulse's own authority. None: the certificate is the operator's, and is checked by its name.
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }

    /// The certificate of Pulse's own authority, for those who check with a file. None: see [`Tls::pin`].
    pub fn ca_file(&self) -> Option<&Path> {
        match &self.source {
            Source::Own { paths, .. } => Some(&paths.ca_certificate),
            Source::Operator(_) => None,
        }
    }

    /// When the certificate in use ends.
    pub fn ends_at(&self) -> SystemTime {
        self.seen().validity.until
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
            && loaded.pin != self.pin
        {
            return Err(TlsError::AuthorityChanged(folder.clone()));
        }
        let is_new = self.live.0.load().cert != loaded.identity.certified.cert;
        let is_made = matches!(self.source, Source::Own { .. }) && is_new;
        seen.loaded = if is_made { self.source.fingerprint() } else { before };
        (seen.once, seen.failed) = (None, None);
        (seen.validity, seen.authority) = (loaded.identity.validity, loaded.authority);
        self.live.0.store(loaded.identity.certified);
        Ok(is_new)
    }

    /// Looks at the files once; reloads when they changed, when a renewal is due or when it is `asked`.
    fn look(&self, asked: bool, now: SystemTime) {
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
            seen.failed
        };
        match self.reload_at(now) {
            Ok(true) => tracing::info!(ends_at = show(self.ends_at()), "certificate reloaded"),
            Ok(false) if asked => tracing::info!("certificate is unchanged"),
            Ok(false) => {}
            Err(error) => {
                if asked || failed_before != Some(found) {
                    tracing::error!(error = chain(&error), "certificate not reloaded; the one in use stays");
                }
                self.seen().failed = Some(found);
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
        f.debug_struct("Tls").field("source", &self.source).field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl Source {
    fn load(&self, now: SystemTime) -> Result<Loaded, TlsError> {
        match self {
            Source::Own { paths, names, .. } => {
                let own = authority::ensure(paths, names, now)?;
                Ok(Loaded { identity: own.identity, pin: Some(own.pin), authority: Some(own.authority) })
            }
            Source::Operator(files) => {
                let identity = Identity::read(&files.certificate_file, &files.key_file, now)?;
                Ok(Loaded { identity, pin: None, authority: None })
            }
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        match self {
            Source::Own { paths, .. } => Fingerprint::of_files(&paths.certificate, &paths.key),
            Source::Operator(files) => Fingerprint::of_files(&files.certificate_file, &files.key_file),
        }
    }

    fn is_own(&self) -> bool {
        matches!(self, Source::Own { .. })
    }
}

/// Hands each handshake the certificate of the moment.
#[derive(Debug)]
struct LiveCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn server_config(certificate: Arc<LiveCertificate>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(identity::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Library)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions are resumed by tickets: the server holds nothing for a proxy that is away.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Library)?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// A time as people write it, in UTC.
fn show(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(timestamp) => format!("{timestamp:.0}"),
        Err(_) => "a time beyond the calendar".to_owned(),
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
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
