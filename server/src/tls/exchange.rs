//! The exchange of the authority's key: how it begins and ends. What there is meanwhile is [`super::bridge`].
//!
//! In: the data folder and the time. Out: the files changed.
//! Always: the new key comes into its place in one rename, behind the bridge; what a crash leaves before it is undone, after
//! it carried on. Never: keeps the key before, for nothing needs it once the bridge is built.

use std::fs;
use std::time::SystemTime;

use pulse_proto::Pin;
use rcgen::{Issuer, KeyPair, PublicKeyData};

use super::TlsError;
use super::authority::Authority;
use super::certificate::ca_params;
use super::files::{Access, Paths, remove, rename, write};

/// Makes a new key for the authority, and its certificate. Afterwards the server's certificate is to be made anew.
pub(super) fn begin(paths: &Paths, before: &Authority, now: SystemTime) -> Result<(), TlsError> {
    let begun = try_begin(paths, before, now);
    if begun.is_err() && paths.next_ca_key.exists() {
        // What cannot be removed now is removed at the next start.
        let _ = remove(&paths.bridge).and_then(|()| remove(&paths.next_ca_key));
    }
    begun
}

fn try_begin(paths: &Paths, before: &Authority, now: SystemTime) -> Result<(), TlsError> {
    let key = KeyPair::generate().map_err(TlsError::Make)?;
    let pin = Pin::of_spki(&key.subject_public_key_info());
    write(&paths.next_ca_key, &key.serialize_pem(), Access::Secret)?;
    // As long as the old pin could be good.
    let (params, _) = ca_params(pin, now, before.validity.until)?;
    let issuer = Issuer::from_ca_cert_der(&before.der, &before.key).map_err(TlsError::Make)?;
    let signed = params.signed_by(&key, &issuer).map_err(TlsError::Make)?;
    let old = fs::read_to_string(&paths.ca_certificate)
        .map_err(|source| TlsError::Read { path: paths.ca_certificate.clone(), source })?;
    write(&paths.bridge, &(signed.pem() + &old), Access::Public)?;
    // From here on the new key counts.
    rename(&paths.next_ca_key, &paths.ca_key)?;
    tracing::info!(%pin, previous = %before.pin, "the authority has a new key; proxies hear its pin over their streams");
    Ok(())
}

/// Takes the bridge away. Afterwards the server's certificate is to be made anew.
pub(super) fn finish(paths: &Paths) -> Result<(), TlsError> {
    remove(&paths.bridge)
}
