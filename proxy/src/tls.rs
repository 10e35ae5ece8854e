//! What is trusted in a handshake with Pulse: a pinned key, or certificates by name.
//!
//! In: the pin, or a file of certificates, or nothing. Out: a rustls configuration, with the one crypto provider given
//! explicitly, and words for people when a handshake fails.
//! Always: all of it happens inside the handshake, before a token is sent; a pin is checked even where certificate
//! checks are switched off. Never: loads the system's roots when there is a pin (they cost memory).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pulse_proto::Pin;
use pulse_reach::{Demand, Mistrust, Verifier};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, PeerIncompatible, RootCertStore};

/// What makes a server the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its chain leads to one of these keys, the newest first; dates and purpose are right; the name does not matter.
    Pinned(Vec<Pin>),
    /// Its certificate is signed by one in this file, and names the host.
    Roots(PathBuf),
    /// Its certificate is signed by one that the system trusts, and names the host.
    System,
    /// Anything: asked for by the configuration, and warned of at each start.
    Unchecked,
}

impl Trust {
    /// Chooses: a pin goes before all, then the switched-off check, then a file, then the system.
    pub fn choose(pins: Vec<Pin>, insecure_skip_verify: bool, ca_file: Option<&Path>) -> Trust {
        match (insecure_skip_verify, ca_file) {
            _ if !pins.is_empty() => Trust::Pinned(pins),
            (true, _) => Trust::Unchecked,
            (false, Some(path)) => Trust::Roots(path.to_owned()),
            (false, None) => Trust::System,
        }
    }
}

/// Why there is nothing to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("read the certificates in ca_file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The file has no usable certificate.
    #[error("ca_file {0} holds no certificate that can be trusted (it must be PEM, with BEGIN CERTIFICATE)")]
    Empty(PathBuf),
    /// The system has no certificates.
    #[error(
        "the system has no root certificates to check the server with: install ca-certificates, or name a ca_file, or register with a join string that has a pin"
    )]
    NoSystemRoots,
    /// rustls refuses the combination.
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// Builds the client's side of TLS for what is trusted: TLS 1.2 or 1.3, HTTP/2.
///
/// # Errors
/// [`TrustError`]: a person must mend files or configuration.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Pinned(pins) => unusual(builder, Verifier::new(Demand::LeadsTo(pins.clone()), provider)),
        Trust::Unchecked => unusual(builder, Verifier::new(Demand::Nothing, provider)),
        Trust::Roots(path) => builder.with_root_certificates(roots_of(path)?).with_no_client_auth(),
        Trust::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the certificate; one handshake for each connection is cheap enough.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn unusual(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    verifier: Verifier,
) -> ClientConfig {
    builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
}

fn roots_of(path: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        // One that cannot be an anchor is left out; none at all is an error.
        if let Err(error) = roots.add(certificate.map_err(failed)?) {
            tracing::warn!(path = %path.display(), %error, "a certificate in ca_file is left out");
        }
    }
    if roots.is_empty() { Err(TrustError::Empty(path.to_owned())) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "some of the system's root certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(TrustError::NoSystemRoots) } else { Ok(roots) }
}

/// What to say of a server without HTTP/2.
pub(crate) const NO_HTTP2: &str =
    "what answers there does not offer HTTP/2 (a TLS terminator in front must pass gRPC on)";

const TOO_OLD: &str = "what answers there speaks TLS 1.1 or older only, and TLS 1.2 is the least that is taken: update it, \
                       or turn newer versions on in the TLS terminator in front";

/// Says what a failed handshake means, and what to do about it.
pub fn explain(error: &io::Error) -> String {
    let Some(tls) = of_rustls(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => {
                "the connection was closed during the handshake (is it Pulse that listens there?)".to_owned()
            }
            _ => error.to_string(),
        };
    };
    match tls {
        rustls::Error::InvalidCertificate(reason) => certificate_trouble(reason),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS (is it the right port?)".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => NO_HTTP2.to_owned(),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
        | rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => TOO_OLD.to_owned(),
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) | rustls::Error::PeerIncompatible(_) => {
            format!(
                "what answers there has no cipher or key exchange in common with this program ({tls}): allow TLS 1.3, or \
                 ECDHE with AES-GCM, there"
            )
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "what answers there asks for a certificate of this host, and a proxy has none: turn that off in the TLS \
             terminator in front"
                .to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "what answers there does not serve the name that was dialled: dial it by a name that it has".to_owned()
        }
        other => other.to_string(),
    }
}

/// Whether a handshake failed because of the certificate, and will fail again: dates are mended by a clock or by the
/// server's next certificate, the rest by a person.
pub(crate) fn is_mistrusted(error: &io::Error) -> bool {
    match of_rustls(error) {
        Some(rustls::Error::InvalidCertificate(reason)) => !matches!(
            reason,
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        ),
        _ => false,
    }
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn certificate_trouble(reason: &CertificateError) -> String {
    match reason {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the server's certificate ended at {}, and this host's clock says {}: correct the clock if it is wrong, else put a \
             newer certificate in place at the server",
            utc(*not_after),
            utc(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate is good from {} only, and this host's clock says {}: correct the clock of this host, or \
             that of the host that made the certificate",
            utc(*not_before),
            utc(*time)
        ),
        CertificateError::Expired | CertificateError::NotValidYet => {
            "the server's certificate is not valid at this time: is the clock of this host right?".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {} but for {}: dial the server by one of its names, or register with a join \
             string that has a pin",
            expected.to_str(),
            names(presented)
        ),
        CertificateError::NotValidForName => {
            "the server's certificate is for another name: dial the server by one of its names, or register with a join \
             string that has a pin"
                .to_owned()
        }
        // A bad signature is what an authority of the same name and another key looks like.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is signed by nobody that is trusted here: register with a join string that \
             has a pin, or set ca_file"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not one for servers (its extended key usage lacks serverAuth): use another there"
                .to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<Mistrust>() {
            Some(mistrust) => mistrust.to_string(),
            None => other.to_string(),
        },
        other => format!("the server's certificate is refused: {other:?}"),
    }
}

/// The first few names of a certificate; webpki writes each as `DnsName("pulse.lan")` or `IpAddress(10.0.0.1)`.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 5;
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').escape_debug().to_string()
    };
    match presented {
        [] => "no name at all".to_owned(),
        names => {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            names.iter().take(SHOWN).map(bare).collect::<Vec<_>>().join(", ") + more
        }
    }
}

/// A time as people write it.
fn utc(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let Ok(at) = x509_parser::time::ASN1Time::from_timestamp(seconds) else {
        return "a time beyond the calendar".to_owned();
    };
    let at = at.to_datetime();
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", u8::from(month))
}

#[cfg(test)]
mod tests;
