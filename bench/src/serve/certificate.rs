//! The certificate of the peers that speak TLS: an authority and a leaf, of the same kinds of keys as Pulse makes for
//! itself, so that a handshake costs the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::failure::{Doing, Outcome};

/// Files of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    /// Makes the files in a folder that is there.
    pub(crate) fn make(folder: &Path) -> Outcome<Certificate> {
        let make = || -> Result<_, rcgen::Error> {
            let mut authority = CertificateParams::new(Vec::new())?;
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
            let key = KeyPair::generate()?;
            let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
            Ok((authority.pem(), leaf.pem(), key.serialize_pem()))
        };
        let (authority, leaf, key) = make().doing("make a certificate")?;
        for (name, text) in [("ca.pem", authority), ("certificate.pem", leaf), ("key.pem", key)] {
            std::fs::write(folder.join(name), text).doing(format!("write {name}"))?;
        }
        Ok(Certificate { folder: folder.to_owned() })
    }

    /// Files that were made.
    pub(crate) fn load(folder: &Path) -> Outcome<Certificate> {
        Ok(Certificate { folder: folder.to_owned() })
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The authority that clients trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A server's configuration, with rustls's own defaults.
    pub(crate) fn server_config(&self, protocols: &[&[u8]]) -> Outcome<ServerConfig> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(self.folder.join("certificate.pem"))
            .doing("read the certificate")?
            .collect();
        let key = PrivateKeyDer::from_pem_file(self.folder.join("key.pem")).doing("read the key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().doing("choose TLS's versions")?;
        let config = builder.with_no_client_auth();
        let mut config = config
            .with_single_cert(chain.doing("read the certificate")?, key)
            .doing("use the certificate")?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}
