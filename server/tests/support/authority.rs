//! A certificate authority of the test's own, and servers of the test's own that show what it signed.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use pulse_proto::Pin;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, PublicKeyData, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    pub(crate) pin: Pin,
}

impl Authority {
    /// A new one. They all have the same name, as an impostor's would.
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Pulse CA of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a CA can be made"))
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin::of_spki(&self.0.key().subject_public_key_info())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.0.pem().as_bytes()).expect("it was just made")
    }

    /// Writes its certificate.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).expect("the folder can be written");
    }

    /// A certificate for a server at 127.0.0.1 and `pulse.example`, as `change` wants it.
    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(["pulse.example".to_owned()]).expect("the name is one");
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate can be made");
        let pin = Pin::of_spki(&key.subject_public_key_info());
        Leaf { pem: certificate.pem(), key_pem: key.serialize_pem(), pin }
    }
}

impl Leaf {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("it was just made")
    }

    /// Writes both files, the key for its owner alone.
    pub(crate) fn install(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.pem).expect("the folder can be written");
        write_private(key, &self.key_pem);
    }

    /// What a server needs that shows this certificate, and `rest` after it.
    pub(crate) fn server_config(&self, rest: &[CertificateDer<'static>]) -> ServerConfig {
        let chain = std::iter::once(self.der()).chain(rest.iter().cloned()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("it was just made");
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .expect("the key fits");
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

/// Writes a file for its owner alone.
pub(crate) fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("the folder can be written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("the owner can do that");
}
