//! What every handshake is made with: the certificate of the moment, the versions, and tickets for sessions.
//!
//! Always: TLS 1.3 or 1.2; a ticket is worth nothing once the certificate under which it was given is another, so whoever
//! comes back sees the new one.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsError;
use super::identity::provider;

/// Hands each handshake the certificate of the moment.
#[derive(Debug)]
pub(super) struct Live {
    certificate: Certificate,
    tickets: Tickets,
}

#[derive(Clone, Debug)]
struct Certificate(Arc<ArcSwap<CertifiedKey>>);

/// The keys that tickets are made with, which rustls changes every six hours; and all at once with the certificate.
#[derive(Clone)]
struct Tickets(Arc<ArcSwap<Arc<dyn ProducesTickets>>>);

impl Live {
    /// Begins with a certificate; returns it with the set-up of every handshake.
    pub(super) fn new(certified: Arc<CertifiedKey>) -> Result<(Live, ServerConfig), TlsError> {
        let certificate = Certificate(Arc::new(ArcSwap::new(certified)));
        let tickets = Tickets(Arc::new(ArcSwap::from_pointee(ticketer()?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificate.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are resumed by tickets: the server holds nothing for a proxy that is away.
        config.ticketer = Arc::new(tickets.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok((Live { certificate, tickets }, config))
    }

    /// The certificate of the moment.
    pub(super) fn certificate(&self) -> Arc<CertifiedKey> {
        self.certificate.0.load_full()
    }

    /// Exchanges the certificate, for the handshakes to come.
    pub(super) fn exchange(&self, certified: Arc<CertifiedKey>) -> Result<(), TlsError> {
        let tickets = ticketer()?;
        self.certificate.0.store(certified);
        self.tickets.0.store(Arc::new(tickets));
        Ok(())
    }
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Library)
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.load().enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.load().lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.load().encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.load().decrypt(cipher)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(…)")
    }
}
