//! Where the database is and how to get there: the operator's URL, password and authorities, as the driver takes them.
//!
//! Always: what may take time is bounded, by the server as well as here; a password is in no error.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use crate::config;
use crate::store::StoreError;

/// The longest that one attempt to reach a host may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long what was sent may stay without an acknowledgement: a host that lost power is noticed then.
const SILENT: Duration = Duration::from_secs(10);

/// What the server bounds by itself, unless the URL has `options` of its own: a statement, a wait for a lock, and a
/// transaction in which nothing is asked, as that of a server that was stopped in the middle of it.
const OPTIONS: &str =
    "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=15s";

/// See the module.
#[derive(Clone)]
pub(in crate::store) struct Address {
    pub(in crate::store) config: Config,
    pub(in crate::store) tls: MakeRustlsConnect,
    /// For people: without user and password.
    pub(in crate::store) name: Arc<str>,
}

impl Address {
    /// The same, for one server: the database notes with what it writes which one wrote it.
    pub(in crate::store) fn of_replica(mut self, replica: Uuid) -> Address {
        let options = self.config.get_options().unwrap_or_default();
        let options = format!("{options} -c pulse.replica={replica}");
        self.config.options(options.trim());
        self
    }

    /// Reads the files that the configuration names.
    pub(in crate::store) fn of(database: &config::Database) -> Result<Address, StoreError> {
        let name: Arc<str> = database.url.to_string().into();
        let failed = |doing: String, source: Box<dyn std::error::Error + Send + Sync>| StoreError::Database {
            doing: format!("{doing} ({name})"),
            source,
        };
        let mut config = database.url.config().clone();
        config.connect_timeout(CONNECT).tcp_user_timeout(SILENT).keepalives_idle(SILENT);
        if config.get_options().is_none() {
            config.options(OPTIONS);
        }
        if config.get_application_name().is_none() {
            config.application_name("pulse");
        }
        if let Some(path) = &database.password_file {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|error| {
                failed(format!("read the database's password in {}", path.display()), error.into())
            })?;
            config.password(text.trim_end_matches(['\r', '\n']));
        }
        if let Some(password) = &database.password {
            config.password(password.secret());
        }
        let mut roots = RootCertStore::empty();
        match &database.ca_file {
            Some(path) => {
                let doing = || format!("read the database's authorities in {}", path.display());
                let certificates =
                    CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                for certificate in certificates.map_err(|error| failed(doing(), error.into()))? {
                    roots.add(certificate).map_err(|error| failed(doing(), error.into()))?;
                }
                if roots.is_empty() {
                    return Err(failed(doing(), "there is no certificate in it".into()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("prepare TLS for the database".into(), error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Address { config, tls: MakeRustlsConnect::new(tls), name })
    }
}
