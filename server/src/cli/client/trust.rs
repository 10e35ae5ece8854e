//! Whose certificate is trusted from afar: one that leads to a pinned key, or one by name, from a file's or the system's
//! authorities; and what to do if it is another.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pulse_proto::Pin;
use pulse_reach::{Demand, Mistrust, Verifier};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use super::super::failure::Failure;

/// What makes a server the right one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trust {
    /// Its chain leads to this key, whatever its name.
    Pinned(Pin),
    /// It is signed by one in this file, and names the host.
    Roots(PathBuf),
    /// It is signed by one that the system trusts, and names the host.
    System,
}

impl Trust {
    /// A pin goes before a file, and a file before the system.
    pub(super) fn choose(pin: Option<Pin>, ca_file: Option<PathBuf>) -> Trust {
        match (pin, ca_file) {
            (Some(pin), _) => Trust::Pinned(pin),
            (None, Some(file)) => Trust::Roots(file),
            (None, None) => Trust::System,
        }
    }
}

/// The client's side of TLS: HTTP/1.1, and a whole handshake each time.
///
/// # Errors
/// There is nothing to trust.
pub(super) fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, Failure> {
    let failed = |text: String| Failure::usage("TRUST", text);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| failed(format!("set up TLS: {error}")))?;
    let mut config = match trust {
        Trust::Pinned(pin) => {
            let verifier = Verifier::new(Demand::LeadsTo(vec![*pin]), provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Trust::Roots(_) | Trust::System => {
            builder.with_root_certificates(roots(trust).map_err(failed)?).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would skip the pin.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Trust::Roots(file) = trust else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return match roots.is_empty() {
            true => Err("this machine has no root certificates to check a server with: install ca-certificates, or say --pin or \
                         --ca-file"
                .to_owned()),
            false => Ok(roots),
        };
    };
    let failed = |error: rustls::pki_types::pem::Error| {
        format!("read the certificates in {}: {error}", file.display())
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(failed)? {
        roots.add_parsable_certificates([certificate.map_err(failed)?]);
    }
    match roots.is_empty() {
        true => {
            Err(format!("{} holds no certificate (it must be PEM, with BEGIN CERTIFICATE)", file.display()))
        }
        false => Ok(roots),
    }
}

/// How a server's pin is found.
const HOW_TO_PIN: &str =
    "`pulse status` on the server shows its pin, for --pin; or copy its ca.pem, for --ca-file";

/// What a failed handshake means, and what to do about it.
pub(super) fn explain(error: &io::Error, server: &str, trust: &Trust) -> Failure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let (reason, text) = match tls {
        Some(Error::InvalidCertificate(reason)) => ("NOT_TRUSTED", certificate(reason, server, trust)),
        Some(Error::InvalidMessage(_)) => (
            "NO_TLS",
            format!(
                "what answers at {server} does not speak TLS: is it the right port? A server that runs with --plaintext is asked \
                 on its own machine, as http://127.0.0.1:PORT"
            ),
        ),
        _ => (
            "NOT_REACHED",
            format!("the TLS handshake with {server} failed: {error}; is it Pulse that listens there?"),
        ),
    };
    Failure::local(reason, format!("{text}. The token was not sent"))
}

fn certificate(reason: &CertificateError, server: &str, trust: &Trust) -> String {
    match reason {
        CertificateError::Other(other) => match other.0.downcast_ref::<Mistrust>() {
            Some(Mistrust::OtherKey { pinned, leaf }) => format!(
                "the certificate of {server} does not lead to the pinned key {pinned} (its own is {leaf}): it is another server, or \
                 its keys were made anew; `pulse status` on the server shows its pin"
            ),
            Some(Mistrust::NotSigned(pin)) => format!(
                "{server} shows the certificate of the pinned authority {pin}, which did not sign its own: somebody on the way poses \
                 as the server, or its certificate files were mixed up"
            ),
            Some(Mistrust::NoAuthority(pin)) => {
                format!(
                    "the pinned key {pin} may not sign others, and {server} has another one: it is another server"
                )
            }
            None => format!("the certificate of {server} is not trusted ({other}): {HOW_TO_PIN}"),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the certificate of {server} is for other names: use one of them in --server; or say --pin, which goes by the key ({HOW_TO_PIN})"
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let who = match trust {
                Trust::Roots(file) => format!("no authority in {}", file.display()),
                _ => "no authority that this machine trusts".to_owned(),
            };
            format!("{who} vouches for the certificate of {server}: {HOW_TO_PIN}")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of {server} is past its time: is the clock of this machine right?")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {server} is not good yet: are the clocks of both machines right?")
        }
        other => format!("the certificate of {server} is not trusted ({other:?}): {HOW_TO_PIN}"),
    }
}
