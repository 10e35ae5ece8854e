//! The checks of a server's certificate that rustls does not have: against a pinned key, and none at all.
//!
//! Always: signatures inside the handshake are checked, so that the peer holds the certificate's key.
//! Source of the checks by pin: RFC 7469, section 2.4 (the SubjectPublicKeyInfo), RFC 5280, section 6 (the path).

use std::sync::Arc;

use pulse_proto::Pin;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::algorithms;

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

/// Takes a chain that leads to one key, whatever name was dialled.
#[derive(Debug)]
pub(super) struct PinnedKey {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl PinnedKey {
    pub(super) fn new(pin: Pin, provider: Arc<CryptoProvider>) -> PinnedKey {
        PinnedKey { pin, provider }
    }
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = parse(end_entity)?;
        let leaf_pin = pin_of(&leaf);
        if leaf_pin == self.pin {
            // The key itself is the one that is trusted, so there is no path to walk.
            check_dates(&leaf, now)?;
            check_purpose(&leaf)?;
            return Ok(ServerCertVerified::assertion());
        }
        let anchor = intermediates
            .iter()
            .find(|candidate| parse(candidate).is_ok_and(|certificate| pin_of(&certificate) == self.pin))
            .ok_or_else(|| other(PinMismatch { pinned: self.pin, leaf: leaf_pin }))?;
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
            algorithms(&self.provider).all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, algorithms(&self.provider))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, algorithms(&self.provider))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms(&self.provider).supported_schemes()
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

/// Takes every certificate, because the configuration says so.
#[derive(Debug)]
pub(super) struct Unchecked(Arc<CryptoProvider>);

impl Unchecked {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Unchecked {
        Unchecked(provider)
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, algorithms(&self.0))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, algorithms(&self.0))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms(&self.0).supported_schemes()
    }
}

#[cfg(test)]
mod tests;
