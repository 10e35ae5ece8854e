//! Pulse's own certificate authority in the data folder, and the server's certificate that it signs.
//!
//! In: the folder, the names and the time. Out: a good [`Identity`] and the authority's [`Pin`].
//! Always: the authority's key stays, because every proxy holds its pin, until an admin exchanges it ([`super::exchange`]);
//! its certificate is made anew from the key long before it ends. The server's certificate is made anew whenever it does
//! not fit, and carries the authority's in its chain.
//! Never: makes a new authority where there are traces of an older one.

use std::path::Path;
use std::time::{Duration, SystemTime};

use pulse_proto::Pin;
use rcgen::{
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;

use super::TlsError;
use super::bridge::{self, Bridge};
use super::certificate::{ca_params, params};
use super::files::{Access, Paths, read, write};
use super::identity::{Identity, Validity, certificates, inspect, x509};
use super::names::{Name, Names};
use super::show;

/// Renewed after two thirds, so each is good for at least a third of this after its last renewal: a copy of `ca.pem` that
/// somebody checks with is good for more than six years after the next one is there.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The server's certificate from Pulse's own authority.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) identity: Identity,
    pub(super) pin: Pin,
    /// The authority's own time.
    pub(super) authority: Validity,
    /// The exchange of the authority's key, while it lasts.
    pub(super) bridge: Option<Bridge>,
}

/// Reads what is there and makes what is missing or due.
pub(super) fn ensure(paths: &Paths, names: &Names, now: SystemTime) -> Result<Own, TlsError> {
    let authority = Authority::ensure(paths, now)?;
    let existing = Leaf::read(paths)?;
    let identity = match existing.unfit_because(&authority, names, now) {
        None => existing.identity.expect("a certificate that fits was read"),
        Some(reason) => {
            let made = authority.sign(paths, names, now)?;
            tracing::info!(reason, %names, "server certificate made");
            made
        }
    };
    let Authority { pin, validity, bridge, .. } = authority;
    Ok(Own { identity, pin, authority: validity, bridge })
}

/// Pulse's own authority.
pub(super) struct Authority {
    pub(super) der: CertificateDer<'static>,
    pub(super) key: KeyPair,
    pub(super) pin: Pin,
    pub(super) validity: Validity,
    pub(super) bridge: Option<Bridge>,
}

impl Authority {
    pub(super) fn ensure(paths: &Paths, now: SystemTime) -> Result<Authority, TlsError> {
        let certificate = read(&paths.ca_certificate)?;
        let (key, certificate) = match (read(&paths.ca_key)?, certificate) {
            (Some(key), certificate) => (parse_key(&paths.ca_key, key)?, certificate),
            (None, Some(_)) => return Err(TlsError::AuthorityKeyLost(paths.folder())),
            (None, None) if paths.certificate.exists() || paths.key.exists() => {
                return Err(TlsError::AuthorityLost(paths.folder()));
            }
            (None, None) => {
                let key = KeyPair::generate().map_err(TlsError::Make)?;
                // The key first: a certificate can be made from it again, should the power go now.
                write(&paths.ca_key, &key.serialize_pem(), Access::Secret)?;
                tracing::info!(path = %paths.ca_key.display(), "certificate authority made");
                (key, None)
            }
        };
        let pin = Pin::of_spki(&key.subject_public_key_info());
        let bridge = bridge::find(paths, pin)?;
        let Some(pem) = certificate else {
            return Authority::make(paths, key, bridge, now);
        };
        let path = &paths.ca_certificate;
        let der = certificates(path, &pem)?.swap_remove(0);
        let parsed = x509(path, &der)?;
        let found = Pin::of_spki(parsed.public_key().raw);
        if bridge.as_ref().is_some_and(|bridge| bridge.previous == found) {
            // The exchange of the key was cut short after the key was in its place.
            return Authority::make(paths, key, bridge, now);
        }
        if found != pin {
            return Err(TlsError::AuthorityMismatch(paths.folder()));
        }
        let (validity, _) = inspect(path, &der)?;
        if validity.is_renewal_due(now) {
            let made = Authority::make(paths, key, bridge, now)?;
            tracing::warn!(path = %path.display(), copies_end_at = show(validity.until), ends_at = show(made.validity.until),
                "the authority's certificate is renewed with the same key: proxies that have its pin go on as they are; whoever \
                 checks with a copy of ca.pem needs the new one before the copy's end");
            return Ok(made);
        }
        Ok(Authority { der, key, pin, validity, bridge })
    }

