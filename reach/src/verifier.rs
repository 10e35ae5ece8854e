//! The checks of a server's certificate that rustls does not have: against pinned keys, and none at all.
//!
//! Always: signatures inside the handshake are checked, so that the peer holds the certificate's key.
//! Source of the checks by pin: RFC 7469, section 2.4 (the SubjectPublicKeyInfo), RFC 5280, section 6 (the path).

use std::sync::Arc;
use std::time::Duration;

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

/// Why a chain does not lead to a pinned key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Mistrust {
    /// No certificate of the chain has it.
    #[error(
        "the server's certificate does not lead to the pinned key {pinned} (the certificate's own is {leaf}): it is another \
         server, or its keys were made anew; if that is intended, register again with a fresh join string"
    )]
    OtherKey {
        /// The newest pin.
        pinned: Pin,
        /// The key of the certificate that was shown.
        leaf: Pin,
    },
    /// The pinned authority's certificate is in the chain, but it did not sign the server's.
    #[error(
        "the server shows the certificate of the pinned authority {0}, which did not sign the server's own: somebody on the way \
         poses as the server, or its certificate files were mixed up; look at what answers there before anything else"
    )]
    NotSigned(Pin),
    /// The pinned key is one that may not sign, and is not the server's own.
    #[error(
        "the pinned key {0} belongs to a certificate that may not sign others, and the server's own has another key: it is \
         another server; if that is intended, register again with a fresh join string"
    )]
    NoAuthority(Pin),
}

/// What a verifier of ours asks of a chain.
#[derive(Clone, Debug)]
pub enum Demand {
    /// That it leads to one of these keys, whatever name was dialled.
    LeadsTo(Vec<Pin>),
    /// Nothing, because the configuration says so.
    Nothing,
}

/// A verifier that rustls does not have.
#[derive(Debug)]
pub struct Verifier {
    demand: Demand,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// With this demand.
    pub fn new(demand: Demand, provider: Arc<CryptoProvider>) -> Verifier {
        Verifier { demand, provider }
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }

    fn check_pinned(
        &self,
        pins: &[Pin],
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = parse(end_entity)?;
        let leaf_pin = pin_of(&leaf);
        if pins.contains(&leaf_pin) {
            // The key itself is the one that is trusted, so there is no path to walk.
            check_dates(&leaf, now)?;
            check_purpose(&leaf)?;
            return Ok(());
        }
        let pinned = pins.first().copied().unwrap_or(leaf_pin);
        let mut found = other(Mistrust::OtherKey { pinned, leaf: leaf_pin });
        for candidate in intermediates {
            // What cannot be read is no way to a pinned key.
            let Ok(authority) = parse(candidate) else { continue };
            let pin = pin_of(&authority);
            if !pins.contains(&pin) {
                continue;
            }
            match self.check_signed_by((candidate, &authority), pin, end_entity, intermediates, now) {
                Ok(()) => return Ok(()),
                // One pinned key in the chain is enough, whatever is wrong with another.
                Err(error) => found = error,
            }
        }
        Err(found)
    }

    fn check_signed_by(
        &self,
        (der, authority): (&CertificateDer<'_>, &X509Certificate<'_>),
        pin: Pin,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // An anchor's own dates and its right to sign are not looked at by the path check.
        check_dates(authority, now)?;
        if !authority.is_ca() {
            return Err(other(Mistrust::NoAuthority(pin)));
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(der.to_vec()))?;
        let checked = verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            intermediates,
            now,
            self.algorithms().all,
        );
        checked.map_err(|error| match error {
            // A bad signature is what an authority of the same name and another key looks like.
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                other(Mistrust::NotSigned(pin))
            }
            error => error,
        })
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
        if let Demand::LeadsTo(pins) = &self.demand {
            self.check_pinned(pins, end_entity, intermediates, now)?;
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
    let validity = certificate.validity();
    let time = |time: x509_parser::time::ASN1Time| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default()))
    };
    let (not_before, not_after) = (time(validity.not_before), time(validity.not_after));
    if now < not_before {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }));
    }
    if now > not_after {
        return Err(Error::InvalidCertificate(CertificateError::ExpiredContext { time: now, not_after }));
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
