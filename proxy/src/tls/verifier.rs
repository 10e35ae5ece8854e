//! The checks of a server's certificate that rustls does not have: against a pinned key, and none at all.
//!
//! Always: signatures inside the handshake are checked, so that the peer holds the certificate's key.
//! Source of the checks by pin: RFC 7469, section 2.4 (the SubjectPublicKeyInfo), RFC 5280, section 6 (the path).

use std::sync::Arc;

use pulse_proto::Pin;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// No certificate of the chain has the pinned key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the server's certificate does not lead to the pinned key {pinned} (the certificate's own is {leaf}): it is another \
     server, or its keys were made anew; if that is intended, register again with a fresh join string"
)]
pub(super) struct PinMismatch {
    pinned: Pin,
    leaf: Pin,
}

/// What a verifier of ours asks of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) enum Demand {
    /// That it leads to one key, whatever name was dialled.
    LeadsTo(Pin),
    /// Nothing, because the configuration says so.
    Nothing,
}

/// A verifier that rustls does not have.
#[derive(Debug)]
pub(super) struct Verifier {
    demand: Demand,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(demand: Demand, provider: Arc<CryptoProvider>) -> Verifier {
        Verifier { demand, provider }
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }

    fn check_pinned(
        &self,
        pin: Pin,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = parse(end_entity)?;
        let leaf_pin = pin_of(&leaf);
        if leaf_pin == pin {
            // The key itself is the one that is trusted, so there is no path to walk.
            check_dates(&leaf, now)?;
            check_purpose(&leaf)?;
            return Ok(());
        }
        let anchor = intermediates
            .iter()
            .find(|candidate| parse(candidate).is_ok_and(|certificate| pin_of(&certificate) == pin))
            .ok_or_else(|| other(PinMismatch { pinned: pin, leaf: leaf_pin }))?;
        let authority = parse(anchor)?;
        // An anchor's own dates and its right to sign are not looked at by the path check.
        check_dates(&authority, now)?;
        if !authority.is_ca() {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let mut roots = RootCertStore::empty();
        roots.add(anchor.clone())?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            intermediates,
            now,
            self.algorithms().all,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Demand::LeadsTo(pin) = self.demand {
            self.check_pinned(pin, end_entity, intermediates, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
    }
}

fn pin_of(certificate: &X509Certificate<'_>) -> Pin {
    Pin::of_spki(certificate.public_key().raw)
}

fn check_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > validity.not_after.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// A certificate without the extension is good for anything (RFC 5280, section 4.2.1.12).
fn check_purpose(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    match certificate.extended_key_usage().map_err(bad)? {
        Some(usage) if !usage.value.server_auth && !usage.value.any => {
            Err(Error::InvalidCertificate(CertificateError::InvalidPurpose))
        }
        _ => Ok(()),
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

#[cfg(test)]
mod tests;