    /// Makes the authority's certificate from its key: the first, or the next with the same pin.
    pub(super) fn make(
        paths: &Paths,
        key: KeyPair,
        bridge: Option<Bridge>,
        now: SystemTime,
    ) -> Result<Authority, TlsError> {
        let pin = Pin::of_spki(&key.subject_public_key_info());
        let (params, validity) = ca_params(pin, now, now + AUTHORITY_LIFE)?;
        let certificate = params.self_signed(&key).map_err(TlsError::Make)?;
        write(&paths.ca_certificate, &certificate.pem(), Access::Public)?;
        tracing::info!(path = %paths.ca_certificate.display(), %pin, "authority certificate made");
        Ok(Authority { der: certificate.der().clone(), key, pin, validity, bridge })
    }

    /// What follows the server's own certificate: this authority; and while its key is exchanged, before it the way to the
    /// key before. That comes first, because OpenSSL walks the first way that it finds, and with a copy of the `ca.pem` before
    /// only this one ends well.
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let bridge = self.bridge.iter().flat_map(|bridge| &bridge.chain);
        bridge.chain([&self.der]).cloned().collect()
    }

    /// Makes a key and a certificate for the server.
    fn sign(&self, paths: &Paths, names: &Names, now: SystemTime) -> Result<Identity, TlsError> {
        let (mut params, _) = params(now, now + LEAF_LIFE)?;
        params.distinguished_name.push(DnType::CommonName, "Pulse server");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let names = names.iter().map(|name| match name {
            Name::Address(ip) => Ok(SanType::IpAddress(*ip)),
            Name::Dns(name) => name.as_str().try_into().map(SanType::DnsName),
        });
        params.subject_alt_names = names.collect::<Result<_, _>>().map_err(TlsError::Make)?;
        let key = KeyPair::generate().map_err(TlsError::Make)?;
        let issuer = Issuer::from_ca_cert_der(&self.der, &self.key).map_err(TlsError::Make)?;
        let certificate = params.signed_by(&key, &issuer).map_err(TlsError::Make)?;
        let authority = std::fs::read_to_string(&paths.ca_certificate)
            .map_err(|source| TlsError::Read { path: paths.ca_certificate.clone(), source })?;
        let bridge = self.bridge.as_ref().map_or("", |bridge| bridge.pem.as_str());
        let chain = certificate.pem() + bridge + &authority;
        write(&paths.key, &key.serialize_pem(), Access::Secret)?;
        write(&paths.certificate, &chain, Access::Public)?;
        Identity::parse((&paths.certificate, chain.as_bytes()), (&paths.key, key.serialize_pem().as_bytes()))
    }
}

/// The server's certificate as it was found.
struct Leaf {
    is_there: bool,
    /// `None`: it is not whole.
    identity: Option<Identity>,
}

impl Leaf {
    fn read(paths: &Paths) -> Result<Leaf, TlsError> {
        let (certificate, key) = (read(&paths.certificate)?, read(&paths.key)?);
        let is_there = certificate.is_some() || key.is_some();
        let identity = certificate.zip(key).and_then(|(certificate, key)| {
            // What is wrong with it does not matter: it is made anew.
            Identity::parse((&paths.certificate, &certificate), (&paths.key, &key)).ok()
        });
        Ok(Leaf { is_there, identity })
    }

    fn unfit_because(&self, authority: &Authority, names: &Names, now: SystemTime) -> Option<&'static str> {
        match &self.identity {
            None if self.is_there => Some("it was not whole"),
            None => Some("there was none"),
            // The file is written as certificate and authority in one piece, so the rest tells who signed the first.
            Some(leaf) if leaf.certified.cert.get(1..) != Some(&authority.chain()[..]) => {
                Some("the authority's certificate is another")
            }
            Some(leaf) if leaf.names != *names => Some("its names changed"),
            Some(leaf) if leaf.validity.is_renewal_due(now) => Some("its renewal was due"),
            Some(_) => None,
        }
    }
}

pub(super) fn parse_key(path: &Path, pem: Vec<u8>) -> Result<KeyPair, TlsError> {
    let pem = String::from_utf8(pem).map_err(|_| TlsError::NoKey(path.to_owned()))?;
    KeyPair::from_pem(&pem).map_err(|_| TlsError::NoKey(path.to_owned()))
}
