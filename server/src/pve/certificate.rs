//! Whose certificate is trusted: one that the system's authorities vouch for, or the one with a pinned fingerprint.
//!
//! Out: a TLS configuration, and after a handshake what the host showed. Always: a pinned fingerprint is that of the host's own
//! certificate, as Proxmox VE shows it. Never: skips the check.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

/// SHA-256 of a certificate: `AA:BB:…`, 32 pairs of hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Fingerprint(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let rule = || {
            "must be a SHA-256 fingerprint: 32 pairs of hex digits, as `openssl x509 -fingerprint -sha256` prints them".to_owned()
        };
        let digits: String = text.chars().filter(|&digit| digit != ':').collect();
        let bytes = pulse_proto::hex::decode(&digits.to_ascii_lowercase()).ok_or_else(rule)?;
        Ok(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whose certificate is trusted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// One that leads to an authority of the system, and is for the name that was dialled.
    System(Arc<RootCertStore>),
    /// One with one of these fingerprints, whatever its name and dates say: each host of a cluster has its own.
    Pinned(Vec<Fingerprint>),
}

/// What a host showed in a handshake.
#[derive(Clone, Default, Debug)]
pub(super) struct Shown(Arc<Mutex<Option<Fingerprint>>>);

impl Shown {
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host's certificate has another fingerprint than those that are pinned.
#[derive(Clone, Debug, thiserror::Error)]
#[error("its certificate has the fingerprint {shown}, and {} is pinned", listed(.pinned))]
struct OtherCertificate {
    pinned: Vec<Fingerprint>,
    shown: Fingerprint,
}

/// The configuration of one handshake, and where what the host shows stands afterwards.
///
/// # Errors
/// The TLS library refuses its set-up.
pub(super) fn handshake(trust: &Trust) -> Result<(ClientConfig, Shown), Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = match trust {
        Trust::System(roots) => {
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider));
            Some(builder.build().map_err(|error| Error::General(error.to_string()))?)
        }
        Trust::Pinned(_) => None,
    };
    let pinned = match trust {
        Trust::Pinned(pinned) => pinned.clone(),
        Trust::System(_) => Vec::new(),
    };
    let shown = Shown::default();
    let verifier = Verifier { roots, pinned, shown: shown.clone(), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, shown))
}

fn listed(fingerprints: &[Fingerprint]) -> String {
    fingerprints.iter().map(Fingerprint::to_string).collect::<Vec<_>>().join(" or ")
}

#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<Fingerprint>,
    shown: Shown,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Fingerprint::of(end_entity);
        *self.shown.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        if let Some(roots) = &self.roots {
            return roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        if self.pinned.contains(&shown) {
            return Ok(ServerCertVerified::assertion());
        }
        let other = OtherError(Arc::new(OtherCertificate { pinned: self.pinned.clone(), shown }));
        Err(Error::InvalidCertificate(CertificateError::Other(other)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake means, for people; `None`: it did not fail for the certificate. `host` is who was dialled.
pub(super) fn explain(error: &Error, host: &str, shown: Option<Fingerprint>) -> Option<String> {
    let Error::InvalidCertificate(error) = error else { return None };
    let shown = shown.map(|shown| shown.to_string()).unwrap_or_default();
    let compare = format!(
        "compare {shown} with what `openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem` prints on the host, \
         and pin it with --fingerprint"
    );
    Some(match error {
        CertificateError::Other(other) => match other.0.downcast_ref::<OtherCertificate>() {
            Some(OtherCertificate { pinned, shown }) => format!(
                "the certificate of {host} changed: {} is pinned, and it shows {shown}. If it was renewed there, \
                 compare, and add the new one with `pulse instance set NAME --add-fingerprint {shown}`; if not, somebody poses as the host",
                listed(pinned)
            ),
            // As `openssl req -x509` makes them.
            None if format!("{error:?}").contains("CaUsedAsEndEntity") => {
                format!("nobody but itself vouches for the certificate of {host}: {compare}")
            }
            None => format!("the certificate of {host} cannot be trusted ({error}): {compare}"),
        },
        CertificateError::UnknownIssuer => format!(
            "no authority of this system vouches for the certificate of {host}, as with those that Proxmox VE makes itself: {compare}"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "the certificate of {host} is past its time: renew it there (`pvecm updatecerts --force`, or its ACME order); or {compare}"
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {host} is not good yet: are the clocks of both machines right?")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate of {host} is for other names: use one of those in the URL; or {compare}")
        }
        other => format!("the certificate of {host} cannot be trusted ({other}): {compare}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_proxmox_and_openssl_show_it() {
        let shown = ["AB"; 32].join(":");
        let read: Fingerprint = shown.parse().unwrap();
        assert_eq!(read.to_string(), shown);
        assert_eq!("ab".repeat(32).parse::<Fingerprint>().unwrap(), read);
        for text in ["", "AB:CD", "zz", &"AB:".repeat(33)] {
            assert!(text.parse::<Fingerprint>().unwrap_err().contains("32 pairs"), "{text}");
        }
    }
}
