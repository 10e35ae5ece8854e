//! A certificate with its chain and key, read from two PEM files and checked.
//!
//! In: the files' bytes. Out: [`Identity`], ready for handshakes.
//! Always: key and certificate belong together. Never: shows a key.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::names::{Name, Names};
use super::{TlsError, show};

/// A certificate with its chain and key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) validity: Validity,
    pub(super) names: Names,
}

/// When a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

impl Validity {
    /// Whether it is time for the next one: two thirds of the life are over, or, after the clock was set, the life
    /// has not begun.
    pub(super) fn is_renewal_due(self, now: SystemTime) -> bool {
        let life = self.until.duration_since(self.from).unwrap_or_default();
        now < self.from || now >= self.from + life / 3 * 2
    }
}

/// Tells two states of a pair of files apart: SHA-256 over both, or over their absence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads both files. One that cannot be read counts as a state of its own.
    pub(super) fn of_files(certificate: &Path, key: &Path) -> Fingerprint {
        let mut hash = digest::Context::new(&digest::SHA256);
        for path in [certificate, key] {
            match std::fs::read(path) {
                Ok(content) => {
                    hash.update(&(content.len() as u64).to_be_bytes());
                    hash.update(&content);
                }
                Err(error) => hash.update(error.kind().to_string().as_bytes()),
            }
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.finish().as_ref());
        Fingerprint(bytes)
    }
}

impl Identity {
    /// Reads the pair of files that an operator names. The certificate must be good at `now`.
    pub(super) fn read(certificate: &Path, key: &Path, now: SystemTime) -> Result<Identity, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        let identity = Identity::parse((certificate, &read(certificate)?), (key, &read(key)?))?;
        if now > identity.validity.until {
            return Err(TlsError::Expired {
                path: certificate.to_owned(),
                at: show(identity.validity.until),
            });
        }
        if now < identity.validity.from {
            return Err(TlsError::NotYetValid {
                path: certificate.to_owned(),
                at: show(identity.validity.from),
            });
        }
        let leaf = x509(certificate, identity.leaf())?;
        // One without the extension is good for anything (RFC 5280, section 4.2.1.12).
        let usage = leaf.extended_key_usage().ok().flatten();
        if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
            return Err(TlsError::Purpose(certificate.to_owned()));
        }
        Ok(identity)
    }

    /// Whether a client that dials this host finds it in the certificate.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        ParsedCertificate::try_from(self.leaf()).is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
    }

    fn leaf(&self) -> &CertificateDer<'static> {
        self.certified.cert.first().expect("a chain that was read is not empty")
    }

    /// Checks that both parts can be read and belong together, but not their dates.
    pub(super) fn parse(
        (certificate_path, certificate): (&Path, &[u8]),
        (key_path, key): (&Path, &[u8]),
    ) -> Result<Identity, TlsError> {
        let chain = certificates(certificate_path, certificate)?;
        let leaf = chain.first().expect("a chain that was read is not empty").clone();
        let (validity, names) = inspect(certificate_path, &leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(key_path.to_owned()))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: certificate_path.to_owned(), key: key_path.to_owned() }
            }
            source => TlsError::UnfitKey { path: key_path.to_owned(), source },
        })?;
        Ok(Identity { certified: Arc::new(certified), validity, names })
    }
}

/// The one provider of cryptography, named wherever one is needed: there is no default for the whole process.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Every certificate of a PEM file, at least one.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}

/// Parses a certificate that `path` holds.
pub(super) fn x509<'a>(path: &Path, der: &'a [u8]) -> Result<X509Certificate<'a>, TlsError> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(TlsError::NoCertificate(path.to_owned())),
    }
}

/// When a certificate is good, and for which names.
pub(super) fn inspect(path: &Path, der: &[u8]) -> Result<(Validity, Names), TlsError> {
    let certificate = x509(path, der)?;
    let time = |time: x509_parser::time::ASN1Time| match u64::try_from(time.timestamp()) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    };
    let validity = Validity {
        from: time(certificate.validity().not_before),
        until: time(certificate.validity().not_after),
    };
    let san = certificate.subject_alternative_name().ok().flatten();
    let names = san.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Name::parse(name),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets).ok().map(|octets| Name::Address(octets.into())),
            _ => <[u8; 16]>::try_from(*octets).ok().map(|octets| Name::Address(octets.into())),
        },
        _ => None,
    });
    Ok((validity, names.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_after_two_thirds_and_before_the_beginning() {
        let from = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let validity = Validity { from, until: from + Duration::from_secs(300) };
        for (seconds, due) in [(0, false), (199, false), (200, true), (400, true)] {
            assert_eq!(validity.is_renewal_due(from + Duration::from_secs(seconds)), due, "{seconds}");
        }
        assert!(validity.is_renewal_due(from - Duration::from_secs(1)));
    }
}
