//! The exchange of the authority's key, while it lasts: what leads from the key before to the new one.
//!
//! The new authority's certificate is signed twice: by itself, and by the key before (the *bridge*). The server sends both,
//! and the certificate of the key before, so a proxy that has only the old pin still finds its way, however long it was
//! away; over that connection it hears the new pin ([`Tls::pins`](super::Tls::pins)). When the exchange is finished the
//! bridge is taken out of the chain, and the old pin is worth nothing.
//!
//! In: the data folder and the time. Out: [`Bridge`], or the files changed.
//! Always: the new key comes into its place in one rename, behind the bridge; what a crash leaves before it is undone, after
//! it carried on. Never: keeps the key before, for nothing needs it once the bridge is built.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use pulse_proto::Pin;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

use super::TlsError;
use super::authority::{Authority, BACKDATED, Paths, ca_params, read, write};
use super::files::Access;
use super::identity::{certificates, inspect, x509};

/// What leads from the key before to the one in use.
#[derive(Debug)]
pub(super) struct Bridge {
    /// The pin of the key before.
    pub(super) previous: Pin,
    /// When the exchange began.
    pub(super) began_at: SystemTime,
    /// The new authority as the key before signed it, and the certificate of that key.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The same, as it stands in the file.
    pub(super) pem: String,
}

/// Reads the bridge to the key with this pin, if an exchange is under way. What an exchange left that did not get as far as
/// the new key is removed.
pub(super) fn find(paths: &Paths, pin: Pin) -> Result<Option<Bridge>, TlsError> {
    if paths.next_ca_key.exists() {
        tracing::warn!(path = %paths.next_ca_key.display(),
            "an exchange of the authority's key was cut short before the new key was in use: it is undone; ask for it again");
        remove(&paths.next_ca_key)?;
    }
    let Some(pem) = read(&paths.bridge)? else { return Ok(None) };
    let (leads_to, bridge) = parse(&paths.bridge, &pem)?;
    if leads_to == pin {
        return Ok(Some(bridge));
    }
    tracing::warn!(path = %paths.bridge.display(), "this file does not lead to ca.key: it is removed");
    remove(&paths.bridge)?;
    Ok(None)
}

/// Makes a new key for the authority, and its certificate. Afterwards the server's certificate is to be made anew.
pub(super) fn build(paths: &Paths, before: &Authority, now: SystemTime) -> Result<(), TlsError> {
    let built = try_build(paths, before, now);
    if built.is_err() && paths.next_ca_key.exists() {
        // What cannot be removed now is removed at the next start.
        let _ = remove(&paths.bridge).and_then(|()| remove(&paths.next_ca_key));
    }
    built
}

fn try_build(paths: &Paths, before: &Authority, now: SystemTime) -> Result<(), TlsError> {
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
    let placed = fs::rename(&paths.next_ca_key, &paths.ca_key).and_then(|()| flush(&paths.folder()));
    placed.map_err(|source| TlsError::Write { path: paths.ca_key.clone(), source })?;
    tracing::info!(%pin, previous = %before.pin, "the authority has a new key; proxies hear its pin over their streams");
    Ok(())
}

/// Takes the bridge away. Afterwards the server's certificate is to be made anew.
pub(super) fn take_down(paths: &Paths) -> Result<(), TlsError> {
    remove(&paths.bridge)
}

/// The pin to which a bridge leads, and the bridge.
fn parse(path: &Path, pem: &[u8]) -> Result<(Pin, Bridge), TlsError> {
    let chain = certificates(path, pem)?;
    let [signed, old] = &chain[..] else { return Err(TlsError::NoCertificate(path.to_owned())) };
    let pin = |der| Ok::<_, TlsError>(Pin::of_spki(x509(path, der)?.public_key().raw));
    let (leads_to, previous) = (pin(signed)?, pin(old)?);
    let (validity, _) = inspect(path, signed)?;
    let pem = String::from_utf8_lossy(pem).into_owned();
    Ok((leads_to, Bridge { previous, began_at: validity.from + BACKDATED, chain, pem }))
}

fn remove(path: &Path) -> Result<(), TlsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed
            .and_then(|()| flush(path.parent().unwrap_or(Path::new("."))))
            .map_err(|source| TlsError::Write { path: path.to_owned(), source }),
    }
}

fn flush(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
