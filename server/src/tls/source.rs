//! Where the server's certificate comes from, and what is there now.
//!
//! In: the data folder, or the operator's files. Out: [`Loaded`], which passed every check.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use pulse_proto::Pin;

use super::authority;
use super::bridge::Bridge;
use super::files::Paths;
use super::identity::{Fingerprint, Identity, Validity};
use super::names::Names;
use super::{Exchange, TlsError};
use crate::config::TlsFiles;

/// Where the certificate comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Pulse's own authority in the data folder.
    Own { folder: PathBuf, paths: Paths, names: Names },
    /// The operator; and the host that join strings name.
    Operator { files: TlsFiles, public_host: String },
}

/// A certificate that passed every check, and when the next is due.
pub(super) struct Loaded {
    pub(super) identity: Identity,
    /// Empty with an operator's own.
    pub(super) pins: Vec<Pin>,
    pub(super) authority: Option<Validity>,
    pub(super) exchange: Option<Exchange>,
    pub(super) remarks: Vec<String>,
}

impl Source {
    pub(super) fn load(&self, now: SystemTime) -> Result<Loaded, TlsError> {
        match self {
            Source::Own { paths, names, .. } => {
                let own = authority::ensure(paths, names, now)?;
                let exchange =
                    own.bridge.map(|Bridge { previous, began_at, .. }| Exchange { previous, began_at });
                Ok(Loaded {
                    identity: own.identity,
                    pins: [own.pin].into_iter().chain(exchange.map(|exchange| exchange.previous)).collect(),
                    authority: Some(own.authority),
                    exchange,
                    remarks: Vec::new(),
                })
            }
            Source::Operator { files, public_host } => {
                let identity = Identity::read(&files.certificate_file, &files.key_file, now)?;
                let remarks = remarks(&identity, files, public_host);
                Ok(Loaded { identity, pins: Vec::new(), authority: None, exchange: None, remarks })
            }
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self {
            Source::Own { paths, .. } => Fingerprint::of_files(&paths.certificate, &paths.key),
            Source::Operator { files, .. } => Fingerprint::of_files(&files.certificate_file, &files.key_file),
        }
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self, Source::Own { .. })
    }
}

/// What is to be said of an operator's own certificate that can be used all the same.
fn remarks(identity: &Identity, files: &TlsFiles, public_host: &str) -> Vec<String> {
    let mut remarks = Vec::new();
    let key = files.key_file.display();
    if std::fs::metadata(&files.key_file).is_ok_and(|about| about.permissions().mode() & 0o004 != 0) {
        remarks.push(format!("every user of this machine can read the private key {key}: chmod o-rwx it"));
    }
    if !identity.is_for(public_host) {
        let file = files.certificate_file.display();
        let names = &identity.names;
        remarks.push(format!(
            "join strings name {public_host}, for which the certificate in {file} is not good, so proxies would refuse it: \
             set public_address to one of its names ({names}), or use a certificate that has this one"
        ));
    }
    remarks
}
