//! What every handshake is made with: the certificate of the moment, the versions, and tickets for sessions.
//!
//! Always: TLS 1.3 or 1.2; a ticket is worth nothing once the certificate under which it was given is another, so whoever
//! comes back sees the new one.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsError;
use super::identity::provider;
use super::tickets::Tickets;

/// Hands each handshake the certificate of the moment.
#[derive(Debug)]
pub(super) struct Live {
    certificate: Certificate,
    tickets: Arc<Tickets>,
}

#[derive(Clone, Debug)]
struct Certificate(Arc<ArcSwap<CertifiedKey>>);

impl Live {
    /// Begins with a certificate; returns it with the set-up of every handshake.
    pub(super) fn new(
        certified: Arc<CertifiedKey>,
        tickets: Tickets,
    ) -> Result<(Live, ServerConfig), TlsError> {
        let certificate = Certificate(Arc::new(ArcSwap::new(certified)));
        let tickets = Arc::new(tickets);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificate.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are resumed by tickets: the server holds nothing for a proxy that is away.
        config.ticketer = tickets.clone();
        // Proxies resume none: their pin is checked each time. Another client needs one ticket, not two.
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok((Live { certificate, tickets }, config))
    }

    /// The certificate of the moment.
    pub(super) fn certificate(&self) -> Arc<CertifiedKey> {
        self.certificate.0.load_full()
    }

    /// Exchanges the certificate, for the handshakes to come. Blocks on the disk.
    pub(super) fn exchange(&self, certified: Arc<CertifiedKey>, now: SystemTime) -> Result<(), TlsError> {
        // First: whoever gets a ticket of the new keys has seen the new certificate, but for a handshake that is under way.
        let before = self.certificate.0.swap(Arc::clone(&certified));
        self.tickets.exchange(&certified, now).inspect_err(|_| self.certificate.0.store(before))
    }

    /// Begins with a new key for tickets if it is time to. Blocks on the disk.
    pub(super) fn turn_tickets(&self, now: SystemTime) {
        self.tickets.turn(now);
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
